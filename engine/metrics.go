package engine

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the engine's own; the names of the talk's metrics are the business of who exposes jobs, and so is a label that tells
// the jobs of one registerer apart. Counters begin at 0 in each process; what goes on over restarts is in Progress.
//
// Labels are names of the plan's stages and tables and of the sinks: as many as an app has, however much it reads.
type metrics struct {
	registerer prometheus.Registerer
	all        []prometheus.Collector

	epochs, records, readBytes, skipped, rows, endsFailures, checkpointFailures prometheus.Counter
	epochSeconds, commitSeconds, checkpointSeconds                              prometheus.Histogram
	publishSeconds                                                              *prometheus.HistogramVec
	published, publishedBytes                                                   *prometheus.CounterVec

	stageRecords, tableRows, tableBytes []prometheus.Counter // by index into the plan
}

// newMetrics makes the metrics and registers them, if there is where. Gauges are read from Progress at each scrape.
func newMetrics(e *Engine) (*metrics, error) {
	m := &metrics{registerer: e.c.Registerer}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_engine_" + name, Help: help})
		m.all = append(m.all, c)
		return c
	}
	counters := func(name, help, label string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_engine_" + name, Help: help}, []string{label})
		m.all = append(m.all, c)
		return c
	}
	buckets := prometheus.ExponentialBuckets(0.001, 2, 14) // 1 ms to 8 s
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "millrace_engine_" + name, Help: help, Buckets: buckets})
		m.all = append(m.all, h)
		return h
	}
	m.epochs = counter("epochs_total", "Epochs committed.")
	m.records = counter("records_total", "Records read in committed epochs.")
	m.readBytes = counter("read_bytes_total", "Bytes of the records read in committed epochs, without headers.")
	m.skipped = counter("skipped_records_total", "Records of source types that the job does not read.")
	m.rows = counter("rows_total", "Rows committed, withdrawals included.")
	m.endsFailures = counter("ends_failures_total", "Times that the source did not tell its ends: the lag is that of before.")
	m.checkpointFailures = counter("checkpoint_failures_total", "Checkpoints and savepoints that could not be made.")
	m.epochSeconds = histogram("epoch_seconds", "Time to process and commit an epoch.", buckets)
	m.commitSeconds = histogram("commit_seconds", "Time to make an epoch durable, part of the epoch's.", buckets)
	m.checkpointSeconds = histogram("checkpoint_seconds", "Time to make a checkpoint or savepoint.", prometheus.ExponentialBuckets(0.004, 2, 15)) // 4 ms to a minute
	m.publishSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "millrace_engine_publish_seconds", Help: "Time of a sink to publish a batch of rows.", Buckets: buckets,
	}, []string{"sink"})
	m.all = append(m.all, m.publishSeconds)
	m.published = counters("published_rows_total", "Rows given to a sink, again after a crash.", "sink")
	m.publishedBytes = counters("published_bytes_total", "Bytes of the rows given to a sink, as the outbox has them.", "sink")

	stages := counters("stage_records_total", "Records and entities sent to a stage in committed epochs.", "stage")
	for _, s := range e.c.Plan.Stages {
		m.stageRecords = append(m.stageRecords, stages.WithLabelValues(s.Name))
	}
	rows := counters("table_rows_total", "Rows of a table committed, corrections and withdrawals included.", "table")
	size := counters("table_bytes_total", "Bytes of the committed rows of a table, in Avro.", "table")
	for _, t := range e.c.Plan.Tables {
		m.tableRows = append(m.tableRows, rows.WithLabelValues(t.Name))
		m.tableBytes = append(m.tableBytes, size.WithLabelValues(t.Name))
	}
	for _, s := range e.sinks { // from 0 on, so that a rate sees the first
		m.publishSeconds.WithLabelValues(s.sink.Name())
		m.published.WithLabelValues(s.sink.Name())
		m.publishedBytes.WithLabelValues(s.sink.Name())
	}
	m.all = append(m.all, newGauges(e))
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

func (m *metrics) epoch(took, commit time.Duration, in *input, res *stepResult) {
	m.epochs.Inc()
	m.epochSeconds.Observe(took.Seconds())
	m.commitSeconds.Observe(commit.Seconds())
	m.rows.Add(float64(len(res.rows)))
	if in != nil {
		m.records.Add(float64(in.records))
		m.readBytes.Add(float64(in.bytes))
		m.skipped.Add(float64(in.skipped))
	}
	for stage, n := range res.sent {
		m.stageRecords[stage].Add(float64(n))
	}
	count, size := make([]int, len(m.tableRows)), make([]int, len(m.tableRows))
	for i := range res.rows {
		r := &res.rows[i]
		count[r.Table]++
		size[r.Table] += len(r.Value)
	}
	for table, n := range count {
		m.tableRows[table].Add(float64(n))
		m.tableBytes[table].Add(float64(size[table]))
	}
}

