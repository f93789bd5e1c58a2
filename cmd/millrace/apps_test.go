package main

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace"
	"millrace/apps/lms"
	"millrace/artifact"
	"millrace/control"
	"millrace/control/api"
	"millrace/etl"
)

// forumApp is an app that the program does not have. The processes of its jobs are this test's.
func forumApp(version, table string) etl.App {
	t, _ := lms.App.Tables[0].(etl.Table[lms.QuizSubmission])
	t.Name = table
	return etl.App{Name: "forum-job", Version: version, Description: "of a test", SourceTypes: lms.App.SourceTypes, Tables: []etl.Transformer{t}}
}

const forumTable = "forum_grade"

// push hands an app over whose executable is that of the test.
func (s *stack) push(t *testing.T, a etl.App) { s.pushAs(t, a, true) }

func (s *stack) pushAs(t *testing.T, a etl.App, versioned bool) {
	t.Helper()
	p, err := a.Plan()
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	dir := s.cfg.dir.join(artifactsDir, a.Name, a.Version)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, os.Symlink(self, artifact.Executable(dir)))
	pushed, err := s.store.Deploys.Push(t.Context(), control.Artifact{
		App: a.Name, Version: a.Version, SHA256: a.Name + a.Version, Plan: p.Describe(),
		Descriptor: control.Descriptor{Type: control.DataStreamApp, Description: a.Description, Versioned: versioned},
	})
	require.NoError(t, err)
	s.addApp(pushed)
}

// A newer program may have a table that a pushed app had first. It does not start, and the one of before goes on.
func TestProgramTakesATable(t *testing.T) { //nolint:paralleltest // it changes the app
	path := filepath.Join(t.TempDir(), "data")
	before := lms.App
	defer func() { lms.App = before }()
	older := before
	older.Tables = slices.DeleteFunc(slices.Clone(before.Tables), func(table etl.Transformer) bool {
		e, enrollment := table.(etl.Table[lms.Enrollment])
		return enrollment && e.Name == "enrollment"
	})
	require.Less(t, len(older.Tables), len(before.Tables))
	lms.App = older
	s, stop := runStack(t, path)
	forum := forumApp("1.0.0", "enrollment")
	s.push(t, forum)
	_, err := s.Deploy(t.Context(), forum.Name, api.DeployAsk{Who: "test", Version: forum.Version})
	require.NoError(t, err)
	stop()

	lms.App = before
	dir, err := openDataDir(path)
	require.NoError(t, err)
	cfg := stoppedConfig()
	cfg.tableTopics, cfg.dir, cfg.logger = true, dir, slog.New(slog.DiscardHandler)
	_, err = openStack(t.Context(), cfg)
	require.ErrorContains(t, err, "table enrollment is one of forum-job 1.0.0")
	require.NoError(t, dir.Close())

	lms.App = older
	_, stop = runStack(t, path)
	stop()
}

func TestAppsOfOtherNames(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data")
	s, stop := runStack(t, path)
	forum := forumApp("1.0.0", forumTable)
	s.push(t, forum)
	_, err := s.Do(t.Context(), forum.Name, "", api.Ask{Action: control.Start, Who: "test", Role: control.Admin})
	require.ErrorIs(t, err, control.ErrRefused, "nothing is deployed")
	deploy := func(a etl.App) error {
		_, err := s.Deploy(t.Context(), a.Name, api.DeployAsk{Who: "test", Version: a.Version})
		return err
	}
	require.NoError(t, deploy(forum))

	taken := forumApp("2.0.0", "enrollment")
	s.push(t, taken)
	require.ErrorContains(t, deploy(taken), "table enrollment is one of "+lms.App.Name)
	other := forumApp("3.0.0", forumTable)
	other.Name = "posts-job"
	s.push(t, other)
	require.ErrorContains(t, deploy(other), "table "+forumTable+" is one of forum-job 1.0.0")

	require.NotEqual(t, s.newDataVersion(time.Unix(0, 0)), s.newDataVersion(time.Unix(0, 0)), "of two apps at once, before either is there")
	start := func() string {
		op, err := s.act(t.Context(), control.Start, forum.Name, "", test)
		require.NoError(t, err)
		return op.DataVersion
	}
	first, second := start(), start()
	require.Nil(t, s.servingOf(lineOf(forum.Name)), "nobody said so")

	// An interrupted run of forget has made a data version in the place of one that nobody reads.
	file := s.cfg.dir.join(forgettingFile)
	require.NoError(t, writeJSON(file, forgetting{App: forum.Name, Old: first, New: second, Made: true}))
	require.NoError(t, s.endForgetting(t.Context(), test))
	_, err = os.Stat(file)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = s.find(forum.Name, first)
	require.ErrorIs(t, err, control.ErrUnknownInstance)
	require.Len(t, s.versionsOf(etlLine), 1)

	// The last one of an app that the program does not have may go too, also when readers see it; that of the program's own stays.
	stop()
	s, stop = runStack(t, path)
	require.Len(t, s.versionsOf(lineOf(forum.Name)), 1, "it is known again")
	promote := test
	promote.Force = true
	_, err = s.act(t.Context(), control.Promote, forum.Name, second, promote)
	require.NoError(t, err)
	require.Len(t, s.serving(), 2)
	third := start()
	_, err = s.act(t.Context(), control.Promote, forum.Name, third, promote)
	require.NoError(t, err)
	back := promote
	back.Key = "once"
	once, err := s.act(t.Context(), control.Rollback, forum.Name, "", back)
	require.NoError(t, err)
	again, err := s.act(t.Context(), control.Rollback, forum.Name, "", back)
	require.NoError(t, err, "with the same key it is the same request")
	require.Equal(t, once.ID, again.ID)
	_, err = s.act(t.Context(), control.Delete, forum.Name, third, test)
	require.NoError(t, err)
	_, err = s.act(t.Context(), control.Delete, forum.Name, second, test)
	require.NoError(t, err)
	require.Empty(t, s.versionsOf(lineOf(forum.Name)))
	require.Len(t, s.serving(), 1)
	_, err = s.act(t.Context(), control.Delete, etlLine.Program, millrace.Unversioned, test)
	require.ErrorContains(t, err, "unversioned is the only data version; start another one first")
	require.NotEmpty(t, start())
	require.NoError(t, s.ready(t.Context()))
	stop()
}
