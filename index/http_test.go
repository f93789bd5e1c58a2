package index_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"millrace/index"
)

func TestBodiesAreCheckedBeforeTheyAreRead(t *testing.T) {
	t.Parallel()
	s, err := index.Open(index.Config{Path: filepath.Join(t.TempDir(), "index.db"), MaxBodyBytes: 1000})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	zip := func(body string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, err := w.Write([]byte(body))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return b.String()
	}
	large := `{"k":"` + strings.Repeat("x", 2000) + `"}`
	for _, test := range []struct {
		name, body, media, encoding string
		want                        int
	}{
		{"plain", `{"k":"a"}`, "application/json", "", 201},
		{"with a parameter", `{"k":"a"}`, "Application/JSON; charset=UTF-8", "", 201},
		{"versioned", `{"k":"a"}`, "application/vnd.elasticsearch+json;compatible-with=8", "", 201},
		{"gzip", zip(`{"k":"a"}`), "application/json", "gzip", 201},
		{"too large", large, "application/json", "", 413},
		{"a bomb", zip(large), "application/json", "gzip", 413},
		{"no gzip", `{"k":"a"}`, "application/json", "gzip", 400},
		{"cut gzip", zip(`{"k":"a"}`)[:20], "application/json", "gzip", 400},
		{"other compression", `{"k":"a"}`, "application/json", "br", 415},
		{"a form", `{"k":"a"}`, "application/x-www-form-urlencoded", "", 406},
		{"no type", `{"k":"a"}`, "", "", 406},
	} {
		r := httptest.NewRequest("POST", "/a/_doc", strings.NewReader(test.body))
		r.Header.Set("Content-Type", test.media)
		r.Header.Set("Content-Encoding", test.encoding)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		require.Equal(t, test.want, w.Code, "%s: %s", test.name, w.Body)
	}
}

func TestVersionedMediaTypeIsAnsweredInKind(t *testing.T) {
	t.Parallel()
	h := setup(t)
	r := httptest.NewRequest("GET", "/?pretty", nil)
	r.Header.Set("Accept", "application/vnd.elasticsearch+json;compatible-with=8")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, "application/vnd.elasticsearch+json;compatible-with=8", w.Header().Get("Content-Type"))
	require.Contains(t, w.Body.String(), "\n  \"tagline\"")
}

// Names and values of clients never become SQL.
func TestNamesAndValuesAreNotSQL(t *testing.T) {
	t.Parallel()
	h := setup(t)
	ok(t, h, "PUT", "/keep/_doc/1", `{"k":"kept"}`)
	for i, evil := range []string{
		`'; DROP TABLE t1; --`, `"; DROP TABLE t1; --`, `') OR true --`, `$1`, `f0`, `\`, `%`, `x"y'z`, `a) FROM t1; SELECT (1`, "nul\u0000l", `{{}}`, `FOO`, `foo`,
	} {
		name := fmt.Sprintf("e%d", i)
		quoted := strings.ReplaceAll(fmt.Sprintf("%q", evil), `\x00`, `\u0000`)
		doc := fmt.Sprintf(`{%s:%s}`, quoted, quoted)
		ok(t, h, "PUT", "/"+name+"/_doc/1", doc)
		for _, kind := range []string{"term", "match", "prefix"} {
			got := ok(t, h, "GET", "/"+name+"/_count", fmt.Sprintf(`{"query":{%q:%s}}`, kind, doc))
			require.InDelta(t, 1, got["count"], 0, "%s %s", kind, evil)
		}
		require.InDelta(t, 0, ok(t, h, "GET", "/keep/_count", fmt.Sprintf(`{"query":{"term":{"k":%s}}}`, quoted))["count"], 0)
		got := ok(t, h, "GET", "/"+name+"/_search", fmt.Sprintf(
			`{"sort":[{%[1]s:"asc"}],"query":{"range":{%[1]s:{"gte":%[1]s}}},"aggs":{"a":{"terms":{"field":%[1]s,"missing":%[1]s}},"c":{"composite":{"sources":[{%[1]s:{"terms":{"field":%[1]s}}}]}}}}`, quoted))
		require.Equal(t, field(t, got, "hits.hits.0.sort.0"), field(t, got, "aggregations.a.buckets.0.key"), evil)
	}
	require.InDelta(t, 1, ok(t, h, "GET", "/keep/_count", "")["count"], 0)
}

