package main

import (
	"fmt"
	"sync"
	"time"
)

// paceWindow is how many seconds the rate that is shown is taken over.
const paceWindow = 10

// pace is how fast something is done, beside how fast it should be.
type pace struct {
	want float64 // a second

	mu      sync.Mutex
	samples []paceSample // the last paceWindow + 1
	first   paceSample
	last    paceSample // when it ended; zero before
}

type paceSample struct {
	at    time.Time
	count int64
}

func newPace(want float64, count int64, now time.Time) *pace {
	s := paceSample{now, count}
	return &pace{want: want, first: s, samples: []paceSample{s}}
}

// add notes how much is done by now, about once a second.
func (p *pace) add(count int64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := append(p.samples, paceSample{now, count})
	p.samples = all[max(len(all)-paceWindow-1, 0):]
}

// end notes what was done when it ended.
func (p *pace) end(count int64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = paceSample{now, count}
}

// String is the rate of the last seconds, and that it is too low.
func (p *pace) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	rate := p.samples[0].rateTo(p.samples[len(p.samples)-1])
	if p.low(rate) && len(p.samples) > paceWindow/2 {
		return fmt.Sprintf("%.0f/s (behind --rate %.0f)", rate, p.want)
	}
	return fmt.Sprintf("%.0f/s", rate)
}

// behind says, after the end, that all of it was too slow; else it is empty.
func (p *pace) behind() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	took := p.last.at.Sub(p.first.at)
	rate := p.first.rateTo(p.last)
	if p.last.at.IsZero() || took < time.Second || !p.low(rate) {
		return ""
	}
	return fmt.Sprintf("the district sent %.0f items a second, behind --rate %.0f: this machine took no more", rate, p.want)
}

// low leaves a tenth for starting and stopping.
func (p *pace) low(rate float64) bool { return rate < 0.9*p.want }

func (s paceSample) rateTo(next paceSample) float64 {
	seconds := next.at.Sub(s.at).Seconds()
	if seconds <= 0 {
		return 0
	}
	return float64(next.count-s.count) / seconds
}
