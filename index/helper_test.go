package index_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/index"
)

// clock is what the servers of tests take for now.
var clock = time.Date(2026, 11, 23, 12, 30, 0, 0, time.UTC)

func open(t *testing.T, path string) *index.Server {
	t.Helper()
	s, err := index.Open(index.Config{Path: path, Now: func() time.Time { return clock }})
	require.NoError(t, err)
	return s
}

func setup(t *testing.T) http.Handler {
	t.Helper()
	s := open(t, filepath.Join(t.TempDir(), "index.db"))
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// send does one request and returns the status and the body.
func send(t *testing.T, h http.Handler, method, path, body string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	out, err := io.ReadAll(w.Result().Body)
	require.NoError(t, err)
	require.Equal(t, "Elasticsearch", w.Result().Header.Get("X-Elastic-Product"))
	return w.Code, string(out)
}

// ok does one request that must succeed and returns its body.
func ok(t *testing.T, h http.Handler, method, path, body string) map[string]any {
	t.Helper()
	status, text := send(t, h, method, path, body)
	require.Less(t, status, 300, "%s %s %s: %s", method, path, body, text)
	var v map[string]any
	require.NoError(t, json.Unmarshal([]byte(text), &v), text)
	return v
}

// field returns a part of a JSON value by a dotted path.
func field(t *testing.T, v any, path string) any {
	t.Helper()
	for part := range strings.SplitSeq(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[part]
		case []any:
			var i int
			require.NoError(t, json.Unmarshal([]byte(part), &i))
			require.Less(t, i, len(at), "%s in %v", path, v)
			v = at[i]
		default:
			require.Fail(t, "no such part", "%s in %v", path, v)
		}
	}
	return v
}
