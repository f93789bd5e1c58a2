package engine_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
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

// crashed are the items, the plan and the settings of TestCrash.
type crashed struct {
	items  []record.Item
	plan   *plan.Plan
	config engine.Config
}

// TestCrash runs the toy plan with two sinks, one of which refuses rows, takes a crash at every sync, and finishes the
// run from each crash: nothing may be lost, and nothing doubled. When one fails, what the crash left is kept in a folder, and
// MILLRACE_CRASH=FOLDER finishes that one again: where the syncs fall differs from run to run.
func TestCrash(t *testing.T) {
	t.Parallel()
	w := &world{mem: vfs.NewCrashableMem(), clock: plantest.NewClock(), rng: rand.New(rand.NewPCG(1, 2))}
	a, b := &memory{name: "a", reject: refuse}, &memory{name: "b"}
	w.sinks = []*memory{a, b}
	l := newLog()
	x := crashed{plantest.ToyItems(240, 7), deadLetters(), config(t, l, a, b)}
	x.config.Plan, x.config.FS, x.config.Now, x.config.CheckpointEvery, x.config.MemTableBytes = x.plan, w.fs(), w.clock.Now, 90*time.Minute, 16<<10
	batches := slices.Collect(slices.Chunk(x.items, 30))
	if dir := os.Getenv("MILLRACE_CRASH"); dir != "" {
		for i, batch := range batches {
			l.append(int32(i%3), batch...)
		}
		x.finish(t, readCrash(t, dir))
		return
	}
	j := start(t, x.config)
	for i, batch := range batches {
		l.append(int32(i%3), batch...)
		j.settle()
		if i == 4 {
			j.stop()
			j = start(t, x.config)
		}
	}
	w.clock.Move(2 * plantest.Wait)
	j.wait("timers", func(p engine.Progress) bool { return p.Fired > 0 })
	j.settle()
	j.stop()
	check(t, x.plan, x.items, a, b)

	require.Greater(t, len(w.crashes), 100)
	step := 1
	if testing.Short() {
		step = 7
	}
	for i := 0; i < len(w.crashes); i += step {
		crash := w.crashes[i]
		w.crashes[i].fs = nil // its memory goes with the subtest
		t.Run(crash.at, func(t *testing.T) {
			t.Parallel()
			left := vfs.NewMem()
			_, err := vfs.Clone(crash.fs, left, "", "")
			require.NoError(t, err)
			t.Cleanup(func() {
				if t.Failed() {
					crash.fs = left
					keepCrash(t, crash)
				}
			})
			x.finish(t, crash)
		})
	}
}

// finish goes on from a crash.
func (x crashed) finish(t *testing.T, crash crash) {
	t.Helper()
	a, b := &memory{name: "a", reject: refuse, rows: crash.sinks[0]}, &memory{name: "b", rows: crash.sinks[1]}
	clock := plantest.NewClock()
	c := x.config
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
	check(t, x.plan, x.items, a, b)
}

// keepCrash writes what a crash left to a folder that stays.
func keepCrash(t *testing.T, c crash) {
	t.Helper()
	dir, err := os.MkdirTemp("", "millrace-crash-")
	require.NoError(t, err)
	_, err = vfs.Clone(c.fs, vfs.Default, "job", filepath.Join(dir, "job"))
	require.NoError(t, err)
	rows, err := json.Marshal(c.sinks)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "sinks.json"), rows, 0o600))
	t.Logf("the same crash again: MILLRACE_CRASH=%s go test -count=1 -run '^TestCrash$' ./engine", dir)
}

// readCrash reads what keepCrash wrote.
func readCrash(t *testing.T, dir string) crash {
	t.Helper()
	c := crash{at: dir, fs: vfs.NewMem()}
	_, err := vfs.Clone(vfs.Default, c.fs, filepath.Join(dir, "job"), "job")
	require.NoError(t, err)
	rows, err := os.ReadFile(filepath.Join(dir, "sinks.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(rows, &c.sinks))
	return c
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
