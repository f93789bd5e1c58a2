package collect_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"millrace/caliper"
	"millrace/collect"
	"millrace/record"
)

const secret = "mrk_secret"

var received = time.Date(2018, 8, 16, 15, 28, 0, 0, time.UTC)

// memoryLog keeps what is appended, or fails.
type memoryLog struct {
	mu    sync.Mutex
	items []record.Item
	err   error
	max   int
}

func (l *memoryLog) Append(_ context.Context, items []record.Item) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.items = append(l.items, items...)
	}
	return l.err
}

func (l *memoryLog) MaxItemBytes() int {
	if l.max > 0 {
		return l.max
	}
	return 16 << 20
}

func (l *memoryLog) all() []record.Item {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.items
}

func keys(_ context.Context, s string) (collect.Key, error) {
	switch s {
	case secret:
		return collect.Key{Account: "deepthought", Env: "deepthought3", SourceType: "EDGENUITY_LMS"}, nil
	case "broken":
		return collect.Key{}, errors.New("database is locked")
	}
	return collect.Key{}, collect.ErrUnknownKey
}

// start serves a collector over a real connection.
func start(t *testing.T, log collect.Log, change func(*collect.Config)) *httptest.Server {
	t.Helper()
	cfg := collect.Config{Log: log, Keys: keys, Now: func() time.Time { return received }}
	if change != nil {
		change(&cfg)
	}
	c, err := collect.New(cfg)
	require.NoError(t, err)
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	return server
}

type problem struct {
	Type, Title, Detail, Action string
	Status                      int
	Kept                        bool
}

// send sends a request with a good key and content type unless the headers say otherwise, and returns the response, its
// body and the problem in it.
func send(t *testing.T, method, url string, body io.Reader, headers ...string) (*http.Response, string, problem) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+secret)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i+1] == "" {
			req.Header.Del(headers[i])
		}
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	var p problem
	if resp.StatusCode >= 400 && method != http.MethodHead {
		require.Equal(t, "application/problem+json", resp.Header.Get("Content-Type"))
		require.NoError(t, json.Unmarshal(answer, &p), string(answer))
		require.Equal(t, resp.StatusCode, p.Status)
		require.True(t, strings.HasPrefix(p.Type, "urn:millrace:problem:"), p.Type)
		require.NotEmpty(t, p.Title)
		require.NotEmpty(t, p.Detail)
		require.NotEmpty(t, p.Action)
	}
	return resp, string(answer), p
}

const head = `"sensor":"https://example.edu/sensors/1","sendTime":"2018-08-16T15:27:59.000Z","dataVersion":"http://purl.imsglobal.org/ctx/caliper/v1p1"`

func envelope(items ...string) string {
	return "{" + head + `,"data":[` + strings.Join(items, ",") + "]}"
}

const (
	event  = `{"id":"urn:uuid:1", "type":"NavigationEvent","eventTime":"2018-08-16T15:27:58.000Z"}`
	entity = `{"id":"https://example.edu/users/1",   "type":"Person"}`
)

func TestAccepted(t *testing.T) {
	t.Parallel()
	log := &memoryLog{}
	registry := prometheus.NewRegistry()
	server := start(t, log, func(c *collect.Config) { c.Registerer = registry })
	body := envelope(event, entity, `{"type":7}`, `"text"`)
	resp, answer, _ := send(t, http.MethodPost, server.URL+"/caliper", strings.NewReader(body))
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Empty(t, answer)
	require.Equal(t, "0", resp.Header.Get("Content-Length"))

	items := log.all()
	require.Len(t, items, 4)
	for i, want := range []struct {
		kind      record.Kind
		id, bytes string
	}{
		{record.Event, "urn:uuid:1", event},
		{record.Entity, "https://example.edu/users/1", entity},
		{record.Reject, "", `{"type":7}`},
		{record.Reject, "", `"text"`},
	} {
		got := items[i]
		require.Equal(t, want.bytes, string(got.Bytes))
		require.Equal(t, want.kind, got.Kind, got.Reason)
		require.Equal(t, want.kind == record.Reject, got.Reason != "", got.Reason)
		got.Kind, got.Reason, got.Bytes = 0, "", nil
		require.Equal(t, record.Item{
			Account: "deepthought", Env: "deepthought3", SourceType: "EDGENUITY_LMS", Sensor: "https://example.edu/sensors/1",
			ID: want.id, DataVersion: "http://purl.imsglobal.org/ctx/caliper/v1p1",
			SendTime: received.Add(-time.Second), ReceivedAt: received,
		}, got)
	}
	require.Contains(t, items[2].Reason, "type")

	require.Equal(t, map[string]float64{
		"millrace_collect_items_total event":  1,
		"millrace_collect_items_total entity": 1,
		"millrace_collect_items_total reject": 2,
		"millrace_collect_requests_total 200": 1, "millrace_collect_requests_total 401": 0, "millrace_collect_requests_total 503": 0,
		"millrace_collect_bytes_total": float64(len(body)),
	}, counters(t, registry))
}

