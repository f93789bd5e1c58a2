package collect

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"millrace/record"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  prometheus.Histogram
	bytes    prometheus.Counter
	items    map[record.Kind]prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	auto := promauto.With(registerer)
	items := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "millrace_collect_items_total", Help: "Items that are durable in the log, by kind: event, entity or reject.",
	}, []string{"kind"})
	m := &metrics{
		requests: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_collect_requests_total", Help: "Requests answered, by HTTP status.",
		}, []string{"status"}),
		seconds: auto.NewHistogram(prometheus.HistogramOpts{
			Name: "millrace_collect_request_seconds", Help: "Time from a request's headers to its answer.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}),
		bytes: auto.NewCounter(prometheus.CounterOpts{
			Name: "millrace_collect_bytes_total", Help: "Bytes of the bodies, as sent, of which every item is durable in the log.",
		}),
		items: make(map[record.Kind]prometheus.Counter),
	}
	for _, status := range []int{http.StatusOK, http.StatusUnauthorized, http.StatusServiceUnavailable} {
		m.requests.WithLabelValues(strconv.Itoa(status)) // from 0 on, so that a rate sees the first
	}
	for _, kind := range []record.Kind{record.Event, record.Entity, record.Reject} {
		m.items[kind] = items.WithLabelValues(kind.String())
	}
	return m
}
