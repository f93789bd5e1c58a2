package lake_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/lake"
	"millrace/plan"
)

// A table that is partitioned by text may have rows of the empty text, alone in a file or beside others in a manifest: the raw lake has rejects of
// sensors whose key is not known.
func TestScanOfEmptyText(t *testing.T) {
	t.Parallel()
	text := func(name string) plan.Column { return plan.Column{Name: name, Type: plan.String} }
	visits := plan.Table{
		Name: "visits", AppendOnly: true,
		Schema:    plan.Schema{Name: "Visit", Columns: []plan.Column{text("account"), text("page")}},
		Partition: []plan.PartitionField{{Column: "account", Transform: plan.Identity}},
	}
	tbl, err := openLake(t, lake.Config{}).Table(t.Context(), "v1", visits)
	require.NoError(t, err)
	accounts := []string{"", "a", "b"}
	for e, of := range [][]string{{""}, {"", "a"}, {"a", "b"}, {"", "a", "b"}} {
		var rows []plan.Row
		for _, account := range of {
			value, err := visits.Schema.Append(nil, []plan.Cell{{Bytes: []byte(account)}, {}})
			require.NoError(t, err)
			rows = append(rows, plan.Row{ID: fmt.Sprint(e, account), Rev: 1, First: true, Value: value, Epoch: uint64(e + 1)})
		}
		publish(t, tbl, uint64(e+1), uint64(e+1), rows...)
	}
	count := func(where map[string]any) (n int) {
		for _, err := range tbl.Scan(t.Context(), lake.ScanOptions{Where: where}) {
			require.NoError(t, err)
			n++
		}
		return n
	}
	for range 2 {
		require.Equal(t, 8, count(nil))
		for _, account := range accounts {
			require.Equal(t, map[string]int{"": 3, "a": 3, "b": 2}[account], count(map[string]any{"account": account}), "%q", account)
		}
		require.Equal(t, 8, count(map[string]any{"page": ""}))
		require.Zero(t, count(map[string]any{"account": "c"}))
		_, err = tbl.Compact(t.Context())
		require.NoError(t, err)
	}
}
