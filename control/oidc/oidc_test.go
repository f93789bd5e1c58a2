package oidc_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/control"
	"millrace/control/oidc"
	"millrace/control/oidc/oidctest"
)

const redirect = "http://127.0.0.1:8420/login/oidc/callback"

// person is somebody with names and groups.
func person() map[string]any {
	return map[string]any{"sub": "248289761001", "preferred_username": "ann", "email": "ann@example.edu", "email_verified": true, "groups": []string{"staff", "dba"}}
}

func setup(t *testing.T, change func(*oidc.Config)) (*oidctest.Provider, *oidc.Provider) {
	t.Helper()
	at := oidctest.New(t, redirect)
	at.Claims = person()
	cfg := oidc.Config{
		Issuer: at.URL, ClientID: oidctest.ClientID, ClientSecret: oidctest.ClientSecret, Redirect: redirect,
		Roles: map[string]control.Role{"staff": control.Analyst, "dba": control.Operator, "boss": control.Admin},
	}
	if change != nil {
		change(&cfg)
	}
	p, err := oidc.New(cfg)
	require.NoError(t, err)
	return at, p
}

// visit goes to an address of the provider, and returns what that sends back.
func visit(t *testing.T, address string) url.Values {
	t.Helper()
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Get(address) //nolint:noctx // of the test
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusFound, res.StatusCode)
	to, err := res.Location()
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(to.String(), redirect+"?"), to)
	return to.Query()
}

// signIn is all of a sign-in.
func signIn(t *testing.T, p *oidc.Provider) (control.Identity, error) {
	t.Helper()
	address, flow, err := p.Begin(t.Context(), "/")
	require.NoError(t, err)
	id, _, err := p.Finish(t.Context(), flow, visit(t, address))
	return id, err
}

func TestSignIn(t *testing.T) {
	t.Parallel()
	at, p := setup(t, nil)
	address, flow, err := p.Begin(t.Context(), "/tables/quiz?n=1")
	require.NoError(t, err)
	asked, err := url.Parse(address)
	require.NoError(t, err)
	require.Equal(t, "openid profile email groups", asked.Query().Get("scope"))
	require.Equal(t, "S256", asked.Query().Get("code_challenge_method"))
	for _, secret := range []string{asked.Query().Get("state"), asked.Query().Get("nonce"), "quiz"} {
		require.NotContains(t, flow, secret, "it is sealed")
	}
	back := visit(t, address)
	id, next, err := p.Finish(t.Context(), flow, back)
	require.NoError(t, err)
	require.Equal(t, "/tables/quiz?n=1", next)
	require.Equal(t, control.Identity{Issuer: at.URL, Subject: "248289761001", Names: []string{"ann", "ann@example.edu", "248289761001"}, Role: control.Operator}, id)

	// The same answer is good once, also to whoever has kept all of it.
	_, _, err = p.Finish(t.Context(), flow, back)
	require.ErrorIs(t, err, oidc.ErrDenied)
	require.ErrorContains(t, err, "the code was used, or has expired: invalid_grant; begin again")
	require.Equal(t, 1, at.Asked())
}

