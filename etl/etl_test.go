package etl_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/caliper"
	"millrace/etl"
	"millrace/etl/etltest"
	"millrace/record"
)

type submission struct {
	AttemptID *string   `avro:"attemptId"`
	CourseID  string    `avro:"courseId"`
	Graded    time.Time `avro:"dateAndTime"`
	Role      *string   `avro:"role"`
	Score     float64   `avro:"score"`
	StudentID string    `avro:"studentId"`
}

var (
	activity = etl.JoinEntity(caliper.AssignableDigitalResource).ToField("activity").
			On("entity.@id").Eq("event.object.assignable.@id")
	enrollment = etl.JoinEntity(caliper.Membership).ToField("enrollment").
			On("entity.member.@id").Eq("event.generated.actor.@id").
			And("entity.organization.@id").Eq("activity.extensions.courseSection.@id")
)

func mapSubmission(r *etl.Reader) (submission, error) {
	return submission{
		AttemptID: etl.Opt[string](r, "event.object.@id"),
		CourseID:  r.String("activity.extensions.courseSection.subOrganizationOf.@id"),
		Graded:    r.EventTime(),
		Role:      etl.OptTerm(r, "enrollment.roles.0"),
		Score:     r.Float("event.generated.totalScore", 0),
		StudentID: r.String("event.generated.actor.@id"),
	}, nil
}

func submissions(joins ...etl.Join) etl.Table[submission] {
	return etl.Table[submission]{
		Name: "quiz_submission", From: etl.Events(caliper.OutcomeEvent), Joins: joins, Map: mapSubmission,
	}
}

func job(t *testing.T, tables ...etl.Transformer) *etltest.Job {
	t.Helper()
	p, err := etl.App{Name: "test-job", Version: "1.0.0", Tables: tables}.Plan()
	require.NoError(t, err)
	return etltest.New(p)
}

var sent = time.Date(2018, 8, 27, 12, 0, 0, 0, time.UTC)

func item(kind record.Kind, json string) record.Item {
	return record.Item{Account: "deepthought", Env: "deepthought3", SourceType: "EDGENUITY_LMS", Kind: kind, SendTime: sent, ReceivedAt: sent, Bytes: []byte(json)}
}

func event(json string) record.Item  { return item(record.Event, json) }
func entity(json string) record.Item { return item(record.Entity, json) }

// The records that the talk prints, in their first revision and with a second version of each entity.
const (
	attempt = `{"@type":"http://purl.imsglobal.org/caliper/v1/OutcomeEvent","generated":{"actor":{"@id":"https://example.edu/users/554433"},"totalScore":92.4},"object":{"assignable":{"@id":"https://example.edu/terms/201801/courses/7/sections/1/assign/2"}}}`

	assignmentFormat = `{"@type":"http://purl.imsglobal.org/caliper/v1/AssignableDigitalResource","@id":"https://example.edu/terms/201801/courses/7/sections/1/assign/2","dateModified":%q,"extensions":{"courseSection":{"@id":"https://example.edu/terms/201801/courses/7/sections/%d","subOrganizationOf":{"@id":"https://example.edu/terms/201801/courses/%d"}}}}`

	membershipFormat = `{"@type":"http://purl.imsglobal.org/caliper/v1/lis/Membership","dateModified":%q,"member":{"@id":"https://example.edu/users/554433","type":"Person"},"organization":{"@id":"https://example.edu/terms/201801/courses/7/sections/%d","type":"CourseSection"},"roles":[%q]}`
)

func assignment(modified string, section, course int) record.Item {
	return entity(fmt.Sprintf(assignmentFormat, modified, section, course))
}

func membership(modified string, section int, role string) record.Item {
	return entity(fmt.Sprintf(membershipFormat, modified, section, role))
}

func only(t *testing.T, rows map[string]map[string]any) map[string]any {
	t.Helper()
	require.Len(t, rows, 1)
	for _, r := range rows {
		return r
	}
	return nil
}

func permute(items []record.Item, fn func([]record.Item)) {
	var rec func(done, rest []record.Item)
	rec = func(done, rest []record.Item) {
		if len(rest) == 0 {
			fn(done)
			return
		}
		for i := range rest {
			var others []record.Item
			others = append(append(others, rest[:i]...), rest[i+1:]...)
			rec(append(done[:len(done):len(done)], rest[i]), others)
		}
	}
	rec(nil, items)
}

