package main

import (
	"runtime"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"millrace/control"
	"millrace/engine"
	"millrace/ingest"
)

// jobMetrics publishes what is known of the jobs, in the stack's names and in those of the talk, which Flink's own exporter and that of the
// talk's framework gave there. What it counts is kept with the jobs' state, so it goes on over restarts; a job that went back to a savepoint counts from
// there, which a rate takes for a beginning at 0.
//
// Every label is the name of an instance, a table, a counter or a state of the program: there are as many series as those, however much is
// read.
type jobMetrics struct {
	s   *stack
	all []*prometheus.Desc

	info, state, serving, failed, restarts          *prometheus.Desc
	items, records, waiting, letters                *prometheus.Desc
	ledgerDifference, ledgerBalanced, ledgerReadAt  *prometheus.Desc
	writeRecords, checkpointDuration, flinkRestarts *prometheus.Desc
}

func newJobMetrics(s *stack) *jobMetrics {
	m := &jobMetrics{s: s}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		d := prometheus.NewDesc(name, help, labels, nil)
		m.all = append(m.all, d)
		return d
	}
	m.info = desc("millrace_job_info", "1 for each job; its labels say what it is.", "unique_id", "jobname", "app", "app_version", "data_version")
	m.state = desc("millrace_job_state", "1 for the state that the instance is in, 0 for the others: those of docs/lifecycle.md.", "unique_id", "state")
	m.serving = desc("millrace_job_serving", "1 when readers see the tables of the job's data version.", "unique_id")
	m.failed = desc("millrace_job_failed", "1 when the job has failed; it goes on from its last commit at the next start, or when it is recovered.", "unique_id")
	m.restarts = desc("millrace_job_restarts_total",
		"How often the job was started again after it had failed, or its process was killed, since its first start. A stop that was asked for does not count.", "unique_id")
	m.items = desc("millrace_job_items_total", "Items of the log that the job has read, and what became of them, since its first start.", "unique_id", "counter")
	m.records = desc("millrace_job_table_records",
		"Records of a table by where they are (waiting is now; the others since the job's first start).", "unique_id", "table", "counter")
	m.waiting = desc("millrace_job_waiting_records", "Records of a table that wait for an entity.", "unique_id", "table")
	m.letters = desc("millrace_job_dead_letters_total",
		"Records of a table that became dead letters, those that were withdrawn later included, since the job's first start.", "unique_id", "table")
	m.ledgerDifference = desc("millrace_job_ledger_difference_records",
		"Records that an account of the job's ledger lacks, or has twice (below 0), as far as that is certain; 0 when it adds up.", "unique_id", "account")
	m.ledgerBalanced = desc("millrace_job_ledger_balanced",
		"1 when each account of the job's ledger adds up, 0 when one does not for certain; absent while that is not known.", "unique_id")
	m.ledgerReadAt = desc("millrace_job_ledger_timestamp_seconds",
		"When the targets were last counted for the job's ledger, since 1970; absent when they could not be yet.", "unique_id")

	m.writeRecords = desc("write_records",
		"Records that the vertices of the job have put out, by their type: source (read), table (rows made) or sink (rows published), since its first start.",
		"unique_id", "vertex_type")
	m.checkpointDuration = desc("flink_jobmanager_job_lastcheckpointduration",
		"Milliseconds that the job last took to keep a state to restart from: its last checkpoint, before the first one its last commit. Absent when this process has made neither.", "jobname")
	m.flinkRestarts = desc("flink_jobmanager_job_fullrestarts", "The same as millrace_job_restarts_total, by the job's name.", "jobname")
	return m
}

