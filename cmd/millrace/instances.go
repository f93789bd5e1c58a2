package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"millrace"
	"millrace/apps/lms"
	"millrace/artifact"
	"millrace/control"
	"millrace/control/api"
	"millrace/control/local"
	"millrace/engine"
	"millrace/ingest"
	"millrace/internal/retry"
	"millrace/lake"
	"millrace/plan"
	"millrace/sink/elastic"
)

// system is the tenant of apps that serve all tenants, and the name of who does what nobody asked for.
const system = control.System

// etlLine is the app with data versions that this program has.
var etlLine = lineOf(lms.App.Name)

// errStopping refuses a change while the process ends.
var errStopping = fmt.Errorf("%w: the process is stopping; start it again and ask then", control.ErrRefused)

// openJobs opens the jobs of all instances. That of the raw lake and the unversioned one of the ETL app are there from the first run on, and
// the latter serves until another one is made to.
func (s *stack) openJobs(ctx context.Context) error {
	all, err := s.ensureInstances(ctx)
	if err != nil {
		return err
	}
	err = s.processes.Strays(func(id string) bool {
		return slices.ContainsFunc(all, func(i control.Instance) bool {
			return i.UniqueID() == id && i.State != control.Suspended && i.State != control.Canceled && i.State != control.Deleting
		})
	})
	if err != nil {
		return err
	}
	for _, i := range all {
		j, err := s.addJob(i)
		if err != nil {
			return err
		}
		switch i.State {
		case control.Deleting:
			continue
		case control.Suspended, control.Canceled:
			if j.last, err = engine.ReadProgress(nil, s.jobDir(j)); err != nil {
				s.cfg.logger.Warn("how far a job is that does not run is not known", "instance", i.UniqueID(), "error", err)
			}
			continue
		}
		if err := j.open(ctx); err != nil {
			end := (*local.EndError)(nil)
			if (i.Line == rawLine || i.Line == etlLine) && i.DataVersion == millrace.Unversioned && !(errors.As(err, &end) && end.Final) {
				return err
			}
			// The others do their work; what is refused goes on with another program, or is followed by a new version.
		}
	}
	if err := s.haveJobs(); err != nil {
		return err
	}
	if err := s.checkShipped(ctx); err != nil {
		return err
	}
	restarts, err := s.store.Runs.Restarts(ctx)
	if err != nil {
		return err
	}
	for _, j := range s.jobs() {
		j.setRestarts(restarts[j.instance.UniqueID()])
	}
	return s.registry.Register(newJobMetrics(s))
}

// checkShipped returns an error when the program's own app has a table that an app has which was pushed: an older program did not have it.
func (s *stack) checkShipped(ctx context.Context) error {
	a, err := s.app(etlLine.Program)
	if err != nil {
		return err
	}
	p, err := a.plan()
	if err != nil {
		return err
	}
	if err := s.ownTables(ctx, a, p.Describe().Tables); err != nil {
		return fmt.Errorf("%s %s of this program (%s): %w; with the program of before, deploy a version of the other app that does, and have its data versions be of it", a.line.Program, a.version, version, err)
	}
	return nil
}

// rawLine is the app that fills the raw lake.
var rawLine = lineOf(ingest.App)

// ensureInstances lists the instances, and makes those that the system starts.
func (s *stack) ensureInstances(ctx context.Context) ([]control.Instance, error) {
	for _, l := range []control.Line{rawLine, etlLine} {
		all, err := s.store.Instances.List(ctx)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(all, func(i control.Instance) bool { return i.Line == l }) {
			continue
		}
		if err := s.store.Instances.Ensure(ctx, l, millrace.Unversioned, system); err != nil {
			return nil, err
		}
	}
	for _, a := range s.allApps() {
		if err := s.ensureSingleton(ctx, a); err != nil {
			return nil, err
		}
	}
	all, err := s.store.Instances.List(ctx)
	if err != nil {
		return nil, err
	}
	return all, s.readServing(ctx)
}

// ensureSingleton makes the instance of a singleton that was deployed by a process which was killed before it had made it. One that was deleted since stays so.
func (s *stack) ensureSingleton(ctx context.Context, a app) error {
	if a.plan != nil || a.descriptor.Versioned {
		return nil
	}
	deploys, err := s.store.Deploys.List(ctx, a.line.Program)
	if err != nil || len(deploys) == 0 {
		return err
	}
	done, err := s.store.Instances.History(ctx, a.line, 0, 1)
	if err != nil || len(done) > 0 && done[0].Began.After(deploys[0].At) {
		return err
	}
	return s.store.Instances.Ensure(ctx, a.line, millrace.Unversioned, deploys[0].Who)
}

