package web_test

import (
	"testing"
	"time"
)

// BenchmarkOverview is a full page with ten minutes of history.
func BenchmarkOverview(b *testing.B) {
	clock := &steppedClock{at: noon}
	p := newPipeline(clock.now)
	s := newServer(b, p.config())
	for range 600 {
		get(s, "/api/v1/status", "")
		clock.step(time.Second)
	}
	b.ReportAllocs()
	for b.Loop() {
		page(s, "/")
	}
}
