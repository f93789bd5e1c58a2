package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience bounds every wait of these tests: a server that was killed may take a minute to come back on a busy machine.
const patience = 4 * time.Minute

// TestRestarts runs the demo on real servers, by their addresses alone, and stops each in turn while the district sends, by turns cleanly
// and by kill -9: MILLRACE_RESTARTS times each. The process and its jobs must go on by themselves, and in the end the ledger must balance: nothing
// was lost, nothing is there twice.
//
// The servers are its own, started by scripts/servers, which fetches what is not installed.
func TestRestarts(t *testing.T) { //nolint:paralleltest // alone: it takes the whole machine
	restarts, err := strconv.Atoi(os.Getenv("MILLRACE_RESTARTS"))
	if err != nil || restarts < 1 {
		t.Skip("MILLRACE_RESTARTS is not set: 1 stops each server once; the servers are fetched when they are not installed")
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "millrace")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "millrace-secret")
	stops := 0
	for _, test := range []struct {
		index   string
		restart []string // the other servers are the same ones in both
	}{
		{"opensearch", []string{"kafka", "s3", "opensearch"}},
		{"elasticsearch", []string{"elasticsearch", "iceberg-rest"}},
	} {
		t.Run(test.index, func(t *testing.T) {
			servers := map[string]*realServer{}
			for _, name := range []string{"kafka", "s3", test.index} {
				servers[name] = startReal(t, name)
			}
			args := []string{
				"--brokers", servers["kafka"].address, "--index-url", "http://" + servers[test.index].address,
				"--lake", "s3://lake/restarts", "--s3-endpoint", "http://" + servers["s3"].address,
			}
			if slices.Contains(test.restart, "iceberg-rest") {
				servers["iceberg-rest"] = startReal(t, "iceberg-rest", "ICEBERG_REST_S3=http://"+servers["s3"].address)
				args = append(args, "--lake-catalog", "http://"+servers["iceberg-rest"].address, "--lake-catalog-namespace", "school.millrace")
			}
			d := startDemo(t, filepath.Join(t.TempDir(), "data"), args...)
			d.awaitProgress(t)
			version := d.startVersion(t)
			for range restarts {
				for _, name := range test.restart {
					s := servers[name]
					began := d.missed(t, name)
					if stops++; stops%2 == 1 {
						s.run(t, "stop")
					} else {
						s.kill(t)
					}
					d.await(t, name+" is missed", func() bool { return d.missed(t, name) > began })
					s.run(t, "start")
					d.awaitProgress(t)
				}
			}
			d.serveVersion(t, version)
			d.finish(t)
			d.forgetsSomebody(t, "http://"+servers[test.index].address, args...)
		})
	}
}

const lmsJob = "ingest-etl-edgenuity-lms-job"

