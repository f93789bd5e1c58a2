package delivery_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/delivery"
	"millrace/lake"
	"millrace/lake/laketest"
	"millrace/plan"
)

var grades = plan.Table{
	Name: "grades",
	Schema: plan.Schema{Name: "Grades", Columns: []plan.Column{
		{Name: "student", Type: plan.String},
		{Name: "score", Type: plan.Double, Nullable: true},
		{Name: "attempts", Type: plan.Long},
		{Name: "late", Type: plan.Bool},
		{Name: "graded", Type: plan.Timestamp, Nullable: true},
		{Name: "answer", Type: plan.Bytes},
		{Name: "tags", Type: plan.Strings},
	}},
}

// events is a table without corrections, as the raw ones are.
var events = plan.Table{
	Name: "events", AppendOnly: true,
	Schema:    plan.Schema{Name: "Events", Columns: []plan.Column{{Name: "kind", Type: plan.String}, {Name: "moment", Type: plan.Timestamp}, {Name: "bytes", Type: plan.Bytes}}},
	Partition: []plan.PartitionField{{Column: "kind", Transform: plan.Identity}},
}

const day = int64(24 * time.Hour / time.Microsecond)

func value(t testing.TB, table plan.Table, cells ...plan.Cell) []byte {
	t.Helper()
	b, err := table.Schema.Append(nil, cells)
	require.NoError(t, err)
	return b
}

func grade(t testing.TB, id string, rev, epoch uint64, score float64, eventTime int64) plan.Row {
	t.Helper()
	return plan.Row{
		ID: id, Rev: rev, First: rev == 1, EventTime: eventTime, Account: "acme", Env: "prod", Sources: []string{"event " + id}, Epoch: epoch,
		Value: value(t, grades, plan.Cell{Bytes: []byte("student-" + id)}, plan.Cell{Float: score}, plan.Cell{Int: int64(rev)}, plan.Cell{Bool: rev%2 == 0},
			plan.Cell{Null: true}, plan.Cell{Bytes: []byte{0, 0xff, byte(rev)}}, plan.Cell{List: [][]byte{[]byte("a"), []byte("ü" + id)}}),
	}
}

