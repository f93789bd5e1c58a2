package engine_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/caliper"
	"millrace/engine"
	"millrace/etl"
	"millrace/plan/plantest"
	"millrace/record"
)

// retentionJob runs the forum app without its second join, with versions kept for ten days and corrections made for correctFor.
func retentionJob(t *testing.T, correctFor time.Duration) (*job, *plantest.Clock, *memory) {
	clock, m := plantest.NewClock(), &memory{name: "index"}
	c := config(t, newLog(), m)
	var err error
	c.Plan, err = forumApp(func(a *etl.App, posts *etl.Table[post]) {
		a.Retention = 10 * 24 * time.Hour
		posts.Joins = []etl.Join{
			etl.JoinEntity(caliper.Thread).ToField("thread").On("entity.@id").Eq("event.object.isPartOf.id").CorrectFor(correctFor),
		}
	}).Plan()
	require.NoError(t, err)
	c.Now = clock.Now
	return start(t, c), clock, m
}

func threadOn(day int) record.Item {
	it := forumEntity("Thread", "t1", fmt.Sprint("f", day), "08:00")
	it.Bytes = fmt.Appendf(nil, `{"type":"Thread","id":"https://x.edu/t1","name":"day %03d","dateModified":%q}`, day, dayTime(day, 8))
	return it
}

func postOn(id string, day int) record.Item {
	it := forumEvent(id, "t1", "10:00")
	it.Bytes = fmt.Appendf(nil,
		`{"type":"MessageEvent","id":"urn:%s","actor":"https://x.edu/u","object":{"id":"%[1]s","isPartOf":{"id":"https://x.edu/t1"}},"eventTime":%q}`,
		id, dayTime(day, 10))
	return it
}

func dayTime(day, hour int) string {
	return time.Date(2026, 3, 2, hour, 0, 0, 0, time.UTC).AddDate(0, 0, day).Format(time.RFC3339)
}

// A thread that is described every day keeps the versions of ten days, one more, and those that a record may yet need.
func TestRetention(t *testing.T) {
	t.Parallel()
	j, clock, m := retentionJob(t, time.Hour)
	tick := func(items ...record.Item) {
		clock.Move(24 * time.Hour)
		j.log.append(0, items...)
		j.settle()
	}
	var most int64
	for day := range 60 {
		tick(threadOn(day))
		if day >= 12 {
			most = max(most, stage(t, j, "join/Thread/@id").ValueBytes)
		}
	}
	require.EqualValues(t, 60-11, j.e.Progress().Counters["versions_dropped"])
	require.LessOrEqual(t, stage(t, j, "join/Thread/@id").ValueBytes, most)

	// Ten days late is early enough; what comes later takes the earliest that is kept.
	tick(postOn("late", 49), postOn("later", 20), postOn("now", 60), postOn("before", 51))
	require.Equal(t, map[string]string{
		"late": "day 049, ", "later": "day 049, ", "now": "day 059, ", "before": "day 051, ",
	}, forumRows(t, j.c.Plan, "post", m.published()))
}

// Versions that a record in the list may need stay, however old they are.
func TestRetentionSparesWhatRecordsNeed(t *testing.T) {
	t.Parallel()
	j, clock, m := retentionJob(t, 100*24*time.Hour)
	j.log.append(0, threadOn(0), threadOn(5), postOn("old", 6))
	j.settle()
	for day := 10; day < 60; day++ {
		clock.Move(24 * time.Hour)
		j.log.append(0, threadOn(day))
		j.settle()
	}
	require.EqualValues(t, 1, j.e.Progress().Counters["versions_dropped"], "that of day 0: old is newer than its successor")
	require.Equal(t, map[string]string{"old": "day 005, "}, forumRows(t, j.c.Plan, "post", m.published()))
	j.log.append(0, threadOn(6)) // a better one
	j.settle()
	require.Equal(t, map[string]string{"old": "day 006, "}, forumRows(t, j.c.Plan, "post", m.published()))
}

// Order does not matter for what comes within the retention, as if all were kept.
func TestOrderDoesNotMatterWithinRetention(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	j, clock, m := retentionJob(t, 4*24*time.Hour)
	arrival := map[int][]record.Item{}
	want := map[string]string{}
	for day := range 40 {
		if day%2 == 0 {
			late := rng.IntN(4)
			arrival[day+late] = append(arrival[day+late], threadOn(day))
		}
		late := rng.IntN(10)
		id := fmt.Sprint("p", day)
		arrival[day+late] = append(arrival[day+late], postOn(id, day))
		want[id] = fmt.Sprintf("day %03d, ", day/2*2)
	}
	for day := range 50 {
		clock.Move(24 * time.Hour)
		j.log.append(0, arrival[day]...)
		j.settle()
	}
	j.wait("all", func(p engine.Progress) bool { return p.Counters["table.post.waiting"] == 0 })
	require.Equal(t, want, forumRows(t, j.c.Plan, "post", m.published()))
	require.Positive(t, j.e.Progress().Counters["versions_dropped"])
}
