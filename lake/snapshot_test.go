package lake_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/lake"
	"millrace/lake/laketest"
	"millrace/plan"
)

// voided are the scores that DuckDB finds in a snapshot's files when it is told which corrections void what.
func voided(t *testing.T, l *lake.Lake, s *lake.Snapshot) map[string]float64 {
	t.Helper()
	db, err := sql.Open("duckdb", "")
	require.NoError(t, err)
	defer db.Close()
	dir := t.TempDir()
	parts := func(files []lake.SnapshotFile) string {
		parts := []string{"SELECT NULL::VARCHAR AS _id, 0.0::DOUBLE AS score, 0 AS seq WHERE false"}
		for _, f := range files {
			at, err := l.Local(t.Context(), f, dir)
			require.NoError(t, err)
			columns := "_id, score"
			if strings.Contains(at, "delete-") {
				columns = "_id, 0.0"
			}
			parts = append(parts, fmt.Sprintf("SELECT %s, %d FROM read_parquet('%s')", columns, f.Sequence, at))
		}
		return strings.Join(parts, " UNION ALL ")
	}
	rows, err := db.QueryContext(t.Context(), fmt.Sprintf("WITH d AS (%s), v AS (%s) SELECT _id, score FROM d WHERE NOT EXISTS (SELECT 1 FROM v WHERE v._id = d._id AND v.seq > d.seq)",
		parts(s.Data), parts(s.Deletes)))
	require.NoError(t, err)
	defer rows.Close()
	got := map[string]float64{}
	for rows.Next() {
		var id string
		var score float64
		require.NoError(t, rows.Scan(&id, &score))
		require.NotContains(t, got, id)
		got[id] = score
	}
	require.NoError(t, rows.Err())
	return got
}

func TestSnapshotIsTheTable(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	l := openLake(t, lake.Config{})
	tbl := openTable(t, l)
	s, err := tbl.Snapshot(ctx)
	require.NoError(t, err)
	require.Zero(t, s.ID)
	require.Empty(t, s.Data)
	require.Len(t, s.Columns, len(quizzes.Schema.Columns)+len(plan.MetaColumns))

	for e := uint64(1); e <= 12; e++ {
		publish(t, tbl, e, e, quiz(fmt.Sprint("a", e), 1, e, 0), quiz("hot", e, e, day*int64(e%3)))
	}
	publish(t, tbl, 13, 13, plan.Row{ID: "a3", Rev: 2, Deleted: true, Epoch: 13})
	s, err = tbl.Snapshot(ctx)
	require.NoError(t, err)
	require.NotZero(t, s.ID)
	want := scores(t, tbl)
	require.Equal(t, want, voided(t, l, s))
	_, err = tbl.Compact(ctx)
	require.NoError(t, err)
	publish(t, tbl, 14, 14, quiz("a1", 2, 14, 0))
	require.Equal(t, want, voided(t, l, s), "a snapshot stays what it is")
	s, err = tbl.Snapshot(ctx)
	require.NoError(t, err)
	want["a1"] = 2
	require.Equal(t, want, voided(t, l, s))
}

// However many commits come in a moment, a snapshot's files stay for as long as is said.
func TestSnapshotStaysForAWhile(t *testing.T) {
	t.Parallel()
	now := time.Now
	l := openLake(t, lake.Config{KeepSnapshots: 2, KeepFor: time.Millisecond, Now: func() time.Time { return now() }})
	tbl := openTable(t, l)
	publish(t, tbl, 1, 1, quiz("a", 1, 1, 0))
	s, err := tbl.Snapshot(t.Context())
	require.NoError(t, err)
	began := time.Now().Add(time.Millisecond)
	now = func() time.Time { return began }
	for e := uint64(2); e <= 20; e++ {
		publish(t, tbl, e, e, quiz("a", e, e, 0))
	}
	require.Equal(t, map[string]float64{"a": 1}, voided(t, l, s))

	now = func() time.Time { return began.Add(time.Hour) }
	tbl.Compact(t.Context()) //nolint:errcheck // it joins the files that the snapshot had
	for e := uint64(21); e <= 30; e++ {
		publish(t, tbl, e, e, quiz("a", e, e, 0))
	}
	for _, f := range s.Data {
		_, err = l.Local(context.Background(), f, t.TempDir())
		require.ErrorIs(t, err, os.ErrNotExist)
		require.ErrorContains(t, err, "is missing: restore the lake from a backup, or ask again if the snapshot is an old one")
	}
}

func TestSnapshotOfDamagedFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLake(t, lake.Config{Dir: dir})
	tbl := openTable(t, l)
	publish(t, tbl, 1, 1, quiz("a", 1, 1, 0))
	s, err := tbl.Snapshot(t.Context())
	require.NoError(t, err)
	for _, name := range laketest.Files(t, dir) {
		if strings.HasSuffix(name, ".parquet") {
			laketest.Cut(t, dir, name)
		}
	}
	_, err = l.Local(t.Context(), s.Data[0], t.TempDir())
	require.ErrorContains(t, err, "bytes where")
}

// A scan of a snapshot sees what the table held then, whatever was committed since: corrections, withdrawals, and files joined.
func TestScanOfSnapshot(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	_, tbl := markedLake(t, 1)
	read := func(snapshot int64) (rows []lake.Row) {
		for row, err := range tbl.Scan(ctx, lake.ScanOptions{Columns: []string{"_id", "_rev", "paper"}, Snapshot: snapshot}) {
			require.NoError(t, err)
			rows = append(rows, row)
		}
		return rows
	}
	s, err := tbl.Snapshot(ctx)
	require.NoError(t, err)
	before := read(0)
	require.Equal(t, before, read(s.ID))
	publish(t, tbl, 3, 3, mark(1, 3, 3, nil), mark(2000, 1, 3, nil), plan.Row{ID: "18", Rev: 2, Deleted: true, Epoch: 3})
	for epoch := range uint64(10) {
		publish(t, tbl, 4+epoch, 4+epoch, mark(3000+int(epoch), 1, 4+epoch, nil)) //nolint:gosec // small
	}
	done, err := tbl.Compact(ctx)
	require.NoError(t, err)
	require.Positive(t, done.Removed)
	require.Equal(t, before, read(s.ID))
	require.Len(t, read(0), len(before)+10)
	for _, err := range tbl.Scan(ctx, lake.ScanOptions{Snapshot: 1}) {
		require.ErrorIs(t, err, lake.ErrExpired)
		require.ErrorContains(t, err, "snapshot 1")
	}
}
