package catalog_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/control"
	"millrace/delivery"
	"millrace/delivery/catalog"
	"millrace/delivery/catalog/catalogtest"
	"millrace/lake"
	"millrace/lake/laketest"
	"millrace/plan"
)

// marks is a table with a column of each type.
var marks = plan.Table{
	Name: "marks",
	Schema: plan.Schema{Name: "Marks", Columns: []plan.Column{
		{Name: "student", Type: plan.String},
		{Name: "score", Type: plan.Double, Nullable: true},
		{Name: "points", Type: plan.Long},
		{Name: "late", Type: plan.Bool},
		{Name: "graded", Type: plan.Timestamp, Nullable: true},
		{Name: "answer", Type: plan.Bytes},
		{Name: "tags", Type: plan.Strings},
	}},
}

// mark is what the model knows of a row.
type mark struct {
	points, graded int64 // graded in microseconds
	score          float64
	unscored, late bool
	tags           int
	day            int64
}

const microsPerDay = 24 * 60 * 60 * 1_000_000

func (m mark) row(t *testing.T, id string, rev, epoch uint64) plan.Row {
	t.Helper()
	tags := make([][]byte, m.tags)
	for i := range tags {
		tags[i] = []byte("ü")
	}
	value, err := marks.Schema.Append(nil, []plan.Cell{
		{Bytes: []byte("student " + id)},
		{Float: m.score, Null: m.unscored},
		{Int: m.points},
		{Bool: m.late},
		{Int: m.graded},
		{Bytes: []byte{0, 0xff}},
		{List: tags},
	})
	require.NoError(t, err)
	return plan.Row{
		ID: id, Rev: rev, First: rev == 1, EventTime: m.day*microsPerDay + 1, Account: "acme", Env: "prod", Epoch: epoch, Value: value,
	}
}

// totals are what all three say of the table: numbers as text.
func totals(model map[string]mark) []string {
	var scored, late, tags, points, graded int64
	score := 0.0
	days := map[int64]bool{}
	for _, m := range model {
		points += m.points
		graded += m.graded
		tags += int64(m.tags)
		days[m.day] = true
		if !m.unscored {
			scored++
			score += m.score
		}
		if m.late {
			late++
		}
	}
	return []string{
		fmt.Sprint(len(model)), fmt.Sprint(len(model)), fmt.Sprint(points), fmt.Sprint(scored), fmt.Sprintf("%.2f", score), fmt.Sprint(late),
		fmt.Sprint(tags), fmt.Sprint(graded), fmt.Sprint(len(days)), fmt.Sprint(2 * len(model)),
	}
}

// question asks for them. What differs between the two dialects is filled in.
const question = `SELECT count(*), count(DISTINCT _id), coalesce(sum(points), 0), count(score), coalesce(sum(score), 0), count(*) FILTER (WHERE late),
	coalesce(sum(%s(tags)), 0), coalesce(sum(%s), 0), count(DISTINCT date_trunc('day', _event_time)), coalesce(sum(%s(answer)), 0)
	FROM %s`

// The oracle in Go, DuckDB and a real Trino agree on counts and sums, after each of many commits with corrections, withdrawals and
// compactions in between. Trino reads the very same files: nothing is exported.
func TestTrinoAgrees(t *testing.T) {
	t.Parallel()
	catalogtest.Need(t)
	t.Run("local", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		trinoAgrees(t, dir, lake.Config{Dir: filepath.Join(dir, "lake")}, catalogtest.Local)
	})
	t.Run("S3", func(t *testing.T) {
		t.Parallel()
		if !laketest.OnS3() {
			t.Skip("MILLRACE_S3 is not set: scripts/servers/s3.sh starts a server for it")
		}
		dir := t.TempDir()
		trinoAgrees(t, dir, laketest.In(filepath.Join(dir, "lake")), catalogtest.S3())
	})
}

