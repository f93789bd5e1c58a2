package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"millrace/eventlog"
	"millrace/internal/retry"
	"millrace/lake"
	"millrace/plan"
)

// Log is what a source needs of the log.
type Log interface {
	Read(ctx context.Context, from plan.Offsets) (*eventlog.Reader, error)
	Starts(ctx context.Context) (plan.Offsets, error)
	Ends(ctx context.Context) (plan.Offsets, error)
}

// Config says what is read. Log and Instance are required.
type Config struct {
	Log Log

	Lake      *lake.Lake // that keeps the log's records; nil: records that the log has lost are an error
	Namespace string     // of its raw tables
	Instance  string     // of the job: names the pins

	// Seed is what a job that has committed nothing reads of the lake first. Nil: it begins with the oldest record of the log.
	Seed *plan.SeedRange

	Files int // read at a time, default 2

	Logger *slog.Logger // default: discard
}

func (c Config) withDefaults() Config {
	if c.Files <= 0 {
		c.Files = 2
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Source is one job's source.
type Source struct{ cfg Config }

// New returns a source. Nothing is read or pinned yet.
func New(cfg Config) (*Source, error) {
	cfg = cfg.withDefaults()
	switch {
	case cfg.Log == nil:
		return nil, errors.New("source: Config.Log is nil")
	case cfg.Seed != nil && cfg.Lake == nil:
		return nil, errors.New("source: a range of the lake to begin with, and no lake")
	case cfg.Instance == "":
		return nil, errors.New("source: Config.Instance is empty")
	}
	return &Source{cfg}, nil
}

// Ends returns, for every partition of the log, the offset that its next record will have.
func (s *Source) Ends(ctx context.Context) (plan.Offsets, error) { return s.cfg.Log.Ends(ctx) }

// Read starts reading at a position that a Batch has led to, or at the beginning. Close the reader after use.
func (s *Source) Read(ctx context.Context, from plan.Position) (*Reader, error) {
	starts, err := s.starts(ctx)
	if err != nil {
		return nil, err
	}
	r := &Reader{s: s, next: plan.Offsets{}, seeding: from.Seeding}
	fresh := from.Seeding == nil && len(from.Offsets) == 0
	for p, start := range starts {
		if r.next[p] = from.Offsets[p]; fresh {
			r.next[p] = start
		}
	}
	switch {
	case fresh && s.cfg.Seed != nil:
		seeding, err := s.begin(ctx)
		if err != nil {
			return nil, err
		}
		r.begin(seeding)
	case fresh:
		r.from = maps.Clone(r.next)
	}
	if !r.seeds() {
		if err := s.Release(ctx); err != nil {
			return nil, err
		}
		if err := r.openLog(ctx); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Release lets the lake give up the files that a seeding held. Call it once the end of the seeding is committed; Read does it too.
func (s *Source) Release(ctx context.Context) error {
	if s.cfg.Lake == nil {
		return nil
	}
	return s.release(ctx)
}

// Release lets the lake give up the files that the seeding of an instance held which will not run any more.
func Release(ctx context.Context, l *lake.Lake, namespace, instance string) error {
	s := &Source{Config{Lake: l, Namespace: namespace, Instance: instance}.withDefaults()}
	return s.release(ctx)
}

func (s *Source) release(ctx context.Context) error {
	tables, err := s.tables(ctx)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if err := s.patiently(ctx, func(ctx context.Context) error { return t.Unpin(ctx, s.cfg.Instance) }); err != nil {
			return err
		}
	}
	return nil
}

// starts returns the offset of the oldest record that each partition has.
func (s *Source) starts(ctx context.Context) (starts plan.Offsets, err error) {
	return starts, s.patiently(ctx, func(ctx context.Context) error {
		starts, err = s.cfg.Log.Starts(ctx)
		return err
	})
}

// patiently does a step of lake or log again while its server is not available.
func (s *Source) patiently(ctx context.Context, step func(context.Context) error) error {
	policy := retry.Policy{OnRetry: func(attempt int, err error, _ time.Duration) {
		s.cfg.Logger.Warn("retry", "attempt", attempt, "error", err)
	}}
	return retry.Do(ctx, policy, func(ctx context.Context) error {
		err := step(ctx)
		for _, passes := range []error{eventlog.ErrUnavailable, lake.ErrUnavailable, lake.ErrUnsettled} {
			if errors.Is(err, passes) {
				return err
			}
		}
		return retry.Permanent(err)
	})
}

// tables are the raw tables that there are, by name.
func (s *Source) tables(ctx context.Context) (map[string]*lake.Table, error) {
	out := map[string]*lake.Table{}
	for _, name := range slices.Concat(first, then) {
		var t *lake.Table
		err := s.patiently(ctx, func(ctx context.Context) (err error) {
			t, err = s.cfg.Lake.Lookup(ctx, lake.Name{Namespace: s.cfg.Namespace, Table: name})
			return err
		})
		switch {
		case errors.Is(err, lake.ErrNotFound):
		case err != nil:
			return nil, err
		default:
			out[name] = t
		}
	}
	return out, nil
}

// pin makes a seeding of the newest snapshots.
func (s *Source) pin(ctx context.Context, tables map[string]*lake.Table) (*plan.Seeding, error) {
	seeding := &plan.Seeding{Snapshots: map[string]int64{}}
	all := slices.Collect(maps.Values(tables))
	// What the tables hold is asked before they are pinned: later snapshots hold as much.
	err := s.patiently(ctx, func(ctx context.Context) (err error) {
		seeding.Handoff, err = s.cfg.Lake.Held(ctx, all...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find out what the lake holds: %w", err)
	}
	for name, t := range tables {
		err := s.patiently(ctx, func(ctx context.Context) (err error) {
			seeding.Snapshots[name], err = t.Pin(ctx, s.cfg.Instance)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return seeding, nil
}

// begin makes the seeding of a job that has read nothing.
func (s *Source) begin(ctx context.Context) (*plan.Seeding, error) {
	tables, err := s.tables(ctx)
	if err != nil {
		return nil, err
	}
	seeding, err := s.pin(ctx, tables)
	if err != nil {
		return nil, err
	}
	seeding.Of = *s.cfg.Seed
	if err := s.measure(ctx, seeding); err != nil {
		return nil, err
	}
	s.cfg.Logger.Info("seeding", "files", seeding.Tasks, "rows", seeding.Rows, "handoff", seeding.Handoff)
	return seeding, nil
}

// heal makes the seeding that brings what the log has lost since next was read up to. No seeding: it has lost nothing.
func (s *Source) heal(ctx context.Context, next plan.Offsets, gap *eventlog.GapError) (*plan.Seeding, error) {
	if gap.Want > gap.End || s.cfg.Lake == nil {
		return nil, gap
	}
	tables, err := s.tables(ctx)
	if err != nil {
		return nil, err
	}
	seeding, err := s.pin(ctx, tables)
	if err != nil {
		return nil, err
	}
	starts, err := s.starts(ctx)
	if err != nil {
		return nil, err
	}
	held := seeding.Handoff
	seeding.Since, seeding.Handoff = plan.Offsets{}, plan.Offsets{}
	for _, p := range slices.Sorted(maps.Keys(next)) {
		if next[p] >= starts[p] {
			continue
		}
		if held[p] < starts[p] {
			return nil, fmt.Errorf("offsets %d to %d of partition %d of %s are neither in the log, which starts at offset %d, nor in the lake: "+
				"restore the lake or the log from a backup, or start afresh without them: %w",
				max(next[p], held[p]), starts[p]-1, p, gap.Topic, starts[p], gap)
		}
		seeding.Since[p], seeding.Handoff[p] = next[p], held[p]
	}
	if err := s.measure(ctx, seeding); err != nil {
		return nil, err
	}
	s.cfg.Logger.Warn("the log has lost records that are read from the lake", "since", seeding.Since, "handoff", seeding.Handoff)
	return seeding, nil
}

// measure counts what there is to read.
func (s *Source) measure(ctx context.Context, seeding *plan.Seeding) error {
	tasks, err := s.tasks(ctx, seeding)
	if err != nil {
		return err
	}
	seeding.Tasks = len(tasks)
	for _, t := range tasks {
		seeding.Rows += t.file.Rows
	}
	return nil
}
