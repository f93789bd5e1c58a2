package engine_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/sink"
)

// tended is a sink that wants care again and again. Its first calls are counted; each says whether the sink was at work.
type tended struct {
	memory
	working atomic.Bool
	calls   chan bool
}

func (d *tended) Begin(ctx context.Context, l sink.Lineage, p sink.Past) error {
	d.working.Store(true)
	defer d.working.Store(false)
	return d.memory.Begin(ctx, l, p)
}

func (d *tended) Publish(ctx context.Context, b sink.Batch) ([]sink.Rejected, error) {
	d.working.Store(true)
	defer d.working.Store(false)
	return d.memory.Publish(ctx, b)
}

func (d *tended) Tend(context.Context) time.Duration {
	select {
	case d.calls <- d.working.Load():
	default:
	}
	return time.Microsecond
}

// A sink is tended when there is nothing to publish and when there is, and never while it publishes.
func TestSinksAreTended(t *testing.T) {
	t.Parallel()
	d := &tended{memory: memory{name: "lake"}, calls: make(chan bool, 3)}
	j := start(t, config(t, newLog(), d))
	for range 5 {
		require.False(t, <-d.calls, "before there are rows")
	}
	for range 5 {
		j.log.append(0, pairs(20)...)
		j.settle()
		require.False(t, <-d.calls)
	}
	for range 5 {
		require.False(t, <-d.calls, "after there are no more rows")
	}
	require.Len(t, d.published(), int(j.e.Progress().Rows))
	j.stop()
}
