package lake_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/lake"
	"millrace/plan"
)

// What a lineage says it holds beyond its rows counts until another one has the table.
func TestHold(t *testing.T) {
	t.Parallel()
	l := openLake(t, lake.Config{})
	tbl := openTable(t, l)
	claim := func(lineage string, token uint64) {
		require.NoError(t, tbl.Claim(t.Context(), lake.Claim{Owner: "app", Lineage: lineage, Token: token, Holds: func(lake.Mark) bool { return true }}))
	}
	held := func() plan.Offsets {
		o, err := l.Held(t.Context(), tbl)
		require.NoError(t, err)
		return o
	}
	claim("L1", 1)
	publish(t, tbl, 1, 1, quiz("a", 1, 1, 0))
	before := held()
	require.NoError(t, tbl.Hold(t.Context(), plan.Offsets{0: 100, 1: 7}))
	require.NoError(t, tbl.Hold(t.Context(), plan.Offsets{0: 100, 1: 7}))
	require.Equal(t, plan.Offsets{0: 100, 1: 7}, held())
	publish(t, tbl, 2, 2, quiz("b", 1, 2, 0))
	require.Equal(t, plan.Offsets{0: 100, 1: 7}, held(), "it goes on")
	claim("L2", 2)
	require.NotContains(t, held(), int32(1))
	require.LessOrEqual(t, before[0], held()[0])
	require.Less(t, held()[0], int64(100), "another lineage may have begun before that")
}
