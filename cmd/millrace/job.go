package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"millrace"
	"millrace/engine"
	"millrace/plan"
)

// stackJob is a job of the stack and what became of it. It is open, and may run, or it is closed: then it is suspended, or could not be
// opened.
type stackJob struct {
	instance millrace.Instance
	plan     *plan.Plan
	seed     *plan.SeedRange
	start    func(context.Context, *prometheus.Registry) (*millrace.Job, error)

	mu        sync.Mutex
	job       *millrace.Job        // nil while it is closed
	metrics   *prometheus.Registry // of the open job
	last      engine.Progress      // of one that was closed
	suspended bool                 // it is not to run
	deleted   bool                 // it is being deleted
	err       error                // why it failed
	restarts  int64                // how often it had to be started again
	ledger    *readLedger          // as it was read last; nil when it was not yet
	since     time.Time            // its run began; zero when it was not run
	stop      context.CancelFunc   // ends its run; nil when it was not run
	ended     chan struct{}        // closed when its run has ended
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

// close ends the job's run, when there is one, and closes it.
func (j *stackJob) close() error {
	j.mu.Lock()
	stop, ended := j.stop, j.ended
	j.stop = nil
	j.mu.Unlock()
	if stop != nil {
		stop()
		<-ended
	}
	j.mu.Lock()
	job := j.job
	if job != nil {
		j.last = job.Progress()
	}
	j.job, j.metrics = nil, nil
	j.mu.Unlock()
	if job == nil {
		return nil
	}
	return job.Close()
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

// setSuspended says whether the job is to run. What it failed of before does not count any more.
func (j *stackJob) setSuspended(suspended bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.suspended, j.err = suspended, nil
}

func (j *stackJob) setDeleted() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.deleted, j.err = true, nil
}

func (j *stackJob) isDeleted() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.deleted
}

func (j *stackJob) isSuspended() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.suspended
}

// works reports whether the job is to get ahead: neither suspended nor failed.
func (j *stackJob) works() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return !j.suspended && j.err == nil
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

// states are all that state answers.
var states = []string{"RUNNING", "SEEDING", "SUSPENDED", "FAILED", "DELETED"}

// state is the job's state in a word.
func (j *stackJob) state() string {
	switch {
	case j.isDeleted():
		return "DELETED"
	case j.failure() != nil:
		return "FAILED"
	case j.isSuspended():
		return "SUSPENDED"
	case j.Progress().Seeds():
		return "SEEDING"
	}
	return "RUNNING"
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
