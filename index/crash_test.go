package index_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/index"
)

// serveEnv makes the test binary serve the file it names instead of running tests: the process that is killed.
const serveEnv = "MILLRACE_INDEX_TEST_SERVE"

func TestMain(m *testing.M) {
	if path := os.Getenv(serveEnv); path != "" {
		serve(path)
		return
	}
	os.Exit(m.Run())
}

func serve(path string) {
	s, err := index.Open(index.Config{Path: path})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("http://" + l.Addr().String())
	fmt.Println(http.Serve(l, s)) //nolint:gosec // ends by being killed
}

// startServer runs a server process and returns its address.
func startServer(t *testing.T, path string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"="+path)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return cmd, strings.TrimSpace(line)
}

func TestAcknowledgedDocumentsSurviveAKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "index.db")
	acknowledged := map[string]int{} // by id, the version
	for round := range 5 {
		cmd, url := startServer(t, path)
		var mu sync.Mutex
		var wg sync.WaitGroup
		enough := make(chan struct{}, 1000)
		for writer := range 3 {
			wg.Go(func() {
				for batch := 0; ; batch++ {
					var body bytes.Buffer
					versions := map[string]int{}
					for i := range 20 {
						id := fmt.Sprintf("%d-%d", writer, (batch*7+i)%50) // written again and again
						version := (round+1)*1_000_000 + batch
						versions[id] = version
						fmt.Fprintf(&body, "{\"index\":{\"_index\":\"a\",\"_id\":%q,\"version\":%d,\"version_type\":\"external_gte\"}}\n{\"v\":%d,\"r%d\":\"x\"}\n", id, version, version, round)
					}
					res, err := http.Post(url+"/_bulk", "application/json", &body)
					if err != nil {
						return // killed
					}
					res.Body.Close()
					if res.StatusCode != http.StatusOK {
						return
					}
					mu.Lock()
					for id, v := range versions {
						acknowledged[id] = v
					}
					mu.Unlock()
					select {
					case enough <- struct{}{}:
					default:
					}
				}
			})
		}
		for range 5 + 11*round {
			<-enough
		}
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
		wg.Wait()
	}
	s := open(t, path)
	defer func() { require.NoError(t, s.Close()) }()
	require.NotEmpty(t, acknowledged)
	for id, version := range acknowledged {
		got := ok(t, s, "GET", "/a/_doc/"+id, "")
		require.GreaterOrEqual(t, int(got["_version"].(float64)), version, id)
		require.Equal(t, got["_version"], field(t, got, "_source.v"), id)
	}
	require.InDelta(t, len(acknowledged), ok(t, s, "GET", "/a/_count", "")["count"], 0, "each document once")
}

func TestDataIsThereAfterClose(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "index.db")
	s := open(t, path)
	ok(t, s, "PUT", "/a", `{"mappings":{"dynamic":"strict","properties":{"k":{"type":"keyword"}}},"aliases":{"x":{"is_write_index":true}}}`)
	ok(t, s, "PUT", "/x/_doc/1", `{"k":["a","b"]}`)
	ok(t, s, "PUT", "/a/_doc/2?version=9&version_type=external", `{"k":"c"}`)
	ok(t, s, "DELETE", "/a/_doc/2?version=10&version_type=external", "")
	mapping := ok(t, s, "GET", "/a", "")
	require.NoError(t, s.Close())
	require.NoFileExists(t, path+".wal", "closing writes the log into the file")
	status, _ := send(t, s, "PUT", "/a/_doc/3", `{"k":"late"}`)
	require.Equal(t, 503, status)

	s = open(t, path)
	defer func() { require.NoError(t, s.Close()) }()
	require.Equal(t, mapping, ok(t, s, "GET", "/a", ""))
	require.InDelta(t, 1, ok(t, s, "GET", "/x/_count", `{"query":{"term":{"k":"b"}}}`)["count"], 0)
	status, _ = send(t, s, "PUT", "/a/_doc/2?version=9&version_type=external", `{"k":"c"}`)
	require.Equal(t, 409, status, "the tombstone is kept")
	status, _ = send(t, s, "PUT", "/a/_doc/3", `{"other":1}`)
	require.Equal(t, 400, status)
	require.InDelta(t, 3, ok(t, s, "PUT", "/a/_doc/4", `{"k":"d"}`)["_seq_no"], 0)
}
