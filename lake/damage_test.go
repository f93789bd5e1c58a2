package lake_test

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/lake"
	"millrace/lake/laketest"
	"millrace/plan"
)

// marks has what pages of a file can have: dictionaries, lists, nulls, and text that does not repeat.
var marks = plan.Table{
	Name: "mark",
	Schema: plan.Schema{Name: "Mark", Columns: []plan.Column{
		{Name: "pupil", Type: plan.String},
		{Name: "score", Type: plan.Double, Nullable: true},
		{Name: "kind", Type: plan.String, Nullable: true},
		{Name: "tags", Type: plan.Strings, Nullable: true},
		{Name: "paper", Type: plan.Bytes},
	}},
}

func mark(i int, rev, epoch uint64, paper []byte) plan.Row {
	cells := []plan.Cell{
		{Bytes: []byte(fmt.Sprint("pupil ", i%7))},
		{Float: float64(i % 50), Null: i%3 == 0},
		{Bytes: []byte("homework"), Null: i%5 == 0},
		{},
		{Bytes: paper},
	}
	switch i % 4 {
	case 0:
		cells[3].Null = true
	case 1:
		cells[3].List = [][]byte{[]byte("late")}
	case 2:
		cells[3].List = [][]byte{[]byte("late"), {}, []byte("long")}
	}
	value, err := marks.Schema.Append(nil, cells)
	if err != nil {
		panic(err)
	}
	return plan.Row{ID: fmt.Sprint(i), Rev: rev, First: rev == 1, Account: "acme", Env: "prod", Value: value, Epoch: epoch}
}

// markedLake has a table with a data file of two row groups, one of the corrections, and a delete file. Its papers are as long as the
// length says, and do not get smaller by compression.
func markedLake(t *testing.T, length int) (dir string, tbl *lake.Table) {
	t.Helper()
	dir = t.TempDir()
	tbl, err := openLake(t, lake.WithRowGroups(lake.Config{Dir: dir}, 1)).Table(t.Context(), "v1", marks)
	require.NoError(t, err)
	rnd := rand.New(rand.NewPCG(1, 2))
	rows := make([]plan.Row, 1030) // a group has 1,024
	for i := range rows {
		paper := make([]byte, length)
		for j := range paper {
			paper[j] = byte(rnd.Uint32())
		}
		rows[i] = mark(i, 1, 1, paper)
	}
	publish(t, tbl, 1, 1, rows...)
	publish(t, tbl, 2, 2, mark(1, 2, 2, nil), mark(1029, 2, 2, nil), plan.Row{ID: "17", Rev: 2, Deleted: true, Epoch: 2})
	return dir, tbl
}

// parquets are the names of a lake's data and delete files, the largest first.
func parquets(t *testing.T, dir string) []string {
	t.Helper()
	names := slices.DeleteFunc(laketest.Files(t, dir), func(name string) bool { return !strings.HasSuffix(name, ".parquet") })
	slices.SortFunc(names, func(a, b string) int { return len(laketest.Read(t, dir, b)) - len(laketest.Read(t, dir, a)) })
	return names
}

// read are the table's rows by id, and what stopped them from being read.
func read(t *testing.T, tbl *lake.Table) (map[string]lake.Row, error) {
	t.Helper()
	rows := map[string]lake.Row{}
	for row, err := range tbl.Scan(t.Context(), lake.ScanOptions{}) {
		if err != nil {
			return rows, err
		}
		rows[row["_id"].(string)] = row
	}
	return rows, nil
}