// counters returns the values of all counters, by name and label value.
func counters(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	values := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if m.GetCounter() == nil {
				continue
			}
			name := family.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			values[name] = m.GetCounter().GetValue()
		}
	}
	return values
}

// Every way that sensors are known to write it, and what must not pass.
func TestAuthorization(t *testing.T) {
	t.Parallel()
	log := &memoryLog{}
	server := start(t, log, nil)
	for header, want := range map[string]int{
		"Bearer " + secret:            200,
		"bearer " + secret:            200,
		"BEARER   " + secret + " ":    200,
		secret:                        200,
		"":                            401,
		"Bearer":                      401,
		"Bearer ":                     401,
		"Bearer wrong":                401,
		"wrong":                       401,
		"Basic " + secret:             401,
		"Bearer " + secret + " again": 401,
		"Bearer broken":               503,
	} {
		before := len(log.all())
		resp, _, p := send(t, http.MethodPost, server.URL+"/caliper", strings.NewReader(envelope(event)), "Authorization", header)
		require.Equal(t, want, resp.StatusCode, header)
		require.False(t, p.Kept)
		require.NotContains(t, p.Detail, "wrong")
		switch want {
		case 200:
			require.Len(t, log.all(), before+1)
		case 401:
			require.NotEmpty(t, resp.Header.Get("WWW-Authenticate"))
			require.Len(t, log.all(), before, "without a key nothing is kept")
		}
	}
}

// A client without a key is answered before its body is read, and its connection is not kept waiting for it.
func TestUnauthorizedBodyIsNotRead(t *testing.T) {
	t.Parallel()
	server := start(t, &memoryLog{}, nil)
	for _, length := range []int{10, 10_000_000} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
		_, err = fmt.Fprintf(conn, "POST /caliper HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nAuthorization: wrong\r\n\r\n", length)
		require.NoError(t, err)
		answer, err := io.ReadAll(conn)
		require.NoError(t, err)
		require.Contains(t, string(answer), "HTTP/1.1 401 ")
	}
}

func gzipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(s))
	_ = w.Close()
	return b.String()
}

