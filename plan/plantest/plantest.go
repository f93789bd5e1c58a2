// Package plantest is the conformance suite of runners: what every runner of plans must do, said by running plans.
//
// The suite looks at what a runner publishes, not at how it works. A runner cuts epochs as it likes; the cases hold for
// any cut. Package engine's and package flink's tests run it.
package plantest

import (
	"fmt"
	"math/rand"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/plan"
	"millrace/record"
)

// Job is what a runner under test is to run.
type Job struct {
	Plan     *plan.Plan
	Workers  int              // goroutines or subtasks for each stage
	Now      func() time.Time // the processing clock
	Disorder time.Duration    // of event time
}

// Runner is a running job, with a sink that remembers what it is given. Its methods fail the test by themselves.
type Runner interface {
	// Feed appends items to the job's source, all to one partition, and returns when they are processed and everything
	// that follows from them is published.
	Feed(items ...record.Item)

	// Wake returns when timers that are due by the job's clock have fired and what follows from them is published.
	Wake()

	// Restart stops the job and starts it from what it has stored.
	Restart()

	// Rows returns all rows published so far, in order. After a restart a row may be there twice.
	Rows() []plan.Row

	// Counters returns the plan's counters, as committed.
	Counters() map[string]int64
}

// Clock is a clock that tests move.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that stands at a fixed time.
func NewClock() *Clock { return &Clock{now: time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)} }

// Now returns the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Move moves the clock.
func (c *Clock) Move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Run runs the suite. start starts a job with nothing stored; what it starts ends with the test.
func Run(t *testing.T, start func(t *testing.T, job Job) Runner) {
	t.Run("toy", func(t *testing.T) { toyCases(t, start) })
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := &setup{T: t, clock: NewClock()}
			s.Runner = start(t, Job{Plan: c.plan(), Workers: 2, Now: s.clock.Now, Disorder: time.Minute})
			c.run(s)
		})
	}
}

// ToyItems makes n items for Toy from a seed: some keys never get their entity, some get it late, several times.
func ToyItems(n int, seed int64) []record.Item {
	rng := rand.New(rand.NewSource(seed))
	items := make([]record.Item, n)
	for i := range items {
		key := fmt.Sprintf("%c%d", 'a'+rng.Intn(4), rng.Intn(n/6+1))
		if rng.Intn(5) == 0 && !strings.HasSuffix(key, "3") {
			items[i] = Entity(key)
		} else {
			items[i] = Event(key, fmt.Sprintf("e%d", i))
		}
	}
	return items
}

// toyCases runs Toy over the same items in many ways; all must give the model's tables.
func toyCases(t *testing.T, start func(t *testing.T, job Job) Runner) {
	items := ToyItems(600, 1)
	want := Format(ToyModel(items))
	for _, c := range []struct {
		workers, epoch int
		restart        bool
		order          int64
	}{
		{workers: 1, epoch: 600},
		{workers: 2, epoch: 600},
		{workers: 8, epoch: 600},
		{workers: 1, epoch: 7},
		{workers: 8, epoch: 100},
		{workers: 2, epoch: 60, restart: true},
		{workers: 4, epoch: 200, order: 2},
		{workers: 4, epoch: 90, order: 3, restart: true},
	} {
		t.Run(fmt.Sprintf("workers=%d,epoch=%d,restart=%t,order=%d", c.workers, c.epoch, c.restart, c.order), func(t *testing.T) {
			t.Parallel()
			in := append([]record.Item(nil), items...)
			if c.order != 0 {
				rand.New(rand.NewSource(c.order)).Shuffle(len(in), func(i, j int) { in[i], in[j] = in[j], in[i] })
			}
			clock := NewClock()
			p := Toy()
			r := start(t, Job{Plan: p, Workers: c.workers, Now: clock.Now, Disorder: time.Minute})
			for len(in) > 0 {
				n := min(c.epoch, len(in))
				r.Feed(in[:n]...)
				in = in[n:]
				if c.restart {
					r.Restart()
				}
			}
			clock.Move(Wait + time.Second)
			r.Wake()
			got, err := Tables(p, r.Rows())
			require.NoError(t, err)
			require.Equal(t, want, Format(got))
			counted := r.Counters()
			require.EqualValues(t, len(items), counted["events"]+counted["entities"])
			require.EqualValues(t, strings.Count(want, "late/"), counted["late"])
		})
	}
}
