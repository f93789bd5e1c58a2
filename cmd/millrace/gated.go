package main

import (
	"context"

	"millrace/control"
)

// gated is a runner whose effects happen while the stack's gate is open. What is recorded of them comes after them, so that whoever copies
// both while it is shut finds what a kill could have left.
type gated struct{ runner }

var _ control.Runner = gated{}

func (g gated) through(ctx context.Context, what string, i control.Instance, effect func() error) error {
	what += " of " + i.UniqueID()
	if err := g.s.gate.enter(ctx, what); err != nil {
		return err
	}
	defer g.s.gate.leave(what)
	return effect()
}

// Run implements control.Runner.
func (g gated) Run(ctx context.Context, i control.Instance) (version string, err error) {
	err = g.through(ctx, "the start", i, func() (err error) {
		version, err = g.runner.Run(ctx, i)
		return err
	})
	return version, err
}

// Stop implements control.Runner.
func (g gated) Stop(ctx context.Context, i control.Instance) error {
	return g.through(ctx, "the end", i, func() error { return g.runner.Stop(ctx, i) })
}

// Suspend implements control.Runner.
func (g gated) Suspend(ctx context.Context, i control.Instance, name string) error {
	return g.through(ctx, "the suspension", i, func() error { return g.runner.Suspend(ctx, i, name) })
}

// Savepoint implements control.Runner.
func (g gated) Savepoint(ctx context.Context, i control.Instance, name string) error {
	return g.through(ctx, "a savepoint", i, func() error { return g.runner.Savepoint(ctx, i, name) })
}

// Restore implements control.Runner.
func (g gated) Restore(ctx context.Context, i control.Instance, name string) (from string, err error) {
	err = g.through(ctx, "the recovery", i, func() (err error) {
		from, err = g.runner.Restore(ctx, i, name)
		return err
	})
	return from, err
}

// Rewind implements control.Runner.
func (g gated) Rewind(ctx context.Context, i control.Instance, name string) error {
	return g.through(ctx, "a rewind", i, func() error { return g.runner.Rewind(ctx, i, name) })
}

// Serve implements control.Runner.
func (g gated) Serve(ctx context.Context, i control.Instance) error {
	return g.through(ctx, "the promotion", i, func() error { return g.runner.Serve(ctx, i) })
}

// Remove implements control.Runner.
func (g gated) Remove(ctx context.Context, i control.Instance) error {
	return g.through(ctx, "the removal", i, func() error { return g.runner.Remove(ctx, i) })
}
