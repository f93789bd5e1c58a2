package millrace_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace"
	"millrace/caliper"
	"millrace/delivery"
	"millrace/etl"
	"millrace/eventlog"
	"millrace/eventlog/broker"
	"millrace/index"
	"millrace/lake"
	"millrace/plan"
	"millrace/record"
	"millrace/sink/elastic"
	"millrace/sink/topic"
)

type page struct {
	Student string `avro:"student"`
	Name    string `avro:"name"`
	Text    string `avro:"text"`
}

// pages is an app whose first version fails on some events, and makes a row that the index does not take of another.
func pages(t *testing.T, version int) *plan.Plan {
	t.Helper()
	p, err := etl.App{Name: "pages-job", Version: fmt.Sprintf("%d.0.0", version), Tables: []etl.Transformer{etl.Table[page]{
		Name: "page", From: etl.Events(caliper.NavigationEvent),
		Map: func(r *etl.Reader) (page, error) {
			name := r.String("event.object.name")
			switch {
			case version == 1 && strings.HasPrefix(name, "bad"):
				return page{}, errors.New("bad name")
			case version == 1 && strings.HasPrefix(name, "huge"):
				return page{r.String("event.actor.id"), name, strings.Repeat("x", 40_000)}, nil // longer than a term may be
			}
			return page{r.String("event.actor.id"), name, "text of " + name}, nil
		},
	}}}.Plan()
	require.NoError(t, err)
	return p
}

func visited(id int, name string) record.Item {
	return record.Item{
		Account: "acme", Env: "prod", SourceType: "LMS", Sensor: "s", Kind: record.Event, ID: fmt.Sprintf("urn:e:%d", id), ReceivedAt: time.Now(),
		Bytes: fmt.Appendf(nil, `{"id":"urn:e:%d","type":"NavigationEvent","eventTime":"2018-08-27T12:00:00.000Z","actor":{"id":"u%d"},"object":{"name":%q}}`, id, id, name),
	}
}

// stage is a log, a lake and an index, with one job at a time.
type stage struct {
	dir   string
	log   *eventlog.Log
	lake  *lake.Lake
	index string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{dir: t.TempDir()}
	b, err := broker.Open(broker.Config{Dir: filepath.Join(s.dir, "log")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	s.log, err = eventlog.Open(t.Context(), eventlog.Config{Brokers: []string{b.Addr()}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.log.Close()) })
	s.lake, err = lake.Open(t.Context(), lake.Config{Dir: filepath.Join(s.dir, "lake")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.lake.Close()) })
	x, err := index.Open(index.Config{Path: filepath.Join(s.dir, "index.duckdb")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, x.Close()) })
	server := httptest.NewServer(x)
	t.Cleanup(server.Close)
	s.index = server.URL
	return s
}

// run runs a version of the app until it has read the log and every sink has everything.
func (s *stage) run(t *testing.T, p *plan.Plan) map[string]int64 {
	t.Helper()
	j, err := millrace.OpenJob(t.Context(), millrace.JobConfig{
		Instance: millrace.Instance{Program: p.App, Account: "system", Env: "system", DataVersion: millrace.Unversioned},
		Plan:     p, Dir: filepath.Join(s.dir, "job"), Log: s.log, Lake: s.lake, IndexURL: s.index, TableTopics: true, Flush: 50 * time.Millisecond,
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	ends, err := s.log.Ends(ctx)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		p := j.Progress()
		for partition, end := range ends {
			if p.Offsets[partition] < end {
				return false
			}
		}
		for _, s := range p.Sinks {
			if s.PendingEpochs > 0 {
				return false
			}
		}
		return true
	}, 20*time.Second, 10*time.Millisecond)
	stop()
	require.NoError(t, <-done)
	counters := j.Progress().Counters
	require.NoError(t, j.Close())
	return counters
}

// rows are the rows of a table in the lake, by the column that tells them apart.
func (s *stage) rows(t *testing.T, table, by string) map[string]lake.Row {
	t.Helper()
	tbl, err := s.lake.Lookup(t.Context(), lake.Name{Namespace: "unversioned", Table: table})
	require.NoError(t, err)
	out := map[string]lake.Row{}
	for row, err := range tbl.Scan(t.Context(), lake.ScanOptions{}) {
		require.NoError(t, err)
		require.NotContains(t, out, row[by])
		out[fmt.Sprint(row[by])] = row
	}
	return out
}

