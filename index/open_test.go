package index_test

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/duckdb/duckdb-go/v2"
	"github.com/stretchr/testify/require"

	"millrace/index"
)

func TestOpenRefusesInOneSentence(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, b, 0o600))
		return path
	}
	good := filepath.Join(dir, "good.db")
	s := open(t, good)
	for _, line := range []string{`{"k":"a"}`, `{"k":"b"}`} {
		ok(t, s, "POST", "/a/_doc", line)
	}
	require.NoError(t, s.Close())
	file, err := os.ReadFile(good)
	require.NoError(t, err)

	newer := write("newer.db", file)
	db, err := sql.Open("duckdb", newer)
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), "UPDATE layout SET version = 99")
	require.NoError(t, err)
	require.NoError(t, db.Close())
	torn := append([]byte(nil), file...)
	for i := 4096; i < len(torn); i += 50 {
		torn[i] ^= 0x5a
	}
	for _, test := range []struct{ name, path, want string }{
		{"no file", "", "open index: no file given"},
		{"no directory", filepath.Join(dir, "none", "x.db"), "its directory does not exist"},
		{"a directory", dir, "it is a directory, not a file"},
		{"not a database", write("text.db", []byte(strings.Repeat("this is no database\n", 1000))), "it is damaged or not an index"},
		{"torn", write("torn.db", torn), "it is damaged or not an index"},
		{"cut short", write("short.db", file[:5000]), "it is damaged or not an index"},
		{"newer", newer, "it was written by a newer version of this program (layout 99, this one knows 1)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, err := index.Open(index.Config{Path: test.path})
			require.Nil(t, s)
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "\n")
			require.Less(t, len(err.Error()), 400)
		})
	}
}

// DuckDB says nothing about a file whose last blocks are missing until it reads them. One that it cut off itself is whole.
func TestOpenRefusesFileCutShort(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "index.db")
	random := rand.New(rand.NewPCG(1, 2))
	fill := func(name string, n int) {
		var bulk strings.Builder
		for range n {
			fmt.Fprintf(&bulk, "{\"index\":{}}\n{\"k\":\"%x%x%x%x\"}\n", random.Uint64(), random.Uint64(), random.Uint64(), random.Uint64())
		}
		s := open(t, path)
		ok(t, s, "POST", "/"+name+"/_bulk", bulk.String())
		require.NoError(t, s.Close())
	}
	size := func() int64 {
		info, err := os.Stat(path)
		require.NoError(t, err)
		return info.Size()
	}
	fill("a", 10)
	fill("b", 10_000)
	full := int64(0)
	for _, q := range []string{"CREATE TABLE c AS SELECT random() FROM range(1000000)", "DROP TABLE c"} {
		db, err := sql.Open("duckdb", path)
		require.NoError(t, err)
		_, err = db.ExecContext(t.Context(), q)
		require.NoError(t, err)
		require.NoError(t, db.Close())
		full = max(full, size())
		for range 4 { // what the tables take moves to blocks that are free
			fill("b", 1)
			full = max(full, size())
			fill("a", 1)
			full = max(full, size())
		}
	}
	require.Less(t, size(), full)
	for range 3 { // DuckDB writes its own tables, which it always reads, to free blocks: then rows are last
		fill("a", 1)
	}

	const block = 256 << 10
	for size() > 2*block {
		require.NoError(t, os.Truncate(path, size()-block))
		_, err := index.Open(index.Config{Path: path})
		require.ErrorContains(t, err, "it is damaged")
		require.ErrorContains(t, err, ": restore it from a backup")
	}
}

func TestOpenNamesTheProcessThatHasTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "index.db")
	cmd, _ := startServer(t, path)
	defer func() {
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
	}()
	_, err := index.Open(index.Config{Path: path})
	require.ErrorContains(t, err, "is using it: stop that one or choose another file")
}

func TestOpenReadOnlyFile(t *testing.T) {
	t.Parallel()
	if os.Getuid() == 0 {
		t.Skip("root may write everything")
	}
	path := filepath.Join(t.TempDir(), "index.db")
	require.NoError(t, open(t, path).Close())
	require.NoError(t, os.Chmod(path, 0o400))
	_, err := index.Open(index.Config{Path: path})
	require.ErrorContains(t, err, "open index for writing")
}
