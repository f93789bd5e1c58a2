package elastic_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/index"
	"millrace/plan"
	"millrace/sink"
	"millrace/sink/elastic"
	"millrace/sink/sinktest"
)

// harness is a data version of its own on a server.
type harness struct {
	url     string
	version string
}

var versions atomic.Int64

// embedded starts the embedded index on the loopback interface.
func embedded(t testing.TB) string {
	t.Helper()
	s, err := index.Open(index.Config{Path: filepath.Join(t.TempDir(), "index.db")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return server.URL
}

// server returns the address of a real server, or skips the test.
func server(t testing.TB, name string) string {
	t.Helper()
	variable := "MILLRACE_" + strings.ToUpper(name)
	url := os.Getenv(variable)
	if url == "" {
		t.Skipf("%s is not set: scripts/servers/%s.sh starts a server for it", variable, name)
	}
	return url
}

func newHarness(t testing.TB, url string) *harness {
	t.Helper()
	h := &harness{url, fmt.Sprintf("t%d-%d", time.Now().UnixNano(), versions.Add(1))}
	t.Cleanup(func() {
		for _, table := range []string{"quiz", "visit", "raw"} {
			h.do(t, http.MethodDelete, "/"+h.index(table)+"?ignore_unavailable=true", "")
		}
	})
	return h
}

func (h *harness) index(table string) string {
	return elastic.IndexName(table, "acme", "prod", h.version)
}

func (h *harness) config() elastic.Config {
	return elastic.Config{URLs: []string{h.url}, Plan: sinktest.Plan(), DataVersion: h.version}
}

func (h *harness) Open(t testing.TB) sink.Sink {
	t.Helper()
	s, err := elastic.New(h.config())
	require.NoError(t, err)
	return s
}

func (h *harness) do(t testing.TB, method, path, body string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, h.url+path, strings.NewReader(body))
	if t.Context().Err() != nil { // clean-up
		req, err = http.NewRequest(method, h.url+path, strings.NewReader(body)) //nolint:noctx // the test's context has ended
	}
	require.NoError(t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, answer
}

func (h *harness) Rows(t testing.TB, table string) map[string]map[string]any {
	t.Helper()
	status, answer := h.do(t, http.MethodPost, "/"+h.index(table)+"/_search?ignore_unavailable=true&allow_partial_search_results=false", `{"size":10000}`)
	require.Equal(t, 200, status, string(answer))
	var found struct {
		Hits struct {
			Hits []struct {
				ID     string         `json:"_id"`
				Source map[string]any `json:"_source"`
			} `json:"hits"`
		} `json:"hits"`
	}
	d := json.NewDecoder(bytes.NewReader(answer))
	d.UseNumber()
	require.NoError(t, d.Decode(&found))
	rows := map[string]map[string]any{}
	for _, hit := range found.Hits.Hits {
		require.Equal(t, hit.ID, hit.Source["row_id"])
		row := map[string]any{"_id": hit.ID}
		for _, c := range columns(table) {
			if v, ok := hit.Source[c.Name]; ok {
				row[c.Name] = typed(t, c.Type, v)
			}
		}
		rows[hit.ID] = row
	}
	return rows
}

func columns(table string) []plan.Column {
	for _, t := range sinktest.Plan().Tables {
		if t.Name == table {
			return append(t.Schema.Columns, plan.MetaColumns...)
		}
	}
	return nil
}

// typed turns a JSON value of a document into the column's.
func typed(t testing.TB, typ plan.Type, v any) any {
	t.Helper()
	switch typ {
	case plan.Long:
		n, err := v.(json.Number).Int64()
		require.NoError(t, err)
		return n
	case plan.Double:
		f, err := v.(json.Number).Float64()
		require.NoError(t, err)
		return f
	case plan.Timestamp:
		at, err := time.Parse(time.RFC3339Nano, v.(string))
		require.NoError(t, err)
		return at
	case plan.Bytes:
		b, err := base64.StdEncoding.DecodeString(v.(string))
		require.NoError(t, err)
		return b
	case plan.Strings:
		list := []string{}
		for _, item := range v.([]any) {
			list = append(list, item.(string))
		}
		return list
	}
	return v
}

func features(t *testing.T) sinktest.Features {
	return sinktest.Features{
		StaleRevisions: true,
		RefusesForeign: true,
		Rejects: func(id string) plan.Row {
			r := sinktest.Quiz(t, id, 1, 1)
			r.Value = encodeQuiz(t, plan.Cell{Bytes: []byte(strings.Repeat("x", 40_000))}, 1) // longer than a keyword may be
			return r
		},
	}
}

// encodeQuiz is the value of a row of sinktest.TableQuiz.
func encodeQuiz(t testing.TB, student plan.Cell, score float64) []byte {
	t.Helper()
	value, err := sinktest.Plan().Tables[sinktest.TableQuiz].Schema.Append(nil, []plan.Cell{
		student, {Float: score}, {Int: 1}, {Bool: true}, {Int: 1}, {Bytes: []byte{1}}, {}, {Null: true},
	})
	require.NoError(t, err)
	return value
}

func TestSinkOnEmbeddedIndex(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, features(t), func(t testing.TB) sinktest.Harness { return newHarness(t, embedded(t)) })
}

func TestSinkOnElasticsearch(t *testing.T) {
	t.Parallel()
	url := server(t, "elasticsearch")
	sinktest.Run(t, features(t), func(t testing.TB) sinktest.Harness { return newHarness(t, url) })
}

func TestSinkOnOpenSearch(t *testing.T) {
	t.Parallel()
	url := server(t, "opensearch")
	sinktest.Run(t, features(t), func(t testing.TB) sinktest.Harness { return newHarness(t, url) })
}

func TestNotANumberIsRejected(t *testing.T) {
	t.Parallel()
	h := newHarness(t, embedded(t))
	s := h.Open(t)
	require.NoError(t, s.Begin(t.Context(), sinktest.First(), nil))
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		r := sinktest.Quiz(t, "bad", 1, 1)
		r.Value = encodeQuiz(t, plan.Cell{Bytes: []byte("s")}, bad)
		rejected, err := s.Publish(t.Context(), sink.Batch{Rows: []plan.Row{r, sinktest.Quiz(t, "good", 1, 1)}})
		require.NoError(t, err)
		require.Len(t, rejected, 1)
		require.Contains(t, rejected[0].Reason, "column score")
	}
	require.Len(t, h.Rows(t, "quiz"), 1)
	require.NoError(t, s.Close())
}
