package whatif_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/delivery/whatif"
	"millrace/lake"
	"millrace/lake/laketest"
	"millrace/plan"
)

var columns = []plan.Column{
	{Name: "name", Type: plan.String, Nullable: true},
	{Name: "points", Type: plan.Long},
	{Name: "score", Type: plan.Double, Nullable: true},
	{Name: "late", Type: plan.Bool},
	{Name: "graded", Type: plan.Timestamp, Nullable: true},
	{Name: "answer", Type: plan.Bytes},
	{Name: "tags", Type: plan.Strings},
}

func tableOf(columns []plan.Column) plan.Table {
	return plan.Table{Name: "marks", Schema: plan.Schema{Name: "Marks", Columns: columns}}
}

// modelRow is what the model knows of a row: the values of its columns as text, by name.
type modelRow struct {
	values  map[string]string
	sources string
	day     string
}

// world is a table in two versions, and the model of both.
type world struct {
	rng   *rand.Rand
	model [2]map[string]modelRow
	have  [2][]plan.Column
}

const dayMicros = 24 * 60 * 60 * 1_000_000

// cell makes a value of few, so that many are equal.
func (w *world) cell(c plan.Column) (plan.Cell, string) {
	n := w.rng.IntN(3)
	if c.Nullable && n == 0 {
		return plan.Cell{Null: true}, "null"
	}
	text := fmt.Sprint(n)
	switch c.Type {
	case plan.String:
		return plan.Cell{Bytes: []byte("ü" + text)}, text
	case plan.Long:
		return plan.Cell{Int: int64(n) - 1}, text
	case plan.Double:
		return plan.Cell{Float: float64(n) / 3}, text
	case plan.Bool:
		return plan.Cell{Bool: n == 1}, fmt.Sprint(n == 1)
	case plan.Timestamp:
		return plan.Cell{Int: int64(n) * 1_000_001}, text
	case plan.Bytes:
		return plan.Cell{Bytes: make([]byte, n)}, text
	}
	return plan.Cell{List: make([][]byte, n)}, text
}

// write writes a version: rows, corrections of some of them, withdrawals of others. Rows of B are mostly those of A.
func (w *world) write(t *testing.T, l *lake.Lake, side int) {
	t.Helper()
	namespace := []string{"va", "vb"}[side]
	table := tableOf(w.have[side])
	tbl, err := l.Table(t.Context(), namespace, table)
	require.NoError(t, err)
	w.model[side] = map[string]modelRow{}
	type made struct {
		cells  []plan.Cell
		values map[string]string
	}
	for epoch := uint64(1); epoch <= 3; epoch++ {
		var rows []plan.Row
		for i := range 40 {
			id := fmt.Sprintf("id%d", i)
			_, there := w.model[side][id]
			if epoch > 1 && w.rng.IntN(4) > 0 {
				continue
			}
			if epoch == 1 && w.rng.IntN(8) == 0 {
				continue
			}
			if there && w.rng.IntN(4) == 0 {
				rows = append(rows, plan.Row{ID: id, Rev: epoch, Epoch: epoch, Deleted: true, EventTime: int64(i%5) * dayMicros, Account: "a", Env: "e"})
				delete(w.model[side], id)
				continue
			}
			if !there && epoch > 1 {
				continue
			}
			m := made{values: map[string]string{}}
			seed := w.rng
			if side == 1 && w.rng.IntN(3) > 0 { // as A has it, where that depends on the id alone
				seed = nil
			}
			saved := w.rng
			if seed == nil || side == 0 && w.rng.IntN(3) > 0 {
				w.rng = rand.New(rand.NewPCG(uint64(i), 99)) //nolint:gosec // a small number
			}
			byName := map[string]plan.Cell{}
			for _, c := range columns { // also those that this side has not
				cell, text := w.cell(c)
				byName[c.Name] = cell
				m.values[c.Name] = text
			}
			day, source := int64(i%5), "event "+id
			if w.rng != saved {
				w.rng = saved
			} else {
				day, source = int64(w.rng.IntN(5)), fmt.Sprintf("event %s %d", id, w.rng.IntN(2))
			}
			for _, c := range w.have[side] {
				m.cells = append(m.cells, byName[c.Name])
			}
			value, err := table.Schema.Append(nil, m.cells)
			require.NoError(t, err)
			values := map[string]string{}
			for _, c := range w.have[side] {
				values[c.Name] = m.values[c.Name]
			}
			at := day*dayMicros + 1
			values["_event_time"] = fmt.Sprint(at)
			rows = append(rows, plan.Row{
				ID: id, Rev: epoch, First: !there, Epoch: epoch, Value: value, EventTime: at, Account: "a", Env: "e", Sources: []string{source},
			})
			w.model[side][id] = modelRow{values, source, time.UnixMicro(at).UTC().Format(time.DateOnly)}
		}
		p, err := tbl.Write(t.Context(), rows, "L1", "1")
		require.NoError(t, err)
		require.NoError(t, tbl.Commit(t.Context(), p, lake.Position{Lineage: "L1", FromEpoch: epoch, ToEpoch: epoch}))
	}
}

