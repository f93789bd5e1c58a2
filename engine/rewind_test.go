package engine_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/plan"
	"millrace/plan/plantest"
	"millrace/sink"
)

// archive is a sink in memory that goes back by itself, and notes what it was asked to keep.
type archive struct {
	memory
	lineage sink.Lineage
	kept    []sink.Point
}

func (a *archive) Begin(_ context.Context, l sink.Lineage, past sink.Past) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if past != nil {
		return errors.New("an archive was given a past")
	}
	again := a.lineage.ID == l.ID
	a.lineage = l
	if start, forked := l.Start(); forked && !again {
		a.rows = slices.DeleteFunc(a.rows, func(r plan.Row) bool { return r.Epoch > start.Epoch })
	}
	return nil
}

func (a *archive) Keep(_ context.Context, points []sink.Point) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kept = points
	return nil
}

func (a *archive) keeps() []sink.Point {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.kept)
}

func (a *archive) Past(_ context.Context, l sink.Lineage) (sink.Past, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lineage.ID != l.ID {
		return nil, fmt.Errorf("the past of %s is asked for before it has begun", l.ID)
	}
	return past(slices.Clone(a.rows)), nil
}

type past []plan.Row

func (past) Tables() []plan.Table { return nil }
func (past) Rows(context.Context, int) iter.Seq2[sink.PastRow, error] {
	return func(func(sink.PastRow, error) bool) {}
}

// index is a sink that needs the archive's past.
type index struct {
	memory
	begins []sink.Lineage
	pasts  []sink.Past
}

func (x *index) Begin(_ context.Context, l sink.Lineage, p sink.Past) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.begins, x.pasts = append(x.begins, l), append(x.pasts, p)
	if rows, ok := p.(past); ok {
		x.rows = rows
	}
	return nil
}

func TestSinksBeginTheLineage(t *testing.T) {
	t.Parallel()
	items := plantest.ToyItems(120, 5)
	a, x := &archive{memory: memory{name: "lake"}}, &index{memory: memory{name: "index"}}
	clock := plantest.NewClock()
	c := config(t, newLog(), x, a)
	c.Now, c.Savepoints = clock.Now, "savepoints"
	j := start(t, c)
	j.log.append(0, items[:60]...)
	j.settle()
	require.NoError(t, j.e.Savepoint(t.Context(), "savepoints/one"))
	one := j.e.Progress()
	require.Equal(t, []sink.Point{{Lineage: one.Lineage, Epoch: one.Epoch}}, a.keeps())
	j.log.append(0, items[60:90]...)
	j.settle()
	j.stop()
	require.Len(t, x.begins, 1)
	require.Nil(t, x.pasts[0])

	for n := range 2 { // the second start finds that the lineage has begun
		if n == 0 {
			clock.Move(time.Second)
			require.NoError(t, engine.Rewind(c.FS, "savepoints/one", c.Dir, clock.Now()))
		}
		c.Workers = 1 + 6*n
		j = start(t, c)
		j.log.append(0, items[90+15*n:105+15*n]...)
		j.settle()
		if n == 1 {
			clock.Move(2 * plantest.Wait)
			j.wait("timers", func(p engine.Progress) bool { return p.Fired > 0 })
			j.settle()
		}
		j.stop()
	}
	two := j.e.Progress()
	require.NotEqual(t, one.Lineage, two.Lineage)
	want := sink.Lineage{ID: two.Lineage, Token: x.begins[1].Token, Ancestors: []sink.Point{{Lineage: one.Lineage, Epoch: one.Epoch}}}
	require.Greater(t, want.Token, x.begins[0].Token)
	require.Equal(t, []sink.Lineage{want, want}, x.begins[1:])
	require.NotNil(t, x.pasts[1])
	require.Nil(t, x.pasts[2])
	requireTables(t, items, &a.memory)
	requireTables(t, items, &x.memory)

	// What was left is beside it.
	old, err := engine.ReadProgress(c.FS, c.Dir+".old")
	require.NoError(t, err)
	require.Equal(t, one.Lineage, old.Lineage)
	require.EqualValues(t, 90, old.Read)
}

