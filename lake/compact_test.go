package lake_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/lake"
	"millrace/plan"
)

// allRows are the table's rows by id.
func allRows(t testing.TB, tbl *lake.Table) map[string]lake.Row {
	t.Helper()
	rows := map[string]lake.Row{}
	for row, err := range tbl.Scan(context.Background(), lake.ScanOptions{}) {
		require.NoError(t, err)
		rows[row["_id"].(string)] = row
	}
	return rows
}

func TestCompactJoinsSmallFiles(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tbl := openTable(t, openLake(t, lake.Config{}))
	e := uint64(0)
	for range 12 {
		e++
		publish(t, tbl, e, e, quiz(fmt.Sprint("a", e), 1, e, 0), quiz(fmt.Sprint("b", e), 1, e, day*int64(e%2)))
	}
	e++
	publish(t, tbl, e, e, quiz("a1", 2, e, 0), plan.Row{ID: "a2", Rev: 2, Deleted: true, Epoch: e})
	before := allRows(t, tbl)
	done, err := tbl.Compact(ctx)
	require.NoError(t, err)
	require.Equal(t, lake.Compacted{Removed: 13, Added: 1, Deletes: 0}, done, "the other day has six files")
	require.Equal(t, before, allRows(t, tbl))
	pos, ok, err := tbl.Published(ctx)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, e, pos.ToEpoch, "compaction keeps the position")

	publish(t, tbl, e+1, e+1, quiz("a1", 3, e+1, 0)) // applies to what was compacted
	require.EqualValues(t, 3, scores(t, tbl)["a1"])
	done, err = tbl.Compact(ctx)
	require.NoError(t, err)
	require.Zero(t, done)
}

func TestCompactAppliesCorrections(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	tbl := openTable(t, openLake(t, lake.Config{Dir: dir, KeepSnapshots: 20, KeepFor: time.Nanosecond}))
	publish(t, tbl, 1, 1, quiz("quiet", 1, 1, 9*day))
	e := uint64(1)
	for range 70 {
		e++
		publish(t, tbl, e, e, quiz("hot", e, e, day*int64(e%3)))
	}
	publish(t, tbl, e+1, e+1, plan.Row{ID: "quiet", Rev: 2, Deleted: true, Epoch: e + 1})
	done, err := tbl.Compact(ctx)
	require.NoError(t, err)
	require.Equal(t, 71, done.Deletes, "delete files that are applied")
	require.Equal(t, map[string]float64{"hot": float64(e)}, scores(t, tbl))
	files, err := tbl.Files(ctx)
	require.NoError(t, err)
	require.Len(t, files, 1)
	require.Zero(t, files[0].Deletes)
}

// Compaction leaves files of 64 to 256 MB, and small ones only where there is not enough for another.
func TestCompactedSizes(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	const mb = 1 << 20
	many := func(n int, size int64) (sizes []int64) { return append(sizes, slices.Repeat([]int64{size}, n)...) }
	plan := func(t *testing.T, sizes []int64) [][]int64 {
		t.Helper()
		tbl := openRaw(t, openLake(t, lake.Config{}))
		noon := time.Date(2018, 11, 30, 12, 0, 0, 0, time.UTC)
		var entries []lake.Entry
		for _, size := range sizes {
			entries = append(entries, lake.Entry{SourceType: lms, Account: "a", Env: "x", Oldest: noon, Newest: noon, Records: 1, Bytes: size})
		}
		require.NoError(t, tbl.Enter(ctx, lake.Position{Lineage: "L", FromEpoch: 1, ToEpoch: 1}, entries...))
		groups, err := tbl.Compactable(ctx)
		require.NoError(t, err)
		return groups
	}
	for name, test := range map[string]struct{ sizes, want []int64 }{
		"nothing is small":                        {[]int64{64 * mb, 100 * mb, 256 * mb}, nil},
		"few and little":                          {many(7, mb), nil},
		"many and little":                         {many(8, mb), []int64{8 * mb}},
		"few that make up a file":                 {[]int64{40 * mb, 30 * mb}, []int64{70 * mb}},
		"many that make up two":                   {many(24, 10*mb), []int64{130 * mb, 110 * mb}},
		"a rest that is too little for a file":    {many(18, 10*mb), []int64{180 * mb}},
		"the largest that are possible":           {append(many(2, 63*mb), 63*mb, 63*mb), []int64{252 * mb}},
		"one that is larger than the rest":        {append(many(8, mb), 20*mb), []int64{8 * mb}},
		"one that is more than a fourth":          {append(many(8, mb), 3*mb), []int64{8 * mb}},
		"one that is a fourth":                    {append(many(9, mb), 3*mb), []int64{12 * mb}},
		"one that the rest makes a full file of":  {append(many(8, mb), 60*mb), []int64{68 * mb}},
		"each larger than all that came after it": {[]int64{32 * mb, 15 * mb, 7 * mb, 3 * mb, mb, 1000, 400, 100, 40, 10}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []int64
			for _, g := range plan(t, test.sizes) {
				sum := int64(0)
				for _, size := range g {
					sum += size
				}
				got = append(got, sum)
			}
			require.ElementsMatch(t, test.want, got)
		})
	}
	t.Run("random", func(t *testing.T) {
		t.Parallel()
		rnd := rand.New(rand.NewPCG(3, 4))
		for range 20 {
			sizes := make([]int64, 1+rnd.IntN(60))
			small := int64(0)
			for i := range sizes {
				sizes[i] = 1 + rnd.Int64N(1<<(10+rnd.IntN(17)))
				if sizes[i] < 64*mb {
					small += sizes[i]
				}
			}
			groups := plan(t, sizes)
			for _, g := range groups {
				sum := int64(0)
				for _, size := range g {
					require.Less(t, size, int64(64*mb), "what is full is left alone")
					sum += size
				}
				require.Less(t, sum, int64(256*mb))
				if small >= 64*mb {
					require.GreaterOrEqual(t, sum, int64(64*mb))
				}
				small -= sum
			}
			require.Less(t, small, int64(64*mb), "what is left makes up no file: %v of %v", groups, sizes)
		}
	})
}

