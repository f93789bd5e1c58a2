package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	otlp "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"millrace/apps/lms"
	"millrace/control"
)

// traceCollector takes traces as an OpenTelemetry collector does.
type traceCollector struct {
	mu  sync.Mutex
	all []*spans.Span
}

func (c *traceCollector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var req otlp.ExportTraceServiceRequest
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &req) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range req.GetResourceSpans() {
		for _, in := range of.GetScopeSpans() {
			c.all = append(c.all, in.GetSpans()...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// A stack that is told where to makes spans of what it does, children with their parents; without it makes none.
func TestTraces(t *testing.T) { //nolint:paralleltest // the handler of errors is the process's
	for _, on := range []bool{false, true} {
		got := &traceCollector{}
		server := httptest.NewServer(got)
		defer server.Close()
		dir, err := openDataDir(filepath.Join(t.TempDir(), "data"))
		require.NoError(t, err)
		cfg := stoppedConfig()
		cfg.flush, cfg.dir, cfg.logger, cfg.traceShare = 50*time.Millisecond, dir, slog.New(slog.DiscardHandler), 1
		if on {
			cfg.traces = server.URL
		}
		t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL) // turns nothing on
		s, stop := runStackOf(t, cfg)
		key, err := s.store.Keys.Add(t.Context(), control.Key{Account: "a", Env: "e", SourceType: lms.App.SourceTypes[0]})
		require.NoError(t, err)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.collectorURL(), strings.NewReader(
			`{"sensor":"urn:s","sendTime":"2018-08-20T00:00:00Z","dataVersion":"http://purl.imsglobal.org/ctx/caliper/v1p1","data":[{"id":"urn:1","type":"ViewEvent","eventTime":"2018-08-20T00:00:00Z","actor":{"id":"urn:p"},"object":{"id":"urn:page"}}]}`))
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+key)
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, 200, res.StatusCode)
		require.NoError(t, s.untilPublished(t.Context()))
		stop()
		byID, parents := map[string]string{}, map[string]string{}
		for _, span := range got.all {
			byID[string(span.GetSpanId())] = span.GetName()
			require.LessOrEqual(t, span.GetStartTimeUnixNano(), span.GetEndTimeUnixNano(), span.GetName())
		}
		for _, span := range got.all {
			parents[span.GetName()] = byID[string(span.GetParentSpanId())]
		}
		if !on {
			require.Empty(t, parents)
			continue
		}
		require.Equal(t, map[string]string{
			"collect": "", "append": "collect", "epoch": "", "step": "epoch", "commit": "epoch", "publish iceberg": "", "publish elastic": "",
		}, parents)
	}
}