// Everything that is refused with a key is kept byte for byte, with the reason that the sender got.
func TestRefused(t *testing.T) {
	t.Parallel()
	big := envelope(`{"id":"x","type":"Person","name":"` + strings.Repeat("x", 20_000) + `"}`)
	many := envelope(repeated(event, 101)...)
	longID := strings.Repeat("i", 5000)
	for name, test := range map[string]struct {
		body    string
		headers []string
		status  int
		typ     string
		detail  string
	}{
		"not JSON":             {`{"sensor"`, nil, 400, "malformed-envelope", "Not a Caliper envelope: "},
		"an array":             {`[]`, nil, 400, "malformed-envelope", "object"},
		"no data":              {"{" + head + "}", nil, 400, "malformed-envelope", "data"},
		"no sensor":            {`{"sendTime":"2018-08-16T15:27:59Z","data":[` + event + `]}`, nil, 400, "malformed-envelope", "sensor"},
		"a long sensor":        {`{"sensor":"` + longID + `","sendTime":"2018-08-16T15:27:59Z","data":[` + event + `]}`, nil, 400, "malformed-envelope", "The sensor has 5000 bytes"},
		"another version":      {strings.ReplaceAll(envelope(event), "v1p1", "v9"), nil, 422, "data-version", "v9"},
		"no content type":      {envelope(event), []string{"Content-Type", ""}, 415, "media-type", `The Content-Type is "".`},
		"another content type": {envelope(event), []string{"Content-Type", "text/plain; charset=utf-8"}, 415, "media-type", "text/plain"},
		"a bad content type":   {envelope(event), []string{"Content-Type", "application/json/x"}, 415, "media-type", "application/json/x"},
		"another encoding":     {envelope(event), []string{"Content-Encoding", "br"}, 415, "encoding", `"br"`},
		"not gzip":             {envelope(event), []string{"Content-Encoding", "gzip"}, 400, "encoding", "not gzip"},
		"half of gzip":         {gzipped(envelope(event))[:50], []string{"Content-Encoding", "gzip"}, 400, "encoding", "unexpected EOF"},
		"gzip and more":        {gzipped(envelope(event)) + "trash", []string{"Content-Encoding", "gzip"}, 400, "encoding", "not gzip"},
		"a gzip bomb":          {gzipped(strings.Repeat(" ", 3_000_000)), []string{"Content-Encoding", "gzip"}, 413, "too-large", "more than 30000 bytes when unpacked"},
		"too large":            {big, nil, 413, "too-large", "limit is 15000"},
		"too many items":       {many, nil, 413, "too-large", "The envelope has 101 items; the limit is 100."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := &memoryLog{}
			server := start(t, log, func(c *collect.Config) { c.MaxBody, c.MaxDecompressed, c.MaxItems = 15_000, 30_000, 100 })
			resp, _, p := send(t, http.MethodPost, server.URL+"/caliper", strings.NewReader(test.body), test.headers...)
			require.Equal(t, test.status, resp.StatusCode, p.Detail)
			require.Equal(t, "urn:millrace:problem:"+test.typ, p.Type)
			require.Contains(t, p.Detail, test.detail)
			require.True(t, p.Kept)
			items := log.all()
			require.Len(t, items, 1)
			require.Equal(t, record.Reject, items[0].Kind)
			require.Equal(t, test.body, string(items[0].Bytes))
			require.True(t, strings.HasPrefix(items[0].Reason, p.Detail), items[0].Reason)
			require.Equal(t, []string{"deepthought", "deepthought3", "EDGENUITY_LMS"}, []string{items[0].Account, items[0].Env, items[0].SourceType})
			require.Equal(t, received, items[0].ReceivedAt)

			log.err = errors.New("disk full")
			resp, _, p = send(t, http.MethodPost, server.URL+"/caliper", strings.NewReader(test.body), test.headers...)
			require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode, "what cannot be kept is not refused for good")
			require.False(t, p.Kept)
		})
	}
}

func repeated(s string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = s
	}
	return out
}

// What is larger than the log takes is refused and cannot be kept, and the answer says so.
func TestTooLargeToKeep(t *testing.T) {
	t.Parallel()
	log := &memoryLog{max: 50_000}
	server := start(t, log, nil)
	large := strings.Repeat("x", 60_000)
	item := envelope(`{"id":"x","type":"Person","name":"` + large + `"}`)
	for name, test := range map[string]struct {
		body    io.Reader
		headers []string
		kept    bool
	}{
		"with its length":    {strings.NewReader(large), nil, false},
		"without its length": {io.MultiReader(strings.NewReader(large)), nil, false},
		"one item":           {strings.NewReader(gzipped(item)), []string{"Content-Encoding", "gzip"}, true},
	} {
		before := len(log.all())
		resp, _, p := send(t, http.MethodPost, server.URL+"/caliper", test.body, test.headers...)
		require.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode, name)
		require.Equal(t, test.kept, p.Kept, name)
		require.Equal(t, test.kept, len(log.all()) > before, name)
	}
}

