package delivery_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/delivery"
	"millrace/lake"
	"millrace/lake/laketest"
	"millrace/plan"
)

const (
	own    = "acme"
	others = "globex"
	marker = "globexsecret" // is in what others have, and nowhere else
)

// raw is a table as those of the raw lake are, and people one that does not say whose its rows are.
var (
	raw = plan.Table{Name: "events", AppendOnly: true, Schema: plan.Schema{Name: "Raw", Columns: []plan.Column{
		{Name: "account", Type: plan.String}, {Name: "moment", Type: plan.Timestamp}, {Name: "bytes", Type: plan.Bytes},
	}}}
	people = plan.Table{Name: "people", AppendOnly: true, Schema: plan.Schema{Name: "People", Columns: []plan.Column{
		{Name: "account", Type: plan.String, Doc: "where their money is"}, {Name: "moment", Type: plan.Timestamp},
	}}}
)

// lakeOf is a lake with the rows of accounts, of each table in one file as far as can be, and with a correction.
func lakeOf(t *testing.T, accounts ...string) (*lake.Lake, string) {
	t.Helper()
	dir := t.TempDir()
	l := openLake(t, dir)
	student := func(account string, n int) string {
		if account == own {
			return fmt.Sprint(n)
		}
		return fmt.Sprint(marker, n)
	}
	row := func(account string, n int, rev uint64) plan.Row {
		r := grade(t, fmt.Sprint(account, n), rev, rev, float64(n), 0)
		r.Account = account
		r.Value = value(t, grades, plan.Cell{Bytes: []byte(student(account, n))}, plan.Cell{Float: float64(n)}, plan.Cell{Int: int64(rev)}, plan.Cell{},
			plan.Cell{Null: true}, plan.Cell{Bytes: []byte(student(account, n))}, plan.Cell{List: [][]byte{[]byte(student(account, n))}})
		return r
	}
	var first, second, sent, persons []plan.Row
	for _, account := range accounts {
		for n := range 3 {
			first = append(first, row(account, n+1, 1))
			sent = append(sent, plan.Row{Epoch: 1, Value: value(t, raw, plan.Cell{Bytes: []byte(account)}, plan.Cell{}, plan.Cell{Bytes: []byte(student(account, n))})})
		}
		second = append(second, row(account, 2, 2))
		persons = append(persons, plan.Row{Epoch: 1, Value: value(t, people, plan.Cell{Bytes: []byte(account)}, plan.Cell{})})
	}
	for _, namespace := range []string{"unversioned", "v20180827174235"} {
		tbl := openTable(t, l, namespace, grades)
		publish(t, tbl, 1, first...)
		publish(t, tbl, 2, second...)
	}
	publish(t, openTable(t, l, "raw", raw), 1, sent...)
	publish(t, openTable(t, l, "unversioned", people), 1, persons...)
	return l, dir
}

// said is all that somebody is told who asks: rows, or an error.
func said(t *testing.T, s *delivery.SQL, query string) string {
	t.Helper()
	a, err := s.Query(t.Context(), query)
	if err != nil {
		return "error: " + err.Error()
	}
	defer func() { require.NoError(t, a.Close()) }()
	rows := []string{fmt.Sprint(a.Columns)}
	for row, err := range a.Text(t.Context()) {
		if err != nil {
			return "error: " + err.Error()
		}
		rows = append(rows, fmt.Sprint(row))
	}
	slices.Sort(rows[1:]) // the order is nobody's secret
	return strings.Join(rows, "\n")
}

