package collect_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/collect"
	"millrace/eventlog"
	"millrace/eventlog/broker"
	"millrace/eventlog/eventlogtest"
	"millrace/record"
)

// openLog opens a log on an embedded broker of its own.
func openLog(tb testing.TB) *eventlog.Log {
	tb.Helper()
	b, err := broker.Open(broker.Config{Dir: tb.TempDir()})
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, b.Close()) })
	log, err := eventlog.Open(tb.Context(), eventlog.Config{Brokers: []string{b.Addr()}})
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, log.Close()) })
	return log
}

// shared returns a folder of the official data, which lies beside the repository.
func shared(t *testing.T, path string) string {
	t.Helper()
	root := os.Getenv("MILLRACE_SHARED")
	if root == "" {
		root = filepath.Join("..", "..", "shared")
	}
	dir := filepath.Join(root, path)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("the official data is not there: %v; set MILLRACE_SHARED", err)
	}
	return dir
}

// Each official fixture is found in the log byte for byte, whatever it is and however it is laid out.
func TestOfficialFixtures(t *testing.T) {
	t.Parallel()
	dir := shared(t, "caliper/fixtures")
	log := openLog(t)
	server := start(t, log, nil)
	for version, want := range map[string]int{"v1p0": 17, "v1p1": 125} {
		files, err := filepath.Glob(filepath.Join(dir, version, "*.json"))
		require.NoError(t, err)
		require.Len(t, files, want)
		for _, file := range files {
			body, err := os.ReadFile(file)
			require.NoError(t, err)
			var is struct{ Data []json.RawMessage }
			require.NoError(t, json.Unmarshal(body, &is), file)
			items := is.Data
			if len(items) == 0 { // no envelope
				item := bytes.TrimSpace(body)
				items = []json.RawMessage{item}
				body = []byte(`{"sensor":"https://example.edu/sensors/1","sendTime":"2018-08-16T15:27:59.000Z","data":[` + string(body) + `]}`)
			}
			from, err := log.Ends(t.Context())
			require.NoError(t, err)
			resp, answer, p := send(t, http.MethodPost, server.URL+"/caliper", bytes.NewReader(body))
			require.Equal(t, http.StatusOK, resp.StatusCode, "%s: %s", file, p.Detail)
			require.Empty(t, answer)
			got := eventlogtest.Read(t, log, from, len(items))
			for _, item := range items {
				require.True(t, contains(got, item), "%s: an item is not in the log as it was sent: %s", file, item)
			}
			for _, item := range got {
				require.NotEqual(t, record.Reject, item.Kind, "%s: %s", file, item.Reason)
			}
		}
	}
}

func contains(items []record.Item, value []byte) bool {
	for _, item := range items {
		if bytes.Equal(item.Bytes, value) {
			return true
		}
	}
	return false
}

// What real sensors sent, with all of its headers, is answered as they need it and found in the log.
func TestSensorCaptures(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(shared(t, "caliper/sensor-captures"), "*", "*.request.json"))
	require.NoError(t, err)
	require.Len(t, files, 5)
	log := openLog(t)
	server := start(t, log, nil)
	for _, file := range files {
		var capture struct {
			Method, Path string
			Headers      [][2]string
		}
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, &capture))
		body, err := os.ReadFile(strings.Replace(file, ".request.", ".body.", 1))
		require.NoError(t, err)

		var headers []string
		for _, h := range capture.Headers {
			if h[0] == "Authorization" { // another key, spelled the same way
				h[1] = strings.NewReplacer("test-token-123", secret, "rawkey123", secret).Replace(h[1])
				require.Contains(t, h[1], secret)
			}
			headers = append(headers, h[0], h[1])
		}
		from, err := log.Ends(t.Context())
		require.NoError(t, err)
		resp, answer, p := send(t, capture.Method, server.URL+capture.Path, bytes.NewReader(body), headers...)
		require.Equal(t, http.StatusOK, resp.StatusCode, "%s: %s", file, p.Detail)
		require.Empty(t, answer)

		var envelope struct{ Data []json.RawMessage }
		require.NoError(t, json.Unmarshal(body, &envelope))
		require.NotEmpty(t, envelope.Data)
		got := eventlogtest.Read(t, log, from, len(envelope.Data))
		for _, item := range envelope.Data {
			require.True(t, contains(got, item), "%s: an item is not in the log as it was sent: %s", file, item)
		}
	}
}

