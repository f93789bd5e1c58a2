package lake_test

import (
	"context"
	"database/sql"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/lake"
	"millrace/lake/laketest"
	"millrace/plan"
)

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	refused := func(t *testing.T, cfg lake.Config) error {
		l, err := lake.Open(ctx, cfg)
		if err == nil {
			require.NoError(t, l.Close())
		}
		return err
	}
	t.Run("no directory", func(t *testing.T) {
		t.Parallel()
		require.ErrorContains(t, refused(t, lake.Config{}), "Dir is empty")
	})
	t.Run("a file where the directory should be", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(file, nil, 0o600))
		require.ErrorContains(t, refused(t, lake.Config{Dir: file}), "choose a directory that can be written")
	})
	t.Run("a directory that cannot be written", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		require.NoError(t, os.Chmod(dir, 0o500))
		if f, err := os.Create(filepath.Join(dir, "x")); err == nil {
			require.NoError(t, f.Close())
			t.Skip("this user may write everywhere")
		}
		require.ErrorContains(t, refused(t, lake.Config{Dir: dir}), "choose a directory that can be written")
	})
	t.Run("nothing to read", func(t *testing.T) {
		t.Parallel()
		require.ErrorIs(t, refused(t, lake.Config{Dir: t.TempDir(), ReadOnly: true}), lake.ErrNotFound)
	})
	t.Run("a damaged catalogue", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "catalog.db"), []byte("no database at all, and long enough to be looked at"), 0o600))
		require.ErrorContains(t, refused(t, lake.Config{Dir: dir}), "is damaged: restore it from a backup")
	})
	t.Run("a damaged place in the catalogue", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		l, err := lake.Open(context.Background(), laketest.In(dir))
		require.NoError(t, err)
		openTable(t, l)
		require.NoError(t, l.Close())
		catalog := filepath.Join(dir, "catalog.db")
		whole, err := os.ReadFile(catalog)
		require.NoError(t, err)
		const page = 4096
		for at := page; at < len(whole); at += page { // the head of each page's tree; the first page says whether it is a database
			damaged := slices.Clone(whole)
			for i := range 64 {
				damaged[at+i] ^= byte(37*i + 91)
			}
			require.NoError(t, os.WriteFile(catalog, damaged, 0o600))
			for _, readOnly := range []bool{false, true} {
				require.ErrorContains(t, refused(t, lake.Config{Dir: dir, ReadOnly: readOnly}), "catalogue "+catalog+" is damaged: restore it from a backup")
			}
		}
	})
	t.Run("a newer format", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		require.NoError(t, refused(t, lake.Config{Dir: dir}))
		pragma(t, dir, "PRAGMA user_version = 99")
		require.ErrorContains(t, refused(t, lake.Config{Dir: dir}), "has format 99 and this program knows 1: use a newer millrace")
	})
	t.Run("another program's database", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		pragma(t, dir, "CREATE TABLE x (y)")
		require.ErrorContains(t, refused(t, lake.Config{Dir: dir}), "is not one of millrace")
	})
}

func pragma(t *testing.T, dir, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "catalog.db"))
	require.NoError(t, err)
	_, err = db.Exec(statement)
	require.NoError(t, err)
	require.NoError(t, db.Close())
}

func TestUnusualPaths(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a lake, übermäßig 100% #1?")
	tbl := openTable(t, openLake(t, lake.Config{Dir: dir}))
	publish(t, tbl, 1, 1, quiz("a", 1, 1, 0))
	publish(t, tbl, 2, 2, quiz("a", 2, 2, 0))
	require.Equal(t, map[string]float64{"a": 2}, scores(t, openTable(t, openLake(t, lake.Config{Dir: dir}))))
}

// Iceberg's locations are absolute; a lake is nevertheless where its catalogue is, also when the place it was made at is taken by
// another one.
func TestMovedLake(t *testing.T) {
	t.Parallel()
	if laketest.OnREST() && !laketest.OnS3() {
		t.Skip("the REST catalogue has files on this disk too, and looks for them where they were")
	}
	ctx := context.Background()
	base := t.TempDir()
	before, now := filepath.Join(base, "before #1"), filepath.Join(base, "now")
	l, err := lake.Open(ctx, laketest.In(before))
	require.NoError(t, err)
	publish(t, openTable(t, l), 1, 1, quiz("a", 1, 1, 0))
	require.NoError(t, l.Close())
	require.NoError(t, os.Rename(before, now))
	require.NoError(t, os.Mkdir(before, 0o000))

	moved := laketest.In(before)
	moved.Dir = now
	l, err = lake.Open(ctx, moved)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	tbl := openTable(t, l)
	publish(t, tbl, 2, 2, quiz("a", 2, 2, 0), quiz("b", 1, 2, 0))
	removed, err := tbl.Sweep(ctx, 0)
	require.NoError(t, err)
	require.Zero(t, removed)
	require.Equal(t, map[string]float64{"a": 2, "b": 1}, scores(t, tbl))
	files, err := tbl.Files(ctx)
	require.NoError(t, err)
	for _, f := range files {
		require.Contains(t, f.Path, moved.Warehouse)
		if !laketest.OnS3() {
			require.FileExists(t, f.Path)
		}
	}
}