// What tells a role, and how it is told.
func TestRoles(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config func(*oidc.Config)
		groups any
		role   control.Role
		says   string
	}{
		"one of a list":         {nil, []string{"students", "staff"}, control.Analyst, ""},
		"the greatest":          {nil, []string{"staff", "boss", "dba"}, control.Admin, ""},
		"a string":              {nil, "staff", control.Analyst, ""},
		"no part of a string":   {nil, "staff boss", 0, `your groups are "staff boss". Ask an admin to give one of them a role (oidc-roles)`},
		"case counts":           {nil, []string{"Staff"}, 0, `your groups are "Staff"`},
		"what is no text":       {nil, []any{"boss", 1}, 0, "its claim groups is a list with a number; want a text or a list of texts. Ask an admin to have it sent so"},
		"an object":             {nil, map[string]any{"boss": true}, 0, "its claim groups is an object"},
		"true":                  {func(c *oidc.Config) { c.DefaultRole = control.Viewer }, true, 0, "its claim groups is true or false"},
		"within another":        {func(c *oidc.Config) { c.RoleClaim = "groups.client.app.roles" }, map[string]any{"client.app": map[string]any{"roles": []string{"staff"}}}, control.Analyst, ""},
		"not within another":    {func(c *oidc.Config) { c.RoleClaim = "groups.roles" }, map[string]any{"rolls": "staff"}, 0, "it sends no claim groups.roles. Ask an admin"},
		"within a text":         {func(c *oidc.Config) { c.RoleClaim = "groups.roles" }, "roles", 0, "it sends no claim groups.roles"},
		"none":                  {nil, []string{}, 0, "ann, and you have no role here: your groups are none"},
		"no claim":              {nil, nil, 0, "it sends no claim groups. Ask an admin to have it sent, or to name the one that is (oidc-role-claim)"},
		"many":                  {nil, strings.Split(strings.Repeat("g,", 200), ","), 0, `"g", and 191 more`},
		"another claim":         {func(c *oidc.Config) { c.RoleClaim = "preferred_username"; c.Roles["ann"] = control.Viewer }, nil, control.Viewer, ""},
		"the default":           {func(c *oidc.Config) { c.DefaultRole = control.Viewer }, []string{"students"}, control.Viewer, ""},
		"no claim, the default": {func(c *oidc.Config) { c.DefaultRole = control.Viewer }, nil, control.Viewer, ""},
		"not the default": {func(c *oidc.Config) {
			c.DefaultRole = control.Operator
			c.Roles = map[string]control.Role{"interns": control.Viewer}
		}, "interns", control.Viewer, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at, p := setup(t, c.config)
			at.Set(func(p *oidctest.Provider) { p.Claims["groups"] = c.groups })
			if c.groups == nil {
				at.Set(func(p *oidctest.Provider) { delete(p.Claims, "groups") })
			}
			id, err := signIn(t, p)
			require.Equal(t, c.role, id.Role)
			require.Equal(t, "248289761001", id.Subject)
			if c.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, oidc.ErrNoRole)
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, at.URL)
		})
	}
}

// Whom a claim binds to an account is bound; whoever sends none of use is refused, as they would see the data of all.
func TestAccounts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		groups  string
		tenant  any // nil: there is no claim
		account string
		says    string
	}{
		"a text":          {"staff", "acme", "acme", ""},
		"a list of one":   {"staff", []string{"acme"}, "acme", ""},
		"several":         {"staff", []string{"acme", "globex"}, "", `your tenant.id are "acme", "globex"; want one`},
		"none":            {"staff", []string{}, "", "your tenant.id are none; want one"},
		"no claim":        {"staff", nil, "", "ann, and which account you are of is not known: it sends no claim tenant.id. Ask an admin to have the claim sent, or to name another one (oidc-account-claim)"},
		"a number":        {"staff", 7, "", "its claim tenant.id is a number; want a text"},
		"empty":           {"staff", "", "", "want the account of a tenant"},
		"no word":         {"staff", "acme and sons", "", `account "acme and sons" is not a word`},
		"all":             {"staff", control.System, "", "account system is that of the apps that serve all accounts"},
		"an admin":        {"boss", nil, "", ""},
		"an admin of one": {"boss", "acme", "", "an admin is not bound to an account"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at, p := setup(t, func(c *oidc.Config) { c.AccountClaim = "tenant.id" })
			at.Set(func(p *oidctest.Provider) {
				p.Claims["groups"] = c.groups
				if c.tenant != nil {
					p.Claims["tenant"] = map[string]any{"id": c.tenant}
				}
			})
			id, err := signIn(t, p)
			require.Equal(t, c.account, id.Account)
			require.Equal(t, "248289761001", id.Subject)
			if c.says == "" {
				require.NoError(t, err)
				return
			}
			require.Zero(t, id.Role)
			require.ErrorIs(t, err, oidc.ErrNoRole)
			require.ErrorContains(t, err, c.says)
		})
	}
}

// What the ID token does not say the userinfo endpoint is asked for, and what it says counts.
func TestUserInfo(t *testing.T) {
	t.Parallel()
	at, p := setup(t, nil)
	at.Set(func(p *oidctest.Provider) {
		p.Claims = map[string]any{"sub": "248289761001", "email": "ann@example.edu", "email_verified": false}
		p.UserInfo = map[string]any{"groups": []string{"staff"}, "preferred_username": "ann", "email_verified": true}
	})
	id, err := signIn(t, p)
	require.NoError(t, err)
	require.Equal(t, control.Identity{Issuer: at.URL, Subject: "248289761001", Names: []string{"ann", "248289761001"}, Role: control.Analyst}, id)

	// Within a claim too, where what the ID token says stays as it is.
	nested, q := setup(t, func(c *oidc.Config) { c.RoleClaim, c.AccountClaim = "realm_access.roles", "realm_access.tenant" })
	nested.Set(func(p *oidctest.Provider) {
		p.Claims["realm_access"] = map[string]any{"roles": []string{"staff"}}
		p.UserInfo = map[string]any{"realm_access": map[string]any{"roles": []string{"boss"}, "tenant": "acme"}}
	})
	id, err = signIn(t, q)
	require.NoError(t, err)
	require.Equal(t, control.Analyst, id.Role)
	require.Equal(t, "acme", id.Account)

	at.Set(func(p *oidctest.Provider) { p.UserInfo["sub"] = "somebody else" })
	_, err = signIn(t, p)
	require.ErrorIs(t, err, oidc.ErrDenied)
	require.ErrorContains(t, err, `what it says of you is of somebody else: of "somebody else"`)

	at.Set(func(p *oidctest.Provider) {
		delete(p.UserInfo, "sub")
		p.Tamper = func(_, claims map[string]any) { claims["at_hash"] = "AAAAAAAAAAAAAAAAAAAAAA" }
	})
	_, err = signIn(t, p)
	require.ErrorIs(t, err, oidc.ErrDenied)
	require.ErrorContains(t, err, "its access token is not believed")
}

