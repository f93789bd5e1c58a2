package engine_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/plan/plantest"
)

// gather is the metrics of a registry by name and, where there is one, the value of its label: the sum of a histogram's is its count.
func gather(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	require.NoError(t, err)
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return got
}

// The records that a job does not read while its sink is away grow older, and so do the rows that the sink has not published.
func TestMetricsOfAJobThatIsBehind(t *testing.T) {
	t.Parallel()
	clock := plantest.NewClock()
	m := &memory{name: "index", block: make(chan struct{})}
	registry := prometheus.NewRegistry()
	c := config(t, newLog(), m)
	c.Now, c.Registerer, c.OutboxLimit, c.CheckpointEvery = clock.Now, registry, 1, -1
	j := start(t, c)
	first := pairs(3)
	for i := range first {
		first[i].ReceivedAt = clock.Now()
	}
	j.log.append(0, first...)
	j.wait("the outbox to be full", func(p engine.Progress) bool {
		seconds, ok := p.LagSeconds(clock.Now())
		return p.Backpressure && ok && seconds == 0
	})
	clock.Move(time.Minute)
	next := pairs(1)
	for i := range next {
		next[i].ReceivedAt = clock.Now()
	}
	began := clock.Now()
	for range 2 { // what was polled before the outbox was full may be read
		j.log.append(0, next...)
	}
	j.wait("records that are not read", func(p engine.Progress) bool { return p.Lag > 0 && p.LagSince > 0 })
	clock.Move(time.Hour)
	got := gather(t, registry)
	require.GreaterOrEqual(t, got["millrace_engine_lag_seconds"], time.Hour.Seconds())
	require.LessOrEqual(t, got["millrace_engine_lag_seconds"], clock.Now().Sub(began.Add(-time.Minute)).Seconds())
	require.GreaterOrEqual(t, got["millrace_engine_sink_lag_seconds index"], time.Hour.Seconds())
	require.Positive(t, got["millrace_engine_sink_lag_bytes index"])
	require.Positive(t, got["millrace_engine_sink_lag_epochs index"])
	require.EqualValues(t, 1, got["millrace_engine_backpressure"])

	close(m.block)
	j.settle()
	j.wait("the ends", func(p engine.Progress) bool { return p.Lag == 0 })
	require.NoError(t, j.e.Savepoint(t.Context(), filepath.Join("savepoints", "one")))
	require.Error(t, j.e.Savepoint(t.Context(), filepath.Join("savepoints", "one")), "there is one already")
	got = gather(t, registry)
	for name, want := range map[string]float64{
		"millrace_engine_lag_seconds": 0, "millrace_engine_sink_lag_seconds index": 0, "millrace_engine_sink_lag_bytes index": 0,
		"millrace_engine_sink_lag_epochs index": 0, "millrace_engine_checkpoint_seconds": 1, "millrace_engine_checkpoint_failures_total": 1,
	} {
		require.Contains(t, got, name)
		require.InDelta(t, want, got[name], 0, name)
	}
	require.Positive(t, j.e.Progress().CheckpointTime)
	require.Positive(t, got["millrace_engine_read_bytes_total"])
	require.Positive(t, got["millrace_engine_published_bytes_total index"])
	rows, size := 0.0, 0.0
	for _, table := range c.Plan.Tables {
		rows += got["millrace_engine_table_rows_total "+table.Name]
		size += got["millrace_engine_table_bytes_total "+table.Name]
	}
	require.InDelta(t, got["millrace_engine_rows_total"], rows, 0)
	require.Positive(t, size)
	sent := 0.0
	for _, s := range c.Plan.Stages {
		sent += got["millrace_engine_stage_records_total "+s.Name]
	}
	require.Positive(t, sent)
}
