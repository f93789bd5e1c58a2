package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/internal/promtest"
)

// The queries of the talk, as they are printed there.
const (
	talkRecords     = `rate(write_records{unique_id="crusher-prime-job-system-system--unversioned", vertex_type="source"} [5m])`
	talkCheckpoints = `max(flink_jobmanager_job_lastcheckpointduration{jobname=~"global-ingest-.*"}) / 1000.0`
	talkRestarts    = `sum(rate(flink_jobmanager_job_fullrestarts[10m])) BY (jobname) > 0`
)

// scraped is a serve that is killed and started again at the same address, as what scrapes it sees it.
type scraped struct {
	dir, address, key string
	sent              float64 // items, since the first start
	s                 *serving
	at                []string
}

func startScraped(t *testing.T) *scraped {
	t.Helper()
	x := &scraped{dir: filepath.Join(t.TempDir(), "data"), address: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	x.start(t)
	x.key = output(t, "key", "add", "--data-dir", x.dir, "--account", "deepthought", "--env", "deepthought3", "--source-type", "EDGENUITY_LMS")
	return x
}

func (x *scraped) start(t *testing.T) {
	t.Helper()
	x.s, x.at = startServe(t, "--data-dir", x.dir, "--flush", "200ms", "--listen", x.address)
}

// kill ends the process without a word to it, and starts another one.
func (x *scraped) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, x.s.cmd.Process.Kill())
	require.Error(t, <-x.s.done)
	x.start(t)
}

// send sends the examples, and waits until the jobs have read and published them.
func (x *scraped) send(t *testing.T) {
	t.Helper()
	before := metric(t, x.at[0], "millrace_collect_items_total")
	_, err := exec.Command(millrace, "send", "../docs/examples/events.jsonl", "--to", x.at[1], "--key", x.key).CombinedOutput()
	var refused *exec.ExitError
	require.ErrorAs(t, err, &refused, "one of its lines is no Caliper")
	x.sent += metric(t, x.at[0], "millrace_collect_items_total") - before
	require.Eventually(t, func() bool {
		return metric(t, x.at[0], "millrace_job_items_total", `counter="read"`) == 2*x.sent && // by each of the jobs
			metric(t, x.at[0], "millrace_engine_sink_lag_rows") == 0
	}, patience, 20*time.Millisecond) // of another process
}

// scrape is what Prometheus would read.
func (x *scraped) scrape(t *testing.T) []byte {
	t.Helper()
	res, err := http.Get(x.at[0] + "/metrics")
	require.NoError(t, err)
	defer func() { require.NoError(t, res.Body.Close()) }()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, res.StatusCode)
	return text
}

// TestTalkQueries scrapes a serve that is killed once, and asks Prometheus' engine what the talk asks.
func TestTalkQueries(t *testing.T) {
	t.Parallel()
	lookAtSources(t)
	x, store, now := startScraped(t), promtest.New(), time.Now()
	scrape := func() {
		now = now.Add(time.Minute)
		store.Scrape(t, x.scrape(t), now)
	}
	scrape()
	require.Empty(t, store.Query(t, talkRestarts, now))
	x.send(t)
	scrape()
	scrape()
	require.Empty(t, store.Query(t, talkRestarts, now), "nothing was restarted")
	records := store.Query(t, talkRecords, now)
	require.Len(t, records, 1)
	require.Positive(t, records[0].F)
	before := store.Query(t, `sum by (vertex_type) (write_records{unique_id=~"ingest-etl-.*"})`, now)

	x.kill(t)
	x.send(t)
	scrape()
	checkpoints := store.Query(t, talkCheckpoints, now)
	require.Len(t, checkpoints, 1)
	require.Positive(t, checkpoints[0].F)
	require.Less(t, checkpoints[0].F, 60.0, "seconds")
	restarts := promtest.Values(store.Query(t, talkRestarts, now), "jobname")
	require.Len(t, restarts, 2)
	require.Positive(t, restarts["global-ingest-unversioned"])
	require.Positive(t, restarts["ingest-etl-edgenuity-lms-job-system-system--unversioned"])
	require.Equal(t, 2.0, store.Query(t, `sum(millrace_job_restarts_total)`, now)[0].F) //nolint:testifylint // counted, not measured
	for vertex, n := range promtest.Values(store.Query(t, `sum by (vertex_type) (write_records{unique_id=~"ingest-etl-.*"})`, now), "vertex_type") {
		require.GreaterOrEqual(t, n, promtest.Values(before, "vertex_type")[vertex], "%s goes on over the restart", vertex)
	}
	require.Empty(t, store.Query(t, `resets(write_records[10m]) > 0`, now))

	x.s.interrupt(t)
	x.start(t)
	scrape()
	require.Equal(t, 2.0, store.Query(t, `sum(millrace_job_restarts_total)`, now)[0].F, "a stop that was asked for does not count")
	x.s.interrupt(t)
}

