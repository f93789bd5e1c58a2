// Package collect is the HTTP endpoint that sensors post their envelopes to.
//
// The one idea: a 200 is a receipt. It is sent when the log has every item of the envelope durably, and not before; sensors
// do not send again, so what is refused is kept in the log as a reject where an operator can see and repair it, as soon as
// the sender has shown a key. One bad item does not refuse an envelope, it becomes a reject beside the good ones.
//
//	POST ─▶ key? ─▶ read body ─▶ type, encoding, envelope? ─▶ append items ─▶ 200, empty body
//	         │401     │408 413        │400 413 415 422            │503: nothing is promised
//	         ▼        └───────┬───────┘                           ▼
//	   body not read     append the body as one reject      problem document, Retry-After
//
// It does not deduplicate, join or look into items beyond their heads, and it does not limit how slowly a client sends its
// headers: that is the http.Server's ReadHeaderTimeout.
package collect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"millrace/record"
)

// ErrUnknownKey is what Config.Keys returns for a key that does not exist.
var ErrUnknownKey = errors.New("unknown sensor key")

// Key is what the items belong to that come with a sensor key.
type Key struct {
	Account    string
	Env        string
	SourceType string
}

// Log is where items go.
type Log interface {
	// Append returns nil only when every item is durable.
	Append(ctx context.Context, items []record.Item) error

	// MaxItemBytes is how large an item's bytes and texts may be together.
	MaxItemBytes() int
}

// Config says what a collector accepts. Log and Keys are required.
type Config struct {
	Log Log

	// Keys returns the key with the given secret, or ErrUnknownKey. Any other error is answered with 503.
	Keys func(ctx context.Context, secret string) (Key, error)

	Prefix          string        // path of the endpoint, which is also at Prefix/message and /message; default /caliper
	MaxBody         int           // bytes of a request's body as sent; default 10 MiB, at most what the log takes as one item
	MaxDecompressed int           // bytes of a gzip body when unpacked; default 64 MiB
	MaxItems        int           // items of one envelope; default 50,000
	ReadTimeout     time.Duration // how long a body may take to arrive; default 30 s
	AppendTimeout   time.Duration // how long to wait for the log before answering 503; default 10 s

	Logger     *slog.Logger          // default: discard
	Registerer prometheus.Registerer // default: none
	Tracer     trace.Tracer          // makes a span of each request; default: none
	Now        func() time.Time      // default: time.Now
}

func (c Config) withDefaults() Config {
	if c.Prefix == "" {
		c.Prefix = "/caliper"
	}
	c.Prefix = strings.TrimSuffix(c.Prefix, "/")
	if c.MaxBody == 0 && c.Log != nil {
		c.MaxBody = min(10<<20, c.Log.MaxItemBytes()-maxTexts)
	}
	if c.MaxDecompressed == 0 {
		c.MaxDecompressed = 64 << 20
	}
	if c.MaxItems == 0 {
		c.MaxItems = 50_000
	}
	if c.ReadTimeout == 0 {
		c.ReadTimeout = 30 * time.Second
	}
	if c.AppendTimeout == 0 {
		c.AppendTimeout = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Tracer == nil {
		c.Tracer = noop.NewTracerProvider().Tracer("")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Log == nil:
		return errors.New("collector has no log")
	case c.Keys == nil:
		return errors.New("collector has no keys")
	case c.Prefix != "" && c.Prefix[0] != '/':
		return fmt.Errorf("collector path %q does not begin with /", c.Prefix)
	case c.MaxBody < 1 || c.MaxBody > c.Log.MaxItemBytes()-maxTexts:
		return fmt.Errorf("collector cannot take bodies of %d bytes: the log takes items of up to %d", c.MaxBody, c.Log.MaxItemBytes()-maxTexts)
	case c.MaxDecompressed < c.MaxBody:
		return fmt.Errorf("collector's limit of %d bytes for an unpacked body is below the %d bytes of a packed one", c.MaxDecompressed, c.MaxBody)
	case c.MaxItems < 1:
		return fmt.Errorf("collector cannot take envelopes of %d items", c.MaxItems)
	}
	return nil
}

// Collector answers sensors. It is an http.Handler for the paths that Paths names.
type Collector struct {
	cfg      Config
	endpoint []byte // what GET answers
	metrics  *metrics
}

// New returns a collector.
func New(cfg Config) (*Collector, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Collector{cfg: cfg, endpoint: endpoint(cfg), metrics: newMetrics(cfg.Registerer)}, nil
}

// Paths returns the paths that the collector answers: the prefix, /message below it, and /message.
func (c *Collector) Paths() []string {
	paths := []string{c.cfg.Prefix, c.cfg.Prefix + "/message", "/message"}
	if c.cfg.Prefix == "" {
		paths[0] = "/"
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// ServeHTTP answers one request.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	status := http.StatusOK
	// Not the sensor's trace: what it says about itself must not decide what is kept.
	ctx, span := c.cfg.Tracer.Start(r.Context(), "collect", trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindServer))
	defer span.End()
	if p := c.serve(w, r.WithContext(ctx)); p != nil {
		status = p.Status
		p.write(w)
	}
	span.SetAttributes(attribute.Int("http.response.status_code", status))
	if status >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, http.StatusText(status))
	}
	c.metrics.requests.WithLabelValues(strconv.Itoa(status)).Inc()
	c.metrics.seconds.Observe(time.Since(start).Seconds())
}

// serve answers a request that succeeds itself and returns why another one does not.
func (c *Collector) serve(w http.ResponseWriter, r *http.Request) *problem {
	path := strings.TrimSuffix(r.URL.Path, "/")
	if path != c.cfg.Prefix && path != c.cfg.Prefix+"/message" && path != "/message" {
		return &problem{
			Type: "not-found", Status: http.StatusNotFound, Title: "There is nothing here",
			Detail: fmt.Sprintf("The endpoint has no path %q.", r.URL.Path),
			Action: "Send to " + strings.Join(c.Paths(), " or ") + ".",
		}
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(c.endpoint) // a client that is gone needs no answer
		return nil
	case http.MethodPost:
		if p := c.post(w, r); p != nil {
			return p
		}
		// An empty body, and 200: sensors take 204 for a failure.
		w.WriteHeader(http.StatusOK)
		return nil
	}
	w.Header().Set("Allow", "GET, HEAD, POST")
	return &problem{
		Type: "method", Status: http.StatusMethodNotAllowed, Title: "This method is not supported",
		Detail: fmt.Sprintf("The endpoint does not support %s.", r.Method),
		Action: "POST an envelope, or GET the endpoint's configuration.",
	}
}
