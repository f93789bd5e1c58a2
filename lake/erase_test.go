package lake_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/lake"
	"millrace/lake/laketest"
	"millrace/plan"
)

// erasedOf erases the rows of some ids.
func erasedOf(tbl *lake.Table, ids ...string) func([]plan.Cell) bool {
	at := slices.IndexFunc(tbl.Columns(), func(c plan.Column) bool { return c.Name == "_id" })
	return func(cells []plan.Cell) bool { return slices.Contains(ids, string(cells[at].Bytes)) }
}

// Rows go with every file that ever had them, all others stay, and the table goes on as if it had not happened.
func TestErase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLake(t, lake.Config{Dir: dir})
	tbl := openTable(t, l)
	claim := lake.Claim{Owner: "app", Lineage: "L1", Token: 7, Holds: func(lake.Mark) bool { return true }}
	require.NoError(t, tbl.Claim(t.Context(), claim))
	publish(t, tbl, 1, 1, quiz("a", 1, 1, 0), quiz("b", 1, 1, 0), quiz("c", 1, 1, day))
	require.NoError(t, tbl.Keep(t.Context(), []lake.Mark{{Lineage: "L1", Epoch: 1}}))
	publish(t, tbl, 2, 2, quiz("d", 1, 2, day), quiz("e", 1, 2, 2*day))
	publish(t, tbl, 3, 3, quiz("f", 1, 3, 0))
	before := dataFiles(t, dir)

	eraser, err := l.Lookup(t.Context(), tbl.Name())
	require.NoError(t, err)
	_, err = eraser.Pin(t.Context(), "seeding")
	require.NoError(t, err)
	_, err = eraser.Erase(t.Context(), erasedOf(tbl, "b", "e"))
	require.ErrorContains(t, err, "seeding reads an earlier snapshot")
	require.NoError(t, eraser.Unpin(t.Context(), "seeding"))

	done, err := eraser.Erase(t.Context(), erasedOf(tbl, "b", "e"))
	require.NoError(t, err)
	require.EqualValues(t, 2, done.Rows)
	require.Equal(t, 2, done.Files, "of b, and of e, who was alone in it")
	require.Positive(t, done.Snapshots)
	rest := map[string]float64{"a": 1, "c": 1, "d": 1, "f": 1}
	require.Equal(t, rest, scores(t, tbl))
	kept := 0
	for _, name := range dataFiles(t, dir) {
		if slices.Contains(before, name) {
			kept++
		}
	}
	require.Equal(t, len(before)-2, kept, "files that had them are gone, others are not touched")
	upkeep, err := tbl.Upkeep(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, upkeep.Snapshots)

	again, err := eraser.Erase(t.Context(), erasedOf(tbl, "b", "e"))
	require.NoError(t, err)
	require.Equal(t, lake.Erased{}, again)
	upkeep, err = tbl.Upkeep(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 2, upkeep.Erased)
	pos, ok, err := tbl.Published(t.Context())
	require.NoError(t, err)
	require.True(t, ok)
	require.EqualValues(t, 3, pos.ToEpoch)
	publish(t, tbl, 4, 4, quiz("g", 1, 4, 0))
	rest["g"] = 1
	require.Equal(t, rest, scores(t, tbl))
	require.NoError(t, tbl.Verify(t.Context()))
}

// What a crash leaves, the next call removes, and none removes more.
func TestEraseIsInterrupted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLake(t, lake.Config{Dir: dir})
	tbl := openTable(t, l)
	publish(t, tbl, 1, 1, quiz("a", 1, 1, 0), quiz("b", 1, 1, 0))
	publish(t, tbl, 2, 2, quiz("c", 1, 2, day), quiz("d", 1, 2, day))
	before := dataFiles(t, dir)
	crash := errors.New("crash")
	for n := 1; ; n++ { // each time one step more than the time before
		left := n
		l, err := lake.OpenWithFaults(t.Context(), laketest.In(dir), func(string, string) error {
			if left--; left < 0 {
				return crash
			}
			return nil
		})
		require.NoError(t, err)
		tbl, err := l.Lookup(t.Context(), lake.Name{Namespace: "v1", Table: "quiz"})
		if err == nil {
			_, err = tbl.Erase(t.Context(), erasedOf(tbl, "b", "d"))
		}
		if err == nil {
			require.Greater(t, n, 3, "nothing was interrupted")
		}
		require.NoError(t, l.Close())
		if err == nil {
			break
		}
		require.ErrorIs(t, err, crash)
		got := slices.Sorted(maps.Keys(scores(t, openTable(t, openLake(t, lake.Config{Dir: dir})))))
		require.Subset(t, []string{"a", "b", "c", "d"}, got)
		require.Subset(t, got, []string{"a", "c"})
	}
	require.Equal(t, map[string]float64{"a": 1, "c": 1}, scores(t, tbl))
	upkeep, err := tbl.Upkeep(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 2, upkeep.Erased, "each once, whatever was interrupted")
	after := dataFiles(t, dir)
	require.Len(t, after, 2)
	require.NotSubset(t, before, after)
	for _, name := range after {
		require.NotContains(t, before, name)
	}
}

// dataFiles are the names of the Parquet files that are there.
func dataFiles(t *testing.T, dir string) (names []string) {
	t.Helper()
	for _, name := range laketest.Files(t, dir) {
		if strings.HasSuffix(name, ".parquet") {
			names = append(names, name)
		}
	}
	return names
}