// What comes in small files is written anew a few times until it is in a full one, and few files are left meanwhile. The figures are those of docs/formats/lake.md.
func TestCompactedFilesAreSeldomRewritten(t *testing.T) {
	t.Parallel()
	const mb = 1 << 20
	for _, test := range []struct {
		size     int64 // of a file that comes, on average
		every    int   // files that come between two looks
		rewrites float64
		files    int // at most, with those that come
	}{{mb, 8, 2.4, 16}, {mb, 32, 1.7, 40}, {mb / 10, 8, 3.6, 20}, {mb / 10, 32, 2.8, 44}, {mb / 100, 8, 5.5, 26}, {mb / 100, 32, 4.5, 48}} {
		rnd := rand.New(rand.NewPCG(5, 6))
		var files []int64
		came, written, most := int64(0), int64(0), 0
		for came < 10_000*test.size+500*mb {
			for range test.every {
				files = append(files, test.size/2+rnd.Int64N(test.size))
				came += files[len(files)-1]
			}
			most = max(most, len(files))
			left, joined := lake.Joined(files)
			files = left
			for _, size := range joined {
				written += size
				if size < 64*mb {
					files = append(files, size)
				}
			}
		}
		require.LessOrEqual(t, float64(written)/float64(came), test.rewrites, test)
		require.LessOrEqual(t, most, test.files, test)
	}
}

// The values of a partition are what somebody sent, and may look like those of another one.
func TestCompactKeepsPartitionsApart(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	text := func(name string) plan.Column { return plan.Column{Name: name, Type: plan.String} }
	visits := plan.Table{
		Name: "visits", AppendOnly: true,
		Schema:    plan.Schema{Name: "Visit", Columns: []plan.Column{text("account"), text("env"), text("page")}},
		Partition: []plan.PartitionField{{Column: "account", Transform: plan.Identity}, {Column: "env", Transform: plan.Identity}},
	}
	tbl, err := openLake(t, lake.Config{}).Table(ctx, "v1", visits)
	require.NoError(t, err)
	want := map[string]int{}
	for e := uint64(1); e <= 8; e++ {
		var rows []plan.Row
		for i, tenant := range [][2]string{{"a 1001:b", "c"}, {"a", "b 1001:c"}} {
			value, err := visits.Schema.Append(nil, []plan.Cell{{Bytes: []byte(tenant[0])}, {Bytes: []byte(tenant[1])}, {Bytes: fmt.Append(nil, i)}})
			require.NoError(t, err)
			rows = append(rows, plan.Row{ID: fmt.Sprint(e, i), Rev: 1, First: true, Value: value, Epoch: e})
			want[tenant[0]+"|"+tenant[1]]++
		}
		publish(t, tbl, e, e, rows...)
	}
	done, err := tbl.Compact(ctx)
	require.NoError(t, err)
	require.Equal(t, lake.Compacted{Removed: 16, Added: 2}, done)
	got := map[string]int{}
	for tenant := range want {
		account, env, _ := strings.Cut(tenant, "|")
		for _, err := range tbl.Scan(ctx, lake.ScanOptions{Where: map[string]any{"account": account, "env": env}}) {
			require.NoError(t, err)
			got[tenant]++
		}
	}
	require.Equal(t, want, got)
}