func openLake(t testing.TB, dir string) *lake.Lake {
	t.Helper()
	l, err := lake.Open(context.Background(), laketest.In(dir))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

func openTable(t testing.TB, l *lake.Lake, namespace string, table plan.Table) *lake.Table {
	t.Helper()
	tbl, err := l.Table(context.Background(), namespace, table)
	require.NoError(t, err)
	return tbl
}

func publish(t testing.TB, tbl *lake.Table, epoch uint64, rows ...plan.Row) {
	t.Helper()
	p, err := tbl.Write(context.Background(), rows, "L1", "1.0.0")
	require.NoError(t, err)
	require.NoError(t, tbl.Commit(context.Background(), p, lake.Position{Lineage: "L1", FromEpoch: epoch, ToEpoch: epoch}))
}

func openSQL(t testing.TB, l *lake.Lake, cfg delivery.SQLConfig) *delivery.SQL {
	t.Helper()
	cfg.Lake = l
	cfg.Serving = func(context.Context) ([]string, error) { return []string{"unversioned"}, nil }
	if cfg.Temp == "" {
		cfg.Temp = t.TempDir()
	}
	s, err := delivery.NewSQL(cfg)
	require.NoError(t, err)
	return s
}

// ask returns the rows of an answer as text, with null for null, and checks that nothing stays on the disk.
func ask(t testing.TB, s *delivery.SQL, query string) [][]string {
	t.Helper()
	a, err := s.Query(t.Context(), query)
	require.NoError(t, err, query)
	defer func() { require.NoError(t, a.Close()) }()
	rows := [][]string{}
	for row, err := range a.Text(t.Context()) {
		require.NoError(t, err, query)
		cells := make([]string, len(row))
		for i, c := range row {
			if cells[i] = c.String; !c.Valid {
				cells[i] = "null"
			}
		}
		rows = append(rows, cells)
	}
	require.Len(t, rows, int(a.Rows))
	return rows
}

// A table that several namespaces have which serve is one with the rows of all, as the dead letters of several apps are, each with the columns that it has.
func TestSQLOfSeveralApps(t *testing.T) {
	t.Parallel()
	l := openLake(t, t.TempDir())
	publish(t, openTable(t, l, "unversioned", grades), 1, grade(t, "a", 1, 1, 1, 0), grade(t, "b", 1, 1, 2, 0))
	publish(t, openTable(t, l, "unversioned", grades), 2, grade(t, "b", 2, 2, 3, 0))
	other := grades
	other.Schema.Columns = append(slices.Clone(grades.Schema.Columns), plan.Column{Name: "app", Type: plan.String})
	row := grade(t, "a", 1, 1, 10, 0)
	row.Value = value(t, other, plan.Cell{Bytes: []byte("s")}, plan.Cell{Float: 10}, plan.Cell{Int: 1}, plan.Cell{}, plan.Cell{Null: true}, plan.Cell{Bytes: []byte("s")}, plan.Cell{}, plan.Cell{Bytes: []byte("other")})
	publish(t, openTable(t, l, "v20180827174235", other), 1, row)
	publish(t, openTable(t, l, "v20180827174236", other), 1, row)
	s, err := delivery.NewSQL(delivery.SQLConfig{Lake: l, Temp: t.TempDir(), Serving: func(context.Context) ([]string, error) {
		return []string{"unversioned", "v20180827174235", "v20990101000000"}, nil // the last one has no table yet
	}})
	require.NoError(t, err)
	require.Equal(t, [][]string{{"1.0", "null"}, {"3.0", "null"}, {"10.0", "other"}}, ask(t, s, "SELECT score, app FROM grades ORDER BY score"))
	require.Equal(t, [][]string{{"3", "10.0"}}, ask(t, s, "SELECT count(*), max(b.score) FROM Grades a, grades@20180827174235 b"))
	_, err = s.Query(t.Context(), "SELECT 1 FROM grade")
	require.ErrorContains(t, err, "the lake has grades, grades@20180827174236")
}

// The oracle: a random history of new rows, corrections that may move a row to another day, withdrawals and compactions. After
// each step DuckDB, the lake's own reader and a map say the same.
func TestSQLSeesWhatTheLakeSees(t *testing.T) {
	t.Parallel()
	l := openLake(t, t.TempDir())
	tbl := openTable(t, l, "unversioned", grades)
	s := openSQL(t, l, delivery.SQLConfig{})
	r := rand.New(rand.NewPCG(7, 11))
	model := map[string]float64{}
	revs := map[string]uint64{}
	require.Equal(t, [][]string{{"0", "null"}}, ask(t, s, "SELECT count(*), sum(score) FROM grades"), "before the first commit")
	for epoch := uint64(1); epoch <= 60; epoch++ {
		var rows []plan.Row
		for range 1 + r.IntN(6) {
			id := fmt.Sprint("id", r.IntN(40))
			if slices.ContainsFunc(rows, func(r plan.Row) bool { return r.ID == id }) {
				continue
			}
			revs[id]++
			if _, there := model[id]; there && r.IntN(4) == 0 {
				rows = append(rows, plan.Row{ID: id, Rev: revs[id], Deleted: true, Epoch: epoch})
				delete(model, id)
				continue
			}
			score := float64(r.IntN(1000)) / 4
			rows = append(rows, grade(t, id, revs[id], epoch, score, int64(r.IntN(3))*day))
			model[id] = score
		}
		publish(t, tbl, epoch, rows...)
		if epoch%17 == 0 {
			_, err := tbl.Compact(t.Context())
			require.NoError(t, err)
		}
		if epoch%5 > 0 && epoch%17 > 1 {
			continue
		}
		want, scanned := [][]string{}, [][]string{}
		for id, score := range model {
			want = append(want, []string{id, fmt.Sprintf("%.2f", score)})
		}
		for row, err := range tbl.Scan(t.Context(), lake.ScanOptions{Columns: []string{"_id", "score"}}) {
			require.NoError(t, err)
			scanned = append(scanned, []string{row["_id"].(string), fmt.Sprintf("%.2f", row["score"])})
		}
		slices.SortFunc(want, slices.Compare)
		slices.SortFunc(scanned, slices.Compare)
		got := ask(t, s, "SELECT _id, format('{:.2f}', score) FROM grades ORDER BY _id")
		require.Equal(t, want, got, "epoch %d", epoch)
		require.Equal(t, scanned, got, "epoch %d", epoch)
	}
}

func TestSQLTables(t *testing.T) {
	t.Parallel()
	l := openLake(t, t.TempDir())
	publish(t, openTable(t, l, "unversioned", grades), 1, grade(t, "a", 1, 1, 1, 0))
	publish(t, openTable(t, l, "v20180827174235", grades), 1, grade(t, "a", 1, 1, 2, 0), grade(t, "b", 1, 1, 3, 0))
	publish(t, openTable(t, l, "raw", events), 1,
		plan.Row{Value: value(t, events, plan.Cell{Bytes: []byte("quiz")}, plan.Cell{Int: 5*day + 1_500_000}, plan.Cell{Bytes: []byte(`{"id":1}`)}), Epoch: 1})
	s := openSQL(t, l, delivery.SQLConfig{})
	for query, want := range map[string][][]string{
		"SELECT sum(score) FROM grades":                                                                  {{"1.0"}},
		"SELECT sum(score) FROM Grades;":                                                                 {{"1.0"}},
		`SELECT sum(score) FROM "grades@20180827174235" -- the new one`:                                  {{"5.0"}},
		"SELECT sum(score) FROM grades@20180827174235 ; -- the new one":                                  {{"5.0"}},
		"SELECT sum(score) FROM grades@unversioned":                                                      {{"1.0"}},
		"SELECT sum(score) FROM v20180827174235.grades":                                                  {{"5.0"}},
		"SELECT o.score, n.score FROM grades o JOIN grades@20180827174235 n USING (_id)":                 {{"1.0", "2.0"}},
		"SELECT kind, moment, decode(bytes)->>'$.id' FROM raw.events":                                    {{"quiz", "1970-01-06 00:00:01.5+00", "1"}},
		"SELECT events.kind FROM raw.events":                                                             {{"quiz"}},
		"WITH grades AS (SELECT 7 AS score) SELECT score FROM grades":                                    {{"7"}},
		"WITH x AS (SELECT score FROM grades) SELECT 'grades@1', score FROM x /* grades@2 */":            {{"grades@1", "1.0"}},
		"SELECT (SELECT count(*) FROM (WITH grades AS (SELECT 1) FROM grades)) + sum(score) FROM grades": {{"2.0"}},
		"FROM range(3)":               {{"0"}, {"1"}, {"2"}},
		"SELECT 1 AS a, 2 AS a, NULL": {{"1", "2", "null"}},
		"SELECT student, tags, answer, late, graded, _sources, _event_time, account_id FROM grades": {
			{"student-a", "[a, üa]", `\x00\xFF\x01`, "false", "null", "[event a]", "1970-01-01 00:00:00+00", "acme"},
		},
		"SELECT column_name, column_type FROM (DESCRIBE raw.events)": {{"kind", "VARCHAR"}, {"moment", "TIMESTAMP WITH TIME ZONE"}, {"bytes", "BLOB"}},
	} {
		require.Equal(t, want, ask(t, s, query), query)
	}
	for query, want := range map[string]string{
		"SELECT *\n  FROM gradez":                  "line 2, column 8: there is no table gradez; the lake has grades, grades@20180827174235, raw.events",
		"SELECT * FROM raw.grades":                 "line 1, column 15: there is no table raw.grades; the lake has",
		"SELECT * FROM grades@1":                   "line 1, column 15: there is no table grades@1; the lake has",
		"SELECT * FROM memory.x.y":                 "there is no table memory.x.y",
		"SELECT nothing FROM grades":               `line 1, column 8: Referenced column "nothing" not found in FROM clause!`,
		"SELECT 'ü' AS é,\n\n nothing FROM grades": `line 3, column 2: Referenced column "nothing"`,
		"SELECT * FROM grades@20180827174235, grades@unversioned WHERE nothing": `line 1, column 63: Referenced column "nothing"`,
		"SELECT * FRM grades":            `line 1, column 14: syntax error at or near "grades"`,
		"SELECT 1; SELECT 2":             "there are 2 statements: ask one at a time",
		"":                               "there is no statement",
		" ; -- nothing":                  "there is no statement",
		"SELECT $1":                      "the statement has parameters",
		"SELECT 'x'::INTEGER":            "Could not convert string 'x' to INT32",
		"SELECT score::DATE FROM grades": "Unimplemented type for cast (DOUBLE -> DATE)",
		"SELECT 'unended":                "unterminated quoted string",
		"SELECT 1 /* unended":            "unterminated /* comment",
		"SHOW TABLES":                    "SHOW and DESCRIBE need a table of the lake",
	} {
		_, err := s.Query(t.Context(), query)
		require.ErrorContains(t, err, want, query)
		var fault *delivery.StatementError
		require.ErrorAs(t, err, &fault, query)
	}
}

func TestSQLForms(t *testing.T) {
	t.Parallel()
	l := openLake(t, t.TempDir())
	s := openSQL(t, l, delivery.SQLConfig{})
	a, err := s.Query(t.Context(), `SELECT 9007199254740993 AS big, 0.1 AS dec, 'ü"<' AS text, NULL AS nothing, 'nan'::DOUBLE AS nan, [1.5, 2] AS list,
		{'a': DATE '2018-08-27'} AS struct, TIMESTAMPTZ '2018-08-27 17:42:35.5+00' AS at, '\xFF'::BLOB AS bytes, 1::HUGEINT << 100 AS huge`)
	require.NoError(t, err)
	defer a.Close()
	require.Equal(t, []string{"big", "dec", "text", "nothing", "nan", "list", "struct", "at", "bytes", "huge"}, a.Columns)
	for row, err := range a.JSON(t.Context()) {
		require.NoError(t, err)
		b, err := json.Marshal(row)
		require.NoError(t, err)
		require.Equal(t, `[9007199254740993,0.1,"ü\"\u003c",null,"NaN",[1.5,2.0],{"a":"2018-08-27"},"2018-08-27 17:42:35.5+00","\\xFF",1267650600228229401496703205376]`, string(b))
	}
	var file bytes.Buffer
	require.NoError(t, a.WriteParquet(t.Context(), &file))
	require.Equal(t, "PAR1", file.String()[:4])
	require.Equal(t, "PAR1", file.String()[file.Len()-4:])
}

// A column that was added later is null in rows of before, in files that lack it.
func TestSQLOfATableThatEvolved(t *testing.T) {
	t.Parallel()
	l := openLake(t, t.TempDir())
	publish(t, openTable(t, l, "unversioned", grades), 1, grade(t, "a", 1, 1, 1, 0))
	wider := grades
	wider.Schema.Columns = append(slices.Clone(grades.Schema.Columns), plan.Column{Name: "role", Type: plan.String, Nullable: true})
	row := grade(t, "b", 1, 2, 2, 0)
	row.Value = append(row.Value, 2, 2, 'x')
	publish(t, openTable(t, l, "unversioned", wider), 2, row)
	s := openSQL(t, l, delivery.SQLConfig{})
	require.Equal(t, [][]string{{"a", "null"}, {"b", "x"}}, ask(t, s, "SELECT _id, role FROM grades ORDER BY _id"))
	require.Equal(t, [][]string{{"1"}}, ask(t, s, "SELECT count(*) FROM grades WHERE role IS NULL"))
}

// Whatever a statement tries, it reads nothing but the tables it names, and changes nothing.
func TestSQLIsLockedDown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLake(t, dir)
	publish(t, openTable(t, l, "unversioned", grades), 1, grade(t, "a", 1, 1, 1, 0))
	publish(t, openTable(t, l, "v1", grades), 1, grade(t, "a", 1, 1, 2, 0))
	s := openSQL(t, l, delivery.SQLConfig{})
	out := t.TempDir()
	files := laketest.Files(t, dir)
	data := laketest.Place(dir, files[slices.IndexFunc(files, func(f string) bool { return strings.HasSuffix(f, ".parquet") })])

	const onlySelect, noFunction, noTable = "only SELECT is possible here", "cannot be called here", "there is no table"
	for query, want := range map[string]string{
		"SELECT * FROM read_csv('/etc/passwd')":                           noFunction,
		"SELECT * FROM main.Read_Text('/etc/passwd')":                     noFunction,
		"SELECT * FROM read_blob('/etc/passwd')":                          noFunction,
		"SELECT * FROM read_parquet('" + data + "')":                      noFunction,
		"SELECT * FROM parquet_metadata('" + data + "')":                  noFunction,
		"SELECT * FROM read_json('http://127.0.0.1:1/x')":                 noFunction,
		"SELECT * FROM glob('/*')":                                        noFunction,
		"SELECT (SELECT content FROM read_text('/etc/passwd'))":           noFunction,
		"SELECT 1 WHERE EXISTS (FROM sniff_csv('/etc/passwd'))":           noFunction,
		"WITH x AS (FROM read_text('/etc/passwd')) FROM x":                noFunction,
		"SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')": noFunction,
		"SELECT * FROM query_table('grades')":                             noFunction,
		"SELECT * FROM duckdb_settings()":                                 noFunction,
		"SELECT * FROM duckdb_secrets()":                                  noFunction,
		"FROM grades, LATERAL (FROM read_text('/etc/' || student))":       noFunction,
		"DESCRIBE FROM read_text('/etc/passwd')":                          noFunction,
		"SELECT * FROM '/etc/passwd'":                                     noTable,
		"SELECT * FROM '/etc/*.csv'":                                      noTable,
		"SELECT * FROM '" + data + "'":                                    noTable,
		"SELECT * FROM 's3://lake/x.parquet'":                             noTable,
		"SELECT * FROM information_schema.tables":                         noTable,
		"SELECT * FROM sqlite_master":                                     noTable,
		"COPY (SELECT 1) TO '" + out + "/x.csv'":                          onlySelect,
		"COPY grades FROM '/etc/passwd'":                                  onlySelect,
		"EXPORT DATABASE '" + out + "'":                                   onlySelect,
		"IMPORT DATABASE '" + out + "'":                                   onlySelect,
		"ATTACH '" + out + "/x.db'":                                       onlySelect,
		"DETACH memory":                                                   onlySelect,
		"INSTALL httpfs":                                                  onlySelect,
		"LOAD httpfs":                                                     onlySelect,
		"LOAD '" + out + "/x.duckdb_extension'":                           onlySelect,
		"SET enable_external_access = true":                               onlySelect,
		"SET lock_configuration = false":                                  onlySelect,
		"RESET memory_limit":                                              onlySelect,
		"PRAGMA database_list":                                            onlySelect,
		"PRAGMA enable_profiling":                                         onlySelect,
		"CALL pragma_version()":                                           onlySelect,
		"CREATE TABLE x (a INTEGER)":                                      onlySelect,
		"CREATE VIEW x AS FROM read_text('/etc/passwd')":                  onlySelect,
		"CREATE SECRET (TYPE s3)":                                         onlySelect,
		"CREATE MACRO f() AS TABLE FROM read_text('/etc/passwd')":         onlySelect,
		"INSERT INTO grades SELECT * FROM grades":                         onlySelect,
		"DELETE FROM grades":                                              onlySelect,
		"UPDATE grades SET score = 1":                                     onlySelect,
		"DROP VIEW grades":                                                onlySelect,
		"VACUUM":                                                          onlySelect,
		"CHECKPOINT":                                                      onlySelect,
		"BEGIN":                                                           onlySelect,
		"EXPLAIN ANALYZE SELECT 1":                                        onlySelect,
		"SELECT 1; COPY (SELECT 1) TO '" + out + "/x.csv'":                onlySelect,
		"SELECT 1; SELECT * FROM grades":                                  "there are 2 statements",
		"SELECT 1) ; COPY (SELECT 1) TO '" + out + "/x.csv'; (SELECT 2":   "syntax error",
		"SELECT 1) TO '" + out + "/x.csv' --":                             "syntax error",
		"WITH x AS (DELETE FROM grades RETURNING *) FROM x":               "A CTE needs a SELECT",
		"SELECT getenv('HOME')":                                           "getenv does not exist",
	} {
		_, err := s.Query(t.Context(), query)
		require.ErrorContains(t, err, want, query)
	}
	entries, err := os.ReadDir(out)
	require.NoError(t, err)
	require.Empty(t, entries)
	require.ElementsMatch(t, files, laketest.Files(t, dir), "the lake is as it was")
	require.Equal(t, [][]string{{"1.0", "2.0"}}, ask(t, s, "SELECT a.score, b.score FROM grades a, grades@1 b"))
}

