package delivery_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/delivery"
	"millrace/index"
)

// The embedded index answers over HTTP, as Elasticsearch would.
func start(t *testing.T) (x *delivery.Index, url string) {
	t.Helper()
	s, err := index.Open(index.Config{Path: filepath.Join(t.TempDir(), "index.duckdb")})
	require.NoError(t, err)
	server := httptest.NewServer(s)
	t.Cleanup(func() {
		server.Close()
		require.NoError(t, s.Close())
	})
	x, err = delivery.NewIndex(server.URL)
	require.NoError(t, err)
	return x, server.URL
}

func setup(t *testing.T, documents ...string) *delivery.Index {
	t.Helper()
	x, url := start(t)
	for i, d := range documents {
		post(t, http.MethodPut, fmt.Sprintf("%s/grades/_doc/%d", url, i), d, http.StatusCreated)
	}
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
	require.Equal(t, delivery.Totals{Rows: 3, Newest: time.Date(2018, 8, 27, 14, 0, 0, 0, time.UTC)}, totals)

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

// All documents come, page by page, each with its version.
func TestDocuments(t *testing.T) {
	t.Parallel()
	const n = 4500 // more than two pages
	var all strings.Builder
	for i := range n {
		fmt.Fprintf(&all, "{\"index\":{\"_id\":\"%d\",\"version\":%d,\"version_type\":\"external\"}}\n{\"row_id\":\"%05d\"}\n", i, i+7, i*7919%n)
	}
	x, url := start(t)
	bulk(t, url, all.String())
	seen, last := map[string]bool{}, ""
	for d, err := range x.Documents(t.Context(), "grades", "row_id") {
		require.NoError(t, err)
		require.False(t, seen[d.ID], d.ID)
		seen[d.ID] = true
		i, err := strconv.Atoi(d.ID)
		require.NoError(t, err)
		require.EqualValues(t, i+7, d.Version)
		require.JSONEq(t, fmt.Sprintf(`{"row_id":"%05d"}`, i*7919%n), string(d.Source))
		require.Less(t, last, string(d.Source))
		last = string(d.Source)
	}
	require.Len(t, seen, n)
}

// A document without a key of its own is never left out without a word.
func TestDocumentsThatAreForeign(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ document, want string }{
		"none":          {`{"course":"a"}`, "document 9 has no row_id of its own"},
		"another one's": {`{"row_id":"0001"}`, "has no row_id of its own"},
		"beyond a page": {`{"row_id":"1999"}`, "it has 2002 documents, of which only 2001 have a row_id of their own"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var all strings.Builder
			for i := range 2001 {
				fmt.Fprintf(&all, "{\"index\":{\"_id\":\"a%d\"}}\n{\"row_id\":\"%04d\"}\n", i, i)
			}
			x, url := start(t)
			bulk(t, url, all.String()+`{"index":{"_id":"9"}}`+"\n"+tc.document+"\n")
			var last error
			for _, err := range x.Documents(t.Context(), "grades", "row_id") {
				last = err
			}
			require.ErrorIs(t, last, delivery.ErrForeign)
			require.ErrorContains(t, last, tc.want)
		})
	}
}

func bulk(t *testing.T, url, body string) {
	t.Helper()
	post(t, http.MethodPost, url+"/grades/_bulk", body, http.StatusOK)
}

func post(t *testing.T, method, url, body string, want int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, want, res.StatusCode)
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

// The index of an account is as if the documents of others were not in it, and those of nobody are nobody's.
func TestIndexOfAnAccount(t *testing.T) {
	t.Parallel()
	x := setup(t,
		`{"row_id":"0","course":"a","account_id":"acme","_epoch":1,"_event_time":"2018-08-27T12:00:00Z"}`,
		`{"row_id":"1","course":"b","account_id":"acme","_epoch":2,"_event_time":"2018-08-27T13:00:00Z"}`,
		`{"row_id":"2","course":"c","account_id":"globex","_epoch":3,"_event_time":"2018-08-27T14:00:00Z"}`,
		`{"row_id":"3","course":"d","_epoch":4,"_event_time":"2018-08-27T15:00:00Z"}`,
	)
	own := x.Of("acme")
	totals, err := own.Totals(t.Context(), "grades")
	require.NoError(t, err)
	require.Equal(t, delivery.Totals{Rows: 2, Newest: time.Date(2018, 8, 27, 13, 0, 0, 0, time.UTC)}, totals)
	rows, err := own.Newest(t.Context(), "grades", 10)
	require.NoError(t, err)
	require.Len(t, rows, 2)
	counts, err := own.CountBy(t.Context(), "grades", "course", delivery.Without{Column: "course", Values: []string{"b"}})
	require.NoError(t, err)
	require.Equal(t, []delivery.Count{{Key: "a", Count: 1}}, counts)
	n := 0
	for d, err := range own.Documents(t.Context(), "grades", "row_id") {
		require.NoError(t, err)
		require.NotContains(t, string(d.Source), "globex")
		n++
	}
	require.Equal(t, 2, n)
	totals, err = own.Of("").Totals(t.Context(), "grades")
	require.NoError(t, err)
	require.EqualValues(t, 4, totals.Rows)
}
