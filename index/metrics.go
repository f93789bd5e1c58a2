package index

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	requests  *prometheus.HistogramVec // by operation and class of status
	documents *prometheus.CounterVec   // by what became of them
	groups    prometheus.Histogram
	renewals  prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "millrace_index_request_seconds",
			Help:    "Time to answer a request, by operation and status class.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}, []string{"operation", "status"}),
		documents: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_index_documents_total",
			Help: "Document writes, by result: created, updated, deleted, not_found, noop, conflict, refused.",
		}, []string{"result"}),
		groups: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "millrace_index_commit_documents",
			Help:    "Document writes that shared one commit.",
			Buckets: prometheus.ExponentialBuckets(1, 8, 6),
		}),
		renewals: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "millrace_index_renewals_total",
			Help: "How often the database was closed and opened again, to free memory or because it was given up.",
		}),
	}
	if r != nil {
		r.MustRegister(m.requests, m.documents, m.groups, m.renewals)
	}
	return m
}
