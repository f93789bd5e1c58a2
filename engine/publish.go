package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"millrace/plan"
	"millrace/sink"
)

// minGather is how many bytes of rows a batch may have when the sink does not ask for more.
const minGather = 4 << 20

// position is how far a sink has published, durably.
type position struct {
	Epoch   uint64       `json:"epoch"`
	Offsets plan.Offsets `json:"offsets"`
	Begun   string       `json:"begun,omitempty"` // lineage that the sink has begun, with all that it had to take back

	// Refused is set when a rewind takes the sink back: refusals up to this epoch have been booked, and come again.
	Refused uint64 `json:"refused,omitempty"`
}

func sinkKey(name string) []byte { return append([]byte{kindSink}, name...) }

// advance is a sink's new position that must be committed together with what became of the rows it refused.
type advance struct {
	sink        string
	position    position
	rejected    int64
	deadLetters []plan.Row
	done        chan struct{} // closed when committed
}

// publisher drains the outbox into one sink, at the sink's pace.
type publisher struct {
	e    *Engine
	sink sink.Sink

	pos       position // guarded by e.mu; written by the publisher alone
	publishes int64    // guarded by e.mu

	file    vfs.File // open segment
	segment uint64

	busy  chan struct{}     // holds something while the publisher works, or is held
	begun chan struct{}     // closed when the sink has begun the lineage in this run
	keeps chan *keepRequest // for an archive
}

// openPublishers finds every sink's position. It settles them durably before the first epoch, so that a position that is
// missing always means a new sink.
func openPublishers(e *Engine) ([]*publisher, error) {
	known := map[string]position{}
	err := e.s.scan([]byte{kindSink}, func(k, v []byte) error {
		var p position
		if err := json.Unmarshal(v, &p); err != nil {
			return fmt.Errorf("read position of sink %s: %w", k[1:], err)
		}
		known[string(k[1:])] = p
		return nil
	})
	if err != nil {
		return nil, err
	}
	b := e.s.db.NewBatch()
	var all []*publisher
	for _, s := range e.c.Sinks {
		pos, ok := known[s.Name()]
		if !ok {
			pos = position{Epoch: e.rec.Epoch, Offsets: e.rec.Offsets}
			if e.rec.Epoch > 0 {
				e.c.Logger.Warn("new sink gets rows from here on", "sink", s.Name(), "epoch", e.rec.Epoch)
			}
			if err := setJSON(b, sinkKey(s.Name()), pos); err != nil {
				return nil, err
			}
		}
		delete(known, s.Name())
		all = append(all, &publisher{e: e, sink: s, pos: pos, busy: make(chan struct{}, 1), begun: make(chan struct{}), keeps: make(chan *keepRequest, 1)})
	}
	entries, err := readEntries(e.s)
	if err != nil {
		return nil, err
	}
	for name, pos := range known {
		left := 0
		for _, ent := range entries {
			if ent.Epoch > pos.Epoch {
				left += ent.Rows
			}
		}
		if left > 0 {
			return nil, fmt.Errorf("sink %s is not configured any more and has %d rows that it has not published; start once with it to publish them", name, left)
		}
		if err := b.Delete(sinkKey(name), nil); err != nil {
			return nil, err
		}
	}
	if b.Empty() {
		return all, b.Close()
	}
	if err := e.s.commit(b); err != nil {
		return nil, err
	}
	return all, b.Close()
}

// published returns the last epoch that all sinks have published; all of them when there are no sinks.
func (e *Engine) published() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	epoch := uint64(math.MaxUint64)
	for _, p := range e.sinks {
		epoch = min(epoch, p.pos.Epoch)
	}
	return epoch
}