// want compares the models, plainly.
func (w *world) want() (same, evidence int64, days map[string]whatif.Day, byColumn map[string]int64, kinds map[string]string) {
	days, byColumn, kinds = map[string]whatif.Day{}, map[string]int64{}, map[string]string{}
	ids := map[string]bool{}
	for _, m := range w.model {
		for id := range m {
			ids[id] = true
		}
	}
	for id := range ids {
		a, inA := w.model[0][id]
		b, inB := w.model[1][id]
		day, kind := a.day, whatif.Differ
		switch {
		case !inB:
			kind = whatif.OnlyA
		case !inA:
			day, kind = b.day, whatif.OnlyB
		default:
			differs := false
			names := map[string]bool{}
			for n := range a.values {
				names[n] = true
			}
			for n := range b.values {
				names[n] = true
			}
			for n := range names {
				x, y := a.values[n], b.values[n]
				if x == "" {
					x = "null"
				}
				if y == "" {
					y = "null"
				}
				if x != y {
					byColumn[n]++
					differs = true
				}
			}
			if !differs {
				same++
				if a.sources != b.sources {
					evidence++
				}
				continue
			}
		}
		kinds[id] = kind
		d := days[day]
		d.Day = day
		switch kind {
		case whatif.OnlyA:
			d.OnlyA++
		case whatif.OnlyB:
			d.OnlyB++
		case whatif.Differ:
			d.Differ++
		}
		days[day] = d
	}
	return same, evidence, days, byColumn, kinds
}

