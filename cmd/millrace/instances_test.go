package main

import (
	"bufio"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace"
	"millrace/apps/lms"
	"millrace/control"
	"millrace/control/api"
	"millrace/lake"
	"millrace/record"
	"millrace/sink/elastic"
	"millrace/sink/topic"
)

// runStack runs a stack on a data directory until stop is called.
func runStack(t *testing.T, path string) (*stack, func()) {
	t.Helper()
	dir, err := openDataDir(path)
	require.NoError(t, err)
	cfg := stoppedConfig()
	cfg.tableTopics = true
	cfg.flush, cfg.dir, cfg.logger = 50*time.Millisecond, dir, slog.New(slog.DiscardHandler)
	return runStackOf(t, cfg)
}

// runStackOf runs a stack until stop is called, and closes its directory then.
func runStackOf(t *testing.T, cfg stackConfig) (*stack, func()) {
	t.Helper()
	s, err := openStack(t.Context(), cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	res, err := http.Get("http://" + s.local.Addr().String() + "/healthz") //nolint:noctx // it waits until the stack answers
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Eventually(t, s.plane.Runs, time.Minute, time.Millisecond)
	return s, func() {
		t.Helper()
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, s.Close())
		require.NoError(t, cfg.dir.Close())
	}
}

// A program whose plan cannot go on with the state that is there runs all the same: what it cannot go on with has failed and says why, and
// a new data version takes its place.
func TestRefusedInstance(t *testing.T) { //nolint:paralleltest // it changes the app
	path := filepath.Join(t.TempDir(), "data")
	s, stop := runStack(t, path)
	require.NoError(t, s.log.Append(t.Context(), []record.Item{{
		Account: "a", Env: "e", SourceType: lms.App.SourceTypes[0], Kind: record.Event, ID: "urn:e",
		Bytes: []byte(`{"id":"urn:e","type":"OutcomeEvent","eventTime":"2018-08-20T00:00:00Z","actor":{"id":"urn:p"},"object":{"assignable":{"id":"urn:q"}},"generated":{"actor":{"id":"urn:p"},"totalScore":1}}`),
	}}))
	require.NoError(t, s.untilPublished(t.Context()))
	stop()

	before := lms.App
	defer func() { lms.App = before }()
	giveUpQuiz()
	t.Setenv(withoutQuiz, "1")

	s, stop = runStack(t, path)
	require.ErrorContains(t, s.ready(t.Context()), "cannot go from version 1.0.0 to 2.0.0")
	require.Equal(t, control.Failed, s.servingOf(etlLine).state())
	made := s.done(t, control.Start, "")
	require.NoError(t, s.untilServes(t, made.DataVersion))
	_, err := s.act(t.Context(), control.Recover, etlLine.Program, millrace.Unversioned, test)
	require.ErrorContains(t, err, "cannot go from version 1.0.0 to 2.0.0")
	stop()

	lms.App = before // the program of before goes on as if nothing had been
	require.NoError(t, os.Unsetenv(withoutQuiz))
	s, stop = runStack(t, path)
	versions := s.versions()
	require.Equal(t, control.Running, versions[0].state())
	require.Equal(t, made.DataVersion, s.servingOf(etlLine).instance.DataVersion)
	stop()
}

// untilServes promotes a data version once it has caught up.
func (s *stack) untilServes(t *testing.T, dataVersion string) error {
	t.Helper()
	require.Eventually(t, func() bool { // the job says by itself how far it is
		j, err := s.find(etlLine.Program, dataVersion)
		return err == nil && s.caughtUp(t.Context(), j) == nil
	}, time.Minute, 10*time.Millisecond)
	_, err := s.act(t.Context(), control.Promote, etlLine.Program, dataVersion, test)
	return err
}

// test is who asks in tests.
var test = api.Ask{Who: "test", Reason: "test"}

// done does something with a data version, which must succeed.
func (s *stack) done(t *testing.T, a control.Action, dataVersion string) control.Operation {
	t.Helper()
	op, err := s.act(t.Context(), a, etlLine.Program, dataVersion, test)
	require.NoError(t, err)
	return op
}