func TestFieldsThatDifferInCaseAreTwo(t *testing.T) {
	t.Parallel()
	h := setup(t)
	ok(t, h, "PUT", "/a/_doc/1", `{"Name":"x","name":5}`)
	require.InDelta(t, 1, ok(t, h, "GET", "/a/_count", `{"query":{"bool":{"must":[{"term":{"Name":"x"}},{"term":{"name":5}}]}}}`)["count"], 0)
}

// Writers at once, each to the same documents, and readers that must see whole bulks.
func TestConcurrentWritersAndReaders(t *testing.T) {
	t.Parallel()
	h := setup(t)
	ok(t, h, "PUT", "/a", `{}`)
	var wg sync.WaitGroup
	for writer := range 4 {
		wg.Go(func() {
			for round := range 20 {
				var b strings.Builder
				for i := range 10 {
					fmt.Fprintf(&b, "{\"index\":{\"_id\":\"%d\"}}\n{\"n\":%d,\"w%d\":[1,2]}\n", i, round, writer)
				}
				got := ok(t, h, "POST", "/a/_bulk", b.String())
				if got["errors"] != false {
					t.Errorf("bulk: %v", got)
				}
			}
		})
		wg.Go(func() {
			for range 20 {
				got := ok(t, h, "GET", "/a/_search", `{"size":0,"aggs":{"n":{"cardinality":{"field":"n"}},"s":{"sum":{"field":"w0"}}}}`)
				hits := field(t, got, "hits.total.value").(float64)
				if n := field(t, got, "aggregations.n.value").(float64); hits != 0 && (hits != 10 || n != 1) {
					t.Errorf("half a bulk: %v", got)
				}
			}
		})
	}
	wg.Wait()
	require.InDelta(t, 799, field(t, ok(t, h, "GET", "/a/_search", `{"sort":[{"_doc":"desc"}],"seq_no_primary_term":true}`), "hits.hits.0._seq_no"), 0)
}

func TestRequestThatIsCancelled(t *testing.T) {
	t.Parallel()
	h := setup(t)
	ok(t, h, "PUT", "/a/_doc/1", `{"k":"a"}`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, path := range []string{"/a/_search", "/a/_doc/2"} {
		method := map[bool]string{true: "POST", false: "PUT"}[path == "/a/_search"]
		r := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader("{}"))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
	}
	require.InDelta(t, 1, ok(t, h, "GET", "/a/_count", "")["count"], 0)
}

func TestSearchBeyondItsMemoryIsRefused(t *testing.T) {
	t.Parallel()
	s, err := index.Open(index.Config{Path: filepath.Join(t.TempDir(), "index.db"), MemoryLimit: 24 << 20})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	var status int
	var text string
	for batch := range 40 {
		status, text = send(t, s, "POST", "/_bulk", string(rowBatch(batch)))
		require.Equal(t, 200, status, text)
	}
	status, text = send(t, s, "POST", "/rows/_search", `{"size":0,"aggs":{"p":{"terms":{"field":"row_id","size":60000},"aggs":{"s":{"percentiles":{"field":"score"}},"c":{"cardinality":{"field":"_sources"}}}}}}`)
	if status != 200 { // how much is too much is DuckDB's to say
		require.Equal(t, 429, status, text)
		require.Contains(t, text, "circuit_breaking_exception")
	}
	require.InDelta(t, 40_000, ok(t, s, "GET", "/rows/_count", "")["count"], 0)
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	s, err := index.Open(index.Config{Path: filepath.Join(t.TempDir(), "index.db"), Registerer: registry})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	ok(t, s, "POST", "/a/_bulk", "{\"index\":{\"_id\":\"1\"}}\n{\"n\":1}\n{\"create\":{\"_id\":\"1\"}}\n{}\n{\"index\":{}}\n{\"n\":\"x\"}\n{\"delete\":{\"_id\":\"1\"}}\n")
	families, err := registry.Gather()
	require.NoError(t, err)
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "millrace_index_documents_total" {
				got[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	require.Equal(t, map[string]float64{"created": 1, "conflict": 1, "refused": 1, "deleted": 1}, got)
}

// A client that goes away in the midst of a search leaves nothing behind that others run into.
func TestClientsThatGoAway(t *testing.T) {
	t.Parallel()
	h := setup(t)
	ok(t, h, "PUT", "/a/_doc/1", `{"x":1}`)
	for i := range 300 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*10*time.Microsecond)
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/a/_doc/1", nil)
		h.ServeHTTP(httptest.NewRecorder(), r)
		cancel()
		ok(t, h, "GET", "/a/_doc/1", "")
	}
}
