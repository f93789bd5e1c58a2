package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"millrace"
	"millrace/control"
	"millrace/control/local"
	"millrace/engine"
	"millrace/plan"
)

// stackJob is a job of the stack and what became of it. It is open, in a process of its own, and may run, or it is closed: then it is not to run,
// or could not be opened.
type stackJob struct {
	instance millrace.Instance
	seed     *plan.SeedRange
	start    func(context.Context, program, control.Resources) (*local.Process, error)

	mu        sync.Mutex
	what      program                 // what its process runs, from its next start on
	resources control.Resources       // of its process, from its next start on
	process   *local.Process          // nil while it is closed
	last      engine.Progress         // as it was known last
	life      control.State           // of the instance, as it is recorded
	err       error                   // why it failed
	again     error                   // why it is about to be started again; nil: it is not
	restarts  int64                   // how often it had to be started again
	ledger    *readLedger             // as it was read last; nil when it was not yet
	since     time.Time               // its run began; zero when it was not run
	stop      context.CancelCauseFunc // ends its run; nil when it was not run
	ended     chan struct{}           // closed when its run has ended
}

// open opens the job again, or for the first time.
func (j *stackJob) open(ctx context.Context) error {
	process, err := j.start(ctx, j.program(), j.gets())
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err = err; err == nil {
		j.process = process
	}
	return err
}

// gets is what the job's process gets from its next start on.
func (j *stackJob) gets() control.Resources {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.resources
}

// program is what the job's process runs, from its next start on.
func (j *stackJob) program() program {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.what
}

// compare says what it would mean for the job, which is open, to go on as another plan.
func (j *stackJob) compare(is plan.Description) plan.Comparison {
	stages := map[string]bool{} // whether they have state
	for _, stage := range j.Progress().Stages {
		stages[stage.Name] = stage.Keys > 0 || stage.Items > 0 || stage.ExpiringItems > 0
	}
	return plan.Compare(j.program().plan.Describe(), is, func(stage string) bool {
		holds, known := stages[stage]
		return holds || !known
	})
}

// take gives the job another program, and reports whether it is another one.
func (j *stackJob) take(p program) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	is := p.build != j.what.build || p.plan.Version != j.what.plan.Version
	j.what = p
	return is
}

// end ends the job's run, when there is one. The job stays open.
func (j *stackJob) end() {
	j.mu.Lock()
	stop, ended := j.stop, j.ended
	j.stop = nil
	j.mu.Unlock()
	if stop != nil {
		stop(nil)
		<-ended
	}
}

// close ends the job's run, when there is one, and closes it.
func (j *stackJob) close() error {
	j.end()
	j.Progress() // as it is known from now on
	j.mu.Lock()
	process := j.process
	j.process, j.since = nil, time.Time{}
	j.mu.Unlock()
	if process == nil {
		return nil
	}
	return process.Close()
}

// kill ends the job at once, whatever it does.
func (j *stackJob) kill() error {
	j.mu.Lock()
	stop := j.stop
	j.mu.Unlock()
	if stop != nil {
		stop(errKilled) // it is not started again
	}
	err := j.killProcess() // what its run waits for
	j.end()
	return errors.Join(err, j.killProcess()) // one that was just started again
}

func (j *stackJob) killProcess() error {
	j.mu.Lock()
	process := j.process
	j.process, j.since = nil, time.Time{}
	j.mu.Unlock()
	if process == nil {
		return nil
	}
	return process.Kill()
}

// ran reports whether the job that is open has had a run.
func (j *stackJob) ran() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.process != nil && !j.since.IsZero()
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

// watcher is told what becomes of a job's run.
type watcher struct {
	begins func()                                         // it is about to run, for the first time or again
	fails  func(err error, again int, wait time.Duration) // it failed, and is started again after a time
	again  func()                                         // it runs again
	ends   func(error)                                    // it has ended: as it was told to, or of what it failed for good
}

// errKilled is the cause of a run's end that was not waited for.
var errKilled = errors.New("killed")

