package main

import (
	"html"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/control"
	"millrace/control/access"
	"millrace/control/oidc/oidctest"
)

// atProvider runs a stack at which people sign in at a provider.
func atProvider(t *testing.T, change func(*stackConfig)) (*stack, *oidctest.Provider) {
	t.Helper()
	at := oidctest.New(t, "")
	dir, err := openDataDir(filepath.Join(t.TempDir(), "data"))
	require.NoError(t, err)
	cfg := stoppedConfig()
	cfg.dir, cfg.logger, cfg.anonymous = dir, slog.New(slog.DiscardHandler), new(control.Role)
	cfg.oidc = oidcSettings{
		issuer: at.URL, clientID: oidctest.ClientID, secret: oidctest.ClientSecret, name: "the district's account",
		roles: []string{"teachers=viewer", "cn=data,ou=it=operator", "boss=admin"},
	}
	if change != nil {
		change(&cfg)
	}
	require.NoError(t, cfg.checkOIDC())
	s, stop := runStackOf(t, cfg)
	t.Cleanup(func() {
		stop()
		inNoFile(t, dir.path, oidctest.ClientSecret)
	})
	at.SetRedirect(s.url() + access.CallbackPath)
	at.Claims = person("bea", "teachers")
	return s, at
}

// person is somebody whom the provider knows by a subject of their name.
func person(name string, groups ...string) map[string]any {
	return map[string]any{"sub": "subject of " + name, "preferred_username": name, "groups": groups}
}

// answer goes to the provider, as the link of the login page says, and returns the address that it sends back to.
func (b *browser) answer(next string) (callback string) {
	b.t.Helper()
	status, to, _ := b.get("/login/oidc?next=" + url.QueryEscape(next))
	require.Equal(b.t, http.StatusSeeOther, status)
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, to, http.NoBody)
	require.NoError(b.t, err)
	res, err := b.http.Do(req)
	require.NoError(b.t, err)
	require.NoError(b.t, res.Body.Close())
	require.Equal(b.t, http.StatusFound, res.StatusCode)
	callback, ok := strings.CutPrefix(res.Header.Get("Location"), b.base)
	require.True(b.t, ok, res.Header.Get("Location"))
	return callback
}

// back comes from the provider, whose page it is that sends there.
func (b *browser) back(callback string) (status int, to, body string) {
	b.t.Helper()
	status, to, body = b.do(http.MethodGet, callback, nil, "cross-site")
	return status, to, html.UnescapeString(body)
}

// wrong is what the login page says is wrong.
func wrong(body string) string {
	m := regexp.MustCompile(`<p class="wrong" role="alert">([^<]*)</p>`).FindStringSubmatch(body)
	if m == nil {
		return ""
	}
	return m[1]
}

// lastEntry is the newest of the audit log.
func lastEntry(t *testing.T, s *stack) control.Entry {
	t.Helper()
	all, err := s.store.Audit.List(t.Context(), 0, 1)
	require.NoError(t, err)
	require.Len(t, all, 1)
	return all[0]
}

