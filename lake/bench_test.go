package lake_test

import (
	"fmt"
	"testing"
	"time"

	"millrace/lake"
)

// BenchmarkCommit commits small batches with a correction each, as a table with a short flush time does, and compares the
// last hundred with the first. Run it with -benchtime 300x or more.
func BenchmarkCommit(b *testing.B) {
	tbl := openTable(b, openLake(b, lake.Config{KeepFor: time.Second}))
	took := make([]time.Duration, 0, b.N)
	for b.Loop() {
		e := uint64(len(took) + 1)
		start := time.Now()
		publish(b, tbl, e, e, quiz(fmt.Sprint(e), 1, e, int64(e%3)*day), quiz("hot", e, e, 0))
		if e%32 == 0 {
			if _, err := tbl.Compact(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		took = append(took, time.Since(start))
	}
	mean := func(d []time.Duration) float64 {
		var sum time.Duration
		for _, v := range d {
			sum += v
		}
		return float64(sum.Microseconds()) / 1000 / float64(len(d))
	}
	n := min(100, len(took))
	b.ReportMetric(mean(took[:n]), "first100-ms/commit")
	b.ReportMetric(mean(took[len(took)-n:]), "last100-ms/commit")
}