// app runs 'millrace app' on the demo's data directory.
func (d *loadedDemo) app(action string, args ...string) (string, error) {
	out, err := exec.Command(millrace, append([]string{"app", action, lmsJob, "--data-dir", d.data}, args...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// startVersion starts a data version that is seeded while the servers are stopped.
func (d *loadedDemo) startVersion(t *testing.T) (version string) {
	t.Helper()
	version, err := d.app("start", "--seed")
	require.NoError(t, err, version)
	return version
}

// serveVersion promotes the version, takes that back, promotes it again and deletes the one before: nobody reads that any more.
func (d *loadedDemo) serveVersion(t *testing.T, version string) {
	t.Helper()
	d.await(t, "the new version has caught up", func() bool {
		_, err := d.app("promote", version)
		return err == nil
	})
	for _, step := range [][]string{{"rollback"}, {"promote", version}, {"delete", "unversioned", "--yes", "--reason", "replaced"}} {
		d.await(t, strings.Join(step, " "), func() bool {
			said, err := d.app(step[0], step[1:]...)
			if err != nil {
				require.Contains(t, said, " is behind: ", "only that passes")
			}
			return err == nil
		})
	}
}

// forgetsSomebody has the stopped stack forget a student, and looks for them in all servers.
func (d *loadedDemo) forgetsSomebody(t *testing.T, index string, servers ...string) {
	t.Helper()
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(millrace, append(args, "--data-dir", d.data)...)
		var said strings.Builder
		cmd.Stderr = &said
		out, err := cmd.Output()
		require.NoError(t, err, "%s %s", out, said.String())
		return strings.TrimSpace(string(out))
	}
	sql := func(query string, who string) string {
		return run("sql", "-o", "csv", strings.ReplaceAll(query, "WHO", who))
	}
	who := strings.Split(sql(`SELECT studentId FROM quiz_submission GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1`, ""), "\n")[1]
	const (
		inRaw  = `SELECT sum(n) FROM (SELECT count(*) AS n FROM raw.events WHERE contains(decode(bytes), '"WHO"') UNION ALL SELECT count(*) FROM raw.entities WHERE contains(decode(bytes), '"WHO"'))`
		inLake = `SELECT count(*) FROM quiz_submission WHERE studentId = 'WHO'`
	)
	inIndex := func() (n int64) {
		body := fmt.Sprintf(`{"size":0,"track_total_hits":true,"query":{"term":{"studentId":%q}}}`, who)
		res, err := http.Post(index+"/quiz_submission*/_search", "application/json", strings.NewReader(body))
		require.NoError(t, err)
		defer res.Body.Close()
		var answer struct {
			Hits struct{ Total struct{ Value int64 } }
		}
		require.NoError(t, json.NewDecoder(res.Body).Decode(&answer))
		return answer.Hits.Total.Value
	}
	require.NotEqual(t, "0", strings.Split(sql(inRaw, who), "\n")[1])
	require.NotEqual(t, "0", strings.Split(sql(inLake, who), "\n")[1])
	require.Positive(t, inIndex())
	var certificate struct {
		Erased int64
		Places []struct {
			Place         string
			Records, Left int64
		}
	}
	text := run(append([]string{"forget", who, "--yes", "--reason", "asked for it", "--listen", "127.0.0.1:0", "-o", "json"}, servers...)...)
	require.NoError(t, json.Unmarshal([]byte(text), &certificate), text)
	require.Positive(t, certificate.Erased)
	found := map[string]int64{}
	for _, p := range certificate.Places {
		require.Zero(t, p.Left, p.Place)
		found[strings.Fields(p.Place)[0]] += p.Records
	}
	require.Positive(t, found["log"])
	require.Positive(t, found["lake"])
	require.Equal(t, "0", strings.Split(sql(inRaw, who), "\n")[1])
	require.Equal(t, "0", strings.Split(sql(inLake, who), "\n")[1])
	require.Zero(t, inIndex())
	require.Contains(t, run(append([]string{"check"}, servers...)...), "the ledger balances")
}

// realServer is a server that a script in scripts/servers runs.
type realServer struct {
	name, dir, address string
	env                []string
}

func startReal(t *testing.T, name string, env ...string) *realServer {
	t.Helper()
	dir := t.TempDir()
	// Elasticsearch does not run as root, and its user must get there.
	for d := dir; d != os.TempDir() && d != filepath.Dir(d); d = filepath.Dir(d) {
		require.NoError(t, os.Chmod(d, 0o755))
	}
	port := freePort(t)
	s := &realServer{
		name: name, dir: dir, address: fmt.Sprintf("127.0.0.1:%d", port),
		env: append(append(os.Environ(), fmt.Sprintf("%s_PORT=%d", strings.ReplaceAll(strings.ToUpper(name), "-", "_"), port)), env...),
	}
	t.Cleanup(func() { s.run(t, "stop") }) // before starting: half started must be stopped too
	s.run(t, "start")
	return s
}

// freePort finds a port that is free and whose neighbour 100 above is free, where some servers talk to themselves. It is below those that systems
// give to clients: while a server is down, one that tries to reach it could be given its very port, and be connected with itself.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 12000 + rand.IntN(20000)
		first, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		second, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+100))
		require.NoError(t, first.Close())
		if err == nil {
			require.NoError(t, second.Close())
			return port
		}
	}
	t.Fatal("no two free ports, 100 apart")
	return 0
}

func (s *realServer) run(t *testing.T, action string) {
	t.Helper()
	cmd := exec.Command(filepath.Join("..", "scripts", "servers", s.name+".sh"), action, s.dir)
	cmd.Env = s.env
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// kill ends the server without a word to it.
func (s *realServer) kill(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, "pid"))
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
}

// loadedDemo is a demo that runs until it is told to finish.
type loadedDemo struct {
	data string
	args []string
	cmd  *exec.Cmd
	url  string
	said chan string // everything on stderr, once it has ended
}

var opened = regexp.MustCompile(`millrace: open (\S+)`)