// People sign in at a provider, from the page that they wanted to that page, with the role that it says at each sign-in.
func TestSignInAtProvider(t *testing.T) {
	t.Parallel()
	s, at := atProvider(t, nil)
	bea := newBrowser(t, s.url())
	status, to, _ := bea.get("/?table=quiz_submission")
	require.Equal(t, 303, status)
	status, _, body := bea.get(to)
	require.Equal(t, 200, status)
	link := regexp.MustCompile(`href="(/login/oidc[^"]*)">Sign in with the district&#39;s account<`).FindStringSubmatch(body)
	require.NotNil(t, link, body)
	require.Equal(t, "/login/oidc?next=%2F%3Ftable%3Dquiz_submission", html.UnescapeString(link[1]))
	callback := bea.answer("/?table=quiz_submission")
	status, to, _ = bea.back(callback)
	require.Equal(t, 303, status)
	require.Equal(t, "/?table=quiz_submission", to)
	status, _, body = bea.get(to)
	require.Equal(t, 200, status)
	require.Contains(t, body, `<a class="who" href="/account">bea</a>`)
	status, _, _ = bea.get("/tables/quiz_submission")
	require.Equal(t, 403, status, "rows are for analysts")
	status, _, body = bea.get("/account")
	require.Equal(t, 200, status)
	require.Contains(t, body, "You sign in at <code>"+at.URL+"</code>")
	require.NotContains(t, body, "Another password")
	status, _, _ = bea.post("/account", "old", "", "password", "correct horse battery", "again", "correct horse battery")
	require.Equal(t, 401, status, "there is none to change")

	// The provider says another role: it counts at once after the next sign-in, in the sessions of before too.
	at.Set(func(p *oidctest.Provider) { p.Claims["groups"] = []string{"teachers", "cn=data,ou=it"} })
	elsewhere := newBrowser(t, s.url())
	status, to, _ = elsewhere.back(elsewhere.answer("//evil.example/"))
	require.Equal(t, 303, status)
	require.Equal(t, "/", to)
	status, _, _ = bea.get("/tables/nope")
	require.Equal(t, 404, status, "it may be asked for")
	// And none at all.
	at.Set(func(p *oidctest.Provider) { p.Claims["groups"] = []string{"students"} })
	status, _, body = elsewhere.back(elsewhere.answer("/tables/quiz_submission"))
	require.Equal(t, 403, status)
	require.Equal(t, "The OpenID Connect provider "+at.URL+` knows you as bea, and you have no role here: your groups are "students". Ask an admin to give one of them a role (oidc-roles), or to give you one that has.`, wrong(body))
	require.Contains(t, body, `value="/tables/quiz_submission"`)
	status, to, _ = bea.get("/")
	require.Equal(t, 303, status, "signed out everywhere")
	require.Equal(t, "/login?next=%2F", to)

	// An admin keeps somebody out, whatever the provider says.
	at.Set(func(p *oidctest.Provider) { p.Claims = person("bea", "boss") })
	status, _, _ = bea.back(bea.answer("/"))
	require.Equal(t, 303, status)
	status, _, _ = bea.get("/api/v1/audit")
	require.Equal(t, 200, status)
	require.NoError(t, s.store.Users.Add(t.Context(), control.User{Name: "ann", Role: control.Admin}, "correct horse battery"))
	require.NoError(t, s.store.Users.Disable(t.Context(), "bea", nil))
	status, _, _ = bea.get("/")
	require.Equal(t, 303, status)
	status, _, body = bea.back(bea.answer("/"))
	require.Equal(t, 403, status)
	require.Equal(t, "The user bea may not sign in here: an admin has disabled it, and lets you in again with 'millrace user enable bea'.", wrong(body))

	// Nobody becomes somebody else by a name.
	at.Set(func(p *oidctest.Provider) { p.Claims = person("ann", "boss") })
	eve := newBrowser(t, s.url())
	status, _, body = eve.back(eve.answer("/"))
	require.Equal(t, 403, status)
	require.Contains(t, wrong(body), "There is a user ann here who signs in with a password, and is not taken for you")
	status, _, _ = eve.get("/account")
	require.Equal(t, 303, status)
	e := lastEntry(t, s)
	require.Equal(t, []string{"ann", "admin", "sign in", "ann", "OpenID Connect, " + at.URL + ", subject subject of ann"}, []string{e.Who, e.Role, e.Action, e.Subject, e.Reason})
	require.Contains(t, e.Outcome, "refused: there is a user ann here")
	require.NotEmpty(t, e.Remote)
	status, _, _ = newBrowser(t, s.url()).post("/login", "name", "ann", "password", "correct horse battery")
	require.Equal(t, 303, status, "the user with a password is as before")

	all, err := s.store.Audit.List(t.Context(), 0, 100)
	require.NoError(t, err)
	var did []string
	for _, e := range all {
		require.NotContains(t, e.Outcome, oidctest.ClientSecret)
		outcome, _, _ := strings.Cut(e.Outcome, ":")
		did = append(did, strings.Join([]string{e.Who, e.Role, e.Action, e.Subject, outcome}, "|"))
	}
	require.Equal(t, []string{
		"ann|nobody|sign in|ann|done",
		"ann|admin|sign in|ann|sign in",
		"bea|admin|sign in|bea|sign in",
		"bea|admin|sign in|bea|done",
		"bea|admin|set role|bea, admin|done",
		"bea|nobody|sign in|bea|the OpenID Connect provider http",
		"bea|operator|sign in|bea|done",
		"bea|operator|set role|bea, operator|done",
		"bea|viewer|sign in|bea|done",
		"bea|viewer|add user|bea, viewer|done",
	}, did)
}

