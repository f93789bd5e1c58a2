package iceberg_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/lake"
	"millrace/lake/laketest"
	"millrace/plan"
	"millrace/sink"
	"millrace/sink/iceberg"
	"millrace/sink/sinktest"
)

type harness struct{ dir string }

// Open opens a lake of its own, as a new process would.
func (h harness) Open(t testing.TB) sink.Sink {
	l, err := lake.Open(context.Background(), laketest.In(h.dir))
	require.NoError(t, err)
	s, err := iceberg.Open(context.Background(), iceberg.Config{Lake: l, Namespace: "v1", Plan: sinktest.Plan()})
	require.NoError(t, err)
	return closing{s, l}
}

// closing closes the lake with its sink.
type closing struct {
	sink.Sink
	lake *lake.Lake
}

func (c closing) Close() error {
	if err := c.Sink.Close(); err != nil {
		return err
	}
	return c.lake.Close()
}

func (h harness) Rows(t testing.TB, table string) map[string]map[string]any {
	l, err := lake.Open(context.Background(), lake.Config{Dir: h.dir, ReadOnly: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	tbl, err := l.Lookup(context.Background(), lake.Name{Namespace: "v1", Table: table})
	require.NoError(t, err)
	rows := map[string]map[string]any{}
	for row, err := range tbl.Scan(context.Background(), lake.ScanOptions{}) {
		require.NoError(t, err)
		id := row["_id"].(string)
		require.NotContains(t, rows, id, "table %s holds two rows with one id", table)
		rows[id] = row
	}
	return rows
}

func TestSuite(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, sinktest.Features{
		AppendOnly:     true,
		RefusesForeign: true,
		Rejects: func(id string) plan.Row {
			r := sinktest.Visit(t, id, 1)
			value, err := sinktest.Plan().Tables[sinktest.TableVisit].Schema.Append(nil, []plan.Cell{{Bytes: []byte("not\xffUTF-8")}})
			require.NoError(t, err)
			r.Value = value
			return r
		},
	}, func(t testing.TB) sinktest.Harness { return harness{t.TempDir()} })
}

func TestConfig(t *testing.T) {
	t.Parallel()
	l, err := lake.Open(context.Background(), laketest.In(t.TempDir()))
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	_, err = iceberg.Open(context.Background(), iceberg.Config{Lake: l, Namespace: "a.b", Plan: sinktest.Plan()})
	require.ErrorContains(t, err, `"a.b" cannot name a namespace`)
	_, err = iceberg.Open(context.Background(), iceberg.Config{Lake: l, Namespace: "v1"})
	require.ErrorContains(t, err, "Config.Plan is nil")
	_, err = iceberg.Open(context.Background(), iceberg.Config{Namespace: "v1", Plan: sinktest.Plan()})
	require.ErrorContains(t, err, "Config.Lake is nil")
}

func TestManyCommitsStayFewFiles(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	l, err := lake.Open(ctx, laketest.In(t.TempDir()))
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	s, err := iceberg.Open(ctx, iceberg.Config{Lake: l, Namespace: "v1", Plan: sinktest.Plan()})
	require.NoError(t, err)
	require.NoError(t, s.Begin(ctx, sinktest.First(), nil))
	const epochs = 70
	for e := uint64(1); e <= epochs; e++ {
		_, err := s.Publish(ctx, sink.Batch{
			Lineage: sinktest.Lineage, FromEpoch: e, ToEpoch: e,
			Rows: []plan.Row{sinktest.Visit(t, fmt.Sprint(e), e)},
		})
		require.NoError(t, err)
	}
	tbl, err := l.Lookup(ctx, lake.Name{Namespace: "v1", Table: "visit"})
	require.NoError(t, err)
	files, err := tbl.Files(ctx)
	require.NoError(t, err)
	require.Less(t, len(files), 20)
	n, err := tbl.Count(ctx)
	require.NoError(t, err)
	require.EqualValues(t, epochs, n)
}

// A process that is started again and again compacts too.
func TestShortLivesStayFewFiles(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	for e := uint64(1); e <= 20; e++ {
		s := harness{dir}.Open(t)
		require.NoError(t, s.Begin(ctx, sinktest.First(), nil))
		_, err := s.Publish(ctx, sink.Batch{Lineage: sinktest.Lineage, FromEpoch: e, ToEpoch: e, Rows: []plan.Row{sinktest.Visit(t, fmt.Sprint(e), e)}})
		require.NoError(t, err)
		require.NoError(t, s.Close())
	}
	l, err := lake.Open(ctx, lake.Config{Dir: dir, ReadOnly: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	tbl, err := l.Lookup(ctx, lake.Name{Namespace: "v1", Table: "visit"})
	require.NoError(t, err)
	files, err := tbl.Files(ctx)
	require.NoError(t, err)
	require.Less(t, len(files), 8)
}

// Tables that get no rows any more, those of an earlier plan among them, do not keep what they gathered.
func TestTablesAtRestAreTended(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	cfg := laketest.In(t.TempDir())
	cfg.KeepSnapshots, cfg.KeepFor = 3, time.Nanosecond
	l, err := lake.Open(ctx, cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	begin := func(p *plan.Plan) *iceberg.Sink {
		s, err := iceberg.Open(ctx, iceberg.Config{Lake: l, Namespace: "v1", Plan: p})
		require.NoError(t, err)
		require.NoError(t, s.Begin(ctx, sinktest.First(), nil))
		return s
	}
	snapshots := func() map[string]int {
		n := map[string]int{}
		for _, name := range []string{"quiz", "visit"} {
			tbl, err := l.Lookup(ctx, lake.Name{Namespace: "v1", Table: name})
			require.NoError(t, err)
			u, err := tbl.Upkeep(ctx)
			require.NoError(t, err)
			n[name] = u.Snapshots
		}
		return n
	}
	s := begin(sinktest.Plan())
	for e := uint64(1); e <= 5; e++ {
		_, err := s.Publish(ctx, sink.Batch{
			Lineage: sinktest.Lineage, FromEpoch: e, ToEpoch: e, Rows: []plan.Row{sinktest.Visit(t, fmt.Sprint(e), e), sinktest.Quiz(t, fmt.Sprint(e), 1, e)},
		})
		require.NoError(t, err)
	}
	require.Equal(t, map[string]int{"quiz": 5, "visit": 5}, snapshots())
	without := sinktest.Plan()
	without.Tables = without.Tables[:sinktest.TableVisit]
	require.Positive(t, begin(without).Tend(ctx))
	require.Equal(t, map[string]int{"quiz": 3, "visit": 3}, snapshots())
}

func TestOrphansGoWhenALineageBegins(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	p := sinktest.Plan()
	l, err := lake.Open(ctx, laketest.In(dir))
	require.NoError(t, err)
	tbl, err := l.Table(ctx, "v1", p.Tables[sinktest.TableVisit])
	require.NoError(t, err)
	_, err = tbl.Write(ctx, []plan.Row{sinktest.Visit(t, "a", 1)}, sinktest.Lineage, "1.0.0") // and dies
	require.NoError(t, err)
	require.NoError(t, l.Close())
	parquet := func() []string {
		return slices.DeleteFunc(laketest.Files(t, dir), func(name string) bool { return !strings.HasPrefix(name, "v1/visit/data/") })
	}
	require.Len(t, parquet(), 1)
	s := harness{dir}.Open(t)
	require.Len(t, parquet(), 1, "they may be another writer's")
	require.NoError(t, s.Begin(ctx, sinktest.First(), nil))
	require.Empty(t, parquet())
	require.NoError(t, s.Close())
}

// A lake's server that is away is waited for.
func TestServerAway(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	gate := laketest.NewGate(t)
	gate.Let(math.MaxInt, false)
	dir := t.TempDir()
	cfg := laketest.In(dir)
	cfg.S3.Endpoint = gate.URL
	l, err := lake.Open(ctx, cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	s, err := iceberg.Open(ctx, iceberg.Config{Lake: l, Namespace: "v1", Plan: sinktest.Plan()})
	require.NoError(t, err)
	require.NoError(t, s.Begin(ctx, sinktest.First(), nil))
	for epoch, answered := range []int{0, 1, 2, 5} { // in the middle of different steps
		e := uint64(epoch + 1)
		gate.Let(answered, true)
		done := make(chan error, 1)
		go func() {
			_, err := s.Publish(ctx, sink.Batch{
				Lineage: sinktest.Lineage, FromEpoch: e, ToEpoch: e, Rows: []plan.Row{sinktest.Quiz(t, fmt.Sprint(e), 1, e)},
			})
			done <- err
		}()
		require.Eventually(t, func() bool { return gate.Refused() > 8 }, time.Minute, 10*time.Millisecond)
		gate.Let(math.MaxInt, false)
		require.NoError(t, <-done)
	}
	require.Len(t, harness{dir}.Rows(t, "quiz"), 4)

	// And not waited for when the job is to stop.
	gate.Let(0, false)
	stopping, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		_, err := s.Publish(stopping, sink.Batch{Lineage: sinktest.Lineage, FromEpoch: 9, ToEpoch: 9, Rows: []plan.Row{sinktest.Quiz(t, "x", 1, 9)}})
		done <- err
	}()
	require.Eventually(t, func() bool { return gate.Refused() > 8 }, time.Minute, 10*time.Millisecond)
	stop()
	require.ErrorIs(t, <-done, context.Canceled)
}
