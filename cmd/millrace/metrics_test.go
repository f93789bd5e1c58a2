package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace"
	"millrace/apps/lms"
	"millrace/artifact"
	"millrace/control"
	"millrace/control/api"
	"millrace/record"
)

func (s *stack) metricsText(t *testing.T) string {
	t.Helper()
	w := httptest.NewRecorder()
	s.serveMetrics(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
	require.Equal(t, 200, w.Code)
	return w.Body.String()
}

// appendItems appends an event that becomes a row, one that waits for its entity, one that no table reads, one that is unreadable, a reject
// and a record of another source type to the log.
func (s *stack) appendItems(t *testing.T) {
	t.Helper()
	item := func(id, body string) record.Item {
		return record.Item{
			Account: "a", Env: "e", SourceType: lms.App.SourceTypes[0], Kind: record.Event, ID: id, ReceivedAt: time.Now(), Bytes: []byte(body),
		}
	}
	reject := item("urn:reject", "{")
	reject.Kind = record.Reject
	other := item("urn:other", `{}`)
	other.SourceType = "ANOTHER"
	require.NoError(t, s.log.Append(t.Context(), []record.Item{
		item("urn:1", `{"id":"urn:1","type":"ViewEvent","eventTime":"2018-08-20T00:00:00Z","actor":{"id":"urn:p"},"object":{"id":"urn:page"}}`),
		item("urn:2", `{"id":"urn:2","type":"OutcomeEvent","eventTime":"2018-08-20T00:00:00Z","actor":{"id":"urn:p"},"object":{"assignable":{"id":"urn:q"}},"generated":{"actor":{"id":"urn:p"},"totalScore":1}}`),
		item("urn:3", `{"id":"urn:3","type":"ForumEvent","eventTime":"2018-08-20T00:00:00Z"}`),
		item("urn:4", `no json`),
		reject, other,
	}))
	require.NoError(t, s.untilPublished(t.Context()))
}

func TestReady(t *testing.T) {
	t.Parallel()
	s, stop := runStack(t, filepath.Join(t.TempDir(), "data"))
	defer stop()
	require.NoError(t, s.ready(t.Context()))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.ready(ended)
	require.ErrorContains(t, err, "log: ")
	require.ErrorContains(t, err, "index: it does not answer")
	j := s.servingOf(etlLine)
	j.mu.Lock()
	j.err = errors.New("disk on fire")
	j.mu.Unlock()
	require.EqualError(t, s.ready(t.Context()), "job "+j.instance.UniqueID()+" has failed: disk on fire")
}

// Only an end that nobody asked for makes the next start a restart.
func TestRestartsAreCounted(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data")
	s, stop := runStack(t, path)
	made := s.done(t, control.Start, "")
	j, err := s.find(etlLine.Program, made.DataVersion)
	require.NoError(t, err)
	s.done(t, control.Suspend, made.DataVersion)
	s.done(t, control.Resume, made.DataVersion)
	stop()

	s, stop = runStack(t, path)
	for _, j := range s.jobs() {
		require.Zero(t, j.restarted(), j.instance.UniqueID())
	}
	// A job whose process is killed, and that may not be started again by itself.
	id := j.instance.UniqueID()
	j, err = s.find(etlLine.Program, made.DataVersion)
	require.NoError(t, err)
	s.cfg.restarts = 0
	s.done(t, control.Suspend, made.DataVersion)
	s.done(t, control.Resume, made.DataVersion)
	process, _ := j.opened()
	require.NoError(t, syscall.Kill(process.PID(), syscall.SIGKILL))
	j.wait()
	require.Equal(t, control.Failed, j.state())
	require.ErrorContains(t, j.failure(), "signal: killed")
	require.Zero(t, j.restarted())
	s.done(t, control.Recover, made.DataVersion)
	require.EqualValues(t, 1, j.restarted())

	// What kill -9 leaves: the run has begun and not ended.
	stop()
	store, err := control.Open(filepath.Join(path, "keys.db"))
	require.NoError(t, err)
	_, err = store.Runs.Begin(t.Context(), id)
	require.NoError(t, err)
	require.NoError(t, store.Close())

	s, stop = runStack(t, path)
	text := s.metricsText(t)
	require.Contains(t, text, `millrace_job_restarts_total{unique_id="`+id+`"} 2`)
	require.Contains(t, text, `flink_jobmanager_job_fullrestarts{jobname="`+id+`"} 2`)
	require.Contains(t, text, `flink_jobmanager_job_fullrestarts{jobname="global-ingest-unversioned"} 0`)
	s.done(t, control.Delete, made.DataVersion)
	stop()

	store, err = control.Open(filepath.Join(path, "keys.db"))
	require.NoError(t, err)
	all, err := store.Runs.Restarts(t.Context())
	require.NoError(t, err)
	require.NotContains(t, all, id)
	require.NoError(t, store.Close())
}

// The ledger of each job adds up at rest, also of one that was seeded, and says so as metric and over HTTP.
func TestLedgerOfEachJob(t *testing.T) {
	t.Parallel()
	s, stop := runStack(t, filepath.Join(t.TempDir(), "data"))
	defer stop()
	s.appendItems(t)
	made, err := s.act(t.Context(), control.Start, etlLine.Program, "", api.Ask{Who: "test", Seed: &api.Seed{}})
	require.NoError(t, err)
	require.NoError(t, s.untilServes(t, made.DataVersion))
	require.NoError(t, s.untilPublished(t.Context()))
	parts := func(l api.Ledger, account string) map[string]int64 {
		for _, a := range l.Accounts {
			if a.Name == account {
				out := map[string]int64{"": a.Total.Count}
				for _, p := range a.Parts {
					out[p.Name] = p.Count
				}
				return out
			}
		}
		t.Fatalf("no account %s in %+v", account, l)
		return nil
	}
	for _, i := range [][2]string{{s.raw.program().plan.App, millrace.Unversioned}, {etlLine.Program, millrace.Unversioned}, {etlLine.Program, made.DataVersion}} {
		l, err := s.Ledger(t.Context(), i[0], i[1])
		require.NoError(t, err)
		require.NotNil(t, l.Balanced, "%+v", l)
		require.True(t, *l.Balanced, "%+v", l)
		require.Empty(t, l.Problems)
		require.Positive(t, l.Epoch)
	}
	l, err := s.Ledger(t.Context(), s.raw.program().plan.App, millrace.Unversioned)
	require.NoError(t, err)
	require.EqualValues(t, 3, parts(l, "log to lake")["rejects"], "two more than the collector knew of: no JSON, and no type")
	require.EqualValues(t, 6, parts(l, "log to lake")[""])
	l, err = s.Ledger(t.Context(), etlLine.Program, millrace.Unversioned)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"": 6, "taken up": 5, "of other source types": 1}, parts(l, "read"))
	require.EqualValues(t, 1, parts(l, "log to tables")["of no interest"], "%+v", l)
	require.EqualValues(t, 1, parts(l, "log to tables")["unreadable"])
	require.EqualValues(t, 1, parts(l, "log to tables")["rejects"])
	require.EqualValues(t, 1, parts(l, "records of quiz_submission")["waiting"])
	require.EqualValues(t, 1, parts(l, "records of activity_view")["rows"])
	_, err = s.Ledger(t.Context(), s.raw.program().plan.App, made.DataVersion)
	require.ErrorIs(t, err, control.ErrUnknownInstance)
	_, err = s.Ledger(t.Context(), "none", made.DataVersion)
	require.ErrorIs(t, err, api.ErrNotFound)

	for _, j := range s.jobs() {
		counted, err := s.countLedger(t.Context(), j)
		require.NoError(t, err)
		j.setLedger(&counted)
	}
	text := s.metricsText(t)
	require.NotRegexp(t, `(?m)^millrace_job_ledger_difference_records\{.*\} -?[1-9]`, text)
	require.Contains(t, text, `millrace_job_ledger_balanced{unique_id="`+made.UniqueID()+`"} 1`)

	// A row that is gone from the targets is missing.
	j := s.servingOf(etlLine)
	spoiled := *j.readLedger()
	for i := range spoiled.Accounts {
		spoiled.Accounts[i].Total.Count++
	}
	j.setLedger(&spoiled)
	text = s.metricsText(t)
	require.Contains(t, text, `millrace_job_ledger_difference_records{account="records of activity_view",unique_id="`+made.UniqueID()+`"} 1`)
	require.Contains(t, text, `millrace_job_ledger_difference_records{account="read",unique_id="`+made.UniqueID()+`"} 0`, "that is of the last commit")
	require.Contains(t, text, `millrace_job_ledger_balanced{unique_id="`+made.UniqueID()+`"} 0`)
}

