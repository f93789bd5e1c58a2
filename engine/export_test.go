package engine

import (
	"context"
	"errors"
	"math"

	"millrace/plan"
	"millrace/record"
)

func init() { packLeast, sampleSize = 16, 256 }

// Packed returns how many dictionaries the state of the job has.
func (e *Engine) Packed() int { return len(e.s.packer.dicts) }

// Stepper does what Run does, one thing at a time on the caller's goroutine, so that a test decides the order. Only Pebble's own
// goroutines run beside it.
type Stepper struct {
	e     *Engine
	f     *feed
	begun map[int]bool // sinks
}

// Stepper takes the place of Run.
func (e *Engine) Stepper() *Stepper {
	return &Stepper{e, newFeed(e.c, e.outbox.size), map[int]bool{}}
}

// Epoch makes one epoch of what a poll brought.
func (s *Stepper) Epoch(items []record.Item) error {
	in := newInput()
	if err := s.f.parse(in, plan.Batch{Items: items}); err != nil {
		return err
	}
	return s.named(s.e.epoch(in, nil))
}

// named calls damage so, as Run does.
func (s *Stepper) named(err error) error {
	if corrupt(err) {
		err = damage(s.e.c.Dir, err)
	}
	return err
}

// Tick does what is due by the clock, until nothing is.
func (s *Stepper) Tick() error {
	for {
		if err := s.e.tick(); err != nil || !s.e.leftover {
			return s.named(err)
		}
	}
}

// Publish gives a sink at most n of the epochs that it has not published, and reports whether there were any.
func (s *Stepper) Publish(ctx context.Context, i, n int) (some bool, err error) {
	p := s.e.sinks[i]
	entries, _ := s.e.outbox.pending(p.pos.Epoch)
	if len(entries) == 0 {
		return false, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		if !s.begun[i] {
			if err := p.begin(ctx); err != nil {
				done <- err
				return
			}
			s.begun[i] = true
		}
		take, _ := takeEntries(entries[:min(n, len(entries))], math.MaxInt64, s.e.history)
		done <- p.publish(ctx, take)
	}()
	for {
		select {
		case err := <-done:
			return true, s.named(err)
		case a := <-s.e.advances:
			if err := s.e.epoch(nil, a); err != nil {
				cancel()
				return true, errors.Join(err, <-done)
			}
		}
	}
}

// BeginManifest does what the first checkpoint of a life does first.
func (s *Stepper) BeginManifest() error { return s.named(s.e.s.beginManifest()) }

// Savepoint makes a savepoint.
func (s *Stepper) Savepoint(dir string) error { return s.named(s.e.checkpoint(dir)) }

// SyncedLog returns how many bytes of a log of the store are known to have been synced, from the log alone.
func SyncedLog(b []byte, log uint32) int {
	_, synced := logEnd(b, log)
	return synced
}

// LastRecord returns where the last record of a manifest begins.
func LastRecord(b []byte) (at int) {
	for end := 0; end < len(b); {
		n, ok := manifestChunk(logRest(b, end))
		if !ok {
			break
		}
		at, end = end, end+n
	}
	return at
}

// Quiet reports whether Pebble does nothing by itself.
func (s *Stepper) Quiet() bool {
	if s.Fault() != nil {
		return true
	}
	m := s.e.s.db.Metrics()
	return m.MemTable.Count == 1 && m.Flush.NumInProgress == 0 && m.Compact.NumInProgress == 0
}

// Fault returns what made the store unusable.
func (s *Stepper) Fault() error { return s.e.s.fault.get() }

// End closes the directory.
func (s *Stepper) End() error {
	var err error
	for _, p := range s.e.sinks {
		err = errors.Join(err, p.closeFile())
	}
	return errors.Join(err, s.e.outbox.closeSegment(), s.e.Close())
}

// Raised is what the job in dir ends with when Pebble reports err on its own.
func Raised(dir string, err error) error {
	f := newFault(dir)
	f.raise(err)
	return f.get()
}