// Whatever the order, also with two versions of each entity, an assignment that moves to another section and a redelivered
// event, the row is the same.
func TestArrivalOrderDoesNotMatter(t *testing.T) {
	t.Parallel()
	items := []record.Item{
		event(attempt),
		event(attempt),
		assignment("2018-08-01T00:00:00Z", 1, 7),
		assignment("2018-08-02T00:00:00Z", 2, 8), // valid at the event's time, the newest such
		assignment("2018-09-01T00:00:00Z", 3, 9), // later than the event
		membership("2018-08-01T00:00:00Z", 1, "Instructor"),
		membership("2018-08-01T00:00:00Z", 2, "Learner"),
	}
	n := 0
	permute(items, func(items []record.Item) {
		n++
		j := job(t, submissions(activity, enrollment))
		for _, it := range items {
			j.Feed(it)
		}
		row := only(t, j.Rows("quiz_submission"))
		require.Equal(t, "Learner", *ptr(row["role"]), "order %d", n)
		require.Equal(t, 92.4, row["score"])
		require.Equal(t, "https://example.edu/terms/201801/courses/8", row["courseId"])
		require.Empty(t, j.Rows(etl.DeadLetterTable))
		require.Equal(t, int64(1), j.Counters["table.quiz_submission.in"])
		require.Equal(t, int64(0), j.Counters["table.quiz_submission.waiting"])
		require.Equal(t, int64(1), j.Counters["duplicates"])
	})
	require.Equal(t, 5040, n)
}

// The same when everything comes in one epoch.
func TestOneEpochIsAsGoodAsMany(t *testing.T) {
	t.Parallel()
	items := []record.Item{
		event(attempt), assignment("2018-08-01T00:00:00Z", 1, 7), assignment("2018-08-02T00:00:00Z", 2, 8),
		membership("2018-08-01T00:00:00Z", 1, "Instructor"), membership("2018-08-01T00:00:00Z", 2, "Learner"),
	}
	permute(items, func(items []record.Item) {
		j := job(t, submissions(activity, enrollment))
		j.Feed(items...)
		row := only(t, j.Rows("quiz_submission"))
		require.Equal(t, "Learner", *ptr(row["role"]))
		require.Equal(t, "https://example.edu/terms/201801/courses/8", row["courseId"])
	})
}

// An assignment that moves to a section whose membership is not there takes its row back until it is: as if it had been there from
// the start.
func TestCorrectionThatMustWaitWithdrawsTheRow(t *testing.T) {
	t.Parallel()
	j := job(t, submissions(activity, enrollment))
	j.Feed(event(attempt), assignment("2018-08-01T00:00:00Z", 1, 7), membership("2018-08-01T00:00:00Z", 1, "Instructor"))
	require.Equal(t, "Instructor", *ptr(only(t, j.Rows("quiz_submission"))["role"]))

	j.Feed(assignment("2018-08-02T00:00:00Z", 2, 8))
	require.Empty(t, j.Rows("quiz_submission"))
	require.Equal(t, int64(1), j.Counters["table.quiz_submission.waiting"])

	j.Feed(membership("2018-08-01T00:00:00Z", 2, "Learner"))
	require.Equal(t, "Learner", *ptr(only(t, j.Rows("quiz_submission"))["role"]))
	require.Equal(t, int64(0), j.Counters["table.quiz_submission.waiting"])

	// What it left behind in the first section no longer concerns it.
	j.Feed(membership("2018-08-02T00:00:00Z", 1, "Mentor"))
	require.Equal(t, "Learner", *ptr(only(t, j.Rows("quiz_submission"))["role"]))
}

