package catalog_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/apache/iceberg-go/table"
	"github.com/stretchr/testify/require"

	"millrace/delivery/catalog"
	"millrace/lake"
	"millrace/lake/laketest"
	"millrace/plan"
)

var grades = plan.Table{
	Name:   "grades",
	Schema: plan.Schema{Name: "Grades", Columns: []plan.Column{{Name: "score", Type: plan.Double}}},
}

const secret = "mrt_secret"

// setup serves a lake with tables unversioned.grades and v1.grades.
func setup(t *testing.T) (*lake.Lake, *httptest.Server) {
	t.Helper()
	l, err := lake.Open(t.Context(), laketest.In(t.TempDir()))
	require.NoError(t, err)
	for _, namespace := range []string{"unversioned", "v1"} {
		tbl, err := l.Table(t.Context(), namespace, grades)
		require.NoError(t, err)
		publish(t, tbl, 1, 1)
	}
	c, err := catalog.New(catalog.Config{Lake: l, Authorize: func(_ context.Context, token string) error {
		if token == "mrt_bound" {
			return fmt.Errorf("%w: district is bound to account acme", catalog.ErrForbidden)
		}
		if token != secret {
			return fmt.Errorf("%q: %w", token, catalog.ErrUnknownToken)
		}
		return nil
	}})
	require.NoError(t, err)
	server := httptest.NewServer(c)
	t.Cleanup(func() {
		server.Close()
		require.NoError(t, l.Close())
	})
	return l, server
}

func publish(t *testing.T, tbl *lake.Table, epoch uint64, score float64) {
	t.Helper()
	value, err := grades.Schema.Append(nil, []plan.Cell{{Float: score}})
	require.NoError(t, err)
	p, err := tbl.Write(t.Context(), []plan.Row{{ID: "a", Rev: epoch, First: epoch == 1, Value: value, Epoch: epoch}}, "L1", "1")
	require.NoError(t, err)
	require.NoError(t, tbl.Commit(t.Context(), p, lake.Position{Lineage: "L1", FromEpoch: epoch, ToEpoch: epoch}))
}

func request(t *testing.T, method, url, authorization string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	require.NoError(t, err)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(body)
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	l, server := setup(t)
	const bearer = "Bearer " + secret
	for _, test := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "namespaces", 200, `{"namespaces":[["unversioned"],["v1"]]}`},
		{"GET", "namespaces?parent=v1", 200, `{"namespaces":[]}`},
		{"GET", "namespaces?parent=v2", 404, `{"error":{"code":404,"message":"there is no namespace \"v2\" in the lake","type":"NoSuchNamespaceException"}}`},
		{"GET", "namespaces/v1", 200, `{"namespace":["v1"],"properties":{}}`},
		{"GET", "namespaces/v2", 404, `{"error":{"code":404,"message":"there is no namespace \"v2\" in the lake","type":"NoSuchNamespaceException"}}`},
		{"GET", "namespaces/v1%1Fv2", 404, `{"error":{"code":404,"message":"there is no namespace \"v1\\x1fv2\" in the lake","type":"NoSuchNamespaceException"}}`},
		{"GET", "namespaces/v1/tables", 200, `{"identifiers":[{"namespace":["v1"],"name":"grades"}]}`},
		{"GET", "namespaces/v2/tables", 404, `{"error":{"code":404,"message":"there is no namespace \"v2\" in the lake","type":"NoSuchNamespaceException"}}`},
		{"GET", "namespaces/v1/tables/none", 404, `{"error":{"code":404,"message":"table v1.none: not found","type":"NoSuchTableException"}}`},
		{"GET", "namespaces/v2/tables/grades", 404, `{"error":{"code":404,"message":"table v2.grades: not found","type":"NoSuchTableException"}}`},
		{"HEAD", "namespaces/v1", 204, ""},
		{"HEAD", "namespaces/v2", 404, ""},
		{"HEAD", "namespaces/v1/tables/grades", 204, ""},
		{"HEAD", "namespaces/v1/tables/none", 404, ""},
		{"POST", "namespaces", 405, `{"error":{"code":405,"message":"POST is not possible: this catalogue is for reading","type":"UnsupportedOperationException"}}`},
		{"DELETE", "namespaces/v1", 405, `{"error":{"code":405,"message":"DELETE is not possible: this catalogue is for reading","type":"UnsupportedOperationException"}}`},
		{"POST", "namespaces/v1/tables/grades", 405, `{"error":{"code":405,"message":"POST is not possible: this catalogue is for reading","type":"UnsupportedOperationException"}}`},
		{"DELETE", "namespaces/v1/tables/grades?purgeRequested=true", 405, `{"error":{"code":405,"message":"DELETE is not possible: this catalogue is for reading","type":"UnsupportedOperationException"}}`},
		{"POST", "tables/rename", 405, `{"error":{"code":405,"message":"POST is not possible: this catalogue is for reading","type":"UnsupportedOperationException"}}`},
		{"GET", "namespaces/v1/views", 404, `{"error":{"code":404,"message":"there is no /iceberg/v1/namespaces/v1/views in this catalogue","type":"NoSuchEndpointException"}}`},
	} {
		status, body := request(t, test.method, server.URL+"/iceberg/v1/"+test.path, bearer)
		require.Equal(t, test.status, status, "%s %s: %s", test.method, test.path, body)
		if test.body == "" {
			require.Empty(t, body)
		} else {
			require.JSONEq(t, test.body, body, "%s %s", test.method, test.path)
		}
	}

	_, body := request(t, "GET", server.URL+"/iceberg/v1/namespaces/v1/tables/grades", bearer)
	var loaded struct {
		Location string            `json:"metadata-location"`
		Metadata map[string]any    `json:"metadata"`
		Config   map[string]string `json:"config"`
	}
	require.NoError(t, json.Unmarshal([]byte(body), &loaded))
	tbl, err := l.Lookup(t.Context(), lake.Name{Namespace: "v1", Table: "grades"})
	require.NoError(t, err)
	location, content, err := tbl.Metadata(t.Context())
	require.NoError(t, err)
	require.Equal(t, location, loaded.Location)
	metadata, err := json.Marshal(loaded.Metadata)
	require.NoError(t, err)
	require.JSONEq(t, string(content), string(metadata))
	require.NotNil(t, loaded.Config)
}

