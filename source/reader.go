package source

import (
	"context"
	"errors"
	"maps"

	"millrace/eventlog"
	"millrace/plan"
)

// Reader reads a source. It is used from one goroutine.
type Reader struct {
	s *Source

	seeding *plan.Seeding // the last one that was handed out or is to be; nil when only the log is read
	lake    *lakeReader   // while it is read
	piece   piece         // what of the lake is read and not handed out

	next plan.Offsets     // of the log
	from plan.Offsets     // is handed out with the next batch; nil when it was, or is committed already
	log  *eventlog.Reader // nil while the lake is read
}

func (r *Reader) seeds() bool { return r.seeding != nil && !r.seeding.Done }

// begin makes the reader read the lake before it goes on with the log.
func (r *Reader) begin(seeding *plan.Seeding) {
	r.seeding, r.from = seeding, seeding.Handoff
	maps.Copy(r.next, seeding.Handoff)
}

// openLog goes on with the log where it was read up to, or with the lake when the log does not have that any more.
func (r *Reader) openLog(ctx context.Context) error {
	err := r.s.patiently(ctx, func(ctx context.Context) (err error) {
		r.log, err = r.s.cfg.Log.Read(ctx, r.next)
		return err
	})
	if err == nil {
		return nil
	}
	return r.afterGap(ctx, err)
}

func (r *Reader) afterGap(ctx context.Context, err error) error {
	var gap *eventlog.GapError
	if !errors.As(err, &gap) {
		return err
	}
	seeding, err := r.s.heal(ctx, r.next, gap)
	if err != nil {
		return err
	}
	r.begin(seeding)
	return nil
}

// Poll blocks until there is at least one record, or a change of the seeding, or ctx ends, and returns what is there: at most maxRecords
// records and not much more than maxBytes of their bytes. What the lake's server does not give it waits for. An error is final.
func (r *Reader) Poll(ctx context.Context, maxRecords, maxBytes int) (plan.Batch, error) {
	for {
		switch {
		case r.seeds() && r.from != nil:
			b := plan.Batch{From: r.from, Seeding: r.seeding}
			r.from = nil
			return b, nil
		case r.seeds():
			return r.pollLake(ctx, maxRecords, maxBytes)
		case r.log == nil:
			if err := r.openLog(ctx); err != nil {
				return plan.Batch{}, err
			}
			continue
		}
		items, err := r.log.Poll(ctx, maxRecords, maxBytes)
		if err != nil {
			if ctx.Err() != nil {
				return plan.Batch{}, err
			}
			if err = errors.Join(r.afterGap(ctx, err), r.log.Close()); err != nil {
				return plan.Batch{}, err
			}
			r.log = nil
			continue
		}
		for _, it := range items {
			r.next[it.Position.Partition] = it.Position.Offset + 1
		}
		b := plan.Batch{From: r.from, Items: items}
		r.from = nil
		return b, nil
	}
}

// pollLake hands out what the lake brings, with the seeding as it is then.
func (r *Reader) pollLake(ctx context.Context, maxRecords, maxBytes int) (plan.Batch, error) {
	if r.lake == nil {
		var err error
		if r.lake, err = r.s.open(ctx, r.seeding); err != nil {
			return plan.Batch{}, err
		}
	}
	next := r.seeding.Clone()
	if len(r.piece.items) == 0 && !r.piece.last {
		select {
		case r.piece = <-r.lake.pieces:
		default:
			select {
			case r.piece = <-r.lake.pieces:
			case <-r.lake.done:
				select {
				case r.piece = <-r.lake.pieces: // sent before the end
				default:
					return r.barrier(next)
				}
			case <-ctx.Done():
				return plan.Batch{}, context.Cause(ctx)
			}
		}
	}
	p := &r.piece
	n, size := 0, 0
	for n < len(p.items) && n < maxRecords && (n == 0 || size < maxBytes) {
		size += len(p.items[n].Bytes)
		n++
	}
	b := plan.Batch{Items: p.items[:n:n], Seeding: next}
	rows, whole := p.end, n == len(p.items)
	if !whole {
		rows = p.rows[n-1]
	}
	if next.Doing == nil {
		next.Doing = map[int]int64{}
	}
	for next.Begun <= p.task {
		next.Doing[next.Begun] = 0
		next.Begun++
	}
	next.Read += rows - next.Doing[p.task]
	next.Kept += int64(n)
	next.Doing[p.task] = rows
	p.items, p.rows = p.items[n:], p.rows[n:]
	if whole {
		if p.last {
			delete(next.Doing, p.task)
		}
		r.piece = piece{}
	}
	r.seeding = next
	return b, nil
}

// barrier ends the seeding: all of it was handed out.
func (r *Reader) barrier(next *plan.Seeding) (plan.Batch, error) {
	if err := r.lake.err; err != nil {
		return plan.Batch{}, err
	}
	r.lake.close()
	r.lake = nil
	next.Done, next.Begun, next.Doing = true, next.Tasks, nil
	r.seeding = next
	r.s.cfg.Logger.Info("seeded", "rows", next.Read, "records", next.Kept, "handoff", next.Handoff)
	return plan.Batch{Seeding: next}, nil
}

// Close ends the reading.
func (r *Reader) Close() error {
	if r.lake != nil {
		r.lake.close()
	}
	if r.log != nil {
		return r.log.Close()
	}
	return nil
}