func TestWaitForElse(t *testing.T) {
	t.Parallel()
	enrolled := func(p etl.Policy) etl.Join { return enrollment.WaitFor(time.Hour).Else(p) }

	t.Run("emit with nulls, correct later", func(t *testing.T) {
		t.Parallel()
		j := job(t, submissions(activity, enrolled(etl.EmitNulls)))
		j.Feed(event(attempt), assignment("2018-08-01T00:00:00Z", 1, 7))
		j.Advance(59 * time.Minute)
		require.Empty(t, j.Rows("quiz_submission"))
		j.Advance(6 * time.Minute)
		require.Nil(t, ptr(only(t, j.Rows("quiz_submission"))["role"]))
		require.Equal(t, int64(0), j.Counters["table.quiz_submission.waiting"])

		j.Feed(membership("2018-08-01T00:00:00Z", 1, "Learner"))
		require.Equal(t, "Learner", *ptr(only(t, j.Rows("quiz_submission"))["role"]))
	})
	t.Run("dead-letter, mended later", func(t *testing.T) {
		t.Parallel()
		j := job(t, submissions(activity, enrolled(etl.DeadLetter)))
		j.Feed(event(attempt), assignment("2018-08-01T00:00:00Z", 1, 7))
		j.Advance(65 * time.Minute)
		require.Empty(t, j.Rows("quiz_submission"))
		letter := only(t, j.Rows(etl.DeadLetterTable))
		require.Equal(t, []string{"join enrollment: no Membership came within 1h0m0s"}, letter["reasons"])
		require.Equal(t, attempt, string(letter["record"].([]byte)))

		j.Feed(membership("2018-08-01T00:00:00Z", 1, "Learner"))
		require.Equal(t, "Learner", *ptr(only(t, j.Rows("quiz_submission"))["role"]))
		require.Empty(t, j.Rows(etl.DeadLetterTable))
	})
	t.Run("drop", func(t *testing.T) {
		t.Parallel()
		j := job(t, submissions(activity, enrolled(etl.Drop)))
		j.Feed(event(attempt), assignment("2018-08-01T00:00:00Z", 1, 7))
		j.Advance(65 * time.Minute)
		require.Empty(t, j.Rows("quiz_submission"))
		require.Equal(t, int64(1), j.Counters["table.quiz_submission.dropped"])

		j.Feed(membership("2018-08-01T00:00:00Z", 1, "Learner"))
		require.Len(t, j.Rows("quiz_submission"), 1)
		require.Equal(t, int64(0), j.Counters["table.quiz_submission.dropped"])
	})
}

func TestCorrectForEnds(t *testing.T) {
	t.Parallel()
	j := job(t, submissions(activity.CorrectFor(time.Hour), enrollment))
	j.Feed(event(attempt), assignment("2018-08-01T00:00:00Z", 1, 7), membership("2018-08-01T00:00:00Z", 1, "Learner"))
	j.Advance(2 * time.Hour)
	j.Feed(assignment("2018-08-02T00:00:00Z", 1, 8))
	require.Equal(t, "https://example.edu/terms/201801/courses/7", only(t, j.Rows("quiz_submission"))["courseId"])

	off := job(t, submissions(activity.CorrectFor(0), enrollment.CorrectFor(0)))
	off.Feed(event(attempt), assignment("2018-08-01T00:00:00Z", 1, 7), membership("2018-08-01T00:00:00Z", 1, "Learner"))
	off.Feed(assignment("2018-08-02T00:00:00Z", 1, 8))
	require.Equal(t, "https://example.edu/terms/201801/courses/7", only(t, off.Rows("quiz_submission"))["courseId"])
}

func TestSameIDWithOtherContentIsKept(t *testing.T) {
	t.Parallel()
	with := func(score string) record.Item {
		return event(`{"type":"OutcomeEvent","id":"urn:uuid:1","generated":{"actor":"https://example.edu/users/1","totalScore":` + score + `},"eventTime":"2018-08-27T12:00:00Z","object":{"assignable":"https://example.edu/a"}}`)
	}
	j := job(t, etl.Table[submission]{Name: "quiz_submission", From: etl.Events(caliper.OutcomeEvent), Map: func(r *etl.Reader) (submission, error) {
		return submission{Score: r.Float("event.generated.totalScore"), StudentID: r.String("event.generated.actor.@id")}, nil
	}})
	j.Feed(with("1"), with("2"), with("1.0"))
	require.Len(t, j.Rows("quiz_submission"), 2)
	require.Equal(t, int64(1), j.Counters["conflicts"])
	require.Equal(t, int64(1), j.Counters["duplicates"])
}

