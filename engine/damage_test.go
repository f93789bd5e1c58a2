package engine_test

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/record"
)

// A damaged file of the state is one sentence that says what to do, and never a panic.
func TestDamagedState(t *testing.T) {
	t.Parallel()
	c := config(t, newLog(), &memory{name: "index"})
	c.Plan = bulkyPlan()
	j := start(t, c)
	for i := range 100 {
		j.log.append(0, record.Item{ID: fmt.Sprintf("key-%04d", i), Bytes: []byte(`"keep"`)})
	}
	j.settle()
	j.stop()
	start(t, c).stop() // opening flushes what the log holds
	whole := c.FS
	names, err := whole.List("job/state")
	require.NoError(t, err)
	newest := func(part string) string {
		of := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !strings.Contains(n, part) || strings.HasPrefix(n, "marker") })
		require.NotEmpty(t, of, "%s in %v", part, names)
		return "job/state/" + slices.Max(of)
	}
	for _, kind := range []string{".blob", ".sst", "MANIFEST"} {
		name := newest(kind)
		f, err := whole.Open(name)
		require.NoError(t, err)
		b, err := io.ReadAll(f)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		footer := slices.Clone(b)
		footer[len(footer)-20] ^= 0x5a
		for what, damaged := range map[string][]byte{"empty": {}, "20 bytes": b[:20], "half": b[:len(b)/2], "a bit of its end": footer, "gone": nil} {
			if kind == "MANIFEST" && what == "a bit of its end" {
				continue // a torn end is what a killed process leaves
			}
			t.Run(kind+" "+what, func(t *testing.T) {
				t.Parallel()
				c := c
				c.FS = copyOf(t, whole)
				require.NoError(t, c.FS.Remove(name))
				if damaged != nil {
					write(t, c.FS, name, damaged)
				}
				_, err := engine.Open(t.Context(), c)
				require.ErrorContains(t, err, "state in job directory job is damaged: ")
				require.ErrorContains(t, err, "; restore the data directory from a backup")
				require.NotContains(t, err.Error(), "\n")
			})
		}
	}
	t.Run("nothing is left", func(t *testing.T) {
		t.Parallel()
		c := c
		c.FS = copyOf(t, whole)
		require.NoError(t, c.FS.RemoveAll("job/state"))
		for range 2 {
			_, err := engine.Open(t.Context(), c)
			require.EqualError(t, err, "state in job directory job is damaged: it does not say whose it is any more; restore the data directory from a backup")
		}
	})
	t.Run("a blob that a killed process left", func(t *testing.T) {
		t.Parallel()
		c := c
		c.FS = copyOf(t, whole)
		write(t, c.FS, "job/state/000999.blob", []byte("torn"))
		start(t, c).stop()
	})
}

// Pebble may be the first to read a damaged block, on a goroutine of its own. The job's end says what it is all the same.
func TestDamageThatACompactionMeets(t *testing.T) {
	t.Parallel()
	err := engine.Raised("job", fmt.Errorf("state store: %w", pebble.ErrCorruption))
	require.ErrorIs(t, err, pebble.ErrCorruption)
	require.EqualError(t, err, "state in job directory job is damaged: state store: pebble: corruption; restore the data directory from a backup")
}

func copyOf(t *testing.T, whole vfs.FS) vfs.FS {
	t.Helper()
	fs := vfs.NewMem()
	_, err := vfs.Clone(whole, fs, "job", "job", vfs.CloneSync)
	require.NoError(t, err)
	return fs
}

func write(t *testing.T, fs vfs.FS, name string, b []byte) {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = f.Write(b)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}
