package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"millrace/internal/retry"
)

// Runner does to the world what operations say. Each of its methods may be called again after a process ended in the middle, and does nothing
// where nothing is left to do. A method returns soon after its context ends, with what it has begun left as it is.
type Runner interface {
	// Check returns an error unless a version of the app can go on with the instance's state.
	Check(ctx context.Context, i Instance, version string) error

	// Run starts the instance's job, of the version that the instance has, unless it runs. It returns when the job is open, and which
	// version that is: an app that is built in has only one.
	Run(ctx context.Context, i Instance) (version string, err error)

	// Stop ends the job after its last commit, and returns when nothing of it runs.
	Stop(ctx context.Context, i Instance) error

	// Suspend ends the job after its last commit and makes a savepoint of that. When it cannot be made, the job runs on.
	Suspend(ctx context.Context, i Instance, savepoint string) error

	// Savepoint makes a savepoint of a job that runs.
	Savepoint(ctx context.Context, i Instance, name string) error

	// Restore takes the state of a job that does not run back to a savepoint or checkpoint. Without a name, or when the state has what
	// the savepoint was made of, it stays as it is if it is good, else it goes back to the newest one that is. It returns which one that
	// was, empty when the state stays.
	Restore(ctx context.Context, i Instance, name string) (from string, err error)

	// Rewind takes the state of a job that does not run back to a savepoint, whatever the state is.
	Rewind(ctx context.Context, i Instance, name string) error

	// Watch returns when a job has run for the time in which a bad version shows, or what it failed of.
	Watch(ctx context.Context, i Instance) error

	// Serve gives the names that readers use to the instance's tables. It is called until it succeeds.
	Serve(ctx context.Context, i Instance) error

	// Remove removes all that an instance has.
	Remove(ctx context.Context, i Instance) error

	// Kill ends the job at once, whatever it does. What it has committed stays.
	Kill(i Instance)
}

// Plane carries operations out: one at a time for each instance, those of different instances at once.
//
//	Do ──▶ Instances.Begin ──▶ step ──▶ Runner ──▶ Instances.advance ──▶ step ──▶ … ──▶ ended
//	       (recorded: from here on it is done)      (recorded)
//
// What is recorded is the truth. A plane that begins where another one was killed goes on with the steps that are not recorded as done.
type Plane struct {
	instances *Instances
	runner    Runner
	logger    *slog.Logger
	changed   func(Instance)
	telling   sync.Mutex // orders calls of changed

	mu      sync.Mutex
	ctx     context.Context // of Run; nil while it does not run
	begun   chan struct{}   // closed when Run takes requests
	at      map[int64]*atWork
	working sync.WaitGroup
}

// atWork is an operation that is being carried out.
type atWork struct {
	stop  context.CancelFunc // of the step that is at work; nil between steps
	ended chan struct{}
}

// PlaneConfig says what a plane works with. All but Changed are required.
type PlaneConfig struct {
	Instances *Instances
	Runner    Runner
	Logger    *slog.Logger

	// Changed is told how an instance is by now, after each change and by StartJobs. The State of one that was deleted is empty.
	Changed func(Instance)
}

// NewPlane returns a plane. Run carries out what it is asked for.
func NewPlane(cfg PlaneConfig) *Plane {
	if cfg.Changed == nil {
		cfg.Changed = func(Instance) {}
	}
	return &Plane{instances: cfg.Instances, runner: cfg.Runner, logger: cfg.Logger, changed: cfg.Changed, at: map[int64]*atWork{}, begun: make(chan struct{})}
}

// tell says how an instance is by now.
func (p *Plane) tell(l Line, dataVersion string) {
	p.telling.Lock()
	defer p.telling.Unlock()
	in, err := p.instances.Instance(context.Background(), l, dataVersion)
	if errors.Is(err, ErrUnknownInstance) {
		in, err = Instance{Line: l, DataVersion: dataVersion}, nil
	}
	if err != nil {
		p.logger.Error("an instance is shown as it was before", "instance", in.UniqueID(), "error", err)
		return
	}
	p.changed(in)
}