// What the provider says is believed when all of it is right, and nobody is known otherwise.
func TestWhatIsNotBelieved(t *testing.T) {
	t.Parallel()
	tamper := func(f func(header, claims map[string]any)) func(*oidctest.Provider) {
		return func(p *oidctest.Provider) { p.Tamper = f }
	}
	for name, c := range map[string]struct {
		wrong func(*oidctest.Provider)
		kind  error
		says  string
	}{
		"nonce":             {tamper(func(_, claims map[string]any) { claims["nonce"] = "another" }), oidc.ErrDenied, "the nonce is that of another sign-in"},
		"no nonce":          {tamper(func(_, claims map[string]any) { delete(claims, "nonce") }), oidc.ErrDenied, "the nonce is that of another sign-in"},
		"expired":           {tamper(func(_, claims map[string]any) { claims["exp"] = time.Now().Add(-time.Minute).Unix() }), oidc.ErrDenied, "token is expired"},
		"no end":            {tamper(func(_, claims map[string]any) { delete(claims, "exp") }), oidc.ErrDenied, "token is expired"},
		"audience":          {tamper(func(_, claims map[string]any) { claims["aud"] = "another" }), oidc.ErrDenied, `expected audience "millrace"`},
		"audiences":         {tamper(func(_, claims map[string]any) { claims["aud"] = []string{"another", "millrace"} }), oidc.ErrDenied, "was given to another client"},
		"authorized party":  {tamper(func(_, claims map[string]any) { claims["azp"] = "another" }), oidc.ErrDenied, "was given to another client"},
		"issuer":            {tamper(func(_, claims map[string]any) { claims["iss"] = "https://login.example.org" }), oidc.ErrDenied, "issued by a different provider"},
		"no subject":        {tamper(func(_, claims map[string]any) { delete(claims, "sub") }), oidc.ErrDenied, "the subject has 0 bytes"},
		"long subject":      {tamper(func(_, claims map[string]any) { claims["sub"] = strings.Repeat("x", 256) }), oidc.ErrDenied, "the subject has 256 bytes"},
		"alg none":          {tamper(func(header, _ map[string]any) { header["alg"] = "none" }), oidc.ErrDenied, "its ID token is not believed"},
		"client's secret":   {tamper(func(header, _ map[string]any) { header["alg"] = "HS256" }), oidc.ErrDenied, "its ID token is not believed"},
		"forged":            {func(p *oidctest.Provider) { p.Forged = true }, oidc.ErrDenied, "failed to verify signature"},
		"says no":           {func(p *oidctest.Provider) { p.Deny = "access_denied" }, oidc.ErrDenied, "it says access_denied the [31m person said no"},
		"says later":        {func(p *oidctest.Provider) { p.Deny = "temporarily_unavailable" }, oidc.ErrAway, "temporarily_unavailable"},
		"away meanwhile":    {func(p *oidctest.Provider) { p.Away = true }, oidc.ErrAway, "Try again later, or sign in with a password"},
		"another's answer":  {nil, oidc.ErrDenied, "the answer is of another one, https://evil.example"},
		"no answer":         {nil, oidc.ErrDenied, "neither a code nor an error"},
		"no state":          {nil, oidc.ErrNotBegun, "was not begun in this browser at http://127.0.0.1:8420, or more than 10 minutes ago"},
		"another state":     {nil, oidc.ErrNotBegun, "begin again there"},
		"no flow":           {nil, oidc.ErrNotBegun, "begin again there"},
		"flow of another":   {nil, oidc.ErrNotBegun, "begin again there"},
		"flow was changed":  {nil, oidc.ErrNotBegun, "begin again there"},
		"code of another":   {nil, oidc.ErrDenied, "invalid_grant"},
		"code that is none": {nil, oidc.ErrDenied, "invalid_grant"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at, p := setup(t, nil)
			address, flow, err := p.Begin(t.Context(), "/x")
			require.NoError(t, err)
			if c.wrong != nil && name != "away meanwhile" {
				at.Set(c.wrong)
			}
			back := visit(t, address)
			switch name {
			case "away meanwhile":
				at.Set(c.wrong)
			case "another's answer":
				back.Set("iss", "https://evil.example")
			case "no answer":
				back.Del("code")
			case "no state":
				back.Del("state")
			case "another state":
				back.Set("state", "AAAA")
			case "no flow":
				flow = ""
			case "flow of another": // the answer of somebody's own sign-in, in the browser of somebody else
				_, flow, err = p.Begin(t.Context(), "/")
				require.NoError(t, err)
			case "flow was changed":
				last := len(flow) - 2
				flow = flow[:last] + map[bool]string{true: "B", false: "A"}[flow[last] == 'A'] + flow[last+1:]
			case "code of another": // put into a flow of one's own: the verifier is another
				second, _, err := p.Begin(t.Context(), "/")
				require.NoError(t, err)
				back.Set("code", visit(t, second).Get("code"))
			case "code that is none":
				back.Set("code", "guessed")
			}
			id, _, err := p.Finish(t.Context(), flow, back)
			require.Equal(t, control.Identity{}, id)
			require.ErrorIs(t, err, c.kind)
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), oidctest.ClientSecret)
			require.NotContains(t, err.Error(), "\x1b")
		})
	}
}

