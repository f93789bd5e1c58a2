package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/plan"
	"millrace/plan/plantest"
	"millrace/record"
	"millrace/sink"
)

// TestWatermark reads two partitions: the watermark follows the slower one, until that one is silent for IdleAfter.
func TestWatermark(t *testing.T) {
	t.Parallel()
	clock := plantest.NewClock()
	base := clock.Now()
	c := config(t, newLog())
	c.Now, c.Disorder, c.IdleAfter = clock.Now, time.Minute, 10*time.Minute
	c.Plan.Read = func(items []record.Item, out *plan.Output) {
		for _, it := range items {
			out.Send(0, plan.Element{Key: it.Bytes, Tag: 1, Time: it.SendTime.UnixMicro()})
		}
	}
	at := func(d time.Duration) record.Item {
		it := plantest.Event("k", "e")
		it.SendTime = base.Add(d)
		return it
	}
	j := start(t, c)
	watermark := func() time.Duration {
		j.settle()
		return time.UnixMicro(j.e.Progress().Watermark).Sub(base)
	}
	j.log.append(0, at(-20*time.Minute))
	require.Equal(t, -21*time.Minute, watermark())
	j.log.append(1, at(-30*time.Minute))
	require.Equal(t, -21*time.Minute, watermark(), "it does not go back")
	j.log.append(0, at(-5*time.Minute))
	require.Equal(t, -21*time.Minute, watermark(), "partition 1 is 30 minutes back")
	j.log.append(1, at(-10*time.Minute))
	require.Equal(t, -11*time.Minute, watermark())
	j.log.append(1, at(24*time.Hour))
	require.Equal(t, -6*time.Minute, watermark(), "partition 1 is ahead")
	j.log.append(0, at(24*time.Hour))
	require.Equal(t, -time.Minute, watermark(), "an event from the future counts as now")
	clock.Move(11 * time.Minute)
	j.log.append(0, at(11*time.Minute))
	require.Equal(t, 10*time.Minute, watermark(), "partition 1 is silent")
}

// A job that says that it has read all and has nothing to publish is believed: rows are pending from the moment on that they are counted.
func TestProgressMissesNoRow(t *testing.T) {
	t.Parallel()
	m := &memory{name: "index", block: make(chan struct{})}
	c := config(t, newLog(), m)
	c.DrainTimeout = time.Millisecond
	j := start(t, c)
	items := pairs(20)
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		for p := j.e.Progress(); p.Read < int64(len(items)); p = j.e.Progress() {
			if p.Rows != p.Sinks[0].PendingRows {
				t.Errorf("%d rows after epoch %d, and %d of them wait for the sink", p.Rows, p.Epoch, p.Sinks[0].PendingRows)
				return
			}
		}
	}()
	for i := range items {
		j.log.append(0, items[i])
		j.wait("an epoch", func(p engine.Progress) bool { return p.Read > int64(i) })
	}
	<-looked
	j.stop()
}

// A sink that does not answer keeps a stop from being a clean one; it is not said to lack rows when there are none.
func TestStopWhileASinkDoesNotAnswer(t *testing.T) {
	t.Parallel()
	for _, rows := range []bool{false, true} {
		t.Run(fmt.Sprint(rows), func(t *testing.T) {
			t.Parallel()
			var said bytes.Buffer
			c := config(t, newLog(), &away{&memory{name: "index"}})
			c.DrainTimeout = time.Millisecond
			c.Logger = slog.New(slog.NewTextHandler(&said, nil))
			j := start(t, c)
			if rows {
				j.log.append(0, pairs(1)...)
				j.wait("rows", func(p engine.Progress) bool { return p.Rows > 0 })
			}
			require.False(t, j.e.Progress().Sinks[0].Begun)
			j.stop()
			require.Equal(t, rows, strings.Contains(said.String(), "stopped with unpublished rows"), said.String())
			require.Equal(t, !rows, strings.Contains(said.String(), "nothing that they have not published"), said.String())
		})
	}
}

