package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// jsonl runs millrace and decodes the objects that it prints.
func jsonl(t *testing.T, args ...string) (objects []map[string]any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(output(t, args...)))
	for d.More() {
		var o map[string]any
		require.NoError(t, d.Decode(&o))
		objects = append(objects, o)
	}
	return objects
}

// tableRows are the rows of the version that serves by table and id, without what differs between data versions.
func tableRows(t *testing.T, data string) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	for _, table := range []string{"activity_view", "annotation", "enrollment", "item_response", "quiz_submission", "session_event"} {
		for _, row := range jsonl(t, "rows", table, "--data-dir", data) {
			id := table + " " + row["_id"].(string)
			require.NotContains(t, all, id)
			for _, name := range []string{"_rev", "_epoch", "_lineage"} {
				delete(row, name)
			}
			all[id] = row
		}
	}
	return all
}

// A person is forgotten, while forget is killed at any moment and given again: what is left is exactly what the person had no part in, the
// ledger balances, and no file has the person's id.
func TestForget(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	output(t, "demo", "--data-dir", data, "--listen", "127.0.0.1:0", "--for", "12s", "--rate", "300", "--students", "50", "--flush", "500ms", "--table-topics")
	before := tableRows(t, data)
	person := ""
	for id, row := range before {
		if strings.HasPrefix(id, "quiz_submission ") {
			person = row["studentId"].(string)
		}
	}
	require.NotEmpty(t, person, "no quiz was graded")
	gone := map[string]bool{} // positions
	for _, raw := range jsonl(t, "raw", "--data-dir", data) {
		if text, ok := raw["bytes"].(string); ok && (strings.Contains(text, `"`+person+`"`) || strings.Contains(text, `"`+person+`/`)) {
			gone[fmt.Sprintf("%v/%v/%v", raw["topic"], raw["partition"], raw["offset"])] = true
		}
	}
	require.Greater(t, len(gone), 2)
	require.Positive(t, filesWith(t, data, person))

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	moments := rand.New(rand.NewPCG(seed, 0))
	forget := func() (*exec.Cmd, *bytes.Buffer) {
		cmd := exec.Command(millrace, "forget", person, "--yes", "--reason", "asked for it", "--data-dir", data, "--listen", "127.0.0.1:0")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		return cmd, &stderr
	}
	for range 4 {
		cmd, stderr := forget()
		require.NoError(t, cmd.Start())
		var ended error
		done := make(chan struct{})
		go func() {
			defer close(done)
			ended = cmd.Wait()
		}()
		select {
		case <-done:
			require.NoError(t, ended, "%s", stderr)
		case <-time.After(500*time.Millisecond + time.Duration(moments.Int64N(int64(5*time.Second)))):
			require.NoError(t, cmd.Process.Kill())
			<-done
		}
	}
	cmd, stderr := forget()
	certificate, err := cmd.Output()
	require.NoError(t, err, "%s", stderr)
	require.Contains(t, string(certificate), "was made without the records and takes its place")

	require.Contains(t, output(t, "check", "--data-dir", data), "the ledger balances")
	require.Zero(t, filesWith(t, data, person), "files that have the id")
	after := tableRows(t, data)
	for id, row := range before {
		sources := row["_sources"].([]any)
		if at := strings.Fields(sources[0].(string)); gone[at[len(at)-1]] {
			require.NotContains(t, after, id)
			delete(before, id)
			continue
		}
		require.Contains(t, after, id)
		delete(row, "_sources") // may name another delivery of the same event
		delete(after[id], "_sources")
	}
	require.Equal(t, before, after)
}

// filesWith counts the files below dir that have some text.
func filesWith(t *testing.T, dir, text string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(name)
		if bytes.Contains(b, []byte(text)) {
			n++
			t.Logf("%s has it", name)
		}
		return err
	})
	require.NoError(t, err)
	return n
}
