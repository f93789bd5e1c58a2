package delivery_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"millrace/delivery"
	"millrace/lake"
	"millrace/lake/laketest"
	"millrace/plan"
)

// modelRow is the newest revision of a row.
type modelRow struct {
	values             map[string]any // as lake.Row has them
	at                 int64
	account, env, from string
}

// modelTable is a table of a version.
type modelTable struct {
	columns []plan.Column
	rows    map[string]modelRow
}

// randomTable makes a table of one version, and one of another that is much like it; one of the two may be nil.
func randomTable(r *rand.Rand) (tables [2]*modelTable) {
	var columns []plan.Column
	for kind := plan.String; kind <= plan.Strings; kind++ {
		columns = append(columns, plan.Column{Name: "c" + strconv.Itoa(int(kind)), Type: kind, Nullable: r.IntN(2) == 0})
	}
	a := &modelTable{columns, map[string]modelRow{}}
	b := &modelTable{slices.Clone(columns), map[string]modelRow{}}
	if r.IntN(3) == 0 { // one is gone
		i := r.IntN(len(b.columns))
		b.columns = slices.Delete(b.columns, i, i+1)
	}
	if r.IntN(3) == 0 { // one is new
		b.columns = slices.Insert(b.columns, r.IntN(len(b.columns)), plan.Column{Name: "new", Type: plan.Long, Nullable: true})
	}
	if i := r.IntN(len(b.columns)); r.IntN(2) == 0 { // one has another type, often a number as the other kind of number
		switch kind := &b.columns[i].Type; {
		case *kind == plan.Long && r.IntN(2) == 0:
			*kind = plan.Double
		case *kind == plan.Double && r.IntN(2) == 0:
			*kind = plan.Long
		default:
			*kind = 1 + (*kind+plan.Type(r.IntN(6)))%7
		}
	}
	for i := range r.IntN(300) {
		id := fmt.Sprint("row", i)
		row := modelRow{values: map[string]any{}, account: "acme", env: fmt.Sprint("env", r.IntN(2)), from: "event 1"}
		if r.IntN(2) == 0 {
			row.account = "zeta"
		}
		row.at = (int64(r.IntN(5))-2)*day + int64(r.IntN(2))*(day-1)
		for _, c := range a.columns {
			row.values[c.Name] = randomValue(r, c)
		}
		other := row
		other.values = map[string]any{}
		for i, c := range b.columns {
			v, had := row.values[c.Name]
			if j := slices.IndexFunc(a.columns, func(h plan.Column) bool { return h.Name == c.Name }); !had || j >= 0 && a.columns[j].Type != b.columns[i].Type || r.IntN(60) == 0 {
				v = randomValue(r, c)
			}
			other.values[c.Name] = v
		}
		if r.IntN(20) == 0 {
			other.at += int64(r.IntN(3)-1) * day
		}
		if r.IntN(20) == 0 {
			other.from = "event 2"
		}
		if r.IntN(12) > 0 {
			a.rows[id] = row
		}
		if r.IntN(12) > 0 {
			b.rows[id] = other
		}
	}
	switch r.IntN(8) {
	case 0:
		return [2]*modelTable{a, nil}
	case 1:
		return [2]*modelTable{nil, b}
	}
	return [2]*modelTable{a, b}
}

func randomValue(r *rand.Rand, c plan.Column) any {
	if c.Nullable && r.IntN(4) == 0 {
		return nil
	}
	n := r.IntN(4)
	switch c.Type {
	case plan.String:
		return []string{"", "a", "ü\x1b", strings.Repeat("long ", 40)}[n]
	case plan.Bool:
		return n%2 == 0
	case plan.Long:
		return []int64{0, -1, 1<<53 + 1, math.MaxInt64}[n]
	case plan.Double:
		return []float64{0, math.NaN(), 1 << 53, math.Inf(-1)}[n]
	case plan.Timestamp:
		return time.UnixMicro([]int64{0, 1, -1, 5 * day}[n]).UTC()
	case plan.Bytes:
		return [][]byte{{}, {0xff}, []byte("text"), {0}}[n]
	}
	return [][]string{{}, {""}, {"a", "b"}, {"a"}}[n]
}