// Whatever is wrong with an answer, nobody is signed in with it, the page says why, and so does the audit log.
func TestWrongAnswersOfProvider(t *testing.T) {
	t.Parallel()
	s, at := atProvider(t, nil)
	tamper := func(change func(header, claims map[string]any)) func(*oidctest.Provider) {
		return func(p *oidctest.Provider) { p.Tamper = change }
	}
	for _, c := range []struct {
		name   string
		wrong  func(*oidctest.Provider)
		status int
		says   string
	}{
		{"nonce", tamper(func(_, claims map[string]any) { claims["nonce"] = "another" }), 403, "the nonce is that of another sign-in"},
		{"expired", tamper(func(_, claims map[string]any) { claims["exp"] = time.Now().Add(-time.Second).Unix() }), 403, "token is expired"},
		{"audience", tamper(func(_, claims map[string]any) { claims["aud"] = "another" }), 403, `expected audience "millrace"`},
		{"issuer", tamper(func(_, claims map[string]any) { claims["iss"] = "https://evil.example" }), 403, "issued by a different provider"},
		{"alg none", tamper(func(header, _ map[string]any) { header["alg"] = "none" }), 403, "its ID token is not believed"},
		{"forged", func(p *oidctest.Provider) { p.Forged = true }, 403, "failed to verify signature"},
		{"access denied", func(p *oidctest.Provider) { p.Deny = "access_denied" }, 403, "did not sign you in: it says access_denied"},
		{"no role", func(p *oidctest.Provider) { p.Claims = person("bea") }, 403, "Ask an admin to give one of them a role (oidc-roles)"},
		{"no name", func(p *oidctest.Provider) {
			p.Claims = map[string]any{"sub": "a b", "preferred_username": "b e a", "groups": "boss"}
		}, 403, "says no name of you that can be one here"},
		{"away", func(p *oidctest.Provider) { p.Away = true }, 502, "does not answer as one. Try again later, or sign in with a password"},
		{"state", nil, 400, "was not begun in this browser at " + s.url()},
		{"another browser", nil, 400, "was not begun in this browser"},
		{"replayed", nil, 400, "was not begun in this browser"},
		{"replayed with its cookie", nil, 403, "the code was used, or has expired: invalid_grant; begin again"},
	} {
		at.Set(func(p *oidctest.Provider) {
			p.Claims, p.Tamper, p.Forged, p.Deny, p.Away = person("bea", "boss"), nil, false, "", false
			if c.wrong != nil && c.name != "away" {
				c.wrong(p)
			}
		})
		b := newBrowser(t, s.url())
		callback := b.answer("/tables/quiz_submission")
		base, err := url.Parse(s.url())
		require.NoError(t, err)
		switch c.name {
		case "away":
			at.Set(c.wrong)
		case "state":
			callback = regexp.MustCompile(`state=\w+`).ReplaceAllString(callback, "state=AAAA")
		case "another browser":
			b = newBrowser(t, s.url())
		case "replayed", "replayed with its cookie":
			kept := b.http.Jar.Cookies(base)
			status, _, _ := b.back(callback)
			require.Equal(t, 303, status)
			b = newBrowser(t, s.url())
			if c.name == "replayed with its cookie" {
				b.http.Jar.SetCookies(base, kept)
			}
		}
		status, _, body := b.back(callback)
		require.Equal(t, c.status, status, c.name)
		require.Contains(t, wrong(body), c.says, c.name)
		require.Contains(t, body, `type="password"`, "%s: one can sign in with a password", c.name)
		for _, cookie := range b.http.Jar.Cookies(base) {
			require.NotEqual(t, "millrace", cookie.Name, "%s signs in", c.name)
		}
		e := lastEntry(t, s)
		require.Equal(t, "sign in", e.Action, c.name)
		require.Contains(t, e.Outcome, c.says, c.name)
		require.Contains(t, e.Reason, "OpenID Connect, "+at.URL, c.name)
	}

	// Who comes back with wrong answers has to wait, as who shows wrong passwords has.
	at.Set(func(p *oidctest.Provider) { p.Claims, p.Away = person("bea", "boss"), false })
	b := newBrowser(t, s.url())
	var status int
	for range 60 {
		if status, _, _ = b.back("/login/oidc/callback?state=guessed&code=guessed"); status != 400 {
			break
		}
	}
	require.Equal(t, 429, status)
}