// Run goes on with the operations that have not ended, and carries out those that are asked for, until ctx ends. What is at work then goes on
// at the next Run. It is called once, after StartJobs.
func (p *Plane) Run(ctx context.Context) error {
	left, err := p.instances.Working(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.ctx = ctx
	p.mu.Unlock()
	close(p.begun)
	for _, op := range left {
		p.logger.Info("operation goes on", "operation", op.ID, "action", op.Action, "instance", op.UniqueID())
		p.carryOut(op)
	}
	<-ctx.Done()
	p.mu.Lock()
	p.ctx = nil
	p.mu.Unlock()
	p.working.Wait()
	return nil
}

// SavepointTime is the layout of the time in the name that a savepoint gets when nobody names it: <time>-<action>.
const SavepointTime = "20060102T150405.000Z"

// Runs reports whether Run carries out what it is asked for.
func (p *Plane) Runs() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ctx != nil
}

// StartJobs starts the jobs that ran when the plane before ended, or failed, but those on which an operation is at work. One that cannot be started
// is FAILED; the others do their work.
func (p *Plane) StartJobs(ctx context.Context) error {
	left, err := p.instances.Working(ctx)
	if err != nil {
		return err
	}
	all, err := p.instances.List(ctx)
	if err != nil {
		return err
	}
	for _, in := range all {
		p.tell(in.Line, in.DataVersion)
		if in.State != Running && in.State != Failed || slices.ContainsFunc(left, func(o Operation) bool {
			return o.Action.exclusive() && o.Line == in.Line && o.DataVersion == in.DataVersion
		}) {
			continue
		}
		version, err := p.runner.Run(ctx, in)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			p.logger.Error("job not started; it is tried again at the next start, or recovered", "instance", in.UniqueID(), "error", err)
			p.runner.Kill(in) // what failed may have left it running
			p.Failed(in, err)
			continue
		}
		if err := p.instances.began(ctx, in.Line, in.DataVersion, version); err != nil {
			return err
		}
		p.tell(in.Line, in.DataVersion)
	}
	return nil
}

// Failed notes that the job of an instance failed by itself.
func (p *Plane) Failed(i Instance, cause error) {
	if err := p.instances.failed(context.Background(), i.Line, i.DataVersion, cause); err != nil {
		p.logger.Error("failure of a job is not recorded", "instance", i.UniqueID(), "failure", cause, "error", err)
	}
	p.tell(i.Line, i.DataVersion)
}

// Stopped notes that the job of an instance has ended because the process does. It runs again at the next start.
func (p *Plane) Stopped(i Instance) error {
	return p.instances.stopped(context.Background(), i.Line, i.DataVersion)
}

// Do begins an operation, or has another one taken back or forced to end, and returns it. Wait waits for its end. Before Run takes requests it waits.
func (p *Plane) Do(ctx context.Context, r Request) (Operation, error) {
	select {
	case <-p.begun:
	case <-ctx.Done():
		return Operation{}, context.Cause(ctx)
	}
	if !p.Runs() {
		return Operation{}, fmt.Errorf("%w: the process is stopping; start it again and ask then", ErrRefused)
	}
	if r.Savepoint == "" && (r.Action == Suspend || r.Action == TakeSavepoint || r.Action == Upgrade) {
		r.Savepoint = time.Now().UTC().Format(SavepointTime) + "-" + string(r.Action)
	}
	op, err := p.instances.Begin(ctx, r)
	if err != nil {
		return op, err
	}
	p.tell(op.Line, op.DataVersion)
	p.carryOut(op)
	if op.Forced {
		p.runner.Kill(Instance{Line: op.Line, DataVersion: op.DataVersion})
	}
	if op.Canceled || op.Forced {
		p.interrupt(op.ID)
	}
	return op, nil
}

// Wait returns an operation once it has ended.
func (p *Plane) Wait(ctx context.Context, id int64) (Operation, error) {
	p.mu.Lock()
	w := p.at[id]
	p.mu.Unlock()
	if w != nil {
		select {
		case <-w.ended:
		case <-ctx.Done():
			return Operation{}, ctx.Err()
		}
	}
	return p.instances.Operation(ctx, id)
}