// lasting has tokens last for as long as the clock of a test is moved.
func lasting(p *oidctest.Provider) {
	p.Tamper = func(_, claims map[string]any) { claims["exp"] = time.Now().Add(24 * time.Hour).Unix() }
}

// A sign-in is finished within ten minutes, by the process that it was begun with.
func TestFlowsEnd(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now := time.Now()
	at, p := setup(t, func(c *oidc.Config) {
		c.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	})
	at.Set(lasting)
	address, flow, err := p.Begin(t.Context(), "/"+strings.Repeat("x", 5000))
	require.NoError(t, err)
	require.Less(t, len(flow), 1024, "a browser keeps it")
	back := visit(t, address)
	mu.Lock()
	now = now.Add(oidc.FlowLasts)
	mu.Unlock()
	_, _, err = p.Finish(t.Context(), flow, back)
	require.ErrorIs(t, err, oidc.ErrNotBegun)
	mu.Lock()
	now = now.Add(-time.Second)
	mu.Unlock()
	restarted, err := oidc.New(oidc.Config{
		Issuer: at.URL, ClientID: oidctest.ClientID, ClientSecret: oidctest.ClientSecret, Redirect: redirect, DefaultRole: control.Viewer,
	})
	require.NoError(t, err)
	_, _, err = restarted.Finish(t.Context(), flow, back)
	require.ErrorIs(t, err, oidc.ErrNotBegun)
	_, next, err := p.Finish(t.Context(), flow, back)
	require.NoError(t, err)
	require.Equal(t, "/", next, "it was too long to keep")
}

// A provider that is away is asked again, but not by everybody at once; one that is there is asked once an hour.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now := time.Now()
	at, p := setup(t, func(c *oidc.Config) {
		c.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	})
	later := func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
	}
	broken := func(metadata map[string]any) { metadata["issuer"] = "https://login.example.org" }
	at.Set(func(p *oidctest.Provider) { p.Metadata = broken })
	var all sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		all.Go(func() { _, _, errs[i] = p.Begin(t.Context(), "/") })
	}
	all.Wait()
	for _, err := range errs {
		require.ErrorIs(t, err, oidc.ErrAway)
		require.ErrorContains(t, err, at.URL)
		require.ErrorContains(t, err, "Try again later, or sign in with a password; if it stays so, tell an admin: oidc: issuer URL provided to client")
	}
	require.Equal(t, 1, at.Asked())
	at.Set(func(p *oidctest.Provider) { p.Metadata = nil })
	at.Set(lasting)
	later(6 * time.Second)
	for range 3 {
		_, err := signIn(t, p)
		require.NoError(t, err)
	}
	require.Equal(t, 2, at.Asked())
	later(time.Hour)
	_, err := signIn(t, p)
	require.NoError(t, err)
	require.Equal(t, 3, at.Asked())
}

