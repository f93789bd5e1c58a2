package sim

import (
	"context"
	"time"
)

// maxLag is how far sending may fall behind before the lost time is given up instead of being made good at full speed.
const maxLag = 2 * time.Second

// pacer tells when a post is to be sent.
type pacer struct {
	rate, speed float64
	now         func() time.Time
	begin       time.Time // when the first post was sent, plus all lags given up
	first       time.Time // virtual
	items       int
}

// wait returns when it is p's turn, or hurry is closed.
func (c *pacer) wait(ctx context.Context, p *Post, hurry <-chan struct{}) error {
	now := c.now()
	if c.begin.IsZero() {
		c.begin, c.first = now, p.At
	}
	var due time.Time
	if c.rate > 0 {
		due = c.begin.Add(time.Duration(float64(c.items) / c.rate * float64(time.Second)))
	} else {
		due = c.begin.Add(time.Duration(float64(p.At.Sub(c.first)) / c.speed))
	}
	c.items += max(len(p.Items), 1)
	left := due.Sub(now)
	if left < -maxLag {
		c.begin = c.begin.Add(-left)
	}
	if left <= 0 {
		return nil
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-hurry:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
