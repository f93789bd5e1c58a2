package control_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/control"
)

// A run that did not end is a restart at the next beginning, also when the process that began it is gone.
func TestRuns(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	var store *control.Store
	open := func() *control.Runs {
		store = openStore(t, path)
		return store.Runs
	}
	begin := func(r *control.Runs, id string, want int64) {
		t.Helper()
		n, err := r.Begin(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	r := open()
	begin(r, "a", 0)
	begin(r, "b", 0)
	require.NoError(t, r.End(t.Context(), "a"))
	require.NoError(t, store.Close())

	r = open()
	begin(r, "a", 0)
	begin(r, "b", 1)
	require.NoError(t, store.Close())

	r = open()
	begin(r, "a", 1)
	begin(r, "b", 2)
	require.NoError(t, r.End(t.Context(), "b"))
	require.NoError(t, r.End(t.Context(), "c"), "one that never ran")
	all, err := r.Restarts(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"a": 1, "b": 2}, all)
	require.NoError(t, r.Forget(t.Context(), "b"))
	begin(r, "b", 0)
	require.NoError(t, store.Close())
}
