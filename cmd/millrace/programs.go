package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"millrace/artifact"
	"millrace/control"
	"millrace/control/api"
	"millrace/engine"
	"millrace/etl"
	"millrace/plan"
)

// artifactsDir is the folder of a data directory with the artifacts that were pushed: APP/VERSION, each as artifact.Unpack makes it.
const artifactsDir = "artifacts"

// program is a version of an app, and what runs its jobs: this program itself, or the executable of an artifact.
type program struct {
	plan       *plan.Plan // of an artifact it is a sketch
	executable string     // whose command artifact.RunCommand is a job's process
	build      string     // tells it from others
}

// program returns a version of an app that can be run, the empty one of which is the one that is deployed. What was not pushed is this
// program's own: it has one version, which goes on with what its older ones began.
func (s *stack) program(ctx context.Context, name, version string) (program, error) {
	a, err := s.app(name)
	if err != nil {
		return program{}, err
	}
	if version == "" {
		if version, err = s.store.Deploys.Deployed(ctx, name, a.version); err != nil {
			return program{}, err
		}
	}
	pushed, err := s.store.Deploys.Artifact(ctx, name, version)
	if errors.Is(err, control.ErrUnknownArtifact) && a.plan != nil {
		p, err := a.plan()
		return program{p, s.executable, s.build}, err
	}
	if err != nil {
		return program{}, err
	}
	p, err := pushed.Plan.Sketch()
	return program{p, artifact.Executable(s.cfg.dir.join(artifactsDir, name, version)), pushed.SHA256}, err
}

// deployed is an app as its deployed version says that it is. The version is empty while none is deployed.
func (s *stack) deployed(ctx context.Context, a app) (app, error) {
	version, err := s.store.Deploys.Deployed(ctx, a.line.Program, a.version)
	if err != nil || version == "" {
		return a, err
	}
	pushed, err := s.store.Deploys.Artifact(ctx, a.line.Program, version)
	switch {
	case errors.Is(err, control.ErrUnknownArtifact):
		return a, nil
	case err == nil:
		a.version, a.descriptor, a.sourceTypes = version, pushed.Descriptor, pushed.Plan.SourceTypes
	}
	return a, err
}

// described is what is known of a version of an app: an artifact, or this program's own.
func (s *stack) described(ctx context.Context, name, version string) (control.Descriptor, plan.Description, error) {
	pushed, err := s.store.Deploys.Artifact(ctx, name, version)
	if !errors.Is(err, control.ErrUnknownArtifact) {
		return pushed.Descriptor, pushed.Plan, err
	}
	a, appErr := s.app(name)
	if appErr != nil {
		return control.Descriptor{}, plan.Description{}, appErr
	}
	if version != a.version || a.plan == nil {
		return control.Descriptor{}, plan.Description{}, err
	}
	p, err := a.plan()
	if err != nil {
		return control.Descriptor{}, plan.Description{}, err
	}
	return a.descriptor, p.Describe(), nil
}

// Artifacts implements api.Deployments.
func (s *stack) Artifacts(ctx context.Context) ([]control.Artifact, error) {
	return s.store.Deploys.Artifacts(ctx)
}

// DeleteArtifact implements api.Deployments. What is recorded comes first: files that a kill leaves behind are removed at the next start.
func (s *stack) DeleteArtifact(ctx context.Context, name, version, who string) (a control.Artifact, err error) {
	of, err := s.app(name)
	if err != nil {
		return a, err
	}
	what := "the removal of " + name + " " + version
	if err := s.gate.enter(ctx, what); err != nil { // a backup has the files that its records name
		return a, err
	}
	defer s.gate.leave(what)
	s.deploying.Lock()
	defer s.deploying.Unlock()
	a, err = s.store.Deploys.Delete(ctx, control.Deletion{
		App: name, Version: version, Who: who, Shipped: of.version, Needs: func() error { return s.noSavepointOf(of.line, version) },
	})
	if err != nil {
		return a, err
	}
	left, err := s.store.Deploys.Artifacts(context.WithoutCancel(ctx))
	if err != nil {
		return a, err
	}
	if of.plan == nil && !slices.ContainsFunc(left, func(o control.Artifact) bool { return o.App == name }) {
		s.removeApp(of.line)
	}
	return a, s.removeArtifact(name, version)
}

