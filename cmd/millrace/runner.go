package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"millrace/control"
	"millrace/control/api"
	"millrace/engine"
	"millrace/ingest"
	"millrace/sink/topic"
	"millrace/source"
)

// runner does what operations say to the jobs of a stack. It implements control.Runner.
type runner struct{ s *stack }

// controlled is the job's instance as the control plane names it.
func (j *stackJob) controlled() control.Instance {
	return control.Instance{Line: j.line(), DataVersion: j.instance.DataVersion}
}

func (j *stackJob) line() control.Line {
	i := j.instance
	return control.Line{Program: i.Program, Account: i.Account, Env: i.Env}
}

// job is the job of an instance, which is made when there is none.
func (r runner) job(i control.Instance) (*stackJob, error) {
	r.s.changing.Lock()
	defer r.s.changing.Unlock()
	if j, ok := r.s.jobOf(i); ok {
		return j, nil
	}
	return r.s.addJob(i)
}

// Check implements control.Runner.
func (r runner) Check(ctx context.Context, i control.Instance, version string) error {
	j, err := r.job(i)
	if err != nil {
		return err
	}
	p, err := r.s.program(ctx, i.Program, version)
	if err != nil {
		return err
	}
	if p.plan.Version != version {
		return fmt.Errorf("version %s of %s was not pushed, and this program has %s", version, i.Program, p.plan.Version)
	}
	if _, open := j.opened(); open {
		return j.compare(p.plan.Describe()).Err() // its state is its process's; the new one looks there again
	}
	return engine.CheckPlan(nil, r.s.jobDir(j), j.instance.UniqueID(), p.plan)
}

// Run implements control.Runner.
func (r runner) Run(ctx context.Context, i control.Instance) (version string, err error) {
	j, err := r.job(i)
	if err != nil {
		return "", err
	}
	if j.runs() {
		return j.program().plan.Version, nil
	}
	p, err := r.s.program(ctx, i.Program, i.Version)
	if err != nil {
		return "", err
	}
	if other := j.take(p); j.ran() || other { // it is opened from what is stored, by what it is to run
		if err := j.close(); err != nil {
			r.s.cfg.logger.Warn("job not closed cleanly", "instance", j.instance.UniqueID(), "error", err)
		}
	}
	if err := r.open(ctx, j); err != nil {
		return "", err
	}
	r.s.runJob(r.s.workingContext(), j)
	return j.program().plan.Version, nil
}