// run publishes until ctx ends, or drain is closed and nothing is left. An error is the sink's, and ends the job.
func (p *publisher) run(ctx context.Context, drain <-chan struct{}) (err error) {
	defer func() { err = errors.Join(err, p.closeFile()) }()
	err = p.alone(ctx, func() error { return p.begin(ctx) })
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("begin lineage %s: %w", p.e.history.ID, err)
	}
	size, every := p.sink.Gather()
	size = max(size, minGather)
	wait := time.NewTimer(time.Hour)
	defer wait.Stop()
	gathering := false
	var untended <-chan time.Time // never, for a sink that needs no care
	tend := func() error { return nil }
	if s, ok := p.sink.(sink.Tended); ok {
		again := time.NewTimer(0)
		defer again.Stop()
		untended = again.C
		tend = func() error {
			return p.alone(ctx, func() error { again.Reset(s.Tend(ctx)); return nil })
		}
	}
	for {
		select {
		case r := <-p.keeps: // also while there is always more to publish
			if err := p.alone(ctx, func() error { return p.keep(ctx, r) }); err != nil {
				return err
			}
		case <-untended:
			if err := tend(); err != nil {
				return err
			}
		default:
		}
		entries, changed := p.e.outbox.pending(p.pos.Epoch)
		draining := closed(drain)
		take, full := takeEntries(entries, size, p.e.history)
		if !gathering && len(take) > 0 {
			wait.Reset(every)
			gathering = true
		}
		if len(take) > 0 && (full || draining || every <= 0) {
			if err := p.alone(ctx, func() error { return p.publish(ctx, take) }); err != nil {
				return err
			}
			gathering = false
		} else {
			var due <-chan time.Time
			if gathering {
				due = wait.C
			}
			if draining {
				return nil
			}
			select {
			case <-changed:
				continue
			case <-due:
				if err := p.alone(ctx, func() error { return p.publish(ctx, take) }); err != nil {
					return err
				}
				gathering = false
			case r := <-p.keeps:
				if err := p.alone(ctx, func() error { return p.keep(ctx, r) }); err != nil {
					return err
				}
				continue
			case <-untended:
				if err := tend(); err != nil {
					return err
				}
				continue
			case <-drain:
				continue
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// takeEntries returns the first entries that make up a batch, and whether the batch is full. A batch is of one lineage.
func takeEntries(all []entry, size int64, l sink.Lineage) (take []entry, full bool) {
	sum := int64(0)
	for i, e := range all {
		if l.Of(e.Epoch) != l.Of(all[0].Epoch) {
			return all[:i], true
		}
		if sum += e.Bytes; sum >= size {
			return all[:i+1], true
		}
	}
	return all, false
}

// publish gives the rows of entries to the sink and makes the new position durable. It returns nil when ctx ended first:
// the same rows are published again at the next start.
func (p *publisher) publish(ctx context.Context, entries []entry) error {
	last := entries[len(entries)-1]
	n, size := 0, int64(0)
	for _, e := range entries {
		n += e.Rows
		size += e.Bytes
	}
	rows := make([]plan.Row, 0, n)
	for _, ent := range entries {
		if err := p.open(ent.Segment); err != nil {
			return err
		}
		var err error
		if rows, err = p.e.outbox.read(rows, p.e.c.Plan, p.file, ent); err != nil {
			return err
		}
	}
	began := time.Now()
	from := p.pos.Epoch + 1
	if l := p.e.history; l.Of(from) != l.Of(last.Epoch) {
		from = first(l, last.Epoch) // what an ancestor made from p.pos on has no rows
	}
	rejected, err := p.give(ctx, sink.Batch{
		Lineage:     p.e.history.Of(last.Epoch),
		FromEpoch:   from,
		ToEpoch:     last.Epoch,
		Rows:        rows,
		FromOffsets: p.pos.Offsets,
		ToOffsets:   last.Offsets,
	})
	p.e.tracePublish(began, p.sink.Name(), from, last.Epoch, len(rows), err)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("publish epochs %d to %d: %w", p.pos.Epoch+1, last.Epoch, err)
	}
	p.e.metrics.publish(p.sink.Name(), time.Since(began), len(rows), size)
	pos := position{Epoch: last.Epoch, Offsets: last.Offsets, Begun: p.pos.Begun, Refused: p.pos.Refused}
	rejected = slices.DeleteFunc(rejected, func(r sink.Rejected) bool { return r.Row.Epoch <= p.pos.Refused })
	if len(rejected) > 0 {
		if committed := p.advanceRejected(ctx, pos, rejected); !committed {
			return nil
		}
	} else if err := p.advance(pos); err != nil {
		return err
	}
	p.e.mu.Lock()
	p.pos = pos
	p.publishes++
	p.e.mu.Unlock()
	// Only now is the position durable, and only then may rows go.
	return p.e.outbox.release(p.e.s, p.e.published())
}

// give calls the sink. A panic in it becomes an error with its stack: it ends the job, not the process.
func (p *publisher) give(ctx context.Context, b sink.Batch) (rejected []sink.Rejected, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return p.sink.Publish(ctx, b)
}

func (p *publisher) advance(pos position) error {
	b := p.e.s.db.NewBatch()
	if err := setJSON(b, sinkKey(p.sink.Name()), pos); err != nil {
		return err
	}
	if err := p.e.s.commit(b); err != nil {
		return fmt.Errorf("commit position: %w", err)
	}
	return b.Close()
}

// advanceRejected has the position committed by the next epoch, together with the dead letters of the refused rows: they
// are neither lost nor made twice. A dead letter that is itself refused is only counted.
func (p *publisher) advanceRejected(ctx context.Context, pos position, rejected []sink.Rejected) (committed bool) {
	a := &advance{sink: p.sink.Name(), position: pos, rejected: int64(len(rejected)), done: make(chan struct{})}
	if dead := p.e.c.Plan.DeadLetter; dead != nil {
		for _, r := range rejected {
			if row := dead(r.Row, p.sink.Name(), r.Reason); row.Table != r.Row.Table {
				a.deadLetters = append(a.deadLetters, row)
			}
		}
	}
	p.e.c.Logger.Warn("sink refused rows", "sink", p.sink.Name(), "rows", len(rejected), "first_id", rejected[0].Row.ID, "reason", rejected[0].Reason)
	select {
	case p.e.advances <- a:
	case <-ctx.Done():
		return false
	}
	select {
	case <-a.done:
		return true
	case <-ctx.Done():
		return closed(a.done)
	}
}

// open makes p.file the given segment.
func (p *publisher) open(segment uint64) error {
	if p.file != nil && p.segment == segment {
		return nil
	}
	if err := p.closeFile(); err != nil {
		return err
	}
	f, err := p.e.outbox.openSegment(segment)
	p.file, p.segment = f, segment
	return err
}

func (p *publisher) closeFile() error {
	if p.file == nil {
		return nil
	}
	err := p.file.Close()
	p.file = nil
	return err
}