// publishModel brings a table to what the model says, by way of corrections, withdrawals and compactions.
func publishModel(t testing.TB, r *rand.Rand, l *lake.Lake, namespace, name string, m *modelTable) {
	t.Helper()
	p := plan.Table{Name: name, Schema: plan.Schema{Name: "T", Columns: m.columns}}
	if r.IntN(3) == 0 {
		p.Partition = []plan.PartitionField{{Column: "account_id", Transform: plan.Identity}}
	}
	table := openTable(t, l, namespace, p)
	ids := slices.Sorted(maps.Keys(m.rows))
	ids = append(ids, "gone1", "gone2", "gone3")
	var revisions []plan.Row
	for _, id := range ids {
		last, there := m.rows[id]
		if !there {
			last.account, last.env = "acme", "env0"
		}
		revs := uint64(1 + r.IntN(2)*r.IntN(2)*r.IntN(4))
		if !there {
			revs++
		}
		for rev := uint64(1); rev <= revs; rev++ {
			row := plan.Row{ID: id, Rev: rev, First: rev == 1, EventTime: last.at, Account: last.account, Env: last.env, Sources: []string{last.from, "entity " + id}}
			final := rev == revs
			if final && !there {
				row.Deleted = true
			} else {
				cells := make([]plan.Cell, len(m.columns))
				for i, c := range m.columns {
					v := last.values[c.Name]
					if !final {
						v = randomValue(r, c)
					}
					cells[i] = lake.CellOf(v)
				}
				if !final {
					row.EventTime = int64(r.IntN(3)) * day
				}
				row.Value = value(t, p, cells...)
			}
			revisions = append(revisions, row)
		}
	}
	slices.SortStableFunc(revisions, func(a, b plan.Row) int { return cmp.Compare(a.Rev, b.Rev) })
	for epoch := uint64(1); len(revisions) > 0; epoch++ {
		n := min(len(revisions), 1+r.IntN(200))
		for i := range revisions[:n] {
			revisions[i].Epoch = epoch
		}
		w, err := table.Write(t.Context(), revisions[:n], "L"+namespace, namespace)
		require.NoError(t, err)
		require.Empty(t, w.Rejected)
		require.NoError(t, table.Commit(t.Context(), w, lake.Position{Lineage: "L" + namespace, FromEpoch: epoch, ToEpoch: epoch}))
		revisions = revisions[n:]
		if r.IntN(6) == 0 {
			_, err := table.Compact(t.Context())
			require.NoError(t, err)
		}
	}
}

func modelDay(at int64) string { return time.UnixMicro(at).UTC().Format("2006-01-02") }

// modelSame says whether two values are the same.
func modelSame(a, b any) bool {
	if x, ok := a.(float64); ok {
		if y, ok := b.(float64); ok {
			return x == y || x != x && y != y
		}
	}
	switch x := a.(type) { // no whole number of randomValue but 0 and -1 is one of its floats
	case int64:
		if y, ok := b.(float64); ok {
			return x == 0 && y == 0
		}
	case float64:
		if y, ok := b.(int64); ok {
			return x == 0 && y == 0
		}
	}
	return reflect.DeepEqual(a, b)
}

func modelShown(v any) any {
	switch v := v.(type) {
	case float64:
		if math.IsNaN(v) {
			return "NaN"
		}
		if math.IsInf(v, -1) {
			return "-Infinity"
		}
	case time.Time:
		return v.Format(time.RFC3339Nano)
	case []byte:
		if !utf8.Valid(v) {
			return map[string]string{"base64": "/w=="}
		}
		return string(v)
	}
	return v
}

