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

// The embedded index answers over HTTP, as Elasticsearch would.
func setup(t *testing.T, documents ...string) *delivery.Index {
	t.Helper()
	s, err := index.Open(index.Config{Path: filepath.Join(t.TempDir(), "index.duckdb")})
	require.NoError(t, err)
	server := httptest.NewServer(s)
	t.Cleanup(func() {
		server.Close()
		require.NoError(t, s.Close())
	})
	for i, d := range documents {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, fmt.Sprintf("%s/grades/_doc/%d", server.URL, i), strings.NewReader(d))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusCreated, res.StatusCode)
	}
	x, err := delivery.NewIndex(server.URL)
	require.NoError(t, err)
	return x
}

func TestIndex(t *testing.T) {
	t.Parallel()
	x := setup(t,
		`{"course":"a","score":1,"_rev":0,"_epoch":1,"_event_time":"2018-08-27T12:00:00Z"}`,
		`{"course":"b","teacher":"y","score":2,"_rev":3,"_epoch":2,"_event_time":"2018-08-27T13:00:00Z"}`,
		`{"course":"a","teacher":"x","score":3,"_rev":4,"_epoch":2,"_event_time":"2018-08-27T14:00:00Z"}`,
	)
	totals, err := x.Totals(t.Context(), "grades")
	require.NoError(t, err)
	require.Equal(t, delivery.Totals{Rows: 3, RevSum: 7, Newest: time.Date(2018, 8, 27, 14, 0, 0, 0, time.UTC)}, totals)

	rows, err := x.Newest(t.Context(), "grades", 2)
	require.NoError(t, err)
	require.Len(t, rows, 2)
	require.Equal(t, "2", rows[0]["_id"])
	require.Equal(t, "1", rows[1]["_id"])

	counts, err := x.CountBy(t.Context(), "grades", "course", delivery.Without{})
	require.NoError(t, err)
	require.Equal(t, []delivery.Count{{Key: "a", Count: 2}, {Key: "b", Count: 1}}, counts)

	counts, err = x.CountBy(t.Context(), "grades", "course", delivery.Without{Column: "teacher", Values: []string{"x", "y"}})
	require.NoError(t, err)
	require.Equal(t, []delivery.Count{{Key: "a", Count: 1}}, counts)
}

func TestIndexWithoutTheTable(t *testing.T) {
	t.Parallel()
	x := setup(t)
	_, err := x.Totals(t.Context(), "grades")
	require.ErrorIs(t, err, delivery.ErrNotFound)
	_, err = x.Newest(t.Context(), "grades", 1)
	require.ErrorIs(t, err, delivery.ErrNotFound)
	_, err = x.CountBy(t.Context(), "grades", "course", delivery.Without{})
	require.ErrorIs(t, err, delivery.ErrNotFound)
}

func TestIndexThatIsNotThere(t *testing.T) {
	t.Parallel()
	x, err := delivery.NewIndex("http://127.0.0.1:1")
	require.NoError(t, err)
	_, err = x.Totals(t.Context(), "grades")
	require.ErrorContains(t, err, "search grades")

	_, err = delivery.NewIndex("://")
	require.ErrorContains(t, err, `index url "://"`)
}

func TestIndexThatAnswersWithAnError(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "the field is not there", http.StatusBadRequest)
	}))
	t.Cleanup(server.Close)
	x, err := delivery.NewIndex(server.URL)
	require.NoError(t, err)
	_, err = x.Newest(t.Context(), "grades", 1)
	require.ErrorContains(t, err, "search grades: the index answered 400 Bad Request: the field is not there")
}
