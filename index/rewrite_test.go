package index_test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/index"
)

// Rewrite takes what was deleted out of the file, and nothing else.
func TestRewrite(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "it's an index.db")
	s, err := index.Open(index.Config{Path: path})
	require.NoError(t, err)
	const secret = "a person who is to be forgotten"
	for _, name := range []string{"gone", "rows"} {
		w := ask(s, http.MethodPut, "/"+name, `{"mappings":{"properties":{"value":{"type":"long"},"who":{"type":"keyword"}}},"aliases":{"all":{}}}`)
		require.Equal(t, 200, w.Code, w.Body)
	}
	w := ask(s, http.MethodPost, "/_bulk", `{"index":{"_index":"gone","_id":"1"}}`+"\n"+`{"who":"`+secret+`"}`+"\n"+documents(0, 3000, 7)+documents(10, 20, 8))
	require.NotContains(t, w.Body.String(), `"errors":true`)
	require.NoError(t, s.Close()) // it is in the file, and not in the log beside it
	holds := func() bool {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		return bytes.Contains(b, []byte(secret))
	}
	require.True(t, holds())
	s, err = index.Open(index.Config{Path: path})
	require.NoError(t, err)
	require.Equal(t, 200, ask(s, http.MethodDelete, "/gone", "").Code)
	same := func() []string {
		var answers []string
		for _, q := range []string{"/rows/_mapping", "/all/_count", "/rows/_doc/15", "/rows/_doc/2999", "/_cat/indices?h=index,docs.count"} {
			w := ask(s, http.MethodGet, q, "")
			require.Equal(t, 200, w.Code, w.Body)
			answers = append(answers, w.Body.String())
		}
		return answers
	}
	before := same()
	require.NoError(t, s.Close())
	require.True(t, holds(), "nothing to take out: the test shows nothing")
	require.NoError(t, index.Rewrite(path))
	require.False(t, holds())
	s, err = index.Open(index.Config{Path: path})
	require.NoError(t, err)
	require.Equal(t, before, same())
	w = ask(s, http.MethodPost, "/_bulk", documents(0, 10, 9))
	require.NotContains(t, w.Body.String(), `"errors":true`)
	require.NoError(t, s.Close())
	require.ErrorContains(t, index.Rewrite(filepath.Join(t.TempDir(), "no", "file")), "does not exist")
}
