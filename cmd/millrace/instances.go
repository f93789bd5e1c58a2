package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"millrace"
	"millrace/apps/lms"
	"millrace/control"
	"millrace/control/api"
	"millrace/engine"
	"millrace/ingest"
	"millrace/lake"
	"millrace/plan"
	"millrace/sink/elastic"
	"millrace/sink/topic"
	"millrace/source"
	"millrace/web"
)

// system is the tenant of apps that serve all tenants, and the name of who does what nobody asked for.
const system = "system"

// etlLine is the app that has data versions.
var etlLine = control.Line{Program: lms.App.Name, Account: system, Env: system}

// errStopping refuses a change while the process ends.
var errStopping = fmt.Errorf("%w: the process is stopping; start it again and ask then", control.ErrRefused)

// openJobs opens the job that fills the raw lake and those of all instances. The unversioned instance of the ETL app is there from the
// first run on, and serves until another one is made to.
func (s *stack) openJobs(ctx context.Context) error {
	raw := ingest.Plan(version)
	s.raw = s.newJob(raw, control.Instance{Line: control.Line{Program: raw.App, Account: system, Env: system}, DataVersion: millrace.Unversioned})
	if err := s.raw.open(ctx); err != nil {
		return err
	}
	all, err := s.ensureInstances(ctx)
	if err != nil {
		return err
	}
	for _, i := range all {
		j, err := s.etlJob(i)
		if err != nil {
			return err
		}
		if i.Deleting {
			if err := s.remove(ctx, j); err != nil { // as far as it goes; the next start goes on
				s.cfg.logger.Error("instance not deleted; the next start tries it again", "instance", j.instance.UniqueID(), "error", err)
			}
			continue
		}
		if err := j.open(ctx); err != nil {
			var refused *plan.RefusedError
			if i.DataVersion == millrace.Unversioned && !errors.As(err, &refused) {
				return err
			}
			s.sayFailed(j)(err) // the others do their work; what is refused goes on with another program, or is followed by a new version
		}
		s.etl = append(s.etl, j)
	}
	if err := s.haveJobs(); err != nil {
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

// ensureInstances lists the instances, and makes the first one.
func (s *stack) ensureInstances(ctx context.Context) ([]control.Instance, error) {
	all, err := s.store.Instances.List(ctx)
	if err != nil {
		return nil, err
	}
	by := control.By{Who: system}
	if len(all) == 0 {
		if err := s.store.Instances.Create(ctx, control.Instance{Line: etlLine, DataVersion: millrace.Unversioned}, by); err != nil {
			return nil, err
		}
		if all, err = s.store.Instances.List(ctx); err != nil {
			return nil, err
		}
	}
	_, wanted, err := s.store.Instances.Serving(ctx, etlLine)
	if err == nil && wanted == "" {
		err = errors.Join(s.store.Instances.Promote(ctx, etlLine, millrace.Unversioned, by), s.store.Instances.Served(ctx, etlLine, millrace.Unversioned))
	}
	if err != nil {
		return nil, err
	}
	return all, s.readServing(ctx)
}

// readServing takes note of which data version readers see.
func (s *stack) readServing(ctx context.Context) error {
	now, _, err := s.store.Instances.Serving(ctx, etlLine)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.servingVersion = now
	}
	return err
}

func (s *stack) etlJob(i control.Instance) (*stackJob, error) {
	if i.Line != etlLine {
		return nil, fmt.Errorf("instance %s of %s is of an app that this program (%s) does not have; use the version that started it", i.DataVersion, i.Line, version)
	}
	p, err := lms.App.Plan()
	if err != nil {
		return nil, err
	}
	return s.newJob(p, i), nil
}

// newJob makes the job of an instance. Only that of the raw lake has no index.
func (s *stack) newJob(p *plan.Plan, i control.Instance) *stackJob {
	j := &stackJob{
		instance: millrace.Instance{Program: i.Program, Account: i.Account, Env: i.Env, DataVersion: i.DataVersion},
		plan:     p, seed: i.Seed, suspended: i.Suspended,
	}
	id := j.instance.UniqueID()
	cfg := millrace.JobConfig{
		Instance: j.instance, Plan: p, Seed: i.Seed, Dir: s.cfg.dir.join("jobs", id), Savepoints: s.cfg.dir.join(savepointsDir, id),
		Log: s.log, Lake: s.lake, Flush: s.cfg.flush, Logger: s.cfg.logger, Tracer: s.tracer,
	}
	if p.App == ingest.App {
		cfg.Namespace = ingest.Namespace
	} else {
		cfg.IndexURL, cfg.TableTopics = s.indexAddr, s.cfg.dir.head.TableTopics
	}
	memory := s.cfg.shares()
	cfg.FlushBytes, cfg.BulkBytes, cfg.EpochBytes, cfg.CacheBytes, cfg.MemTableBytes = memory.flush, memory.bulk, memory.epoch, memory.cache, memory.memTable
	j.start = func(ctx context.Context, metrics *prometheus.Registry) (*millrace.Job, error) {
		cfg.Registerer = metrics
		return millrace.OpenJob(ctx, cfg)
	}
	return j
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
func (s *stack) jobs() []*stackJob { return append([]*stackJob{s.raw}, s.versions()...) }

// versions are the jobs of the instances of the ETL app, the oldest first.
func (s *stack) versions() []*stackJob {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.etl)
}

// serving is the job of the data version that readers see.
func (s *stack) serving() *stackJob {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.etl {
		if j.instance.DataVersion == s.servingVersion {
			return j
		}
	}
	return s.etl[0]
}

// find returns the job of a data version.
func (s *stack) find(app, dataVersion string) (*stackJob, error) {
	if err := s.knows(app); err != nil {
		return nil, err
	}
	var versions []string
	for _, j := range s.versions() {
		if j.instance.DataVersion == dataVersion {
			return j, nil
		}
		versions = append(versions, j.instance.DataVersion)
	}
	return nil, fmt.Errorf("%w: %s has no data version %s; it has %s", control.ErrUnknownInstance, app, dataVersion, strings.Join(versions, ", "))
}

// knows returns an error unless app has data versions.
func (s *stack) knows(app string) error {
	switch app {
	case etlLine.Program:
		return nil
	case s.raw.plan.App:
		return fmt.Errorf("%w: %s is a singleton: the system starts its one instance, %s, and it has no data versions", control.ErrRefused, app, s.raw.instance.UniqueID())
	}
	return fmt.Errorf("%w: there is no app %q; there are %s and %s", api.ErrNotFound, app, s.raw.plan.App, etlLine.Program)
}

// Apps implements api.Service.
func (s *stack) Apps(ctx context.Context) ([]api.App, error) {
	raw := api.App{
		Name: s.raw.plan.App, Version: s.raw.plan.Version, Description: "keeps what the collector takes in the raw lake", Singleton: true,
		Instances: []api.Instance{instanceStatus(s.raw, time.Time{})},
	}
	all, err := s.store.Instances.List(ctx)
	if err != nil {
		return nil, err
	}
	app := api.App{Name: lms.App.Name, Version: lms.App.Version, Description: lms.App.Description, SourceTypes: lms.App.SourceTypes, Instances: []api.Instance{}}
	for _, j := range s.versions() {
		created := time.Time{}
		for _, i := range all {
			if i.DataVersion == j.instance.DataVersion {
				created = i.Created
			}
		}
		app.Instances = append(app.Instances, instanceStatus(j, created))
	}
	now, wanted, err := s.store.Instances.Serving(ctx, etlLine)
	if app.Serving = now; wanted != now {
		app.Promoting = wanted
	}
	return []api.App{raw, app}, err
}

func instanceStatus(j *stackJob, created time.Time) api.Instance {
	p := j.Progress()
	i := api.Instance{
		UniqueID: j.instance.UniqueID(), DataVersion: j.instance.DataVersion, Created: created, State: j.state(), Read: p.Read, Rows: p.Rows, LagRecords: p.Lag,
		Epoch: p.Epoch, Published: published(p),
	}
	if err := j.failure(); err != nil {
		i.Error = err.Error()
	}
	if x := p.Seeding; x != nil {
		i.Seeding = &api.Seeding{Rows: x.Rows, Read: x.Read, Kept: x.Kept, Done: x.Done}
		if !x.Done && i.State == "SEEDING" {
			i.Seeding.RowsPerSecond = p.ReadRate
			if p.ReadRate > 0 && x.Read > 0 { // the rate counts records that are kept
				i.Seeding.RowsPerSecond = p.ReadRate * float64(x.Read) / float64(max(x.Kept, 1))
				i.Seeding.SecondsLeft = float64(x.Rows-x.Read) / i.Seeding.RowsPerSecond
			}
		}
	}
	return i
}

// published is the last epoch of which all sinks have published the rows.
func published(p engine.Progress) uint64 {
	epoch := p.Epoch
	for _, s := range p.Sinks {
		if s.PendingEpochs > 0 {
			epoch = min(epoch, s.Epoch)
		}
	}
	return epoch
}

// History implements api.Service.
func (s *stack) History(ctx context.Context, app string) ([]control.Change, error) {
	if err := s.knows(app); err != nil {
		return nil, err
	}
	return s.store.Instances.History(ctx, etlLine)
}

// Start implements api.Service: it makes a data version and runs it.
func (s *stack) Start(ctx context.Context, app string, start api.Start) (api.Instance, error) {
	if err := s.knows(app); err != nil {
		return api.Instance{}, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	if s.working == nil {
		return api.Instance{}, errStopping
	}
	seed, err := s.seedRange(ctx, start.Seed)
	if err != nil {
		return api.Instance{}, err
	}
	return s.makeVersion(ctx, seed, control.By{Who: start.Who, Reason: start.Reason}, func(string) error { return nil })
}

// startVersion makes a data version that begins with a range of the lake, and runs it. It is told to note before it is there.
func (s *stack) startVersion(ctx context.Context, seed *plan.SeedRange, by control.By, note func(dataVersion string) error) (api.Instance, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	if s.working == nil {
		return api.Instance{}, errStopping
	}
	return s.makeVersion(ctx, seed, by, note)
}

func (s *stack) makeVersion(ctx context.Context, seed *plan.SeedRange, by control.By, note func(dataVersion string) error) (api.Instance, error) {
	if err := s.roomFor(len(s.jobs()) + 1); err != nil {
		return api.Instance{}, err
	}
	i := control.Instance{Line: etlLine, DataVersion: s.newDataVersion(time.Now()), Seed: seed}
	if err := note(i.DataVersion); err != nil {
		return api.Instance{}, err
	}
	if err := s.store.Instances.Create(ctx, i, by); err != nil {
		return api.Instance{}, err
	}
	j, err := s.etlJob(i)
	if err != nil {
		return api.Instance{}, err
	}
	s.mu.Lock()
	s.etl = append(s.etl, j)
	s.mu.Unlock()
	if err := s.begin(ctx, j); err != nil {
		return api.Instance{}, fmt.Errorf("%s is made and could not be started: %w", i.DataVersion, err)
	}
	return instanceStatus(j, time.Now()), nil
}

// newDataVersion is the time, or the next second that no data version has.
func (s *stack) newDataVersion(now time.Time) string {
	for {
		v := control.NewDataVersion(now)
		if !slices.ContainsFunc(s.versions(), func(j *stackJob) bool { return j.instance.DataVersion == v }) {
			return v
		}
		now = now.Add(time.Second)
	}
}

// begin opens a job and runs it.
func (s *stack) begin(ctx context.Context, j *stackJob) error {
	if err := j.open(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	s.shares().apply()
	if err := s.haveJobs(); err != nil {
		return err
	}
	s.runJob(s.working, j)
	return nil
}

// runJob runs a job, and counts it as a restart when its last run did not end as it was told to.
func (s *stack) runJob(ctx context.Context, j *stackJob) {
	id := j.instance.UniqueID()
	restarts, err := s.store.Runs.Begin(context.WithoutCancel(ctx), id)
	if err != nil { // the count is not worth a job
		s.cfg.logger.Error("restarts are not counted", "instance", id, "error", err)
	} else {
		j.setRestarts(restarts)
	}
	j.run(ctx, func(err error) {
		if err != nil {
			s.sayFailed(j)(err)
			return
		}
		if err := s.store.Runs.End(context.WithoutCancel(ctx), id); err != nil {
			s.cfg.logger.Error("the next start counts as a restart", "instance", id, "error", err)
		}
	})
}

func (s *stack) sayFailed(j *stackJob) func(error) {
	return func(err error) {
		s.cfg.logger.Error("job failed; when the cause is removed it goes on from its last commit at the next start, or when it is resumed", "instance", j.instance.UniqueID(), "error", err)
	}
}

// shares divides the memory among the jobs that are open.
func (s *stack) shares() shares {
	open := 0
	for _, j := range s.jobs() {
		if _, ok := j.opened(); ok {
			open++
		}
	}
	return s.cfg.sharesOf(open)
}

// roomFor returns an error unless so many jobs find room in the memory that the process may hold.
func (s *stack) roomFor(jobs int) error {
	for _, j := range s.versions() {
		if _, ok := j.opened(); !ok {
			jobs--
		}
	}
	if need := memoryFor(jobs); s.cfg.memory < need {
		return fmt.Errorf("%w: %d jobs need --memory %d or more, and there are %d MB; start the process with more, or suspend another instance", control.ErrRefused, jobs, need, s.cfg.memory)
	}
	return nil
}

// seedRange checks what a data version is to begin with: there must be something, and all that is named must be there.
func (s *stack) seedRange(ctx context.Context, seed *api.Seed) (*plan.SeedRange, error) {
	if seed == nil {
		return nil, nil
	}
	invalid := func(err error) error { return fmt.Errorf("%w: %w", api.ErrInvalid, err) }
	reads := lms.App.SourceTypes
	if seed.SourceType != "" {
		if !slices.Contains(reads, seed.SourceType) {
			return nil, invalid(fmt.Errorf("%s does not read source type %q; it reads %s", lms.App.Name, seed.SourceType, strings.Join(reads, ", ")))
		}
		reads = []string{seed.SourceType}
	}
	sel, err := selection(web.LakeQuery{From: seed.From, To: seed.To}, "from", "to")
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

// Suspend implements api.Service: it stops the job after its last commit, once the sinks have published that.
func (s *stack) Suspend(ctx context.Context, app, dataVersion string, by control.By) (api.Instance, error) {
	return s.change(ctx, app, dataVersion, func(j *stackJob) error {
		if j.isSuspended() {
			return fmt.Errorf("%w: %s is suspended already", control.ErrRefused, dataVersion)
		}
		if err := s.store.Instances.Suspend(ctx, etlLine, dataVersion, true, by); err != nil {
			return err
		}
		j.setSuspended(true)
		err := j.close()
		s.shares().apply()
		return err
	})
}

// Resume implements api.Service: it goes on where a suspended or failed job ended.
func (s *stack) Resume(ctx context.Context, app, dataVersion string, by control.By) (api.Instance, error) {
	return s.change(ctx, app, dataVersion, func(j *stackJob) error {
		if j.works() {
			return fmt.Errorf("%w: %s is %s; only a suspended or failed instance is resumed", control.ErrRefused, dataVersion, j.state())
		}
		if _, open := j.opened(); !open {
			if err := s.roomFor(len(s.jobs()) + 1); err != nil {
				return err
			}
		}
		if err := s.store.Instances.Suspend(ctx, etlLine, dataVersion, false, by); err != nil {
			return err
		}
		j.setSuspended(false)
		if err := j.close(); err != nil { // it is opened from what is stored
			s.cfg.logger.Warn("failed job not closed cleanly", "instance", j.instance.UniqueID(), "error", err)
		}
		return s.begin(ctx, j)
	})
}

// change does something with an instance, one thing at a time.
func (s *stack) change(ctx context.Context, app, dataVersion string, do func(*stackJob) error) (api.Instance, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	if s.working == nil {
		return api.Instance{}, errStopping
	}
	j, err := s.find(app, dataVersion)
	if err != nil {
		return api.Instance{}, err
	}
	if err := do(j); err != nil {
		return api.Instance{}, err
	}
	return instanceStatus(j, time.Time{}), nil
}

// Promote implements api.Service: it makes readers see a data version. It answers when they do.
func (s *stack) Promote(ctx context.Context, app, dataVersion string, force bool, by control.By) (api.Instance, error) {
	j, err := s.change(ctx, app, dataVersion, func(j *stackJob) error {
		if !force {
			if err := s.caughtUp(ctx, j); err != nil {
				return err
			}
		}
		return s.store.Instances.Promote(ctx, etlLine, dataVersion, by)
	})
	if err != nil {
		return j, err
	}
	return j, s.untilServed(ctx, dataVersion)
}

// Rollback implements api.Service: it makes readers see the data version that they saw before.
func (s *stack) Rollback(ctx context.Context, app string, force bool, by control.By) (api.Instance, error) {
	if err := s.knows(app); err != nil {
		return api.Instance{}, err
	}
	before, err := s.store.Instances.Before(ctx, etlLine)
	if err != nil {
		return api.Instance{}, err
	}
	i, err := s.change(ctx, app, before, func(j *stackJob) error {
		if !force {
			if err := s.caughtUp(ctx, j); err != nil {
				return err
			}
		}
		return s.store.Instances.Rollback(ctx, etlLine, before, by)
	})
	if err != nil {
		return i, err
	}
	return i, s.untilServed(ctx, before)
}

// Delete implements api.Service: it removes a data version with its state, savepoints, tables, indices and topics. What it has begun, a later
// start finishes.
func (s *stack) Delete(ctx context.Context, app, dataVersion string, by control.By) (api.Instance, error) {
	return s.change(ctx, app, dataVersion, func(j *stackJob) error {
		if len(s.versions()) == 1 {
			return fmt.Errorf("%w: %s is the only data version; start another one first", control.ErrRefused, dataVersion)
		}
		if err := s.store.Instances.Delete(ctx, etlLine, dataVersion, by); err != nil {
			return err
		}
		s.mu.Lock()
		s.etl = slices.DeleteFunc(s.etl, func(o *stackJob) bool { return o == j })
		s.mu.Unlock()
		j.setDeleted()
		if err := j.close(); err != nil { // what it says is about to go
			s.cfg.logger.Warn("deleted job not closed cleanly", "instance", j.instance.UniqueID(), "error", err)
		}
		s.shares().apply()
		return s.remove(ctx, j)
	})
}

// remove removes all that an instance has. Each step does nothing where a remove before has done it.
func (s *stack) remove(ctx context.Context, j *stackJob) (err error) {
	names, err := s.names(j)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, names.Close()) }()
	id := j.instance.UniqueID()
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
	for _, dir := range []string{s.cfg.dir.join(savepointsDir, id), s.cfg.dir.join("jobs", id+".old"), s.cfg.dir.join("jobs", id+".next"), s.cfg.dir.join("jobs", id)} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove %s: %w", dir, cause(err))
		}
	}
	return s.store.Instances.Deleted(ctx, etlLine, j.instance.DataVersion)
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
		p, serving := j.Progress(), s.serving().Progress()
		var why error
		switch state := j.state(); {
		case state == "SEEDING":
			return fmt.Errorf("%w: %s is seeding: it has read %d of %d rows of the lake%s", control.ErrRefused, j.instance.DataVersion, p.Seeding.Read, p.Seeding.Rows, force)
		case state != "RUNNING":
			return fmt.Errorf("%w: %s is %s and falls behind; resume it first, or force it", control.ErrRefused, j.instance.DataVersion, state)
		case p.Ends == nil || behind(p) > behind(serving):
			why = fmt.Errorf("%w: %s is behind: %d records to read and rows to publish, and the version that serves has %d%s",
				control.ErrRefused, j.instance.DataVersion, behind(p), behind(serving), force)
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

// untilServed waits until readers see a data version.
func (s *stack) untilServed(ctx context.Context, dataVersion string) error {
	select {
	case s.promoted <- struct{}{}:
	default: // it is awake
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		now, _, err := s.store.Instances.Serving(ctx, etlLine)
		if err != nil || now == dataVersion {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// keepServing makes the index's names say what is wanted: at the start, where a process before may have ended between the two, and after
// each promotion. An index that does not answer is waited for.
func (s *stack) keepServing(ctx context.Context) error {
	for {
		if err := s.serve(ctx); err != nil && ctx.Err() == nil {
			s.cfg.logger.Error("the names of the tables do not say which data version serves; start the process again when the cause is removed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.promoted:
		}
	}
}

func (s *stack) serve(ctx context.Context) (err error) {
	_, wanted, err := s.store.Instances.Serving(ctx, etlLine)
	if err != nil {
		return err
	}
	j, err := s.find(etlLine.Program, wanted)
	if err != nil {
		return err
	}
	names, err := s.names(j)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, names.Close()) }()
	if err := names.Serve(ctx); err != nil {
		return err
	}
	if err := s.store.Instances.Served(ctx, etlLine, wanted); err != nil {
		return err
	}
	return s.readServing(ctx)
}

// names is what changes the index's names of an instance.
func (s *stack) names(j *stackJob) (*elastic.Sink, error) {
	return elastic.New(elastic.Config{
		URLs: []string{s.indexAddr}, Plan: j.plan, Account: j.instance.Account, Env: j.instance.Env, DataVersion: j.instance.DataVersion, Logger: s.cfg.logger,
	})
}