func TestWithoutAToken(t *testing.T) {
	t.Parallel()
	_, server := setup(t)
	for _, authorization := range []string{"", "Bearer", "Bearer ", "Bearer wrong", "Basic " + secret, secret, "Bearer  x " + secret} {
		for _, path := range []string{"config", "namespaces", "namespaces/v1", "namespaces/v1/tables/grades", "nothing"} {
			for _, method := range []string{"GET", "POST"} {
				status, body := request(t, method, server.URL+"/iceberg/v1/"+path, authorization)
				require.Equal(t, 401, status, "%s %s with %q", method, path, authorization)
				require.JSONEq(t, `{"error":{"code":401,"message":"this needs a token in Authorization: Bearer …; 'millrace token add' makes one","type":"NotAuthorizedException"}}`, body)
			}
		}
	}
	status, _ := request(t, "GET", server.URL+"/iceberg/v1/config", "bearer "+secret)
	require.Equal(t, 200, status, "the scheme is written in any case")
}

// Who asks again sees the newest commit, as the specification's own reader of metadata does.
func TestCommitsAreSeenAtOnce(t *testing.T) {
	t.Parallel()
	l, server := setup(t)
	tbl, err := l.Table(t.Context(), "v1", grades)
	require.NoError(t, err)
	for epoch := uint64(2); epoch < 5; epoch++ {
		publish(t, tbl, epoch, float64(epoch))
		_, body := request(t, "GET", server.URL+"/iceberg/v1/namespaces/v1/tables/grades", "Bearer "+secret)
		var loaded struct {
			Metadata json.RawMessage `json:"metadata"`
		}
		require.NoError(t, json.Unmarshal([]byte(body), &loaded))
		metadata, err := table.ParseMetadataBytes(loaded.Metadata)
		require.NoError(t, err)
		snapshot, err := tbl.Snapshot(t.Context())
		require.NoError(t, err)
		require.Equal(t, snapshot.ID, metadata.CurrentSnapshot().SnapshotID)
		require.Equal(t, fmt.Sprint(epoch), metadata.CurrentSnapshot().Summary.Properties["millrace.epoch-to"])
	}
}

func TestDamagedTable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := lake.Open(t.Context(), laketest.In(dir))
	require.NoError(t, err)
	defer l.Close()
	tbl, err := l.Table(t.Context(), "v1", grades)
	require.NoError(t, err)
	publish(t, tbl, 1, 1)
	c, err := catalog.New(catalog.Config{Lake: l, Authorize: func(context.Context, string) error { return nil }})
	require.NoError(t, err)
	server := httptest.NewServer(c)
	defer server.Close()
	for _, name := range laketest.Files(t, dir) {
		if strings.HasSuffix(name, ".metadata.json") {
			laketest.Remove(t, dir, name)
		}
	}
	status, body := request(t, "GET", server.URL+"/iceberg/v1/namespaces/v1/tables/grades", "Bearer x")
	require.Equal(t, 500, status)
	require.Contains(t, body, "files of table v1.grades are missing, restore the lake from a backup")
	require.Contains(t, body, `"type":"InternalServerError"`)
}

// A token that is known and may not read whole tables is told why, at every address.
func TestForbidden(t *testing.T) {
	t.Parallel()
	_, server := setup(t)
	for _, path := range []string{"config", "namespaces", "namespaces/v1", "namespaces/v1/tables", "namespaces/v1/tables/grades", "nothing"} {
		status, body := request(t, "GET", server.URL+"/iceberg/v1/"+path, "Bearer mrt_bound")
		require.Equal(t, 403, status, path)
		require.JSONEq(t, `{"error":{"code":403,"message":"forbidden: district is bound to account acme","type":"ForbiddenException"}}`, body)
	}
}