// What a provider says of itself is not followed everywhere.
func TestMetadata(t *testing.T) {
	t.Parallel()
	plain := "http://login.example.org"
	for name, c := range map[string]struct {
		change func(map[string]any)
		says   string
	}{
		"authorization endpoint": {func(m map[string]any) { m["authorization_endpoint"] = plain }, "its authorization endpoint is"},
		"no endpoint":            {func(m map[string]any) { delete(m, "authorization_endpoint") }, "its authorization endpoint is"},
		"script":                 {func(m map[string]any) { m["authorization_endpoint"] = "javascript:alert(1)" }, "its authorization endpoint is"},
		"token endpoint":         {func(m map[string]any) { m["token_endpoint"] = plain }, plain + " is not asked: it is neither https nor of this machine"},
		"keys":                   {func(m map[string]any) { m["jwks_uri"] = plain }, plain + " is not asked"},
		"challenges":             {func(m map[string]any) { m["code_challenge_methods_supported"] = []string{"plain"} }, "it takes code challenges plain: want S256"},
		"size":                   {func(m map[string]any) { m["x"] = strings.Repeat("x", 2<<20) }, "request body too large"},
		"scopes":                 {func(m map[string]any) { m["scopes_supported"] = 1 }, "cannot unmarshal"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at, p := setup(t, nil)
			at.Set(func(p *oidctest.Provider) { p.Metadata = c.change })
			address, flow, err := p.Begin(t.Context(), "/")
			if err == nil {
				_, _, err = p.Finish(t.Context(), flow, visit(t, address))
			}
			require.ErrorContains(t, err, c.says)
		})
	}
	// A provider may want the secret in the form, and may say little of itself.
	at, p := setup(t, nil)
	at.Set(func(p *oidctest.Provider) {
		p.Metadata = func(m map[string]any) {
			m["token_endpoint_auth_methods_supported"] = []string{"client_secret_post"}
			delete(m, "scopes_supported")
			delete(m, "code_challenge_methods_supported")
		}
	})
	address, _, err := p.Begin(t.Context(), "/")
	require.NoError(t, err)
	require.Contains(t, address, "scope=openid+profile+email&")
	_, err = signIn(t, p)
	require.ErrorContains(t, err, "it does not know this program: invalid_client; an admin has to give it the client id and secret that it knows")
	at.Set(func(p *oidctest.Provider) { p.SecretInForm = true })
	_, err = signIn(t, p)
	require.NoError(t, err)
}

// A provider that sends on is not followed: neither with the secret nor for metadata.
func TestProviderThatSendsOn(t *testing.T) {
	t.Parallel()
	at := oidctest.New(t, redirect)
	sends := httptest.NewServer(http.RedirectHandler(at.URL+"/.well-known/openid-configuration", http.StatusTemporaryRedirect))
	defer sends.Close()
	p, err := oidc.New(oidc.Config{Issuer: sends.URL, ClientID: "x", DefaultRole: control.Viewer})
	require.NoError(t, err)
	_, _, err = p.Begin(t.Context(), "/")
	require.ErrorIs(t, err, oidc.ErrAway)
	require.ErrorContains(t, err, "it sends on to "+at.URL)
	require.Zero(t, at.Asked())
}

func TestNew(t *testing.T) {
	t.Parallel()
	for issuer, says := range map[string]string{
		"https://login.example.edu/realms/district": "", "http://127.0.0.1:1": "", "http://localhost:1/x": "", "http://[::1]:1": "",
		"http://login.example.edu": "reached by https", "ftp://login.example.edu": "reached by https", "http://127.0.0.1.example.edu": "reached by https",
		"": "is no issuer", "login.example.edu": "is no issuer", "https://": "is no issuer", "https://ann:secret@login.example.edu": "is no issuer",
		"https://login.example.edu?x=y": "is no issuer", "https://login.example.edu#x": "is no issuer", "https://login.example.edu/%zz": "is no issuer",
	} {
		_, err := oidc.New(oidc.Config{Issuer: issuer, ClientID: "x", DefaultRole: control.Viewer})
		if says == "" {
			require.NoError(t, err, issuer)
		} else {
			require.ErrorContains(t, err, says, issuer)
		}
	}
	_, err := oidc.New(oidc.Config{Issuer: "https://login.example.edu", DefaultRole: control.Viewer})
	require.ErrorContains(t, err, "the client id is missing")
	_, err = oidc.New(oidc.Config{Issuer: "https://login.example.edu", ClientID: "x"})
	require.ErrorContains(t, err, "nobody would have a role")
}
