package etl_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/caliper"
	"millrace/etl"
	"millrace/etl/etltest"
	"millrace/plan"
	"millrace/record"
)

type answer struct {
	Student string  `avro:"student"`
	Page    *string `avro:"page"`
	Name    *string `avro:"name"`
}

// answers is a table whose faults are those of its version: 1 fails on half the records in each of its functions, 2 on none.
func answers(version int) etl.Transformer {
	return etl.Table[answer]{
		Name: "answer", From: etl.Events(caliper.AssessmentItemEvent),
		Joins: []etl.Join{etl.JoinEntity(caliper.Person).ToField("person").On("entity.id").Eq("event.actor.id")},
		FlatMap: func(in etl.Record, emit func(etl.Record)) error {
			if version == 1 && in.String("event.object.name") == "flat" {
				return errors.New("no pages")
			}
			return in.Each("event.extensions.pages", func(v etl.Value) error {
				emit(in.With("page", v))
				return nil
			})
		},
		Map: func(r *etl.Reader) (answer, error) {
			page := etl.Opt[string](r, "page.id")
			switch {
			case version == 1 && page != nil && strings.HasPrefix(*page, "bad"):
				return answer{}, errors.New("bad page")
			case version == 1 && page != nil && strings.HasPrefix(*page, "panic"):
				panic("page")
			}
			return answer{r.String("event.actor.id"), page, etl.Opt[string](r, "person.name")}, nil
		},
	}
}

type pupil struct {
	ID   string `avro:"id"`
	Name string `avro:"name"`
}

func pupils(version int) etl.Transformer {
	return etl.Table[pupil]{
		Name: "person", From: etl.Entities(caliper.Person),
		Map: func(r *etl.Reader) (pupil, error) {
			if version == 1 && r.String("entity.name") == "Robert'); DROP TABLE" {
				return pupil{}, errors.New("no name")
			}
			return pupil{r.String("entity.id"), r.String("entity.name")}, nil
		},
	}
}

func school(t *testing.T, version int) *plan.Plan {
	t.Helper()
	app := etl.App{Name: "school-job", Version: fmt.Sprintf("%d.0.0", version), Tables: []etl.Transformer{answers(version), pupils(version)}}
	app.Extract = func(in etl.Record, _ func(etl.Value)) error {
		if version == 1 && in.String("event.object.name") == "unreadable" {
			return errors.New("cannot be extracted from")
		}
		return nil
	}
	p, err := app.Plan()
	require.NoError(t, err)
	return p
}

func answered(id, name, actor string, pages ...string) record.Item {
	for i, p := range pages {
		pages[i] = fmt.Sprintf(`{"id":%q}`, p)
	}
	it := event(fmt.Sprintf(`{"id":%q,"type":"AssessmentItemEvent","eventTime":"2018-08-27T12:00:00.000Z","actor":{"id":%q},"object":{"name":%q},"extensions":{"pages":[%s]}}`,
		id, actor, name, strings.Join(pages, ",")))
	it.ID = id
	return it
}

func described(id, name, modified string) record.Item {
	it := entity(fmt.Sprintf(`{"id":%q,"type":"Person","name":%q,"dateModified":%q}`, id, name, modified))
	it.ID = id
	return it
}

// replays are the items of the job's dead letters, as millrace replay feeds them again.
func replays(t *testing.T, j *etltest.Job, fed []record.Item) (items []record.Item) {
	t.Helper()
	letters := j.Rows(etl.DeadLetterTable)
	for id, row := range j.Newest(etl.DeadLetterTable) {
		letter, ok := letters[id]
		if !ok {
			continue
		}
		var it record.Item
		for _, f := range fed {
			if strings.Contains(row.Sources[0], " "+f.ID+" ") {
				it = f
			}
		}
		require.NotEmpty(t, it.Bytes, row.Sources)
		it.Replay = &record.Replay{
			App: "school-job", Letter: id, Table: letter["table_name"].(string), Stage: letter["stage"].(string), Rev: row.Rev + 1,
		}
		items = append(items, it)
	}
	return items
}

// balanced checks that every record is somewhere, once.
func balanced(t *testing.T, j *etltest.Job) {
	t.Helper()
	c := j.Counters
	require.Equal(t, c["read"], c["events"]+c["entities"]+c["filtered"]+c["rejects"]+c["unreadable"]+c["replayed"], "%v", c)
	letters := map[any]int64{}
	for _, l := range j.Rows(etl.DeadLetterTable) {
		letters[l["table_name"]]++
	}
	for _, table := range []string{"answer", "person"} {
		p := "table." + table + "."
		require.Equal(t, c[p+"in"], int64(len(j.Rows(table)))+letters[table]+c[p+"waiting"]+c[p+"dropped"]+c[p+"deleted"], "%s: %v", table, c)
	}
}

