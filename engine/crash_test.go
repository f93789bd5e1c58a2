package engine_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/plan"
	"millrace/plan/plantest"
	"millrace/record"
	"millrace/sink"
)

// crash is what is left of the world at one moment: what was synced, and what the sinks have.
type crash struct {
	at    string
	fs    *vfs.MemFS
	sinks [][]plan.Row
}

// world is a file system that is cloned as a crash would leave it, and the sinks that it must agree with.
type world struct {
	mem   *vfs.MemFS
	sinks []*memory
	clock *plantest.Clock

	mu      sync.Mutex
	rng     *rand.Rand
	crashes []crash
	syncs   int
}

// fs returns the file system for the engine. It takes a crash before every sync; the one before the next sync shows what
// the last one did.
func (w *world) fs() vfs.FS {
	return errorfs.Wrap(w.mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo, errorfs.OpRename:
			w.crash(op.Path)
		}
		return nil
	}))
}

func (w *world) crash(path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.syncs++
	for _, m := range w.sinks { // nothing is published between the clone and the copies of the sinks
		m.mu.Lock()
		defer m.mu.Unlock()
	}
	some := 50 + 50*w.rng.IntN(2)
	// Not some entries of Pebble's directory: it counts on them appearing in the order made, which real file systems give and
	// a random choice does not. All of them are in order.
	if strings.HasSuffix(path, "/state") {
		some = 100
	}
	for _, percent := range []int{0, some} {
		c := crash{at: fmt.Sprintf("sync %d of %s, %d%% of unsynced data kept", w.syncs, path, percent)}
		c.fs = w.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: w.rng})
		for _, m := range w.sinks {
			c.sinks = append(c.sinks, slices.Clone(m.rows))
		}
		w.crashes = append(w.crashes, c)
	}
}

// refuse refuses rows of the table joined whose id ends in 7.
func refuse(r plan.Row) string {
	if r.Table == 0 && strings.HasSuffix(r.ID, "7") {
		return "ends in 7"
	}
	return ""
}

// deadLetters is Toy with dead letters for refused rows.
func deadLetters() *plan.Plan {
	p := plantest.Toy()
	dead := p.Tables[0]
	dead.Name = "dead"
	p.Tables = append(p.Tables, dead)
	p.DeadLetter = func(r plan.Row, sink, _ string) plan.Row {
		return plan.Row{Table: len(p.Tables) - 1, ID: sink + ":" + r.ID, Rev: 1, First: true, Value: r.Value}
	}
	return p
}

// TestCrash runs the toy plan with two sinks, one of which refuses rows, takes a crash at every sync, and finishes the
// run from each crash: nothing may be lost, and nothing doubled.
func TestCrash(t *testing.T) {
	t.Parallel()
	items := plantest.ToyItems(240, 7)
	p := deadLetters()
	a, b := &memory{name: "a", reject: refuse}, &memory{name: "b"}
	w := &world{mem: vfs.NewCrashableMem(), sinks: []*memory{a, b}, clock: plantest.NewClock(), rng: rand.New(rand.NewPCG(1, 2))}

	l := newLog()
	c := config(t, l, a, b)
	c.Plan, c.FS, c.Now, c.CheckpointEvery, c.MemTableBytes = p, w.fs(), w.clock.Now, 90*time.Minute, 16<<10
	j := start(t, c)
	for i, batch := range slices.Collect(slices.Chunk(items, 30)) {
		l.append(int32(i%3), batch...)
		j.settle()
		if i == 4 {
			j.stop()
			j = start(t, c)
		}
	}
	w.clock.Move(2 * plantest.Wait)
	j.wait("timers", func(p engine.Progress) bool { return p.Fired > 0 })
	j.settle()
	j.stop()
	check(t, p, items, a, b)

	crashes := w.crashes
	require.Greater(t, len(crashes), 100)
	if testing.Short() {
		crashes = slices.Collect(func(yield func(crash) bool) {
			for i := 0; i < len(w.crashes) && yield(w.crashes[i]); i += 7 {
			}
		})
	}
	for _, crash := range crashes {
		t.Run(crash.at, func(t *testing.T) {
			t.Parallel()
			a, b := &memory{name: "a", reject: refuse, rows: crash.sinks[0]}, &memory{name: "b", rows: crash.sinks[1]}
			clock := plantest.NewClock()
			c := c
			c.FS, c.Sinks, c.Now, c.Workers = crash.fs, []sink.Sink{a, b}, clock.Now, 3
			checkpoints, err := engine.ListCheckpoints(crash.fs, "job/checkpoints")
			require.NoError(t, err)
			for _, l := range checkpoints { // what there is of them is whole
				_, err := engine.Verify(crash.fs, l.Dir)
				require.NoError(t, err)
			}
			j := start(t, c)
			j.settle()
			clock.Move(3 * plantest.Wait)
			j.wait("timers", func(p engine.Progress) bool { return p.Fired > 0 })
			j.settle()
			j.stop()
			check(t, p, items, a, b)
		})
	}
}

// check compares what sinks hold with the model.
func check(t *testing.T, p *plan.Plan, items []record.Item, a, b *memory) {
	t.Helper()
	require.NoError(t, agree(p, items, a, b))
}

// agree compares what sinks hold with the model. A row that was made in two epochs was made twice.
func agree(p *plan.Plan, items []record.Item, a, b *memory) error {
	want := plantest.ToyModel(items)
	for id, v := range plantest.ToyModel(items) {
		if name, ok := strings.CutPrefix(id, "joined/"); ok && strings.HasSuffix(name, "7") {
			want["dead/a:"+name] = v
		}
	}
	for _, m := range []*memory{a, b} {
		rows := m.published()
		epochs := map[string]uint64{}
		for _, r := range rows {
			id := fmt.Sprintf("%d/%s#%d", r.Table, r.ID, r.Rev)
			if epoch, seen := epochs[id]; seen && epoch != r.Epoch {
				return fmt.Errorf("sink %s got row %s from epochs %d and %d", m.name, id, epoch, r.Epoch)
			}
			epochs[id] = r.Epoch
		}
		got, err := plantest.Tables(p, rows)
		if err != nil {
			return err
		}
		if m == a { // what it refused it does not have
			for id, v := range want {
				if name, ok := strings.CutPrefix(id, "joined/"); ok && strings.HasSuffix(name, "7") {
					if _, ok := got[id]; ok {
						return fmt.Errorf("sink a has %s, which it refused", id)
					}
					got[id] = v
				}
			}
		}
		if want, got := plantest.Format(want), plantest.Format(got); want != got {
			return fmt.Errorf("sink %s: want\n%shave\n%s", m.name, want, got)
		}
	}
	return nil
}
