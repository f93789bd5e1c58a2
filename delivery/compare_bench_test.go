package delivery_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/delivery"
	"millrace/plan"
)

// BenchmarkCompare compares two versions of a table of 100,000 rows, of which one in a hundred differs.
func BenchmarkCompare(b *testing.B) {
	const n, each = 100_000, 50_000
	l := openLake(b, b.TempDir())
	for version, namespace := range []string{"v1", "v2"} {
		tbl := openTable(b, l, namespace, grades)
		for epoch, i := uint64(1), 0; i < n; epoch++ {
			var rows []plan.Row
			for ; i < n && len(rows) < each; i++ {
				score := 1.0
				if i%100 == 0 {
					score += float64(version)
				}
				rows = append(rows, grade(b, fmt.Sprintf("%032x", i*7919), 1, epoch, score, int64(i%10)*day))
			}
			publish(b, tbl, epoch, rows...)
		}
	}
	for b.Loop() {
		c, err := delivery.Compare(b.Context(), delivery.CompareConfig{Lake: l, A: "1", B: "2", Temp: b.TempDir()})
		require.NoError(b, err)
		require.Equal(b, int64((n+99)/100), c.Tables[0].Differ)
	}
	b.ReportMetric(float64(2*n)/b.Elapsed().Seconds()*float64(b.N), "rows/s")
}
