package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/delivery"
	"millrace/lake"
	"millrace/plan"
)

// diffDir is a data directory with two data versions.
func diffDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "millrace.json"), []byte(`{"format": 1, "created_by": "test"}`), 0o600))
	l, err := lake.Open(t.Context(), lake.Config{Dir: filepath.Join(dir, "lake")})
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	score := plan.Column{Name: "score", Type: plan.Double}
	role := plan.Column{Name: "role", Type: plan.String, Nullable: true}
	write := func(namespace, table string, columns []plan.Column, rows ...plan.Row) {
		p := plan.Table{Name: table, Schema: plan.Schema{Name: "T", Columns: columns}}
		tbl, err := l.Table(t.Context(), namespace, p)
		require.NoError(t, err)
		for i := range rows {
			r := &rows[i]
			r.Rev, r.First, r.Account, r.Env, r.Epoch = 1, true, "acme", "prod", 1
			cells := []plan.Cell{{Float: float64(r.Epoch) * 10}, {Null: true}}[:len(columns)]
			if namespace != unversionedSpace && r.ID == "quiz-1" {
				cells[0].Float = 7.5
			}
			r.Value, err = p.Schema.Append(nil, cells)
			require.NoError(t, err)
		}
		w, err := tbl.Write(t.Context(), rows, "L"+namespace, "1")
		require.NoError(t, err)
		require.NoError(t, tbl.Commit(t.Context(), w, lake.Position{Lineage: "L" + namespace, FromEpoch: 1, ToEpoch: 1}))
	}
	row := func(id string, day int64, source string) plan.Row {
		return plan.Row{ID: id, EventTime: day * 24 * 3600 * 1_000_000, Sources: []string{source}}
	}
	for _, space := range []string{unversionedSpace, "v20180827174235"} {
		write(space, "activity_view", []plan.Column{score}, row("view-1", 1, "event v t/0/1"))
	}
	write(unversionedSpace, "quiz_submission", []plan.Column{score}, row("quiz-1", 1, "event e1 t/0/1"), row("quiz-2", 2, "event e2 t/0/2"), row("quiz-3", 3, "event e3 t/0/3"))
	write("v20180827174235", "quiz_submission", []plan.Column{score, role}, row("quiz-1", 1, "event e1 t/0/1"), row("quiz-2", 2, "event e2 t/0/9"), row("quiz-4", 3, "event e4 t/0/4"))
	return dir
}

const unversionedSpace = "unversioned"

func runDiff(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := rootCommand()
	var out strings.Builder
	cmd.SetOut(&out)
	cmd.SetArgs(append([]string{"diff"}, args...))
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

const wantDiff = `A is unversioned, B is 20180827174235

TABLE            ROWS IN A  ROWS IN B  SAME  OTHER EVIDENCE  DIFFER  ONLY IN A  ONLY IN B  SNAPSHOT OF A  SNAPSHOT OF B
activity_view    1          1          1     0               0       0          0          N              N
quiz_submission  3          3          0     1               1       1          1          N              N

quiz_submission
  column score differs in 1 of 2 rows
  column role is only in 20180827174235, and not compared

  DAY         ROWS IN A  ROWS IN B  SAME  OTHER EVIDENCE  DIFFER  ONLY IN A  ONLY IN B  MOVED AWAY  MOVED HERE
  1970-01-02  1          1          0     0               1       0          0          0           0
  1970-01-03  1          1          0     1               0       0          0          0           0
  1970-01-04  1          1          0     0               0       1          1          0           0

  differs: quiz-1  1970-01-02  acme:prod
    score: 10 → 7.5
    A from event e1 t/0/1
    B from event e1 t/0/1

  only in A: quiz-3  1970-01-04  acme:prod
    score: 10
    _event_time: "1970-01-04T00:00:00Z"
    A from event e3 t/0/3

  only in B: quiz-4  1970-01-04  acme:prod
    score: 10
    _event_time: "1970-01-04T00:00:00Z"
    B from event e4 t/0/4

  other evidence: quiz-2  1970-01-03  acme:prod
    A from event e2 t/0/2
    B from event e2 t/0/9

1 of 2 tables are the same; quiz_submission: column role is only in 20180827174235, 1 of 2 rows differ in score, 1 row is only in unversioned, 1 row is only in 20180827174235; 1 row has the same values and other evidence
`

func TestDiff(t *testing.T) {
	t.Parallel()
	dir := diffDir(t)
	out, err := runDiff(t, "unversioned", "20180827174235", "--data-dir", dir)
	require.ErrorIs(t, err, errDiffer)
	out = regexp.MustCompile(` +\d{15,19}  +\d{15,19}\n`).ReplaceAllString(out, "          N              N\n")
	out = regexp.MustCompile(`SNAPSHOT OF A +SNAPSHOT OF B`).ReplaceAllString(out, "SNAPSHOT OF A  SNAPSHOT OF B")
	require.Equal(t, wantDiff, out)

	out, err = runDiff(t, "unversioned", "20180827174235", "--data-dir", dir, "-o", "json", "--examples", "0")
	require.ErrorIs(t, err, errDiffer)
	var c delivery.Comparison
	require.NoError(t, json.Unmarshal([]byte(out), &c))
	require.False(t, c.Same)
	require.Empty(t, c.Tables[1].Examples)
	require.Equal(t, int64(1), c.Tables[1].Differ)

	for _, args := range [][]string{{"--table", "activity_view"}, {"--from", "1970-01-02", "--to", "1970-01-03", "--table", "activity_view"}} {
		out, err = runDiff(t, append(args, "unversioned", "20180827174235", "--data-dir", dir)...)
		require.NoError(t, err)
		require.Contains(t, out, "\nthe table is the same\n")
	}
	_, err = runDiff(t, "unversioned", "20180827174235", "--data-dir", dir, "--table", "activity_view", "--to", "1970-01-02")
	require.ErrorContains(t, err, "neither unversioned nor 20180827174235 has rows until 1970-01-02T00:00:00Z")
}

func TestCutShowsWhereValuesDiffer(t *testing.T) {
	t.Parallel()
	x, y := strings.Repeat("ä", 300)+"x"+strings.Repeat("z", 200), strings.Repeat("ä", 300)+"y"
	at := firstDifference(x, y)
	require.Equal(t, 300, at)
	require.Equal(t, "…"+strings.Repeat("ä", 20)+"x"+strings.Repeat("z", 79)+"…", cut(x, at))
	require.Equal(t, "…"+strings.Repeat("ä", 99)+"y", cut(y, at))
	require.Equal(t, "short", cut("short", 5))
}

func TestWorstDays(t *testing.T) {
	t.Parallel()
	var days []delivery.DayComparison
	for i := range 13 {
		days = append(days, delivery.DayComparison{Day: string(rune('a' + i)), RowCounts: delivery.RowCounts{Differ: int64(i * 7 % 13)}})
	}
	worst, more := worstDays(days)
	require.Equal(t, 3, more)
	names := ""
	for _, d := range worst {
		names += d.Day
	}
	require.Equal(t, withDifferences(days, 3), names)
}

// withDifferences are the days in order that have at least so many differences.
func withDifferences(days []delivery.DayComparison, least int64) (names string) {
	for _, d := range days {
		if d.Differ >= least {
			names += d.Day
		}
	}
	return names
}
