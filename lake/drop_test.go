package lake_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/lake"
	"millrace/lake/laketest"
)

// A namespace goes with all its files, and no other one loses any.
func TestDrop(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLake(t, lake.Config{Dir: dir})
	for _, namespace := range []string{"v1", "v10", "v2"} {
		tbl, err := l.Table(t.Context(), namespace, quizzes)
		require.NoError(t, err)
		publish(t, tbl, 1, 1, quiz("a", 1, 1, 0))
	}
	others := func() (files []string) {
		for _, name := range laketest.Files(t, dir) {
			if !strings.Contains(name, "v1/") {
				files = append(files, name)
			}
		}
		return files
	}
	before := others()
	require.NotEqual(t, len(before), len(laketest.Files(t, dir)))
	for range 2 { // again does nothing
		require.NoError(t, l.Drop(t.Context(), "v1"))
		require.Equal(t, before, laketest.Files(t, dir))
		names, err := l.Tables(t.Context())
		require.NoError(t, err)
		require.Equal(t, []lake.Name{{Namespace: "v10", Table: "quiz"}, {Namespace: "v2", Table: "quiz"}}, names)
	}
	tbl, err := l.Table(t.Context(), "v1", quizzes)
	require.NoError(t, err, "the name is free")
	publish(t, tbl, 1, 1, quiz("a", 1, 1, 0))
	require.ErrorContains(t, l.Drop(t.Context(), "../v2"), "cannot name a namespace")
}

// What a crash leaves, the next call removes.
func TestDropIsInterrupted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLake(t, lake.Config{Dir: dir})
	tbl, err := l.Table(t.Context(), "v1", quizzes)
	require.NoError(t, err)
	publish(t, tbl, 1, 1, quiz("a", 1, 1, 0))
	publish(t, tbl, 2, 2, quiz("b", 1, 2, 0))
	crash := errors.New("crash")
	for n := 1; ; n++ { // each time one step more than the time before
		left := 1
		l, err := lake.OpenWithFaults(t.Context(), laketest.In(dir), func(string, string) error {
			if left--; left < 0 {
				return crash
			}
			return nil
		})
		require.NoError(t, err)
		err = l.Drop(t.Context(), "v1")
		require.NoError(t, l.Close())
		if err == nil {
			require.Positive(t, n, "nothing was interrupted")
			break
		}
		require.ErrorIs(t, err, crash)
	}
	for _, name := range laketest.Files(t, dir) {
		require.NotContains(t, name, "v1/")
	}
}