// away is a sink whose target does not answer.
type away struct{ *memory }

func (*away) Begin(ctx context.Context, _ sink.Lineage, _ sink.Past) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestProgress(t *testing.T) {
	t.Parallel()
	c := config(t, newLog(), &memory{name: "index"})
	var mu sync.Mutex
	var epochs []uint64
	c.OnEpoch = func(p engine.Progress) {
		mu.Lock()
		defer mu.Unlock()
		epochs = append(epochs, p.Epoch)
	}
	other := plantest.Event("a", "x")
	other.SourceType = "OTHER"
	j := start(t, c)
	j.log.append(2, append(pairs(3), other)...)
	j.settle()
	j.wait("the ends", func(p engine.Progress) bool { return p.Ends[2] == 5 && p.Lag == 0 })
	p := j.e.Progress()
	require.Equal(t, plan.Offsets{2: 5}, p.Offsets)
	require.Equal(t, map[string]int64{"events": 3, "entities": 1}, p.Counters)
	require.EqualValues(t, 5, p.Read)
	require.EqualValues(t, 1, p.Skipped)
	require.EqualValues(t, 5, p.Rows)
	require.EqualValues(t, 2, p.Collapsed)
	require.Equal(t, c.Now(), p.CommittedAt)
	require.True(t, p.Settled(c.Now()))
	p.Counters["events"] = 9
	p.Offsets[2] = 9
	require.EqualValues(t, 3, j.e.Progress().Counters["events"], "the caller's copy is its own")
	require.EqualValues(t, 5, j.e.Progress().Offsets[2])
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, []uint64{1}, epochs)
}

// TestNewSink adds a sink to a job that has run: it gets what comes from there on, also after a restart without rows.
func TestNewSink(t *testing.T) {
	t.Parallel()
	index, lake := &memory{name: "index"}, &memory{name: "lake"}
	c := config(t, newLog(), index)
	j := start(t, c)
	j.log.append(0, pairs(3)...)
	j.settle()
	j.stop()
	c.Sinks = []sink.Sink{index, lake}
	start(t, c).stop()
	j = start(t, c)
	j.log.append(0, plantest.Event("a", "more"))
	j.settle()
	require.Len(t, lake.batches, 1)
	require.EqualValues(t, 2, lake.batches[0].FromEpoch)
	require.Equal(t, plan.Offsets{0: 4}, lake.batches[0].FromOffsets)
	require.Len(t, lake.published(), 3)
}

// TestGoldenOutbox publishes a segment that an earlier version wrote, and writes the same bytes for the same rows.
func TestGoldenOutbox(t *testing.T) {
	t.Parallel()
	golden := filepath.Join("testdata", "outbox-1.rows")
	const segment = "job/outbox/0000000001.rows"
	m := &memory{name: "index", block: make(chan struct{})}
	c := config(t, newLog(), m)
	c.DrainTimeout = time.Millisecond
	j := start(t, c)
	j.log.append(0, pairs(3)...)
	j.wait("the commit", func(p engine.Progress) bool { return p.Epoch == 1 })
	j.stop()
	if os.Getenv("GOLDEN") != "" {
		require.NoError(t, os.WriteFile(golden, contents(t, c.FS, segment), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, want, contents(t, c.FS, segment), "the format changed: raise its version and keep reading this one")

	f, err := c.FS.Create(segment, "test")
	require.NoError(t, err)
	_, err = f.Write(want)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	m.block = nil
	j = start(t, c)
	j.settle()
	requireTables(t, pairs(3), m)
}

func contents(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	info, err := fs.Stat(name)
	require.NoError(t, err)
	f, err := fs.Open(name)
	require.NoError(t, err)
	b := make([]byte, info.Size())
	_, err = f.ReadAt(b, 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return b
}