// noSavepointOf returns an error when an app has a savepoint that a version made: who goes back to it may want to go back to that version too. Checkpoints
// go by themselves.
func (s *stack) noSavepointOf(l control.Line, version string) error {
	all, err := savepoints(s.cfg.dir)
	if err != nil {
		return err
	}
	for _, p := range all {
		if p.Kind == onPurpose && p.Version == version && strings.HasPrefix(p.Instance, control.Instance{Line: l}.UniqueID()) {
			return fmt.Errorf("%w: savepoint %s of %s is of it; remove %s if nobody is to go back there", control.ErrRefused, p.Name, p.Instance, p.Dir)
		}
	}
	return nil
}

// removeArtifact removes the files of an artifact, if they are there.
func (s *stack) removeArtifact(app, version string) error {
	dir := s.cfg.dir.join(artifactsDir, app)
	if err := os.RemoveAll(filepath.Join(dir, version)); err != nil {
		return fmt.Errorf("remove the files of %s %s: %w; the next start tries again", app, version, cause(err))
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) {
		return fmt.Errorf("remove %s: %w", dir, cause(err))
	}
	return nil
}

// sweepArtifacts removes files that no record names: of pushes and deletions that were killed.
func (s *stack) sweepArtifacts(recorded []control.Artifact) error {
	root := s.cfg.dir.join(artifactsDir)
	apps, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", root, cause(err))
	}
	for _, app := range apps {
		if !app.IsDir() {
			continue
		}
		if strings.HasPrefix(app.Name(), pushedPrefix) {
			if err := os.RemoveAll(filepath.Join(root, app.Name())); err != nil {
				return fmt.Errorf("remove what a push has left: %w", err)
			}
			continue
		}
		versions, err := os.ReadDir(filepath.Join(root, app.Name()))
		if err != nil {
			return fmt.Errorf("read %s: %w", root, cause(err))
		}
		for _, v := range versions {
			if slices.ContainsFunc(recorded, func(a control.Artifact) bool { return a.App == app.Name() && a.Version == v.Name() }) {
				continue
			}
			s.cfg.logger.Info("files of a version that is not recorded are removed", "app", app.Name(), "version", v.Name())
			if err := s.removeArtifact(app.Name(), v.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// pushedPrefix begins the name of a folder in which an artifact is unpacked.
const pushedPrefix = ".pushed-"

// Push implements api.Deployments. The executable is asked what it holds: an artifact that lies, or that does not run here, is none.
func (s *stack) Push(ctx context.Context, from io.Reader, who string) (a control.Artifact, err error) {
	invalid := func(err error) (control.Artifact, error) { return a, fmt.Errorf("%w: %w", api.ErrInvalid, err) }
	if err := s.cfg.dir.checkDisk(); err != nil {
		return a, err
	}
	if err := os.MkdirAll(s.cfg.dir.join(artifactsDir), 0o700); err != nil {
		return a, err
	}
	work, err := os.MkdirTemp(s.cfg.dir.join(artifactsDir), pushedPrefix)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	dir := work + "/artifact"
	m, err := artifact.Unpack(from, dir, runtime.GOOS+"/"+runtime.GOARCH)
	if errors.Is(err, artifact.ErrBad) {
		return invalid(err)
	}
	if err != nil {
		return a, err
	}
	says, err := artifact.Describe(ctx, artifact.Executable(dir))
	if err != nil {
		return invalid(err)
	}
	a = control.Artifact{
		App: m.App, Version: m.Version, Platform: m.Platform, SHA256: m.SHA256, Bytes: m.Bytes, Commit: m.Commit, Modified: m.Modified, Built: m.Built,
		PushedBy: who, Plan: says.Plan,
	}
	if says.Plan.App != m.App || says.Plan.Version != m.Version {
		return invalid(fmt.Errorf("its executable holds %s %s, and it says that it is %s %s: build it again", says.Plan.App, says.Plan.Version, m.App, m.Version))
	}
	if a.Descriptor, err = control.ParseDescriptor("descriptor.json", says.Descriptor); err != nil {
		return invalid(err)
	}
	if err := s.mayPush(a); err != nil {
		return a, err
	}
	return a, s.keep(ctx, &a, dir)
}

// mayPush returns an error when an artifact cannot be of this stack.
func (s *stack) mayPush(a control.Artifact) error {
	own, err := s.app(a.App)
	switch {
	case a.App == rawLine.Program:
		return fmt.Errorf("%w: %s is the program's own", control.ErrRefused, a.App)
	case err == nil && a.Version == own.version:
		return fmt.Errorf("%w: version %s of %s is the program's own; give this one a version of its own", control.ErrRefused, a.Version, a.App)
	case !appName.MatchString(a.App):
		return fmt.Errorf("%w: %q cannot name an app: use 3 to 64 of a to z, 0 to 9 and -, beginning with a letter", api.ErrInvalid, a.App)
	case err == nil && a.Descriptor.Versioned != own.descriptor.Versioned:
		return fmt.Errorf("%w: versioned is %t in the descriptor of %s %s, and %t in those of its other versions, which have their rows elsewhere: give the app another name",
			control.ErrRefused, a.Descriptor.Versioned, a.App, a.Version, own.descriptor.Versioned)
	}
	_, err = a.Plan.Sketch()
	return err
}

// ownTables returns an error when an app has a table with the name of one that another app has, in its deployed version or in one that an instance
// runs: readers know a table by its name. Dead letters have one name in all apps, and are read together.
func (s *stack) ownTables(ctx context.Context, a app, tables []plan.TableDescription) error {
	for _, other := range s.allApps() {
		if other.line == a.line || other.line == rawLine {
			continue
		}
		has := map[string]string{} // version, by table
		for _, j := range s.versionsOf(other.line) {
			for _, t := range j.program().plan.Tables {
				has[t.Name] = j.program().plan.Version
			}
		}
		version, err := s.store.Deploys.Deployed(ctx, other.line.Program, other.version)
		if err != nil {
			return err
		}
		if version != "" {
			_, deployed, err := s.described(ctx, other.line.Program, version)
			if err != nil {
				return err
			}
			for _, t := range deployed.Tables {
				has[t.Name] = version
			}
		}
		for _, t := range tables {
			if version, is := has[t.Name]; is && t.Name != etl.DeadLetterTable {
				return fmt.Errorf("%w: table %s is one of %s %s, and readers know tables by their names: call it otherwise", control.ErrRefused, t.Name, other.line.Program, version)
			}
		}
	}
	return nil
}

// keep gives an unpacked artifact its place, and records it.
func (s *stack) keep(ctx context.Context, a *control.Artifact, dir string) error {
	s.deploying.Lock() // of a version that is pushed again while it is deleted the files stay
	defer s.deploying.Unlock()
	to := s.cfg.dir.join(artifactsDir, a.App, a.Version)
	if err := os.MkdirAll(s.cfg.dir.join(artifactsDir, a.App), 0o700); err != nil {
		return err
	}
	pushed, err := s.store.Deploys.Artifact(ctx, a.App, a.Version)
	if errors.Is(err, control.ErrUnknownArtifact) {
		err = os.RemoveAll(to) // of a push that was killed
	} else if err == nil && pushed.SHA256 != a.SHA256 {
		_, err = s.store.Deploys.Push(ctx, *a) // says why not
	}
	if err != nil {
		return err
	}
	if err := os.Rename(dir, to); err != nil && !errors.Is(err, fs.ErrExist) { // it is there: the same one
		return err
	}
	if *a, err = s.store.Deploys.Push(ctx, *a); err == nil {
		s.addApp(*a)
	}
	return err
}

// Deploys implements api.Deployments.
func (s *stack) Deploys(ctx context.Context, app string) ([]control.Deploy, error) {
	a, err := s.app(app)
	if err != nil {
		return nil, err
	}
	return s.store.Deploys.List(ctx, a.line.Program)
}

// Deploy implements api.Deployments.
func (s *stack) Deploy(ctx context.Context, app string, ask api.DeployAsk) (control.Deploy, error) {
	a, err := s.app(app)
	if err != nil {
		return control.Deploy{}, err
	}
	c := control.Choice{App: app, Version: ask.Version, By: control.By{Who: ask.Who, Reason: ask.Reason}, Shipped: a.version, Past: ask.Force, Revisions: ask.Revisions}
	s.deploying.Lock() // of two apps that get the same table at once the second one is refused
	defer s.deploying.Unlock()
	if s.lacksInstance(a) { // it is to start
		if err := s.roomFor(nil, s.cfg.resources(control.Resources{})); err != nil {
			return control.Deploy{}, err
		}
	}
	d, err := s.decide(ctx, a, c)
	if err == nil {
		d.Starts, err = s.startSingleton(ctx, a, c.By)
	}
	return d, err
}

// decide records a deploy, or with an empty version a rollback.
func (s *stack) decide(ctx context.Context, a app, c control.Choice) (control.Deploy, error) {
	if c.Version == "" {
		return s.store.Deploys.Rollback(ctx, c)
	}
	_, is, err := s.described(ctx, c.App, c.Version)
	if err == nil {
		err = s.ownTables(ctx, a, is.Tables)
	}
	if err != nil {
		return control.Deploy{}, err
	}
	return s.store.Deploys.Deploy(ctx, c)
}

// Diff implements api.Deployments.
func (s *stack) Diff(ctx context.Context, app, version string) (d api.Diff, err error) {
	a, err := s.app(app)
	if err != nil {
		return d, err
	}
	d = api.Diff{App: app, To: version, Instances: []api.Verdict{}}
	if d.From, err = s.store.Deploys.Deployed(ctx, app, a.version); err != nil {
		return d, err
	}
	var wasDescriptor control.Descriptor
	var was plan.Description
	if d.From != "" {
		if wasDescriptor, was, err = s.described(ctx, app, d.From); err != nil {
			return d, err
		}
	}
	isDescriptor, is, err := s.described(ctx, app, version)
	if err != nil {
		return d, err
	}
	if d.Descriptor, err = api.Changes(wasDescriptor, isDescriptor); err != nil {
		return d, err
	}
	if d.From == "" { // none is deployed: all of it is new
		was = plan.Description{App: app, SourceTypes: is.SourceTypes}
	}
	d.Plan = plan.Compare(was, is, nil)
	if err := s.ownTables(ctx, a, is.Tables); err != nil {
		d.Plan.Changes = append(d.Plan.Changes, plan.Change{What: "tables", Meaning: err.Error(), Refused: true})
	}
	sketch, err := is.Sketch()
	if err != nil {
		return d, err
	}
	all, err := s.store.Instances.List(ctx)
	if err != nil {
		return d, err
	}
	for _, in := range all {
		if in.Program != app || in.Version == version {
			continue
		}
		d.Instances = append(d.Instances, s.verdict(in, sketch))
	}
	return d, nil
}

// verdict says whether an instance can go on as another plan.
func (s *stack) verdict(in control.Instance, is *plan.Plan) (v api.Verdict) {
	v = api.Verdict{DataVersion: in.DataVersion, Version: in.Version, State: string(in.State), Refused: []string{}}
	j, ok := s.jobOf(in)
	if !ok {
		return v
	}
	v.State = string(j.state())
	var c plan.Comparison
	if _, open := j.opened(); open {
		c = j.compare(is.Describe())
	} else {
		var err error
		if c, err = engine.ComparePlan(nil, s.jobDir(j), is); err != nil {
			line, _, _ := strings.Cut(err.Error(), "\n")
			v.Refused = append(v.Refused, line)
		}
	}
	for _, change := range c.Changes {
		if change.Refused {
			v.Refused = append(v.Refused, change.What+": "+change.Meaning)
		}
	}
	return v
}

// Blockers implements api.Deployments.
func (s *stack) Blockers(ctx context.Context) ([]control.Blocker, error) {
	return s.store.Deploys.Blockers(ctx)
}

// Block implements api.Deployments.
func (s *stack) Block(ctx context.Context, b control.Blocker) (control.Blocker, error) {
	if b.App != "" {
		if _, err := s.app(b.App); err != nil {
			return b, err
		}
	}
	return s.store.Deploys.Block(ctx, b)
}

// Lift implements api.Deployments.
func (s *stack) Lift(ctx context.Context, id int64, who string) (control.Blocker, error) {
	return s.store.Deploys.Lift(ctx, id, who)
}