// compareModels is what Compare must say of a table, from maps.
func compareModels(tables [2]*modelTable, cfg delivery.CompareConfig) delivery.TableComparison {
	out := delivery.TableComparison{Same: true, Columns: []delivery.ColumnComparison{}, Days: []delivery.DayComparison{}, Examples: []delivery.Example{}}
	a, b := tables[0], tables[1]
	switch {
	case a == nil:
		out.OnlyIn, a = cfg.B, &modelTable{columns: b.columns}
	case b == nil:
		out.OnlyIn, b = cfg.A, &modelTable{columns: a.columns}
	}
	out.Same = out.OnlyIn == ""
	typeIn := func(m *modelTable, name string) plan.Type {
		for _, c := range m.columns {
			if c.Name == name {
				return c.Type
			}
		}
		return 0
	}
	differ := map[string]int64{}
	days := map[string]*delivery.DayComparison{}
	dayOf := func(at int64) *delivery.DayComparison {
		if days[modelDay(at)] == nil {
			days[modelDay(at)] = &delivery.DayComparison{Day: modelDay(at)}
		}
		return days[modelDay(at)]
	}
	examples := map[string][]delivery.Example{}
	shown := map[string]int{}
	all := maps.Clone(a.rows)
	if all == nil {
		all = map[string]modelRow{}
	}
	maps.Copy(all, b.rows)
	in := func(row modelRow, ok bool) bool {
		return ok && (cfg.From.IsZero() || row.at >= cfg.From.UnixMicro()) && (cfg.To.IsZero() || row.at < cfg.To.UnixMicro())
	}
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if whose := all[id]; cfg.Account != "" && cfg.Account != whose.account || cfg.Env != "" && cfg.Env != whose.env {
			continue
		}
		x, inA := a.rows[id]
		y, inB := b.rows[id]
		if !in(x, inA) && !in(y, inB) {
			continue
		}
		e := delivery.Example{ID: id, Account: all[id].account, Env: all[id].env, Values: []delivery.Values{}, SourcesA: []string{}, SourcesB: []string{}}
		counts := []*delivery.RowCounts{&out.RowCounts}
		if inB {
			out.RowsB++
			dayOf(y.at).RowsB++
			e.DayB, e.SourcesB = modelDay(y.at), []string{y.from, "entity " + id}
			counts = append(counts[:1], &dayOf(y.at).RowCounts)
		}
		if inA {
			out.RowsA++
			dayOf(x.at).RowsA++
			e.DayA, e.SourcesA = modelDay(x.at), []string{x.from, "entity " + id}
			counts = append(counts[:1], &dayOf(x.at).RowCounts)
		}
		count := func(field func(*delivery.RowCounts) *int64) {
			for _, c := range counts {
				*field(c)++
			}
		}
		switch {
		case inA && inB:
			var shared, retyped []delivery.Values
			for _, c := range a.columns {
				other := typeIn(b, c.Name)
				if v := (delivery.Values{Column: c.Name, A: modelShown(x.values[c.Name]), B: modelShown(y.values[c.Name])}); other != 0 && !modelSame(x.values[c.Name], y.values[c.Name]) {
					if other == c.Type {
						shared = append(shared, v)
					} else {
						retyped = append(retyped, v)
					}
				}
			}
			if x.at != y.at {
				shared = append(shared, delivery.Values{
					Column: "_event_time", A: time.UnixMicro(x.at).UTC().Format(time.RFC3339Nano), B: time.UnixMicro(y.at).UTC().Format(time.RFC3339Nano),
				})
			}
			e.Values = append(append(e.Values, shared...), retyped...)
			if modelDay(x.at) != modelDay(y.at) {
				dayOf(x.at).MovedAway++
				dayOf(y.at).MovedHere++
			}
			switch {
			case len(e.Values) > 0:
				e.Kind = delivery.Differs
				count(func(c *delivery.RowCounts) *int64 { return &c.Differ })
			case x.from != y.from:
				e.Kind = delivery.OtherEvidence
				count(func(c *delivery.RowCounts) *int64 { return &c.OtherEvidence })
			default:
				count(func(c *delivery.RowCounts) *int64 { return &c.Same })
				continue
			}
		default:
			row, columns := x, a.columns
			e.Kind = delivery.OnlyInA
			field := func(c *delivery.RowCounts) *int64 { return &c.OnlyA }
			if inB {
				row, columns = y, b.columns
				e.Kind = delivery.OnlyInB
				field = func(c *delivery.RowCounts) *int64 { return &c.OnlyB }
			}
			count(field)
			var shared, retyped []delivery.Values
			for _, c := range a.columns { // in the order of A
				other := typeIn(b, c.Name)
				i := slices.IndexFunc(columns, func(o plan.Column) bool { return o.Name == c.Name })
				if other == 0 || i < 0 || row.values[c.Name] == nil {
					continue
				}
				v := delivery.Values{Column: c.Name, A: modelShown(row.values[c.Name])}
				if inB {
					v.A, v.B = nil, v.A
				}
				if other == c.Type {
					shared = append(shared, v)
				} else {
					retyped = append(retyped, v)
				}
			}
			v := delivery.Values{Column: "_event_time", A: time.UnixMicro(row.at).UTC().Format(time.RFC3339Nano)}
			if inB {
				v.A, v.B = nil, v.A
			}
			e.Values = append(append(append(e.Values, shared...), v), retyped...)
		}
		kinds := []string{e.Kind}
		if e.Kind == delivery.Differs {
			kinds = nil
			for _, v := range e.Values {
				differ[v.Column]++
				kinds = append(kinds, v.Column)
			}
		}
		if slices.ContainsFunc(kinds, func(k string) bool { return shown[k] < cfg.Examples }) {
			examples[e.Kind] = append(examples[e.Kind], e)
			for _, k := range kinds {
				shown[k]++
			}
		}
	}
	for _, c := range a.columns {
		if other := typeIn(b, c.Name); other == 0 {
			out.Columns = append(out.Columns, delivery.ColumnComparison{Column: c.Name, TypeA: c.Type.String()})
			out.Same = false
		} else if other != c.Type || differ[c.Name] > 0 {
			if out.OnlyIn == "" {
				out.Columns = append(out.Columns, delivery.ColumnComparison{Column: c.Name, TypeA: c.Type.String(), TypeB: other.String(), Differ: differ[c.Name]})
			}
			out.Same = out.Same && other == c.Type
		}
	}
	if n := differ["_event_time"]; n > 0 {
		out.Columns = append(out.Columns, delivery.ColumnComparison{Column: "_event_time", TypeA: "timestamp", TypeB: "timestamp", Differ: n})
	}
	for _, c := range b.columns {
		if typeIn(a, c.Name) == 0 {
			out.Columns = append(out.Columns, delivery.ColumnComparison{Column: c.Name, TypeB: c.Type.String()})
			out.Same = false
		}
	}
	if out.Differ+out.OnlyA+out.OnlyB > 0 {
		out.Same = false
	}
	for _, d := range slices.SortedFunc(maps.Values(days), func(a, b *delivery.DayComparison) int { return strings.Compare(a.Day, b.Day) }) {
		if d.Differ+d.OnlyA+d.OnlyB+d.OtherEvidence+d.MovedHere > 0 {
			out.Days = append(out.Days, *d)
		}
	}
	for _, kind := range []string{delivery.Differs, delivery.OnlyInA, delivery.OnlyInB, delivery.OtherEvidence} {
		out.Examples = append(out.Examples, examples[kind]...)
	}
	return out
}

