package api_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/control"
	"millrace/control/access"
	"millrace/control/api"
)

// asks has a handler answer an operator.
func asks(t *testing.T, s *service) func(method, path string, header http.Header) *http.Response {
	t.Helper()
	h, err := api.New(api.Config{Service: s, Comparison: compared{}, Store: s.store})
	require.NoError(t, err)
	return func(method, path string, header http.Header) *http.Response {
		r := httptest.NewRequestWithContext(access.With(t.Context(), access.Principal{Name: "ann", Role: control.Admin}), method, path, http.NoBody)
		if strings.HasSuffix(path, "/deploys") && method == http.MethodPost {
			r.Body = io.NopCloser(strings.NewReader(`{"version":"2"}`))
		}
		r.Header = header
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result()
	}
}

const (
	instancePath = "/api/v1/apps/a/instances/20180827174235"
	deploysPath  = "/api/v1/apps/a/deploys"
)

// What has a tag is not sent to whoever has it.
func TestTags(t *testing.T) {
	t.Parallel()
	ask := asks(t, &service{})
	for path, tag := range map[string]string{instancePath: `"3"`, deploysPath: `"3"`} {
		for have, want := range map[string]int{
			"": 200, tag: 304, `"2"`: 200, `"2", ` + tag: 304, "W/" + tag: 304, "*": 304, `3`: 200, `"33"`: 200,
		} {
			header := http.Header{}
			if have != "" {
				header.Set("If-None-Match", have)
			}
			res := ask(http.MethodGet, path, header)
			require.Equal(t, want, res.StatusCode, "%s %s", path, have)
			require.Equal(t, tag, res.Header.Get("ETag"))
			body, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			require.Equal(t, want == 200, len(body) > 0)
		}
	}
	res := ask(http.MethodGet, "/api/v1/apps", http.Header{"If-None-Match": {"*"}})
	require.Equal(t, 200, res.StatusCode, "its numbers move")
	require.NoError(t, res.Body.Close())
	require.Empty(t, res.Header.Get("ETag"))
	res = ask(http.MethodGet, instancePath, http.Header{})
	var record api.Record
	require.NoError(t, json.NewDecoder(res.Body).Decode(&record))
	require.Equal(t, "RUNNING", record.State)
	require.EqualValues(t, 3, record.Revision)
}

// A change says what it was decided by, and is told what there is when that is no more.
func TestConditions(t *testing.T) {
	t.Parallel()
	s := &service{}
	ask := asks(t, s)
	for _, c := range []struct {
		have   []string
		status int
		says   string // of the revisions that the service is asked for
	}{
		{nil, 200, ""},
		{[]string{"*"}, 200, ""},
		{[]string{`"3"`}, 200, " revisions=[3]"},
		{[]string{`"3", "4"`, `"5"`}, 200, " revisions=[3 4 5]"},
		{[]string{`W/"3"`}, 200, " revisions=[]"},
		{[]string{`"x"`}, 200, " revisions=[]"},
		{[]string{`3`}, 400, ""},
	} {
		for _, path := range []string{instancePath + "/suspend", deploysPath, deploysPath + "/rollback"} {
			s.asked = nil
			res := ask(http.MethodPost, path, http.Header{"If-Match": slices.Clone(c.have)})
			require.NoError(t, res.Body.Close())
			if c.status == 400 {
				require.Equal(t, 400, res.StatusCode)
				require.Empty(t, s.asked)
				continue
			}
			require.Contains(t, []int{200, 202}, res.StatusCode)
			require.Len(t, s.asked, 1)
			_, says, _ := strings.Cut(s.asked[0], " revisions=")
			_, want, _ := strings.Cut(c.says, " revisions=")
			require.Equal(t, want, says, "%s %v", path, c.have)
		}
	}
	for _, path := range []string{"/api/v1/apps/a/instances", "/api/v1/artifacts", "/api/v1/blockers", "/api/v1/blockers/5/lift"} {
		s.asked = nil
		res := ask(http.MethodPost, path, http.Header{"If-Match": {`"3"`}})
		require.NoError(t, res.Body.Close())
		require.Equal(t, 400, res.StatusCode, "%s must not look as if it had looked at it", path)
		require.Empty(t, s.asked)
	}
	for path, stale := range map[string]*control.StaleError{
		instancePath + "/upgrade": {What: "a--v", Present: control.Instance{Revision: 8, State: control.Suspended}},
		deploysPath:               {What: "which version of a is deployed", Present: control.Deploy{ID: 8, Version: "2"}},
	} {
		s.err = stale
		res := ask(http.MethodPost, path, http.Header{"If-Match": {`"3"`}})
		require.Equal(t, 412, res.StatusCode)
		require.Equal(t, `"8"`, res.Header.Get("ETag"))
		require.Equal(t, "application/problem+json", res.Header.Get("Content-Type"))
		var p struct {
			Detail  string
			Present struct {
				Version, State string
				ID, Revision   int64
			}
		}
		require.NoError(t, json.NewDecoder(res.Body).Decode(&p))
		require.Equal(t, stale.What+" has changed since it was read; read it again, and ask again if it is still what is wanted", p.Detail)
		require.EqualValues(t, 8, p.Present.ID+p.Present.Revision)
		require.NotEmpty(t, p.Present.State+p.Present.Version)
	}
}

