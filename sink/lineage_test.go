package sink_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/sink"
)

func TestLineage(t *testing.T) {
	t.Parallel()
	first := sink.Lineage{ID: "L1", Token: 1}
	_, forked := first.Start()
	require.False(t, forked)
	require.True(t, first.Holds(sink.Point{Lineage: "L1", Epoch: 7}))
	require.False(t, first.Holds(sink.Point{Lineage: "L1"}), "there is no epoch 0")

	second := first.Fork(2, "L2", 2)
	third := second.Fork(4, "L3", 3)
	start, forked := third.Start()
	require.True(t, forked)
	require.Equal(t, sink.Point{Lineage: "L2", Epoch: 4}, start)
	require.Equal(t, []sink.Point{{Lineage: "L1", Epoch: 2}, {Lineage: "L2", Epoch: 4}}, third.Ancestors)
	for epoch, want := range map[uint64]string{1: "L1", 2: "L1", 3: "L2", 4: "L2", 5: "L3", 100: "L3"} {
		require.Equal(t, want, third.Of(epoch), "epoch %d", epoch)
		for _, id := range []string{"L1", "L2", "L3", "L4"} {
			require.Equal(t, id == want, third.Holds(sink.Point{Lineage: id, Epoch: epoch}), "epoch %d of %s", epoch, id)
		}
	}

	require.Equal(t, []sink.Point{{Lineage: "L1", Epoch: 1}}, third.Fork(1, "L4", 4).Ancestors, "to before an earlier rewind")
	require.Equal(t, []sink.Point{{Lineage: "L1", Epoch: 2}}, third.Fork(2, "L4", 4).Ancestors)
	require.Equal(t, []sink.Point{{Lineage: "L1", Epoch: 2}, {Lineage: "L2", Epoch: 4}}, third.Fork(4, "L4", 4).Ancestors,
		"the rewind of a rewind that did nothing")
	require.Empty(t, third.Fork(0, "L4", 4).Ancestors, "to the very beginning")
}
