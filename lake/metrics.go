package lake

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	commits   *prometheus.CounterVec
	conflicts prometheus.Counter
	seconds   prometheus.Histogram
	rows      prometheus.Counter
	files     prometheus.Counter
	bytes     prometheus.Counter
	swept     prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		commits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_lake_commits_total",
			Help: "Commits by outcome: done, or known: found already made by an earlier try.",
		}, []string{"outcome"}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "millrace_lake_conflicts_total",
			Help: "Commits tried again because another writer changed the table first.",
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "millrace_lake_commit_seconds",
			Help:    "Time of a commit, without writing its data files.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 12),
		}),
		rows: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "millrace_lake_written_rows_total", Help: "Rows written to data files.",
		}),
		files: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "millrace_lake_written_files_total", Help: "Data and delete files written.",
		}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "millrace_lake_written_bytes_total", Help: "Bytes of data and delete files written.",
		}),
		swept: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "millrace_lake_swept_files_total", Help: "Files removed because no snapshot refers to them.",
		}),
	}
	if r != nil {
		r.MustRegister(m.commits, m.conflicts, m.seconds, m.rows, m.files, m.bytes, m.swept)
	}
	return m
}
