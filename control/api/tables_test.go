package api_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/control/api"
)

func TestRows(t *testing.T) {
	t.Parallel()
	s := &service{}
	ask := serve(t, s)
	for _, path := range []string{api.TablesPath, api.TablesPath + "/quiz/rows", api.RawPath, api.DiffPath + "?a=1&b=2"} {
		status, text := ask("GET", path, "", "")
		require.Equal(t, 401, status, "it takes an analyst: %s", text)
	}
	require.Empty(t, s.asked)
	for _, c := range []struct {
		path, token string
		status      int
		answer      string // part of it
		asked       []string
	}{
		{"tables", secret, 200, `[{"namespace":"raw","table":"events","rows":7,"files":0,"bytes":0,"snapshots":0}]`, nil},
		{"tables", bound, 403, "this is of the stack as a whole", nil},
		{"tables/raw.events/rows", secret, 200, `{"rows":[{"n":0},{"n":1},{"n":2}]}`, []string{`rows "" {Table:raw.events Kind: Limit:101}`, "done"}},
		{"tables/quiz/rows?limit=2", bound, 200, `{"rows":[{"n":0},{"n":1}],"more":true}`, []string{`rows "acme" {Table:quiz Kind: Limit:3}`, "done"}},
		{"tables/quiz/rows?limit=0", secret, 200, `{"rows":[],"more":true}`, []string{`rows "" {Table:quiz Kind: Limit:1}`, "done"}},
		{"tables/quiz/rows?limit=10001", secret, 400, "limit=10001: want 0 to 10000", nil},
		{"tables/quiz/rows?limit=-1", secret, 400, "limit=-1: want 0 to 10000", nil},
		{"tables/quiz/rows?kind=event", secret, 400, `there is no parameter \"kind\"; there are limit`, nil},
		{"raw?kind=event&limit=1", bound, 200, `{"rows":[{"n":0}],"more":true}`, []string{`rows "acme" {Table: Kind:event Limit:2}`, "done"}},
		{"raw?limit=1&limit=2", secret, 400, "parameter limit is given 2 times", nil},
		{
			"diff?a=serving&b=2&table=x&table=y&account=a&env=e&from=2018-01-01&to=2018-01-02&examples=0", bound, 200, `{"same":true}`,
			[]string{`compare "acme" {A:serving B:2 Tables:[x y] LakeQuery:{SourceType: Account:a Env:e From:2018-01-01 To:2018-01-02} Examples:0}`},
		},
		{"diff?a=1&b=2", secret, 200, `{"same":true}`, []string{`compare "" {A:1 B:2 Tables:[] LakeQuery:{SourceType: Account: Env: From: To:} Examples:3}`}},
		{"diff?a=1", secret, 400, "say which two data versions are compared", nil},
		{"diff?a=1&b=2&examples=many", secret, 400, "examples=many: want 0 to 100", nil},
		{"diff?a=1&b=2&tables=x", secret, 400, `there is no parameter \"tables\"; there are a, account, b, env, examples, from, table, to`, nil},
	} {
		s.asked = nil
		status, text := ask("GET", "/api/v1/lake/"+c.path, c.token, "")
		require.Equal(t, c.status, status, "%s: %s", c.path, text)
		require.Contains(t, text, c.answer, c.path)
		require.Equal(t, c.asked, s.asked, c.path)
	}
	s.err = fmt.Errorf("%w: there is no table", api.ErrNotFound)
	status, _ := ask("GET", api.TablesPath+"/none/rows", secret, "")
	require.Equal(t, 404, status)
	s.err, s.breaks = nil, errors.New("damaged")
	status, _ = ask("GET", api.TablesPath+"/quiz/rows", secret, "")
	require.Equal(t, 500, status)
}

// A stream has all rows, or breaks off so that nobody takes half of them for all.
func TestRowsStreamed(t *testing.T) {
	t.Parallel()
	s := &service{}
	h, err := api.New(api.Config{Service: s, Comparison: compared{}})
	require.NoError(t, err)
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	stream := func(path string) (string, error) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, http.NoBody)
		require.NoError(t, err)
		req.Header.Set("Accept", api.JSONL)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		require.Equal(t, api.JSONL, res.Header.Get("Content-Type"))
		b, err := io.ReadAll(res.Body)
		return string(b), err
	}
	for path, want := range map[string]string{
		api.TablesPath + "/quiz/rows": "{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n", api.RawPath + "?limit=1": "{\"n\":0}\n", api.RawPath + "?limit=100000": "{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n",
	} {
		text, err := stream(path)
		require.NoError(t, err)
		require.Equal(t, want, text, path)
	}
	s.breaks = errors.New("damaged")
	_, err = stream(api.RawPath)
	require.Error(t, err)
	server.Close() // what answers has ended
	require.Equal(t, "done", s.asked[len(s.asked)-1])
}
