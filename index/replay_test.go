package index_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A column that became one of lists is there after a crash: what was written before it was closed is a copy of its files as they are
// while it runs.
func TestListColumnSurvivesACrash(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "index.db")
	s := open(t, path)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	ok(t, s, http.MethodPut, "/things/_doc/1", `{"tags":"one","n":1}`)
	ok(t, s, http.MethodPut, "/things/_doc/2", `{"tags":["two","three"],"n":2}`)
	ok(t, s, http.MethodPut, "/things/_doc/3", `{"n":3}`)

	crashed := filepath.Join(dir, "crashed.db")
	for _, suffix := range []string{"", ".wal"} {
		b, err := os.ReadFile(path + suffix)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(crashed+suffix, b, 0o600))
	}
	again := open(t, crashed)
	t.Cleanup(func() { require.NoError(t, again.Close()) })
	for tag, id := range map[string]string{"one": "1", "three": "2"} {
		answer := ok(t, again, http.MethodPost, "/things/_search", `{"query":{"term":{"tags":"`+tag+`"}}}`)
		require.Equal(t, id, field(t, answer, "hits.hits.0._id"))
	}
	answer := ok(t, again, http.MethodPost, "/things/_count", `{"query":{"bool":{"must_not":{"exists":{"field":"tags"}}}}}`)
	require.InDelta(t, 1, field(t, answer, "count"), 0)
}
