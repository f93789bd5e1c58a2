package spill_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/internal/spill"
)

// Records that had to go to disk, through one level of runs or several, come back as a stable sort has them.
func TestRecordsAreSorted(t *testing.T) {
	t.Parallel()
	for _, memory := range []int{0, 1, 300, 20_000} {
		t.Run(fmt.Sprint("memory=", memory), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			random := rand.New(rand.NewPCG(uint64(memory), 1))
			r := spill.NewRecords(dir, memory)
			var want []spill.Record
			for n := range 5000 { // with a run for each: three levels
				key, value := make([]byte, random.IntN(3)), fmt.Appendf(nil, "%d%s", n, bytes.Repeat([]byte{'x'}, random.IntN(200)))
				for i := range key {
					key[i] = byte(random.IntN(20))
				}
				require.NoError(t, r.Add(key, value))
				want = append(want, spill.Record{Key: key, Value: value})
			}
			slices.SortStableFunc(want, func(a, b spill.Record) int { return bytes.Compare(a.Key, b.Key) })
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, entries, "what is on disk has no name")
			for range 2 { // they can be read again
				n := 0
				for got, err := range r.Sorted() {
					require.NoError(t, err)
					require.Equal(t, string(want[n].Key), string(got.Key), n)
					require.Equal(t, string(want[n].Value), string(got.Value), n)
					n++
				}
				require.Equal(t, len(want), n)
			}
			for range 2 { // again is no fault
				require.NoError(t, r.Close())
			}
			for _, err := range r.Sorted() {
				require.NoError(t, err)
				t.Fatal("records that are closed are not empty")
			}
		})
	}
}

func TestNoPlaceForRecords(t *testing.T) {
	t.Parallel()
	r := spill.NewRecords(filepath.Join(t.TempDir(), "missing"), 1)
	require.NoError(t, r.Add([]byte("a"), nil))
	err := r.Add([]byte("b"), nil)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "sort on the disk of")
	require.NoError(t, r.Close())
}