// instanceOf is an instance as its job has it. Of the apps that were pushed singletons alone have one that is unversioned.
func instanceOf(l control.Line, dataVersion string) millrace.Instance {
	return millrace.Instance{
		Program: l.Program, Account: l.Account, Env: l.Env, DataVersion: dataVersion,
		Singleton: dataVersion == millrace.Unversioned && l != rawLine && l != etlLine,
	}
}

// readServing takes note of which data version of each app readers see.
func (s *stack) readServing(ctx context.Context) error {
	serving := map[control.Line]string{}
	for _, a := range s.allApps() {
		now, _, err := s.store.Instances.Serving(ctx, a.line)
		if err != nil {
			return err
		}
		serving[a.line] = now
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.servingVersions = serving
	return nil
}

// addJob makes the job of an instance.
func (s *stack) addJob(i control.Instance) (*stackJob, error) {
	a, err := s.app(i.Program)
	if err != nil || a.line != i.Line {
		return nil, fmt.Errorf("instance %s of %s is of an app that this program (%s) does not have; use the version that started it", i.DataVersion, i.Line, version)
	}
	p, err := s.program(context.Background(), i.Program, i.Version)
	if err != nil {
		return nil, err
	}
	j := s.newJob(p, i)
	s.mu.Lock()
	defer s.mu.Unlock()
	if i.Line == rawLine {
		s.raw = j
	} else {
		s.derived = append(s.derived, j)
	}
	return j, nil
}

// newJob makes the job of an instance. Only that of the raw lake has no index.
func (s *stack) newJob(p program, i control.Instance) *stackJob {
	j := &stackJob{
		instance: instanceOf(i.Line, i.DataVersion),
		what:     p, seed: i.Seed, life: i.State, resources: s.cfg.resources(i.Resources),
	}
	id := j.instance.UniqueID()
	spec := artifact.Spec{
		Instance: j.instance,
		Dir:      s.cfg.dir.join("jobs", id), Savepoints: s.cfg.dir.join(savepointsDir, id), Seed: i.Seed,
		Brokers: s.brokers, Security: s.cfg.security, Lake: artifact.Lake{Dir: s.cfg.dir.join("lake"), Warehouse: s.cfg.warehouse, S3: s.cfg.s3, Catalog: s.cfg.catalog},
		Flush: s.cfg.flush, Corrections: s.cfg.corrections * 1e6,
		LogFormat: s.cfg.logFormat, LogLevel: s.cfg.logLevel, Traces: s.cfg.tracing(),
	}
	if i.Line == rawLine {
		spec.Namespace = ingest.Namespace
	} else {
		spec.IndexURL, spec.TableTopics = artifact.WithoutUser(s.indexAddr), s.cfg.dir.head.TableTopics
	}
	j.start = func(ctx context.Context, p program, gets control.Resources) (*local.Process, error) {
		what := "the start of " + id
		if err := s.gate.enter(ctx, what); err != nil {
			return nil, err
		}
		defer s.gate.leave(what)
		spec := spec
		spec.Version, spec.Build = p.plan.Version, p.build
		spec.Workers, spec.Memory = gets.Parallelism, jobShares(gets.Memory*1e6)
		return s.processes.Start(ctx, id, []string{p.executable, artifact.RunCommand}, spec)
	}
	return j
}

// divideMemory bounds this process by what the jobs that are open leave of the memory.
func (s *stack) divideMemory() {
	_, memory := s.openMemory(nil)
	divide(s.cfg.memory*1e6, memory*1e6).apply()
}

// openMemory is how many jobs are open, but for one, and how many MB they have together.
func (s *stack) openMemory(but *stackJob) (jobs int, memory int64) {
	for _, j := range s.jobs() {
		if _, open := j.opened(); open && j != but {
			jobs++
			memory += j.gets().Memory
		}
	}
	return jobs, memory
}

// haveJobs notes which jobs have their directories.
func (s *stack) haveJobs() error {
	var ids []string
	for _, j := range s.jobs() {
		id := j.instance.UniqueID()
		if _, ok := j.opened(); ok || slices.Contains(s.cfg.dir.head.Jobs, id) {
			ids = append(ids, id)
		}
	}
	return s.cfg.dir.haveJobs(ids...)
}

// jobs are all jobs: that of the raw lake, then the instances, the oldest first.
func (s *stack) jobs() []*stackJob {
	if s.raw == nil { // opening failed before it was made
		return nil
	}
	return append([]*stackJob{s.raw}, s.versions()...)
}

// versions are the jobs of the instances of all apps but that which fills the raw lake, the oldest first.
func (s *stack) versions() []*stackJob {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.derived)
}

