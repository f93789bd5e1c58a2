package main

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// jobCounters publishes what the plans of jobs count. A commit keeps the counters with the state, so they go on over restarts.
type jobCounters struct{ *stack }

var (
	jobItems = prometheus.NewDesc("millrace_job_items_total",
		"Items of the log that the job has read, and what became of them, since its first start.", []string{"unique_id", "counter"}, nil)
	jobRecords = prometheus.NewDesc("millrace_job_table_records",
		"Records of a table by where they are (waiting is now; the others since the job's first start).", []string{"unique_id", "table", "counter"}, nil)
	jobFailed = prometheus.NewDesc("millrace_job_failed",
		"1 when the job has failed; it goes on from its last commit at the next start.", []string{"unique_id"}, nil)
)

// Describe implements prometheus.Collector.
func (c jobCounters) Describe(ch chan<- *prometheus.Desc) {
	ch <- jobItems
	ch <- jobRecords
	ch <- jobFailed
}

// Collect implements prometheus.Collector.
func (c jobCounters) Collect(ch chan<- prometheus.Metric) {
	for _, j := range c.jobs() {
		id, failed := j.instance.UniqueID(), 0.0
		if j.failure() != nil {
			failed = 1
		}
		ch <- prometheus.MustNewConstMetric(jobFailed, prometheus.GaugeValue, failed, id)
		counters := j.Progress().Counters
		for _, name := range j.plan.Counters {
			n := counters[name]
			if rest, ok := strings.CutPrefix(name, "table."); ok {
				table, counter, _ := strings.Cut(rest, ".")
				ch <- prometheus.MustNewConstMetric(jobRecords, prometheus.GaugeValue, float64(n), id, table, counter)
				continue
			}
			ch <- prometheus.MustNewConstMetric(jobItems, prometheus.CounterValue, float64(n), id, name)
		}
	}
}
