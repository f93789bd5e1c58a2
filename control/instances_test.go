package control_test

import (
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

func TestInstances(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	x := openInstances(t, path)
	seeded := control.Instance{Line: line, DataVersion: "20180827174235", Seed: &plan.SeedRange{
		Envs: []plan.Env{{Account: "deepthought", Name: "deepthought3"}}, From: time.Date(2014, 5, 31, 20, 0, 0, 0, time.UTC), EntitiesFirst: true,
	}}
	before := time.Now().Truncate(time.Microsecond)
	require.NoError(t, x.Create(t.Context(), control.Instance{Line: line, DataVersion: "unversioned"}, control.By{Who: "system"}))
	require.NoError(t, x.Create(t.Context(), seeded, hans))
	require.ErrorIs(t, x.Create(t.Context(), seeded, hans), control.ErrInstanceExists)
	require.NoError(t, x.Create(t.Context(), control.Instance{Line: other, DataVersion: seeded.DataVersion}, hans), "of another tenant")
	require.NoError(t, x.Suspend(t.Context(), line, seeded.DataVersion, true, hans))
	require.ErrorIs(t, x.Suspend(t.Context(), line, "20200101000000", true, hans), control.ErrUnknownInstance)

	all, err := openInstances(t, path).List(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 3)
	require.False(t, all[1].Created.Before(before))
	seeded.Created, seeded.Suspended = all[1].Created, true
	require.Equal(t, seeded, all[1])

	history, err := x.History(t.Context(), line)
	require.NoError(t, err)
	var actions []string
	for _, c := range history {
		actions = append(actions, c.Action+" "+c.DataVersion+" by "+c.Who)
	}
	require.Equal(t, []string{"suspend 20180827174235 by hans.parra", "start 20180827174235 by hans.parra", "start unversioned by system"}, actions,
		"what was refused is not history")
	require.Equal(t, hans.Reason, history[0].Reason)
}

func TestPromoteAndRollback(t *testing.T) {
	t.Parallel()
	x := openInstances(t, filepath.Join(t.TempDir(), "keys.db"))
	for _, v := range []string{"a", "b", "c"} {
		require.NoError(t, x.Create(t.Context(), control.Instance{Line: line, DataVersion: v}, hans))
	}
	serves(t, x, "", "")
	_, err := x.Before(t.Context(), line)
	require.ErrorIs(t, err, control.ErrRefused)
	require.ErrorIs(t, x.Rollback(t.Context(), line, "a", hans), control.ErrRefused)
	require.ErrorIs(t, x.Promote(t.Context(), line, "d", hans), control.ErrUnknownInstance)

	promote := func(v, before string) {
		t.Helper()
		require.NoError(t, x.Promote(t.Context(), line, v, hans))
		serves(t, x, before, v)
		err := x.Promote(t.Context(), line, "c", hans)
		require.ErrorIs(t, err, control.ErrRefused)
		require.ErrorContains(t, err, v+" is being made to serve")
		require.ErrorIs(t, x.Rollback(t.Context(), line, before, hans), control.ErrRefused, "one at a time")
		require.NoError(t, x.Served(t.Context(), line, "c"), "that of another change: nothing")
		serves(t, x, before, v)
		require.NoError(t, x.Served(t.Context(), line, v))
		require.NoError(t, x.Served(t.Context(), line, v), "again")
		serves(t, x, v, v)
	}
	promote("a", "")
	require.ErrorContains(t, x.Promote(t.Context(), line, "a", hans), "a serves already")
	promote("b", "a")

	rollback := func(to, before string) {
		t.Helper()
		v, err := x.Before(t.Context(), line)
		require.NoError(t, err)
		require.Equal(t, to, v)
		require.NoError(t, x.Rollback(t.Context(), line, v, hans))
		serves(t, x, before, to)
		require.NoError(t, x.Served(t.Context(), line, to))
		serves(t, x, to, to)
	}
	rollback("a", "b")
	promote("b", "a")
	promote("a", "b")
	rollback("b", "a")
	rollback("a", "b")
	_, err = x.Before(t.Context(), line)
	require.ErrorContains(t, err, "no data version served before")

	n, w, err := x.Serving(t.Context(), other)
	require.NoError(t, err)
	require.Empty(t, n+w, "of another tenant")
}

func TestDelete(t *testing.T) {
	t.Parallel()
	x := openInstances(t, filepath.Join(t.TempDir(), "keys.db"))
	for _, v := range []string{"a", "b", "c"} {
		require.NoError(t, x.Create(t.Context(), control.Instance{Line: line, DataVersion: v}, hans))
		require.NoError(t, x.Promote(t.Context(), line, v, hans))
		err := x.Delete(t.Context(), line, v, hans)
		require.ErrorIs(t, err, control.ErrRefused, "it is wanted to serve")
		require.NoError(t, x.Served(t.Context(), line, v))
		err = x.Delete(t.Context(), line, v, hans)
		require.ErrorContains(t, err, v+" serves; promote another data version first")
	}
	require.ErrorIs(t, x.Delete(t.Context(), line, "d", hans), control.ErrUnknownInstance)
	require.NoError(t, x.Delete(t.Context(), line, "b", hans))
	require.NoError(t, x.Deleted(t.Context(), line, "a"), "it is not being deleted")
	all, err := x.List(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 3, "it is there until nothing is left of it")
	require.True(t, all[1].Deleting)
	before, err := x.Before(t.Context(), line)
	require.NoError(t, err)
	require.Equal(t, "a", before, "a rollback leads past it")
	require.NoError(t, x.Deleted(t.Context(), line, "b"))
	all, err = x.List(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.NoError(t, x.Create(t.Context(), control.Instance{Line: line, DataVersion: "b"}, hans))
}

func TestReadServing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "keys.db")
	read := func() string {
		t.Helper()
		v, err := control.ReadServing(t.Context(), path, line)
		require.NoError(t, err)
		return v
	}
	require.Empty(t, read())
	require.NoFileExists(t, path)
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.Empty(t, read(), "made before there were instances")

	store := openStore(t, path)
	x := store.Instances
	require.NoError(t, x.Create(t.Context(), control.Instance{Line: line, DataVersion: "a"}, hans))
	require.NoError(t, x.Promote(t.Context(), line, "a", hans))
	require.Empty(t, read())
	require.NoError(t, x.Served(t.Context(), line, "a"))
	require.Equal(t, "a", read(), "while another process has it open")
	require.NoError(t, store.Close())
	require.NoError(t, os.Chmod(path, 0o400))
	require.NoError(t, os.Chmod(dir, 0o500)) //nolint:gosec // a folder, which nobody may write
	require.Equal(t, "a", read(), "of a copy that cannot be written")
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
