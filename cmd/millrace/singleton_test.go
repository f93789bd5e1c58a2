package main

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace"
	"millrace/control"
	"millrace/control/api"
)

// A singleton that is pushed has one instance, which its first deploy starts, and whose rows readers see, in places of its own.
func TestSingletons(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data")
	s, stop := runStack(t, path)
	forum := forumApp("1.0.0", forumTable)
	s.pushAs(t, forum, false)
	deploy := func(version string) control.Deploy {
		t.Helper()
		d, err := s.Deploy(t.Context(), forum.Name, api.DeployAsk{Who: "test", Version: version})
		require.NoError(t, err)
		return d
	}
	done := func(action control.Action) error {
		ask := test
		ask.Force = true
		_, err := s.act(t.Context(), action, forum.Name, millrace.Unversioned, ask)
		return err
	}
	d := deploy("1.0.0")
	require.NotZero(t, d.Starts)
	require.NoError(t, s.untilDone(t.Context(), d.Starts))
	j, err := s.find(forum.Name, millrace.Unversioned)
	require.NoError(t, err)
	require.True(t, s.serves(j))
	require.Equal(t, "app_forum_job", j.instance.Namespace())
	namespaces, err := s.servingNamespaces(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"unversioned", "app_forum_job"}, namespaces)
	atRest, err := servingNamespaces(t.Context(), s.cfg.dir)
	require.NoError(t, err)
	require.Equal(t, namespaces, atRest)
	for _, action := range []control.Action{control.Start, control.Promote, control.Rollback} {
		require.ErrorContains(t, done(action), "forum-job is a singleton", action)
	}

	// No version of it has data versions.
	require.ErrorContains(t, s.mayPush(control.Artifact{App: forum.Name, Version: "2.0.0", Descriptor: control.Descriptor{Versioned: true}}), "give the app another name")
	s.pushAs(t, forumApp("1.1.0", forumTable), false)
	require.Zero(t, deploy("1.1.0").Starts, "there is one")
	require.Zero(t, deploy("1.0.0").Starts, "there is one")

	// Deleted, it stays so until it is started.
	require.NoError(t, done(control.Delete))
	require.Len(t, s.serving(), 1)
	stop()
	s, stop = runStack(t, path)
	require.Empty(t, s.versionsOf(lineOf(forum.Name)))
	require.NoError(t, done(control.Start))
	require.Len(t, s.serving(), 2)
	require.NoError(t, done(control.Delete))

	// A process that was killed between the deploy and the start has the next one start it.
	for _, version := range []string{"1.1.0", "1.0.0"} {
		_, err = s.store.Deploys.Deploy(t.Context(), control.Choice{App: forum.Name, Version: version, By: control.By{Who: "ann"}})
		require.NoError(t, err)
	}
	stop()
	s, stop = runStack(t, path)
	j, err = s.find(forum.Name, millrace.Unversioned)
	require.NoError(t, err)
	require.Equal(t, control.Running, j.state())
	require.Equal(t, "1.0.0", j.program().plan.Version)
	require.True(t, s.serves(j))

	// An interrupted run of forget had deleted it, to make it anew.
	require.NoError(t, writeJSON(s.cfg.dir.join(forgettingFile), forgetting{App: forum.Name, Old: millrace.Unversioned, New: millrace.Unversioned, Version: "1.0.0"}))
	require.NoError(t, done(control.Delete))
	require.NoError(t, s.endForgetting(t.Context(), test))
	j, err = s.find(forum.Name, millrace.Unversioned)
	require.NoError(t, err)
	require.True(t, s.serves(j))
	stop()
}
