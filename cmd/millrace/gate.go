package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// gate lets work in until it is shut, which it can be while nothing is inside. The zero value is open.
type gate struct {
	mu     sync.Mutex
	inside map[string]int // how many, by what they are
	left   chan struct{}  // closed when one leaves; nil when nobody waits for that
	opened chan struct{}  // closed when it is opened again; nil while it is open
}

// enter lets a piece of work in, which says what it is, and waits while the gate is shut. Who is inside may enter again.
func (g *gate) enter(ctx context.Context, what string) error {
	for {
		g.mu.Lock()
		opened := g.opened
		if opened == nil {
			if g.inside == nil {
				g.inside = map[string]int{}
			}
			g.inside[what]++
			g.mu.Unlock()
			return nil
		}
		g.mu.Unlock()
		select {
		case <-opened:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// leave ends what enter let in.
func (g *gate) leave(what string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside[what]--; g.inside[what] == 0 {
		delete(g.inside, what)
	}
	if g.left != nil {
		close(g.left)
		g.left = nil
	}
}

// shut waits until nobody is inside, and shuts the gate until open is called. Meanwhile others enter as before; when ctx ends first the error names who is inside.
func (g *gate) shut(ctx context.Context) (open func(), err error) {
	for {
		g.mu.Lock()
		if len(g.inside) == 0 && g.opened == nil {
			opened := make(chan struct{})
			g.opened = opened
			g.mu.Unlock()
			return sync.OnceFunc(func() {
				g.mu.Lock()
				defer g.mu.Unlock()
				g.opened = nil
				close(opened)
			}), nil
		}
		wait := g.opened
		if wait == nil {
			if g.left == nil {
				g.left = make(chan struct{})
			}
			wait = g.left
		}
		inside := strings.Join(slices.Sorted(maps.Keys(g.inside)), ", ")
		g.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, fmt.Errorf("%s is at work: %w", inside, context.Cause(ctx))
		}
	}
}