// versionsOf are those of an app.
func (s *stack) versionsOf(l control.Line) []*stackJob {
	return slices.DeleteFunc(s.versions(), func(j *stackJob) bool { return j.line() != l })
}

// serving are the jobs of the data versions that readers see, one of each app that has one: that of this program first.
func (s *stack) serving() (all []*stackJob) {
	for _, a := range s.allApps() {
		if j := s.servingOf(a.line); j != nil {
			all = append(all, j)
		}
	}
	return all
}

// servingOf is the job of an app's data version that readers see; nil: they see none.
func (s *stack) servingOf(l control.Line) *stackJob {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.derived {
		if j.line() == l && j.instance.DataVersion == s.servingVersions[l] {
			return j
		}
	}
	return nil
}

// serves reports whether readers see the data version of a job.
func (s *stack) serves(j *stackJob) bool { return s.servingOf(j.line()) == j }

// find returns the job of an app's data version.
func (s *stack) find(app, dataVersion string) (*stackJob, error) {
	if _, err := s.app(app); err != nil {
		return nil, err
	}
	var versions []string
	for _, j := range s.jobs() {
		if j.instance.Program != app {
			continue
		}
		if j.instance.DataVersion == dataVersion {
			return j, nil
		}
		versions = append(versions, j.instance.DataVersion)
	}
	has := "none yet"
	if len(versions) > 0 {
		has = strings.Join(versions, ", ")
	}
	return nil, fmt.Errorf("%w: %s has no data version %s; it has %s", control.ErrUnknownInstance, app, dataVersion, has)
}

// jobOf returns the job of an instance, if there is one.
func (s *stack) jobOf(i control.Instance) (*stackJob, bool) {
	for _, j := range s.jobs() {
		if j.instance.UniqueID() == i.UniqueID() {
			return j, true
		}
	}
	return nil, false
}

// Do implements api.Service.
func (s *stack) Do(ctx context.Context, app, dataVersion string, ask api.Ask) (control.Operation, error) {
	a, err := s.app(app)
	if err == nil {
		err = a.refuses(ask.Action)
	}
	if err != nil {
		return control.Operation{}, err
	}
	r := control.Request{
		Line: a.line, DataVersion: dataVersion, Action: ask.Action, By: ask.By(), Role: ask.Role, Key: ask.Key, Savepoint: ask.Savepoint, Revisions: ask.Revisions,
		Resources: control.Resources{Parallelism: ask.Parallelism, Memory: ask.Memory},
	}
	if op, err := s.store.Instances.Asked(ctx, r); err != nil || op.ID != 0 {
		return op, err
	}
	if ask.Action == control.Start || ask.Action == control.Upgrade { // the version that is chosen is not deleted before that is recorded
		s.deploying.Lock()
		defer s.deploying.Unlock()
	}
	switch ask.Action {
	case control.Start:
		return s.doStart(ctx, a, r, ask.Seed)
	case control.Rollback:
		before, err := s.store.Instances.Before(ctx, r.Line)
		if err != nil {
			return control.Operation{}, err
		}
		r.DataVersion = before
	}
	j, err := s.find(app, r.DataVersion)
	if err != nil {
		return control.Operation{}, err
	}
	switch ask.Action {
	case control.Promote, control.Rollback:
		if !ask.Force {
			err = s.caughtUp(ctx, j)
		}
	case control.Resume, control.Recover, control.Upgrade:
		err = s.roomFor(j, j.gets().With(r.Resources))
		if err == nil && ask.Action == control.Upgrade {
			r.Version, err = s.store.Deploys.Deployed(ctx, app, a.version)
		}
	case control.Delete:
		if a.line == etlLine && len(s.versionsOf(a.line)) == 1 { // the program would start another one
			err = fmt.Errorf("%w: %s is the only data version; start another one first", control.ErrRefused, r.DataVersion)
		}
	}
	if err == nil {
		err = s.checkSavepoint(r)
	}
	if err != nil {
		return control.Operation{}, err
	}
	return s.plane.Do(ctx, r)
}

