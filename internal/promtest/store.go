// Package promtest asks Prometheus' own engine, in tests: what a query answers about what was scraped, and which alerts of a rules file fire.
//
// The one idea: a Store is to the engine what a Prometheus server's storage is. Scrapes are the text that a process exposes, at times that a
// test chooses; a series that is gone from a scrape is stale, as it is for a server. Only promql and the packages it needs are linked:
// Prometheus' storage and rule manager would bring in clients of every cloud, and from 0.311 to 0.315 promql those of Kubernetes.
package promtest

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"
)

// Store holds scraped samples. It is not safe for concurrent use.
type Store struct {
	series map[string]*series
	engine *promql.Engine
}

// series is one series with its samples in order of time.
type series struct {
	labels  labels.Labels
	samples []chunks.Sample
}

// New returns an empty store.
func New() *Store {
	return &Store{
		series: map[string]*series{},
		engine: promql.NewEngine(promql.EngineOpts{
			MaxSamples: 1e7, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, EnableAtModifier: true, EnableNegativeOffset: true,
		}),
	}
}

// Scrape takes the samples of an exposition. A series that the last scrape had and this one lacks becomes stale.
func (s *Store) Scrape(t *testing.T, text []byte, at time.Time) {
	t.Helper()
	p, err := textparse.New(text, "text/plain; version=0.0.4", nil, textparse.ParserOptions{})
	require.NoError(t, err)
	seen := map[string]bool{}
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if entry != textparse.EntrySeries {
			continue
		}
		var l labels.Labels
		p.Labels(&l)
		_, _, v := p.Series()
		require.False(t, seen[l.String()], "%s is there twice", l)
		seen[l.String()] = true
		s.add(l, at, v)
	}
	require.NotEmpty(t, seen)
	for key, have := range s.series {
		if last := have.samples[len(have.samples)-1]; !seen[key] && !value.IsStaleNaN(last.F()) {
			s.add(have.labels, at, math.Float64frombits(value.StaleNaN))
		}
	}
}

func (s *Store) add(l labels.Labels, at time.Time, v float64) {
	key := l.String()
	if s.series[key] == nil {
		s.series[key] = &series{labels: l}
	}
	s.series[key].samples = append(s.series[key].samples, sample{at.UnixMilli(), v})
}

// Query asks for the value of an expression at an instant.
func (s *Store) Query(t *testing.T, expr string, at time.Time) promql.Vector {
	t.Helper()
	v, err := s.query(t.Context(), expr, at)
	require.NoError(t, err, expr)
	return v
}

func (s *Store) query(ctx context.Context, expr string, at time.Time) (promql.Vector, error) {
	q, err := s.engine.NewInstantQuery(ctx, s, nil, expr, at)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	res := q.Exec(ctx)
	if res.Err != nil {
		return nil, res.Err
	}
	switch v := res.Value.(type) {
	case promql.Vector:
		return slices.Clone(v), nil // Close takes it back
	case promql.Scalar:
		return promql.Vector{{T: v.T, F: v.V, Metric: labels.EmptyLabels()}}, nil
	}
	return nil, errors.New("it is neither a vector nor a number: " + expr)
}

// Querier implements storage.Queryable.
func (s *Store) Querier(from, to int64) (storage.Querier, error) {
	return &querier{s: s, from: from, to: to}, nil
}

type querier struct {
	s        *Store
	from, to int64
}

func (q *querier) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	set := &seriesSet{}
	for _, x := range q.s.series {
		if slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(x.labels.Get(m.Name)) }) {
			continue
		}
		within := slices.DeleteFunc(slices.Clone(x.samples), func(v chunks.Sample) bool { return v.T() < q.from || v.T() > q.to })
		if len(within) > 0 {
			set.all = append(set.all, storage.NewListSeries(x.labels, within))
		}
	}
	slices.SortFunc(set.all, func(a, b storage.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
	return set
}

func (*querier) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, errors.New("no query asks for label values")
}

func (*querier) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, errors.New("no query asks for label names")
}

func (*querier) Close() error { return nil }

type seriesSet struct {
	all []storage.Series
	now storage.Series
}

func (s *seriesSet) Next() bool {
	if len(s.all) == 0 {
		return false
	}
	s.now, s.all = s.all[0], s.all[1:]
	return true
}

func (s *seriesSet) At() storage.Series              { return s.now }
func (*seriesSet) Err() error                        { return nil }
func (*seriesSet) Warnings() annotations.Annotations { return nil }

// sample is a number at a time, in milliseconds since 1970.
type sample struct {
	t int64
	f float64
}

func (s sample) T() int64                    { return s.t }
func (sample) ST() int64                     { return 0 }
func (s sample) F() float64                  { return s.f }
func (sample) H() *histogram.Histogram       { return nil }
func (sample) FH() *histogram.FloatHistogram { return nil }
func (sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample         { return s }
