package sim_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/sim"
)

// BenchmarkNext tells how many events a second one core makes.
func BenchmarkNext(b *testing.B) {
	d, err := sim.New(sim.Config{})
	require.NoError(b, err)
	var items, bytes int64
	for b.Loop() {
		p := d.Next()
		items += int64(len(p.Items))
		bytes += int64(len(p.Body))
	}
	b.ReportMetric(float64(items)/b.Elapsed().Seconds(), "items/s")
	b.ReportMetric(float64(bytes)/float64(items), "B/item")
}

// BenchmarkNew tells how long it takes to lay out a district and its first day.
func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		_, err := sim.New(sim.Config{})
		require.NoError(b, err)
	}
}
