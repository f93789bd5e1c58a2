package elastic_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/index"
	"millrace/internal/retry"
	"millrace/plan"
	"millrace/sink"
	"millrace/sink/elastic"
	"millrace/sink/sinktest"
)

// faulty is the embedded index behind a handler that may answer instead of it.
type faulty struct {
	*harness
	mu     sync.Mutex
	bulks  []int // documents of each bulk request that came
	answer func(r *http.Request, body []byte, w http.ResponseWriter) bool
}

func newFaulty(t *testing.T, maxBody int64, answer func(r *http.Request, body []byte, w http.ResponseWriter) bool) *faulty {
	t.Helper()
	s, err := index.Open(index.Config{Path: filepath.Join(t.TempDir(), "index.db"), MaxBodyBytes: maxBody})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	f := &faulty{answer: answer}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		f.mu.Lock()
		if strings.HasSuffix(r.URL.Path, "_bulk") {
			f.bulks = append(f.bulks, bytes.Count(body, []byte{'\n'})/2)
		}
		done := f.answer != nil && f.answer(r, body, w)
		f.mu.Unlock()
		if !done {
			s.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	f.harness = newHarness(t, server.URL)
	return f
}

func (f *faulty) open(t *testing.T, change func(*elastic.Config)) sink.Sink {
	t.Helper()
	c := f.config()
	c.Retry = retry.Policy{Min: time.Millisecond, Max: time.Millisecond}
	if change != nil {
		change(&c)
	}
	s, err := elastic.New(c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// begun is open for the first lineage.
func (f *faulty) begun(t *testing.T, change func(*elastic.Config)) sink.Sink {
	t.Helper()
	s := f.open(t, change)
	require.NoError(t, s.Begin(t.Context(), sinktest.First(), nil))
	return s
}

func quizzes(t *testing.T, n int) []plan.Row {
	t.Helper()
	rows := make([]plan.Row, n)
	for i := range rows {
		rows[i] = sinktest.Quiz(t, fmt.Sprintf("q%04d", i), 1, 1)
	}
	return rows
}

func TestBusyTargetIsTriedAgain(t *testing.T) {
	t.Parallel()
	left := 6
	f := newFaulty(t, 0, func(_ *http.Request, _ []byte, w http.ResponseWriter) bool {
		if left--; left < 0 {
			return false
		}
		w.WriteHeader([]int{http.StatusTooManyRequests, http.StatusServiceUnavailable}[left%2])
		return true
	})
	rejected, err := f.begun(t, nil).Publish(t.Context(), sink.Batch{Rows: quizzes(t, 3)})
	require.NoError(t, err)
	require.Empty(t, rejected)
	require.Len(t, f.Rows(t, "quiz"), 3)
}

func TestOnlyFailedDocumentsAreSentAgain(t *testing.T) {
	t.Parallel()
	first := true
	f := newFaulty(t, 0, func(r *http.Request, _ []byte, w http.ResponseWriter) bool {
		if !strings.HasSuffix(r.URL.Path, "_bulk") || !first {
			return false
		}
		first = false
		item := func(status int, e any) map[string]any {
			return map[string]any{"index": map[string]any{"status": status, "error": e}}
		}
		busy := map[string]string{"type": "es_rejected_execution_exception", "reason": "queue is full"}
		bad := map[string]string{"type": "document_parsing_exception", "reason": "no"}
		return json.NewEncoder(w).Encode(map[string]any{"errors": true, "items": []any{
			item(201, nil), item(429, busy), item(400, bad), item(503, busy), item(409, bad),
		}}) == nil
	})
	rejected, err := f.begun(t, nil).Publish(t.Context(), sink.Batch{Rows: quizzes(t, 5)})
	require.NoError(t, err)
	require.Len(t, rejected, 1)
	require.Equal(t, "q0002", rejected[0].Row.ID)
	require.Equal(t, "document_parsing_exception: no", rejected[0].Reason)
	require.Equal(t, []int{5, 2}, f.bulks)
	rows := f.Rows(t, "quiz")
	require.Contains(t, rows, "q0001")
	require.Contains(t, rows, "q0003")
}

func TestBulksAreSplitByBytes(t *testing.T) {
	t.Parallel()
	f := newFaulty(t, 0, nil)
	s := f.begun(t, func(c *elastic.Config) { c.MaxBulkBytes = 8_000 })
	rejected, err := s.Publish(t.Context(), sink.Batch{Rows: quizzes(t, 100)})
	require.NoError(t, err)
	require.Empty(t, rejected)
	require.Greater(t, len(f.bulks), 5)
	require.Len(t, f.Rows(t, "quiz"), 100)
}

func TestBulkTooLargeForTheTargetIsHalved(t *testing.T) {
	t.Parallel()
	f := newFaulty(t, 10_000, nil) // the sink would send 5 MiB
	rows := quizzes(t, 100)
	rows[50].Value = encodeQuiz(t, plan.Cell{Bytes: bytes.Repeat([]byte("x"), 20_000)}, 1)
	rejected, err := f.begun(t, nil).Publish(t.Context(), sink.Batch{Rows: rows})
	require.NoError(t, err)
	require.Len(t, rejected, 1)
	require.Equal(t, "q0050", rejected[0].Row.ID)
	require.Contains(t, rejected[0].Reason, "larger than the target takes")
	require.Len(t, f.Rows(t, "quiz"), 99)
}

func TestRefusedCredentialsAreAnError(t *testing.T) {
	t.Parallel()
	f := newFaulty(t, 0, func(_ *http.Request, _ []byte, w http.ResponseWriter) bool {
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	require.ErrorContains(t, f.open(t, nil).Begin(t.Context(), sinktest.First(), nil), "status 401")
	f.answer = nil // the clean-up is let in
}

func TestOtherServerIsAnError(t *testing.T) {
	t.Parallel()
	f := newFaulty(t, 0, func(r *http.Request, _ []byte, w http.ResponseWriter) bool {
		if !strings.HasSuffix(r.URL.Path, "_bulk") {
			return false
		}
		_, err := w.Write([]byte(`{}`))
		return err == nil
	})
	_, err := f.begun(t, nil).Publish(t.Context(), sink.Batch{Rows: quizzes(t, 1)})
	require.ErrorContains(t, err, "it is not Elasticsearch or OpenSearch")
}

func TestDeadTargetIsWaitedForUntilTheContextEnds(t *testing.T) {
	t.Parallel()
	stop := errors.New("enough")
	ctx, end := context.WithCancelCause(t.Context())
	s, err := elastic.New(elastic.Config{
		URLs: []string{"http://127.0.0.1:1"}, Plan: sinktest.Plan(),
		Retry: retry.Policy{Min: time.Millisecond, Max: time.Millisecond, OnRetry: func(attempt int, _ error, _ time.Duration) {
			if attempt == 20 {
				end(stop)
			}
		}},
	})
	require.NoError(t, err)
	err = s.Begin(ctx, sinktest.First(), nil)
	require.ErrorIs(t, err, stop)
	require.ErrorContains(t, err, "refused")
	require.NoError(t, s.Close())
}

func TestNewColumnIsAddedToAnIndexThatIsThere(t *testing.T) {
	t.Parallel()
	f := newFaulty(t, 0, nil)
	for _, columns := range [][]plan.Column{
		{{Name: "page", Type: plan.String}},
		{{Name: "page", Type: plan.String}, {Name: "seconds", Type: plan.Long}},
	} {
		p := &plan.Plan{Version: "1", Tables: []plan.Table{{Name: "visit", Schema: plan.Schema{Name: "Visit", Columns: columns}}}}
		cells := []plan.Cell{{Bytes: []byte("p")}, {Int: 7}}[:len(columns)]
		value, err := p.Tables[0].Schema.Append(nil, cells)
		require.NoError(t, err)
		s := f.begun(t, func(c *elastic.Config) { c.Plan = p })
		row := plan.Row{ID: fmt.Sprint(len(columns)), Rev: 1, Account: "acme", Env: "prod", Value: value}
		rejected, err := s.Publish(t.Context(), sink.Batch{Rows: []plan.Row{row}})
		require.NoError(t, err)
		require.Empty(t, rejected)
	}
	status, body := f.do(t, http.MethodGet, "/visit--"+f.version+"/_count", `{"query":{"term":{"seconds":7}}}`)
	require.Equal(t, 200, status)
	require.Contains(t, string(body), `"count":1`)
}

func TestChangedColumnIsAnError(t *testing.T) {
	t.Parallel()
	f := newFaulty(t, 0, nil)
	var err error
	for _, typ := range []plan.Type{plan.String, plan.Long} {
		p := &plan.Plan{Version: "1", Tables: []plan.Table{{Name: "visit", Schema: plan.Schema{Name: "Visit", Columns: []plan.Column{{Name: "page", Type: typ}}}}}}
		value, e := p.Tables[0].Schema.Append(nil, []plan.Cell{{}})
		require.NoError(t, e)
		_, err = f.begun(t, func(c *elastic.Config) { c.Plan = p }).Publish(t.Context(),
			sink.Batch{Rows: []plan.Row{{ID: "1", Rev: 1, Account: "acme", Env: "prod", Value: value}}})
	}
	require.ErrorContains(t, err, "prepare index "+f.index("visit"))
	require.ErrorContains(t, err, "mapper [page] cannot be changed from type [keyword] to [long]")
}

// While a shard is away the target finds less, unless it is asked for all or nothing: that is no reason to take an index for one's own.
func TestShardIsAway(t *testing.T) {
	t.Parallel()
	away := 0
	f := newFaulty(t, 0, func(r *http.Request, _ []byte, w http.ResponseWriter) bool {
		if !strings.HasSuffix(r.URL.Path, "_search") || away == 0 {
			return false
		}
		away--
		if r.URL.Query().Get("allow_partial_search_results") == "false" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		_, _ = io.WriteString(w, `{"hits":{"hits":[]}}`) // the test sees what comes of it
		return true
	})
	_, err := f.begun(t, nil).Publish(t.Context(), sink.Batch{Lineage: sinktest.Lineage, FromEpoch: 1, ToEpoch: 1, Rows: quizzes(t, 3)})
	require.NoError(t, err)
	away = 2
	err = f.open(t, nil).Begin(t.Context(), sink.Lineage{ID: "another", Token: 2}, nil)
	require.ErrorContains(t, err, "holds rows of another lineage")
	require.Zero(t, away)
}