func TestCompactBesideAWriter(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	compactor := openTable(t, openLake(t, lake.Config{Dir: dir}))
	writer := openTable(t, openLake(t, lake.Config{Dir: dir}))
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
				if _, err := compactor.Compact(ctx); err != nil {
					stopped <- err
					return
				}
			}
		}
	}()
	want := map[string]float64{}
	for e := uint64(1); e <= 40; e++ {
		publish(t, writer, e, e, quiz("hot", e, e, 0), quiz(fmt.Sprint(e), 1, e, 0))
		want["hot"], want[fmt.Sprint(e)] = float64(e), 1
	}
	close(stop)
	require.NoError(t, <-stopped)
	require.Equal(t, want, scores(t, writer))
}

// Whatever the values are, joined files have them: nulls, lists of every length, rows that corrections void in every chunk, and columns that files lack.
func TestCompactKeepsEveryValue(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	rnd := rand.New(rand.NewPCG(7, 8))
	all := plan.Table{Name: "every", Schema: plan.Schema{Name: "Every"}}
	for _, kind := range []plan.Type{plan.String, plan.Bool, plan.Long, plan.Double, plan.Timestamp, plan.Bytes, plan.Strings} {
		for _, nullable := range []bool{false, true} {
			all.Schema.Columns = append(all.Schema.Columns, plan.Column{Name: fmt.Sprint("c", len(all.Schema.Columns)), Type: kind, Nullable: nullable})
		}
	}
	text := func() []byte { return fmt.Append(nil, strings.Repeat("é", rnd.IntN(3)), rnd.IntN(50)) }
	cell := func(c plan.Column) (v plan.Cell) {
		if c.Nullable && rnd.IntN(3) == 0 {
			return plan.Cell{Null: true}
		}
		switch c.Type {
		case plan.Bool:
			v.Bool = rnd.IntN(2) == 0
		case plan.Long, plan.Timestamp:
			v.Int = rnd.Int64N(1 << 50)
		case plan.Double:
			v.Float = rnd.NormFloat64()
		case plan.Strings:
			for range rnd.IntN(4) {
				v.List = append(v.List, text())
			}
		default:
			v.Bytes = text()
		}
		return v
	}
	dir := t.TempDir()
	l := openLake(t, lake.WithRowGroups(lake.Config{Dir: dir}, 64<<10))
	before := all // the table before its last columns came
	before.Schema.Columns = slices.DeleteFunc(slices.Clone(all.Schema.Columns), func(c plan.Column) bool { return c.Nullable })
	epoch := uint64(0)
	write := func(tbl *lake.Table, schema plan.Schema, rows, corrected int) {
		epoch++
		var out []plan.Row
		for i := range rows {
			cells := make([]plan.Cell, len(schema.Columns))
			for i, c := range schema.Columns {
				cells[i] = cell(c)
			}
			value, err := schema.Append(nil, cells)
			require.NoError(t, err)
			id := fmt.Sprint(epoch, "/", i)
			first := i >= corrected
			if !first {
				id = fmt.Sprint(epoch-1, "/", i*i%rows)
			}
			out = append(out, plan.Row{ID: id, Rev: epoch, First: first, Account: "a", Env: "b", Value: value, Epoch: epoch})
		}
		seen := map[string]bool{}
		publish(t, tbl, epoch, epoch, slices.DeleteFunc(out, func(r plan.Row) bool { had := seen[r.ID]; seen[r.ID] = true; return had })...)
	}
	tbl, err := l.Table(ctx, "v1", before)
	require.NoError(t, err)
	for range 3 {
		write(tbl, before.Schema, 1500, 0)
	}
	tbl, err = l.Table(ctx, "v1", all)
	require.NoError(t, err)
	for i := range 6 {
		write(tbl, all.Schema, 1000+rnd.IntN(1500), i%2*200)
	}
	want := allRows(t, tbl)
	done, err := tbl.Compact(ctx)
	require.NoError(t, err)
	require.Equal(t, 9, done.Removed)
	require.Equal(t, 1, done.Added)
	require.Equal(t, want, allRows(t, tbl))
	files, err := tbl.Files(ctx)
	require.NoError(t, err)
	require.Len(t, files, 1)
	require.EqualValues(t, len(want), files[0].Rows)
}
