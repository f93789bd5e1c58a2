package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/plan"
	"millrace/plan/plantest"
	"millrace/record"
	"millrace/sink"
)

func pairs(n int) []record.Item {
	items := []record.Item{plantest.Entity("a")}
	for i := range n {
		items = append(items, plantest.Event("a", fmt.Sprintf("e%d", i)))
	}
	return items
}

// requireTables compares what a sink holds with the model.
func requireTables(t *testing.T, items []record.Item, m *memory) {
	t.Helper()
	got, err := plantest.Tables(plantest.Toy(), m.published())
	require.NoError(t, err)
	require.Equal(t, plantest.Format(plantest.ToyModel(items)), plantest.Format(got))
}

func TestFailingSinkStopsTheJob(t *testing.T) {
	t.Parallel()
	m := &memory{name: "index", fail: errors.New("mapping is gone")}
	c := config(t, newLog(), m)
	j := start(t, c)
	items := pairs(5)
	j.log.append(0, items...)
	<-j.done
	require.EqualError(t, j.end(), "sink index: publish epochs 1 to 1: mapping is gone")
	require.Empty(t, m.published())

	m.fail = nil
	j = start(t, c)
	j.settle()
	requireTables(t, items, m)
}

func TestPanickingSinkStopsTheJob(t *testing.T) {
	t.Parallel()
	m := &memory{name: "index", reject: func(plan.Row) string { panic("nil mapping") }}
	c := config(t, newLog(), m)
	j := start(t, c)
	items := pairs(5)
	j.log.append(0, items...)
	<-j.done
	require.ErrorContains(t, j.end(), "sink index: publish epochs 1 to 1: panic: nil mapping")

	m.reject = nil
	j = start(t, c)
	j.settle()
	requireTables(t, items, m)
}

func TestSlowSinkDelaysOnlyItself(t *testing.T) {
	t.Parallel()
	slow, quick := &memory{name: "slow", block: make(chan struct{})}, &memory{name: "quick"}
	c := config(t, newLog(), slow, quick)
	c.DrainTimeout = time.Millisecond
	j := start(t, c)
	items := pairs(5)
	j.log.append(0, items...)
	j.wait("the quick sink", func(p engine.Progress) bool { return p.Sinks[1].Epoch == 1 })
	requireTables(t, items, quick)
	p := j.e.Progress()
	require.Equal(t, "slow", p.Sinks[0].Name)
	require.EqualValues(t, 7, p.Sinks[0].PendingRows)
	require.Positive(t, p.OutboxBytes)
	j.stop()
	require.Empty(t, slow.published())

	offline, err := engine.ReadProgress(c.FS, c.Dir)
	require.NoError(t, err)
	require.Equal(t, p.Counters, offline.Counters)
	require.Equal(t, p.Offsets, offline.Offsets)
	require.Equal(t, p.OutboxBytes, offline.OutboxBytes)
	require.EqualValues(t, 7, offline.Sinks[1].PendingRows) // by name: quick, slow

	slow.block = nil
	j = start(t, c)
	j.settle()
	requireTables(t, items, slow)
	require.Zero(t, j.e.Progress().OutboxBytes)
	require.Len(t, quick.batches, 1, "the quick sink has nothing to publish again")
}

func TestFullOutboxStopsReading(t *testing.T) {
	t.Parallel()
	m := &memory{name: "slow", block: make(chan struct{})}
	c := config(t, newLog(), m)
	c.OutboxLimit = 1
	j := start(t, c)
	items := pairs(40)
	j.log.append(0, items[:20]...)
	j.wait("backpressure", func(p engine.Progress) bool { return p.Backpressure })
	for _, it := range items[20:] {
		j.log.append(0, it)
	}
	// One poll may have begun before the outbox was full, and one epoch may gather what it brought.
	require.Less(t, j.e.Progress().Read, int64(len(items)))
	j.log.mu.Lock()
	require.LessOrEqual(t, j.log.polls, 2)
	j.log.mu.Unlock()
	close(m.block)
	j.settle()
	requireTables(t, items, m)
	require.False(t, j.e.Progress().Backpressure)
}

