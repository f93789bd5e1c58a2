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

	// Of upkeep.
	compacted      prometheus.Counter
	compactSeconds prometheus.Histogram
	compactedAt    *prometheus.GaugeVec
	expired        prometheus.Counter
	snapshots      *prometheus.GaugeVec
	upkeepErrors   *prometheus.CounterVec
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
		compacted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "millrace_lake_compacted_files_total", Help: "Data files that compaction has replaced.",
		}),
		compactSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "millrace_lake_compaction_seconds",
			Help:    "Time of a compaction that replaced files.",
			Buckets: prometheus.ExponentialBuckets(0.05, 3, 10),
		}),
		compactedAt: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "millrace_lake_compacted_timestamp_seconds", Help: "When files of a table were last joined; absent when they never were.",
		}, []string{"table"}),
		expired: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "millrace_lake_expired_snapshots_total", Help: "Snapshots dropped because of their age and number.",
		}),
		snapshots: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "millrace_lake_snapshots", Help: "Snapshots of a table that are kept.",
		}, []string{"table"}),
		upkeepErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_lake_upkeep_errors_total", Help: "Failures of compact, expire and sweep. Rows are not concerned; it is tried again later.",
		}, []string{"what"}),
	}
	for _, what := range []string{"compact", "expire", "sweep"} {
		m.upkeepErrors.WithLabelValues(what) // from 0 on, so that a rate sees the first
	}
	if r != nil {
		r.MustRegister(m.commits, m.conflicts, m.seconds, m.rows, m.files, m.bytes, m.swept,
			m.compacted, m.compactSeconds, m.compactedAt, m.expired, m.snapshots, m.upkeepErrors)
	}
	return m
}
