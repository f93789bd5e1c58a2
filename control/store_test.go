package control_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/control"
)

// openStore opens a store until the test ends, or closes it.
func openStore(t *testing.T, path string) *control.Store {
	t.Helper()
	store, err := control.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() }) // closed again is fine
	return store
}

func TestBadFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("not a database ", 100)), 0o600))
	_, err := control.Open(path)
	require.ErrorContains(t, err, "control store "+path+" is damaged: restore the file from a backup")
	_, err = control.Open(filepath.Join(path, "below.db"))
	require.ErrorContains(t, err, "open control store")
}

func TestDamagedFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	store, err := control.Open(path)
	require.NoError(t, err)
	_, err = store.Keys.Add(t.Context(), lms)
	require.NoError(t, err)
	require.NoError(t, store.Close())
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	const page = 4096
	for at := page; at < len(whole); at += page { // the head of each page's tree; the first page says whether it is a database
		damaged := slices.Clone(whole)
		for i := range 64 {
			damaged[at+i] ^= byte(37*i + 91)
		}
		require.NoError(t, os.WriteFile(path, damaged, 0o600))
		_, err = control.Open(path)
		require.ErrorContains(t, err, "control store "+path+" is damaged: restore the file from a backup", "at %d", at)
	}
}

func TestFileIsItsOwnersAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	keys := openKeys(t, filepath.Join(dir, "keys.db"))
	_, err := keys.Add(t.Context(), lms)
	require.NoError(t, err)
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, f := range files {
		info, err := f.Info()
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode(), f.Name())
	}
}

// A file that an earlier program made goes on, and is kept as it was beside it.
func TestMigration(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	_, err = db.Exec(`CREATE TABLE sensor_keys (id TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, account TEXT NOT NULL, env TEXT NOT NULL, source_type TEXT NOT NULL,
		created INTEGER NOT NULL) STRICT;
		INSERT INTO sensor_keys VALUES ('a1', zeroblob(32), 'deepthought', 'deepthought3', 'EDGENUITY_LMS', 1535391755000000)`)
	require.NoError(t, err)
	require.NoError(t, db.Close())

	store := openStore(t, path)
	list, err := store.Keys.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, "deepthought3", list[0].Env)
	copied, err := control.Open(path + ".v0")
	require.NoError(t, err)
	defer copied.Close()
	list, err = copied.Keys.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
	info, err := os.Stat(path + ".v0")
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
}

func TestStoreOfANewerProgram(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	require.NoError(t, openStore(t, path).Close())
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	_, err = db.Exec("PRAGMA user_version = 999")
	require.NoError(t, err)
	require.NoError(t, db.Close())
	_, err = control.Open(path)
	require.ErrorContains(t, err, path+": it has schema 999, and this program knows")
	require.ErrorContains(t, err, "use the program that wrote it, or a newer one")
}
