package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"millrace"
	"millrace/control"
	"millrace/engine"
	"millrace/plan"
)

// stackJob is a job of the stack and what became of it. It is open, and may run, or it is closed: then it is not to run, or could not be
// opened.
type stackJob struct {
	instance millrace.Instance
	plan     *plan.Plan
	seed     *plan.SeedRange
	start    func(context.Context, *prometheus.Registry) (*millrace.Job, error)

	mu       sync.Mutex
	job      *millrace.Job        // nil while it is closed
	metrics  *prometheus.Registry // of the open job
	last     engine.Progress      // of one that was closed
	life     control.State        // of the instance, as it is recorded
	err      error                // why it failed
	restarts int64                // how often it had to be started again
	ledger   *readLedger          // as it was read last; nil when it was not yet
	since    time.Time            // its run began; zero when it was not run
	stop     context.CancelFunc   // ends its run; nil when it was not run
	ended    chan struct{}        // closed when its run has ended
}

// open opens the job again, or for the first time.
func (j *stackJob) open(ctx context.Context) error {
	metrics := prometheus.NewRegistry()
	job, err := j.start(ctx, metrics)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err = err; err == nil {
		j.job, j.metrics = job, metrics
	}
	return err
}

// end ends the job's run, when there is one. The job stays open.
func (j *stackJob) end() {
	j.mu.Lock()
	stop, ended := j.stop, j.ended
	j.stop = nil
	j.mu.Unlock()
	if stop != nil {
		stop()
		<-ended
	}
}

// close ends the job's run, when there is one, and closes it.
func (j *stackJob) close() error {
	j.end()
	j.mu.Lock()
	job := j.job
	if job != nil {
		j.last = job.Progress()
	}
	j.job, j.metrics, j.since = nil, nil, time.Time{}
	j.mu.Unlock()
	if job == nil {
		return nil
	}
	return job.Close()
}

// ran reports whether the job that is open has had a run.
func (j *stackJob) ran() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.job != nil && !j.since.IsZero()
}

// runs reports whether the job's run was begun and not ended.
func (j *stackJob) runs() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.stop == nil {
		return false
	}
	select {
	case <-j.ended:
		return false
	default:
		return true
	}
}

// run runs the job until ctx ends, in the background. A job that fails stays open. onEnd is called with what it failed of, or nil.
func (j *stackJob) run(ctx context.Context, onEnd func(error)) {
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	j.mu.Lock()
	j.stop, j.ended, j.since = stop, ended, time.Now()
	job := j.job
	j.mu.Unlock()
	go func() {
		defer close(ended)
		defer stop()
		err := job.Run(ctx)
		if err != nil {
			j.mu.Lock()
			j.err = err
			j.mu.Unlock()
		}
		onEnd(err)
	}()
}

// wait waits until the job's run has ended.
func (j *stackJob) wait() {
	j.mu.Lock()
	ended := j.ended
	j.mu.Unlock()
	if ended != nil {
		<-ended
	}
}

// Progress returns how far the job is, or was when it was closed.
func (j *stackJob) Progress() engine.Progress {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.job == nil {
		return j.last
	}
	return j.job.Progress()
}

// Savepoint makes a savepoint of the job in a directory.
func (j *stackJob) Savepoint(ctx context.Context, dir string) error {
	job, open := j.opened()
	if !open {
		return fmt.Errorf("savepoint %s: %w", dir, errors.Join(errors.New("the job is not open"), j.failure()))
	}
	return job.Savepoint(ctx, dir)
}

// known is the job's progress, unless nothing is known of it: it could not be opened since the process began.
func (j *stackJob) known() (engine.Progress, bool) {
	p := j.Progress()
	return p, p.Lineage != ""
}

func (j *stackJob) failure() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// opened returns the job while it is open.
func (j *stackJob) opened() (*millrace.Job, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.job, j.job != nil
}

// live takes note of how the instance is.
func (j *stackJob) live(state control.State) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.life = state
}

// works reports whether the job is to get ahead: it runs, or is about to, and has not failed.
func (j *stackJob) works() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return (j.life == control.Running || j.life == control.Starting || j.life == control.Upgrading) && j.err == nil
}

// runsFor is how long the job has run.
func (j *stackJob) runsFor() time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.since.IsZero() {
		return 0
	}
	return time.Since(j.since)
}

// setRestarts says how often the job had to be started again.
func (j *stackJob) setRestarts(n int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.restarts = n
}

func (j *stackJob) restarted() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.restarts
}

// state is the state that people see.
func (j *stackJob) state() control.State {
	j.mu.Lock()
	life, failed := j.life, j.err != nil
	j.mu.Unlock()
	switch {
	case life.Busy():
		return life
	case failed:
		return control.Failed
	case life == control.Running && j.Progress().Seeds():
		return control.Seeding
	}
	return life
}

// gather adds the metrics of the open job.
func (j *stackJob) gather(to prometheus.Gatherers) prometheus.Gatherers {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.metrics == nil {
		return to
	}
	return append(to, j.metrics)
}