// A flipped bit of each byte of a data or delete file is refused by the file's name, before a row of it is read.
func TestFlippedBitIsRefused(t *testing.T) {
	t.Parallel()
	dir, tbl := markedLake(t, 0)
	want, err := read(t, tbl)
	require.NoError(t, err)
	require.Len(t, want, 1029)
	require.Equal(t, []any{nil, nil, []string(nil)}, []any{want["0"]["score"], want["0"]["kind"], nilList(want["0"]["tags"])})
	require.Equal(t, []any{2.0, "homework", []string{"late", "", "long"}}, []any{want["2"]["score"], want["2"]["kind"], want["2"]["tags"]})
	require.Equal(t, []string{}, want["3"]["tags"])
	step, whole := 1, 47 // a scan of the table at every 47th byte
	if laketest.OnS3() {
		step = 101 // the same bytes, over HTTP
	}
	byName := map[string]lake.File{}
	files, err := tbl.Files(t.Context())
	require.NoError(t, err)
	for _, f := range files {
		byName[f.Path] = f
	}
	var columns []string
	for _, c := range tbl.Columns() {
		columns = append(columns, c.Name)
	}
	names := parquets(t, dir)
	require.Len(t, names, 3, "rows, rows of the corrections, and a delete file")
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, name := range names {
		content, place := laketest.Read(t, dir, name), laketest.Place(dir, name)
		file, data := byName[place]
		for at := 0; at < len(content); at += step {
			bit := byte(1) << rnd.IntN(8)
			damaged := slices.Clone(content)
			damaged[at] ^= bit
			laketest.Replace(t, dir, name, damaged)
			if data {
				for _, err = range tbl.ReadFile(t.Context(), file, columns, 0) {
					require.Error(t, err, "byte %d of %d, bit %#x", at, len(content), bit)
				}
				require.ErrorContains(t, err, "read a file of table v1.mark: file "+place+" is damaged: ")
				require.ErrorContains(t, err, ": restore it from a backup")
			}
			if !data || at%whole == 0 {
				_, err = read(t, tbl)
				require.ErrorContains(t, err, "scan table v1.mark: file "+place+" is damaged: ", "byte %d of %d, bit %#x", at, len(content), bit)
				require.ErrorContains(t, err, ": restore it from a backup")
			}
		}
		laketest.Replace(t, dir, name, content)
	}
	got, err := read(t, tbl)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func nilList(v any) []string {
	list, _ := v.([]string)
	return list
}

// Of a file with more than one checksum only what is looked at is checked: rows that are read are those that were written, or an error.
// Verify checks all.
func TestFlippedBitInALargeFile(t *testing.T) {
	t.Parallel()
	dir, tbl := markedLake(t, 200)
	name := parquets(t, dir)[0]
	whole := laketest.Read(t, dir, name)
	require.Greater(t, len(whole), 3<<16)
	options := []lake.ScanOptions{
		{},
		{Columns: []string{"tags"}},
		{Columns: []string{"_id"}, Where: map[string]any{"pupil": "pupil 3"}},
		{Columns: []string{"paper"}, Where: map[string]any{"_id": "1028"}},
		{NewestBy: "_event_time", Limit: 5},
	}
	rowsOf := func(o lake.ScanOptions) (rows []lake.Row, failed error) {
		for row, err := range tbl.Scan(t.Context(), o) {
			if err != nil {
				return rows, err
			}
			rows = append(rows, row)
		}
		return rows, nil
	}
	var want [][]lake.Row
	for _, o := range options {
		rows, err := rowsOf(o)
		require.NoError(t, err)
		require.NotEmpty(t, rows)
		want = append(want, rows)
	}
	require.NoError(t, tbl.Verify(t.Context()))
	rnd := rand.New(rand.NewPCG(5, 6))
	unseen := 0
	for range 200 {
		at := rnd.IntN(len(whole))
		if rnd.IntN(2) == 0 { // page index, checksums and footer
			at = len(whole) - 1 - rnd.IntN(6_000)
		}
		damaged := slices.Clone(whole)
		damaged[at] ^= 1 << rnd.IntN(8)
		laketest.Replace(t, dir, name, damaged)
		require.ErrorContains(t, tbl.Verify(t.Context()), "verify table v1.mark: file "+laketest.Place(dir, name)+" is damaged: ", "byte %d of %d", at, len(whole))
		for i, o := range options {
			rows, err := rowsOf(o)
			if err != nil {
				require.ErrorContains(t, err, "file "+laketest.Place(dir, name)+" is damaged: ")
				require.LessOrEqual(t, len(rows), len(want[i]))
				for j := range rows {
					require.Equal(t, want[i][j], rows[j], "byte %d of %d", at, len(whole))
				}
				continue
			}
			unseen++
			require.Equal(t, want[i], rows, "byte %d of %d", at, len(whole))
		}
	}
	require.NotZero(t, unseen, "a scan reads no more than it needs")
}

// What is read of a damaged file is not written anew, nor counted, nor taken for what a job had published.
func TestDamageIsNotCarriedOn(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dir := t.TempDir()
	l := openLake(t, lake.Config{Dir: dir})
	tbl := openTable(t, l)
	for e := uint64(1); e <= 9; e++ {
		publish(t, tbl, e, e, quiz(fmt.Sprint(e), 1, e, 0))
	}
	publish(t, tbl, 10, 10, quiz("1", 2, 10, 0))
	require.NoError(t, tbl.Claim(ctx, lake.Claim{Owner: "app", Lineage: "L1", Token: 1, Holds: func(lake.Mark) bool { return true }}))
	before := parquets(t, dir)
	var damaged []string
	for _, name := range before {
		b := laketest.Read(t, dir, name)
		whole := slices.Clone(b)
		b[40] ^= 1
		laketest.Replace(t, dir, name, b)
		refused := func(err error) {
			t.Helper()
			require.ErrorContains(t, err, "file "+laketest.Place(dir, name)+" is damaged: ")
		}
		_, err := tbl.Compact(ctx)
		refused(err)
		refused(tbl.Verify(ctx))
		for _, err = range tbl.Base(ctx) {
			if err != nil {
				break
			}
		}
		refused(err)
		if _, err = tbl.Count(ctx); err != nil { // files without corrections are not read for it
			refused(err)
			damaged = append(damaged, name)
		}
		files, err := tbl.Files(ctx)
		require.NoError(t, err)
		require.Len(t, files, 10)
		laketest.Replace(t, dir, name, whole)
	}
	require.Len(t, damaged, 2, "the corrected file and the correction")
	_, err := tbl.Sweep(ctx, 0)
	require.NoError(t, err)
	require.ElementsMatch(t, before, parquets(t, dir))
	done, err := tbl.Compact(ctx)
	require.NoError(t, err)
	require.Equal(t, 10, done.Removed)
	require.NoError(t, tbl.Verify(ctx))
	require.Len(t, allRows(t, tbl), 9)
}

// iceberg-go lists a large file once for each of its parts.
func TestLargeFilesAreReadOnce(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	_, tbl := markedLake(t, 0)
	require.NoError(t, tbl.SplitFiles(ctx, 1))
	files, err := tbl.Files(ctx)
	require.NoError(t, err)
	require.Len(t, files, 2)
	n, err := tbl.Count(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 1029, n)
	seen := map[string]int{}
	for row, err := range tbl.Scan(ctx, lake.ScanOptions{Columns: []string{"_id"}}) {
		require.NoError(t, err)
		seen[row["_id"].(string)]++
	}
	require.Len(t, seen, 1029)
	require.NotContains(t, slices.Collect(maps.Values(seen)), 2)
}

// A lake of a time when files had no checksums but those of their pages is read, and damage to it never ends the process.
func TestFilesOfBefore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS("testdata/before-sums")))
	l, err := lake.Open(t.Context(), lake.Config{Dir: dir})
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	tbl := openTable(t, l)
	rows, err := read(t, tbl)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", "c"}, slices.Sorted(maps.Keys(rows)))
	require.Equal(t, []string{"a", "üa"}, rows["a"]["tags"])
	require.Equal(t, 2.0, rows["a"]["score"])
	require.NoError(t, tbl.Verify(t.Context()))
	refused, other := 0, 0
	require.NoError(t, fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".parquet") {
			return err
		}
		require.NotContains(t, path, ".sum.")
		path = dir + "/" + path
		whole, err := os.ReadFile(path)
		require.NoError(t, err)
		rnd := rand.New(rand.NewPCG(7, 8))
		for at := rnd.IntN(7); at < len(whole); at += 7 {
			damaged := slices.Clone(whole)
			damaged[at] ^= 1 << rnd.IntN(8)
			require.NoError(t, os.WriteFile(path, damaged, 0o600))
			if err := tbl.Verify(t.Context()); err != nil {
				require.ErrorContains(t, err, "file "+path+" is damaged: ")
				refused++
			} else {
				other++
			}
		}
		return os.WriteFile(path, whole, 0o600)
	}))
	require.Greater(t, refused, other, "what is not refused is in page index and footer: most of a file of three rows")

	// What is written from now on has them.
	publish(t, tbl, 3, 3, quiz("d", 1, 3, 0))
	require.Len(t, allRows(t, tbl), 4)
}