// open opens a job, unless it is open.
func (r runner) open(ctx context.Context, j *stackJob) error {
	if _, open := j.opened(); open {
		return nil
	}
	if err := j.open(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	r.s.divideMemory()
	return r.s.haveJobs()
}

// Stop implements control.Runner.
func (r runner) Stop(_ context.Context, i control.Instance) error {
	j, err := r.job(i)
	if err != nil {
		return err
	}
	if err := j.close(); err != nil { // what it has committed is there
		r.s.cfg.logger.Warn("job not closed cleanly", "instance", j.instance.UniqueID(), "error", err)
	}
	r.s.divideMemory()
	return nil
}

// Suspend implements control.Runner.
func (r runner) Suspend(ctx context.Context, i control.Instance, name string) error {
	j, err := r.job(i)
	if err != nil {
		return err
	}
	dir := r.s.savepointDir(j, name)
	if _, err := os.Stat(dir); err == nil && !j.runs() { // a process that was killed had come so far
		return r.Stop(ctx, i)
	}
	j.end() // first: one that is between two starts would open it too
	err = r.open(ctx, j)
	if err == nil {
		err = j.Savepoint(ctx, dir)
	}
	if err != nil {
		_, again := r.Run(ctx, i)
		return errors.Join(err, again)
	}
	if err := r.Stop(ctx, i); err != nil {
		return err
	}
	return r.superseded(j, name)
}

// superseded removes the savepoints that earlier suspensions and upgrades made by themselves: the newest one is enough, and each holds files of the lake.
func (r runner) superseded(j *stackJob, by string) error {
	dirs, err := filepath.Glob(r.s.savepointDir(j, "*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		name := filepath.Base(dir)
		if name < by && (madeBy(name, control.Suspend) || madeBy(name, control.Upgrade)) {
			if err := os.RemoveAll(dir); err != nil {
				return fmt.Errorf("remove savepoint %s: %w", dir, cause(err))
			}
		}
	}
	return nil
}

// madeBy reports whether a savepoint has a name that the control plane gave it for an action.
func madeBy(name string, a control.Action) bool {
	at, ok := strings.CutSuffix(name, "-"+string(a))
	_, err := time.Parse(control.SavepointTime, at)
	return ok && err == nil
}

// Savepoint implements control.Runner.
func (r runner) Savepoint(ctx context.Context, i control.Instance, name string) error {
	j, err := r.job(i)
	if err != nil {
		return err
	}
	dir := r.s.savepointDir(j, name)
	if _, err := os.Stat(dir); err == nil {
		return nil // by the same operation: it was asked for when there was none
	}
	return j.Savepoint(ctx, dir)
}

// Restore implements control.Runner.
func (r runner) Restore(ctx context.Context, i control.Instance, name string) (from string, err error) {
	j, err := r.job(i)
	if err != nil {
		return "", err
	}
	if err := j.close(); err != nil {
		r.s.cfg.logger.Warn("job not closed cleanly", "instance", j.instance.UniqueID(), "error", err)
	}
	p, damage := engine.ReadProgress(nil, r.s.jobDir(j))
	if damage == nil && name == "" {
		return "", nil
	}
	all, err := r.s.savepointsOf(j)
	if err != nil {
		return "", err
	}
	if name != "" {
		to, err := r.named(all, j, name)
		if err != nil {
			return "", err
		}
		if damage == nil && i.Savepoint == name && to.Lineage == p.Lineage && to.Epoch <= p.Epoch {
			return "", nil // that of its suspension: the state has it, and what it committed since
		}
		return name, r.back(j, to)
	}
	slices.SortFunc(all, func(a, b savepoint) int { return b.Made.Compare(a.Made) })
	for _, to := range all {
		if _, err := engine.Verify(nil, to.Dir); err != nil {
			damage = errors.Join(damage, err)
			continue
		}
		r.s.cfg.logger.Warn("the state is damaged; the job goes back", "instance", j.instance.UniqueID(), "to", to.Name, "damage", damage)
		return to.Name, r.back(j, to)
	}
	return "", fmt.Errorf("the state cannot be read, and there is no good checkpoint to go back to: %w; restore the data directory from a backup, or delete the instance and start a new one", damage)
}

// Rewind implements control.Runner.
func (r runner) Rewind(_ context.Context, i control.Instance, name string) error {
	j, err := r.job(i)
	if err != nil {
		return err
	}
	all, err := r.s.savepointsOf(j)
	if err != nil {
		return err
	}
	to, err := r.named(all, j, name)
	if err != nil {
		return err
	}
	return r.back(j, to)
}

func (r runner) named(all []savepoint, j *stackJob, name string) (savepoint, error) {
	for _, p := range all {
		if p.Name == name {
			return p, nil
		}
	}
	return savepoint{}, fmt.Errorf("%s has no savepoint %s; 'millrace savepoint list' shows those it has", j.instance.UniqueID(), name)
}

// back takes the state of a job that does not run back to a savepoint or checkpoint.
func (r runner) back(j *stackJob, to savepoint) error {
	if _, err := engine.Verify(nil, to.Dir); err != nil {
		return err
	}
	return rewindJob(r.s.jobDir(j), to)
}

// healthy is how long a job of a new version is watched.
const healthy = 10 * time.Second

// Watch implements control.Runner: the job must not fail, and must commit when there is something to read.
func (r runner) Watch(ctx context.Context, i control.Instance) error {
	j, err := r.job(i)
	if err != nil {
		return err
	}
	began := j.Progress().Epoch
	window := time.NewTimer(healthy)
	defer window.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := j.trouble(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-window.C:
			if p := j.Progress(); p.Lag > 0 && p.Epoch == began {
				return fmt.Errorf("it has committed nothing in %s, and has %d records to read", healthy, p.Lag)
			}
			return nil
		}
	}
}

// Serve implements control.Runner.
func (r runner) Serve(ctx context.Context, i control.Instance) (err error) {
	j, err := r.job(i)
	if err != nil {
		return err
	}
	names, err := r.s.names(j)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, names.Close()) }()
	return names.Serve(ctx)
}