func snapshotOf(t testing.TB, l *lake.Lake, namespace, table string) string {
	t.Helper()
	tbl, err := l.Lookup(t.Context(), lake.Name{Namespace: namespace, Table: table})
	if err != nil {
		return ""
	}
	s, err := tbl.Snapshot(t.Context())
	require.NoError(t, err)
	if s.ID == 0 {
		return ""
	}
	return strconv.FormatInt(s.ID, 10)
}

// The oracle: two versions by random histories, compared by maps. Little memory, so that rows are sorted in many runs, gives the same bytes
// as much of it.
func TestCompareSeesWhatMapsSee(t *testing.T) {
	t.Parallel()
	seeds := uint64(12)
	if n, err := strconv.ParseUint(os.Getenv("MILLRACE_SCHEDULES"), 10, 64); err == nil {
		seeds = n
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 3))
			l := openLake(t, t.TempDir())
			models := map[string][2]*modelTable{"one": randomTable(r), "two": randomTable(r)}
			for name, tables := range models {
				for i, namespace := range []string{"unversioned", "v20180827174235"} {
					if tables[i] != nil {
						publishModel(t, r, l, namespace, name, tables[i])
					}
				}
			}
			for _, namespace := range []string{"unversioned", "v20180827174235"} { // so that there are both versions in any case
				same := plan.Table{Name: "same", Schema: plan.Schema{Name: "T"}}
				publish(t, openTable(t, l, namespace, same), 1, plan.Row{ID: "x", Rev: 1, First: true, Account: "acme", Env: "env0", Epoch: 1})
			}
			cfg := delivery.CompareConfig{Lake: l, A: "unversioned", B: "20180827174235", Examples: 1 + r.IntN(3), Temp: t.TempDir()}
			if r.IntN(3) == 0 {
				cfg.Account = "acme"
			}
			if r.IntN(4) == 0 {
				cfg.Env = "env0"
			}
			if r.IntN(3) == 0 {
				cfg.From = time.UnixMicro(-day).UTC()
			}
			if r.IntN(3) == 0 {
				cfg.To = time.UnixMicro(day).UTC()
			}
			var first []byte
			for _, memory := range []int{1000, 0, 20_000} {
				cfg.Memory = memory
				got, err := delivery.Compare(t.Context(), cfg)
				require.NoError(t, err)
				require.Len(t, got.Tables, 3)
				same := true
				for i, name := range []string{"one", "same", "two"} {
					want := delivery.TableComparison{}
					if name == "same" {
						want = compareModels([2]*modelTable{{}, {}}, cfg)
						want.RowsA, want.RowsB, want.RowCounts.Same = 1, 1, 1
					} else {
						want = compareModels(models[name], cfg)
					}
					want.Table = name
					want.SnapshotA, want.SnapshotB = snapshotOf(t, l, "unversioned", name), snapshotOf(t, l, "v20180827174235", name)
					require.Equal(t, want, got.Tables[i], "memory %d", memory)
					same = same && want.Same
				}
				require.Equal(t, same, got.Same)
				b, err := json.Marshal(got)
				require.NoError(t, err)
				if first == nil {
					first = b
				}
				require.True(t, bytes.Equal(first, b), "memory %d", memory)
			}
			left, err := os.ReadDir(cfg.Temp)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

