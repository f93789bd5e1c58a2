package access_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/control"
	"millrace/control/access"
)

func TestGuard(t *testing.T) {
	t.Parallel()
	var asked access.Principal
	answers := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked = access.From(r.Context()) })
	jane := access.Principal{Name: "jane", Role: control.Analyst}
	mux := access.Config{Anonymous: control.Viewer, Find: func(_ context.Context, secret string) (access.Principal, error) {
		switch secret {
		case "jane's":
			return jane, nil
		case "disk":
			return access.Principal{}, errors.New("disk")
		}
		return access.Principal{}, access.ErrUnknown
	}}.Mux([]access.Route{
		{Pattern: "/open", Handler: answers},
		{Pattern: "/seen", Least: control.Viewer, Handler: answers},
		{Pattern: "/page", Least: control.Viewer, Shows: true, Handler: answers},
		{Pattern: "/named", Least: control.Viewer, Named: true, Handler: answers},
		{Pattern: "/rows", Least: control.Analyst, Handler: answers},
		{Pattern: "/changed", Least: control.Operator, Handler: answers},
	})
	anonymous := access.Principal{Name: "anonymous", Role: control.Viewer}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/page", http.NoBody))
	require.Equal(t, 405, w.Code)
	for site, want := range map[string]int{"same-origin": 200, "cross-site": 403, "": 200} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/rows", http.NoBody)
		r.SetBasicAuth("jane", "jane's")
		if site != "" { // only browsers say so
			r.Header.Set("Sec-Fetch-Site", site)
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		require.Equal(t, want, w.Code, site)
	}
	bearer := func(secret string) string { return "Bearer " + secret }
	for _, c := range []struct {
		path, authorization string
		status              int
		who                 access.Principal
		says                string
	}{
		{"/open", "", 200, access.Principal{}, ""},
		{"/open", bearer("wrong"), 200, access.Principal{}, ""},
		{"/seen", "", 200, anonymous, ""},
		{"/seen", "Negotiate x", 200, anonymous, ""},
		{"/seen", bearer("jane's"), 200, jane, ""},
		{"/seen", bearer("wrong"), 401, access.Principal{}, "the token is unknown: it was revoked, has expired, or is no token; 'millrace token add' makes one"},
		{"/seen", bearer("disk"), 500, access.Principal{}, "who asks could not be found out; the log says why"},
		{"/named", "", 401, access.Principal{}, "this takes a token of the role viewer or more"},
		{"/named", bearer("jane's"), 200, jane, ""},
		{"/rows", "", 401, access.Principal{}, "'millrace token add --role analyst' makes one"},
		{"/rows", bearer("jane's"), 200, jane, ""},
		{"/rows", "Basic YW55Ym9keTpqYW5lJ3M=", 200, jane, ""}, // anybody:jane's
		{"/changed", bearer("jane's"), 403, access.Principal{}, "this takes the role operator, and jane is analyst"},
	} {
		asked = access.Principal{}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, c.path, http.NoBody)
		if c.authorization != "" {
			r.Header.Set("Authorization", c.authorization)
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		require.Equal(t, c.status, w.Code, "%s %s", c.path, c.authorization)
		require.Equal(t, c.who, asked)
		require.Equal(t, c.status == 401, w.Header().Get("WWW-Authenticate") != "")
		if c.status != 200 {
			var problem struct{ Detail string }
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &problem))
			require.Contains(t, problem.Detail, c.says)
		}
	}
}

func TestIsLoopback(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"127.0.0.1:1": true, "127.8.0.1:1": true, "[::1]:1": true, "localhost:1": true, "0.0.0.0:1": false, ":1": false, "10.0.0.1:1": false, "example.edu:1": false, "127.0.0.1": false,
	} {
		require.Equal(t, want, access.IsLoopback(address), address)
	}
}