func TestRefusedRows(t *testing.T) {
	t.Parallel()
	items := pairs(8)

	t.Run("become dead letters", func(t *testing.T) {
		t.Parallel()
		m := &memory{name: "a", reject: refuse}
		c := config(t, newLog(), m)
		c.Plan = deadLetters()
		j := start(t, c)
		j.log.append(0, items...)
		j.wait("the dead letter", func(p engine.Progress) bool { return p.Sinks[0].Epoch == 2 })
		require.EqualValues(t, 1, j.e.Progress().Sinks[0].Rejected)
		got, err := plantest.Tables(c.Plan, m.published())
		require.NoError(t, err)
		require.Equal(t, "a", got["dead/a:e7"])
		require.NotContains(t, got, "joined/e7")
	})
	t.Run("are counted when the plan makes no dead letters", func(t *testing.T) {
		t.Parallel()
		m := &memory{name: "a", reject: refuse}
		j := start(t, config(t, newLog(), m))
		j.log.append(0, items...)
		j.wait("the count", func(p engine.Progress) bool { return p.Sinks[0].Rejected == 1 && p.Sinks[0].PendingEpochs == 0 })
		require.Len(t, m.published(), 9)
	})
	t.Run("are only counted when they are dead letters themselves", func(t *testing.T) {
		t.Parallel()
		m := &memory{name: "a", reject: func(plan.Row) string { return "full" }}
		c := config(t, newLog(), m)
		c.Plan = deadLetters()
		j := start(t, c)
		j.log.append(0, items...)
		j.wait("all to be refused", func(p engine.Progress) bool { return p.Sinks[0].Rejected == 20 && p.Sinks[0].PendingEpochs == 0 })
		require.Empty(t, m.published())
	})
}

func TestDamagedRowsStopTheJob(t *testing.T) {
	t.Parallel()
	m := &memory{name: "index", fail: errors.New("down")}
	c := config(t, newLog(), m)
	j := start(t, c)
	j.log.append(0, pairs(5)...)
	<-j.done
	require.Error(t, j.end())

	const segment = "job/outbox/0000000001.rows"
	f, err := c.FS.OpenReadWrite(segment, "test")
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("x"), 100)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	m.fail = nil
	j = start(t, c)
	<-j.done
	err = j.end()
	require.EqualError(t, err, "sink index: rows of epoch 1 in "+segment+" at offset 12: the rows' bytes are not what was written: checksum; restore the data directory from a backup")
	require.Empty(t, m.published())
}

// TestDiskErrors fails each kind of write in turn: the job ends with the cause, and another start on what is durable
// finishes with nothing lost or doubled.
func TestDiskErrors(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"/outbox/", ".log"} {
		for _, kind := range []errorfs.OpKind{errorfs.OpFileWrite, errorfs.OpFileSyncData, errorfs.OpCreate} {
			if file == ".log" && kind == errorfs.OpCreate {
				continue // Pebble makes its next log in the background of a flush
			}
			t.Run(fmt.Sprintf("%s,%d", file, kind), func(t *testing.T) {
				t.Parallel()
				full := errors.New("no space left on device")
				failing := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
					if op.Kind == kind && strings.Contains(op.Path, file) {
						return full
					}
					return nil
				})}
				mem := vfs.NewCrashableMem()
				m := &memory{name: "index"}
				c := config(t, newLog(), m)
				c.FS = errorfs.Wrap(mem, failing)
				j := start(t, c)
				items := pairs(5)
				if kind != errorfs.OpCreate {
					j.log.append(0, items[:3]...)
					j.settle()
				}
				durable := len(m.published())
				failing.On()
				j.log.append(0, items[3:]...)
				if kind == errorfs.OpCreate {
					j.log.append(0, items[:3]...)
				}
				<-j.done
				require.ErrorContains(t, j.end(), "no space left on device")
				require.Len(t, m.published(), durable, "nothing is published that is not durable")

				c.FS = mem.CrashClone(vfs.CrashCloneCfg{})
				j = start(t, c)
				j.settle()
				requireTables(t, items, m)
			})
		}
	}
}

// A job that stopped without writing its state to tables cannot do so on a full disk when it starts again. It says so.
func TestOpenOnAFullDisk(t *testing.T) {
	t.Parallel()
	mem := vfs.NewCrashableMem()
	m := &memory{name: "index"}
	c := config(t, newLog(), m)
	c.FS = mem
	j := start(t, c)
	items := pairs(5)
	j.log.append(0, items...)
	j.settle()
	killed := mem.CrashClone(vfs.CrashCloneCfg{})
	require.NoError(t, j.end())

	c.FS = errorfs.Wrap(killed.CrashClone(vfs.CrashCloneCfg{}), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpCreate && strings.Contains(op.Path, ".sst") {
			return errors.New("no space left on device")
		}
		return nil
	}))
	_, err := engine.Open(t.Context(), c)
	require.ErrorContains(t, err, "no space left on device")

	c.FS = killed
	j = start(t, c)
	j.settle()
	requireTables(t, items, m)
	require.NoError(t, j.end())
}

