package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"millrace/plan"
)

// maxFired bounds the timers of a stage and domain that fire in one epoch; the rest fires in the next.
const maxFired = 20_000

var domains = [...]plan.TimeDomain{plan.ProcessingTime, plan.EventTime}

// timers knows when to look into the timer index, and where from.
type timers struct {
	s      *state
	stages []uint16 // state ids by stage index; 0 for stateless stages

	// low is at most the instant of the earliest timer of a domain and stage. Scans start there and so never pass the
	// tombstones that fired timers leave.
	low map[plan.TimeDomain][]int64
}

func openTimers(s *state, stages []uint16) (*timers, error) {
	t := &timers{s: s, stages: stages, low: map[plan.TimeDomain][]int64{}}
	for _, d := range domains {
		t.low[d] = make([]int64, len(stages))
		for i, id := range stages {
			if id == 0 {
				t.low[d][i] = math.MaxInt64
				continue
			}
			t.low[d][i] = math.MinInt64
			if err := t.scan(d, i, math.MaxInt64, 0, nil); err != nil {
				return nil, fmt.Errorf("read timers: %w", err)
			}
		}
	}
	return t, nil
}

// next returns an instant no later than the earliest timer of the domain; MaxInt64 when there is none.
func (t *timers) next(d plan.TimeDomain) int64 {
	at := int64(math.MaxInt64)
	for _, low := range t.low[d] {
		at = min(at, low)
	}
	return at
}

// due reports whether a timer may be due.
func (t *timers) due(c plan.Clock) bool {
	return t.next(plan.ProcessingTime) <= c.Processing || t.next(plan.EventTime) <= c.Watermark
}

// set notes a timer that the epoch being committed sets.
func (t *timers) set(stage int, tm plan.Timer) {
	low := &t.low[tm.Domain][stage]
	*low = min(*low, tm.At)
}

// fire returns the due timers by stage, and how many. They are gone once the caller's commit deletes them.
func (t *timers) fire(c plan.Clock) (fired [][]firedTimer, n int, err error) {
	fired = make([][]firedTimer, len(t.stages))
	for _, d := range domains {
		now := c.Processing
		if d == plan.EventTime {
			now = c.Watermark
		}
		for i := range t.stages {
			if t.low[d][i] > now {
				continue
			}
			if err := t.scan(d, i, now, maxFired, &fired[i]); err != nil {
				return nil, 0, fmt.Errorf("read timers: %w", err)
			}
		}
	}
	for i := range fired {
		n += len(fired[i])
	}
	return fired, n, nil
}

// scan collects at most limit timers that are due, and leaves low at the first one that it did not collect.
func (t *timers) scan(d plan.TimeDomain, stage int, now int64, limit int, into *[]firedTimer) error {
	prefix := appendTimerPrefix(nil, d, t.stages[stage])
	from := binary.BigEndian.AppendUint64(bytes.Clone(prefix), uint64(t.low[d][stage])^1<<63)
	it, err := t.s.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: after(prefix)})
	if err != nil {
		return err
	}
	low, n := int64(math.MaxInt64), 0
	for ok := it.First(); ok; ok = it.Next() {
		at, key, parsed := parseTimerKey(it.Key())
		if !parsed {
			err = fmt.Errorf("timer key %x", it.Key())
			break
		}
		if at > now || n == limit {
			low = at
			break
		}
		*into = append(*into, firedTimer{bytes.Clone(key), plan.Timer{Domain: d, At: at}})
		n++
	}
	t.low[d][stage] = low
	return errors.Join(err, it.Error(), it.Close())
}
