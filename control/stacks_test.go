package control_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/control"
)

func TestStackHasAName(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	s := openStore(t, path)
	name := func(name, want string, wantNamed bool) control.Stack {
		t.Helper()
		got, named, err := s.Stack(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, want, got.Name)
		require.Equal(t, wantNamed, named)
		return got
	}
	first := name("", control.DefaultStack, false)
	require.NotEmpty(t, first.ID)
	name("master-test1", "master-test1", true)
	name("master-test1", "master-test1", false)
	name("", "master-test1", false)
	for _, bad := range []string{"a b", "-a", "a/b", "ä"} {
		_, _, err := s.Stack(t.Context(), bad)
		require.ErrorContains(t, err, "cannot name a stack")
	}
	_, err := s.Deploys.Push(t.Context(), control.Artifact{App: "app", Version: "1.0.0"})
	require.NoError(t, err)
	deploy, err := s.Deploys.Deploy(t.Context(), control.Choice{App: "app", Version: "1.0.0"})
	require.NoError(t, err)
	require.Equal(t, "master-test1", deploy.Stack)

	require.NoError(t, s.Close())
	s = openStore(t, path)
	last := name("master-prod1", "master-prod1", true)
	require.Equal(t, first.ID, last.ID)
	require.Equal(t, first.Created, last.Created)
	all, err := s.Deploys.List(t.Context(), "app")
	require.NoError(t, err)
	require.Equal(t, "master-test1", all[0].Stack, "what it was called then")
}