// run runs the job until ctx ends, in the background. One that fails is started again while the budget lasts, and then closed.
func (j *stackJob) run(ctx context.Context, budget local.Budget, w watcher) {
	ctx, stop := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	j.mu.Lock()
	j.stop, j.ended, j.since, j.again = stop, ended, time.Now(), nil
	j.mu.Unlock()
	w.begins()
	go func() {
		defer close(ended)
		defer stop(nil)
		err := j.runOnce(ctx)
		for err != nil && ctx.Err() == nil {
			wait, again := budget.Next(time.Now())
			if end := (*local.EndError)(nil); !again || errors.As(err, &end) && end.Final {
				break
			}
			j.setAgain(err)
			w.fails(err, budget.Used(), wait)
			select {
			case <-ctx.Done():
				err = nil
			case <-time.After(wait):
				switch err = j.openAgain(ctx, w.begins); {
				case err == nil:
					w.again()
					err = j.runOnce(ctx)
				case ctx.Err() != nil:
					err = nil // it was told to end meanwhile
				}
			}
		}
		if errors.Is(context.Cause(ctx), errKilled) {
			err = nil
		}
		j.mu.Lock()
		j.again = nil
		if err != nil {
			j.err = err
		}
		j.mu.Unlock()
		w.ends(err)
	}()
}

// openAgain opens the job anew. begins is called before anybody sees that it is open.
func (j *stackJob) openAgain(ctx context.Context, begins func()) error {
	process, err := j.start(ctx, j.program(), j.gets())
	if err == nil {
		begins()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err == nil {
		j.process, j.again = process, nil
	}
	return err
}

// runOnce runs the open job until ctx ends, or its process does. When it returns an error, there is no process any more.
func (j *stackJob) runOnce(ctx context.Context) error {
	process, open := j.opened()
	if !open {
		return errors.New("the job is not open")
	}
	err := process.Run(context.WithoutCancel(ctx))
	if err == nil {
		select {
		case <-ctx.Done():
			err = process.End(context.WithoutCancel(ctx))
		case <-process.Ended():
			if err = process.Err(); err == nil {
				err = fmt.Errorf("process %d of the job ended without being told to", process.PID())
			}
		}
	}
	if err != nil {
		j.mu.Lock()
		j.process = nil
		j.mu.Unlock()
		err = errors.Join(err, process.Kill()) // it has ended, or does not answer
	}
	return err
}

func (j *stackJob) setAgain(cause error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.again = cause
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

// answersWithin is how long a process may take to say how far its job is. One that does not is shown as it was.
const answersWithin = 2 * time.Second

// Progress returns how far the job is, or was when that was known last.
func (j *stackJob) Progress() engine.Progress {
	process, open := j.opened()
	var now engine.Progress
	if open {
		ctx, cancel := context.WithTimeout(context.Background(), answersWithin)
		defer cancel()
		open = process.Progress(ctx, &now) == nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if open && (now.Epoch >= j.last.Epoch || now.Lineage != j.last.Lineage) { // else another call has asked later
		j.last = now
	}
	return j.last
}

// Savepoint makes a savepoint of the job in a directory.
func (j *stackJob) Savepoint(ctx context.Context, dir string) error {
	process, open := j.opened()
	if !open {
		return fmt.Errorf("savepoint %s: %w", dir, errors.Join(errors.New("the job is not open"), j.failure()))
	}
	return process.Savepoint(ctx, dir)
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

// trouble is why the job failed, or is about to be started again.
func (j *stackJob) trouble() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return j.err
	}
	return j.again
}

// opened returns the job's process while it is open.
func (j *stackJob) opened() (*local.Process, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.process, j.process != nil
}

// live takes note of how the instance is.
func (j *stackJob) live(state control.State, gets control.Resources) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.life, j.resources = state, gets
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
func (j *stackJob) state() control.State { return j.stateOf(j.Progress()) }

// stateOf is that of a job that is so far.
func (j *stackJob) stateOf(p engine.Progress) control.State {
	j.mu.Lock()
	life, failed, restarting := j.life, j.err != nil, j.again != nil
	j.mu.Unlock()
	switch {
	case life.Busy():
		return life
	case restarting:
		return control.Restarting
	case failed:
		return control.Failed
	case life == control.Running && p.Seeds():
		return control.Seeding
	}
	return life
}

// gather adds the metrics of the open job. Those of a process that does not answer are not there, and those of the others are.
func (j *stackJob) gather(ctx context.Context, to prometheus.Gatherers) prometheus.Gatherers {
	process, open := j.opened()
	if !open {
		return to
	}
	return append(to, prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		ctx, cancel := context.WithTimeout(ctx, answersWithin)
		defer cancel()
		families, err := process.Gather(ctx)
		if err != nil {
			return nil, nil //nolint:nilerr // the job's state says that something is wrong
		}
		return families, nil
	}))
}
