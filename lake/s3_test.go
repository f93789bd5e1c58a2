package lake_test

import (
	"context"
	"math"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/lake"
	"millrace/lake/laketest"
)

func TestWarehouseNames(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"s3://lake", "s3://lake/", "s3://a.b-c/millrace/prod_1"} {
		require.NoError(t, lake.ValidWarehouse(good))
	}
	for _, bad := range []string{"", "lake", "/srv/lake", "s3:/lake", "s3://", "s3://L", "s3://lake//x", "s3://lake/..", "s3://lake/a b", "s3://lake?x", "gs://lake"} {
		require.ErrorContains(t, lake.ValidWarehouse(bad), "want s3://bucket or s3://bucket/prefix", bad)
		if bad != "" {
			_, err := lake.Open(context.Background(), lake.Config{Dir: t.TempDir(), Warehouse: bad})
			require.ErrorContains(t, err, "is no place for a lake", bad)
		}
	}
	_, err := lake.Open(context.Background(), lake.Config{Dir: t.TempDir(), Warehouse: "s3://lake", S3: lake.S3{Endpoint: "127.0.0.1:9000"}})
	require.ErrorContains(t, err, `S3 endpoint "127.0.0.1:9000" is no URL such as`)
}

func TestWarehouseOfOneLake(t *testing.T) {
	t.Parallel()
	gate := laketest.NewGate(t)
	gate.Let(math.MaxInt, false)
	ctx := context.Background()
	dir := t.TempDir()
	cfg := laketest.In(dir)
	l, err := lake.Open(ctx, cfg)
	require.NoError(t, err)
	publish(t, openTable(t, l), 1, 1, quiz("a", 1, 1, 0))
	require.NoError(t, l.Close())

	refused := func(cfg lake.Config, want string) {
		t.Helper()
		_, err := lake.Open(ctx, cfg)
		require.ErrorContains(t, err, want)
	}
	other := cfg
	other.Dir = t.TempDir()
	refused(other, "belongs to a lake whose catalogue is not in "+other.Dir)
	other = cfg
	other.Warehouse += "-elsewhere"
	refused(other, "keeps its files in "+cfg.Warehouse+", not in "+other.Warehouse)
	other = laketest.In(t.TempDir())
	other.Warehouse = "s3://no-such-bucket-of-ours/x"
	refused(other, "has no bucket no-such-bucket-of-ours: make it, or name another")

	other = laketest.In(t.TempDir())
	local, err := lake.Open(ctx, lake.Config{Dir: other.Dir})
	require.NoError(t, err)
	openTable(t, local)
	require.NoError(t, local.Close())
	refused(other, "has its tables on the local disk")

	// The catalogue remembers the rest; an address given is remembered from then on.
	l, err = lake.Open(ctx, lake.Config{Dir: dir, S3: lake.S3{Endpoint: gate.URL}})
	require.NoError(t, err)
	require.NoError(t, l.Close())
	gate.Let(0, false)
	l, err = lake.Open(ctx, lake.Config{Dir: dir, ReadOnly: true})
	require.NoError(t, err)
	tbl, err := l.Lookup(ctx, lake.Name{Namespace: "v1", Table: "quiz"})
	if laketest.OnREST() { // which sends the metadata, so that the server is missed later
		require.NoError(t, err)
		for _, err = range tbl.Scan(ctx, lake.ScanOptions{}) {
			break
		}
	}
	require.ErrorIs(t, err, lake.ErrUnavailable)
	require.ErrorContains(t, err, gate.URL)
	gate.Let(math.MaxInt, false)
	tbl, err = l.Lookup(ctx, lake.Name{Namespace: "v1", Table: "quiz"})
	require.NoError(t, err)
	require.Equal(t, map[string]float64{"a": 1}, scores(t, tbl))
	require.NoError(t, l.Close())

	// A bucket without the lake in it is not taken for an empty one.
	laketest.Remove(t, dir, "millrace-lake.json")
	refused(cfg, "has no millrace-lake.json, though tables of the lake in "+dir+" are there")
}

// Of catalogues that are made for one warehouse at the same time one has it.
func TestWarehouseOfTheFirstLake(t *testing.T) {
	t.Parallel()
	if !laketest.OnS3() {
		t.Skip("MILLRACE_S3 is not set: scripts/servers/s3.sh starts a server for it")
	}
	cfg := laketest.In(t.TempDir())
	const catalogues = 8
	dirs := make([]string, catalogues)
	errs := make([]error, catalogues)
	var wg sync.WaitGroup
	for i := range catalogues {
		dirs[i] = t.TempDir()
		wg.Go(func() {
			own := cfg
			own.Dir = dirs[i]
			l, err := lake.Open(context.Background(), own)
			if err == nil {
				err = l.Close()
			}
			errs[i] = err
		})
	}
	wg.Wait()
	var first []int
	for i, err := range errs {
		if err == nil {
			first = append(first, i)
			continue
		}
		require.ErrorContains(t, err, cfg.Warehouse+" belongs to a lake whose catalogue is not in "+dirs[i])
	}
	require.Len(t, first, 1)
	cfg.Dir = dirs[first[0]]
	l, err := lake.Open(context.Background(), cfg)
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

// The server goes away before, or in the middle of, each fifth of the requests that publishing takes, and comes back.
func TestServerGoesAwayAtEachStep(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	gate := laketest.NewGate(t)
	for requests := 0; ; requests += 5 {
		cfg := laketest.In(t.TempDir())
		cfg.S3.Endpoint = gate.URL
		gate.Let(math.MaxInt, false)
		l, err := lake.Open(ctx, cfg)
		require.NoError(t, err)
		gate.Let(requests, requests%2 == 0)
		err = publishAll(ctx, l)
		gone := gate.Refused() > 0
		gate.Let(math.MaxInt, false)
		if gone {
			require.ErrorIs(t, err, lake.ErrUnavailable, "after %d requests", requests)
			err = publishAll(ctx, l)
		}
		require.NoError(t, err, "after %d requests", requests)
		tbl, err := l.Table(ctx, "v1", quizzes)
		require.NoError(t, err)
		require.Equal(t, afterBatches, scores(t, tbl), "after %d requests", requests)
		require.NoError(t, l.Close())
		if !gone {
			require.GreaterOrEqual(t, requests, 30, "too few requests to have failed in each step")
			return
		}
	}
}