// doStart begins to make a data version.
func (s *stack) doStart(ctx context.Context, a app, r control.Request, seed *api.Seed) (control.Operation, error) {
	a, err := s.deployed(ctx, a)
	if err != nil {
		return control.Operation{}, err
	}
	if a.version == "" {
		return control.Operation{}, fmt.Errorf("%w: no version of %s is deployed: 'millrace deploy new %s VERSION' deploys one", control.ErrRefused, a.line.Program, a.line.Program)
	}
	if r.Seed, err = s.seedRange(ctx, a, seed); err != nil {
		return control.Operation{}, err
	}
	if err := s.roomFor(nil, s.cfg.resources(r.Resources)); err != nil {
		return control.Operation{}, err
	}
	switch r.Version = a.version; {
	case a.descriptor.Versioned:
		r.DataVersion = s.newDataVersion(time.Now())
	case len(s.versionsOf(a.line)) > 0:
		return control.Operation{}, fmt.Errorf("%w: %s is a singleton, and has its one instance: see 'millrace app list'", control.ErrRefused, a.line.Program)
	default:
		r.DataVersion, r.Serves = millrace.Unversioned, true
	}
	return s.plane.Do(ctx, r)
}

// startSingleton begins to make the instance of a singleton that has none, and returns the operation; 0 when there is nothing to make.
func (s *stack) startSingleton(ctx context.Context, a app, by control.By) (id int64, err error) {
	if !s.lacksInstance(a) {
		return 0, nil
	}
	op, err := s.doStart(ctx, a, control.Request{Line: a.line, Action: control.Start, By: by, Role: control.Operator}, nil)
	if err != nil {
		err = fmt.Errorf("it is deployed, and its instance is not started: %w; 'millrace app start %s' starts it", err, a.line.Program)
	}
	return op.ID, err
}

// lacksInstance reports whether an app that was pushed is a singleton without its instance.
func (s *stack) lacksInstance(a app) bool {
	return a.plan == nil && !a.descriptor.Versioned && len(s.versionsOf(a.line)) == 0
}

// act does something with an instance and waits until it is done.
func (s *stack) act(ctx context.Context, action control.Action, app, dataVersion string, ask api.Ask) (control.Operation, error) {
	ask.Action, ask.Role = action, control.Admin
	op, err := s.Do(ctx, app, dataVersion, ask)
	if err != nil {
		return op, err
	}
	return op, s.untilDone(ctx, op.ID)
}

// untilDone waits until an operation has succeeded.
func (s *stack) untilDone(ctx context.Context, id int64) error {
	op, err := s.plane.Wait(ctx, id)
	if err == nil && op.State != control.Succeeded {
		err = fmt.Errorf("%s %s: %s: %s", op.Action, op.DataVersion, op.State, op.Error)
	}
	return err
}

// newDataVersion is the time, or the next second that no data version of any app has: tables of two apps in one namespace would be mixed up.
func (s *stack) newDataVersion(now time.Time) string {
	all := s.versions()
	s.mu.Lock()
	defer s.mu.Unlock()
	if next := s.newest.Add(time.Second); now.Before(next) {
		now = next
	}
	for {
		v := control.NewDataVersion(now)
		if !slices.ContainsFunc(all, func(j *stackJob) bool { return j.instance.DataVersion == v }) {
			s.newest = now
			return v
		}
		now = now.Add(time.Second)
	}
}

// runJob runs a job, and counts it as a restart when its last run did not end as it was told to.
func (s *stack) runJob(ctx context.Context, j *stackJob) {
	id := j.instance.UniqueID()
	j.run(ctx, local.Budget{Restarts: s.cfg.restarts}, watcher{
		begins: func() {
			if process, open := j.opened(); open && process.Adopted() {
				return // it has run all the time
			}
			restarts, err := s.store.Runs.Begin(context.WithoutCancel(ctx), id)
			if err != nil { // the count is not worth a job
				s.cfg.logger.Error("restarts are not counted", "instance", id, "error", err)
				return
			}
			j.setRestarts(restarts)
		},
		again: func() { s.shown(j) },
		fails: func(err error, again int, wait time.Duration) {
			s.cfg.logger.Error("job failed, and is started again", "instance", id, "error", err, "restart", again, "of", s.cfg.restarts, "wait", wait)
			s.shown(j)
		},
		ends: func(err error) {
			if err != nil {
				s.sayFailed(j)(err)
				s.plane.Failed(j.controlled(), err)
				return
			}
			if err := s.store.Runs.End(context.WithoutCancel(ctx), id); err != nil {
				s.cfg.logger.Error("the next start counts as a restart", "instance", id, "error", err)
			}
		},
	})
}

