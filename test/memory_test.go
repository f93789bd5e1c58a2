package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/eventlog"
	"millrace/eventlog/broker"
	"millrace/record"
	"millrace/sim"
)

// TestMemory has a server read a log that is there already, which is when its jobs hold most: they take what they can get. At no moment
// it holds more than --memory says.
func TestMemory(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("reads a hundred megabytes")
	}
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells what a process has held at most")
	}
	lookAtSources(t)
	const items, bound = 60_000, 500 // MB
	data := filepath.Join(t.TempDir(), "data")
	require.NoError(t, exec.Command(millrace, "key", "add", "--data-dir", data, "--account", "a", "--env", "e", "--source-type", "EDGENUITY_LMS").Run())
	fillLog(t, filepath.Join(data, "log"), items)

	s, at := startServe(t, "--data-dir", data, "--memory", strconv.Itoa(bound))
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(5 * time.Minute)
	for metric(t, at[0], "millrace_engine_records_total") < 2*items { // by two jobs
		select {
		case <-tick.C:
		case err := <-s.done:
			t.Fatalf("the server ended: %v", err)
		case <-deadline:
			t.Fatal("the jobs have not read the log after five minutes")
		}
	}
	held := mostHeld(t, s.cmd.Process.Pid)
	s.interrupt(t)
	t.Logf("held %d MB at most", held/1e6)
	require.LessOrEqual(t, held, int64(bound*1e6))
}

// mostHeld is how many bytes of memory a process has held at most.
func mostHeld(t *testing.T, pid int) (bytes int64) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	_, err = fmt.Sscan(rest, &bytes)
	require.NoError(t, err, string(status))
	return bytes << 10
}

// fillLog makes a log of a simulated district's first items.
func fillLog(t *testing.T, dir string, items int) {
	t.Helper()
	b, err := broker.Open(broker.Config{Dir: dir})
	require.NoError(t, err)
	log, err := eventlog.Open(t.Context(), eventlog.Config{Brokers: []string{b.Addr()}})
	require.NoError(t, err)
	district, err := sim.New(sim.Config{Students: 2000})
	require.NoError(t, err)
	for batch := []record.Item(nil); items > 0; batch = batch[:0] {
		for len(batch) < min(items, 5000) {
			p := district.Next()
			for _, e := range p.Items {
				if e.Kind != record.Reject && len(batch) < min(items, 5000) {
					batch = append(batch, record.Item{
						Account: "a", Env: "e", SourceType: "EDGENUITY_LMS", Sensor: "https://example.edu/sensor",
						Kind: e.Kind, ID: e.ID, SendTime: p.At, ReceivedAt: p.At, Bytes: p.Body[e.From:e.To],
					})
				}
			}
		}
		require.NoError(t, log.Append(t.Context(), batch))
		items -= len(batch)
	}
	require.NoError(t, log.Close())
	require.NoError(t, b.Close())
}
