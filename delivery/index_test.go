package delivery_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/delivery"
	"millrace/index"
)

// TestIndex reads back three rows of a table as a sink would have written them.
func TestIndex(t *testing.T) {
	t.Parallel()
	srv, err := index.Open(index.Config{Path: filepath.Join(t.TempDir(), "index.duckdb")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, srv.Close()) })
	web := httptest.NewServer(srv)
	t.Cleanup(web.Close)

	put := func(method, path, body string) {
		req, err := http.NewRequestWithContext(t.Context(), method, web.URL+path, strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Less(t, res.StatusCode, 300, "%s %s", method, path)
	}
	put(http.MethodPut, "/view", `{"mappings": {"properties": {"user": {"type": "keyword"},
		"_epoch": {"type": "long"}, "_rev": {"type": "long"}, "_event_time": {"type": "date"}}}}`)
	for i, user := range []string{"a", "b", "a"} {
		put(http.MethodPut, fmt.Sprintf("/view/_doc/%d", i),
			fmt.Sprintf(`{"user": %q, "_epoch": %d, "_rev": %d, "_event_time": "2018-08-27T12:00:0%dZ"}`, user, 10+i, i, 5-i))
	}
	put(http.MethodPost, "/view/_refresh", "")

	x, err := delivery.NewIndex(web.URL)
	require.NoError(t, err)
	totals, err := x.Totals(t.Context(), "view")
	require.NoError(t, err)
	require.Equal(t, delivery.Totals{Rows: 3, RevSum: 3, Newest: time.Date(2018, 8, 27, 12, 0, 5, 0, time.UTC)}, totals)

	rows, err := x.Newest(t.Context(), "view", 2)
	require.NoError(t, err)
	require.Len(t, rows, 2)
	require.Equal(t, "2", rows[0]["_id"])
	require.Equal(t, "1", rows[1]["_id"])
	require.Equal(t, "b", rows[1]["user"])

	counts, err := x.CountBy(t.Context(), "view", "user")
	require.NoError(t, err)
	require.Equal(t, []delivery.Count{{Key: "a", Count: 2}, {Key: "b", Count: 1}}, counts)

	_, err = x.Totals(t.Context(), "nothing")
	require.ErrorIs(t, err, delivery.ErrNotFound)
}

func TestIndexThatAnswersWithAnError(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "the cluster is red", http.StatusBadRequest)
	}))
	t.Cleanup(web.Close)
	x, err := delivery.NewIndex(web.URL)
	require.NoError(t, err)
	_, err = x.Newest(t.Context(), "view", 1)
	require.ErrorContains(t, err, "search view: the index answered 400 Bad Request: the cluster is red")

	_, err = delivery.NewIndex("http://[")
	require.ErrorContains(t, err, `index url "http://["`)
}
