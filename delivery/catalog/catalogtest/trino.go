// Package catalogtest asks a real Trino, for tests that want to know what another engine sees of a lake.
package catalogtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/zeebo/xxh3"
)

// Trino is a catalogue of a Trino.
type Trino struct {
	url     string
	catalog string
}

// Need skips the test when there is no Trino at MILLRACE_TRINO. The Trino must be able to read the test's files.
func Need(t *testing.T) {
	t.Helper()
	if os.Getenv("MILLRACE_TRINO") == "" {
		t.Skip("MILLRACE_TRINO is not set: scripts/servers/trino.sh starts a server for it")
	}
}

// Local has Trino read a lake on the local disk.
const Local = `"fs.native-local.enabled" = 'true', "local.location" = '/'`

// S3 has Trino read a lake in the S3 server of tests, with keys of its own.
func S3() string {
	return fmt.Sprintf(`"fs.native-s3.enabled" = 'true', "s3.endpoint" = '%s', "s3.region" = '%s', "s3.path-style-access" = 'true',
		"s3.aws-access-key" = '%s', "s3.aws-secret-key" = '%s'`, os.Getenv("MILLRACE_S3"), os.Getenv("AWS_REGION"), os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"))
}

// Open makes a catalogue in the Trino that reads a lake where files say, through the Iceberg REST catalogue at a URL that wants a
// token. It goes with the test.
func Open(t *testing.T, uri, token, files string) *Trino {
	t.Helper()
	Need(t)
	trino := &Trino{url: os.Getenv("MILLRACE_TRINO"), catalog: fmt.Sprintf("lake_%016x", xxh3.HashString(t.Name()+uri))}
	trino.Query(t, fmt.Sprintf(`CREATE CATALOG %s USING iceberg WITH (
		"iceberg.catalog.type" = 'rest', "iceberg.rest-catalog.uri" = '%s',
		"iceberg.rest-catalog.security" = 'OAUTH2', "iceberg.rest-catalog.oauth2.token" = '%s',
		%s)`, trino.catalog, uri, token, files))
	t.Cleanup(func() { trino.Query(t, "DROP CATALOG "+trino.catalog) })
	return trino
}

// Query returns the rows of a statement, as Trino writes their values in JSON. Tables are named with their namespace alone.
func (trino *Trino) Query(t *testing.T, statement string) [][]any {
	t.Helper()
	rows, err := trino.query(t, statement)
	require.NoError(t, err, statement)
	return rows
}

// Refused returns why a statement failed.
func (trino *Trino) Refused(t *testing.T, statement string) string {
	t.Helper()
	_, err := trino.query(t, statement)
	require.Error(t, err, statement)
	return err.Error()
}

func (trino *Trino) query(t *testing.T, statement string) (rows [][]any, err error) {
	req, err := http.NewRequest(http.MethodPost, trino.url+"/v1/statement", strings.NewReader(statement))
	require.NoError(t, err)
	req.Header.Set("X-Trino-User", "millrace")
	req.Header.Set("X-Trino-Catalog", trino.catalog)
	for {
		var page struct {
			Next  string  `json:"nextUri"`
			Data  [][]any `json:"data"`
			Error *struct {
				Message string `json:"message"`
			} `json:"error"`
		}
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		d := json.NewDecoder(res.Body)
		d.UseNumber()
		err = d.Decode(&page)
		res.Body.Close()
		require.NoError(t, err, "%s answers %s", req.URL, res.Status)
		rows = append(rows, page.Data...)
		if page.Error != nil {
			return nil, fmt.Errorf("%s", page.Error.Message)
		}
		if page.Next == "" {
			return rows, nil
		}
		req, err = http.NewRequest(http.MethodGet, page.Next, nil)
		require.NoError(t, err)
	}
}