// twoVersions is a lake with grades in two versions: 200 rows, of which one differs in its score, one is in A and two are in B alone.
func twoVersions(t *testing.T) (dir string, l *lake.Lake, cfg delivery.CompareConfig) {
	t.Helper()
	dir = t.TempDir()
	l = openLake(t, dir)
	var a, b []plan.Row
	for i := range 199 {
		row := grade(t, fmt.Sprintf("id%03d", i), 1, 1, 1, int64(i%4)*day)
		a, b = append(a, row), append(b, row)
	}
	b[7] = grade(t, "id007", 1, 1, 2, 3*day)
	a = append(a, grade(t, "left", 1, 1, 1, 0))
	b = append(b, grade(t, "right", 1, 1, 1, day), grade(t, "right2", 1, 1, 1, day))
	publish(t, openTable(t, l, "v1", grades), 1, a...)
	publish(t, openTable(t, l, "v2", grades), 1, b...)
	return dir, l, delivery.CompareConfig{Lake: l, A: "1", B: "2", Temp: t.TempDir()}
}

// A whole number that no float64 has is not the one that it would be rounded to.
func TestCompareNumbers(t *testing.T) {
	t.Parallel()
	l := openLake(t, t.TempDir())
	whole, float := []int64{0, 1 << 53, 1<<53 + 1, math.MaxInt64, math.MinInt64, 7, 7}, []float64{math.Copysign(0, -1), 1 << 53, 1 << 53, 1 << 63, -1 << 63, 7.5, math.NaN()}
	for namespace, kind := range map[string]plan.Type{"v1": plan.Long, "v2": plan.Double} {
		table := plan.Table{Name: "numbers", Schema: plan.Schema{Name: "N", Columns: []plan.Column{{Name: "n", Type: kind}}}}
		var rows []plan.Row
		for i := range whole {
			rows = append(rows, plan.Row{ID: fmt.Sprint(i), Rev: 1, First: true, Account: "acme", Env: "prod", Epoch: 1, Value: value(t, table, plan.Cell{Int: whole[i], Float: float[i]})})
		}
		publish(t, openTable(t, l, namespace, table), 1, rows...)
	}
	for _, versions := range [][2]string{{"1", "2"}, {"2", "1"}} {
		c, err := delivery.Compare(t.Context(), delivery.CompareConfig{Lake: l, A: versions[0], B: versions[1], Examples: 10, Temp: t.TempDir()})
		require.NoError(t, err)
		var differ []string
		for _, e := range c.Tables[0].Examples {
			differ = append(differ, e.ID)
		}
		require.Equal(t, []string{"2", "3", "5", "6"}, differ)
		require.Equal(t, int64(3), c.Tables[0].RowCounts.Same)
	}
}