// A provider that is away keeps nothing from starting, nor anybody from signing in with a password; when it is back it is asked again.
func TestProviderThatIsAway(t *testing.T) {
	t.Parallel()
	s, at := atProvider(t, func(c *stackConfig) { c.oidc.name = "" })
	at.Set(func(p *oidctest.Provider) { p.Away = true })
	require.NoError(t, s.store.Users.Add(t.Context(), control.User{Name: "ann", Role: control.Admin}, "correct horse battery"))
	b := newBrowser(t, s.url())
	status, _, body := b.get("/login")
	require.Equal(t, 200, status)
	require.Contains(t, body, "Sign in with "+strings.TrimPrefix(at.URL, "http://"))
	require.Zero(t, at.Asked())
	status, _, body = b.get("/login/oidc?next=/tables/quiz_submission")
	require.Equal(t, 502, status)
	require.Contains(t, wrong(body), "The OpenID Connect provider "+at.URL+" does not answer as one. Try again later, or sign in with a password; if it stays so, tell an admin")
	status, to, _ := b.post("/login", "name", "ann", "password", "correct horse battery", "next", "/tables/quiz_submission")
	require.Equal(t, 303, status)
	require.Equal(t, "/tables/quiz_submission", to)
	at.Set(func(p *oidctest.Provider) { p.Away = false })
	require.Eventually(t, func() bool {
		status, _, _ := b.get("/login/oidc")
		return status == 303
	}, time.Minute, 100*time.Millisecond)
}

// Browsers are sent back to the public address, whatever host a request names, and keep what they are given for TLS alone.
func TestPublicURL(t *testing.T) {
	t.Parallel()
	s, at := atProvider(t, func(c *stackConfig) { c.publicURL = "https://millrace.example.edu/" })
	at.SetRedirect("https://millrace.example.edu/login/oidc/callback")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url()+"/login/oidc", http.NoBody)
	require.NoError(t, err)
	req.Host = "evil.example"
	req.Header.Set("X-Forwarded-Host", "evil.example")
	res, err := newBrowser(t, "").http.Do(req)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	to, err := res.Location()
	require.NoError(t, err)
	require.Equal(t, "https://millrace.example.edu/login/oidc/callback", to.Query().Get("redirect_uri"))
	require.Equal(t, "__Host-millrace-oidc", res.Cookies()[0].Name)
	require.True(t, res.Cookies()[0].Secure)
	require.Equal(t, control.Role(0), stackConfig{publicURL: s.cfg.publicURL}.anonymousAt(defaultListen), "others come by what stands before it")
	require.Equal(t, control.Analyst, stackConfig{publicURL: "http://localhost:8420"}.anonymousAt(defaultListen))
	link, err := s.setupLink(t.Context())
	require.NoError(t, err)
	require.Contains(t, link, "https://millrace.example.edu/setup?token=")
}

func TestOIDCSettings(t *testing.T) {
	t.Parallel()
	good := func() stackConfig {
		return stackConfig{listen: defaultListen, oidc: oidcSettings{issuer: "https://login.example.edu", clientID: "millrace", roles: []string{"staff=analyst"}, defaultRole: noRole}}
	}
	for _, change := range []func(*stackConfig){
		func(*stackConfig) {},
		func(c *stackConfig) {
			*c = stackConfig{listen: "0.0.0.0:8420", oidc: oidcSettings{defaultRole: noRole}}
		},
		func(c *stackConfig) { c.oidc.roles, c.oidc.defaultRole = nil, "viewer" },
		func(c *stackConfig) { c.oidc.roles = []string{"cn=a,ou=b=analyst"} },
		func(c *stackConfig) { c.listen, c.publicURL = "0.0.0.0:8420", "https://millrace.example.edu" },
		func(c *stackConfig) { c.publicURL = "http://localhost:8420" },
		func(c *stackConfig) { c.publicURL = "http://[::1]/" },
	} {
		c := good()
		change(&c)
		require.NoError(t, c.checkOIDC(), "%+v", c)
	}
	for says, change := range map[string]func(*stackConfig){
		"give --oidc-issuer":     func(c *stackConfig) { c.oidc.issuer = "" },
		"needs --oidc-client-id": func(c *stackConfig) { c.oidc.clientID = "" },
		`--oidc-issuer: "http://login.example.edu": an issuer is reached by https`:  func(c *stackConfig) { c.oidc.issuer = "http://login.example.edu" },
		"needs --oidc-roles, or a --oidc-default-role":                              func(c *stackConfig) { c.oidc.roles = nil },
		`--oidc-roles "staff": want VALUE=ROLE`:                                     func(c *stackConfig) { c.oidc.roles = []string{"staff"} },
		`--oidc-roles "=viewer": want VALUE=ROLE`:                                   func(c *stackConfig) { c.oidc.roles = []string{"=viewer"} },
		`--oidc-roles "staff=root": there is no role "root"`:                        func(c *stackConfig) { c.oidc.roles = []string{"staff=root"} },
		`--oidc-default-role: there is no role "all"; there are viewer`:             func(c *stackConfig) { c.oidc.defaultRole = "all" },
		"--oidc-issuer needs --public-url, such as https://millrace.example.edu":    func(c *stackConfig) { c.listen = "0.0.0.0:8420" },
		"what a request says of its host is not believed":                           func(c *stackConfig) { c.insecure = true },
		`--public-url: "millrace.example.edu": want a URL without a path`:           func(c *stackConfig) { c.publicURL = "millrace.example.edu" },
		`--public-url: "https://millrace.example.edu/x": want a URL without a path`: func(c *stackConfig) { c.publicURL = "https://millrace.example.edu/x" },
		`--public-url: "http://millrace.example.edu": want https`:                   func(c *stackConfig) { c.publicURL = "http://millrace.example.edu" },
	} {
		c := good()
		change(&c)
		err := c.checkOIDC()
		require.ErrorContains(t, err, says)
		require.ErrorAs(t, err, new(usageError))
	}
}