// What serves has tags of its own. A promotion, or a rollback, that is refused though it was decided by what does not serve any more is told that, with what does.
func TestConditionsOfWhatServes(t *testing.T) {
	t.Parallel()
	s := &service{serving: 5}
	ask := asks(t, s)
	res := ask(http.MethodGet, "/api/v1/apps/a/serving", http.Header{})
	var serving api.Serving
	require.NoError(t, json.NewDecoder(res.Body).Decode(&serving))
	require.Equal(t, `"serving-5"`, res.Header.Get("ETag"))
	require.Equal(t, api.Serving{App: "a", Serving: "20180827174235", Before: "unversioned", Revision: 5}, serving)
	for _, path := range []string{instancePath + "/promote", "/api/v1/apps/a/rollback"} {
		for have, want := range map[string]string{"": "", "*": "", `"serving-5"`: " revisions=[5]", `"serving-5", "serving-6"`: " revisions=[5 6]", `"5"`: " revisions=[]", `"serving-x"`: " revisions=[]", `W/"serving-5"`: " revisions=[]"} {
			s.asked = nil
			header := http.Header{}
			if have != "" {
				header.Set("If-Match", have)
			}
			res := ask(http.MethodPost, path, header)
			require.Equal(t, 202, res.StatusCode)
			_, says, _ := strings.Cut(s.asked[0], " revisions=")
			_, want, _ := strings.Cut(want, " revisions=")
			require.Equal(t, want, says, "%s %s", path, have)
		}
		s.err = control.ErrRefused
		for have, want := range map[string]int{"": 409, `"serving-5"`: 409, `"serving-4"`: 412} {
			header := http.Header{}
			if have != "" {
				header.Set("If-Match", have)
			}
			res := ask(http.MethodPost, path, header)
			require.Equal(t, want, res.StatusCode, have)
			if want != 412 {
				continue
			}
			require.Equal(t, `"serving-5"`, res.Header.Get("ETag"))
			var p struct {
				Detail  string
				Present api.Serving
			}
			require.NoError(t, json.NewDecoder(res.Body).Decode(&p))
			require.Equal(t, serving, p.Present)
			require.Contains(t, p.Detail, "which data version of a serves, 20180827174235 by now, has changed since it was read")
		}
		s.err = nil
	}
	s.asked = nil
	res = ask(http.MethodPost, instancePath+"/suspend", http.Header{"If-Match": {`"serving-3"`}})
	require.NoError(t, res.Body.Close())
	require.Contains(t, s.asked[0], " revisions=[]", "of an instance it is none")
}

// The description says where tags are, and nowhere else.
func TestTagsAreDescribed(t *testing.T) {
	t.Parallel()
	res := asks(t, &service{store: storeOf(t)})(http.MethodGet, api.SpecPath, http.Header{})
	var spec struct {
		Paths map[string]map[string]struct {
			Parameters []struct{ Name, In string }
			Responses  map[string]struct{ Headers map[string]any }
		}
	}
	require.NoError(t, json.NewDecoder(res.Body).Decode(&spec))
	tagged := map[string]string{
		"get /api/v1/apps/{app}/instances/{version}": "If-None-Match 304", "get /api/v1/apps/{app}/deploys": "If-None-Match 304",
		"post /api/v1/apps/{app}/instances/{version}/{action}": "If-Match 412", "post /api/v1/apps/{app}/deploys": "If-Match 412", "post /api/v1/apps/{app}/deploys/rollback": "If-Match 412",
		"get /api/v1/apps/{app}/serving": "If-None-Match 304", "post /api/v1/apps/{app}/rollback": "If-Match 412", "get /api/v1/users/{name}": "If-None-Match 304",
		"post /api/v1/users/{name}/role": "If-Match 412", "post /api/v1/users/{name}/password": "If-Match 412", "post /api/v1/users/{name}/disable": "If-Match 412",
		"post /api/v1/users/{name}/enable": "If-Match 412", "post /api/v1/users/{name}/delete": "If-Match 412",
	}
	for path, methods := range spec.Paths {
		for method, e := range methods {
			said := ""
			for _, p := range e.Parameters {
				if strings.HasPrefix(p.Name, "If-") && p.In == "header" {
					said = p.Name
				}
			}
			for _, code := range []string{"304", "412"} {
				if r, ok := e.Responses[code]; ok {
					require.Contains(t, r.Headers, "ETag")
					said += " " + code
				}
			}
			require.Equal(t, tagged[method+" "+path], said, "%s %s", method, path)
		}
	}
}
