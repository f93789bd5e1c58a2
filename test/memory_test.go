package test

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/eventlog"
	"millrace/eventlog/broker"
	"millrace/internal/held"
	"millrace/record"
	"millrace/sim"
)

// TestMemory has a server read a log that is there already, which is when its jobs hold most: they take what they can get. At no moment that is looked at
// it holds more than --memory says, with the processes of its jobs.
func TestMemory(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("reads a hundred megabytes")
	}
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells what a process has held at most")
	}
	lookAtSources(t)
	const items, bound = 60_000, 600 // MB
	data := filepath.Join(t.TempDir(), "data")
	require.NoError(t, exec.Command(millrace, "key", "add", "--data-dir", data, "--account", "a", "--env", "e", "--source-type", "EDGENUITY_LMS").Run())
	fillLog(t, filepath.Join(data, "log"), items)

	s, at := startServe(t, "--data-dir", data, "--memory", strconv.Itoa(bound))
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(5 * time.Minute)
	most := int64(0)
	for metric(t, at[0], "millrace_engine_records_total") < 2*items { // by two jobs
		select {
		case <-tick.C:
			now, err := held.All(s.cmd.Process.Pid)
			require.NoError(t, err)
			most = max(most, now)
		case err := <-s.done:
			t.Fatalf("the server ended: %v", err)
		case <-deadline:
			t.Fatal("the jobs have not read the log after five minutes")
		}
	}
	s.interrupt(t)
	t.Logf("held %d MB at most", most/1e6)
	require.LessOrEqual(t, most, int64(bound*1e6))
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
