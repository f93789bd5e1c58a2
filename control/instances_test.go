package control_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/control"
	"millrace/plan"
)

var (
	line  = control.Line{Program: "ingest-etl-edgenuity-lms-job", Account: "system", Env: "system"}
	other = control.Line{Program: "ingest-etl-edgenuity-lms-job", Account: "acme", Env: "prod"}
	hans  = control.By{Who: "hans.parra", Reason: "score in percent"}
)

func openInstances(t *testing.T, path string) *control.Instances {
	t.Helper()
	return openStore(t, path).Instances
}

func serves(t *testing.T, x *control.Instances, now, wanted string) {
	t.Helper()
	n, w, err := x.Serving(t.Context(), line)
	require.NoError(t, err)
	require.Equal(t, [2]string{now, wanted}, [2]string{n, w})
}

// plane carries out one operation after another, on a runner that does what it is told, or fails.
type plane struct {
	t *testing.T
	*control.Plane
	runner *runner
}

// runner notes what it is asked for. It fails at the step that it is told to fail at.
type runner struct {
	asked []string
	fails map[string]error
	serve chan struct{} // what a promotion waits for, unless nil
	watch chan struct{} // what the end of an upgrade waits for, unless nil
}

func (r *runner) note(what string, i control.Instance) error {
	r.asked = append(r.asked, what+" "+i.DataVersion)
	return r.fails[what]
}

func (r *runner) Check(_ context.Context, i control.Instance, version string) error {
	return r.note("check "+version, i)
}

func (r *runner) Run(_ context.Context, i control.Instance) (string, error) {
	return i.Version, r.note("run "+i.Version, i)
}

func (r *runner) Stop(_ context.Context, i control.Instance) error { return r.note("stop", i) }

func (r *runner) Suspend(_ context.Context, i control.Instance, name string) error {
	return r.note("suspend", i)
}

func (r *runner) Savepoint(_ context.Context, i control.Instance, name string) error {
	return r.note("savepoint "+name, i)
}

func (r *runner) Restore(_ context.Context, i control.Instance, name string) (string, error) {
	return "", r.note("restore", i)
}

func (r *runner) Rewind(_ context.Context, i control.Instance, name string) error {
	return r.note("rewind", i)
}

func (r *runner) Watch(_ context.Context, i control.Instance) error {
	if r.watch != nil {
		<-r.watch
	}
	return r.note("watch", i)
}

func (r *runner) Serve(ctx context.Context, i control.Instance) error {
	if r.serve != nil {
		select {
		case <-r.serve:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return r.note("serve", i)
}

func (r *runner) Remove(_ context.Context, i control.Instance) error { return r.note("remove", i) }

func (r *runner) Kill(i control.Instance) { _ = r.note("kill", i) }

func newPlane(t *testing.T, x *control.Instances) plane {
	t.Helper()
	r := &runner{fails: map[string]error{}}
	p := plane{t, control.NewPlane(control.PlaneConfig{Instances: x, Runner: r, Logger: slog.New(slog.DiscardHandler)}), r}
	ctx, stop := context.WithCancel(context.Background())
	require.NoError(t, p.StartJobs(ctx))
	ended := make(chan error)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
	})
	return p
}

func (p plane) ask(a control.Action, dataVersion string) (control.Operation, error) {
	return p.Do(p.t.Context(), control.Request{Line: line, DataVersion: dataVersion, Action: a, By: hans, Role: control.Operator, Version: "1.0.26"})
}

// do does something, which must succeed.
func (p plane) do(a control.Action, dataVersion string) control.Operation {
	p.t.Helper()
	op, err := p.ask(a, dataVersion)
	require.NoError(p.t, err)
	op, err = p.Wait(p.t.Context(), op.ID)
	require.NoError(p.t, err)
	require.Equal(p.t, control.Succeeded, op.State, op.Error)
	return op
}