// Who asks for one account is told what they would be if there were no other one, whatever they ask: each of these asks for what others have. Each would be told
// more without Account, or it would prove nothing.
func TestSQLOfAnAccount(t *testing.T) {
	t.Parallel()
	all, _ := lakeOf(t, own, others)
	alone, _ := lakeOf(t, own)
	bound, model, free := openSQL(t, all, delivery.SQLConfig{Account: own}), openSQL(t, alone, delivery.SQLConfig{Account: own}), openSQL(t, all, delivery.SQLConfig{})
	for _, query := range []string{
		"SELECT * FROM grades",
		"SELECT * EXCLUDE (_sources) FROM grades@unversioned",
		`SELECT student FROM "grades@20180827174235"`,
		"SELECT student FROM v20180827174235.grades",
		"SELECT student FROM Unversioned.GRADES",
		"SELECT account, decode(bytes) FROM raw.events",
		"SELECT count(*) FROM grades",
		"SELECT count(*) FROM raw.events",
		"SELECT count(DISTINCT account_id), min(student), max(student), sum(score), approx_count_distinct(student) FROM grades",
		"SELECT student FROM grades WHERE account_id = 'globex'",
		"SELECT student FROM grades WHERE account_id <> 'acme'",
		"SELECT student FROM grades WHERE account_id = 'acme' OR true",
		"SELECT student FROM grades WHERE NOT (account_id = 'acme') OR account_id IS NULL",
		"SELECT student FROM (SELECT * REPLACE ('acme' AS account_id) FROM grades) WHERE account_id = 'acme'",
		"SELECT student FROM grades g(account_id, student)",
		"SELECT grades FROM grades",
		"SELECT g::VARCHAR FROM grades AS g",
		"SELECT COLUMNS('^s') FROM grades",
		"SELECT unnest(tags) FROM grades",
		"SELECT to_json(g) FROM grades g",

		// Errors quote the values that they come of.
		"SELECT student::INTEGER FROM grades",
		"SELECT count(*) FROM grades WHERE student::INTEGER > 0",
		"SELECT count(*) FROM grades WHERE account_id = 'acme' AND student::INTEGER > 0 AND student::BIGINT > 0 OR student::INTEGER > 0",
		"SELECT sum(decode(bytes)::INTEGER) FROM raw.events",
		"SELECT CASE WHEN account_id <> 'acme' THEN error(student) END FROM grades",
		"SELECT count(*) FROM grades WHERE CASE WHEN student LIKE 'globex%' THEN error(student) ELSE true END",
		"SELECT 1 / (CASE WHEN student > 'g' THEN error('there is ' || student) ELSE 1 END) FROM grades",
		"SELECT count(*) FROM grades a JOIN grades b ON a.student::INTEGER = b.student::INTEGER",
		"SELECT strptime(student, '%d') FROM grades",
		"SELECT (SELECT student FROM grades WHERE student > '9')",
		"SELECT json_extract(student, '$') FROM grades",
		"SELECT CAST(student AS ENUM('1', '2', '3')) FROM grades",

		// What is known of a column without reading it.
		"SELECT stats(student) FROM grades LIMIT 1",
		"SELECT stats(bytes) FROM raw.events LIMIT 1",
		"SELECT * FROM (SUMMARIZE grades)",
		"SELECT histogram(student), list(student), string_agg(student, ','), mode(account_id) FROM grades",
		"SELECT current_setting('allowed_paths') FROM grades",
		"SELECT max(rowid) FROM grades",

		// Ways around what stands between a statement and a table.
		"SELECT student FROM grades TABLESAMPLE 100 PERCENT",
		"SELECT a.student FROM grades a, grades@unversioned b, raw.events",
		"SELECT student FROM grades g WHERE EXISTS (SELECT 1 FROM raw.events e WHERE e.account <> g.account_id)",
		"SELECT s FROM raw.events e, LATERAL (SELECT student AS s FROM grades WHERE account_id = e.account)",
		"SELECT (SELECT string_agg(decode(bytes), ',') FROM raw.events)",
		"WITH RECURSIVE r AS (SELECT student FROM grades UNION SELECT student FROM grades@20180827174235) FROM r",
		"WITH grades AS MATERIALIZED (SELECT student FROM grades) FROM grades",
		"SELECT student, lag(account_id) OVER (ORDER BY student) FROM grades QUALIFY row_number() OVER () > 0",
		"FROM (UNPIVOT (SELECT student, account_id FROM grades) ON student, account_id)",
		"SELECT student FROM grades UNION ALL SELECT decode(bytes) FROM raw.events",
		"SELECT decode(bytes) FROM raw.events EXCEPT SELECT student FROM grades WHERE score > 2",
		"SELECT list_transform(list(student), lambda x: x || '!') FROM grades",
		"SELECT count(*) FROM grades JOIN grades@20180827174235 USING (_id)",
		"SELECT count(*) FROM grades POSITIONAL JOIN raw.events",
		"SELECT * FROM grades ASOF JOIN raw.events ON grades._event_time >= events.moment",
	} {
		want := said(t, model, query)
		got := said(t, bound, query)
		require.Equal(t, want, got, query)
		require.NotContains(t, got, marker, query)
		require.NotEqual(t, want, said(t, free, query), "%s is told the same without an account", query)
	}
}