func TestEncodingsAndTypesThatPass(t *testing.T) {
	t.Parallel()
	log := &memoryLog{}
	server := start(t, log, nil)
	plain := envelope(event)
	for _, test := range [][]string{
		{plain},
		{plain, "Content-Type", "application/json; charset=utf-8"},
		{plain, "Content-Type", "Application/JSON;charset"},
		{plain, "Content-Encoding", "identity"},
		{gzipped(plain), "Content-Encoding", "gzip"},
		{gzipped(plain), "Content-Encoding", "X-GZIP"},
		{gzipped(plain[:10]) + gzipped(plain[10:]), "Content-Encoding", "gzip"},
	} {
		before := len(log.all())
		resp, _, p := send(t, http.MethodPost, server.URL+"/caliper", strings.NewReader(test[0]), test[1:]...)
		require.Equal(t, http.StatusOK, resp.StatusCode, "%v: %s", test[1:], p.Detail)
		require.Equal(t, event, string(log.all()[before].Bytes))
	}
}

func TestLongIDIsAReject(t *testing.T) {
	t.Parallel()
	log := &memoryLog{}
	server := start(t, log, nil)
	bad := `{"id":"` + strings.Repeat("i", 3000) + `","type":"Person"}`
	resp, _, _ := send(t, http.MethodPost, server.URL+"/caliper", strings.NewReader(envelope(event, bad)))
	require.Equal(t, http.StatusOK, resp.StatusCode)
	items := log.all()
	require.Equal(t, record.Event, items[0].Kind)
	require.Equal(t, record.Reject, items[1].Kind)
	require.Equal(t, "its id has 3000 bytes; the limit is 2048", items[1].Reason)
	require.Equal(t, bad, string(items[1].Bytes))
}

// A 200 is a receipt: when the log did not take every item there is none.
func TestLogUnavailable(t *testing.T) {
	t.Parallel()
	log := &memoryLog{err: errors.New("no leader")}
	registry := prometheus.NewRegistry()
	server := start(t, log, func(c *collect.Config) { c.Registerer = registry })
	resp, _, p := send(t, http.MethodPost, server.URL+"/caliper", strings.NewReader(envelope(event)))
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	require.Equal(t, "5", resp.Header.Get("Retry-After"))
	require.NotContains(t, p.Detail, "leader", "what goes on inside is for the operator's log")
	values := counters(t, registry)
	require.EqualValues(t, 1, values["millrace_collect_requests_total 503"])
	require.Zero(t, values["millrace_collect_items_total event"])
}

// stuckLog is a log that never answers.
type stuckLog struct{ memoryLog }

func (*stuckLog) Append(ctx context.Context, _ []record.Item) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestLogStuck(t *testing.T) {
	t.Parallel()
	server := start(t, &stuckLog{}, func(c *collect.Config) { c.AppendTimeout = 20 * time.Millisecond })
	resp, _, _ := send(t, http.MethodPost, server.URL+"/caliper", strings.NewReader(envelope(event)))
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
}

// A sender that stops half way does not hold the collector up, and what it sent is kept.
func TestSlowAndBrokenBodies(t *testing.T) {
	t.Parallel()
	log := &memoryLog{}
	server := start(t, log, func(c *collect.Config) { c.ReadTimeout = 100 * time.Millisecond })
	for name, test := range map[string]struct {
		hangUp bool
		reason string
	}{
		"stops":    {false, "After 100ms there were 8 bytes of the body, and not its end."},
		"hangs up": {true, "The body ended after 8 bytes: unexpected EOF."},
	} {
		before := len(log.all())
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
		_, err = fmt.Fprintf(conn, "POST /caliper HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\nAuthorization: %s\r\n\r\n{\"sensor", secret)
		require.NoError(t, err)
		if test.hangUp {
			require.NoError(t, conn.(*net.TCPConn).CloseWrite())
		}
		answer, err := io.ReadAll(conn)
		require.NoError(t, err)
		if test.hangUp {
			require.Contains(t, string(answer), "HTTP/1.1 400 ", name)
		} else {
			require.Contains(t, string(answer), "HTTP/1.1 408 ", name)
		}
		items := log.all()[before:]
		require.Len(t, items, 1)
		require.Equal(t, `{"sensor`, string(items[0].Bytes))
		require.Equal(t, test.reason, items[0].Reason)
	}
}

