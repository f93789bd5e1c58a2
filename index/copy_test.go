package index_test

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// A copy has what was acknowledged before it, whole, and can be written to; the index itself goes on.
func TestCopy(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "index.db")
	s := open(t, path)
	put := func(id int) int {
		status, _ := send(t, s, http.MethodPut, fmt.Sprintf("/rows/_doc/%d?version=1&version_type=external", id), fmt.Sprintf(`{"n":%d}`, id))
		return status
	}
	count := func(h http.Handler) any { return field(t, ok(t, h, http.MethodGet, "/rows/_count", ""), "count") }
	const before, all = 200, 600
	for id := range before {
		require.Equal(t, http.StatusCreated, put(id))
	}
	halfway := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		for id := before; id < all; id++ {
			if id == (before+all)/2 {
				close(halfway)
			}
			if status := put(id); status != http.StatusCreated {
				return fmt.Errorf("document %d: %d", id, status)
			}
		}
		return nil
	})
	<-halfway
	var copies []string
	for n := range 3 {
		copies = append(copies, filepath.Join(t.TempDir(), fmt.Sprint(n)))
		require.NoError(t, s.Copy(t.Context(), copies[n]))
	}
	require.NoError(t, g.Wait())
	require.EqualValues(t, all, count(s))
	for _, path := range copies {
		c := open(t, path)
		n := count(c).(float64)
		require.GreaterOrEqual(t, n, float64((before+all)/2))
		for id := range int(n) { // the first n, none between them is missing
			require.EqualValues(t, id, field(t, ok(t, c, http.MethodGet, fmt.Sprintf("/rows/_doc/%d", id), ""), "_source.n"))
		}
		ok(t, c, http.MethodPut, "/rows/_doc/new?version=1&version_type=external", `{"n":1}`)
		require.EqualValues(t, n+1, count(c))
		require.NoError(t, c.Close())
	}

	_, said := startServer(t, path)
	require.Contains(t, said, "is using it", "the file is still locked for other processes")
	require.ErrorContains(t, s.Copy(t.Context(), copies[0]), "file exists")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.Copy(ctx, copies[0]+".new"), context.Canceled)
	require.EqualValues(t, all, count(s))
	require.NoError(t, s.Close())
	require.Error(t, s.Copy(t.Context(), copies[0]+".new"))
	require.NoError(t, open(t, path).Close())
}
