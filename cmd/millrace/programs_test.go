package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/control"
	"millrace/control/api"
)

// Files that no record names are of pushes and deletions that were killed: the next start removes them. An app of which nothing is left is none.
func TestDeletedArtifacts(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data")
	s, stop := runStack(t, path)
	forum := forumApp("1.0.0", forumTable)
	s.push(t, forum)
	next := forumApp("1.1.0", forumTable)
	s.push(t, next)
	deployed := func(version string) {
		t.Helper()
		_, err := s.Deploy(t.Context(), forum.Name, api.DeployAsk{Who: "test", Version: version})
		require.NoError(t, err)
	}
	deployed("1.0.0")
	op, err := s.act(t.Context(), control.Start, forum.Name, "", test)
	require.NoError(t, err)
	deployed("1.1.0")
	_, err = s.DeleteArtifact(t.Context(), forum.Name, "1.0.0", "test")
	require.ErrorIs(t, err, control.ErrRefused)
	require.ErrorContains(t, err, "data version "+op.DataVersion+" is of it")
	_, err = s.act(t.Context(), control.Delete, forum.Name, op.DataVersion, test)
	require.NoError(t, err)
	_, err = s.DeleteArtifact(t.Context(), forum.Name, "1.0.0", "test")
	require.NoError(t, err)
	require.NoDirExists(t, s.cfg.dir.join(artifactsDir, forum.Name, "1.0.0"))
	require.DirExists(t, s.cfg.dir.join(artifactsDir, forum.Name, "1.1.0"))

	other := forumApp("1.0.0", "other")
	other.Name = "other-job"
	s.push(t, other)
	_, err = s.DeleteArtifact(t.Context(), other.Name, "1.0.0", "test")
	require.NoError(t, err)
	_, err = s.app(other.Name)
	require.ErrorIs(t, err, api.ErrNotFound)
	require.NoDirExists(t, s.cfg.dir.join(artifactsDir, other.Name))
	stop()

	left := []string{"artifacts/" + forum.Name + "/1.0.0", "artifacts/" + other.Name + "/2.0.0", "artifacts/" + pushedPrefix + "1"}
	for _, dir := range left {
		require.NoError(t, os.MkdirAll(filepath.Join(path, dir), 0o700))
	}
	s, stop = runStack(t, path)
	for _, dir := range left {
		require.NoDirExists(t, filepath.Join(path, dir))
	}
	require.DirExists(t, s.cfg.dir.join(artifactsDir, forum.Name, "1.1.0"), "it is deployed")
	stop()
}