// shown tells who looks that the state of a job may be another.
func (s *stack) shown(j *stackJob) {
	s.events.Say(api.Changed{App: j.instance.Program, Account: j.instance.Account, DataVersion: j.instance.DataVersion, State: string(j.state()), UpdatedBy: system})
}

func (s *stack) sayFailed(j *stackJob) func(error) {
	return func(err error) {
		s.cfg.logger.Error("job failed; when the cause is removed it goes on from its last commit at the next start, or when it is recovered", "instance", j.instance.UniqueID(), "error", err)
	}
}

// roomFor returns an error unless a job finds room in the memory that all may hold: a new one, or one that is there.
func (s *stack) roomFor(j *stackJob, gets control.Resources) error {
	if gets.Memory < leastJobMemory {
		return fmt.Errorf("%w: %d MB of memory are too little for a job: want %d or more", api.ErrInvalid, gets.Memory, leastJobMemory)
	}
	if gets.Parallelism < 1 || gets.Parallelism > mostParallel {
		return fmt.Errorf("%w: a parallelism of %d: want 1 to %d", api.ErrInvalid, gets.Parallelism, mostParallel)
	}
	jobs, memory := s.openMemory(j)
	memory += gets.Memory
	if need := memoryFor(memory); s.cfg.memory < need {
		return fmt.Errorf("%w: %d jobs with %d MB need --memory %d or more, and there are %d MB; start the process with more, or suspend another instance", control.ErrRefused, jobs+1, memory, need, s.cfg.memory)
	}
	return nil
}

// mostParallel is the largest parallelism of a job.
const mostParallel = 128

// seedRange checks what a data version is to begin with: there must be something, and all that is named must be there.
func (s *stack) seedRange(ctx context.Context, a app, seed *api.Seed) (*plan.SeedRange, error) {
	if seed == nil {
		return nil, nil
	}
	invalid := func(err error) error { return fmt.Errorf("%w: %w", api.ErrInvalid, err) }
	if !a.descriptor.SeedingEnabled {
		return nil, invalid(fmt.Errorf("%s is not seeded: its descriptor says so", a.line.Program))
	}
	reads := a.sourceTypes
	if seed.SourceType != "" {
		if !slices.Contains(reads, seed.SourceType) {
			return nil, invalid(fmt.Errorf("%s does not read source type %q; it reads %s", a.line.Program, seed.SourceType, strings.Join(reads, ", ")))
		}
		reads = []string{seed.SourceType}
	}
	for _, t := range reads {
		if !a.descriptor.SeedsFrom(t) {
			return nil, invalid(fmt.Errorf("%s is not seeded with source type %q: its descriptor enables %s", a.line.Program, t, strings.Join(a.descriptor.EnabledSeedingTargets, ", ")))
		}
	}
	sel, err := selection(api.LakeQuery{From: seed.From, To: seed.To}, "from", "to")
	if err != nil {
		return nil, invalid(err)
	}
	out := &plan.SeedRange{SourceTypes: reads, From: sel.From, To: sel.To, EntitiesFirst: seed.EntitiesFirst}
	for _, text := range seed.Envs {
		account, env, ok := strings.Cut(text, ":")
		if !ok || account == "" || env == "" {
			return nil, invalid(fmt.Errorf("env %q: want account:env, such as deepthought:deepthought3", text))
		}
		out.Envs = append(out.Envs, plan.Env{Account: account, Name: env})
	}
	return out, s.somethingToSeed(ctx, out)
}

