package test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/delivery/catalog/catalogtest"
)

// output runs the binary and returns what it prints.
func output(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(millrace, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%v: %s", args, stderr.String())
	return strings.TrimSpace(string(out))
}

// TestTrinoReadsWhatServeShows: of what a demo has made a real Trino, through the catalogue of serve, and millrace sql say the same, of
// every table. That it is right says the ledger.
func TestTrinoReadsWhatServeShows(t *testing.T) {
	t.Parallel()
	catalogtest.Need(t)
	data := filepath.Join(t.TempDir(), "data")
	made := output(t, "demo", "--data-dir", data, "--listen", "127.0.0.1:0", "--for", "4s", "--rate", "500", "--flush", "200ms", "-o", "json")
	require.Contains(t, made, `"balanced": true`)
	s, at := startServe(t, "--data-dir", data)
	trino := catalogtest.Open(t, at[0]+"/iceberg", output(t, "token", "add", "--data-dir", data, "--name", "trino"), catalogtest.Local)

	type table struct {
		Namespace, Table string
		Rows             int64
	}
	total := int64(0)
	for line := range strings.Lines(output(t, "tables", "--data-dir", data, "-o", "jsonl")) {
		var tbl table
		require.NoError(t, json.Unmarshal([]byte(line), &tbl))
		columns := "count(*), count(DISTINCT _id), sum(_rev), count(DISTINCT account_id || env_id)"
		if tbl.Namespace == "raw" {
			columns = `count(*), count(DISTINCT "offset"), sum("offset"), count(DISTINCT account || env)`
		}
		query := fmt.Sprintf("SELECT %s FROM %s.%s", columns, tbl.Namespace, tbl.Table)
		rows := trino.Query(t, query)
		require.Len(t, rows, 1)
		values := make([]string, len(rows[0]))
		for i, v := range rows[0] {
			if v != nil {
				values[i] = fmt.Sprint(v)
			}
		}
		answer := strings.Split(output(t, "sql", "--data-dir", data, "-o", "csv", query), "\n")
		require.Len(t, answer, 2)
		require.Equal(t, strings.Join(values, ","), answer[1], query)
		require.Equal(t, fmt.Sprint(tbl.Rows), values[0], query)
		total += tbl.Rows
	}
	require.Greater(t, total, int64(2000))
	s.interrupt(t)
}
