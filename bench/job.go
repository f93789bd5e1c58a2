package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"millrace/engine"
	"millrace/lake"
	"millrace/sink"
	"millrace/sink/iceberg"
)

// lakeFlush is how many bytes of rows gather for one snapshot of the lake. The default is four times as much: then a window would
// end before the first snapshot, and publishing, which has a worker's time to itself at the end, would not go on beside the rest as it
// does in a job that runs on.
const lakeFlush = 32 << 20

// Job is what a whole job costs in one setting.
type Job struct {
	App     string `json:"app"`
	Keys    int    `json:"keys"`    // entities described before
	Correct string `json:"correct"` // for how long joined records are corrected
	Workers int    `json:"workers"` // of the engine, and GOMAXPROCS

	BytesPerRecord float64 `json:"bytes_per_record"`
	CPU            Figure  `json:"cpu_us_per_record"`
	Floor          Figure  `json:"floor_us_per_record"`
	Valid          Figure  `json:"encoding_json_valid_us_per_record"`
	Times          Figure  `json:"times_floor"`
	Rate           Figure  `json:"records_per_second"`
	StateBytes     int64   `json:"state_bytes"` // on disk, at the end

	Stages []Share `json:"stages"`
}

// trial is one app on the state of so many entities.
type trial struct {
	c           Config
	app         appName
	keys        int
	corrections []time.Duration // settings of CorrectFor
	load        *load
	read        int64 // records that its jobs have read
}

// jobs measures the app with all settings, each from the same state.
func (t *trial) jobs(ctx context.Context) (jobs []Job, measures []Measure, err error) {
	base := filepath.Join(t.c.Dir, "base")
	if measures, err = t.describe(ctx, base); err != nil {
		return nil, nil, fmt.Errorf("describe %d entities to %s: %w", t.keys, t.app, err)
	}
	var resumed []float64
	for _, correct := range t.corrections {
		dir := filepath.Join(t.c.Dir, "job")
		took, err := measure(func() error { return t.resume(ctx, base, dir) })
		if err != nil {
			return nil, nil, err
		}
		resumed = append(resumed, took.wall.Seconds())
		all, err := t.alternate(ctx, dir, correct)
		if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
			return nil, nil, fmt.Errorf("job %s, %d keys, corrected for %s: %w", t.app, t.keys, correct, err)
		}
		jobs = append(jobs, all...)
	}
	measures = append(measures, Measure{What: t.state("resume from a savepoint of"), Unit: "s", Figure: newFigure(resumed)})
	return jobs, measures, os.RemoveAll(base)
}

// state names a measure of the state that all settings begin with.
func (t *trial) state(what string) string { return fmt.Sprintf("%s, %s %d keys", t.app, what, t.keys) }

// resume restores a savepoint and opens it.
func (t *trial) resume(ctx context.Context, savepoint, dir string) error {
	p, err := newPlan(t.app, 0)
	if err != nil {
		return err
	}
	if err := engine.Restore(nil, savepoint, dir, time.Now()); err != nil {
		return err
	}
	e, err := engine.Open(ctx, engine.Config{Dir: dir, Plan: p, Instance: "bench", Source: descriptions{newLoad(t.keys)}})
	if err != nil {
		return err
	}
	return e.Close()
}