// A job whose first version failed on some records has, once they were replayed, the tables of one that never failed.
func TestReplay(t *testing.T) {
	t.Parallel()
	items := []record.Item{
		described("u1", "Ann", "2018-08-27T11:00:00.000Z"),
		described("u2", "Robert'); DROP TABLE", "2018-08-27T11:00:00.000Z"),
		answered("e1", "ok", "u1", "p1", "p2"),
		answered("e2", "ok", "u1", "bad1", "p3", "panic4"),
		answered("e3", "flat", "u1", "p5", "p6", "bad7"),
		answered("e4", "unreadable", "u1", "p8"),
		answered("e5", "ok", "u9", "bad9", "p10"), // nobody has described u9
	}
	for name, test := range map[string]struct {
		between func(j *etltest.Job) []record.Item // what happens between the failures and the replay
		letters int
		wait    time.Duration // after a replay, for records that wait anew
	}{
		"at once":              {func(*etltest.Job) []record.Item { return nil }, 5, 0},
		"when nothing is held": {func(j *etltest.Job) []record.Item { j.Advance(40 * 24 * time.Hour); return nil }, 6, 8 * 24 * time.Hour},
		"after a correction": {func(*etltest.Job) []record.Item {
			return []record.Item{described("u1", "Anne", "2018-08-27T11:30:00.000Z")}
		}, 5, 0},
		"after one that came late": {func(*etltest.Job) []record.Item {
			return []record.Item{described("u9", "Zoe", "2018-08-27T11:30:00.000Z")}
		}, 6, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := etltest.New(school(t, 1))
			fed := append([]record.Item{}, items...)
			j.Feed(items...)
			more := test.between(j)
			fed = append(fed, more...)
			j.Feed(more...)
			require.Len(t, j.Rows(etl.DeadLetterTable), test.letters)
			balanced(t, j)

			// A version that is no better: the letters stay, whatever their revision.
			first := replays(t, j, fed)
			j.Feed(first...)
			balanced(t, j)
			j.Advance(test.wait)
			require.Len(t, j.Rows(etl.DeadLetterTable), test.letters)
			balanced(t, j)

			j.Plan = school(t, 2)
			again := replays(t, j, fed)
			j.Feed(again...)
			j.Advance(test.wait)
			settle := func(j *etltest.Job) map[string]map[string]any {
				require.Empty(t, j.Rows(etl.DeadLetterTable))
				balanced(t, j)
				out := map[string]map[string]any{}
				for _, table := range []string{"answer", "person"} {
					for id, row := range j.Rows(table) {
						out[table+"/"+id] = row
					}
				}
				return out
			}
			want := etltest.New(school(t, 2))
			want.Feed(items...)
			want.Feed(test.between(want)...)
			require.Equal(t, settle(want), settle(j))

			// Once more, with the newest letters and with those that are long gone.
			before := j.Newest("answer")
			j.Feed(again...)
			j.Feed(first...)
			require.Equal(t, settle(want), settle(j))
			require.Equal(t, before, j.Newest("answer"), "not even a new revision")

			// What was replayed is corrected like any other row.
			late := described("u9", "Zoe Zett", "2018-08-27T11:45:00.000Z")
			j.Feed(late)
			want.Feed(late)
			j.Advance(40 * 24 * time.Hour)
			want.Advance(40 * 24 * time.Hour)
			require.Equal(t, settle(want), settle(j))
		})
	}
}

// A letter of another app, and one of a table that the app no longer has, stay.
func TestReplayOfOthers(t *testing.T) {
	t.Parallel()
	j := etltest.New(school(t, 1))
	bad := answered("e1", "flat", "u1", "p1")
	j.Feed(bad)
	require.Len(t, j.Rows(etl.DeadLetterTable), 1)
	for _, r := range replays(t, j, []record.Item{bad}) {
		for _, other := range []record.Replay{
			{App: "other-job", Letter: r.Replay.Letter, Table: r.Replay.Table, Stage: r.Replay.Stage, Rev: 1},
			{App: r.Replay.App, Letter: r.Replay.Letter, Table: "gone", Stage: r.Replay.Stage, Rev: 1},
		} {
			r.Replay = &other
			j.Feed(r)
		}
	}
	require.Len(t, j.Rows(etl.DeadLetterTable), 1)
	require.Empty(t, j.Rows("answer"))
	balanced(t, j)
}