// Profiles are for who has the operators' token.
func TestProfiles(t *testing.T) {
	t.Parallel()
	s, stop := runStack(t, filepath.Join(t.TempDir(), "data"))
	defer stop()
	get := func(path, token string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url()+path, http.NoBody)
		require.NoError(t, err)
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res.StatusCode, string(body)
	}
	sensor, err := s.store.Keys.Add(t.Context(), control.Key{Account: "a", Env: "e", SourceType: lms.App.SourceTypes[0]})
	require.NoError(t, err)
	reader, err := s.store.Tokens.Add(t.Context(), control.Token{Name: "trino", Role: control.Operator})
	require.NoError(t, err)
	admin, err := s.store.Tokens.Add(t.Context(), control.Token{Name: "root", Role: control.Admin})
	require.NoError(t, err)
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=1"} {
		for _, token := range []string{"", "wrong", sensor, reader} {
			want := http.StatusUnauthorized
			if token == reader {
				want = http.StatusForbidden
			}
			status, _ := get(path, token)
			require.Equal(t, want, status, path)
		}
		for _, token := range []string{s.secret, admin} {
			status, body := get(path, token)
			require.Equal(t, http.StatusOK, status, path)
			require.NotEmpty(t, body)
		}
	}
	status, _ := get("/debug/vars", s.secret)
	require.Equal(t, http.StatusNotFound, status)
}