func TestPlanFaultsStopTheJob(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, want string
		spoil      func(p *plan.Plan)
	}{
		{"a stage panics", "epoch 1: stage letter: panic: nil course", func(p *plan.Plan) {
			p.Stages[1].Keyed = func(plan.Clock, []*plan.Key, *plan.Output) { panic("nil course") }
		}},
		{"read panics", "read the source: panic: index out of range", func(p *plan.Plan) {
			p.Read = func([]record.Item, *plan.Output) { panic("index out of range") }
		}},
		{"a stage sends where it does not say", "stage letter: letter sends to stage total without declaring it", func(p *plan.Plan) {
			p.Stages[1].To = nil
		}},
		{"a row of no table", "stage total: total makes a row of table 3, and there are 3", func(p *plan.Plan) {
			p.Tables = p.Tables[:3]
		}},
		{"a list replaced unseen", `stage letter: it replaces the list of key "a", which it was not given`, func(p *plan.Plan) {
			p.Stages[1].Keyed = func(_ plan.Clock, keys []*plan.Key, _ *plan.Output) { keys[0].ReplaceList = true }
		}},
		{"a timer without a domain", `stage letter: a timer of key "a" has the time domain 0`, func(p *plan.Plan) {
			p.Stages[1].Keyed = func(_ plan.Clock, keys []*plan.Key, _ *plan.Output) { keys[0].SetTimers = []plan.Timer{{At: 1}} }
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, newLog(), &memory{name: "index"})
			c.spoil(cfg.Plan)
			j := start(t, cfg)
			j.log.append(0, pairs(1)...)
			<-j.done
			require.ErrorContains(t, j.end(), c.want)
		})
	}
}

func TestSourceErrorStopsTheJob(t *testing.T) {
	t.Parallel()
	l := newLog()
	l.fail = errors.New("offset 7 is gone")
	j := start(t, config(t, l))
	<-j.done
	require.EqualError(t, j.end(), "read the source: offset 7 is gone")
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	open := func(spoil func(c *engine.Config)) error {
		c := config(t, newLog(), &memory{name: "index"})
		c.FS = fs
		spoil(&c)
		e, err := engine.Open(t.Context(), c)
		if err != nil {
			return err
		}
		return e.Close()
	}
	// Make a directory with an event that waits and a row that is not published.
	c := config(t, newLog(), &memory{name: "index", every: time.Hour}, &memory{name: "lake", fail: errors.New("down")})
	c.FS = fs
	j := start(t, c)
	require.ErrorContains(t, open(func(*engine.Config) {}), "job directory job is in use by another process; stop it first")
	j.log.append(0, append(pairs(2), plantest.Event("b", "w"))...)
	<-j.done
	require.Error(t, j.end())

	both := []sink.Sink{&memory{name: "index"}, &memory{name: "lake"}}
	for _, c := range []struct {
		name, want string
		spoil      func(c *engine.Config)
	}{
		{"another app", "job directory job holds the state of app toy, not of other", func(c *engine.Config) { c.Plan.App = "other" }},
		{"another instance", "job directory job holds the state of instance toy, not of toy2", func(c *engine.Config) { c.Instance = "toy2" }},
		{"other key groups", "job directory job has 128 key groups and 64 are configured; the number is fixed once an instance exists", func(c *engine.Config) { c.KeyGroups = 64 }},
		{"a lost stage", "job directory job: toy cannot go from version 1.0.0 to 1.0.0: stage join removed: its state would be lost", func(c *engine.Config) { c.Plan.Stages[0].Name = "join2" }},
		{"a lost sink", "sink lake is not configured any more and has 4 rows that it has not published; start once with it to publish them", func(c *engine.Config) {
			c.Sinks = both[:1]
		}},
		{"two sinks of one name", `sink name "index" is empty or taken`, func(c *engine.Config) { c.Sinks = []sink.Sink{both[0], both[0]} }},
		{"no source", "no source given", func(c *engine.Config) { c.Source = nil }},
		{"a bad plan", `app name "": want lower-case letters`, func(c *engine.Config) { c.Plan.App = "" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := open(func(cfg *engine.Config) {
				cfg.Sinks = both
				c.spoil(cfg)
			})
			require.ErrorContains(t, err, c.want)
		})
	}
	require.NoError(t, open(func(c *engine.Config) { c.Sinks = both }), "nothing was changed by what was refused")

	_, err := engine.ReadProgress(fs, "elsewhere")
	require.ErrorContains(t, err, "elsewhere is not a job's directory")
}

func TestRunsOnce(t *testing.T) {
	t.Parallel()
	j := start(t, config(t, newLog()))
	j.stop()
	require.EqualError(t, j.e.Run(context.Background()), "the engine was run before; open the directory again to go on")
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	c := config(t, newLog(), &memory{name: "index"})
	c.Registerer = registry
	j := start(t, c)
	j.log.append(0, pairs(3)...)
	j.settle()
	families, err := registry.Gather()
	require.NoError(t, err)
	got := map[string]float64{}
	for _, f := range families {
		m := f.GetMetric()[0]
		got[f.GetName()] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	require.EqualValues(t, 4, got["millrace_engine_records_total"])
	require.EqualValues(t, 5, got["millrace_engine_rows_total"])
	require.EqualValues(t, 5, got["millrace_engine_published_rows_total"])
	require.EqualValues(t, 0, got["millrace_engine_sink_lag_rows"])
	j.stop()
	families, err = registry.Gather()
	require.NoError(t, err)
	require.Empty(t, families)
}