// describe makes a savepoint of a job that has read all descriptions. The first one reads all that the state has; the ones after it
// find most of it unchanged.
func (t *trial) describe(ctx context.Context, savepoint string) (out []Measure, err error) {
	p, err := newPlan(t.app, 0)
	if err != nil {
		return nil, err
	}
	dir := savepoint + "-job"
	running, stop := context.WithCancel(ctx)
	defer stop()
	all := make(chan struct{})
	e, err := engine.Open(ctx, engine.Config{
		Dir: dir, Plan: p, Instance: "bench", Source: descriptions{newLoad(t.keys)}, CheckpointEvery: -1,
		OnEpoch: func(p engine.Progress) {
			if p.Read == int64(t.keys) {
				close(all)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	described, err := measure(func() error {
		go func() { done <- e.Run(running) }()
		select {
		case <-all:
			return nil
		case err := <-done:
			return errors.Join(err, ctx.Err(), errors.New("the job stopped before it had read all descriptions"))
		}
	})
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	t.c.Logger.Info("described", "app", t.app, "keys", t.keys, "cpu", described.cpu, "wall", described.wall)
	var took []float64
	for i := range t.c.Rounds + 1 {
		to := savepoint
		if i > 0 {
			to = fmt.Sprintf("%s-%d", savepoint, i)
		}
		saved, saveErr := measure(func() error { return e.Savepoint(ctx, to) })
		if i > 0 {
			saveErr = errors.Join(saveErr, os.RemoveAll(to))
		}
		err = errors.Join(err, saveErr)
		took = append(took, saved.wall.Seconds())
	}
	stop()
	if err := errors.Join(err, <-done, e.Close(), os.RemoveAll(dir)); err != nil {
		return nil, err
	}
	return []Measure{
		{What: t.state("describe"), Unit: "CPU µs/entity", Figure: newFigure([]float64{described.cpu.Seconds() * 1e6 / float64(t.keys)})},
		{What: t.state("first savepoint of"), Unit: "s", Figure: newFigure(took[:1])},
		{What: t.state("next savepoint of"), Unit: "s", Figure: newFigure(took[1:])},
	}, nil
}

// turns are the figures of one setting, by round.
type turns struct {
	cpu, floor, valid, times, rate []float64
	profile                        profiles
	last                           Job
}

// alternate runs floor, job, floor, job in turn, with each number of workers, and leaves the first round out.
func (t *trial) alternate(ctx context.Context, dir string, correct time.Duration) (out []Job, err error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	lakeDir := dir + "-lake"
	l, err := lake.Open(ctx, lake.Config{Dir: lakeDir})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close(), os.RemoveAll(lakeDir)) }()
	t.load, t.read = newLoad(t.keys), int64(t.keys)
	all := make([]turns, len(workerCounts))
	for round := range t.c.Rounds + 1 {
		for i, workers := range workerCounts {
			if round == 1 {
				all[i] = turns{} // what was only to warm up
			}
			if err := t.turn(ctx, dir, l, correct, workers, &all[i]); err != nil {
				return nil, err
			}
		}
	}
	for i := range all {
		j, err := t.summary(&all[i])
		if err != nil {
			return nil, err
		}
		out = append(out, j)
	}
	return out, nil
}

// turn measures one window.
func (t *trial) turn(ctx context.Context, dir string, l *lake.Lake, correct time.Duration, workers int, r *turns) (err error) {
	w, err := newWindow(t.load, t.c.Records, t.read)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	before, err := floor(w)
	if err != nil {
		return err
	}
	runtime.GOMAXPROCS(workers)
	runtime.GC()
	var progress engine.Progress
	var took usage
	err = r.profile.take(func() (err error) {
		took, err = measure(func() (err error) {
			progress, err = t.run(ctx, dir, l, correct, workers, w)
			return err
		})
		return err
	})
	if err != nil {
		return err
	}
	after, err := floor(w)
	if err != nil {
		return err
	}
	valid, err := standardFloor(w)
	if err != nil {
		return err
	}
	n := float64(w.len())
	lowest := (before.cpu + after.cpu) / 2
	times := float64(took.cpu) / float64(lowest)
	t.c.Logger.Info("job", "app", t.app, "keys", t.keys, "correct", correct, "workers", workers,
		"cpu", took.cpu, "wall", took.wall, "times_floor", fmt.Sprintf("%.1f", times))
	t.read += int64(w.len())
	r.cpu = append(r.cpu, took.cpu.Seconds()*1e6/n)
	r.floor = append(r.floor, lowest.Seconds()*1e6/n)
	r.valid = append(r.valid, valid.cpu.Seconds()*1e6/n)
	r.times = append(r.times, times)
	r.rate = append(r.rate, n/took.wall.Seconds())
	r.last = Job{
		App: string(t.app), Keys: t.keys, Correct: correct.String(), Workers: workers,
		BytesPerRecord: float64(w.ends[w.len()-1]) / n, StateBytes: progress.StateBytes,
	}
	return nil
}

// summary is what the turns come to.
func (t *trial) summary(r *turns) (Job, error) {
	j := r.last
	j.CPU, j.Floor, j.Valid = newFigure(r.cpu), newFigure(r.floor), newFigure(r.valid)
	j.Times, j.Rate = newFigure(r.times), newFigure(r.rate)
	merged, err := r.profile.merge(fmt.Sprintf("app=%s keys=%d correct=%s workers=%d ", j.App, j.Keys, j.Correct, j.Workers))
	if err != nil {
		return j, err
	}
	j.Stages = shares(merged)
	t.c.profile.list = append(t.c.profile.list, merged)
	return j, nil
}

// run is the job from its opening to its clean stop, when all rows of the window are published.
func (t *trial) run(ctx context.Context, dir string, l *lake.Lake, correct time.Duration, workers int, w *window) (engine.Progress, error) {
	p, err := newPlan(t.app, correct)
	if err != nil {
		return engine.Progress{}, err
	}
	toLake, err := iceberg.Open(ctx, iceberg.Config{Lake: l, Namespace: "bench", Plan: p, FlushBytes: lakeFlush})
	if err != nil {
		return engine.Progress{}, err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	end := w.from + int64(w.len())
	e, err := engine.Open(ctx, engine.Config{
		Dir: dir, Plan: p, Instance: "bench", Source: w, Sinks: []sink.Sink{toLake}, Workers: workers, DrainTimeout: time.Hour,
		OnEpoch: func(p engine.Progress) {
			if p.Read == end {
				stop()
			}
		},
	})
	if err != nil {
		return engine.Progress{}, err
	}
	events := e.Progress().Counters["table.quiz_submission.in"]
	if err := errors.Join(e.Run(running), e.Close(), toLake.Close()); err != nil {
		return engine.Progress{}, err
	}
	if err := ctx.Err(); err != nil {
		return engine.Progress{}, err
	}
	progress := e.Progress()
	return progress, t.check(progress, events, w)
}

// check refuses the figures of a job that did not do its work.
func (t *trial) check(p engine.Progress, before int64, w *window) error {
	counter := func(name string) int64 { return p.Counters["table.quiz_submission."+name] }
	switch {
	case counter("in")-before != int64(w.events):
		return fmt.Errorf("the job took %d of %d events", counter("in")-before, w.events)
	case counter("dead_letters") != 0:
		return fmt.Errorf("%d records became dead letters", counter("dead_letters"))
	case counter("waiting") != int64(len(t.load.waiting)):
		return fmt.Errorf("%d events wait for an entity, and %d entities have not come yet", counter("waiting"), len(t.load.waiting))
	case p.OutboxBytes != 0:
		return fmt.Errorf("%d bytes of rows are not published", p.OutboxBytes)
	}
	return nil
}
