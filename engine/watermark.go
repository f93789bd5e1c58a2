package engine

import (
	"time"

	"millrace/plan"
)

// heard is when, by the processing clock, a partition last brought something in this process's life; µs since 1970.
type heard struct {
	records int64 // any record
	times   int64 // a record with an event time
}

// watermark returns the event-time watermark after an epoch. It never goes back.
//
// A partition holds it back while it brings event times, and also when it has records that nobody has read yet: those
// may be old. One that is read to its end, or brings nothing that has a time, is left out after a while.
func watermark(prev, now int64, newest map[int32]int64, last map[int32]heard, offsets, ends plan.Offsets, disorder, idleAfter time.Duration) int64 {
	low, some := int64(0), false
	consider := func(p int32) (hold bool) {
		h := last[p]
		recent := now - idleAfter.Microseconds()
		unread := ends[p] > offsets[p] && h.records < recent
		if h.times < recent && !unread {
			return false
		}
		t, known := newest[p]
		if !known {
			return true
		}
		// A sensor whose clock is ahead must not make everybody else's events late.
		t = min(t, now)
		if !some || t < low {
			low, some = t, true
		}
		return false
	}
	for p := range ends {
		if consider(p) {
			return prev
		}
	}
	for p := range newest {
		if consider(p) {
			return prev
		}
	}
	if !some {
		return prev
	}
	return max(prev, low-disorder.Microseconds())
}
