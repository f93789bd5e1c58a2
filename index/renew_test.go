package index_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"millrace/index"
)

// ask answers one request.
func ask(s *index.Server, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// documents is a bulk request that puts some documents with a version and a value.
func documents(from, to, version int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "{\"index\":{\"_index\":\"rows\",\"_id\":\"%d\",\"version\":%d,\"version_type\":\"external_gte\"}}\n{\"value\":%d}\n", i, version, version)
	}
	return b.String()
}

// requireValues sees that each document has the value.
func requireValues(t *testing.T, s *index.Server, n, value int) {
	t.Helper()
	w := ask(s, http.MethodPost, "/rows/_search", `{"size":0,"track_total_hits":true,"aggs":{"least":{"min":{"field":"value"}},"most":{"max":{"field":"value"}}}}`)
	require.Equal(t, 200, w.Code, w.Body)
	var answer struct {
		Hits struct {
			Total struct{ Value int }
		}
		Aggregations struct{ Least, Most struct{ Value float64 } }
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
	require.Equal(t, n, answer.Hits.Total.Value)
	require.InDelta(t, value, answer.Aggregations.Least.Value, 0)
	require.InDelta(t, value, answer.Aggregations.Most.Value, 0)
}

// Documents that are replaced again and again do not fill the memory: the database is opened again in time, and neither who writes nor who
// searches meanwhile notices.
func TestReplacedDocumentsDoNotFillMemory(t *testing.T) {
	t.Parallel()
	const docs, rounds = 20_000, 8
	registry := prometheus.NewRegistry()
	s, err := index.Open(index.Config{Path: filepath.Join(t.TempDir(), "index.db"), Registerer: registry})
	require.NoError(t, err)
	s.RenewAfter(20)
	done := make(chan struct{})
	var searching sync.WaitGroup
	var faults []string
	searching.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if w := ask(s, http.MethodPost, "/rows/_search?ignore_unavailable=true", `{"size":5}`); w.Code != 200 {
				faults = append(faults, w.Body.String())
			}
		}
	})
	for round := range rounds {
		for from := 0; from < docs; from += 2000 {
			w := ask(s, http.MethodPost, "/_bulk", documents(from, from+2000, round))
			require.Equal(t, 200, w.Code, w.Body)
			require.NotContains(t, w.Body.String(), `"errors":true`)
		}
	}
	close(done)
	searching.Wait()
	require.Empty(t, faults)
	requireValues(t, s, docs, rounds-1)
	require.NoError(t, s.Close())
	require.Greater(t, renewals(t, registry), 1.0)
}

// What was replaced is taken out of the file when the database is opened again.
func TestReplacedDocumentsDoNotFillTheFile(t *testing.T) {
	t.Parallel()
	const docs, rounds = 20_000, 20
	path := filepath.Join(t.TempDir(), "index.db")
	s, err := index.Open(index.Config{Path: path})
	require.NoError(t, err)
	s.RenewAfter(3 * docs / 2048)
	rnd := rand.New(rand.NewPCG(1, 2))
	put := func(part float64, version int) {
		var b strings.Builder
		for i := range docs {
			if rnd.Float64() > part {
				continue
			}
			text := sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(version)}) // does not compress
			fmt.Fprintf(&b, "{\"index\":{\"_index\":\"rows\",\"_id\":\"%d\",\"version\":%d,\"version_type\":\"external_gte\"}}\n{\"text\":\"%x\"}\n", i, version, text)
		}
		w := ask(s, http.MethodPost, "/_bulk", b.String())
		require.Equal(t, 200, w.Code, w.Body)
		require.NotContains(t, w.Body.String(), `"errors":true`)
	}
	put(1, 1)
	for round := range rounds {
		put(0.3, round+2)
	}
	require.NoError(t, s.Close())
	s, err = index.Open(index.Config{Path: path})
	require.NoError(t, err)
	rows, err := s.Rows("rows")
	require.NoError(t, err)
	require.Less(t, rows, int64(2*docs))
	require.NoError(t, s.Close())
}

func renewals(t *testing.T, registry *prometheus.Registry) float64 {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "millrace_index_renewals_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return 0
}

// A database that DuckDB gives up, here because a checkpoint is aborted, is opened again: who repeats a request gets it done, once.
func TestDatabaseIsGivenUp(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	s, err := index.OpenWith(index.Config{Path: filepath.Join(t.TempDir(), "index.db"), Registerer: registry}, map[string]string{
		"debug_checkpoint_abort": "before_truncate", "checkpoint_threshold": "100KB",
	})
	require.NoError(t, err)
	const docs = 20_000
	refused := 0
	for from := 0; from < docs; {
		switch w := ask(s, http.MethodPost, "/_bulk", documents(from, from+1000, 1)); w.Code {
		case 200:
			require.NotContains(t, w.Body.String(), `"errors":true`)
			from += 1000
		case 503:
			require.Contains(t, w.Body.String(), "repeat the request")
			refused++
			require.Less(t, refused, 10)
		default:
			require.Equal(t, 200, w.Code, w.Body)
		}
	}
	require.Positive(t, refused, "the checkpoint was not aborted")
	requireValues(t, s, docs, 1)
	require.EqualValues(t, refused, renewals(t, registry))
	require.NoError(t, s.Close())
}