func TestSQLLimits(t *testing.T) {
	t.Parallel()
	l := openLake(t, t.TempDir())
	temp := t.TempDir()
	s := openSQL(t, l, delivery.SQLConfig{Memory: 64 << 20, Spill: 32 << 20, Rows: 3, Temp: temp})

	a, err := s.Query(t.Context(), "FROM range(10)")
	require.NoError(t, err)
	require.Equal(t, []any{int64(3), true}, []any{a.Rows, a.More})
	n := 0
	for _, err := range a.Text(t.Context()) {
		require.NoError(t, err)
		n++
	}
	require.Equal(t, 3, n)
	require.NoError(t, a.Close())
	a, err = s.Query(t.Context(), "FROM range(3)")
	require.NoError(t, err)
	require.False(t, a.More)
	require.NoError(t, a.Close())

	_, err = s.Query(t.Context(), "SELECT * FROM (SELECT range, repeat('x', 200) AS x FROM range(2000000) ORDER BY hash(range)) ORDER BY x, hash(range + 1)")
	require.ErrorIs(t, err, delivery.ErrTooLarge)
	require.ErrorContains(t, err, "more than 64 MB of memory and 32 MB of disk")

	why := errors.New("too long for this test")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, why)
	defer cancel()
	began := time.Now()
	_, err = s.Query(ctx, "SELECT count(*) FROM range(1000000000000) WHERE hash(range) = 7")
	require.ErrorIs(t, err, why)
	require.Less(t, time.Since(began), 20*time.Second)

	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left, "what a query kept on the disk is gone")
}

