// Package elastic publishes rows to Elasticsearch, OpenSearch or the embedded index: an index per table and tenant, a document
// per row.
//
// The one idea: a document's version is its row's revision, under external versioning, so the target itself refuses what is
// older than what it has. Publishing again, late, or by two writers at once cannot take a row back in time, and needs no look
// before the write. Above the revision the version counts how often the index was claimed by a new lineage, so that a new lineage
// may give a row a lower revision than an old one did.
//
// Documents are written through an alias that the lineage gave the index when it claimed it, and that the next one takes away:
// the writer of an old lineage finds no index (fence.go). Going back to where a lineage began compares the index with the archive
// (lineage.go).
//
// An index is named by IndexName. Readers find it by VersionAlias and, while its instance serves, by the table's name (serving.go). Its mapping comes from the table's schema and is strict.
// A document has the table's columns and the meta columns under their own names, with one exception: a document may not have
// a field _id, so the row's id is the document's id, and the field row_id for sorting. Timestamps are ISO 8601 in UTC with
// microseconds, of which the target indexes milliseconds; bytes are base64.
//
// It does not create templates, manage shards, or delete indices.
package elastic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/elastic/elastic-transport-go/v8/elastictransport"
	"github.com/prometheus/client_golang/prometheus"

	"millrace/internal/retry"
	"millrace/plan"
	"millrace/sink"
)

// Config says which target, and for which instance.
type Config struct {
	URLs     []string // of the cluster's nodes: http://127.0.0.1:9200
	Username string   // with Password; or APIKey; or neither
	Password string
	APIKey   string // base64, as Elasticsearch gives it

	Plan        *plan.Plan
	DataVersion string // of the instance; empty: unversioned
	Suffix      string // that names of its indices end with, where DataVersion would; default: DataVersion
	Account     string // for rows that name none
	Env         string // for rows that name none

	Flush        time.Duration // how long a runner gathers rows; default 10 ms. Each publication refreshes the indices it wrote to
	MaxBulkBytes int           // of one request; default 5 MiB. A larger row is sent alone
	Retry        retry.Policy  // for refused connections, 429 and 5xx; default: until the context ends

	HTTP       http.RoundTripper     // default: http.DefaultTransport's settings, with a limit on the wait for an answer
	Logger     *slog.Logger          // default: none
	Registerer prometheus.Registerer // default: none
	Now        func() time.Time      // what requests are timed with; default time.Now
}

func (c Config) withDefaults() Config {
	if c.Suffix == "" {
		c.Suffix = c.DataVersion
	}
	if c.Flush <= 0 {
		c.Flush = 10 * time.Millisecond
	}
	if c.MaxBulkBytes <= 0 {
		c.MaxBulkBytes = 5 << 20
	}
	if c.HTTP == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.ResponseHeaderTimeout = time.Minute // longer than a bulk takes; a node that hangs is tried again
		c.HTTP = t
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Sink publishes rows to the target. It is not safe for concurrent use.
type Sink struct {
	config   Config
	client   *elastictransport.Client
	tables   []table
	instance string // in names of aliases
	lineage  sink.Lineage
	claims   map[string]claim // by index
	ready    map[string]bool  // indices that have their mapping and alias

	restoring bool // Begin is filling indices: a new one is not complete
	metrics
}

var _ sink.Sink = (*Sink)(nil)

// New checks the configuration and returns a sink. It does not connect: a target that is down is waited for by Publish.
func New(config Config) (*Sink, error) {
	config = config.withDefaults()
	if config.Plan == nil {
		return nil, errors.New("elastic sink: no plan given")
	}
	if len(config.URLs) == 0 {
		return nil, errors.New("elastic sink: no URL given")
	}
	var urls []*url.URL
	for _, s := range config.URLs {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("elastic sink: URL %q is not http://host:port or https://host:port", s)
		}
		urls = append(urls, u)
	}
	if config.APIKey != "" && config.Username != "" {
		return nil, errors.New("elastic sink: give an API key or a user name, not both")
	}
	options := []elastictransport.Option{
		elastictransport.WithURLs(urls...), elastictransport.WithUserAgent("millrace"), elastictransport.WithTransport(config.HTTP),
		elastictransport.WithDisableRetry(), // internal/retry does it, with what has failed only
	}
	switch {
	case config.APIKey != "":
		options = append(options, elastictransport.WithAPIKey(config.APIKey))
	case config.Username != "":
		options = append(options, elastictransport.WithBasicAuth(config.Username, config.Password))
	}
	client, err := elastictransport.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("elastic sink: %w", err)
	}
	s := &Sink{config: config, client: client, claims: map[string]claim{}, ready: map[string]bool{}, metrics: newMetrics(config.Registerer)}
	s.instance = instanceKey(config)
	for i := range config.Plan.Tables {
		t, err := newTable(&config.Plan.Tables[i])
		if err != nil {
			return nil, err
		}
		s.tables = append(s.tables, t)
	}
	return s, nil
}

