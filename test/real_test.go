package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRealServers runs the demo on a real Kafka and a real OpenSearch in place of the embedded log and index: the same ledger must
// balance, by addresses alone. Both must be new: it reads the whole topic.
func TestRealServers(t *testing.T) {
	kafka, index := os.Getenv("MILLRACE_KAFKA"), os.Getenv("MILLRACE_OPENSEARCH")
	if kafka == "" || index == "" {
		t.Skip("MILLRACE_KAFKA and MILLRACE_OPENSEARCH name no servers; scripts/servers starts them")
	}
	out, err := exec.Command(millrace, "demo", "--data-dir", filepath.Join(t.TempDir(), "data"), "--listen", "127.0.0.1:0",
		"--brokers", kafka, "--index-url", index, "--for", "15s", "-o", "json").Output()
	require.NoError(t, err, "%s", out)
	var ledger struct {
		Sent     int64
		Rows     map[string]int64
		Balanced bool
	}
	require.NoError(t, json.Unmarshal(out, &ledger), "%s", out)
	require.True(t, ledger.Balanced, "%s", out)
	require.Positive(t, ledger.Sent)
	for table, n := range ledger.Rows {
		require.Positive(t, n, table)
	}
}