func TestDeadLetterHasEveryReason(t *testing.T) {
	t.Parallel()
	type row struct {
		A string
		B float64
		C time.Time
	}
	j := job(t, etl.Table[row]{Name: "strict", From: etl.Events(caliper.OutcomeEvent), Map: func(r *etl.Reader) (row, error) {
		return row{r.String("event.a"), r.Float("event.b"), r.Time("event.c")}, nil
	}}, etl.Table[row]{Name: "panics", From: etl.Events(caliper.OutcomeEvent), Map: func(r *etl.Reader) (row, error) {
		list := []string{"a"}
		return row{A: list[1+r.Int("event.b", 3)]}, nil
	}})
	const bad = `{"type":"OutcomeEvent","b":"12","c":"yesterday"}`
	j.Feed(event(bad), event(`{"type":"OutcomeEvent"`), entity(`{"id":"x"}`))
	var reasons []string
	for _, l := range j.Rows(etl.DeadLetterTable) {
		for _, r := range l["reasons"].([]string) {
			reasons = append(reasons, l["table_name"].(string)+": "+r)
		}
	}
	require.Len(t, reasons, 7, "%q", reasons)
	require.Contains(t, reasons, "strict: event.a: is missing, and the column is required")
	require.Contains(t, reasons, ": type: is missing or not a string")
	require.Equal(t, int64(2), j.Counters["unreadable"])
	require.Empty(t, j.Rows("strict"))
}

func TestUnwind(t *testing.T) {
	t.Parallel()
	type answer struct{ Item, Value string }
	j := job(t, etl.Table[answer]{
		Name: "answer", From: etl.Events(caliper.AssessmentItemEvent).Actions("Completed"),
		FlatMap: func(in etl.Record, emit func(etl.Record)) error {
			if in.String("event.object.id") == "boom" {
				panic("boom")
			}
			return in.Each("event.generated.values", func(v etl.Value) error {
				emit(in.With("value", v))
				return nil
			})
		},
		Map: func(r *etl.Reader) (answer, error) {
			return answer{r.String("event.object.id"), r.String("value")}, nil
		},
	})
	j.Feed(
		event(`{"type":"AssessmentItemEvent","action":"Completed","object":{"id":"q1"},"generated":{"values":["a","b"]}}`),
		event(`{"type":"AssessmentItemEvent","action":"Started","object":{"id":"q1"},"generated":{"values":["c"]}}`),
		event(`{"type":"AssessmentItemEvent","action":"Completed","object":{"id":"boom"},"generated":{"values":["d"]}}`),
	)
	rows := j.Rows("answer")
	require.Len(t, rows, 2)
	require.Equal(t, []string{"panic: boom"}, only(t, j.Rows(etl.DeadLetterTable))["reasons"])
	require.Equal(t, int64(1), j.Counters["filtered"])
}

func TestEntityTableHoldsTheNewestVersion(t *testing.T) {
	t.Parallel()
	type person struct{ Name string }
	table := etl.Table[person]{Name: "person", From: etl.Entities(caliper.Person), Map: func(r *etl.Reader) (person, error) {
		return person{r.String("entity.name")}, nil
	}}
	v := func(day int, name string) record.Item {
		return entity(fmt.Sprintf(`{"type":"Person","id":"https://example.edu/users/1","name":%q,"dateModified":"2018-08-%02dT00:00:00Z"}`, name, day))
	}
	permute([]record.Item{v(1, "Ann"), v(2, "Anna"), v(3, "Ann"), v(3, "Ann")}, func(items []record.Item) {
		j := job(t, table)
		for _, it := range items {
			j.Feed(it)
		}
		require.Equal(t, "Ann", only(t, j.Rows("person"))["Name"])
		require.Equal(t, int64(1), j.Counters["table.person.in"])
		require.Equal(t, int64(1), j.Counters["duplicates"])
	})
}

func TestTenantsDoNotMeet(t *testing.T) {
	t.Parallel()
	j := job(t, submissions(activity, enrollment))
	foreign := assignment("2018-08-01T00:00:00Z", 1, 7)
	foreign.Account = "magrathea"
	j.Feed(event(attempt), foreign)
	require.Equal(t, int64(1), j.Counters["table.quiz_submission.waiting"])
}

func TestHarvestAndDelete(t *testing.T) {
	t.Parallel()
	p, err := etl.App{
		Name: "test-job", Version: "1.0.0", Harvest: []etl.Path{"event.object"},
		Tables: []etl.Transformer{submissions(activity, enrollment)},
	}.Plan()
	require.NoError(t, err)
	carried := func(action string, at string) record.Item {
		m := membership("2018-08-01T00:00:00Z", 1, "Learner")
		return event(fmt.Sprintf(`{"type":"Event","action":%q,"eventTime":%q,"object":%s}`, action, at, m.Bytes))
	}
	permute([]record.Item{
		event(attempt), assignment("2018-08-01T00:00:00Z", 1, 7), carried("Created", "2018-08-01T00:00:00Z"), carried("Deleted", "2018-08-26T00:00:00Z"),
	}, func(items []record.Item) {
		j := etltest.New(p)
		for _, it := range items {
			j.Feed(it)
		}
		require.Empty(t, j.Rows("quiz_submission"), "the membership had ended when the quiz was graded")
		require.Equal(t, int64(1), j.Counters["table.quiz_submission.waiting"])
	})
}

