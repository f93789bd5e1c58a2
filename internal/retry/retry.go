// Package retry repeats what failed because of the world: a refused connection, a busy server, a full queue.
//
// It is the only place that sleeps. The wait before attempt n is chosen evenly between nothing and Min·2ⁿ, at most Max
// (exponential backoff with full jitter), so that many callers that failed together do not come back together.
//
// It does not decide what is worth repeating: an error is, unless the caller marks it Permanent.
package retry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Policy says how often and how long Do tries. The zero value tries until the context ends.
type Policy struct {
	Min      time.Duration // upper bound of the first wait, doubled for each further one; default 100 ms
	Max      time.Duration // upper bound of every wait; default 10 s
	Attempts int           // calls at most, the first included; 0 means until the context ends

	// OnRetry is called before each wait with the number of attempts made (1 or more), their last error and how long the
	// wait is: the place to count and to log. Default: nothing.
	OnRetry func(attempt int, err error, wait time.Duration)

	// Rand returns a number in [0, 1) and scales each wait. Default: math/rand.
	Rand func() float64
}

func (p Policy) withDefaults() Policy {
	if p.Min <= 0 {
		p.Min = 100 * time.Millisecond
	}
	if p.Max <= 0 {
		p.Max = 10 * time.Second
	}
	if p.OnRetry == nil {
		p.OnRetry = func(int, error, time.Duration) {}
	}
	if p.Rand == nil {
		p.Rand = rand.Float64
	}
	return p
}

// wait returns how long to wait after the given number of failed attempts.
func (p Policy) wait(attempt int) time.Duration {
	bound := p.Min
	for i := 1; i < attempt && bound < p.Max; i++ {
		bound *= 2
	}
	return time.Duration(p.Rand() * float64(min(bound, p.Max)))
}

// Do calls f until it returns nil, an error marked Permanent, or the policy's attempts are used up, and returns f's last
// error, without the mark.
//
// When ctx ends first, the error matches both the context's cause and f's last error. f is called at least once unless
// ctx has ended before.
func Do(ctx context.Context, p Policy, f func(context.Context) error) error {
	p = p.withDefaults()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for attempt := 1; ; attempt++ {
		err := f(ctx)
		if err == nil {
			return nil
		}
		var permanent *permanentError
		if errors.As(err, &permanent) {
			if err == error(permanent) { //nolint:errorlint // only the outermost mark is taken off
				return permanent.err
			}
			return err
		}
		if attempt == p.Attempts {
			return err
		}
		if ctx.Err() != nil {
			return stopped(ctx, err)
		}
		wait := p.wait(attempt)
		p.OnRetry(attempt, err, wait)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return stopped(ctx, err)
		}
	}
}

// stopped reports that ctx ended while f was failing with last.
func stopped(ctx context.Context, last error) error {
	cause := context.Cause(ctx)
	if errors.Is(last, cause) {
		return last
	}
	return fmt.Errorf("%w; last attempt: %w", cause, last)
}

// Permanent marks err as not worth repeating: Do returns it at once. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }
