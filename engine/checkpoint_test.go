package engine_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/plan/plantest"
	"millrace/sink"
)

func TestSavepointAndRestore(t *testing.T) {
	t.Parallel()
	items := plantest.ToyItems(200, 3)
	m := &memory{name: "index", block: make(chan struct{})}
	clock := plantest.NewClock()
	c := config(t, newLog(), m)
	c.Now, c.DrainTimeout = clock.Now, time.Millisecond
	j := start(t, c)
	j.log.append(0, items[:100]...)
	j.wait("the first half", func(p engine.Progress) bool { return p.Read == 100 })
	require.NoError(t, c.FS.MkdirAll("saved", 0o755))
	require.NoError(t, j.e.Savepoint(t.Context(), "saved/one"))
	require.ErrorContains(t, j.e.Savepoint(t.Context(), "saved/one"), "saved/one exists already")
	first := j.e.Progress()

	// The job goes on and publishes all; the savepoint stays as it is, with the rows that were not published then.
	close(m.block)
	j.log.append(0, items[100:]...)
	j.settle()
	j.stop()
	require.ErrorContains(t, j.e.Savepoint(t.Context(), "saved/two"), "the job is closed")

	manifest, err := engine.ReadManifest(c.FS, "saved/one")
	require.NoError(t, err)
	require.Equal(t, first.Epoch, manifest.Epoch)
	require.Equal(t, first.Lineage, manifest.Lineage)
	require.Equal(t, first.Offsets, manifest.Offsets)
	require.Equal(t, []string{"join", "letter", "total"}, manifest.Stages)

	// At the same instant: lineages are told apart all the same.
	require.NoError(t, engine.Restore(c.FS, "saved/one", "again", clock.Now()))
	require.ErrorContains(t, engine.Restore(c.FS, "saved/one", "again", clock.Now()), "the directory exists already")
	again := &memory{name: "index"}
	c2 := c
	c2.Dir, c2.Sinks = "again", []sink.Sink{again}
	j = start(t, c2)
	require.Equal(t, first.Epoch, j.e.Progress().Epoch)
	require.NotEqual(t, first.Lineage, j.e.Progress().Lineage)
	j.settle()
	clock.Move(2 * plantest.Wait)
	j.wait("timers", func(p engine.Progress) bool { return p.Fired > 0 })
	j.settle()
	j.stop()
	requireTables(t, items, again)
	require.Equal(t, first.Lineage, again.batches[0].Lineage, "what the savepoint's outbox carries was made by the lineage before")
	require.Equal(t, first.Epoch, again.batches[0].ToEpoch)
	require.Equal(t, j.e.Progress().Lineage, again.batches[1].Lineage)
	require.Equal(t, first.Epoch+1, again.batches[1].FromEpoch)

	// The old lineage is intact and goes on by itself.
	j = start(t, c)
	j.wait("timers", func(p engine.Progress) bool { return p.Fired > 0 })
	j.settle()
	requireTables(t, items, m)
	require.Equal(t, first.Lineage, j.e.Progress().Lineage)
}

func TestDamagedCheckpointIsRefused(t *testing.T) {
	t.Parallel()
	c := config(t, newLog(), &memory{name: "index"})
	j := start(t, c)
	j.log.append(0, pairs(5)...)
	j.settle()
	require.NoError(t, j.e.Savepoint(t.Context(), "saved"))
	j.stop()
	m, err := engine.ReadManifest(c.FS, "saved")
	require.NoError(t, err)
	i := slices.IndexFunc(m.Files, func(f engine.File) bool { return f.Bytes > 20 })
	name := "saved/" + m.Files[i].Name
	f, err := c.FS.OpenReadWrite(name, "test")
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{0xff, 0xfe}, 10)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.ErrorContains(t, engine.Restore(c.FS, "saved", "again", c.Now()), name+" is damaged")
	_, err = c.FS.Stat("again")
	require.Error(t, err)
	_, err = engine.ReadManifest(c.FS, "job")
	require.ErrorContains(t, err, "job is not a checkpoint")
}

func TestCheckpointsKept(t *testing.T) {
	t.Parallel()
	clock := plantest.NewClock()
	c := config(t, newLog(), &memory{name: "index"})
	c.Now, c.CheckpointsKept, c.CheckpointEvery = clock.Now, 2, time.Minute
	j := start(t, c)
	var names []string
	for i, it := range pairs(3) {
		j.log.append(0, it)
		j.settle()
		clock.Move(2 * time.Minute)
		j.wait("a checkpoint", func(engine.Progress) bool {
			var err error
			names, err = c.FS.List("job/checkpoints")
			return err == nil && len(names) == min(i+1, 2) && slices.Max(names) == []string{
				"0000000000000001", "0000000000000002", "0000000000000003", "0000000000000004",
			}[i]
		})
	}
	slices.Sort(names)
	require.Equal(t, []string{"0000000000000003", "0000000000000004"}, names)
	j.stop()
	require.NoError(t, engine.Restore(c.FS, "job/checkpoints/0000000000000003", "again", clock.Now()))
	p, err := engine.ReadProgress(c.FS, "again")
	require.NoError(t, err)
	require.EqualValues(t, 3, p.Epoch)
	require.EqualValues(t, 3, p.Read)
	require.EqualValues(t, 2, p.Counters["events"])
}

// A savepoint that was made before the first epoch begins a lineage of its own too.
func TestRestoreOfASavepointBeforeTheFirstEpoch(t *testing.T) {
	t.Parallel()
	m := &memory{name: "index"}
	clock := plantest.NewClock()
	c := config(t, newLog(), m)
	c.Now = clock.Now
	j := start(t, c)
	require.NoError(t, c.FS.MkdirAll("saved", 0o755))
	require.NoError(t, j.e.Savepoint(t.Context(), "saved/empty"))
	j.stop()
	manifest, err := engine.ReadManifest(c.FS, "saved/empty")
	require.NoError(t, err)
	require.Zero(t, manifest.Epoch)

	require.NoError(t, engine.Restore(c.FS, "saved/empty", "again", clock.Now()))
	c.Dir = "again"
	j = start(t, c)
	require.NotEqual(t, manifest.Lineage, j.e.Progress().Lineage)
	items := plantest.ToyItems(50, 3)
	j.log.append(0, items...)
	j.settle()
	clock.Move(2 * plantest.Wait)
	j.settle()
	j.stop()
	requireTables(t, items, m)
}