func TestLogFormat(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]string{"": `msg=stopped job=j`, "text": `msg=stopped job=j`, "json": `"msg":"stopped","job":"j"}`} {
		var out bytes.Buffer
		artifact.NewLogger(&out, slog.LevelInfo, format).Info("stopped", "job", "j")
		require.Contains(t, out.String(), want, format)
	}
}

// A version whose process ends while it is watched is a bad one, though it is started again.
func TestWatchSeesAProcessEnd(t *testing.T) {
	t.Parallel()
	s, stop := runStack(t, filepath.Join(t.TempDir(), "data"))
	defer stop()
	j := s.servingOf(etlLine)
	watched := make(chan error, 1)
	go func() { watched <- runner{s}.Watch(t.Context(), j.controlled()) }()
	process, open := j.opened()
	require.True(t, open)
	require.NoError(t, syscall.Kill(process.PID(), syscall.SIGKILL))
	require.ErrorContains(t, <-watched, "signal: killed")
	require.Eventually(t, func() bool { return j.state() == control.Running }, time.Minute, time.Millisecond)
	again, open := j.opened()
	require.True(t, open)
	require.NotEqual(t, process.PID(), again.PID())
	require.EqualValues(t, 1, j.restarted())
}

// What is told to stop while it is about to be started again does not fail: it is suspended, and goes on.
func TestSuspendBetweenRestarts(t *testing.T) {
	t.Parallel()
	s, stop := runStack(t, filepath.Join(t.TempDir(), "data"))
	defer stop()
	j := s.servingOf(etlLine)
	process, open := j.opened()
	require.True(t, open)
	require.NoError(t, syscall.Kill(process.PID(), syscall.SIGKILL))
	require.Eventually(t, func() bool { return j.state() == control.Restarting }, time.Minute, time.Millisecond)
	require.ErrorContains(t, j.trouble(), "signal: killed")
	s.done(t, control.Suspend, millrace.Unversioned)
	require.Equal(t, control.Suspended, j.state())
	require.NoError(t, j.trouble())
	_, open = j.opened()
	require.False(t, open)
	s.done(t, control.Resume, millrace.Unversioned)
	require.Equal(t, control.Running, j.state())
}
