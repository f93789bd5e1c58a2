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
