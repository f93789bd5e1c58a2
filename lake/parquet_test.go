package lake_test

import (
	"database/sql"
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/lake"
	"millrace/lake/laketest"
	"millrace/plan"
)

// duck runs a query of one row over the data files of dir's lake, %s.
func duck(t *testing.T, dir, query string, into ...any) {
	t.Helper()
	db, err := sql.Open("duckdb", "")
	require.NoError(t, err)
	defer db.Close()
	files := filepath.Join(laketest.Copy(t, dir), "*", "*", "data", "data-*.parquet")
	require.NoError(t, db.QueryRow(fmt.Sprintf(query, "'"+files+"'")).Scan(into...))
}

func TestEncodingsFitTheValues(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tbl, err := openLake(t, lake.Config{Dir: dir}).Table(t.Context(), "v1", submissions)
	require.NoError(t, err)
	rows := submissionRows(5_000) // several chunks
	p, err := tbl.Write(t.Context(), rows, "L1", "1.0.0")
	require.NoError(t, err)
	require.EqualValues(t, len(rows), p.Rows)
	for column, want := range map[string]bool{
		"action": true, "courseId": true, "account_id": true, "_lineage": true,
		"attemptId": false, "_id": false, "_sources, list, element": false,
	} {
		var dictionary bool
		duck(t, dir, "SELECT contains(encodings, 'DICTIONARY') FROM parquet_metadata(%s) WHERE path_in_schema = '"+column+"'", &dictionary)
		require.Equal(t, want, dictionary, column)
	}
	var least, greatest string
	duck(t, dir, "SELECT stats_min_value, stats_max_value FROM parquet_metadata(%s) WHERE path_in_schema = 'score'", &least, &greatest)
	require.Equal(t, []string{"0.0", "99.0"}, []string{least, greatest})

	// What another reader sees is what went in, column by column.
	var ids, sources, nulls int
	var sum float64
	duck(t, dir, "SELECT count(DISTINCT _id), sum(len(_sources)), count(*) FILTER (maxScore IS NULL), sum(score) FROM read_parquet(%s)",
		&ids, &sources, &nulls, &sum)
	require.Equal(t, []any{5_000, 15_000, 5_000, 50.0 * 99 / 2 * 100}, []any{ids, sources, nulls, sum})
	cells := make([]plan.Cell, len(submissions.Schema.Columns))
	for _, i := range []int{0, 1_023, 1_024, 4_999} {
		require.NoError(t, submissions.Schema.Decode(rows[i].Value, cells))
		var attempt, student, third string
		var at int64
		duck(t, dir, "SELECT attemptId, studentId, _sources[3], epoch_us(_event_time) FROM read_parquet(%s) WHERE _id = '"+rows[i].ID+"'",
			&attempt, &student, &third, &at)
		require.Equal(t, []any{string(cells[3].Bytes), string(cells[10].Bytes), rows[i].Sources[2], rows[i].EventTime},
			[]any{attempt, student, third, at})
	}
}

func TestRowsOutsideAFilesBoundsAreFound(t *testing.T) {
	t.Parallel()
	tbl := openTable(t, openLake(t, lake.Config{}))
	value := func(student string, score float64) []byte {
		b, err := quizzes.Schema.Append(nil, []plan.Cell{
			{Bytes: []byte(student)}, {Float: score}, {Int: int64(len(student))}, {}, {Null: true}, {}, {},
		})
		require.NoError(t, err)
		return b
	}
	long := "a student with a very long name, longer than a bound"
	for i, rows := range [][]plan.Row{
		{{ID: "a", Value: value(long, math.NaN())}, {ID: "b", Value: value("", math.NaN())}},
		{{ID: "c", Value: value(long+"!", -1)}, {ID: "d", Value: value("ü", math.NaN())}},
	} {
		for j := range rows {
			rows[j].First, rows[j].Epoch = true, uint64(i+1)
		}
		publish(t, tbl, uint64(i+1), uint64(i+1), rows...)
	}
	for _, want := range []struct {
		column string
		value  any
		ids    []string
	}{
		{"student", long, []string{"a"}},
		{"student", "", []string{"b"}},
		{"student", long + "!", []string{"c"}},
		{"student", "ü", []string{"d"}},
		{"student", "zzz", nil},
		{"attempts", int64(0), []string{"b"}},
		{"attempts", int64(len(long) + 1), []string{"c"}},
		{"_id", "d", []string{"d"}},
	} {
		var ids []string
		for row, err := range tbl.Scan(t.Context(), lake.ScanOptions{Columns: []string{"_id"}, Where: map[string]any{want.column: want.value}}) {
			require.NoError(t, err)
			ids = append(ids, row["_id"].(string))
		}
		require.Equal(t, want.ids, ids, "%s = %v", want.column, want.value)
	}
}

func TestRejectedRevisionDoesNotDisplaceAGoodOne(t *testing.T) {
	t.Parallel()
	tbl := openTable(t, openLake(t, lake.Config{}))
	bad := func(r plan.Row) plan.Row {
		r.Sources = []string{"\xff"}
		return r
	}
	publish(t, tbl, 1, 1, quiz("b", 1, 1, 0))
	p, err := tbl.Write(t.Context(), []plan.Row{
		quiz("a", 1, 2, 0), bad(quiz("a", 2, 2, 0)), bad(quiz("b", 2, 2, 0)), bad(quiz("alone in its partition", 1, 2, 9*day)), quiz("c", 1, 2, 0),
	}, "L1", "1")
	require.NoError(t, err)
	require.Len(t, p.Rejected, 3)
	require.EqualValues(t, 2, p.Rows)
	require.NoError(t, tbl.Commit(t.Context(), p, lake.Position{Lineage: "L1", FromEpoch: 2, ToEpoch: 2}))
	require.Equal(t, map[string]float64{"a": 1, "b": 1, "c": 1}, scores(t, tbl))
}
