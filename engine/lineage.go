package engine

import (
	"context"
	"fmt"
	"time"

	"millrace/sink"
)

// newLineage names the lineage with a token, which says when it began: also two that begin at one instant have different names.
func newLineage(token uint64) string {
	t := time.UnixMicro(int64(token)).UTC() //nolint:gosec // of this age
	return fmt.Sprintf("%s%06d", t.Format("20060102150405"), t.Nanosecond()/1000)
}

// newToken is that of a lineage that begins at t, after one with the token before. Lineages that were begun elsewhere, and that
// nobody here knows of, have lower ones as long as clocks agree.
func newToken(t time.Time, before uint64) uint64 {
	return max(uint64(max(t.UnixMicro(), 0)), before+1)
}

// history is the lineage of a record.
func (r epochRecord) history() sink.Lineage {
	return sink.Lineage{ID: r.Lineage, Token: max(r.Token, 1), Ancestors: r.Ancestors}
}

// first is the first epoch that the lineage made which made the given one.
func first(l sink.Lineage, epoch uint64) uint64 {
	from := uint64(1)
	for _, a := range l.Ancestors {
		if a.Epoch < epoch {
			from = a.Epoch + 1
		}
	}
	return from
}

// begin begins the lineage at the sink. Sinks wait for the archive, which knows what they have to restore, unless they have begun the
// lineage in an earlier run; an archive that is away holds up those alone.
func (p *publisher) begin(ctx context.Context) error {
	l := p.e.history
	var past sink.Past
	_, forked := l.Start()
	if forked && p.e.archive != nil && p != p.e.archive && p.pos.Begun != l.ID {
		select {
		case <-p.e.archive.begun:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		var err error
		if past, err = p.e.archive.sink.(sink.Archive).Past(ctx, l); err != nil {
			return err
		}
	}
	began := time.Now()
	if err := p.sink.Begin(ctx, l, past); err != nil {
		return err
	}
	if forked && p.pos.Begun != l.ID {
		pos := p.pos
		pos.Begun = l.ID
		if err := p.advance(pos); err != nil {
			return err
		}
		p.e.mu.Lock()
		p.pos = pos
		p.e.mu.Unlock()
		p.e.c.Logger.Info("sink begins lineage", "sink", p.sink.Name(), "lineage", l.ID, "took", time.Since(began))
	}
	close(p.begun)
	if p == p.e.archive {
		return p.keep(ctx, nil)
	}
	return nil
}

// keepRequest asks the archive's publisher to tell the archive which points there are now. A nil one has nobody who waits.
type keepRequest struct{ done chan error }

// keep tells the archive which points to keep.
func (p *publisher) keep(ctx context.Context, r *keepRequest) error {
	points, err := p.e.points()
	if err == nil {
		err = p.sink.(sink.Archive).Keep(ctx, points)
	}
	if r != nil {
		r.done <- err
		return nil // who waits has the error
	}
	return err
}

// keep has the archive, if there is one, keep what the savepoints and checkpoints that there are need.
func (e *Engine) keep(ctx context.Context) error {
	if e.archive == nil || e.c.Savepoints == "" {
		return nil
	}
	if !e.started.Load() {
		if err := e.archive.sink.Begin(ctx, e.history, nil); err != nil {
			return err
		}
		return e.archive.keep(ctx, nil)
	}
	r := &keepRequest{done: make(chan error, 1)}
	select {
	case e.archive.keeps <- r:
	case <-e.stopped:
		return e.keepAtRest(ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-r.done:
		return err
	case <-e.stopped:
		return e.keepAtRest(ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// keepAtRest is keep once Run, and with it the archive's publisher, has ended.
func (e *Engine) keepAtRest(ctx context.Context) error {
	if err := e.atRest(ctx); err != nil {
		return err
	}
	return e.archive.keep(ctx, nil)
}

// points are those that the instance may go back to, and that sinks have to take back to which have not begun the lineage yet.
func (e *Engine) points() ([]sink.Point, error) {
	var points []sink.Point
	if start, forked := e.history.Start(); forked {
		e.mu.Lock()
		for _, p := range e.sinks {
			if p.pos.Begun != e.history.ID {
				points = []sink.Point{start}
			}
		}
		e.mu.Unlock()
	}
	for _, dir := range []string{checkpointsDir(e.c.FS, e.c.Dir), e.c.Savepoints} {
		if dir == "" {
			continue
		}
		all, err := ListCheckpoints(e.c.FS, dir)
		if err != nil {
			return nil, err
		}
		for _, l := range all {
			if l.Err == nil && l.Manifest.Epoch > 0 {
				points = append(points, sink.Point{Lineage: l.Manifest.Lineage, Epoch: l.Manifest.Epoch})
			}
		}
	}
	return points, nil
}