// Name is "elastic".
func (s *Sink) Name() string { return "elastic" }

// Gather returns one bulk request's bytes and Config.Flush.
func (s *Sink) Gather() (int64, time.Duration) { return int64(s.config.MaxBulkBytes), s.config.Flush }

// Close frees connections.
func (s *Sink) Close() error {
	if t, ok := s.config.HTTP.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
	return nil
}

// Publish puts the rows of b into their indices and makes them visible to searches.
//
// A row that the target will never take is returned. Errors of the target that pass are retried, with only the documents
// they concern, until ctx ends. Refused credentials, and a mapping that the index has otherwise, are returned as errors. What a
// writer of an old lineage has put into an index before it was claimed anew is taken back by the claim.
func (s *Sink) Publish(ctx context.Context, b sink.Batch) ([]sink.Rejected, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.lineage.ID == "" {
		return nil, errors.New("elastic sink: Publish before Begin")
	}
	w := s.newWriter()
	for _, r := range b.Rows {
		t := &s.tables[r.Table]
		if t.AppendOnly {
			continue
		}
		if err := w.row(ctx, t, s.index(t.Name, r), r, b.Lineage, s.config.Plan.Version); err != nil {
			return nil, err
		}
	}
	err := w.flush(ctx)
	return w.rejected, err
}

// writer gathers rows into bulk requests.
type writer struct {
	s        *Sink
	bulk     request
	touched  map[string]bool // indices
	deleting map[string]bool // aliases through which bulk deletes documents
	rejected []sink.Rejected
}

func (s *Sink) newWriter() *writer {
	return &writer{s: s, touched: map[string]bool{}, deleting: map[string]bool{}}
}

func (w *writer) row(ctx context.Context, t *table, index string, r plan.Row, lineage, version string) error {
	s := w.s
	if !s.ready[index] {
		if err := s.prepare(ctx, t, index); err != nil {
			return err
		}
	}
	w.touched[index] = true
	size := len(w.bulk.body)
	if r.Deleted {
		w.deleting[s.claims[index].alias] = true
	}
	if reason := s.append(&w.bulk, t, s.claims[index], r, lineage, version); reason != "" {
		w.bulk.body = w.bulk.body[:size]
		w.rejected = append(w.rejected, s.reject(r, reason))
		return nil
	}
	if len(w.bulk.body) > s.config.MaxBulkBytes && size > 0 {
		last := w.bulk.cut(size)
		if err := w.send(ctx); err != nil {
			return err
		}
		w.bulk = last
		if r.Deleted {
			w.deleting[s.claims[index].alias] = true
		}
	}
	return nil
}

func (w *writer) send(ctx context.Context) error {
	if err := w.s.checkAliases(ctx, w.deleting); err != nil {
		return err
	}
	refused, err := w.s.send(ctx, w.bulk)
	w.rejected = append(w.rejected, refused...)
	w.bulk = request{}
	clear(w.deleting)
	return err
}

// flush sends what is left and makes all visible.
func (w *writer) flush(ctx context.Context) error {
	if err := w.send(ctx); err != nil {
		return err
	}
	return w.s.refresh(ctx, w.touched)
}

func (s *Sink) reject(r plan.Row, reason string) sink.Rejected {
	s.documents.WithLabelValues("rejected").Inc()
	return sink.Rejected{Row: r, Reason: reason}
}

type metrics struct {
	documents *prometheus.CounterVec
	retries   prometheus.Counter
	seconds   prometheus.Histogram
	bytes     prometheus.Counter
}

func newMetrics(r prometheus.Registerer) metrics {
	m := metrics{
		documents: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_elastic_documents_total",
			Help: "Rows published, by result: written, deleted, stale (the target has the same or a newer revision), rejected.",
		}, []string{"result"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "millrace_elastic_retries_total",
			Help: "Requests that were repeated because the target was not reachable or busy.",
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "millrace_elastic_bulk_seconds",
			Help:    "Time that a bulk request takes, without retries.",
			Buckets: prometheus.ExponentialBuckets(0.002, 4, 8),
		}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "millrace_elastic_bulk_bytes_total",
			Help: "Bytes of bulk requests, retries included.",
		}),
	}
	if r != nil {
		r.MustRegister(m.documents, m.retries, m.seconds, m.bytes)
	}
	return m
}
