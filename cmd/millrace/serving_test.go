package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/control"
	"millrace/control/api"
)

// Of two who roll back, or promote, by what they have read of what serves one does, and the other is told what serves by now.
func TestServingByWhatWasRead(t *testing.T) {
	t.Parallel()
	s, stop := runStack(t, filepath.Join(t.TempDir(), "data"))
	defer stop()
	made := s.done(t, control.Start, "").DataVersion
	app := api.Path + "/" + etlLine.Program
	try := func(method, path, tag string) (status int, header http.Header, text string, err error) {
		req, err := http.NewRequestWithContext(t.Context(), method, s.url()+path, http.NoBody)
		if err != nil {
			return 0, nil, "", err
		}
		if method == http.MethodPost {
			req.Body = io.NopCloser(strings.NewReader(`{"force":true,"reason":"a test"}`))
			req.Header.Set("If-Match", tag)
		}
		req.Header.Set("Authorization", "Bearer "+s.secret)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, nil, "", err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		return res.StatusCode, res.Header, string(body), err
	}
	read := func() (now api.Serving, tag string) {
		status, header, text, err := try(http.MethodGet, app+"/serving", "")
		require.NoError(t, err)
		require.Equal(t, 200, status, text)
		require.NoError(t, json.Unmarshal([]byte(text), &now))
		return now, header.Get("ETag")
	}
	for _, change := range []struct{ path, to string }{{app + "/instances/" + made + "/promote", made}, {app + "/rollback", "unversioned"}} {
		before, tag := read()
		require.NotEqual(t, change.to, before.Serving)
		var both sync.WaitGroup
		said := make([]string, 2)
		for i := range said {
			both.Go(func() {
				status, _, text, err := try(http.MethodPost, change.path, tag)
				said[i] = fmt.Sprint(status, " ", text, err)
			})
		}
		both.Wait()
		won, lost := said[0], said[1]
		if strings.HasPrefix(lost, "202 ") {
			won, lost = lost, won
		}
		require.True(t, strings.HasPrefix(won, "202 "), won)
		require.True(t, strings.HasPrefix(lost, "412 "), lost)
		require.Contains(t, lost, `"present":{"app":"`+etlLine.Program+`"`)
		require.Contains(t, lost, change.to)
		var op control.Operation
		require.NoError(t, json.NewDecoder(strings.NewReader(strings.TrimPrefix(won, "202 "))).Decode(&op))
		require.NoError(t, s.untilDone(t.Context(), op.ID))
		now, _ := read()
		require.Equal(t, change.to, now.Serving)
		require.Empty(t, now.Promoting)
	}
	status, _, text, err := try(http.MethodPost, app+"/instances/"+made+"/promote", `"1"`)
	require.NoError(t, err)
	require.Equal(t, 412, status, "the ETag of an instance is none of what serves: %s", text)
}