func (m *metrics) publish(sink string, took time.Duration, rows int, size int64) {
	m.publishSeconds.WithLabelValues(sink).Observe(took.Seconds())
	m.published.WithLabelValues(sink).Add(float64(rows))
	m.publishedBytes.WithLabelValues(sink).Add(float64(size))
}

// gauges collects what Progress knows.
type gauges struct {
	e   *Engine
	all []*prometheus.Desc

	epoch, lag, lagSeconds, outbox, state, watermark, backpressure, committed, dropped *prometheus.Desc
	stageKeys, stageItems, stageBytes                                                  *prometheus.Desc
	sinkRows, sinkBytes, sinkEpochs, sinkSeconds, sinkRejected                         *prometheus.Desc
}

func newGauges(e *Engine) *gauges {
	var all []*prometheus.Desc
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		d := prometheus.NewDesc("millrace_engine_"+name, help, labels, nil)
		all = append(all, d)
		return d
	}
	g := &gauges{
		e:     e,
		epoch: desc("epoch", "Last committed epoch."),
		lag:   desc("lag_records", "Records of the source that are not read."),
		lagSeconds: desc("lag_seconds",
			"How long ago the oldest record that is not read came, at most: 0 when all is read; absent while it is not known."),
		outbox:       desc("outbox_bytes", "Bytes of rows that some sink has not published."),
		state:        desc("state_bytes", "State on disk."),
		watermark:    desc("watermark_seconds", "Event-time watermark, since 1970; 0 when there is none yet."),
		backpressure: desc("backpressure", "1 while the outbox is over its limit: nothing is read."),
		committed:    desc("commit_timestamp_seconds", "When an epoch was last committed, since 1970; absent when this process has committed none."),
		dropped: desc("dropped_items",
			"Items of lists that left before their time for the limit of what expires, since the job's first start: records that are no longer corrected."),
		stageKeys: desc("stage_keys", "Keys that a stage has a value for.", "stage"),
		stageItems: desc("stage_items",
			"Items in a stage's lists, by what: items are records that wait, expiring ones may still be corrected.", "stage", "what"),
		stageBytes:   desc("stage_bytes", "State of a stage, before compression, by what: values, items or expiring.", "stage", "what"),
		sinkRows:     desc("sink_lag_rows", "Rows in the outbox that a sink has not published.", "sink"),
		sinkBytes:    desc("sink_lag_bytes", "Bytes of the rows in the outbox that a sink has not published.", "sink"),
		sinkEpochs:   desc("sink_lag_epochs", "Epochs with rows in the outbox that a sink has not published.", "sink"),
		sinkSeconds:  desc("sink_lag_seconds", "How long ago the oldest row that a sink has not published was made; 0 when it has published all.", "sink"),
		sinkRejected: desc("sink_rejected_rows", "Rows that a sink refused for good, since the job's first start.", "sink"),
	}
	g.all = all
	return g
}

func (g *gauges) Describe(out chan<- *prometheus.Desc) {
	for _, d := range g.all {
		out <- d
	}
}

func (g *gauges) Collect(out chan<- prometheus.Metric) {
	p, now := g.e.Progress(), g.e.c.Now()
	send := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	send(g.epoch, float64(p.Epoch))
	send(g.lag, float64(p.Lag))
	if seconds, ok := p.LagSeconds(now); ok {
		send(g.lagSeconds, seconds)
	}
	send(g.outbox, float64(p.OutboxBytes))
	send(g.state, float64(p.StateBytes))
	send(g.watermark, float64(p.Watermark)/1e6)
	backpressure := 0.0
	if p.Backpressure {
		backpressure = 1
	}
	send(g.backpressure, backpressure)
	if !p.CommittedAt.IsZero() {
		send(g.committed, float64(p.CommittedAt.UnixMicro())/1e6)
	}
	send(g.dropped, float64(p.Dropped))
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
		send(g.sinkBytes, float64(s.PendingBytes), s.Name)
		send(g.sinkEpochs, float64(s.PendingEpochs), s.Name)
		age := 0.0
		if s.Oldest > 0 {
			age = max(now.Sub(time.UnixMicro(s.Oldest)).Seconds(), 0)
		}
		send(g.sinkSeconds, age, s.Name)
		send(g.sinkRejected, float64(s.Rejected), s.Name)
	}
}