// The client's secret is not for the processes of jobs.
func TestClientSecretIsTaken(t *testing.T) {
	t.Setenv(oidcSecretVariable, "secret")
	var o oidcSettings
	require.NoError(t, o.takeSecret())
	require.Equal(t, "secret", o.secret)
	_, there := os.LookupEnv(oidcSecretVariable)
	require.False(t, there)
}

// Whom a claim binds to a tenant sees nothing of another one, and who sends none is not let in.
func TestProviderBindsToAnAccount(t *testing.T) {
	t.Parallel()
	s, at := atProvider(t, func(c *stackConfig) {
		c.oidc.roleClaim, c.oidc.accounts = "realm_access.roles", "tenant"
		c.oidc.roles = []string{"data=analyst", "boss=admin"}
	})
	s.appendTenants(t)
	says := func(tenant any, roles ...string) {
		at.Set(func(p *oidctest.Provider) {
			p.Claims = map[string]any{"sub": "subject of bea", "preferred_username": "bea", "realm_access": map[string]any{"roles": roles}}
			if tenant != nil {
				p.Claims["tenant"] = tenant
			}
		})
	}
	says(ownAccount, "data")
	bea := newBrowser(t, s.url())
	status, _, _ := bea.back(bea.answer("/"))
	require.Equal(t, http.StatusSeeOther, status)
	require.Equal(t, "add user", entryBefore(t, s, 1).Action)
	require.Equal(t, "bea, analyst of account acme", entryBefore(t, s, 1).Subject)
	status, _, body := bea.get("/tables/activity_view")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "urn:acme:page")
	require.NotContains(t, strings.ToLower(body), marker)
	status, _, _ = bea.get("/metrics")
	require.Equal(t, http.StatusForbidden, status)

	// Without the claim they would see all: they are refused, also where they are signed in.
	says(nil, "data")
	_, _, body = newBrowser(t, s.url()).back(bea.answer("/"))
	require.Contains(t, body, "begin again", "that was the answer of another browser")
	_, _, body = bea.back(bea.answer("/"))
	require.Contains(t, wrong(body), "knows you as bea, and which account you are of is not known: it sends no claim tenant")
	status, to, _ := bea.get("/tables/activity_view")
	require.Equal(t, http.StatusSeeOther, status)
	require.Contains(t, to, access.SignInPath)

	// An admin is not bound.
	says(nil, "boss")
	_, _, _ = bea.back(bea.answer("/"))
	_, _, body = bea.get("/tables/activity_view")
	require.Contains(t, body, "urn:"+marker+":page")
}

// entryBefore is the one of the audit log that has n newer ones.
func entryBefore(t *testing.T, s *stack, n int) control.Entry {
	t.Helper()
	all, err := s.store.Audit.List(t.Context(), 0, n+1)
	require.NoError(t, err)
	require.Len(t, all, n+1)
	return all[n]
}
