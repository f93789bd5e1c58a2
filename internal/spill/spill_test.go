package spill_test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/internal/spill"
)

// Sets that had to go to disk, and those that did not, give what a map gives.
func TestJoinIsWhatAMapSays(t *testing.T) {
	t.Parallel()
	for _, run := range []int{0, 1, 7, 100} {
		t.Run(fmt.Sprint("run=", run), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			random := rand.New(rand.NewPCG(uint64(run), 1))
			want := map[spill.Hash][2][]spill.Hash{}
			var sets [2]*spill.Set
			for i := range sets {
				sets[i] = spill.New(dir, run)
				for n := range 500 * i { // the first is empty
					key, value := spill.Hash{15: byte(random.IntN(200))}, spill.Hash{byte(n), byte(n >> 8)}
					require.NoError(t, sets[i].Add(key, value))
					w := want[key]
					w[i] = append(w[i], value)
					want[key] = w
				}
			}
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, entries, "what is on disk has no name")
			for range 2 { // it can be read again
				got := map[spill.Hash][2][]spill.Hash{}
				var last spill.Hash
				for g, err := range spill.Join(sets[0], sets[1]) {
					require.NoError(t, err)
					require.True(t, len(got) == 0 || string(last[:]) < string(g.Key[:]), "%x comes after %x", g.Key, last)
					last = g.Key
					got[g.Key] = [2][]spill.Hash{append([]spill.Hash(nil), g.Values[0]...), append([]spill.Hash(nil), g.Values[1]...)}
				}
				require.Equal(t, want, got)
			}
			for _, s := range append(sets[:], sets[:]...) { // again is no fault
				require.NoError(t, s.Close())
			}
			for _, err := range spill.Join(sets[0], sets[1]) {
				require.NoError(t, err)
				t.Fatal("a set that is closed is not empty")
			}
		})
	}
}

func TestNoPlaceToSpill(t *testing.T) {
	t.Parallel()
	s := spill.New(filepath.Join(t.TempDir(), "missing"), 1)
	require.NoError(t, s.Add(spill.Hash{}, spill.Hash{}))
	err := s.Add(spill.Hash{}, spill.Hash{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "sort on the disk of")
	require.NoError(t, s.Close())
}