// interrupt ends the step of an operation that is at work.
func (p *Plane) interrupt(id int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.at[id]; w != nil && w.stop != nil {
		w.stop()
	}
}

// carryOut carries an operation out in the background, unless that is being done, or it has ended.
func (p *Plane) carryOut(op Operation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx == nil || p.at[op.ID] != nil || op.ended() {
		return
	}
	w := &atWork{ended: make(chan struct{})}
	p.at[op.ID] = w
	ctx := p.ctx
	p.working.Go(func() {
		defer func() {
			p.mu.Lock()
			delete(p.at, op.ID)
			p.mu.Unlock()
			close(w.ended)
		}()
		if err := p.steps(ctx, op, w); err != nil && ctx.Err() == nil {
			p.logger.Error("operation stands still; start the process again when the cause is removed", "operation", op.ID, "action", op.Action, "instance", op.UniqueID(), "error", err)
		}
	})
}

// steps does the steps of an operation until it has ended. An error is one of the store, or of ctx.
func (p *Plane) steps(ctx context.Context, op Operation, w *atWork) error {
	log := p.logger.With("operation", op.ID, "action", op.Action, "instance", op.UniqueID())
	for {
		s, more := op.next()
		if !more {
			log.Info("operation ended", "state", op.State, "error", op.Error)
			return nil
		}
		doing, stop := context.WithCancel(ctx)
		p.mu.Lock()
		w.stop = stop
		p.mu.Unlock()
		began := time.Now()
		result, err := p.do(doing, &op, s)
		stop()
		if ctx.Err() != nil && err != nil {
			return ctx.Err() // it goes on at the next Run
		}
		if err != nil {
			log.Warn("step of an operation failed", "step", s, "error", err)
		}
		if op, err = p.instances.advance(context.WithoutCancel(ctx), op.ID, s, began, result, err); err != nil {
			return err
		}
		p.tell(op.Line, op.DataVersion)
		if op.stopped() { // steps that failed or were interrupted may have left it running
			p.runner.Kill(Instance{Line: op.Line, DataVersion: op.DataVersion})
		}
	}
}

// do does one step, unless it was asked meanwhile that the operation be taken back.
func (p *Plane) do(ctx context.Context, op *Operation, s Step) (result string, err error) {
	now, err := p.instances.Operation(ctx, op.ID)
	if err != nil {
		return "", err
	}
	if now.Forced || now.Canceled && now.State == Working {
		return "", errTakenBack
	}
	in, err := p.instances.Instance(ctx, op.Line, op.DataVersion)
	if err != nil {
		return "", err
	}
	r := p.runner
	switch s {
	case CheckVersion:
		return "", r.Check(ctx, in, op.Version)
	case RunJob:
		return r.Run(ctx, in)
	case StopJob:
		return "", r.Stop(ctx, in)
	case SuspendJob:
		return "", r.Suspend(ctx, in, op.Savepoint)
	case SavepointJob:
		return "", r.Savepoint(ctx, in, op.Savepoint)
	case RestoreJob:
		return r.Restore(ctx, in, op.Savepoint)
	case RewindJob:
		return "", r.Rewind(ctx, in, op.Savepoint)
	case TakeVersion, ReturnVersion:
		return "", nil // what is recorded of it is all
	case WatchJob:
		return "", r.Watch(ctx, in)
	case ServeInstance:
		return "", retry.Do(ctx, retry.Policy{OnRetry: func(_ int, err error, wait time.Duration) {
			p.logger.Warn("readers do not see the promoted data version yet; it is tried again", "instance", op.UniqueID(), "error", err, "wait", wait)
		}}, func(ctx context.Context) error { return r.Serve(ctx, in) })
	case RemoveInstance:
		return "", r.Remove(ctx, in)
	}
	return "", fmt.Errorf("operation %d has the unknown step %q", op.ID, s)
}

var errTakenBack = errors.New("it was taken back")