// The read deadline is for the body alone: a log that takes longer than it does not end the request.
func TestDeadlineIsForTheBodyAlone(t *testing.T) {
	t.Parallel()
	log := &slowLog{wait: 300 * time.Millisecond}
	server := start(t, log, func(c *collect.Config) { c.ReadTimeout = 50 * time.Millisecond })
	for range 2 { // the second on the same connection
		resp, _, _ := send(t, http.MethodPost, server.URL+"/caliper", strings.NewReader(envelope(event)))
		require.Equal(t, http.StatusOK, resp.StatusCode)
	}
}

type slowLog struct {
	memoryLog
	wait time.Duration
}

func (l *slowLog) Append(ctx context.Context, items []record.Item) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(l.wait):
		return l.memoryLog.Append(ctx, items)
	}
}

func TestPathsAndMethods(t *testing.T) {
	t.Parallel()
	for prefix, want := range map[string]map[string]int{
		"":       {"/caliper": 200, "/caliper/": 200, "/caliper/message": 200, "/message": 200, "/": 404, "/caliper/x": 404, "/caliperx": 404},
		"/a/b/":  {"/a/b": 200, "/a/b/message": 200, "/message": 200, "/caliper": 404},
		"/":      {"/": 200, "/message": 200, "/caliper": 404},
		"/inbox": {"/inbox": 200, "/inbox/message/": 200},
	} {
		log := &memoryLog{}
		server := start(t, log, func(c *collect.Config) { c.Prefix = prefix })
		for path, status := range want {
			resp, _, _ := send(t, http.MethodPost, server.URL+path, strings.NewReader(envelope(event)))
			require.Equal(t, status, resp.StatusCode, "POST %s with prefix %q", path, prefix)
			resp, _, _ = send(t, http.MethodGet, server.URL+path, nil)
			require.Equal(t, status, resp.StatusCode, "GET %s with prefix %q", path, prefix)
		}
	}
	server := start(t, &memoryLog{}, nil)
	for _, method := range []string{http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions} {
		resp, _, _ := send(t, method, server.URL+"/caliper", strings.NewReader(envelope(event)))
		require.Equal(t, http.StatusMethodNotAllowed, resp.StatusCode)
		require.Equal(t, "GET, HEAD, POST", resp.Header.Get("Allow"))
	}
}

func TestEndpointConfiguration(t *testing.T) {
	t.Parallel()
	server := start(t, &memoryLog{}, nil)
	resp, body, _ := send(t, http.MethodGet, server.URL+"/caliper", nil, "Authorization", "")
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
	var got map[string]any
	require.NoError(t, json.Unmarshal([]byte(body), &got))
	require.Len(t, got, 6)
	for snake, camel := range map[string]string{
		"caliper_maximum_payload_size": "caliperMaximumPayloadSize",
		"caliper_supported_versions":   "caliperSupportedVersions",
		"caliper_supported_extensions": "caliperSupportedExtensions",
	} {
		require.NotNil(t, got[snake], snake)
		require.Equal(t, got[snake], got[camel])
	}
	require.EqualValues(t, 10485, got["caliper_maximum_payload_size"])
	require.Len(t, got["caliper_supported_versions"], len(caliper.SupportedVersions()))
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	log := &memoryLog{max: 100_000}
	for want, cfg := range map[string]collect.Config{
		"collector has no log":                    {Keys: keys},
		"collector has no keys":                   {Log: log},
		`collector path "x" does not begin with`:  {Log: log, Keys: keys, Prefix: "x"},
		"cannot take bodies of 100000 bytes":      {Log: log, Keys: keys, MaxBody: 100_000},
		"is below the 50000 bytes of a packed":    {Log: log, Keys: keys, MaxBody: 50_000, MaxDecompressed: 10},
		"collector cannot take envelopes of -1 i": {Log: log, Keys: keys, MaxItems: -1},
	} {
		_, err := collect.New(cfg)
		require.ErrorContains(t, err, want)
	}
}
