package lake_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/lake"
	"millrace/lake/laketest"
	"millrace/plan"
)

var quizzes = plan.Table{
	Name: "quiz",
	Schema: plan.Schema{Name: "Quiz", Columns: []plan.Column{
		{Name: "student", Type: plan.String},
		{Name: "score", Type: plan.Double, Nullable: true},
		{Name: "attempts", Type: plan.Long},
		{Name: "late", Type: plan.Bool},
		{Name: "graded", Type: plan.Timestamp, Nullable: true},
		{Name: "answer", Type: plan.Bytes},
		{Name: "tags", Type: plan.Strings},
	}},
}

const day = int64(24 * time.Hour / time.Microsecond)

// quiz is a row of quizzes whose score is its revision.
func quiz(id string, rev uint64, epoch uint64, eventTime int64) plan.Row {
	value, err := quizzes.Schema.Append(nil, []plan.Cell{
		{Bytes: []byte("student-" + id)},
		{Float: float64(rev)},
		{Int: int64(epoch)},
		{Bool: rev%2 == 0},
		{Null: true},
		{Bytes: []byte{0, 0xff, byte(rev)}},
		{List: [][]byte{[]byte("a"), []byte("ü" + id)}},
	})
	if err != nil {
		panic(err)
	}
	return plan.Row{
		ID: id, Rev: rev, First: rev == 1, EventTime: eventTime, Account: "acme", Env: "prod",
		Sources: []string{"event " + id + " t/0/1"}, Value: value, Epoch: epoch,
	}
}

func openLake(t testing.TB, cfg lake.Config) *lake.Lake {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if !cfg.ReadOnly { // a reader finds out by itself
		at := laketest.In(cfg.Dir)
		cfg.Warehouse, cfg.S3, cfg.Catalog = at.Warehouse, at.S3, at.Catalog
	}
	l, err := lake.Open(context.Background(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

func openTable(t testing.TB, l *lake.Lake) *lake.Table {
	t.Helper()
	tbl, err := l.Table(context.Background(), "v1", quizzes)
	require.NoError(t, err)
	return tbl
}

func publish(t testing.TB, tbl *lake.Table, from, to uint64, rows ...plan.Row) {
	t.Helper()
	p, err := tbl.Write(context.Background(), rows, "L1", "1.0.0")
	require.NoError(t, err)
	require.Empty(t, p.Rejected)
	require.NoError(t, tbl.Commit(context.Background(), p, lake.Position{Lineage: "L1", FromEpoch: from, ToEpoch: to, Offsets: plan.Offsets{0: int64(to)}}))
}

// scores are the table's scores by id.
func scores(t testing.TB, tbl *lake.Table) map[string]float64 {
	t.Helper()
	got := map[string]float64{}
	for row, err := range tbl.Scan(context.Background(), lake.ScanOptions{Columns: []string{"_id", "score"}}) {
		require.NoError(t, err)
		id := row["_id"].(string)
		require.NotContains(t, got, id, "the table holds two rows with one id")
		got[id] = row["score"].(float64)
	}
	n, err := tbl.Count(context.Background())
	require.NoError(t, err)
	require.EqualValues(t, len(got), n, "count and scan differ")
	return got
}

func TestRowsComeBackAsWritten(t *testing.T) {
	t.Parallel()
	tbl := openTable(t, openLake(t, lake.Config{}))
	publish(t, tbl, 1, 1, quiz("x", 1, 1, 20_000*day+7))
	var rows []lake.Row
	for row, err := range tbl.Scan(context.Background(), lake.ScanOptions{}) {
		require.NoError(t, err)
		rows = append(rows, row)
	}
	require.Equal(t, []lake.Row{{
		"student": "student-x", "score": 1.0, "attempts": int64(1), "late": false, "graded": nil,
		"answer": []byte{0, 0xff, 1}, "tags": []string{"a", "üx"},
		"_id": "x", "_rev": int64(1), "_epoch": int64(1), "_lineage": "L1", "_app_version": "1.0.0",
		"_sources": []string{"event x t/0/1"}, "_event_time": time.UnixMicro(20_000*day + 7).UTC(),
		"account_id": "acme", "env_id": "prod",
	}}, rows)
}

func TestCorrectionsReplaceAcrossPartitions(t *testing.T) {
	t.Parallel()
	tbl := openTable(t, openLake(t, lake.Config{}))
	publish(t, tbl, 1, 1, quiz("a", 1, 1, 0), quiz("b", 1, 1, day), quiz("c", 1, 1, -1))
	require.Equal(t, map[string]float64{"a": 1, "b": 1, "c": 1}, scores(t, tbl))

	moved := quiz("a", 2, 2, 5*day) // to another day
	publish(t, tbl, 2, 2, moved, quiz("d", 1, 2, 0))
	require.Equal(t, map[string]float64{"a": 2, "b": 1, "c": 1, "d": 1}, scores(t, tbl))

	publish(t, tbl, 3, 3, plan.Row{ID: "b", Rev: 2, Deleted: true, Epoch: 3})
	require.Equal(t, map[string]float64{"a": 2, "c": 1, "d": 1}, scores(t, tbl))

	publish(t, tbl, 4, 4, quiz("b", 3, 4, day), quiz("b", 5, 4, day), quiz("b", 4, 4, day))
	require.Equal(t, map[string]float64{"a": 2, "b": 5, "c": 1, "d": 1}, scores(t, tbl))
}

func TestNewestFirst(t *testing.T) {
	t.Parallel()
	tbl := openTable(t, openLake(t, lake.Config{}))
	for i := range 10 {
		publish(t, tbl, uint64(i+1), uint64(i+1), quiz(fmt.Sprint(i), 1, 1, int64(i*7%10)*day))
	}
	var got []time.Time
	for row, err := range tbl.Scan(context.Background(), lake.ScanOptions{NewestBy: "_event_time", Limit: 3, Columns: []string{"_event_time"}}) {
		require.NoError(t, err)
		got = append(got, row["_event_time"].(time.Time))
	}
	require.Equal(t, []time.Time{time.UnixMicro(9 * day).UTC(), time.UnixMicro(8 * day).UTC(), time.UnixMicro(7 * day).UTC()}, got)
}