// Remove implements control.Runner.
func (r runner) Remove(ctx context.Context, i control.Instance) (err error) {
	j, err := r.job(i)
	if err != nil {
		return err
	}
	s, id := r.s, j.instance.UniqueID()
	names, err := s.names(j)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, names.Close()) }()
	if err := names.Delete(ctx); err != nil {
		return err
	}
	if err := topic.Delete(ctx, s.log, j.instance.Namespace()); err != nil {
		return err
	}
	if err := source.Release(ctx, s.lake, ingest.Namespace, id); err != nil {
		return err
	}
	if err := s.lake.Drop(ctx, j.instance.Namespace()); err != nil {
		return err
	}
	if err := s.cfg.dir.forgetJob(id); err != nil { // before its directory goes, of which the lack would be a loss
		return err
	}
	if err := s.store.Runs.Forget(ctx, id); err != nil {
		return err
	}
	if err := s.processes.Forget(id); err != nil {
		return err
	}
	for _, dir := range []string{s.cfg.dir.join(savepointsDir, id), s.cfg.dir.join("jobs", id+".old"), s.cfg.dir.join("jobs", id+".next"), s.cfg.dir.join("jobs", id)} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove %s: %w", dir, cause(err))
		}
	}
	return nil
}

// Kill implements control.Runner.
func (r runner) Kill(i control.Instance) {
	j, ok := r.s.jobOf(i)
	if !ok {
		return
	}
	if err := j.kill(); err != nil {
		r.s.cfg.logger.Error("job not ended", "instance", i.UniqueID(), "error", err)
	}
}

// changed takes note of how an instance is by now.
func (s *stack) changed(i control.Instance) {
	j, ok := s.jobOf(i)
	if !ok {
		return
	}
	j.live(i.State, s.cfg.resources(i.Resources))
	defer s.events.Say(api.Changed{App: i.Program, Account: i.Account, DataVersion: i.DataVersion, State: string(i.State), UpdatedBy: i.UpdatedBy})
	if i.State == "" {
		s.mu.Lock()
		s.derived = slices.DeleteFunc(s.derived, func(o *stackJob) bool { return o == j })
		s.mu.Unlock()
	}
	if err := s.readServing(context.Background()); err != nil {
		s.cfg.logger.Error("which data version serves is shown as it was before", "error", err)
	}
}

func (s *stack) jobDir(j *stackJob) string { return s.cfg.dir.join("jobs", j.instance.UniqueID()) }

func (s *stack) savepointDir(j *stackJob, name string) string {
	return s.cfg.dir.join(savepointsDir, j.instance.UniqueID(), name)
}

// savepointsOf lists the savepoints and checkpoints of a job.
func (s *stack) savepointsOf(j *stackJob) ([]savepoint, error) {
	all, err := savepoints(s.cfg.dir)
	return slices.DeleteFunc(all, func(p savepoint) bool { return p.Instance != j.instance.UniqueID() || p.err != nil }), err
}

// checkSavepoint returns an error unless the savepoint of a request can be made, or is there to be gone back to.
func (s *stack) checkSavepoint(r control.Request) error {
	j, err := s.find(r.Program, r.DataVersion)
	if err != nil || r.Savepoint == "" {
		return err
	}
	if r.Action == control.Recover {
		all, err := s.savepointsOf(j)
		if err == nil {
			_, err = runner{s}.named(all, j, r.Savepoint)
		}
		if err != nil {
			err = fmt.Errorf("%w: %w", control.ErrRefused, err)
		}
		return err
	}
	if err := checkSavepointName(r.Savepoint); err != nil {
		return err
	}
	if _, err := os.Stat(s.savepointDir(j, r.Savepoint)); err == nil {
		return fmt.Errorf("%w: savepoint %s of %s exists already; choose another name", control.ErrRefused, r.Savepoint, j.instance.UniqueID())
	}
	return nil
}

var _ control.Runner = runner{}

// workingContext is that of the jobs' runs.
func (s *stack) workingContext() context.Context {
	s.changing.Lock()
	defer s.changing.Unlock()
	return s.working
}
