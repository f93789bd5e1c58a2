package access_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/control"
	"millrace/control/access"
)

func TestGuard(t *testing.T) {
	t.Parallel()
	var asked access.Principal
	answers := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked = access.From(r.Context()) })
	jane := access.Principal{Name: "jane", Role: control.Analyst}
	bound := access.Principal{Name: "district", Role: control.Operator, Account: "deepthought"}
	mux := access.Config{Anonymous: control.Viewer, Find: func(_ context.Context, secret string) (access.Principal, error) {
		switch secret {
		case "district's":
			return bound, nil
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
		{Pattern: "/own", Least: control.Viewer, Scope: access.Tenant, Handler: answers},
		{Pattern: "/ordered", Least: control.Admin, Scope: access.Tenant, Handler: answers},
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
		{"/own", bearer("district's"), 200, bound, ""},
		{"/own", bearer("jane's"), 200, jane, ""},
		{"/own", "", 200, anonymous, ""},
		{"/ordered", bearer("district's"), 403, access.Principal{}, "this takes the role admin, and district is operator"},
		{"/seen", bearer("district's"), 403, access.Principal{}, "district is bound to account deepthought, and this is of the stack as a whole: ask with a token that is not bound"},
		{"/changed", bearer("district's"), 403, access.Principal{}, "district is bound to account deepthought"},
		{"/open", bearer("district's"), 200, access.Principal{}, ""},
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

// Who is signed in needs no token. A page that they may not see without sends people to sign in, and programs do not notice.
func TestSessions(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		cookies := access.Cookies{Secure: secure}
		mux := access.Config{
			Find: func(context.Context, string) (access.Principal, error) {
				return access.Principal{}, access.ErrUnknown
			},
			Session: func(_ context.Context, secret string) (access.Principal, error) {
				if secret != "ann's" {
					return access.Principal{}, access.ErrUnknown
				}
				return access.Principal{Name: "ann", Role: control.Operator}, nil
			},
			Cookies: cookies,
		}.Mux([]access.Route{{Pattern: "/", Least: control.Analyst, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(access.From(r.Context()).Name))
		})}})
		ask := func(method, secret, accept, site string) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(t.Context(), method, "/tables/quiz?n=1", http.NoBody)
			if secret != "" {
				w := httptest.NewRecorder()
				cookies.Begin(w, secret, control.LongestSession)
				set := w.Result().Cookies()[0] //nolint:bodyclose // it has none
				require.True(t, set.HttpOnly)
				require.Equal(t, secure, set.Secure)
				require.Equal(t, http.SameSiteLaxMode, set.SameSite)
				r.AddCookie(set)
			}
			r.Header.Set("Accept", accept)
			if site != "" {
				r.Header.Set("Sec-Fetch-Site", site)
			}
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, r)
			return w
		}
		w := ask("GET", "ann's", "text/html", "")
		require.Equal(t, 200, w.Code)
		require.Equal(t, "ann", w.Body.String())
		require.Equal(t, 403, ask("POST", "ann's", "", "cross-site").Code, "a page of another site cannot use the session")
		for _, secret := range []string{"", "ended"} {
			w = ask("GET", secret, "text/html,*/*", "")
			require.Equal(t, 303, w.Code)
			require.Equal(t, "/login?next=%2Ftables%2Fquiz%3Fn%3D1", w.Header().Get("Location"))
			require.Equal(t, 401, ask("GET", secret, "application/json", "").Code)
			require.Equal(t, 401, ask("POST", secret, "text/html", "").Code)
		}
		w = httptest.NewRecorder()
		cookies.End(w)
		require.Negative(t, w.Result().Cookies()[0].MaxAge) //nolint:bodyclose // it has none
	}
}

func TestNext(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"/tables/quiz?n=1": "/tables/quiz?n=1", "/": "/", "": "/", "tables": "/", "//evil.example": "/", "/\\evil.example": "/", "https://evil.example/": "/", "javascript:alert(1)": "/",
		"/%2F/evil.example": "/", "/\t/evil.example": "/", "///evil.example": "/", "/x#y": "/x", "/.//evil.example": "/",
	} {
		require.Equal(t, want, access.Next(text), "%q", text)
	}
}

func FuzzNext(f *testing.F) {
	for _, text := range []string{"/a?b=c", "//evil.example", "/\\evil", "/..//evil", "http:/x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		base, err := url.Parse("https://millrace.example/login")
		require.NoError(t, err)
		to, err := base.Parse(access.Next(text))
		require.NoError(t, err)
		require.Equal(t, "millrace.example", to.Host, "%q", text)
		require.NotContains(t, access.Next(text), "\\")
		require.False(t, strings.HasPrefix(access.Next(text), "//"), "%q", text)
	})
}

func TestLimit(t *testing.T) {
	t.Parallel()
	l := access.Limit{Tries: 3, Every: 10 * time.Second}
	now := time.Date(2018, 8, 27, 17, 42, 35, 0, time.UTC)
	for range 3 {
		require.Zero(t, l.Take(now, "ann", "10.0.0.1"))
	}
	require.Equal(t, 10*time.Second, l.Take(now, "ann", "10.0.0.2"), "another address does not help")
	require.Equal(t, 10*time.Second, l.Take(now, "ben", "10.0.0.1"), "nor another name")
	require.Zero(t, l.Take(now, "ben", "10.0.0.2"))
	now = now.Add(4 * time.Second)
	require.Equal(t, 6*time.Second, l.Take(now, "ann"))
	l.Give("ann")
	require.Zero(t, l.Take(now, "ann"), "who could sign in is not counted")
	now = now.Add(time.Minute)
	for range 3 {
		require.Zero(t, l.Take(now, "ann"))
	}
	for i := range 30_000 { // it does not grow, and refuses nobody for that
		require.Zero(t, l.Take(now, fmt.Sprint("somebody", i)))
	}
	for address, want := range map[string]string{"10.0.0.1:99": "10.0.0.1", "[2001:db8::1:2:3:4]:99": "2001:db8::", "@": "@"} {
		require.Equal(t, want, access.Address(&http.Request{RemoteAddr: address}))
	}
}
