package engine_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/plan/plantest"
	"millrace/record"
)

// A sink that hangs neither delays the others nor, up to the limit, the source. Past the limit the source waits, the outbox holds
// no more than the limit and what was on its way, and when the sink comes back everything is there, once.
func TestDeadSink(t *testing.T) {
	t.Parallel()
	block := make(chan struct{})
	index, lake, topics := &memory{name: "index", block: block}, &memory{name: "lake"}, &memory{name: "topic"}
	c := config(t, newLog(), index, lake, topics)
	const (
		limit    = 40_000
		perPoll  = 10
		rowBytes = 100 // of a row in the outbox, and more
	)
	c.OutboxLimit, c.MaxEpochRecords = limit, 4*perPoll
	most := int64(0) // written by the engine's loop, read when it has ended
	c.OnEpoch = func(p engine.Progress) { most = max(most, p.OutboxBytes) }
	j := start(t, c)

	// While there is room the others get every row at once.
	items := slices.Clone(pairs(20))
	j.log.append(0, items...)
	j.wait("the other sinks", func(p engine.Progress) bool {
		return p.Lag == 0 && p.Ends != nil && p.Sinks[1].PendingRows == 0 && p.Sinks[2].PendingRows == 0 && p.Rows > 0
	})
	requireTables(t, items, lake)
	requireTables(t, items, topics)
	p := j.e.Progress()
	require.Positive(t, p.Sinks[0].PendingRows)
	require.False(t, p.Backpressure)
	require.WithinDuration(t, c.Now(), time.UnixMicro(p.Sinks[0].Oldest), time.Hour)
	require.Zero(t, p.Sinks[1].Oldest)
	all := items
	for len(all) < 4000 {
		var more []record.Item
		for range perPoll {
			more = append(more, plantest.Event("a", fmt.Sprintf("more-%06d", len(all)+len(more))))
		}
		all = append(all, more...)
		j.log.append(0, more...)
	}
	j.wait("backpressure", func(p engine.Progress) bool { return p.Backpressure })
	j.wait("the other sinks, of what was read", func(p engine.Progress) bool {
		return p.Sinks[1].PendingRows == 0 && p.Sinks[2].PendingRows == 0
	})
	p = j.e.Progress()
	require.Less(t, p.Read, int64(len(all)), "the source waits")
	require.True(t, p.Backpressure)

	close(block)
	j.settle()
	for _, m := range []*memory{index, lake, topics} {
		requireTables(t, all, m)
	}
	require.Zero(t, j.e.Progress().OutboxBytes)
	j.stop()
	// What an epoch holds, what is polled and what is gathered meanwhile come on top of the limit.
	bound := int64(limit + 3*4*perPoll*rowBytes)
	t.Logf("at most %d bytes in the outbox, of a limit of %d", most, limit)
	require.Greater(t, most, int64(limit))
	require.Less(t, most, bound)
}