// A result is larger than the memory that the query may use, and is read in parts.
func TestSQLLargeResult(t *testing.T) {
	t.Parallel()
	l := openLake(t, t.TempDir())
	s := openSQL(t, l, delivery.SQLConfig{Memory: 64 << 20, Spill: 1 << 30})
	a, err := s.Query(t.Context(), "SELECT range AS n, repeat(md5(range::VARCHAR), 10) AS text FROM range(300000)")
	require.NoError(t, err)
	defer func() { require.NoError(t, a.Close()) }()
	next := 0
	for row, err := range a.Text(t.Context()) {
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(next), row[0].String)
		next++
	}
	require.Equal(t, 300000, next)
}

// Paths are names, not patterns.
func TestSQLOfAStrangePath(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a'b [x] *? %41")
	l := openLake(t, dir)
	tbl := openTable(t, l, "unversioned", grades)
	publish(t, tbl, 1, grade(t, "a", 1, 1, 1, 0), grade(t, "b", 1, 1, 1, 0))
	publish(t, tbl, 2, grade(t, "a", 2, 2, 5, 0))
	s := openSQL(t, l, delivery.SQLConfig{Temp: dir})
	require.Equal(t, [][]string{{"2", "6.0"}}, ask(t, s, "SELECT count(*), sum(score) FROM grades"))
}

func TestSQLOfDamagedFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLake(t, dir)
	publish(t, openTable(t, l, "unversioned", grades), 1, grade(t, "a", 1, 1, 1, 0))
	s := openSQL(t, l, delivery.SQLConfig{})
	var data string
	for _, f := range laketest.Files(t, dir) {
		if strings.HasSuffix(f, ".parquet") {
			data = f
		}
	}
	laketest.Cut(t, dir, data)
	_, err := s.Query(t.Context(), "FROM grades")
	require.ErrorContains(t, err, "table unversioned.grades: "+laketest.Place(dir, data)+" has")
	require.ErrorContains(t, err, "bytes were written: restore the lake from a backup")
	laketest.Remove(t, dir, data)
	_, err = s.Query(t.Context(), "FROM grades")
	require.ErrorContains(t, err, laketest.Place(dir, data)+" is missing: restore the lake from a backup")
}

// A lake in S3 is fetched, and no more of it than a query may.
func TestSQLOfALakeInS3(t *testing.T) {
	t.Parallel()
	if !laketest.OnS3() {
		t.Skip("MILLRACE_S3 is not set: scripts/servers/s3.sh starts a server for it")
	}
	l := openLake(t, t.TempDir())
	publish(t, openTable(t, l, "unversioned", grades), 1, grade(t, "a", 1, 1, 1, 0))
	require.Equal(t, [][]string{{"1.0"}}, ask(t, openSQL(t, l, delivery.SQLConfig{}), "SELECT score FROM grades"))
	_, err := openSQL(t, l, delivery.SQLConfig{Fetch: 1}).Query(t.Context(), "SELECT score FROM grades")
	require.ErrorContains(t, err, "more than the 0 MB that a query may fetch")
}
