package engine

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the engine's own; the names of the talk's metrics are the business of who exposes jobs, and so is a label that tells
// the jobs of one registerer apart.
type metrics struct {
	registerer prometheus.Registerer
	all        []prometheus.Collector

	epochs, records, skipped, rows, endsFailures prometheus.Counter
	epochSeconds, commitSeconds                  prometheus.Histogram
	publishSeconds                               *prometheus.HistogramVec
	published                                    *prometheus.CounterVec
}

// newMetrics makes the metrics and registers them, if there is where. Gauges are read from Progress at each scrape.
func newMetrics(e *Engine) (*metrics, error) {
	m := &metrics{registerer: e.c.Registerer}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_engine_" + name, Help: help})
		m.all = append(m.all, c)
		return c
	}
	buckets := prometheus.ExponentialBuckets(0.001, 2, 14) // 1 ms to 8 s
	histogram := func(name, help string) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "millrace_engine_" + name, Help: help, Buckets: buckets})
		m.all = append(m.all, h)
		return h
	}
	m.epochs = counter("epochs_total", "Epochs committed.")
	m.records = counter("records_total", "Records read in committed epochs.")
	m.skipped = counter("skipped_records_total", "Records of source types that the job does not read.")
	m.rows = counter("rows_total", "Rows committed.")
	m.endsFailures = counter("ends_failures_total", "Times that the source did not tell its ends.")
	m.epochSeconds = histogram("epoch_seconds", "Time to process and commit an epoch.")
	m.commitSeconds = histogram("commit_seconds", "Time to make an epoch durable.")
	m.publishSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "millrace_engine_publish_seconds", Help: "Time of a sink to publish a batch.", Buckets: buckets,
	}, []string{"sink"})
	m.published = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "millrace_engine_published_rows_total", Help: "Rows given to a sink, again after a crash.",
	}, []string{"sink"})
	m.all = append(m.all, m.publishSeconds, m.published, &gauges{
		e:            e,
		epoch:        prometheus.NewDesc("millrace_engine_epoch", "Last committed epoch.", nil, nil),
		lag:          prometheus.NewDesc("millrace_engine_lag_records", "Records of the source that are not read.", nil, nil),
		outbox:       prometheus.NewDesc("millrace_engine_outbox_bytes", "Rows that some sink has not published.", nil, nil),
		state:        prometheus.NewDesc("millrace_engine_state_bytes", "State on disk.", nil, nil),
		watermark:    prometheus.NewDesc("millrace_engine_watermark_seconds", "Event-time watermark, since 1970.", nil, nil),
		backpressure: prometheus.NewDesc("millrace_engine_backpressure", "1 while the outbox is over its limit.", nil, nil),
		stageKeys:    prometheus.NewDesc("millrace_engine_stage_keys", "Keys that a stage has a value for.", []string{"stage"}, nil),
		stageItems: prometheus.NewDesc("millrace_engine_stage_items",
			"Items in a stage's lists, by what: items are records that wait, expiring ones may still be corrected.", []string{"stage", "what"}, nil),
		stageBytes: prometheus.NewDesc("millrace_engine_stage_bytes",
			"State of a stage, before compression, by what: values, items or expiring.", []string{"stage", "what"}, nil),
		sinkRows:     prometheus.NewDesc("millrace_engine_sink_lag_rows", "Rows that a sink has not published.", []string{"sink"}, nil),
		sinkRejected: prometheus.NewDesc("millrace_engine_sink_rejected_rows", "Rows that a sink refused for good.", []string{"sink"}, nil),
	})
	if m.registerer == nil {
		return m, nil
	}
	for i, c := range m.all {
		if err := m.registerer.Register(c); err != nil {
			m.all = m.all[:i]
			m.unregister()
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) unregister() {
	if m.registerer != nil {
		for _, c := range m.all {
			m.registerer.Unregister(c)
		}
	}
}

func (m *metrics) epoch(took, commit time.Duration, in *input, rows int) {
	m.epochs.Inc()
	m.epochSeconds.Observe(took.Seconds())
	m.commitSeconds.Observe(commit.Seconds())
	m.rows.Add(float64(rows))
	if in != nil {
		m.records.Add(float64(in.records))
		m.skipped.Add(float64(in.skipped))
	}
}

func (m *metrics) publish(sink string, took time.Duration, rows int) {
	m.publishSeconds.WithLabelValues(sink).Observe(took.Seconds())
	m.published.WithLabelValues(sink).Add(float64(rows))
}

// gauges collects what Progress knows.
type gauges struct {
	e                                                  *Engine
	epoch, lag, outbox, state, watermark, backpressure *prometheus.Desc
	stageKeys, stageItems, stageBytes                  *prometheus.Desc
	sinkRows, sinkRejected                             *prometheus.Desc
}

func (g *gauges) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(g, out) }

func (g *gauges) Collect(out chan<- prometheus.Metric) {
	p := g.e.Progress()
	send := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	send(g.epoch, float64(p.Epoch))
	send(g.lag, float64(p.Lag))
	send(g.outbox, float64(p.OutboxBytes))
	send(g.state, float64(p.StateBytes))
	send(g.watermark, float64(p.Watermark)/1e6)
	backpressure := 0.0
	if p.Backpressure {
		backpressure = 1
	}
	send(g.backpressure, backpressure)
	for _, s := range p.Stages {
		send(g.stageKeys, float64(s.Keys), s.Name)
		send(g.stageItems, float64(s.Items), s.Name, "items")
		send(g.stageItems, float64(s.ExpiringItems), s.Name, "expiring")
		send(g.stageBytes, float64(s.ExpiringBytes), s.Name, "expiring")
		send(g.stageBytes, float64(s.ValueBytes), s.Name, "values")
		send(g.stageBytes, float64(s.ItemBytes), s.Name, "items")
	}
	for _, s := range p.Sinks {
		send(g.sinkRows, float64(s.PendingRows), s.Name)
		send(g.sinkRejected, float64(s.Rejected), s.Name)
	}
}
