package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
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
func (t *trial) jobs(ctx context.Context) (out []Job, start Start, err error) {
	base := filepath.Join(t.c.Dir, "base")
	if start, err = t.describe(ctx, base); err != nil {
		return nil, start, err
	}
	for _, correct := range t.corrections {
		dir := filepath.Join(t.c.Dir, "job-"+correct.String())
		resumed, err := measure(func() error { return engine.Restore(nil, base, dir, time.Now()) })
		if err != nil {
			return nil, start, err
		}
		start.resume = append(start.resume, resumed.wall.Seconds())
		jobs, err := t.alternate(ctx, dir, correct)
		if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
			return nil, start, fmt.Errorf("job %s, %d keys, corrected for %s: %w", t.app, t.keys, correct, err)
		}
		out = append(out, jobs...)
	}
	return out, start, os.RemoveAll(base)
}

// Start is what it takes to begin.
type Start struct {
	described usage
	savepoint float64
	resume    []float64
}

// describe makes a savepoint of a job that has read all descriptions.
func (t *trial) describe(ctx context.Context, savepoint string) (s Start, err error) {
	p, err := newPlan(t.app, 0)
	if err != nil {
		return s, err
	}
	dir := savepoint + "-job"
	running, stop := context.WithCancel(ctx)
	defer stop()
	all := make(chan struct{})
	e, err := engine.Open(ctx, engine.Config{
		Dir: dir, Plan: p, Instance: "bench", Source: descriptions{newLoad(t.keys)},
		OnEpoch: func(p engine.Progress) {
			if p.Read == int64(t.keys) {
				close(all)
			}
		},
	})
	if err != nil {
		return s, err
	}
	done := make(chan error, 1)
	s.described, err = measure(func() error {
		go func() { done <- e.Run(running) }()
		select {
		case <-all:
			return nil
		case err := <-done:
			return errors.Join(err, ctx.Err(), errors.New("the job stopped before it had read all descriptions"))
		}
	})
	if err != nil {
		return s, errors.Join(err, e.Close())
	}
	saved, err := measure(func() error { return e.Savepoint(ctx, savepoint) })
	s.savepoint = saved.wall.Seconds()
	stop()
	return s, errors.Join(err, <-done, e.Close(), os.RemoveAll(dir))
}

// alternate runs floor, job, floor, job in turn, with each number of workers, and leaves the first round out.
func (t *trial) alternate(ctx context.Context, dir string, correct time.Duration) ([]Job, error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	l, err := lake.Open(ctx, lake.Config{Dir: dir + "-lake"})
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir + "-lake")
	defer l.Close()
	t.load, t.read = newLoad(t.keys), int64(t.keys)
	type runs struct {
		cpu, floor, valid, times, rate []float64
		profile                        profiles
	}
	all := make([]runs, len(workerCounts))
	out := make([]Job, len(workerCounts))
	for round := range t.c.Rounds + 1 {
		for i, workers := range workerCounts {
			w, err := newWindow(t.load, t.c.Records, t.read)
			if err != nil {
				return nil, err
			}
			before, err := floor(w)
			if err != nil {
				return nil, err
			}
			runtime.GOMAXPROCS(workers)
			runtime.GC()
			var profile bytes.Buffer
			if err := pprof.StartCPUProfile(&profile); err != nil {
				return nil, fmt.Errorf("profile the job: %w", err)
			}
			var progress engine.Progress
			took, err := measure(func() (err error) {
				progress, err = t.run(ctx, dir, l, correct, workers, w)
				return err
			})
			pprof.StopCPUProfile()
			if err != nil {
				return nil, err
			}
			after, err := floor(w)
			if err != nil {
				return nil, err
			}
			valid, err := standardFloor(w)
			if err != nil {
				return nil, err
			}
			n := float64(w.len())
			lowest := (before.cpu + after.cpu) / 2
			t.c.Logger.Info("job", "app", t.app, "keys", t.keys, "correct", correct, "workers", workers, "round", round,
				"cpu", took.cpu, "wall", took.wall, "times_floor", fmt.Sprintf("%.1f", float64(took.cpu)/float64(lowest)))
			t.read += int64(w.len())
			out[i] = Job{
				App: string(t.app), Keys: t.keys, Correct: correct.String(), Workers: workers,
				BytesPerRecord: float64(w.ends[w.len()-1]) / n, StateBytes: progress.StateBytes,
			}
			if err := w.close(); err != nil {
				return nil, err
			}
			if round == 0 {
				continue
			}
			r := &all[i]
			r.cpu = append(r.cpu, took.cpu.Seconds()*1e6/n)
			r.floor = append(r.floor, lowest.Seconds()*1e6/n)
			r.valid = append(r.valid, valid.cpu.Seconds()*1e6/n)
			r.times = append(r.times, float64(took.cpu)/float64(lowest))
			r.rate = append(r.rate, n/took.wall.Seconds())
			if err := r.profile.add(profile.Bytes()); err != nil {
				return nil, err
			}
		}
	}
	for i, r := range all {
		j := &out[i]
		j.CPU, j.Floor, j.Valid = newFigure(r.cpu), newFigure(r.floor), newFigure(r.valid)
		j.Times, j.Rate = newFigure(r.times), newFigure(r.rate)
		merged, err := r.profile.merge(fmt.Sprintf("app=%s keys=%d correct=%s workers=%d ", j.App, j.Keys, j.Correct, j.Workers))
		if err != nil {
			return nil, err
		}
		j.Stages = shares(merged)
		t.c.profile.list = append(t.c.profile.list, merged)
	}
	return out, nil
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
