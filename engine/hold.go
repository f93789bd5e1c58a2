package engine

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// Hold has the named sinks publish nothing until release is called: what they hold then stays as it is, and the job's state knows all of it. The
// job itself goes on reading and committing. Hold waits for what the sinks are at, and holds none when ctx ends first. Sinks that the
// job does not have are passed over. It may be called whether or not Run was.
func (e *Engine) Hold(ctx context.Context, sinks ...string) (release func(), err error) {
	var held []*publisher
	release = sync.OnceFunc(func() {
		for _, p := range held {
			<-p.busy
		}
	})
	// Sinks that begin a lineage wait for the archive: it comes last.
	order := slices.DeleteFunc(slices.Clone(e.sinks), func(p *publisher) bool { return p == e.archive })
	if e.archive != nil {
		order = append(order, e.archive)
	}
	for _, p := range order {
		if !slices.Contains(sinks, p.sink.Name()) {
			continue
		}
		select {
		case p.busy <- struct{}{}:
			held = append(held, p)
		case <-ctx.Done():
			release()
			return nil, fmt.Errorf("hold sink %s: it has not come to the end of what it publishes: %w", p.sink.Name(), context.Cause(ctx))
		}
	}
	return release, nil
}

// alone does a piece of the publisher's work, unless it is held. Then it waits, and does nothing when ctx ends first.
func (p *publisher) alone(ctx context.Context, work func() error) error {
	select {
	case p.busy <- struct{}{}:
	case <-ctx.Done():
		return nil
	}
	defer func() { <-p.busy }()
	return work()
}
