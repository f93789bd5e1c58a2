package engine_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/engine"
)

// While its sinks are held a job goes on and they stay as they are; a copy of its state goes on from there with what the sinks had.
func TestHold(t *testing.T) {
	t.Parallel()
	lake, index := &archive{memory: memory{name: "lake"}}, &memory{name: "index"}
	c := config(t, newLog(), lake, index)
	c.Savepoints = "savepoints"
	j := start(t, c)
	j.log.append(0, pairs(3)...)
	j.settle()
	before := j.e.Progress()

	release, err := j.e.Hold(t.Context(), "lake", "index", "another")
	require.NoError(t, err)
	j.log.append(0, pairs(5)...)
	j.wait("records read", func(p engine.Progress) bool { return p.Read > before.Read })
	require.NoError(t, j.e.Copy(t.Context(), "copied"), "it does not wait for sinks")
	require.ErrorContains(t, j.e.Copy(t.Context(), "copied"), "exists already")
	require.EqualValues(t, before.Rows, len(lake.published()))
	require.EqualValues(t, before.Rows, len(index.published()))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = j.e.Hold(ctx, "index")
	require.ErrorIs(t, err, context.Canceled, "it is held")
	require.ErrorContains(t, err, "hold sink index")
	release()
	release() // releasing twice is releasing once
	j.settle()
	rows := j.e.Progress().Rows
	require.EqualValues(t, rows, len(lake.published()))
	again, err := j.e.Hold(t.Context(), "lake", "index")
	require.NoError(t, err)
	again()
	j.stop()

	// The copy is as a job that was killed at that moment: its sinks have what they had.
	c.Dir, c.Savepoints = "copied", ""
	c.Sinks[0], c.Sinks[1] = &archive{memory: memory{name: "lake", rows: lake.published()[:before.Rows]}}, &memory{name: "index"}
	k := start(t, c)
	require.Equal(t, before.Lineage, k.e.Progress().Lineage, "no new lineage is begun")
	k.settle()
	require.EqualValues(t, rows, k.e.Progress().Rows)
	require.EqualValues(t, rows-before.Rows, len(c.Sinks[1].(*memory).published()), "what was published before is not published again")
	k.stop()
}

// A publication that goes on is waited for. Sinks that were held meanwhile are let go of when that is given up.
func TestHoldWaitsForAPublication(t *testing.T) {
	t.Parallel()
	block := make(chan struct{})
	lake, index := &memory{name: "lake"}, &memory{name: "index", block: block}
	j := start(t, config(t, newLog(), lake, index))
	j.log.append(0, pairs(3)...)
	j.wait("rows for both", func(p engine.Progress) bool { return p.Sinks[0].PendingRows == 0 && p.Sinks[1].PendingRows > 0 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := j.e.Hold(ctx, "lake", "index")
	require.ErrorContains(t, err, "it has not come to the end of what it publishes")
	close(block)
	j.settle()
	release, err := j.e.Hold(t.Context(), "lake", "index")
	require.NoError(t, err)
	release()
	j.stop()
}
