package lake_test

import (
	"context"
	"fmt"
	"iter"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"millrace/lake"
	"millrace/lake/laketest"
)

func TestUpkeepIsShown(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	now := time.Date(2026, 9, 14, 12, 0, 0, 0, time.UTC)
	registry := prometheus.NewRegistry()
	l := openLake(t, lake.Config{Dir: dir, KeepSnapshots: 5, KeepFor: time.Nanosecond, Registerer: registry, Now: func() time.Time { return now }})
	tbl := openTable(t, l)
	upkeep := func() lake.Upkeep {
		t.Helper()
		reader, err := openLake(t, lake.Config{Dir: dir, ReadOnly: true}).Lookup(ctx, tbl.Name())
		require.NoError(t, err)
		u, err := reader.Upkeep(ctx)
		require.NoError(t, err)
		return u
	}
	require.Zero(t, upkeep())
	for e := uint64(1); e <= 9; e++ {
		publish(t, tbl, e, e, quiz(fmt.Sprint(e), 1, e, 0))
	}
	u := upkeep()
	require.Equal(t, 9, u.Snapshots)
	require.False(t, u.Oldest.IsZero())
	require.Zero(t, u.Compacted)
	_, err := tbl.Compact(ctx)
	require.NoError(t, err)
	require.Equal(t, now, upkeep().Compacted)
	now = now.Add(time.Hour)
	_, err = tbl.Compact(ctx)
	require.NoError(t, err)
	require.Equal(t, now.Add(-time.Hour), upkeep().Compacted, "nothing was to be joined")
	publish(t, tbl, 10, 10, quiz("10", 1, 10, 0))
	require.Equal(t, 5, upkeep().Snapshots, "of 11")

	families, err := registry.Gather()
	require.NoError(t, err)
	shown := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, label := range m.GetLabel() {
				name += " " + label.GetValue()
			}
			shown[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	require.EqualValues(t, 9, shown["millrace_lake_compacted_files_total"])
	require.EqualValues(t, now.Add(-time.Hour).Unix(), shown["millrace_lake_compacted_timestamp_seconds v1.quiz"])
	require.EqualValues(t, 6, shown["millrace_lake_expired_snapshots_total"])
	require.EqualValues(t, 5, shown["millrace_lake_snapshots v1.quiz"])
}

// A reader goes on with the snapshot that it began on, whatever a writer does to its files meanwhile.
func TestUpkeepDoesNotDisturbReaders(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	tbl := openTable(t, openLake(t, lake.Config{Dir: dir, KeepSnapshots: 1}))
	e := uint64(0)
	want := map[string]bool{}
	for range 12 {
		e++
		publish(t, tbl, e, e, quiz(fmt.Sprint(e), 1, e, 0))
		want[fmt.Sprint(e)] = true
	}
	reader, err := openLake(t, lake.Config{Dir: dir, ReadOnly: true}).Lookup(ctx, tbl.Name())
	require.NoError(t, err)
	next, stop := iter.Pull2(reader.Scan(ctx, lake.ScanOptions{}))
	defer stop()
	got := map[string]bool{}
	take := func() bool {
		row, err, ok := next()
		require.NoError(t, err)
		if ok {
			got[row["_id"].(string)] = true
		}
		return ok
	}
	require.True(t, take())
	done, err := tbl.Compact(ctx)
	require.NoError(t, err)
	require.Equal(t, 12, done.Removed)
	for range 4 { // each tries to expire and to sweep
		e++
		publish(t, tbl, e, e, quiz("later", e, e, 0))
	}
	for take() {
	}
	require.Equal(t, want, got)
	require.Len(t, scores(t, reader), 13)
}

// A table that is not written any more comes down to the snapshots that are kept, once nobody can be reading the others.
func TestExpireOfATableAtRest(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	open := func(keepFor time.Duration) *lake.Table {
		return openTable(t, openLake(t, lake.Config{Dir: dir, KeepSnapshots: 4, KeepFor: keepFor}))
	}
	snapshots := func(tbl *lake.Table) int {
		t.Helper()
		u, err := tbl.Upkeep(ctx)
		require.NoError(t, err)
		return u.Snapshots
	}
	tbl := open(time.Hour)
	require.NoError(t, tbl.Expire(ctx), "nothing was ever committed")
	for e := uint64(1); e <= 7; e++ {
		publish(t, tbl, e, e, quiz(fmt.Sprint(e), 1, e, 0))
		if e == 2 {
			_, err := tbl.Pin(ctx, "reader")
			require.NoError(t, err)
		}
	}
	want := scores(t, tbl)
	require.NoError(t, tbl.Expire(ctx))
	require.Equal(t, 7, snapshots(tbl), "a reader may just have begun on any of them")
	lists := func() (n int) {
		for _, name := range laketest.Files(t, dir) {
			if base := path.Base(filepath.ToSlash(name)); strings.HasPrefix(base, "snap-") && !strings.HasSuffix(base, "-claim.avro") {
				n++
			}
		}
		return n
	}
	all := lists()

	tbl = open(time.Nanosecond)
	require.NoError(t, tbl.Expire(ctx))
	require.Equal(t, 5, snapshots(tbl), "the newest four, and the one that is pinned")
	require.Equal(t, all-2, lists(), "those of the snapshots that went")
	require.Equal(t, want, scores(t, tbl))
	before, _, err := tbl.Metadata(ctx)
	require.NoError(t, err)
	require.NoError(t, tbl.Expire(ctx))
	after, _, err := tbl.Metadata(ctx)
	require.NoError(t, err)
	require.Equal(t, before, after, "what is held is no reason for a commit")

	reader, err := openLake(t, lake.Config{Dir: dir, ReadOnly: true}).Lookup(ctx, tbl.Name())
	require.NoError(t, err)
	require.ErrorIs(t, reader.Expire(ctx), lake.ErrReadOnly)
}