// What is not there for an account, or for anybody.
func TestSQLWithoutAnAccountColumn(t *testing.T) {
	t.Parallel()
	all, dir := lakeOf(t, own, others)
	bound := openSQL(t, all, delivery.SQLConfig{Account: own})
	files := laketest.Files(t, dir)
	data := laketest.Place(dir, files[slices.IndexFunc(files, func(f string) bool { return strings.HasSuffix(f, ".parquet") })])
	require.NotContains(t, said(t, openSQL(t, all, delivery.SQLConfig{}), "FROM people"), "error")
	for query, says := range map[string]string{
		"SELECT * FROM people":                                                 "line 1, column 15: there is no table people; the lake has grades, grades@20180827174235, raw.events",
		"SELECT * FROM people WHERE account = 'acme'":                          "there is no table people",
		"SELECT count(*) FROM unversioned.people":                              "there is no table unversioned.people",
		"SELECT * FROM gradez":                                                 "there is no table gradez; the lake has grades, grades@20180827174235, raw.events",
		"SELECT * FROM '" + data + "'":                                         "there is no table",
		"SELECT * FROM read_parquet('" + data + "')":                           "cannot be called here",
		"SELECT * FROM parquet_scan('" + data + "')":                           "cannot be called here",
		"SELECT * FROM parquet_metadata('" + data + "')":                       "cannot be called here",
		"SELECT * FROM parquet_file_metadata('" + data + "')":                  "cannot be called here",
		"SELECT * FROM iceberg_scan('" + dir + "')":                            "cannot be called here",
		"SELECT * FROM iceberg_metadata('" + dir + "')":                        "cannot be called here",
		"SELECT * FROM iceberg_snapshots('" + dir + "')":                       "cannot be called here",
		"SELECT * FROM query('FROM read_parquet(''" + data + "'')')":           "cannot be called here",
		"SELECT * FROM query_table('grades')":                                  "cannot be called here",
		"SELECT * FROM glob('" + dir + "/**')":                                 "cannot be called here",
		"SELECT * FROM duckdb_tables()":                                        "cannot be called here",
		"SELECT * FROM duckdb_views()":                                         "cannot be called here",
		"SELECT * FROM pragma_storage_info('grades')":                          "cannot be called here",
		"SELECT * FROM duckdb_temporary_files()":                               "cannot be called here",
		"SELECT * FROM information_schema.tables":                              "there is no table",
		"SELECT * FROM pg_catalog.pg_class":                                    "there is no table",
		"SELECT * FROM grades, (FROM information_schema.columns)":              "there is no table",
		"EXPLAIN SELECT * FROM grades":                                         "only SELECT is possible here",
		"EXPLAIN ANALYZE SELECT * FROM grades":                                 "only SELECT is possible here",
		"SET allowed_paths = ['" + data + "']":                                 "only SELECT is possible here",
		"CREATE VIEW grades AS FROM '" + data + "'":                            "only SELECT is possible here",
		"COPY (FROM grades) TO '" + dir + "/x'":                                "only SELECT is possible here",
		"SELECT * FROM grades; SELECT * FROM read_parquet('" + data + "')":     "there are 2 statements",
		"SELECT * FROM grades) WHERE true; FROM (SELECT * FROM '" + data + "'": "syntax error",
	} {
		got := said(t, bound, query)
		require.Contains(t, got, "error: ", query)
		require.Contains(t, got, says, query)
		require.NotContains(t, got, marker, query)
	}
	for _, account := range []string{"nobody", "acme' OR '1'='1", "'", "ACME", `acme\' --`} {
		require.Equal(t, [][]string{{"0", "0"}}, ask(t, openSQL(t, all, delivery.SQLConfig{Account: account}), "SELECT count(*), (SELECT count(*) FROM raw.events) FROM grades"), account)
	}
	_, err := openSQL(t, all, delivery.SQLConfig{Account: own, Memory: 32 << 20, Spill: 1 << 20}).Query(context.Background(), "SELECT repeat(student, 40000000) FROM grades")
	require.ErrorIs(t, err, delivery.ErrTooLarge)
}