// TestRealPrometheus has a real Prometheus scrape a serve, with the alert rules that are shipped, and asks it what the talk asks.
func TestRealPrometheus(t *testing.T) {
	t.Parallel()
	if os.Getenv("MILLRACE_PROMETHEUS") == "" {
		t.Skip("MILLRACE_PROMETHEUS is not set: 1 starts a real Prometheus, which is fetched when it is not installed")
	}
	lookAtSources(t)
	rules, err := filepath.Abs("../deploy/prometheus/millrace-rules.yml")
	require.NoError(t, err)
	x := startScraped(t)
	server := &realServer{name: "prometheus", dir: t.TempDir(), address: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	server.env = append(os.Environ(), "PROMETHEUS_PORT="+server.address[strings.LastIndex(server.address, ":")+1:],
		"PROMETHEUS_TARGETS="+x.address, "PROMETHEUS_INTERVAL=500ms", "PROMETHEUS_RULES="+rules)
	t.Cleanup(func() { server.run(t, "stop") })
	server.run(t, "start")

	// What a server answers changes with every scrape, and nothing tells when one has been.
	await := func(what, query string, ok func([]sample) bool) (got []sample) {
		t.Helper()
		require.Eventually(t, func() bool {
			got = server.query(t, query)
			return ok(got)
		}, patience, 100*time.Millisecond, "%s: %s", what, query)
		return got
	}
	await("a scrape", `up == 1`, func(v []sample) bool { return len(v) == 1 })
	x.send(t)
	await("records", talkRecords, func(v []sample) bool { return len(v) == 1 && v[0].value > 0 })
	require.Empty(t, server.query(t, talkRestarts))
	x.kill(t)
	x.send(t)
	got := await("restarts", talkRestarts, func(v []sample) bool { return len(v) == 2 })
	require.ElementsMatch(t, []string{"global-ingest-unversioned", "ingest-etl-edgenuity-lms-job-system-system--unversioned"},
		[]string{got[0].Metric["jobname"], got[1].Metric["jobname"]})
	await("checkpoints", talkCheckpoints, func(v []sample) bool { return len(v) == 1 && v[0].value > 0 && v[0].value < 60 })
	await("records after the restart", talkRecords, func(v []sample) bool { return len(v) == 1 && v[0].value > 0 })

	var answer struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	server.get(t, "/api/v1/rules", nil, &answer)
	require.NotEmpty(t, answer.Groups)
	for _, g := range answer.Groups {
		for _, r := range g.Rules {
			require.Equal(t, "ok", r.Health, "%s: %s", r.Name, r.LastError)
		}
	}
	x.s.interrupt(t)
}

// sample is what a real Prometheus says of a series.
type sample struct {
	Metric map[string]string
	Value  [2]any
	value  float64
}

func (s *realServer) query(t *testing.T, query string) []sample {
	t.Helper()
	var answer struct{ Result []sample }
	s.get(t, "/api/v1/query", url.Values{"query": {query}}, &answer)
	for i := range answer.Result {
		var err error
		answer.Result[i].value, err = strconv.ParseFloat(fmt.Sprint(answer.Result[i].Value[1]), 64)
		require.NoError(t, err)
	}
	return answer.Result
}

// get asks Prometheus' API.
func (s *realServer) get(t *testing.T, path string, query url.Values, data any) {
	t.Helper()
	res, err := http.Get("http://" + s.address + path + "?" + query.Encode())
	require.NoError(t, err)
	defer func() { require.NoError(t, res.Body.Close()) }()
	var body struct {
		Status, Error string
		Data          json.RawMessage
	}
	require.NoError(t, json.NewDecoder(res.Body).Decode(&body))
	require.Equal(t, "success", body.Status, body.Error)
	require.NoError(t, json.Unmarshal(body.Data, data))
}

// TestPromtool has a real promtool check and test the rules that are shipped, and look at the metrics that a serve exposes.
func TestPromtool(t *testing.T) {
	t.Parallel()
	if os.Getenv("MILLRACE_PROMETHEUS") == "" {
		t.Skip("MILLRACE_PROMETHEUS is not set: 1 runs a real promtool, which is fetched when it is not installed")
	}
	promtool := func(stdin string, args ...string) string {
		cmd := exec.Command("../scripts/servers/prometheus.sh", slices.Concat([]string{"promtool"}, args)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%v: %s", args, out)
		return string(out)
	}
	require.Contains(t, promtool("", "check", "rules", "../deploy/prometheus/millrace-rules.yml"), "SUCCESS")
	require.Contains(t, promtool("", "test", "rules", "../deploy/prometheus/millrace-rules-test.yml"), "SUCCESS")
}