func startDemo(t *testing.T, data string, args ...string) *loadedDemo {
	t.Helper()
	d := &loadedDemo{data: data, said: make(chan string, 1), args: append([]string{
		"demo", "--data-dir", data, "--listen", "127.0.0.1:0", "--rate", "1000", "--flush", "500ms",
	}, args...)}
	d.cmd = exec.Command(millrace, d.args...)
	stderr, err := d.cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, d.cmd.Start())
	t.Cleanup(func() { _ = d.cmd.Process.Kill() }) // it may have ended
	at := make(chan string, 1)
	go func() {
		var all strings.Builder
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			all.WriteString(lines.Text() + "\n")
			if m := opened.FindStringSubmatch(lines.Text()); m != nil {
				at <- m[1]
			}
		}
		d.said <- all.String()
	}()
	select {
	case d.url = <-at:
	case text := <-d.said:
		t.Fatalf("the demo ended at once: %s", text)
	}
	return d
}

// sum is metric of the demo.
func (d *loadedDemo) sum(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	return metric(t, d.url, name, labels...)
}

// metric adds up the values of a metric, of those whose labels contain the texts.
func metric(t *testing.T, url, name string, labels ...string) (sum float64) {
	t.Helper()
	res, err := http.Get(url + "/metrics")
	require.NoError(t, err)
	defer func() { require.NoError(t, res.Body.Close()) }()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, name) || slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(line, l) }) {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndex(line, " "):]), 64)
		require.NoError(t, err, line)
		sum += v
	}
	return sum
}

// missed counts what shows that a server is away: requests that sensors have to send again, and tries of sinks.
func (d *loadedDemo) missed(t *testing.T, server string) float64 {
	t.Helper()
	switch server {
	case "kafka":
		return d.sum(t, "millrace_collect_requests_total", `status="503"`)
	case "s3", "iceberg-rest":
		return d.sum(t, "millrace_iceberg_retries_total")
	}
	return d.sum(t, "millrace_elastic_retries_total")
}

func (d *loadedDemo) await(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); !done(); {
		select {
		case <-tick.C:
		case text := <-d.said:
			t.Fatalf("the demo ended while this was waited for: %s\n%s", what, text)
		case <-deadline:
			require.NoError(t, d.cmd.Process.Kill())
			t.Fatalf("not after %s: %s\n%s", patience, what, <-d.said)
		}
	}
}

// awaitProgress waits until something new was sent, read, and published by every sink.
func (d *loadedDemo) awaitProgress(t *testing.T) {
	t.Helper()
	sent := d.sum(t, "millrace_collect_items_total")
	d.await(t, "new items are collected", func() bool { return d.sum(t, "millrace_collect_items_total") > sent+100 })
	for _, sinkAndJob := range [][2]string{{"iceberg", "crusher-prime"}, {"iceberg", "lms"}, {"elastic", "lms"}} {
		sink, job := sinkAndJob[0], sinkAndJob[1]
		made := d.sum(t, "millrace_engine_rows_total", job)
		d.await(t, "the rows of "+job+" are in "+sink, func() bool {
			return d.sum(t, "millrace_engine_published_rows_total", `sink="`+sink+`"`, job) > made
		})
	}
	require.Zero(t, d.sum(t, "millrace_job_failed"))
}

// finish stops the demo, lets it come to rest in a last short run, and looks whether the ledger balances.
func (d *loadedDemo) finish(t *testing.T) {
	t.Helper()
	require.NoError(t, d.cmd.Process.Signal(syscall.SIGINT))
	text := <-d.said
	require.NoError(t, d.cmd.Wait(), text)
	require.NotContains(t, text, "job failed")

	out, err := exec.Command(millrace, append(d.args, "--for", "2s", "-o", "json")...).Output()
	require.NoError(t, err, "%s", out)
	var ledger struct {
		Sent, Lake, Rejects, Waiting int64
		DeadLetters                  int64 `json:"dead_letters"`
		Rows                         map[string]int64
		Balanced                     bool
	}
	require.NoError(t, json.Unmarshal(out, &ledger), "%s", out)
	t.Logf("%d sent, %d + %d in the lake, rows %v", ledger.Sent, ledger.Lake, ledger.Rejects, ledger.Rows)
	require.True(t, ledger.Balanced, "%s", out)
	require.Positive(t, ledger.Sent)
	require.Zero(t, ledger.Waiting)
	require.Zero(t, ledger.DeadLetters)
	for table, n := range ledger.Rows {
		require.Positive(t, n, table)
	}
}
