package control_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/control"
)

// atOnce has several processes do something at once, and returns their errors.
func atOnce(t *testing.T, path string, n int, do func(store *control.Store, i int) error) []error {
	t.Helper()
	stores := make([]*control.Store, n)
	for i := range stores {
		stores[i] = openStore(t, path)
	}
	errs, begin := make([]error, n), make(chan struct{})
	var all sync.WaitGroup
	for i, store := range stores {
		all.Go(func() {
			<-begin
			errs[i] = do(store, i)
		})
	}
	close(begin)
	all.Wait()
	return errs
}

// oneWins requires that one succeeded, and that the others were told that they had read what is no more.
func oneWins(t *testing.T, errs []error) (present []any) {
	t.Helper()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		var stale *control.StaleError
		require.ErrorAs(t, err, &stale)
		present = append(present, stale.Present)
	}
	require.Equal(t, 1, won, "%v", errors.Join(errs...))
	return present
}

// Of those who change an instance by what they have read of it one does, however many there are.
func TestRevisionsOfInstances(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	x := openInstances(t, path)
	require.NoError(t, x.Ensure(t.Context(), line, "unversioned", "system"))
	read, err := x.Instance(t.Context(), line, "unversioned")
	require.NoError(t, err)
	require.EqualValues(t, 1, read.Revision)
	request := control.Request{Line: line, DataVersion: "unversioned", Action: control.Suspend, By: hans, Role: control.Admin, Revisions: []int64{read.Revision}}
	present := oneWins(t, atOnce(t, path, 8, func(store *control.Store, _ int) error {
		_, err := store.Instances.Begin(t.Context(), request)
		return err
	}))
	now, err := x.Instance(t.Context(), line, "unversioned")
	require.NoError(t, err)
	require.Equal(t, control.Suspending, now.State)
	require.EqualValues(t, 2, now.Revision)
	for _, p := range present {
		require.Equal(t, now, p)
	}

	request.Action, request.Revisions = control.Force, []int64{}
	_, err = x.Begin(t.Context(), request)
	require.ErrorContains(t, err, "ingest-etl-edgenuity-lms-job-system-system--unversioned has changed since it was read; read it again", "none of no revisions is there")
	request.Revisions = []int64{1, 2}
	_, err = x.Begin(t.Context(), request)
	require.NoError(t, err)
}

// A request that is asked again with its key is the one that was done, though that has made another revision.
func TestRevisionsAndKeys(t *testing.T) {
	t.Parallel()
	x := openInstances(t, filepath.Join(t.TempDir(), "keys.db"))
	require.NoError(t, x.Ensure(t.Context(), line, "unversioned", "system"))
	request := control.Request{Line: line, DataVersion: "unversioned", Action: control.Suspend, By: hans, Role: control.Admin, Revisions: []int64{1}, Key: "k"}
	first, err := x.Begin(t.Context(), request)
	require.NoError(t, err)
	again, err := x.Begin(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, first.ID, again.ID)
}

func TestRevisionsOfDeploys(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	d := openStore(t, path).Deploys
	const app, shipped, n = "ingest-etl-edgenuity-lms-job", "1.0.0", 8
	for i := range n {
		_, err := d.Push(t.Context(), control.Artifact{App: app, Version: fmt.Sprintf("2.%d", i), SHA256: "aa"})
		require.NoError(t, err)
	}
	for read, decide := range []func(*control.Deploys, context.Context, control.Choice) (control.Deploy, error){(*control.Deploys).Deploy, (*control.Deploys).Rollback} {
		present := oneWins(t, atOnce(t, path, n, func(store *control.Store, i int) error {
			c := control.Choice{App: app, By: hans, Shipped: shipped, Revisions: []int64{int64(read)}}
			if read == 0 {
				c.Version = fmt.Sprintf("2.%d", i)
			}
			_, err := decide(store.Deploys, t.Context(), c)
			return err
		}))
		all, err := d.List(t.Context(), app)
		require.NoError(t, err)
		require.Len(t, all, read+1)
		for _, p := range present {
			require.Equal(t, all[0], p)
		}
	}
}