func TestLife(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	x := openInstances(t, path)
	p := newPlane(t, x)
	seed := &plan.SeedRange{Envs: []plan.Env{{Account: "deepthought", Name: "deepthought3"}}, From: time.Date(2014, 5, 31, 20, 0, 0, 0, time.UTC), EntitiesFirst: true}
	const v = "20180827174235"
	request := control.Request{Line: line, DataVersion: v, Action: control.Start, By: hans, Role: control.Operator, Version: "1.0.26", Seed: seed, Key: "k1"}
	started, err := p.Do(t.Context(), request)
	require.NoError(t, err)
	_, err = p.Wait(t.Context(), started.ID)
	require.NoError(t, err)
	request.DataVersion = "20180827174236" // the time is another one, when it is asked for again
	again, err := p.Do(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, started.ID, again.ID, "a key means one operation")
	request.Action = control.Suspend
	_, err = p.Do(t.Context(), request)
	require.ErrorContains(t, err, `the key "k1" was used for another request`)

	is := func(state control.State) control.Instance {
		t.Helper()
		i, err := openInstances(t, path).Instance(t.Context(), line, v)
		require.NoError(t, err)
		require.Equal(t, state, i.State)
		return i
	}
	require.Equal(t, seed, is(control.Running).Seed)
	_, err = p.ask(control.Start, v)
	require.ErrorIs(t, err, control.ErrInstanceExists)
	_, err = p.ask(control.Suspend, "20200101000000")
	require.ErrorIs(t, err, control.ErrUnknownInstance)
	_, err = p.ask(control.Resume, v)
	require.ErrorContains(t, err, "resume 20180827174235 of ingest-etl-edgenuity-lms-job of system:system: refused: it is RUNNING; what can be done is suspend, upgrade, savepoint, promote, rollback, cancel, delete")

	suspended := p.do(control.Suspend, v)
	require.Equal(t, suspended.Savepoint, is(control.Suspended).Savepoint)
	require.Equal(t, suspended.Savepoint, p.do(control.Resume, v).Savepoint)
	is(control.Running)
	p.do(control.Cancel, v)
	is(control.Canceled)
	p.do(control.Recover, v)
	is(control.Running)
	p.Failed(is(control.Running), errors.New("disk"))
	require.Equal(t, "disk", is(control.Failed).Error)
	p.do(control.Recover, v)
	require.Empty(t, is(control.Running).Error)
	who, err := x.StartedBy(t.Context(), is(control.Running))
	require.NoError(t, err)
	require.Equal(t, hans.Who, who)
	p.do(control.Delete, v)
	_, err = x.Instance(t.Context(), line, v)
	require.ErrorIs(t, err, control.ErrUnknownInstance)

	history, err := x.History(t.Context(), line, 0, 100)
	require.NoError(t, err)
	var actions []string
	for _, op := range history {
		require.Equal(t, hans, op.By)
		actions = append(actions, string(op.Action))
	}
	require.Equal(t, []string{"delete", "recover", "recover", "cancel", "resume", "suspend", "start"}, actions, "what was refused is not history")
	page, err := x.History(t.Context(), line, history[1].ID, 2)
	require.NoError(t, err)
	require.Equal(t, history[2:4], page)

	jobs, err := x.Jobs(t.Context(), line, v, 10)
	require.NoError(t, err)
	var ends []string
	for _, j := range jobs {
		require.False(t, j.Ended.IsZero())
		ends = append(ends, j.Origin+": "+j.Cause)
	}
	require.Equal(t, []string{
		"its last commit: delete by hans.parra", "its last commit: disk", suspended.Savepoint + ": cancel by hans.parra", "the beginning: suspend by hans.parra",
	}, ends)
}