func TestSavepointOfAJobThatDoesNotRun(t *testing.T) {
	t.Parallel()
	a := &archive{memory: memory{name: "lake"}}
	c := config(t, newLog(), a)
	c.Savepoints = "savepoints"
	j := start(t, c)
	j.log.append(0, pairs(3)...)
	j.settle()
	j.stop()
	e, err := engine.Open(t.Context(), c)
	require.NoError(t, err)
	require.NoError(t, e.Savepoint(t.Context(), "savepoints/one"))
	require.Equal(t, []sink.Point{{Lineage: e.Progress().Lineage, Epoch: 1}}, a.keeps())
	require.NoError(t, e.Close())
	m, err := engine.Verify(c.FS, "savepoints/one")
	require.NoError(t, err)
	require.EqualValues(t, 1, m.Epoch)
}

// A job that was stopped can be kept as it is then: what suspends it.
func TestSavepointOfAJobThatHasStopped(t *testing.T) {
	t.Parallel()
	a := &archive{memory: memory{name: "lake"}}
	c := config(t, newLog(), a)
	c.Savepoints = "savepoints"
	j := start(t, c)
	j.log.append(0, pairs(3)...)
	j.settle()
	j.cancel()
	require.NoError(t, j.e.Savepoint(t.Context(), "savepoints/one"), "Run has ended, or is about to")
	<-j.done
	require.Equal(t, []sink.Point{{Lineage: j.e.Progress().Lineage, Epoch: 1}}, a.keeps())
	j.stop()
	m, err := engine.Verify(c.FS, "savepoints/one")
	require.NoError(t, err)
	require.EqualValues(t, 1, m.Epoch)
}

// TestRewindCrash takes a crash at every sync and rename of a rewind, looks what job there is then, and runs it to the end.
func TestRewindCrash(t *testing.T) {
	t.Parallel()
	items := plantest.ToyItems(90, 11)
	m := &memory{name: "index"}
	w := &world{mem: vfs.NewCrashableMem(), sinks: []*memory{m}, clock: plantest.NewClock(), rng: rand.New(rand.NewPCG(3, 4))}
	l := newLog()
	c := config(t, l, m)
	c.FS, c.Now, c.MemTableBytes = w.mem, w.clock.Now, 16<<10
	j := start(t, c)
	l.append(0, items[:50]...)
	j.settle()
	require.NoError(t, j.e.Savepoint(t.Context(), "saved/one"))
	one := j.e.Progress()
	l.append(0, items[50:]...)
	j.settle()
	j.stop()
	w.clock.Move(time.Second)
	require.NoError(t, engine.Rewind(w.fs(), "saved/one", c.Dir, w.clock.Now()))
	w.crash("the end")
	require.Greater(t, len(w.crashes), 15)

	back := 0
	for _, crash := range w.crashes {
		t.Run(crash.at, func(t *testing.T) {
			m := &memory{name: "index"}
			clock := plantest.NewClock()
			clock.Move(time.Minute)
			c := c
			c.FS, c.Sinks, c.Now, c.Workers = crash.fs, []sink.Sink{m}, clock.Now, 4
			p, err := engine.ReadProgress(crash.fs, c.Dir)
			require.NoError(t, err)
			for _, r := range crash.sinks[0] {
				if r.Epoch <= p.Epoch {
					m.rows = append(m.rows, r)
				}
			}
			if p.Lineage != one.Lineage {
				require.Equal(t, one.Epoch, p.Epoch)
				back++
			} else {
				require.EqualValues(t, len(items), p.Read)
			}
			j := start(t, c)
			require.Equal(t, p.Lineage, j.e.Progress().Lineage)
			j.settle()
			clock.Move(2 * plantest.Wait)
			j.wait("timers", func(p engine.Progress) bool { return p.Fired > 0 })
			j.settle()
			j.stop()
			requireTables(t, items, m)

			_, err = engine.Verify(crash.fs, "saved/one")
			require.NoError(t, err)
			require.NoError(t, engine.Rewind(crash.fs, "saved/one", c.Dir, clock.Now()), "once more")
			p, err = engine.ReadProgress(crash.fs, c.Dir)
			require.NoError(t, err)
			require.Equal(t, one.Epoch, p.Epoch)
		})
	}
	require.Positive(t, back)
	require.Less(t, back, len(w.crashes))
}

