package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"millrace/index"
	"millrace/lake"
	"millrace/plan"
	"millrace/record"
	"millrace/sink"
	"millrace/sink/elastic"
	"millrace/sink/iceberg"
)

// Measure is a quantity that is measured by itself.
type Measure struct {
	What string `json:"what"`
	Unit string `json:"unit"`
	Figure
	Times *Figure `json:"times_floor,omitempty"` // of processor time per record
}

// perRecord measures fn, which handles the records of w or as many of something else, beside the floor. It is called with the round, of
// which the first does not count.
func (c Config) perRecord(what, unit string, w *window, fn func(round int) (usage, error)) (Measure, error) {
	var cpu, times []float64
	for round := range c.Rounds + 1 {
		before, err := floor(w)
		if err != nil {
			return Measure{}, err
		}
		took, err := fn(round)
		if err != nil {
			return Measure{}, fmt.Errorf("%s: %w", what, err)
		}
		after, err := floor(w)
		if err != nil {
			return Measure{}, err
		}
		c.Logger.Info("step", "what", what, "round", round, "cpu", took.cpu, "wall", took.wall)
		if round > 0 {
			cpu = append(cpu, took.cpu.Seconds()*1e6/float64(w.len()))
			times = append(times, 2*float64(took.cpu)/float64(before.cpu+after.cpu))
		}
	}
	t := newFigure(times)
	return Measure{what, "CPU µs/" + unit, newFigure(cpu), &t}, nil
}

// steps measures the steps of a job one by one, each with as many records as a turn of a job has.
func (c Config) steps(ctx context.Context) (out []Measure, err error) {
	w, err := newWindow(newLoad(described), c.Records, described)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	p, err := newPlan(twoJoins, 0)
	if err != nil {
		return nil, err
	}
	made, err := c.capture(ctx, w)
	if err != nil {
		return nil, err
	}
	stages := []struct {
		what, unit string
		run        func(round int) (usage, error)
	}{
		{"scan for 12 paths", "record", func(int) (usage, error) { return scan(w) }},
		{"scan, filter and keys of the app with two joins", "record", func(int) (usage, error) { return read(p, w) }},
		{"map and Avro", "record", func(int) (usage, error) { return mapRows(p, made.elements) }},
		{"Iceberg publish", "record", func(round int) (usage, error) { return c.publishLake(ctx, p, made.batches, round) }},
		{"index publish, with the embedded index", "record", func(round int) (usage, error) { return c.publishIndex(ctx, p, made.batches, round) }},
	}
	for _, s := range stages {
		m, err := c.perRecord(s.what, s.unit, w, s.run)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	state, err := c.stateParts(ctx, w)
	return append(out, state...), err
}

func scan(w *window) (usage, error) {
	paths, err := record.Compile("id", "type", "eventTime", "action", "object.id", "object.assignable.id", "object.startedAtTime",
		"generated.actor.id", "generated.totalScore", "generated.comment", "edApp.id", "group.id")
	if err != nil {
		return usage{}, err
	}
	out := make([]record.Value, paths.Len())
	return measure(func() error {
		for i := range w.len() {
			if err := paths.Scan(w.bytes(i), out); err != nil {
				return err
			}
		}
		return nil
	})
}

// read is what a plan does with a record before any state.
func read(p *plan.Plan, w *window) (usage, error) {
	return measure(func() error {
		r := &windowReader{w: w}
		for r.at < w.len() {
			b, err := r.Poll(context.Background(), 256, 1<<30)
			if err != nil {
				return err
			}
			p.Read(b.Items, plan.NewOutput(p))
		}
		return nil
	})
}

func mapRows(p *plan.Plan, elements [][]plan.Element) (usage, error) {
	last := p.Stages[len(p.Stages)-1]
	return measure(func() error {
		rows := 0
		for _, batch := range elements {
			out := plan.NewOutput(p)
			last.Stateless(batch, out)
			rows += len(out.Rows)
		}
		if rows == 0 {
			return errors.New("no rows were made")
		}
		return nil
	})
}

func (c Config) publishLake(ctx context.Context, p *plan.Plan, batches []sink.Batch, round int) (usage, error) {
	l, err := lake.Open(ctx, lake.Config{Dir: filepath.Join(c.Dir, fmt.Sprintf("publish-lake-%d", round))})
	if err != nil {
		return usage{}, err
	}
	s, err := iceberg.Open(ctx, iceberg.Config{Lake: l, Namespace: "bench", Plan: p})
	if err != nil {
		return usage{}, errors.Join(err, l.Close())
	}
	took, err := measure(func() error { return publishAll(ctx, s, batches) })
	return took, errors.Join(err, s.Close(), l.Close())
}

func (c Config) publishIndex(ctx context.Context, p *plan.Plan, batches []sink.Batch, round int) (usage, error) {
	handler, err := index.Open(index.Config{Path: filepath.Join(c.Dir, fmt.Sprintf("publish-index-%d.duckdb", round))})
	if err != nil {
		return usage{}, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return usage{}, errors.Join(err, handler.Close())
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	s, err := elastic.New(elastic.Config{URLs: []string{"http://" + l.Addr().String()}, Plan: p, Account: account, Env: env})
	var took usage
	if err == nil {
		took, err = measure(func() error { return publishAll(ctx, s, batches) })
		err = errors.Join(err, s.Close())
	}
	err = errors.Join(err, server.Close())
	if served := <-done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return took, errors.Join(err, handler.Close())
}

func publishAll(ctx context.Context, s sink.Sink, batches []sink.Batch) error {
	if err := s.Begin(ctx, sink.Lineage{ID: batches[0].Lineage, Token: 1}, nil); err != nil {
		return err
	}
	for _, b := range batches {
		refused, err := s.Publish(ctx, b)
		if err != nil {
			return err
		}
		if len(refused) > 0 {
			return fmt.Errorf("%d rows were refused: %s", len(refused), refused[0].Reason)
		}
	}
	return nil
}

// captured is what stages of a job were given.
type captured struct {
	elements [][]plan.Element // of the stage that maps
	batches  []sink.Batch
}

// capture runs the app with two joins over w and keeps what its later steps get.
func (c Config) capture(ctx context.Context, w *window) (*captured, error) {
	p, err := newPlan(twoJoins, 0)
	if err != nil {
		return nil, err
	}
	out := &captured{}
	stage := &p.Stages[len(p.Stages)-1]
	maps := stage.Stateless
	stage.Stateless = func(in []plan.Element, to *plan.Output) { // one worker calls it
		out.elements = append(out.elements, in)
		maps(in, to)
	}
	dir := filepath.Join(c.Dir, "capture")
	if _, err := runPlan(ctx, dir, p, descriptions{newLoad(described)}, described, nil); err != nil {
		return nil, err
	}
	out.elements = nil
	_, err = runPlan(ctx, dir, p, w, described+w.len(), out)
	return out, err
}

// captured is a sink that keeps what it gets.
func (s *captured) Name() string                   { return "captured" }
func (s *captured) Gather() (int64, time.Duration) { return 8 << 20, time.Hour }
func (s *captured) Close() error                   { return nil }

func (s *captured) Begin(context.Context, sink.Lineage, sink.Past) error { return nil }

func (s *captured) Publish(_ context.Context, b sink.Batch) ([]sink.Rejected, error) {
	s.batches = append(s.batches, b)
	return nil, nil
}
