package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/eventlog/broker"
	"millrace/index"
)

const (
	lmsInstance = "ingest-etl-edgenuity-lms-job-system-system--unversioned"
	rawInstance = "crusher-prime-job-system-system--unversioned"
)

// processOf is the number of the process that runs a job of a data directory; 0 when there is none.
func processOf(t *testing.T, data, job string) int {
	t.Helper()
	dir := filepath.Join(data, "processes", job)
	lock, err := os.Open(filepath.Join(dir, "lock"))
	require.NoError(t, err)
	defer func() { require.NoError(t, lock.Close()) }()
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil {
		return 0
	}
	b, err := os.ReadFile(filepath.Join(dir, "process.json"))
	if err != nil {
		return 0 // it is about to say
	}
	var at struct{ PID int }
	require.NoError(t, json.Unmarshal(b, &at))
	return at.PID
}

// sendView sends an event of the tour to a server.
func sendView(t *testing.T, collector, key string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, collector, strings.NewReader(fmt.Sprintf(
		`{"sensor":"urn:s","sendTime":"2018-08-20T00:00:00Z","dataVersion":"http://purl.imsglobal.org/ctx/caliper/v1p1","data":[{"id":"urn:%d","type":"ViewEvent","eventTime":"2018-08-20T00:00:00Z","actor":{"id":"urn:p"},"object":{"id":"urn:page"}}]}`, time.Now().UnixNano())))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusOK, res.StatusCode)
}

// A job whose process is killed is started again; one that is killed too often is FAILED, says why, and can be recovered. What was sent
// meanwhile is not lost, and the other job did not notice.
func TestKilledJob(t *testing.T) {
	t.Parallel()
	lookAtSources(t)
	data := filepath.Join(t.TempDir(), "data")
	key := strings.TrimSpace(output(t, "key", "add", "--data-dir", data, "--account", "a", "--env", "e", "--source-type", "EDGENUITY_LMS"))
	s, at := startServe(t, "--data-dir", data, "--flush", "200ms", "--job-restarts", "1")
	raw := processOf(t, data, rawInstance)
	kill := func() {
		t.Helper()
		pid := 0
		require.Eventually(t, func() bool {
			pid = processOf(t, data, lmsInstance)
			return pid > 0 && metric(t, at[0], "millrace_job_state", lmsInstance, `state="RUNNING"`) == 1
		}, time.Minute, 10*time.Millisecond)
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		require.Eventually(t, func() bool { return processOf(t, data, lmsInstance) != pid }, time.Minute, 10*time.Millisecond)
	}
	sendView(t, at[1], key)
	kill()
	sendView(t, at[1], key)
	kill() // after it was started again
	sendView(t, at[1], key)
	require.Eventually(t, func() bool { return metric(t, at[0], "millrace_job_failed", lmsInstance) == 1 }, time.Minute, 10*time.Millisecond)
	require.InDelta(t, 1, metric(t, at[0], "millrace_job_restarts_total", lmsInstance), 0)
	require.Regexp(t, `FAILED.*\n?.*signal: killed; its log is .*/processes/`+lmsInstance+"/log", output(t, "app", "list", "--data-dir", data))
	sick, err := exec.Command(millrace, "doctor", "--data-dir", data).CombinedOutput()
	require.Error(t, err)
	require.Regexp(t, `(?m)^BAD   job `+lmsInstance+` has failed: .*signal: killed`, string(sick))
	require.Contains(t, string(sick), "ok    job "+rawInstance+" is RUNNING")
	require.Zero(t, processOf(t, data, lmsInstance))
	require.Equal(t, raw, processOf(t, data, rawInstance))
	output(t, "app", "recover", "ingest-etl-edgenuity-lms-job", "unversioned", "--data-dir", data)
	require.InDelta(t, 2, metric(t, at[0], "millrace_job_restarts_total", lmsInstance), 0)
	s.interrupt(t)
	require.Zero(t, processOf(t, data, lmsInstance))
	require.Zero(t, processOf(t, data, rawInstance))
	require.Contains(t, output(t, "check", "--data-dir", data), "the ledger balances")
}

// The jobs of a server whose log and index are in its process end with it.
func TestProcessesEndWithTheirLog(t *testing.T) {
	t.Parallel()
	lookAtSources(t)
	data := filepath.Join(t.TempDir(), "data")
	s, _ := startServe(t, "--data-dir", data)
	require.Positive(t, processOf(t, data, lmsInstance))
	require.NoError(t, s.cmd.Process.Kill())
	require.Error(t, <-s.done)
	output(t, "backup", data+".copy", "--data-dir", data) // waits until its files change no more
	require.Zero(t, processOf(t, data, lmsInstance)+processOf(t, data, rawInstance))
}

// The jobs of a server with a log and an index elsewhere run on without it, and the next one adopts them: the same processes, which it can stop.
func TestProcessesAreAdopted(t *testing.T) {
	t.Parallel()
	lookAtSources(t)
	dir := t.TempDir()
	b, err := broker.Open(broker.Config{Dir: filepath.Join(dir, "log")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	ix, err := index.Open(index.Config{Path: filepath.Join(dir, "index.duckdb")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ix.Close()) })
	data, l := filepath.Join(dir, "data"), serveHTTP(t, ix)
	args := []string{"--data-dir", data, "--flush", "200ms", "--brokers", b.Addr(), "--index-url", l}
	key := strings.TrimSpace(output(t, "key", "add", "--data-dir", data, "--account", "a", "--env", "e", "--source-type", "EDGENUITY_LMS"))
	s, at := startServe(t, args...)
	jobs := [2]int{processOf(t, data, lmsInstance), processOf(t, data, rawInstance)}
	sendView(t, at[1], key)
	require.NoError(t, s.cmd.Process.Kill())
	require.Error(t, <-s.done)

	s, at = startServe(t, args...)
	require.Equal(t, jobs, [2]int{processOf(t, data, lmsInstance), processOf(t, data, rawInstance)})
	require.Zero(t, metric(t, at[0], "millrace_job_restarts_total"), "they were not")
	sendView(t, at[1], key)
	output(t, "app", "suspend", "ingest-etl-edgenuity-lms-job", "unversioned", "--data-dir", data)
	require.Zero(t, processOf(t, data, lmsInstance))
	require.NoError(t, s.cmd.Process.Kill())
	require.Error(t, <-s.done)

	said, err := exec.Command(millrace, "backup", filepath.Join(dir, "copy"), "--data-dir", data).CombinedOutput()
	require.Error(t, err, "its files change")
	require.Contains(t, string(said), "job "+rawInstance+" still runs")
	require.NoDirExists(t, filepath.Join(dir, "copy"))

	// Another setting is another process: it stops the one that is there first.
	s, at = startServe(t, append(args, "--job-memory", "150")...)
	require.NotEqual(t, jobs[1], processOf(t, data, rawInstance))
	output(t, "app", "resume", "ingest-etl-edgenuity-lms-job", "unversioned", "--data-dir", data)
	require.Eventually(t, func() bool {
		return metric(t, at[0], "millrace_job_table_records", lmsInstance, "activity_view", `"rows"`) == 2
	}, time.Minute, 10*time.Millisecond)
	s.interrupt(t)
	require.Zero(t, processOf(t, data, rawInstance))
	require.Contains(t, output(t, "check", "--data-dir", data, "--brokers", b.Addr(), "--index-url", l), "the ledger balances")
}

func serveHTTP(t *testing.T, h http.Handler) (url string) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}