// A step that fails is undone as far as there is something to undo.
func TestFailures(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	const upgrade = "1.0.34"
	for _, c := range []struct {
		action control.Action
		before control.Action // done first
		fails  []string
		state  control.State
		asked  []string
		says   string
	}{
		{control.Start, "", []string{"run 1.0.26"}, control.Failed, []string{"run 1.0.26 a", "stop a"}, "run job: broken"},
		{control.Suspend, "", []string{"suspend"}, control.Running, []string{"suspend a", "run 1.0.26 a"}, "suspend job: broken"},
		{control.Resume, control.Suspend, []string{"run 1.0.26"}, control.Failed, []string{"restore a", "run 1.0.26 a", "stop a"}, "run job: broken"},
		{control.TakeSavepoint, "", []string{"savepoint s"}, control.Running, []string{"savepoint s a"}, "savepoint: broken"},
		{control.Upgrade, "", []string{"check 1.0.34"}, control.Running, []string{"check 1.0.34 a"}, "check version: broken"},
		{control.Upgrade, "", []string{"suspend"}, control.Running, []string{"check 1.0.34 a", "suspend a", "run 1.0.26 a"}, "suspend job: broken"},
		{
			control.Upgrade, "",
			[]string{"run 1.0.34"},
			control.Running,
			[]string{"check 1.0.34 a", "suspend a", "run 1.0.34 a", "stop a", "rewind a", "run 1.0.26 a"},
			"run job: broken",
		},
		{
			control.Upgrade, "",
			[]string{"watch"},
			control.Running,
			[]string{"check 1.0.34 a", "suspend a", "run 1.0.34 a", "watch a", "stop a", "rewind a", "run 1.0.26 a"},
			"watch job: broken",
		},
		{
			control.Upgrade, control.Suspend,
			[]string{"watch"},
			control.Suspended,
			[]string{"check 1.0.34 a", "stop a", "run 1.0.34 a", "watch a", "stop a", "rewind a"},
			"watch job: broken",
		},
		{
			control.Upgrade, "",
			[]string{"watch", "rewind"},
			control.Failed,
			[]string{"check 1.0.34 a", "suspend a", "run 1.0.34 a", "watch a", "stop a", "rewind a"},
			"watch job: broken; then go back failed: broken",
		},
		{control.Delete, "", []string{"remove"}, control.Deleting, []string{"stop a", "remove a"}, "remove: broken"},
	} {
		x := openInstances(t, filepath.Join(t.TempDir(), "keys.db"))
		p := newPlane(t, x)
		if c.action != control.Start {
			p.do(control.Start, "a")
		}
		if c.before != "" {
			p.do(c.before, "a")
		}
		p.runner.asked = nil
		for _, s := range c.fails {
			p.runner.fails[s] = broken
		}
		r := control.Request{Line: line, DataVersion: "a", Action: c.action, By: hans, Role: control.Operator, Version: "1.0.26"}
		if c.action == control.Upgrade {
			r.Version = upgrade
		}
		if c.action == control.TakeSavepoint {
			r.Savepoint = "s"
		}
		op, err := p.Do(t.Context(), r)
		require.NoError(t, err)
		op, err = p.Wait(t.Context(), op.ID)
		require.NoError(t, err)
		require.Equal(t, control.Unfinished, op.State)
		require.Equal(t, c.says, op.Error)
		want := c.asked
		if c.state != control.Running { // whatever the steps have left of it
			want = append(want, "kill a")
		}
		require.Equal(t, want, p.runner.asked)
		i, err := x.Instance(t.Context(), line, "a")
		require.NoError(t, err)
		require.Equal(t, c.state, i.State)
		require.Equal(t, "1.0.26", i.Version)
	}
}

func TestUpgrade(t *testing.T) {
	t.Parallel()
	x := openInstances(t, filepath.Join(t.TempDir(), "keys.db"))
	p := newPlane(t, x)
	p.do(control.Start, "a")
	_, err := p.ask(control.Upgrade, "a")
	require.ErrorContains(t, err, "it runs version 1.0.26, which is the one that is deployed")
	op, err := p.Do(t.Context(), control.Request{Line: line, DataVersion: "a", Action: control.Upgrade, By: hans, Role: control.Operator, Version: "1.0.34"})
	require.NoError(t, err)
	op, err = p.Wait(t.Context(), op.ID)
	require.NoError(t, err)
	require.Equal(t, control.Succeeded, op.State, op.Error)
	require.Equal(t, []string{"run 1.0.26 a", "check 1.0.34 a", "suspend a", "run 1.0.34 a", "watch a"}, p.runner.asked)
	i, err := x.Instance(t.Context(), line, "a")
	require.NoError(t, err)
	require.Equal(t, "1.0.34", i.Version)
	require.Equal(t, control.Running, i.State)
}