// The metrics of a job that is opened again are there again, and those of a closed one are not.
func TestMetricsOfInstances(t *testing.T) {
	t.Parallel()
	s, stop := runStack(t, filepath.Join(t.TempDir(), "data"))
	defer stop()
	made := s.done(t, control.Start, "")
	uniqueID := made.UniqueID()
	sample := `millrace_engine_epoch{unique_id="` + uniqueID + `"`
	metrics := func() string {
		w := httptest.NewRecorder()
		s.serveMetrics(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
		require.Equal(t, 200, w.Code)
		return w.Body.String()
	}
	for range 2 {
		require.Contains(t, metrics(), sample)
		s.done(t, control.Suspend, made.DataVersion)
		require.NotContains(t, metrics(), sample)
		s.done(t, control.Resume, made.DataVersion)
	}
}

// Who listens hears what becomes of an instance, and does not hold up the end of the process.
func TestInstancesAreHeardOf(t *testing.T) {
	t.Parallel()
	s, stop := runStack(t, filepath.Join(t.TempDir(), "data"))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url()+api.EventsPath, http.NoBody)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	require.True(t, lines.Scan())
	require.Equal(t, "event: apps", lines.Text())
	s.done(t, control.Suspend, millrace.Unversioned)
	var states []string
	for len(states) < 2 && lines.Scan() {
		var c api.Changed
		if text, ok := strings.CutPrefix(lines.Text(), "data: {"); ok {
			require.NoError(t, json.Unmarshal([]byte("{"+text), &c))
			require.Equal(t, etlLine.Program, c.App)
			states = append(states, c.State)
		}
	}
	require.Equal(t, []string{"SUSPENDING", "SUSPENDED"}, states)
	stop()
	for lines.Scan() {
		continue // what else came
	}
	require.NoError(t, lines.Err(), "the stream has ended, and was not cut off when its time was over")
}

func TestRoomForInstances(t *testing.T) {
	t.Parallel()
	require.LessOrEqual(t, memoryFor(2*jobMemoryFor(leastMemory)), int64(leastMemory))
	s, stop := runStack(t, filepath.Join(t.TempDir(), "data"))
	defer stop()
	var err error
	for range 20 {
		if _, err = s.act(t.Context(), control.Start, etlLine.Program, "", test); err != nil {
			break
		}
	}
	require.ErrorIs(t, err, control.ErrRefused)
	require.Regexp(t, `\d+ jobs with \d+ MB need --memory \d+ or more, and there are 1500 MB`, err)
}

// What a process that was killed has begun to delete, the next one deletes: state, savepoints, tables, indices, topics.
func TestDeletionIsFinished(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data")
	s, stop := runStack(t, path)
	require.NoError(t, s.log.Append(t.Context(), []record.Item{{
		Account: "a", Env: "e", SourceType: lms.App.SourceTypes[0], Kind: record.Event, ID: "urn:e",
		Bytes: []byte(`{"id":"urn:e","type":"ViewEvent","eventTime":"2018-08-20T00:00:00Z","actor":{"id":"urn:p"},"object":{"id":"urn:page"}}`),
	}}))
	made := s.done(t, control.Start, "")
	uniqueID := made.UniqueID()
	require.NoError(t, s.untilPublished(t.Context()))
	j, err := s.find(etlLine.Program, made.DataVersion)
	require.NoError(t, err)
	require.NoError(t, j.Savepoint(t.Context(), s.cfg.dir.join(savepointsDir, uniqueID, "one")))
	has := func(s *stack) (what []string) {
		for _, dir := range []string{"jobs", savepointsDir} {
			if _, err := os.Stat(s.cfg.dir.join(dir, uniqueID)); err == nil {
				what = append(what, dir)
			}
		}
		names, err := s.lake.Tables(t.Context())
		require.NoError(t, err)
		if slices.ContainsFunc(names, func(n lake.Name) bool { return n.Namespace == "v"+made.DataVersion }) {
			what = append(what, "lake")
		}
		if _, err := s.index.Totals(t.Context(), elastic.VersionAlias("activity_view", made.DataVersion)); err == nil {
			what = append(what, "index")
		}
		partitions, err := s.log.PartitionsOf(t.Context(), topic.Topic("v"+made.DataVersion, "activity_view"))
		require.NoError(t, err)
		if len(partitions) > 0 {
			what = append(what, "topic")
		}
		return what
	}
	require.Equal(t, []string{"jobs", savepointsDir, "lake", "index", "topic"}, has(s))
	_, err = s.store.Instances.Begin(t.Context(), control.Request{ // and no further
		Line: etlLine, DataVersion: made.DataVersion, Action: control.Delete, By: test.By(), Role: control.Admin,
	})
	require.NoError(t, err)
	stop()

	s, stop = runStack(t, path)
	require.Eventually(t, func() bool { // it is carried out in the background
		left, err := s.store.Instances.Working(context.Background())
		return err == nil && len(left) == 0
	}, time.Minute, 10*time.Millisecond)
	require.Empty(t, has(s))
	require.Len(t, s.versions(), 1)
	all, err := s.store.Instances.List(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 2, "the raw lake's, and the other data version")
	totals, err := s.index.Totals(t.Context(), "activity_view")
	require.NoError(t, err)
	require.EqualValues(t, 1, totals.Rows, "the other data version has lost nothing")
	stop()
}