func TestDamagedFilesOfTable(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{"data/data-*.parquet", "metadata/00002-*.metadata.json", "metadata/*-m1.avro", "metadata/snap-*.avro"} {
		t.Run(pattern, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			tbl := openTable(t, openLake(t, lake.Config{Dir: dir}))
			publish(t, tbl, 1, 1, quiz("a", 1, 1, 0))
			files := slices.DeleteFunc(laketest.Files(t, dir), func(name string) bool {
				match, err := path.Match("v1/quiz/"+pattern, name)
				require.NoError(t, err)
				return !match
			})
			require.Len(t, files, 1)
			laketest.Cut(t, dir, files[0])
			tbl, err := openLake(t, lake.Config{Dir: dir}).Table(context.Background(), "v1", quizzes)
			if err == nil {
				for _, scanErr := range tbl.Scan(context.Background(), lake.ScanOptions{}) {
					err = scanErr
				}
			}
			require.ErrorContains(t, err, " table v1.quiz: ")
			if strings.HasSuffix(files[0], ".parquet") {
				require.ErrorContains(t, err, "file "+laketest.Place(dir, files[0])+" is damaged: it has ")
				require.ErrorContains(t, err, ": restore it from a backup")
				return
			}
			require.ErrorContains(t, err, "; if files in "+laketest.Place(dir, "v1/quiz")+" are damaged, restore the lake from a backup")
		})
	}
}

// A copy that nobody can write, as a backup may be, is read; one that was made of a lake in use is refused.
func TestReadOnlyDirectory(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	l := openLake(t, lake.Config{Dir: dir})
	publish(t, openTable(t, l), 1, 1, quiz("a", 1, 1, 0))
	require.NoError(t, l.Close())
	require.NoError(t, os.Chmod(dir, 0o500))
	t.Cleanup(func() { require.NoError(t, os.Chmod(dir, 0o700)) })
	if f, err := os.Create(filepath.Join(dir, "x")); err == nil {
		require.NoError(t, f.Close())
		t.Skip("this user may write everywhere")
	}
	l, err := lake.Open(ctx, lake.Config{Dir: dir, ReadOnly: true})
	require.NoError(t, err)
	names, err := l.Tables(ctx)
	require.NoError(t, err)
	require.Len(t, names, 1)
	require.NoError(t, l.Close())

	require.NoError(t, os.Chmod(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "catalog.db-wal"), nil, 0o400))
	require.NoError(t, os.Chmod(dir, 0o500))
	_, err = lake.Open(ctx, lake.Config{Dir: dir, ReadOnly: true})
	require.ErrorContains(t, err, "is in use, or was copied while it was")
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	writer := openTable(t, openLake(t, lake.Config{Dir: dir}))
	publish(t, writer, 1, 1, quiz("a", 1, 1, 0))

	l := openLake(t, lake.Config{Dir: dir, ReadOnly: true})
	names, err := l.Tables(ctx)
	require.NoError(t, err)
	require.Equal(t, []lake.Name{{Namespace: "v1", Table: "quiz"}}, names)
	_, err = l.Lookup(ctx, lake.Name{Namespace: "v1", Table: "none"})
	require.ErrorIs(t, err, lake.ErrNotFound)
	reader, err := l.Lookup(ctx, names[0])
	require.NoError(t, err)

	// A scan sees the table as it was when it began, the next one as it is then.
	var seen []string
	for row, err := range reader.Scan(ctx, lake.ScanOptions{Columns: []string{"_id"}}) {
		require.NoError(t, err)
		publish(t, writer, 2, 2, quiz("a", 2, 2, 0), quiz("b", 1, 2, 0))
		seen = append(seen, row["_id"].(string))
	}
	require.Equal(t, []string{"a"}, seen)
	require.Equal(t, map[string]float64{"a": 2, "b": 1}, scores(t, reader))
	pos, ok, err := reader.Published(ctx)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, lake.Position{Lineage: "L1", FromEpoch: 2, ToEpoch: 2, Offsets: plan.Offsets{0: 2}}, pos)

	_, err = l.Table(ctx, "v1", quizzes)
	require.ErrorIs(t, err, lake.ErrReadOnly)
	_, err = reader.Write(ctx, nil, "L1", "1")
	require.ErrorIs(t, err, lake.ErrReadOnly)
	_, err = reader.Sweep(ctx, 0)
	require.ErrorIs(t, err, lake.ErrReadOnly)
}
