package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/control"
)

// browser asks as people do: it keeps cookies, wants pages, and does not follow.
type browser struct {
	t    *testing.T
	base string
	http *http.Client
}

func newBrowser(t *testing.T, base string) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	return &browser{t, base, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (b *browser) do(method, path string, form url.Values, site string) (status int, to, body string) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.base+path, strings.NewReader(form.Encode()))
	require.NoError(b.t, err)
	req.Header.Set("Accept", "text/html")
	req.Header.Set("Sec-Fetch-Site", site)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := b.http.Do(req)
	require.NoError(b.t, err)
	text, err := io.ReadAll(res.Body)
	require.NoError(b.t, err)
	require.NoError(b.t, res.Body.Close())
	return res.StatusCode, res.Header.Get("Location"), string(text)
}

func (b *browser) get(path string) (status int, to, body string) {
	b.t.Helper()
	return b.do(http.MethodGet, path, nil, "none")
}

func (b *browser) post(path string, form ...string) (status int, to, body string) {
	b.t.Helper()
	values := url.Values{}
	for i := 0; i < len(form); i += 2 {
		values.Set(form[i], form[i+1])
	}
	return b.do(http.MethodPost, path, values, "same-origin")
}

// Nobody sees anything until the first admin is made, with a link that is good once; then people sign in, change their passwords and sign out.
func TestAccounts(t *testing.T) {
	t.Parallel()
	dir, err := openDataDir(filepath.Join(t.TempDir(), "data"))
	require.NoError(t, err)
	cfg := stoppedConfig()
	cfg.dir, cfg.logger, cfg.anonymous = dir, slog.New(slog.DiscardHandler), new(control.Role)
	s, stop := runStackOf(t, cfg)
	defer stop()
	const password = "correct horse battery"
	ann := newBrowser(t, s.url())
	status, to, _ := ann.get("/tables/quiz_submission")
	require.Equal(t, 303, status)
	require.Equal(t, "/login?next=%2Ftables%2Fquiz_submission", to)
	status, _, body := ann.get("/setup?token=guessed")
	require.Equal(t, 404, status)
	require.Contains(t, body, "the link was used, or the process was started again since")

	link, err := s.setupLink(t.Context())
	require.NoError(t, err)
	token := link[strings.Index(link, "=")+1:]
	status, _, body = ann.get(strings.TrimPrefix(link, s.url()))
	require.Equal(t, 200, status)
	require.Contains(t, body, "The first admin")
	for _, form := range [][]string{
		{"token", token, "name", "ann", "password", password, "again", "another password"},
		{"token", token, "name", "ann", "password", "short", "again", "short"},
		{"token", token, "name", "a n n", "password", password, "again", password},
	} {
		status, _, body = ann.post("/setup", form...)
		require.Equal(t, 422, status)
		require.Contains(t, body, `class="wrong"`)
		require.NotContains(t, body, password)
	}
	status, _, _ = ann.post("/setup", "token", "guessed", "name", "eve", "password", password, "again", password)
	require.Equal(t, 404, status)
	status, to, _ = ann.post("/setup", "token", token, "name", "ann", "password", password, "again", password)
	require.Equal(t, 303, status)
	require.Equal(t, "/", to)
	status, _, body = ann.get("/")
	require.Equal(t, 200, status)
	require.Contains(t, body, `<a class="who" href="/account">ann</a>`)
	status, _, body = newBrowser(t, s.url()).post("/setup", "token", token, "name", "eve", "password", password, "again", password)
	require.Equal(t, 422, status)
	require.Contains(t, body, "There is a user already")
	link, err = s.setupLink(t.Context())
	require.NoError(t, err)
	require.Empty(t, link)

	// What needs a name takes that of who is signed in, and a page of another site cannot use that.
	status, _, _ = ann.get("/api/v1/audit")
	require.Equal(t, 200, status)
	status, _, _ = ann.do(http.MethodPost, "/logout", nil, "cross-site")
	require.Equal(t, 403, status)
	status, _, body = ann.get("/account")
	require.Equal(t, 200, status)
	require.Contains(t, body, "Your role is admin.")
	status, _, body = ann.post("/account", "old", "not the password", "password", password+"!", "again", password+"!")
	require.Equal(t, 401, status)
	require.Contains(t, body, "That is not your password.")
	status, _, _ = ann.post("/account", "old", password, "password", password+"!", "again", password+"!")
	require.Equal(t, 303, status)
	status, to, _ = ann.get("/")
	require.Equal(t, 303, status, "signed out everywhere")
	require.Equal(t, "/login?next=%2F", to)

	status, to, _ = ann.post("/login", "name", "ann", "password", password+"!", "next", "/tables/quiz_submission")
	require.Equal(t, 303, status)
	require.Equal(t, "/tables/quiz_submission", to)
	status, to, _ = ann.post("/login", "name", "ann", "password", password+"!", "next", "//evil.example/")
	require.Equal(t, 303, status)
	require.Equal(t, "/", to)
	status, to, _ = ann.post("/logout")
	require.Equal(t, 303, status)
	require.Equal(t, "/login", to)
	status, _, _ = ann.get("/")
	require.Equal(t, 303, status)

	// Who guesses is told nothing, and soon has to wait.
	require.NoError(t, s.store.Users.Add(t.Context(), control.User{Name: "viv", Role: control.Viewer}, password))
	for name, tries := range map[string]int{"ann": 4, "nobody": 5} { // one was at the old password
		for range tries {
			status, _, body = ann.post("/login", "name", name, "password", "guessed again")
			require.Equal(t, 401, status)
			require.Contains(t, body, "Wrong name or password.")
		}
		status, _, body = ann.post("/login", "name", name, "password", password+"!")
		require.Equal(t, 429, status, "also with the right one")
		require.Regexp(t, `Too many tries; try again in \d+ s`, body) // each try takes time
	}
	viv := newBrowser(t, s.url())
	status, _, _ = viv.post("/login", "name", "viv", "password", password)
	require.Equal(t, 303, status, "others are not kept from it")
	status, _, _ = viv.get("/")
	require.Equal(t, 200, status)
	status, _, _ = viv.get("/tables/quiz_submission")
	require.Equal(t, 403, status, "rows are for analysts")
	require.NoError(t, s.store.Users.Disable(t.Context(), "viv", nil))
	status, _, _ = viv.get("/")
	require.Equal(t, 303, status)

	all, err := s.store.Audit.List(t.Context(), 0, 100)
	require.NoError(t, err)
	var did []string
	for _, e := range all {
		require.NotContains(t, e.Subject+e.Outcome, password)
		did = append(did, e.Who+" "+e.Action)
	}
	require.Subset(t, did, []string{"ann add user", "ann set password", "ann sign in", "viv sign in"})
}
