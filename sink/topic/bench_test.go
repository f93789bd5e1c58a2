package topic_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/plan"
	"millrace/sink"
	"millrace/sink/sinktest"
)

// BenchmarkPublish publishes batches of rows of a table to the embedded broker, which syncs each: one transaction a batch.
func BenchmarkPublish(b *testing.B) {
	for _, size := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("rows=%d", size), func(b *testing.B) {
			s := embedded(b).begin(b)
			defer s.Close()
			b.ReportAllocs()
			epoch, bytes := uint64(0), 0
			for b.Loop() {
				epoch++
				rows := make([]plan.Row, size)
				bytes = 0
				for i := range rows {
					rows[i] = sinktest.Quiz(b, fmt.Sprintf("%d-%d", epoch, i), 1, epoch)
					bytes += len(rows[i].Value)
				}
				_, err := s.Publish(b.Context(), sink.Batch{Lineage: sinktest.Lineage, FromEpoch: epoch, ToEpoch: epoch, Rows: rows})
				require.NoError(b, err)
			}
			b.SetBytes(int64(bytes))
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