// Describe implements prometheus.Collector.
func (m *jobMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range m.all {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *jobMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, j := range m.s.jobs() {
		c := jobSeries{ch, j, j.instance.UniqueID()}
		m.job(c, m.s.serves(j))
		if p, known := j.known(); known {
			m.counters(c, p)
			m.ledger(c, p)
			m.talk(c, p)
		}
	}
}

// job sends what is known of a job that may not even be open.
func (m *jobMetrics) job(c jobSeries, serving bool) {
	c.gauge(m.info, 1, jobName(c.j), c.j.program().plan.App, c.j.program().plan.Version, c.j.instance.DataVersion)
	now := c.j.state()
	for _, state := range control.States {
		c.gauge(m.state, truth(state == now), string(state))
	}
	c.gauge(m.serving, truth(serving))
	c.gauge(m.failed, truth(c.j.failure() != nil))
	c.counter(m.restarts, c.j.restarted())
	c.send(m.flinkRestarts, prometheus.CounterValue, float64(c.j.restarted()), jobName(c.j))
}

// counters sends what the job's plan counts.
func (m *jobMetrics) counters(c jobSeries, p engine.Progress) {
	for _, name := range c.j.program().plan.Counters {
		n := p.Counters[name]
		rest, ok := strings.CutPrefix(name, "table.")
		if !ok {
			c.counter(m.items, n, name)
			continue
		}
		table, counter, _ := strings.Cut(rest, ".")
		c.gauge(m.records, float64(n), table, counter)
		switch counter {
		case "waiting":
			c.gauge(m.waiting, float64(n), table)
		case "dead_letters":
			c.counter(m.letters, n, table)
		}
	}
}

// ledger sends the accounts of the last commit, and those of the targets as they were last counted.
func (m *jobMetrics) ledger(c jobSeries, p engine.Progress) {
	l := c.j.readLedger().with(p)
	for _, a := range l.Accounts {
		difference := 0.0
		if a.Off() {
			difference = float64(a.Difference())
		}
		c.gauge(m.ledgerDifference, difference, a.Name)
	}
	if l.targets {
		c.gauge(m.ledgerReadAt, float64(l.At.UnixMicro())/1e6)
		if l.Off() || l.Balanced() {
			c.gauge(m.ledgerBalanced, truth(!l.Off()))
		}
	}
}

// talk sends the series that the talk's queries ask for.
func (m *jobMetrics) talk(c jobSeries, p engine.Progress) {
	published := int64(0)
	for _, s := range p.Sinks {
		published += p.Rows - s.PendingRows
	}
	for _, v := range []struct {
		vertex string
		n      int64
	}{{"source", p.Read}, {"table", p.Rows}, {"sink", published}} {
		c.counter(m.writeRecords, v.n, v.vertex)
	}
	took := p.CheckpointTime
	if took == 0 {
		took = p.CommitTime
	}
	if took > 0 {
		c.send(m.checkpointDuration, prometheus.GaugeValue, took.Seconds()*1000, jobName(c.j))
	}
}

// jobName is a job's name in the talk's queries, where that of the singleton which fills the raw lake begins with global-ingest.
func jobName(j *stackJob) string {
	if j.program().plan.App == ingest.App {
		return "global-ingest-" + j.instance.DataVersion
	}
	return j.instance.UniqueID()
}

// jobSeries are the series of one job.
type jobSeries struct {
	ch       chan<- prometheus.Metric
	j        *stackJob
	uniqueID string
}

func (c jobSeries) send(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
	c.ch <- prometheus.MustNewConstMetric(d, t, v, labels...)
}

func (c jobSeries) gauge(d *prometheus.Desc, v float64, labels ...string) {
	c.send(d, prometheus.GaugeValue, v, append([]string{c.uniqueID}, labels...)...)
}

func (c jobSeries) counter(d *prometheus.Desc, n int64, labels ...string) {
	c.send(d, prometheus.CounterValue, float64(n), append([]string{c.uniqueID}, labels...)...)
}

func truth(v bool) float64 {
	if v {
		return 1
	}
	return 0
}

// newBuildInfo is a metric that says which program runs.
func newBuildInfo() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "millrace_build_info", Help: "1; its labels say which program runs.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	}, func() float64 { return 1 })
}
