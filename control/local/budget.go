package local

import "time"

// Budget is how often a job is started again by itself: Restarts times within Within, at first after Delay, then after twice as long each time,
// Longest at most. What ran for Within without an end has used nothing up.
type Budget struct {
	Restarts int
	Within   time.Duration // default 10 minutes
	Delay    time.Duration // default a second
	Longest  time.Duration // default a minute

	used []time.Time
}

// Next reports whether a job that ended now is to be started again, and after which time.
func (b *Budget) Next(now time.Time) (wait time.Duration, ok bool) {
	within, wait, longest := orDefault(b.Within, 10*time.Minute), orDefault(b.Delay, time.Second), orDefault(b.Longest, time.Minute)
	for len(b.used) > 0 && (now.Sub(b.used[0]) >= within || now.Before(b.used[0])) { // or the clock was set back
		b.used = b.used[1:]
	}
	if len(b.used) >= b.Restarts {
		return 0, false
	}
	for range b.used {
		wait = min(2*wait, longest)
	}
	b.used = append(b.used, now)
	return wait, true
}

// Used is how many restarts count now.
func (b *Budget) Used() int { return len(b.used) }

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}