// What Extract finds in an event is as good as a description. An event that it panics on is a dead letter.
func TestExtract(t *testing.T) {
	t.Parallel()
	p, err := etl.App{
		Name: "test-job", Version: "1.0.0", Tables: []etl.Transformer{submissions(activity, enrollment)},
		Extract: func(in etl.Record, emit func(etl.Value)) error {
			if in.String("event.object") == "boom" {
				panic("boom")
			}
			return in.Each("event.extensions.roster", func(v etl.Value) error {
				emit(v)
				return nil
			})
		},
	}.Plan()
	require.NoError(t, err)
	m := membership("2018-08-01T00:00:00Z", 1, "Learner")
	roster := event(fmt.Sprintf(`{"type":"Event","eventTime":"2018-08-01T00:00:00Z","extensions":{"roster":["nobody",%s]}}`, m.Bytes))
	permute([]record.Item{event(attempt), assignment("2018-08-01T00:00:00Z", 1, 7), roster}, func(items []record.Item) {
		j := etltest.New(p)
		for _, it := range items {
			j.Feed(it)
		}
		require.Equal(t, "Learner", *ptr(only(t, j.Rows("quiz_submission"))["role"]))
		require.Equal(t, int64(1), j.Counters["harvested"])
	})
	j := etltest.New(p)
	j.Feed(event(`{"type":"Event","object":"boom"}`), event(`{"type":"Event","object":"other"}`))
	require.Equal(t, []string{"extract: panic: boom"}, only(t, j.Rows(etl.DeadLetterTable))["reasons"])
	require.Equal(t, int64(1), j.Counters["filtered"])
}

func TestRefusedAtStart(t *testing.T) {
	t.Parallel()
	type row struct{ A map[string]int }
	for want, table := range map[string]etl.Transformer{
		"field A of etl_test.row has type map[string]int": etl.Table[row]{
			Name: "t", From: etl.Events("E"), Map: func(*etl.Reader) (row, error) { return row{}, nil },
		},
		`Eq("activity.extensions.courseSection.@id") leads into "activity", which the record does not have there`: submissions(enrollment),
		`ToField("activity"): the name is taken`: submissions(activity, activity),
		"From names no type":                     etl.Table[submission]{Name: "t", Map: mapSubmission},
		`"Bad Name"`:                             etl.Table[submission]{Name: "Bad Name", From: etl.Events("E"), Map: mapSubmission},
		"the name belongs to the framework":      etl.Table[submission]{Name: "dead_letter", From: etl.Events("E"), Map: mapSubmission},
		"Map is missing":                         etl.Table[submission]{Name: "t", From: etl.Events("E")},
	} {
		_, err := etl.App{Name: "test-job", Tables: []etl.Transformer{table}}.Plan()
		require.ErrorContains(t, err, want)
	}
}

// Two tables whose joins are alike share a state; one that needs them in the other order gets a copy.
func TestJoinRegistry(t *testing.T) {
	t.Parallel()
	person := func(field string, of etl.Path) etl.Join {
		return etl.JoinEntity(caliper.Person).ToField(field).On("entity.@id").Eq(of)
	}
	type r struct{ A int64 }
	m := func(*etl.Reader) (r, error) { return r{}, nil }
	p, err := etl.App{Name: "test-job", Tables: []etl.Transformer{
		etl.Table[r]{Name: "a", From: etl.Events("E"), Joins: []etl.Join{person("student", "event.actor.@id"), person("teacher", "event.object.@id")}, Map: m},
		etl.Table[r]{Name: "b", From: etl.Events("E"), Joins: []etl.Join{person("someone", "event.actor.@id")}, Map: m},
	}}.Plan()
	require.NoError(t, err)
	var names []string
	for _, s := range p.Stages {
		names = append(names, s.Name)
	}
	require.Equal(t, []string{"dedup", "join/Person/@id", "join/Person/@id#2", "base", "map"}, names)
}

func ptr(v any) *string {
	if v == nil {
		return nil
	}
	s := v.(string)
	return &s
}
