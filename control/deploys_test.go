package control_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/control"
)

// A version is deployed, followed by others, and taken back one by one; it stands for one executable.
func TestDeploys(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	d := openStore(t, path).Deploys
	const app, shipped = "ingest-etl-edgenuity-lms-job", "1.0.0"
	deploy := func(version string) error {
		_, err := d.Deploy(t.Context(), control.Choice{App: app, Version: version, By: hans, Shipped: shipped})
		return err
	}
	rollback := func() error {
		_, err := d.Rollback(t.Context(), control.Choice{App: app, By: hans, Shipped: shipped})
		return err
	}
	is := func(want string) {
		t.Helper()
		now, err := openStore(t, path).Deploys.Deployed(t.Context(), app, shipped)
		require.NoError(t, err)
		require.Equal(t, want, now)
	}
	is(shipped)
	require.ErrorIs(t, rollback(), control.ErrRefused)
	require.ErrorIs(t, deploy("1.1.0"), control.ErrUnknownArtifact)
	for _, version := range []string{"1.1.0", "1.2.0"} {
		pushed, err := d.Push(t.Context(), control.Artifact{App: app, Version: version, SHA256: "aa", PushedBy: "hans.parra"})
		require.NoError(t, err)
		again, err := d.Push(t.Context(), control.Artifact{App: app, Version: version, SHA256: "aa", PushedBy: "somebody"})
		require.NoError(t, err)
		require.Equal(t, pushed, again)
		_, err = d.Push(t.Context(), control.Artifact{App: app, Version: version, SHA256: "bb"})
		require.ErrorIs(t, err, control.ErrRefused)
		require.ErrorContains(t, err, "was pushed by hans.parra already, with another executable")
		require.NoError(t, deploy(version))
		is(version)
	}
	require.ErrorContains(t, deploy("1.2.0"), "it is deployed already")
	require.NoError(t, rollback())
	is("1.1.0")
	require.NoError(t, rollback())
	is(shipped)
	require.ErrorContains(t, rollback(), "nothing was deployed before")
	require.NoError(t, deploy("1.2.0"))
	require.NoError(t, deploy(shipped), "it is a version like others")
	require.NoError(t, rollback())
	is("1.2.0")
	all, err := d.List(t.Context(), app)
	require.NoError(t, err)
	require.Len(t, all, 7)
	require.True(t, all[0].Rollback)
	require.Equal(t, shipped, all[0].Before)
	require.Equal(t, "score in percent", all[0].Reason)
	other, err := d.Deployed(t.Context(), "another", "3.0.0")
	require.NoError(t, err)
	require.Equal(t, "3.0.0", other)
}

// A version that was pushed is deleted when nothing needs it, and stands for its executable all the same.
func TestDeleteArtifact(t *testing.T) {
	t.Parallel()
	store := openStore(t, filepath.Join(t.TempDir(), "keys.db"))
	d, p := store.Deploys, newPlane(t, store.Instances)
	app := line.Program
	push := func(version, sum string) error {
		_, err := d.Push(t.Context(), control.Artifact{App: app, Version: version, SHA256: sum, PushedBy: "ann"})
		return err
	}
	remove := func(version string, needs func() error) error {
		_, err := d.Delete(t.Context(), control.Deletion{App: app, Version: version, Who: "hans.parra", Shipped: "1.0.0", Needs: needs})
		return err
	}
	refused := func(version, why string) {
		t.Helper()
		err := remove(version, nil)
		require.ErrorIs(t, err, control.ErrRefused)
		require.ErrorContains(t, err, why)
	}
	deploy := func(version string) {
		t.Helper()
		_, err := d.Deploy(t.Context(), control.Choice{App: app, Version: version, By: hans, Shipped: "1.0.0"})
		require.NoError(t, err)
	}
	require.ErrorIs(t, remove("1.0.26", nil), control.ErrUnknownArtifact)
	for _, version := range []string{"1.0.0", "1.0.26", "1.0.34"} {
		require.NoError(t, push(version, "aa"))
	}
	refused("1.0.0", "it is deployed; deploy another one first")
	deploy("1.0.26")
	refused("1.0.26", "it is deployed")
	p.do(control.Start, "20180827174235")
	deploy("1.0.34")
	refused("1.0.26", "data version 20180827174235 is of it; upgrade or delete that first")

	// An upgrade that is at work leads to one version, and may return to the other.
	watching := make(chan struct{})
	p.runner.watch = watching
	op, err := p.Do(t.Context(), control.Request{Line: line, DataVersion: "20180827174235", Action: control.Upgrade, By: hans, Role: control.Operator, Version: "1.0.34"})
	require.NoError(t, err)
	deploy("1.0.0")
	refused("1.0.26", "1.0.26")
	refused("1.0.34", "1.0.34")
	close(watching)
	_, err = p.Wait(t.Context(), op.ID)
	require.NoError(t, err)
	refused("1.0.34", "is of it")

	kept := errors.New("a savepoint is of it")
	require.ErrorIs(t, remove("1.0.26", func() error { return kept }), kept)
	require.NoError(t, remove("1.0.26", nil))
	err = remove("1.0.26", nil)
	require.ErrorIs(t, err, control.ErrUnknownArtifact)
	require.ErrorContains(t, err, "was deleted by hans.parra at ")
	left, err := d.Artifacts(t.Context())
	require.NoError(t, err)
	require.Len(t, left, 2)
	_, err = d.Deploy(t.Context(), control.Choice{App: app, Version: "1.0.26", By: hans, Shipped: "1.0.0"})
	require.ErrorIs(t, err, control.ErrUnknownArtifact)
	for _, want := range []error{nil, control.ErrUnknownArtifact} { // back to 1.0.34, and then to what is gone
		_, err = d.Rollback(t.Context(), control.Choice{App: app, By: hans, Shipped: "1.0.0"})
		require.ErrorIs(t, err, want)
	}
	require.ErrorIs(t, push("1.0.26", "bb"), control.ErrRefused)
	require.NoError(t, push("1.0.26", "aa"))
	deploy("1.0.26")
}