func TestCompareVerdict(t *testing.T) {
	t.Parallel()
	_, l, cfg := twoVersions(t)
	compare := func() *delivery.Comparison {
		c, err := delivery.Compare(t.Context(), cfg)
		require.NoError(t, err)
		return c
	}
	require.Equal(t, "0 of 1 tables are the same; grades: 1 of 199 rows differ in score, 1 row is only in 1, 2 rows are only in 2", compare().Verdict)
	extra := grades
	extra.Name = "extra"
	publish(t, openTable(t, l, "v2", extra), 1, grade(t, "x", 1, 1, 1, 0))
	cfg.Tables = []string{"extra"}
	require.Equal(t, "0 of 1 tables are the same; extra: only in 2, 1 row", compare().Verdict)
	publish(t, openTable(t, l, "v1", extra), 1, grade(t, "x", 1, 1, 1, 0))
	require.Equal(t, "the table is the same", compare().Verdict)
	other := grade(t, "x", 1, 1, 1, 0)
	other.Rev, other.First, other.Epoch, other.Sources = 2, false, 2, []string{"event y"}
	publish(t, openTable(t, l, "v1", extra), 2, other)
	got := compare()
	require.True(t, got.Same, "evidence alone is no difference")
	require.Equal(t, "the table is the same; 1 row has the same values and other evidence", got.Verdict)
}

func TestCompareRefuses(t *testing.T) {
	t.Parallel()
	_, l, good := twoVersions(t)
	for want, change := range map[string]func(*delivery.CompareConfig){
		`there is no data version "3"; the lake has 1, 2`:                         func(c *delivery.CompareConfig) { c.B = "3" },
		`there is no data version "v1"; the lake has 1, 2`:                        func(c *delivery.CompareConfig) { c.A = "v1" },
		`there is no data version "raw"; the lake has 1, 2`:                       func(c *delivery.CompareConfig) { c.A = "raw" },
		`there is no table "gradez"; the lake has grades`:                         func(c *delivery.CompareConfig) { c.Tables = []string{"grades", "gradez"} },
		`"1" is compared with itself`:                                             func(c *delivery.CompareConfig) { c.B = "1" },
		`ends before it begins`:                                                   func(c *delivery.CompareConfig) { c.From, c.To = time.UnixMicro(day), time.UnixMicro(1) },
		`neither 1 nor 2 has rows of account "acmee", so nothing was compared`:    func(c *delivery.CompareConfig) { c.Account = "acmee" },
		`neither 1 nor 2 has rows of env "prod" from 1970-02-20T00:00:00Z, so no`: func(c *delivery.CompareConfig) { c.Env, c.From = "prod", time.UnixMicro(50*day) },
		`no such file or directory`:                                               func(c *delivery.CompareConfig) { c.Temp, c.Memory = "/nowhere", 2 },
	} {
		cfg := good
		change(&cfg)
		c, err := delivery.Compare(t.Context(), cfg)
		require.ErrorContains(t, err, want)
		require.Nil(t, c, want)
	}
	publish(t, openTable(t, l, "v1", grades), 2, grade(t, "id001", 1, 2, 1, 0)) // as if it were the first revision
	_, err := delivery.Compare(t.Context(), good)
	require.ErrorContains(t, err, "compare grades of 1 and 2: table v1.grades has row id001 twice: run 'millrace check'")
}

// Whatever byte of a data file is not what it was, the file is named and nothing is said of the rest.
func TestCompareNamesDamage(t *testing.T) {
	t.Parallel()
	dir, l, cfg := twoVersions(t)
	tbl, err := l.Lookup(t.Context(), lake.Name{Namespace: "v2", Table: "grades"})
	require.NoError(t, err)
	for _, name := range laketest.Files(t, dir) {
		if !strings.HasPrefix(name, "v2/") || !strings.HasSuffix(name, ".parquet") {
			continue
		}
		whole := laketest.Read(t, dir, name)
		for _, at := range []int{0, len(whole) / 3, len(whole) - 1} {
			b := slices.Clone(whole)
			b[at] ^= 0x40
			laketest.Replace(t, dir, name, b)
			c, err := delivery.Compare(t.Context(), cfg)
			require.ErrorContains(t, err, laketest.Place(dir, name)+" is damaged", at)
			require.Nil(t, c)
		}
		laketest.Replace(t, dir, name, whole)
	}
	_, err = delivery.Compare(t.Context(), cfg)
	require.NoError(t, err)
	if laketest.OnS3() {
		return
	}
	s, err := tbl.Snapshot(t.Context())
	require.NoError(t, err)
	require.NoError(t, os.Remove(s.Data[0].Path))
	_, err = delivery.Compare(t.Context(), cfg)
	require.ErrorContains(t, err, s.Data[0].Path)
}