// somethingToSeed returns an error when the lake has no record of a range, or none of an env in it.
func (s *stack) somethingToSeed(ctx context.Context, r *plan.SeedRange) error {
	envs := r.Envs
	if len(envs) == 0 {
		envs = []plan.Env{{}}
	}
	found := int64(0)
	for _, sourceType := range r.SourceTypes {
		for _, e := range envs {
			stats, err := lakeStats(ctx, s.lake, lake.Selection{SourceType: sourceType, Account: e.Account, Env: e.Name, From: r.From, To: r.To})
			var unknown *lake.UnknownError
			switch {
			case errors.As(err, &unknown):
				return fmt.Errorf("%w: %w", api.ErrInvalid, err)
			case errors.Is(err, lake.ErrEmptyRange):
				return fmt.Errorf("%w: %w", api.ErrInvalid, err)
			case err != nil:
				return err
			}
			found += stats.Total.Most
		}
	}
	if found > 0 {
		return nil
	}
	var there strings.Builder
	if err := noRecords(ctx, &there, s.lake, lake.Selection{}); err != nil {
		return err
	}
	return fmt.Errorf("%w: nothing to seed in this range: %s", api.ErrInvalid, strings.TrimSpace(there.String()))
}

// patience is how long a promotion waits for the moment at which a version that follows the log has caught up.
const patience = 5 * time.Second

// caughtUp returns an error unless a version holds what the one that serves holds: its seeding is over, and it has neither more to read nor
// more to publish.
func (s *stack) caughtUp(ctx context.Context, j *stackJob) error {
	force := "; wait until it has caught up, or force it"
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		p, least := j.Progress(), s.leastBehind(j.line())
		var why error
		switch state := j.stateOf(p); {
		case state == control.Seeding:
			return fmt.Errorf("%w: %s is seeding: it has read %d of %d rows of the lake%s", control.ErrRefused, j.instance.DataVersion, p.Seeding.Read, p.Seeding.Rows, force)
		case state != control.Running:
			return fmt.Errorf("%w: %s is %s and falls behind; let it go on first, or force it", control.ErrRefused, j.instance.DataVersion, state)
		case p.Ends == nil || behind(p) > least:
			why = fmt.Errorf("%w: %s is behind: %d records to read and rows to publish, and the version that serves has %d%s",
				control.ErrRefused, j.instance.DataVersion, behind(p), least, force)
		}
		if why == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return why
		case <-tick.C:
		}
	}
}

// leastBehind is how far behind the version of an app may be that is to serve: as far as the one that does, or, when none does, as the raw lake is.
func (s *stack) leastBehind(l control.Line) int64 {
	if serving := s.servingOf(l); serving != nil {
		return behind(serving.Progress())
	}
	return s.raw.Progress().Lag
}

// behind is what a job has to do until the index holds what the log held a moment ago.
func behind(p engine.Progress) int64 {
	n := p.Lag
	for _, s := range p.Sinks {
		if s.Name == "elastic" {
			n += s.PendingRows
		}
	}
	return n
}

// assertServing makes the index's names say what is wanted, as at the first start nobody has. An index that does not answer is waited for.
func (s *stack) assertServing(ctx context.Context) error {
	err := retry.Do(ctx, retry.Policy{OnRetry: func(_ int, err error, wait time.Duration) {
		s.cfg.logger.Warn("the names of the tables may not say which data version serves; it is tried again", "error", err, "wait", wait)
	}}, func(ctx context.Context) error {
		var errs []error
		for _, a := range s.allApps() {
			errs = append(errs, s.assertServingOf(ctx, a.line))
		}
		return errors.Join(errs...)
	})
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(err, s.readServing(context.WithoutCancel(ctx)))
}

func (s *stack) assertServingOf(ctx context.Context, l control.Line) error {
	if l == rawLine { // its tables are in no index
		return nil
	}
	_, wanted, err := s.store.Instances.Serving(ctx, l)
	if err != nil || wanted == "" {
		return err
	}
	if err := (runner{s}).Serve(ctx, control.Instance{Line: l, DataVersion: wanted}); err != nil {
		return err
	}
	return s.store.Instances.Served(ctx, l, wanted)
}

// names is what changes the index's names of an instance.
func (s *stack) names(j *stackJob) (*elastic.Sink, error) {
	return elastic.New(elastic.Config{
		URLs: []string{s.indexAddr}, Plan: j.program().plan, Account: j.instance.Account, Env: j.instance.Env, DataVersion: j.instance.DataVersion, Suffix: j.instance.Suffix(), Logger: s.cfg.logger,
	})
}