func TestCompareIsWhatAModelSays(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := &world{rng: rand.New(rand.NewPCG(seed, 1))}
			w.have[0], w.have[1] = columns, columns
			if seed%3 == 1 {
				w.have[0] = columns[1:]
			}
			if seed%4 == 1 {
				w.have[1] = slices.Delete(slices.Clone(columns), 2, 3)
			}
			l := open(t)
			w.write(t, l, 0)
			w.write(t, l, 1)
			cfg := whatif.Config{Lake: l, A: "va", B: "vb", Temp: t.TempDir(), Memory: 1024} // a few rows at a time
			d, err := whatif.Compare(t.Context(), cfg)
			require.NoError(t, err)
			again, err := whatif.Compare(t.Context(), cfg)
			require.NoError(t, err)
			require.Equal(t, asJSON(t, d), asJSON(t, again), "byte for byte")

			require.Len(t, d.Tables, 1)
			got := d.Tables[0]
			same, evidence, days, byColumn, kinds := w.want()
			require.Equal(t, same, got.Same)
			require.Equal(t, evidence, got.OtherEvidence)
			require.EqualValues(t, len(w.model[0]), got.A.Rows)
			require.EqualValues(t, len(w.model[1]), got.B.Rows)
			require.Equal(t, slices.SortedFunc(maps.Values(days), func(a, b whatif.Day) int { return strings.Compare(a.Day, b.Day) }), got.Days)
			columns := map[string]int64{}
			for _, c := range got.Columns {
				columns[c.Column] = c.Rows
			}
			require.Equal(t, byColumn, columns)
			shown := map[string]int{}
			for _, e := range got.Examples {
				require.Equal(t, kinds[e.ID], e.Kind)
				shown[e.Kind]++
				if e.Kind != whatif.OnlyB {
					require.Equal(t, []string{w.model[0][e.ID].sources}, e.Evidence.A)
				}
				if e.Kind != whatif.OnlyA {
					require.Equal(t, []string{w.model[1][e.ID].sources}, e.Evidence.B)
				}
				if e.Kind == whatif.Differ {
					require.NotEmpty(t, e.Columns)
				}
			}
			require.EqualValues(t, min(got.OnlyA, 3), shown[whatif.OnlyA])
			require.EqualValues(t, min(got.OnlyB, 3), shown[whatif.OnlyB])
			require.EqualValues(t, min(got.Differ, 3), shown[whatif.Differ])
			require.Equal(t, len(kinds) == 0, d.Same)
		})
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return string(b)
}

func open(t *testing.T) *lake.Lake {
	t.Helper()
	l, err := lake.Open(t.Context(), laketest.In(t.TempDir()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

// A table that only one version has, and one without a row in either.
func TestMissingTables(t *testing.T) {
	t.Parallel()
	l := open(t)
	for namespace, names := range map[string][]string{"va": {"marks", "empty"}, "vb": {"empty"}} {
		for _, name := range names {
			table := tableOf(columns)
			table.Name = name
			_, err := l.Table(t.Context(), namespace, table)
			require.NoError(t, err)
		}
	}
	d, err := whatif.Compare(t.Context(), whatif.Config{Lake: l, A: "va", B: "vb"})
	require.NoError(t, err)
	require.False(t, d.Same, "a table is missing")
	require.Equal(t, "empty", d.Tables[0].Name)
	require.False(t, d.Tables[0].Differs())
	require.True(t, d.Tables[1].B.Missing)
	d, err = whatif.Compare(t.Context(), whatif.Config{Lake: l, A: "va", B: "vb", Tables: []string{"empty"}})
	require.NoError(t, err)
	require.True(t, d.Same)

	for want, cfg := range map[string]whatif.Config{
		"va cannot be compared with itself":                      {Lake: l, A: "va", B: "va"},
		"the lake has no namespace v1; it has va, vb":            {Lake: l, A: "va", B: "v1"},
		"neither version has a table quiz; they have empty, mar": {Lake: l, A: "va", B: "vb", Tables: []string{"quiz"}},
	} {
		_, err := whatif.Compare(t.Context(), cfg)
		require.ErrorContains(t, err, want)
	}
}

// A damaged file is named, and what is left is not compared.
func TestDamagedFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := lake.Open(t.Context(), lake.Config{Dir: dir})
	require.NoError(t, err)
	defer l.Close()
	w := &world{rng: rand.New(rand.NewPCG(1, 1)), have: [2][]plan.Column{columns, columns}}
	w.write(t, l, 0)
	w.write(t, l, 1)
	var file string
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".parquet") && strings.Contains(path, "/vb/") && !strings.Contains(path, "delete") {
			file = path
		}
		return err
	}))
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	b[len(b)/2] ^= 1
	require.NoError(t, os.WriteFile(file, b, 0o600))
	_, err = whatif.Compare(context.Background(), whatif.Config{Lake: l, A: "va", B: "vb"})
	require.ErrorContains(t, err, "compare table marks")
	require.ErrorContains(t, err, ".parquet")
}