// TestCrashDuringRecovery crashes in the middle of epochs, and again at every sync of what opens the directory after that.
func TestCrashDuringRecovery(t *testing.T) {
	t.Parallel()
	items := plantest.ToyItems(120, 13)
	m := &memory{name: "index"}
	w := &world{mem: vfs.NewCrashableMem(), sinks: []*memory{m}, clock: plantest.NewClock(), rng: rand.New(rand.NewPCG(5, 6))}
	l := newLog()
	c := config(t, l, m)
	c.FS, c.Now, c.MemTableBytes = w.fs(), w.clock.Now, 16<<10
	j := start(t, c)
	for batch := range slices.Chunk(items, 20) {
		l.append(0, batch...)
		j.settle()
	}
	j.stop()
	n := 0
	for i := 5; i < len(w.crashes); i += len(w.crashes) / 6 {
		first := w.crashes[i]
		m := &memory{name: "index", rows: first.sinks[0]}
		again := &world{mem: first.fs, sinks: []*memory{m}, rng: rand.New(rand.NewPCG(7, uint64(i)))}
		c := c
		c.FS, c.Sinks = again.fs(), []sink.Sink{m}
		e, err := engine.Open(t.Context(), c)
		require.NoError(t, err)
		require.NoError(t, e.Close())
		for _, second := range again.crashes {
			n++
			t.Run(first.at+", "+second.at, func(t *testing.T) {
				t.Parallel()
				m, clock := &memory{name: "index", rows: second.sinks[0]}, plantest.NewClock()
				c := c
				c.FS, c.Sinks, c.Now = second.fs, []sink.Sink{m}, clock.Now
				j := start(t, c)
				j.settle()
				clock.Move(2 * plantest.Wait)
				j.wait("timers", func(p engine.Progress) bool { return p.Fired > 0 })
				j.settle()
				j.stop()
				requireTables(t, items, m)
			})
		}
	}
	require.Greater(t, n, 10)
}

// slowArchive is an archive that says when a publication begins, and waits until it may go on.
type slowArchive struct {
	archive
	begun chan uint64 // last epoch of the publication
}

func (a *slowArchive) Publish(ctx context.Context, b sink.Batch) ([]sink.Rejected, error) {
	select {
	case a.begun <- b.ToEpoch:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return a.archive.Publish(ctx, b)
}

// A savepoint does not wait until an archive has published a backlog, which may never end: it is complete between two publications.
func TestSavepointDuringBacklog(t *testing.T) {
	t.Parallel()
	block := make(chan struct{})
	a := &slowArchive{archive{memory: memory{name: "lake", block: block}}, make(chan uint64)}
	c := config(t, newLog(), a)
	c.Savepoints, c.DrainTimeout = "savepoints", time.Millisecond // nothing waits for the backlog at the end
	j := start(t, c)
	j.log.append(0, pairs(1)...)
	saved := make(chan error, 1)
	const most = 200
	for n := range most {
		var publishing uint64
		select {
		case publishing = <-a.begun:
		case err := <-saved:
			require.NoError(t, err)
			require.Positive(t, j.e.Progress().Sinks[0].PendingRows, "there is a backlog")
			require.Len(t, a.keeps(), 1)
			return
		}
		if n == 0 {
			go func() { saved <- j.e.Savepoint(t.Context(), "savepoints/one") }()
		}
		j.log.append(0, plantest.Event("a", fmt.Sprintf("more-%06d", n)))
		j.wait("rows that the publication does not have", func(p engine.Progress) bool { return p.Epoch > publishing })
		block <- struct{}{}
	}
	require.Fail(t, "the savepoint waits", "after %d publications", most)
}