// trinoAgrees is TestTrinoAgrees of a lake whose files Trino reads where it is told to.
func trinoAgrees(t *testing.T, dir string, cfg lake.Config, files string) {
	l, err := lake.Open(t.Context(), cfg)
	require.NoError(t, err)
	defer l.Close()
	store, err := control.Open(filepath.Join(dir, "keys.db"))
	require.NoError(t, err)
	defer store.Close()
	token, err := store.Tokens.Add(t.Context(), control.Token{Name: "trino", Role: control.Analyst})
	require.NoError(t, err)
	c, err := catalog.New(catalog.Config{Lake: l, Authorize: func(ctx context.Context, secret string) error {
		_, err := store.Tokens.Lookup(ctx, secret)
		return err
	}})
	require.NoError(t, err)
	server := httptest.NewServer(c)
	defer server.Close()
	trino := catalogtest.Open(t, server.URL+"/iceberg", token, files)
	duck, err := delivery.NewSQL(delivery.SQLConfig{
		Lake: l, Temp: dir, Serving: func(context.Context) ([]string, error) { return []string{"v20180827174235"}, nil },
	})
	require.NoError(t, err)

	tbl, err := l.Table(t.Context(), "v20180827174235", marks)
	require.NoError(t, err)
	model := map[string]mark{}
	agree := func(epoch uint64) {
		t.Helper()
		want := totals(model)
		rows := trino.Query(t, fmt.Sprintf(question, "cardinality", "to_unixtime(graded) * 1e6", "length", "v20180827174235.marks"))
		require.Len(t, rows, 1)
		require.Equal(t, want, numbers(t, rows[0]), "Trino, epoch %d", epoch)
		a, err := duck.Query(t.Context(), fmt.Sprintf(question, "len", "epoch_us(graded)", "octet_length", "marks"))
		require.NoError(t, err)
		defer a.Close()
		for row, err := range a.JSON(t.Context()) {
			require.NoError(t, err)
			values := make([]any, len(row))
			for i, v := range row {
				values[i] = json.Number(v)
			}
			require.Equal(t, want, numbers(t, values), "DuckDB, epoch %d", epoch)
		}
	}
	agree(0)
	r := rand.New(rand.NewPCG(5, 8))
	revs := map[string]uint64{}
	for epoch := uint64(1); epoch <= 40; epoch++ {
		rows := map[string]plan.Row{}
		for range 1 + r.IntN(8) {
			id := fmt.Sprint("id", r.IntN(60))
			if _, twice := rows[id]; twice {
				continue
			}
			revs[id]++
			if _, there := model[id]; there && r.IntN(4) == 0 {
				rows[id] = plan.Row{ID: id, Rev: revs[id], Deleted: true, Epoch: epoch}
				delete(model, id)
				continue
			}
			m := mark{
				points: r.Int64N(1 << 40), graded: r.Int64N(1<<20) * 1_000_000, score: float64(r.IntN(400)) / 4, unscored: r.IntN(5) == 0, late: r.IntN(2) == 0,
				tags: r.IntN(3), day: 17000 + r.Int64N(4), // a correction may move it to another day
			}
			rows[id] = m.row(t, id, revs[id], epoch)
			model[id] = m
		}
		list := make([]plan.Row, 0, len(rows))
		for _, row := range rows {
			list = append(list, row)
		}
		p, err := tbl.Write(t.Context(), list, "L1", "1")
		require.NoError(t, err)
		require.NoError(t, tbl.Commit(t.Context(), p, lake.Position{Lineage: "L1", FromEpoch: epoch, ToEpoch: epoch}))
		compacted := lake.Compacted{}
		if epoch%15 == 0 {
			compacted, err = tbl.Compact(t.Context())
			require.NoError(t, err)
			require.NotZero(t, compacted.Removed)
		}
		if epoch%8 == 0 || compacted.Removed > 0 {
			agree(epoch)
		}
	}
	snapshot, err := tbl.Snapshot(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, snapshot.Deletes, "there were corrections to apply")

	require.Equal(t, [][]any{{"v20180827174235"}}, trino.Query(t, "SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE 'v%'"))
	require.Equal(t, [][]any{{"marks"}}, trino.Query(t, "SHOW TABLES FROM v20180827174235"))
	for _, write := range []string{
		"DELETE FROM v20180827174235.marks", "DROP TABLE v20180827174235.marks", "CREATE SCHEMA mine", "CREATE TABLE v20180827174235.mine (a integer)",
	} {
		require.NotEmpty(t, trino.Refused(t, write), write)
	}
	agree(41)
}

// numbers are JSON numbers in one form each, whether a sum is a whole number or not.
func numbers(t *testing.T, row []any) []string {
	t.Helper()
	out := make([]string, len(row))
	for i, v := range row {
		n, ok := v.(json.Number)
		require.True(t, ok, "%v", v)
		if _, err := n.Int64(); err == nil && i != 4 {
			out[i] = n.String()
			continue
		}
		f, err := n.Float64()
		require.NoError(t, err)
		if out[i] = fmt.Sprintf("%.0f", f); i == 4 {
			out[i] = fmt.Sprintf("%.2f", f)
		}
	}
	return out
}