// A blocker keeps versions of its app from being deployed, until it ends, is lifted, or somebody who may goes past it.
func TestBlockers(t *testing.T) {
	t.Parallel()
	d := openStore(t, filepath.Join(t.TempDir(), "keys.db")).Deploys
	deploy := func(app, version string, past bool) (control.Deploy, error) {
		return d.Deploy(t.Context(), control.Choice{App: app, Version: version, By: hans, Shipped: version, Past: past})
	}
	exam, err := d.Block(t.Context(), control.Blocker{App: "a", Reason: "exam week", Who: "ann", Until: time.Now().Add(time.Hour)})
	require.NoError(t, err)
	_, err = d.Block(t.Context(), control.Blocker{Reason: "too late", Who: "ann", Until: time.Now().Add(-time.Hour)})
	require.ErrorIs(t, err, control.ErrRefused)
	refused := func(app string) error {
		t.Helper()
		_, err := d.Rollback(t.Context(), control.Choice{App: app, By: hans, Shipped: "1"})
		require.ErrorIs(t, err, control.ErrRefused)
		return err
	}
	for i, app := range []string{"a", "b"} {
		_, err := d.Push(t.Context(), control.Artifact{App: app, Version: "2", SHA256: "aa"})
		require.NoError(t, err)
		_, err = d.Deploy(t.Context(), control.Choice{App: app, Version: "2", By: hans, Shipped: "1"})
		if i == 0 {
			require.ErrorContains(t, err, "blocker 1 of ann is against it: exam week; it ends at ")
			past, err := d.Deploy(t.Context(), control.Choice{App: app, Version: "2", By: hans, Shipped: "1", Past: true})
			require.NoError(t, err)
			require.Equal(t, []int64{exam.ID}, past.Past)
		} else {
			require.NoError(t, err, "it is not for this one")
		}
	}
	require.ErrorContains(t, refused("a"), "exam week", "back is a change too")
	_, err = d.Lift(t.Context(), 99, "ann")
	require.ErrorIs(t, err, control.ErrUnknownBlocker)
	lifted, err := d.Lift(t.Context(), exam.ID, "ann")
	require.NoError(t, err)
	again, err := d.Lift(t.Context(), exam.ID, "hans.parra")
	require.NoError(t, err)
	require.Equal(t, lifted, again)
	_, err = d.Rollback(t.Context(), control.Choice{App: "a", By: hans, Shipped: "1"})
	require.NoError(t, err)
	everything, err := d.Block(t.Context(), control.Blocker{Reason: "the auditor is here", Who: "ann"})
	require.NoError(t, err)
	_, err = deploy("c", "1", false)
	require.ErrorIs(t, err, control.ErrRefused)
	require.ErrorContains(t, refused("b"), "it ends when it is lifted")
	all, err := d.Blockers(t.Context())
	require.NoError(t, err)
	require.Equal(t, []int64{everything.ID, exam.ID}, []int64{all[0].ID, all[1].ID})
}
