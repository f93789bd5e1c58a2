package engine_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/plan"
	"millrace/plan/plantest"
	"millrace/record"
	"millrace/sink"
)

// work counts what a plan's keyed stages are given: what an engine has to look up for them.
type work struct{ keys, items atomic.Int64 }

func (w *work) watch(p *plan.Plan) *plan.Plan {
	for i := range p.Stages {
		if keyed := p.Stages[i].Keyed; keyed != nil {
			p.Stages[i].Keyed = func(clock plan.Clock, keys []*plan.Key, out *plan.Output) {
				w.keys.Add(int64(len(keys)))
				for _, k := range keys {
					w.items.Add(int64(len(k.List)))
				}
				keyed(clock, keys, out)
			}
		}
	}
	return p
}

// since returns what was counted since the last call.
func (w *work) since() (keys, items int64) { return w.keys.Swap(0), w.items.Swap(0) }

// Records that wait, for one entity or for many, cost those that do not wait nothing: their stages are given as many keys as
// without them, and no list. MILLRACE_WAITING says how many wait (default 20,000 for one entity, and as many for one each).
func TestWaitingRecordsDoNotSlowTheRest(t *testing.T) {
	t.Parallel()
	n := waiting(t, 20_000)
	w := &work{}
	clock, m := plantest.NewClock(), &memory{name: "index"}
	c := config(t, newLog(), m)
	c.Now, c.MaxEpoch, c.MemTableBytes = clock.Now, 0, 4<<20
	p, err := forumApp(nil).Plan()
	require.NoError(t, err)
	c.Plan = w.watch(p)
	c.Registerer = prometheus.NewRegistry()
	j := start(t, c)
	j.log.append(0, forumEntity("Thread", "t1", "f1", "08:00"), forumEntity("Forum", "f1", "x", "08:00"))
	j.settle()

	unrelated := func(name string) (keys int64) {
		w.since()
		var items []record.Item
		for i := range 1000 {
			items = append(items, forumEvent(fmt.Sprint(name, i), "t1", "10:00"))
		}
		j.log.append(0, items...)
		j.settle()
		keys, listed := w.since()
		require.Zero(t, listed, "lists were read")
		return keys
	}
	before := unrelated("before")
	feed(j, n, func(i int) record.Item { return forumEvent(fmt.Sprint("hot", i), "hot", "10:00") })
	feed(j, n, func(i int) record.Item { return forumEvent(fmt.Sprint("each", i), fmt.Sprint("each", i), "10:00") })
	require.Equal(t, engine.StageProgress{
		Name: "join/Thread/@id", Keys: 1, ValueBytes: stage(t, j, "join/Thread/@id").ValueBytes,
		Items: int64(2*n) + 1000, ItemBytes: stage(t, j, "join/Thread/@id").ItemBytes, // those of before may still be corrected
	}, stage(t, j, "join/Thread/@id"))
	require.Greater(t, stage(t, j, "join/Thread/@id").ItemBytes, int64(2*n*50))
	// An epoch more or less makes a few keys more or less.
	require.InDelta(t, before, unrelated("beside"), 50)

	// The entity reads the list once, and no other.
	w.since()
	j.log.append(0, forumEntity("Thread", "hot", "f1", "08:00"))
	j.wait("the release", func(p engine.Progress) bool { return p.Counters["table.post.waiting"] == int64(n) })
	_, listed := w.since()
	require.EqualValues(t, n, listed)
	j.settle()
	require.EqualValues(t, n+2000, j.e.Progress().Counters["table.post.rows"])
	j.stop()
	kept, err := engine.ReadProgress(c.FS, c.Dir)
	require.NoError(t, err)
	require.Equal(t, j.e.Progress().Stages, kept.Stages)
}

func stage(t *testing.T, j *job, name string) engine.StageProgress {
	t.Helper()
	for _, s := range j.e.Progress().Stages {
		if s.Name == name {
			return s
		}
	}
	require.FailNow(t, "no stage "+name)
	return engine.StageProgress{}
}

func waiting(t testing.TB, n int) int {
	if s := os.Getenv("MILLRACE_WAITING"); s != "" {
		var err error
		n, err = strconv.Atoi(s)
		require.NoError(t, err, "MILLRACE_WAITING")
	}
	return n
}