// Of those who promote, or roll back, by what they have read of what serves one does, and the others are told what serves. A revision never comes back.
func TestRevisionsOfWhatServes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	x := openInstances(t, path)
	ctx := t.Context()
	had := map[int64]bool{}
	read := func() control.Serving {
		t.Helper()
		s, err := x.WhatServes(ctx, line)
		require.NoError(t, err)
		require.False(t, had[s.Revision], "%+v", s)
		had[s.Revision] = true
		return s
	}
	require.Zero(t, read().Revision)
	versions := []string{"unversioned", "20180827174235", "20180827174236"}
	for _, v := range versions {
		require.NoError(t, x.Ensure(ctx, line, v, "system"))
	}
	// decide has all ask for something at once, and carries out what the one begins that is not refused.
	decide := func(action control.Action, to func(i int) string) {
		t.Helper()
		before := read()
		present := oneWins(t, atOnce(t, path, 4, func(store *control.Store, i int) error {
			_, err := store.Instances.Begin(ctx, control.Request{Line: line, DataVersion: to(i), Action: action, By: hans, Role: control.Admin, Revisions: []int64{before.Revision}})
			return err
		}))
		now := read()
		require.Equal(t, before.Now, now.Now, "readers see the old one yet")
		for _, p := range present {
			require.Equal(t, now, p)
		}
		require.NoError(t, x.Served(ctx, line, now.Wanted))
	}
	decide(control.Promote, func(i int) string { return versions[1+i%2] })
	promoted := read()
	require.NotEqual(t, "unversioned", promoted.Now)
	require.Equal(t, "unversioned", promoted.Before)
	_, err := x.Begin(ctx, control.Request{Line: line, DataVersion: "unversioned", Action: control.Rollback, By: hans, Role: control.Admin, Revisions: []int64{}})
	require.EqualError(t, err, "rollback unversioned of "+line.String()+": which data version of "+line.Program+" serves, "+promoted.Now+" by now, has changed since it was read; read it again, and ask again if it is still what is wanted")
	had[promoted.Revision] = false // it is the one that is read below
	decide(control.Rollback, func(int) string { return "unversioned" })
	back := read()
	require.Equal(t, "unversioned", back.Now)
	require.Empty(t, back.Before)
	other := versions[1]
	_, err = x.Begin(ctx, control.Request{Line: line, DataVersion: other, Action: control.Promote, By: hans, Role: control.Admin, Revisions: []int64{back.Revision}})
	require.NoError(t, err)
}

// Of those who change a user by what they have read of them one does. Who is added again under the same name is somebody else.
func TestRevisionsOfUsers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	u := openStore(t, path).Users
	ctx := t.Context()
	const password = "correct horse battery"
	require.NoError(t, u.Add(ctx, control.User{Name: "ann", Role: control.Viewer}, password))
	first, err := u.User(ctx, "ann")
	require.NoError(t, err)
	present := oneWins(t, atOnce(t, path, 4, func(store *control.Store, i int) error {
		return store.Users.SetRole(ctx, "ann", control.Analyst+control.Role(i%2), []int64{first.Revision})
	}))
	changed, err := u.User(ctx, "ann")
	require.NoError(t, err)
	for _, p := range present {
		require.Equal(t, changed, p)
	}
	stale := []int64{first.Revision}
	for _, change := range []func(revisions []int64) error{
		func(r []int64) error { return u.Disable(ctx, "ann", r) },
		func(r []int64) error { return u.Enable(ctx, "ann", r) },
		func(r []int64) error { return u.SetPassword(ctx, "ann", password, r) },
		func(r []int64) error { return u.Delete(ctx, "ann", r) },
	} {
		var err *control.StaleError
		require.ErrorAs(t, change(stale), &err)
		is, userErr := u.User(ctx, "ann")
		require.NoError(t, userErr)
		require.NoError(t, change([]int64{is.Revision}))
	}
	_, err = u.User(ctx, "ann")
	require.ErrorIs(t, err, control.ErrUnknownUser)
	require.NoError(t, u.Add(ctx, control.User{Name: "ann", Role: control.Viewer}, password))
	for revision := first.Revision; revision <= changed.Revision+4; revision++ {
		require.Error(t, u.Delete(ctx, "ann", []int64{revision}))
	}
}
