package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/sim"
)

// TestOfficialFixtures posts each official Caliper fixture and each request captured from real sensors to a running server, a bare
// item wrapped in an envelope, and finds the bytes of every item again in the raw lake.
func TestOfficialFixtures(t *testing.T) {
	t.Parallel()
	shared := os.Getenv("MILLRACE_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "shared")
	}
	if _, err := os.Stat(filepath.Join(shared, "caliper")); err != nil {
		t.Skipf("the official Caliper fixtures are not there: %v", err)
	}
	data := filepath.Join(t.TempDir(), "data")
	s, at := startServe(t, "--data-dir", data, "--flush", "200ms")
	key, err := exec.Command(millrace, "key", "add", "--data-dir", data, "--account", "a", "--env", "e", "--source-type", "EDGENUITY_LMS").Output()
	require.NoError(t, err)
	poster := sim.Poster{URL: at[1], Key: strings.TrimSpace(string(key))}

	sent := map[string]int{} // exact bytes of the items, each with how often it was sent
	post := func(name string, body []byte) {
		var envelope struct{ Data json.RawMessage }
		require.NoError(t, json.Unmarshal(body, &envelope), name)
		if envelope.Data == nil {
			item := bytes.TrimSpace(body)
			body = fmt.Appendf(nil, `{"sensor":"https://example.edu/sensor","sendTime":"2018-08-27T12:00:00.000Z","data":[%s]}`, item)
			sent[string(item)]++
		} else {
			var items []json.RawMessage
			require.NoError(t, json.Unmarshal(envelope.Data, &items), name)
			for _, it := range items {
				sent[string(it)]++
			}
		}
		_, err := poster.Post(t.Context(), body, sim.PostOptions{})
		require.NoError(t, err, name)
	}
	for version, want := range map[string]int{"v1p0": 17, "v1p1": 125} {
		names, err := filepath.Glob(filepath.Join(shared, "caliper", "fixtures", version, "*.json"))
		require.NoError(t, err)
		require.Len(t, names, want, version)
		for _, name := range names {
			body, err := os.ReadFile(name)
			require.NoError(t, err)
			post(name, body)
		}
	}
	captures, err := filepath.Glob(filepath.Join(shared, "caliper", "sensor-captures", "*", "*.body.json"))
	require.NoError(t, err)
	require.Len(t, captures, 5)
	for _, name := range captures {
		body, err := os.ReadFile(name)
		require.NoError(t, err)
		post(name, body)
	}
	s.interrupt(t)

	out, err := exec.Command(millrace, "raw", "--data-dir", data).Output()
	require.NoError(t, err)
	found := map[string]int{}
	for line := range strings.Lines(string(out)) {
		var row struct{ Kind, Bytes string }
		require.NoError(t, json.Unmarshal([]byte(line), &row), line)
		require.NotEqual(t, "reject", row.Kind, line)
		found[row.Bytes]++
	}
	require.Equal(t, sent, found)

	check, err := exec.Command(millrace, "check", "--data-dir", data).CombinedOutput()
	require.NoError(t, err, "%s", check)
}