// feed appends items and waits until they are committed.
func feed(j *job, n int, item func(i int) record.Item) {
	read := j.e.Progress().Read
	for from := 0; from < n; from += 10_000 {
		var items []record.Item
		for i := from; i < min(from+10_000, n); i++ {
			items = append(items, item(i))
		}
		j.log.append(0, items...)
		j.wait("the items", func(p engine.Progress) bool { return p.Read >= read+int64(from) })
	}
	j.settle()
}

// State that goes leaves the sizes too.
func TestSizesOfStages(t *testing.T) {
	t.Parallel()
	clock, m := plantest.NewClock(), &memory{name: "index"}
	c := config(t, newLog(), m)
	c.Now = clock.Now
	j := start(t, c)
	j.log.append(0, plantest.Event("a", "1234567"), plantest.Event("a", "12"), plantest.Event("b", "123"))
	j.settle()
	require.Equal(t, []engine.StageProgress{{Name: "join", Items: 3, ItemBytes: 12}, {Name: "letter"}, {Name: "total"}}, j.e.Progress().Stages)
	j.log.append(0, plantest.Entity("a"))
	j.settle()
	require.Equal(t, []engine.StageProgress{
		{Name: "join", Keys: 1, ValueBytes: int64(len("known")), Items: 1, ItemBytes: 3},
		{Name: "letter", Keys: 1, ValueBytes: 1},
		{Name: "total", Keys: 1, ValueBytes: 3},
	}, j.e.Progress().Stages)
	clock.Move(2 * plantest.Wait)
	j.wait("the timer", func(p engine.Progress) bool { return p.Counters["late"] == 1 })
	require.Zero(t, stage(t, j, "join").Items)
	require.Zero(t, stage(t, j, "join").ItemBytes)
}

// BenchmarkBesideWaiting is the time of a record that joins at once, while none and while many wait.
func BenchmarkBesideWaiting(b *testing.B) {
	for _, n := range []int{0, waiting(b, 100_000)} {
		b.Run(fmt.Sprintf("waiting=%d", n), func(b *testing.B) {
			p, err := forumApp(nil).Plan()
			require.NoError(b, err)
			l := newLog()
			reached, want := make(chan struct{}, 1), atomic.Int64{}
			e, err := engine.Open(b.Context(), engine.Config{
				Dir: b.TempDir() + "/job", Plan: p, Instance: "waiting", Source: l, Sinks: []sink.Sink{discard{&memory{}}}, CheckpointEvery: -1,
				OnEpoch: func(p engine.Progress) {
					if p.Read == want.Load() {
						reached <- struct{}{}
					}
				},
			})
			require.NoError(b, err)
			ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
			done := make(chan error, 1)
			go func() { done <- e.Run(ctx) }()
			read := func(n int, item func(i int) record.Item) {
				want.Add(int64(n))
				for from := 0; from < n; from += 10_000 {
					var items []record.Item
					for i := from; i < min(from+10_000, n); i++ {
						items = append(items, item(i))
					}
					l.append(0, items...)
				}
				<-reached
			}
			read(2, func(i int) record.Item {
				return forumEntity([]string{"Thread", "Forum"}[i], []string{"t1", "f1"}[i], "f1", "08:00")
			})
			if n > 0 {
				read(n, func(i int) record.Item { return forumEvent(fmt.Sprint("hot", i), "hot", "10:00") })
				read(n, func(i int) record.Item { return forumEvent(fmt.Sprint("each", i), fmt.Sprint("each", i), "10:00") })
			}
			b.ResetTimer()
			read(b.N, func(i int) record.Item { return forumEvent(fmt.Sprint("beside", i), "t1", "10:00") })
			b.StopTimer()
			cancel()
			require.NoError(b, <-done)
			require.NoError(b, e.Close())
		})
	}
}

// discard is a sink that forgets.
type discard struct{ *memory }

func (discard) Name() string                                                 { return "discard" }
func (discard) Publish(context.Context, sink.Batch) ([]sink.Rejected, error) { return nil, nil }
