package delivery_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/delivery"
	"millrace/plan"
)

// BenchmarkSQL asks a table of 400,000 rows, of which a tenth was corrected since, from the parse of the statement to the last row.
func BenchmarkSQL(b *testing.B) {
	l := openLake(b, b.TempDir())
	tbl := openTable(b, l, "unversioned", grades)
	const commits, each = 4, 100_000
	for epoch := uint64(1); epoch <= commits; epoch++ {
		rows := make([]plan.Row, 0, each)
		for i := range each {
			rows = append(rows, grade(b, fmt.Sprintf("id-%d-%d", epoch, i), 1, epoch, float64(i%100), int64(i%4)*day))
		}
		publish(b, tbl, epoch, rows...)
	}
	rows := make([]plan.Row, 0, commits*each/10)
	for i := range commits * each / 10 {
		rows = append(rows, grade(b, fmt.Sprintf("id-%d-%d", 1+i%commits, i), 2, commits+1, 50, 0))
	}
	publish(b, tbl, commits+1, rows...)
	s := openSQL(b, l, delivery.SQLConfig{})
	for name, query := range map[string]string{
		"nothing": "SELECT 1",
		"count":   "SELECT count(*) FROM grades",
		"group":   "SELECT date_trunc('day', _event_time) AS day, count(*), avg(score) FROM grades GROUP BY day ORDER BY day",
		"lookup":  "SELECT score FROM grades WHERE _id = 'id-3-777'",
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				a, err := s.Query(b.Context(), query)
				require.NoError(b, err)
				for _, err := range a.Text(b.Context()) {
					require.NoError(b, err)
				}
				require.NoError(b, a.Close())
			}
		})
	}
}
