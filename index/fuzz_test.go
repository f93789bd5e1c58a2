package index_test

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"millrace/index"
)

// fuzzed is a server with a few documents for fuzzers.
func fuzzed(f *testing.F) *index.Server {
	f.Helper()
	s, err := index.Open(index.Config{Path: filepath.Join(f.TempDir(), "index.db")})
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, s.Close()) })
	for _, body := range []string{
		`{"k":"a","tags":["x","y"],"n":1,"x":0.5,"b":true,"d":"2026-11-23T10:00:00Z","o":{"p":"q"}}`,
		`{"k":"b","n":-2,"x":1.5,"b":false,"d":0}`, `{}`,
	} {
		r := httptest.NewRequest("POST", "/a/_doc", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		require.Equal(f, 201, w.Code)
	}
	return s
}

// scripted adds the bodies of the scripts that go to one kind of address.
func scripted(f *testing.F, address string) {
	f.Helper()
	files, err := filepath.Glob("testdata/api/*")
	require.NoError(f, err)
	for _, name := range files {
		text, err := os.ReadFile(name)
		require.NoError(f, err)
		for step := range strings.SplitSeq(string(text), "\nsend") {
			_, rest, _ := strings.Cut(step, "\n")
			first, rest, _ := strings.Cut(rest, "\n")
			body, _, _ := strings.Cut(rest, "----")
			if strings.Contains(first, address) && strings.TrimSpace(body) != "" {
				f.Add(body)
			}
		}
	}
}

// Whatever a search says, it is answered or refused, never a fault of the server.
func FuzzSearch(f *testing.F) {
	s := fuzzed(f)
	scripted(f, "_search")
	scripted(f, "_count")
	f.Fuzz(func(t *testing.T, body string) { fuzzOne(t, s, "/a/_search", body) })
}

// Whatever a bulk request says, it is answered or refused.
func FuzzBulk(f *testing.F) {
	s := fuzzed(f)
	scripted(f, "_bulk")
	f.Fuzz(func(t *testing.T, body string) {
		status, answer := fuzzOne(t, s, "/a/_bulk", body)
		if status == 200 {
			require.NotContains(t, answer, `"status":5`)
		}
	})
}

func fuzzOne(t *testing.T, s *index.Server, path, body string) (int, string) {
	t.Helper()
	r := httptest.NewRequest("POST", path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	require.Less(t, w.Code, 500, "%s\n%s", body, w.Body)
	require.True(t, json.Valid(w.Body.Bytes()), w.Body)
	return w.Code, w.Body.String()
}

// A document is taken exactly when encoding/json takes it too, with the exceptions that are documented, and is kept as it is.
func FuzzDocument(f *testing.F) {
	s := fuzzed(f)
	for _, seed := range []string{`{"a":"\u00fc\ud834\udd1e\n"}`, `{"a":[1,[2.5e-3,null],{"b":true}]}`, `{"a":1,"a":2}`, "{\"a\":\"\xff\"}", `{"a":"\ud834"}`, `{"a":-0}`, `{"":1}`, `{"a":01}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, doc string) {
		r := httptest.NewRequest("PUT", "/free/_doc/1", strings.NewReader(doc))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		require.Less(t, w.Code, 500, "%q %s", doc, w.Body)
		if w.Code >= 300 {
			return
		}
		require.True(t, json.Valid([]byte(doc)), doc)
		require.True(t, utf8.ValidString(doc))
		r = httptest.NewRequest("GET", "/free/_source/1", nil)
		w = httptest.NewRecorder()
		s.ServeHTTP(w, r)
		require.JSONEq(t, doc, w.Body.String())
	})
}