// The largest body that is taken fits the log, as one item and as a reject.
func TestLargestBody(t *testing.T) {
	t.Parallel()
	log := openLog(t)
	server := start(t, log, nil)
	frame := envelope(`{"id":"x","type":"Person","name":""}`)
	largest := envelope(`{"id":"x","type":"Person","name":"` + strings.Repeat("x", 10<<20-len(frame)) + `"}`)
	require.Len(t, largest, 10<<20)
	resp, _, p := send(t, http.MethodPost, server.URL+"/caliper", strings.NewReader(largest))
	require.Equal(t, http.StatusOK, resp.StatusCode, p.Detail)
	resp, _, p = send(t, http.MethodPost, server.URL+"/caliper", strings.NewReader(largest), "Content-Type", "text/plain")
	require.Equal(t, http.StatusUnsupportedMediaType, resp.StatusCode, p.Detail)
	resp, _, p = send(t, http.MethodPost, server.URL+"/caliper", strings.NewReader(largest+" "))
	require.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode, p.Detail)
	require.True(t, p.Kept)
	items := eventlogtest.Read(t, log, nil, 3)
	require.True(t, contains(items, []byte(largest)))
	require.True(t, contains(items, []byte(largest+" ")))
	require.True(t, contains(items, []byte(largest[strings.Index(largest, `{"id"`):len(largest)-2])))
}

// When the broker is gone nothing is confirmed; when it is back at its address, the collector takes items again by itself.
func TestBrokerGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, err := broker.Open(broker.Config{Dir: dir})
	require.NoError(t, err)
	addr := b.Addr()
	log, err := eventlog.Open(t.Context(), eventlog.Config{Brokers: []string{addr}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, log.Close()) })
	server := start(t, log, func(c *collect.Config) { c.AppendTimeout = 2_000_000_000 })
	post := func(id string) int {
		resp, _, _ := send(t, http.MethodPost, server.URL+"/caliper", strings.NewReader(envelope(strings.Replace(event, "uuid:1", id, 1))))
		return resp.StatusCode
	}
	require.Equal(t, http.StatusOK, post("before"))
	require.NoError(t, b.Close())
	require.Equal(t, http.StatusServiceUnavailable, post("while it is gone"))
	b, err = broker.Open(broker.Config{Dir: dir, Listen: addr})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	tries := 0
	for post("after") != http.StatusOK {
		tries++
		require.Less(t, tries, 20)
	}
	ids := make(map[string]bool)
	r, err := log.Read(t.Context(), nil)
	require.NoError(t, err)
	defer r.Close()
	for !ids["urn:before"] || !ids["urn:after"] {
		items, err := r.Poll(eventlogtest.Context(t), 100, 0)
		require.NoError(t, err)
		for _, item := range items {
			ids[item.ID] = true
		}
	}
}

// BenchmarkCollect posts to the handler from 32 callers, with the embedded broker behind it syncing every batch: events per
// second without the cost of HTTP connections.
func BenchmarkCollect(b *testing.B) {
	for _, each := range []int{1, 100} {
		b.Run(fmt.Sprintf("items=%d", each), func(b *testing.B) {
			c, err := collect.New(collect.Config{Log: openLog(b), Keys: keys})
			require.NoError(b, err)
			var n atomic.Int64
			b.SetParallelism(16)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					body := benchEnvelope(int(n.Add(1)), each)
					req := httptest.NewRequest(http.MethodPost, "/caliper", strings.NewReader(body))
					req.Header.Set("Authorization", secret)
					req.Header.Set("Content-Type", "application/json")
					w := httptest.NewRecorder()
					c.ServeHTTP(w, req)
					if w.Code != http.StatusOK {
						b.Errorf("%d: %s", w.Code, w.Body)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N*each)/b.Elapsed().Seconds(), "items/s")
		})
	}
}

func benchEnvelope(n, items int) string {
	var b strings.Builder
	b.WriteString("{" + head + `,"data":[`)
	for i := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"@context":"http://purl.imsglobal.org/ctx/caliper/v1p1","id":"urn:uuid:3a648e68-f00d-4c08-aa59-%06d%06d","type":"NavigationEvent","actor":{"id":"https://example.edu/users/%d","type":"Person"},"action":"NavigatedTo","eventTime":"2018-08-16T15:27:58.000Z","object":{"id":"https://example.edu/terms/201801/courses/7/sections/1/pages/%d","type":"WebPage","name":"Learning Analytics Specifications","isPartOf":{"id":"https://example.edu/terms/201801/courses/7/sections/1","type":"CourseSection"}},"edApp":{"id":"https://example.edu","type":"SoftwareApplication"},"session":{"id":"https://example.edu/sessions/1f6442a482de72ea6ad134943812bff564a76259","type":"Session","startedAtTime":"2018-08-16T15:00:00.000Z"}}`,
			n%1_000_000, i, n*31%100_000, i*7)
	}
	b.WriteString("]}")
	return b.String()
}