// indexed are the revisions of a table's rows in the index, by id.
func indexed(t *testing.T, url, table string) map[string]int64 {
	t.Helper()
	x, err := delivery.NewIndex(url)
	require.NoError(t, err)
	out := map[string]int64{}
	for d, err := range x.Documents(t.Context(), table, elastic.RowID) {
		require.NoError(t, err)
		out[d.ID] = int64(d.Version & plan.MaxRev) //nolint:gosec // 54 bits
	}
	return out
}

// told are the revisions of a table's rows in its topic, by id.
func (s *stage) told(t *testing.T, table string) map[string]int64 {
	t.Helper()
	out, from := map[string]int64{}, map[string]bool{}
	for m, err := range topic.Read(t.Context(), s.log, "unversioned", table) {
		require.NoError(t, err)
		require.NoError(t, m.Err)
		require.NotContains(t, from, m.ID+m.From, "said twice")
		from[m.ID+m.From] = true
		delete(out, m.ID)
		if !m.Deleted {
			out[m.ID] = m.Row["_rev"].(int64)
		}
	}
	return out
}

func TestReplay(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	ctx := t.Context()
	var items []record.Item
	for i, name := range []string{"one", "bad two", "three", "bad four", "huge five"} {
		items = append(items, visited(i, name))
	}
	require.NoError(t, s.log.Append(ctx, items))
	s.run(t, pages(t, 1))
	letters := s.rows(t, etl.DeadLetterTable, "_id")
	var stages []string
	for _, l := range letters {
		stages = append(stages, l["stage"].(string))
	}
	require.ElementsMatch(t, []string{"map", "map", "sink/elastic"}, stages, "a dead letter each, and one of the row that the index refused")
	require.Len(t, s.rows(t, "page", "name"), 3, "the lake took the row that the index refused")
	before := s.rows(t, "page", "name")["one"]

	which := millrace.ReplayConfig{App: "pages-job", Namespace: "unversioned", Log: s.log, Lake: s.lake}
	none := which
	none.Letters = []string{"nobody"}
	_, err := millrace.Replay(ctx, none)
	require.EqualError(t, err, "there is no dead letter nobody in the lake; 'millrace rows dead_letter' lists them")

	// The version that failed fails again.
	n, err := millrace.Replay(ctx, which)
	require.NoError(t, err)
	require.Equal(t, 3, n)
	counters := s.run(t, pages(t, 1))
	require.ElementsMatch(t, slices.Collect(maps.Keys(letters)), slices.Collect(maps.Keys(s.rows(t, etl.DeadLetterTable, "_id"))))
	require.Len(t, s.rows(t, "page", "name"), 3)
	require.EqualValues(t, 5, counters["table.page.in"])

	// One that does better makes rows of them, and of nothing else. Replaying them all twice before it starts is replaying once.
	for range 2 {
		n, err = millrace.Replay(ctx, which)
		require.NoError(t, err)
		require.Equal(t, 3, n)
	}
	counters = s.run(t, pages(t, 2))
	require.Empty(t, s.rows(t, etl.DeadLetterTable, "_id"))
	rows := s.rows(t, "page", "name")
	require.ElementsMatch(t, []string{"one", "bad two", "three", "bad four", "huge five"}, slices.Collect(maps.Keys(rows)))
	require.Equal(t, "text of huge five", rows["huge five"]["text"])
	require.Equal(t, before, rows["one"], "what was no dead letter was not made again")
	require.EqualValues(t, 5, counters["table.page.in"])

	// All targets agree.
	revs := map[string]int64{}
	for _, row := range rows {
		revs[row["_id"].(string)] = row["_rev"].(int64)
	}
	require.Equal(t, revs, s.told(t, "page"))
	require.Equal(t, revs, indexed(t, s.index, "page"))
	require.Empty(t, s.told(t, etl.DeadLetterTable))
	require.Empty(t, indexed(t, s.index, etl.DeadLetterTable))

	n, err = millrace.Replay(ctx, which)
	require.NoError(t, err)
	require.Zero(t, n)
}