func TestPromoteAndRollback(t *testing.T) {
	t.Parallel()
	x := openInstances(t, filepath.Join(t.TempDir(), "keys.db"))
	p := newPlane(t, x)
	p.do(control.Start, "a")
	p.runner.serve = make(chan struct{})
	op, err := p.ask(control.Promote, "a")
	require.NoError(t, err)
	_, err = p.ask(control.Delete, "a")
	require.ErrorIs(t, err, control.ErrRefused, "the last one too, while it is made to serve")
	close(p.runner.serve)
	_, err = p.Wait(t.Context(), op.ID)
	require.NoError(t, err)
	p.do(control.Delete, "a") // the last one may go
	for _, v := range []string{"a", "b", "c"} {
		p.do(control.Start, v)
	}
	serves(t, x, "", "")
	_, err = x.Before(t.Context(), line)
	require.ErrorIs(t, err, control.ErrRefused)
	refused := func(a control.Action, v, says string) {
		t.Helper()
		_, err := p.ask(a, v)
		require.ErrorIs(t, err, control.ErrRefused)
		require.ErrorContains(t, err, says)
	}
	refused(control.Rollback, "a", "no data version served before")
	_, err = p.ask(control.Promote, "d")
	require.ErrorIs(t, err, control.ErrUnknownInstance)

	change := func(a control.Action, v, before string) {
		t.Helper()
		p.runner.serve = make(chan struct{})
		op, err := p.ask(a, v)
		require.NoError(t, err)
		serves(t, x, before, v)
		refused(control.Promote, "c", v+" is being made to serve")
		refused(control.Rollback, "c", v+" is being made to serve")
		refused(control.Delete, v, "it serves; promote another data version first")
		if before != "" {
			refused(control.Delete, before, "it serves; promote another data version first")
		}
		p.do(control.Suspend, v) // the index may be away for long
		p.do(control.Resume, v)
		close(p.runner.serve)
		_, err = p.Wait(t.Context(), op.ID)
		require.NoError(t, err)
		serves(t, x, v, v)
	}
	change(control.Promote, "a", "")
	refused(control.Promote, "a", "a serves already")
	change(control.Promote, "b", "a")

	back := func(to, from string) {
		t.Helper()
		v, err := x.Before(t.Context(), line)
		require.NoError(t, err)
		require.Equal(t, to, v)
		change(control.Rollback, to, from)
	}
	back("a", "b")
	change(control.Promote, "b", "a")
	change(control.Promote, "a", "b")
	back("b", "a")
	refused(control.Rollback, "c", "another data version serves meanwhile")
	back("a", "b")
	_, err = x.Before(t.Context(), line)
	require.ErrorContains(t, err, "no data version served before")

	for _, v := range []string{"b", "c"} {
		change(control.Promote, v, map[string]string{"b": "a", "c": "b"}[v])
	}
	p.do(control.Delete, "b")
	before, err := x.Before(t.Context(), line)
	require.NoError(t, err)
	require.Equal(t, "a", before, "a rollback leads past what is deleted")

	n, w, err := x.Serving(t.Context(), other)
	require.NoError(t, err)
	require.Empty(t, n+w, "of another tenant")
}

