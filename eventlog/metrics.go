package eventlog

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	appendedItems prometheus.Counter
	appendedBytes prometheus.Counter
	appendErrors  prometheus.Counter
	appendSeconds prometheus.Histogram
	readItems     prometheus.Counter
	readBytes     prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	auto := promauto.With(registerer)
	counter := func(name, help string) prometheus.Counter {
		return auto.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &metrics{
		appendedItems: counter("millrace_eventlog_appended_items_total", "Items appended to the log and durable there."),
		appendedBytes: counter("millrace_eventlog_appended_bytes_total", "Bytes of the appended items and their headers."),
		appendErrors:  counter("millrace_eventlog_append_errors_total", "Appends of which not every item is known to be durable."),
		appendSeconds: auto.NewHistogram(prometheus.HistogramOpts{
			Name:    "millrace_eventlog_append_seconds",
			Help:    "Time from an append to its last item being durable.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		readItems: counter("millrace_eventlog_read_items_total", "Items read from the log."),
		readBytes: counter("millrace_eventlog_read_bytes_total", "Bytes of the items read."),
	}
}