func TestReadVersions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "keys.db")
	read := func() []control.Version {
		t.Helper()
		all, err := control.ReadVersions(t.Context(), path)
		require.NoError(t, err)
		return all
	}
	require.Empty(t, read())
	require.NoFileExists(t, path)
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.Empty(t, read(), "made before there were instances")

	store := openStore(t, path)
	x := store.Instances
	p := newPlane(t, x)
	p.do(control.Start, "a")
	require.Equal(t, []control.Version{{Line: line, DataVersion: "a"}}, read())
	p.do(control.Promote, "a")
	p.do(control.Start, "b")
	serving := []control.Version{{Line: line, DataVersion: "a", Serving: true}, {Line: line, DataVersion: "b"}}
	require.Equal(t, serving, read(), "while another process has it open")
	require.NoError(t, store.Close())
	require.NoError(t, os.Chmod(path, 0o400))
	require.NoError(t, os.Chmod(dir, 0o500)) //nolint:gosec // a folder, which nobody may write
	require.Equal(t, serving, read(), "of a copy that cannot be written")
	require.NoError(t, os.Chmod(dir, 0o700)) //nolint:gosec // for who removes it
}

func TestDataVersions(t *testing.T) {
	t.Parallel()
	at := time.Date(2018, 8, 27, 19, 42, 35, 0, time.FixedZone("", 2*60*60))
	require.Equal(t, "20180827174235", control.NewDataVersion(at), "in UTC, as the talk has it")
	require.NoError(t, control.CheckDataVersion("20180827174235"))
	require.NoError(t, control.CheckDataVersion("unversioned"))
	for _, bad := range []string{"", "v20180827174235", "2018082717423", "2018-08-27T17:42", "../../etc/passwd"} {
		require.ErrorContains(t, control.CheckDataVersion(bad), "20180827174235, or unversioned")
	}
}

// What a job gets of the machine is kept with its instance, and changes when the job is started: not by what does not start it.
func TestResources(t *testing.T) {
	t.Parallel()
	x := openInstances(t, filepath.Join(t.TempDir(), "keys.db"))
	p := newPlane(t, x)
	gets := func(r control.Request) control.Resources {
		t.Helper()
		r.Line, r.DataVersion, r.By, r.Role = line, "20180827174235", hans, control.Operator
		op, err := p.Do(t.Context(), r)
		require.NoError(t, err)
		_, err = p.Wait(t.Context(), op.ID)
		require.NoError(t, err)
		in, err := x.Instance(t.Context(), line, r.DataVersion)
		require.NoError(t, err)
		return in.Resources
	}
	require.Equal(t, control.Resources{Parallelism: 2}, gets(control.Request{Action: control.Start, Version: "1.0.0", Resources: control.Resources{Parallelism: 2}}))
	_, err := p.Do(t.Context(), control.Request{
		Line: line, DataVersion: "20180827174235", Action: control.Suspend, By: hans, Role: control.Operator, Resources: control.Resources{Memory: 500},
	})
	require.ErrorIs(t, err, control.ErrRefused)
	require.ErrorContains(t, err, "suspend does not start the job")
	require.Equal(t, control.Resources{Parallelism: 2}, gets(control.Request{Action: control.Suspend}))
	require.Equal(t, control.Resources{Parallelism: 2, Memory: 500}, gets(control.Request{Action: control.Resume, Resources: control.Resources{Memory: 500}}))
}

// An instance that the system starts begins at the beginning the first time, and with its last commit from then on.
func TestOriginOfWhatTheSystemStarts(t *testing.T) {
	t.Parallel()
	x := openInstances(t, filepath.Join(t.TempDir(), "keys.db"))
	require.NoError(t, x.Ensure(t.Context(), line, "unversioned", control.System))
	for range 2 {
		p := control.NewPlane(control.PlaneConfig{Instances: x, Runner: &runner{}, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, p.StartJobs(t.Context()))
	}
	jobs, err := x.Jobs(t.Context(), line, "unversioned", 10)
	require.NoError(t, err)
	require.Len(t, jobs, 2)
	require.Equal(t, []string{"its last commit", "the beginning"}, []string{jobs[0].Origin, jobs[1].Origin})
}
