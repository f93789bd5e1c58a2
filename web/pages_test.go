package web_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/control"
	"millrace/control/access"
	"millrace/control/oidc"
	"millrace/web"
)

// assetHash changes with every edit of a style; the golden pages are about the pages.
var assetHash = regexp.MustCompile(`(/assets/[a-z.-]+?)\.[0-9a-f]{12}\.`)

func masked(b []byte) []byte { return assetHash.ReplaceAll(b, []byte("$1.HASH.")) }

// TestPages renders each page from a full, an empty and a failing pipeline.
func TestPages(t *testing.T) {
	t.Parallel()
	empty := func(context.Context, string) (web.Status, error) {
		return web.Status{StartedAt: noon, Collected: web.Collected{Items: new(int64)}, Version: "1.0.0", DataDir: "/var/lib/millrace", CollectorURL: "http://127.0.0.1:8080/caliper"}, nil
	}
	failing := func(context.Context, string) (web.Status, error) { return web.Status{}, errDisk }

	for _, c := range []struct {
		name   string
		target string
		status int
		cfg    func(*pipeline) web.Config
		warm   int // seconds of history
	}{
		{"overview_full", "/?table=quiz_submission", http.StatusOK, (*pipeline).config, 90},
		{"overview_first_second", "/", http.StatusOK, (*pipeline).config, 0},
		{"overview_empty", "/", http.StatusOK, func(p *pipeline) web.Config { return web.Config{Status: empty, Now: p.now} }, 0},
		{"overview_error", "/", http.StatusServiceUnavailable, func(p *pipeline) web.Config { return web.Config{Status: failing, Now: p.now} }, 0},
		{"overview_parts_unread", "/", http.StatusOK, func(p *pipeline) web.Config { p.unread = errDisk; return p.config() }, 0},
		{"table_full", "/tables/quiz_submission", http.StatusOK, (*pipeline).config, 30},
		{"table_unread", "/tables/quiz_submission", http.StatusOK, func(p *pipeline) web.Config { p.unread = errDisk; return p.config() }, 0},
		{"table_error", "/tables/quiz_submission", http.StatusInternalServerError, func(p *pipeline) web.Config { return web.Config{Status: failing, Now: p.now} }, 0},
		{"error_not_found", "/tables/nope", http.StatusNotFound, (*pipeline).config, 0},
		{"login", "/login?next=/tables/quiz_submission", http.StatusOK, withAccounts(""), 0},
		{"login_provider", "/login?next=/tables/quiz_submission%3Fn%3D1", http.StatusOK, withProvider(nil), 0},
		{"login_provider_away", "/login/oidc?next=/tables/quiz_submission", http.StatusBadGateway, withProvider(errAway), 0},
		{"login_refused", "/login/oidc/callback?code=x&state=y", http.StatusForbidden, withProvider(errNoRole), 0},
		{"account_provider", "/account", http.StatusOK, signedInAtProvider, 0},
		{"setup", "/setup?token=good", http.StatusOK, withAccounts(""), 0},
		{"setup_used", "/setup?token=used", http.StatusNotFound, withAccounts(""), 0},
		{"account", "/account", http.StatusOK, withAccounts("ann"), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			clock := noon
			p := newPipeline(func() time.Time { return clock })
			s := newServer(t, c.cfg(p))
			for range c.warm {
				get(s, "/api/v1/status", "")
				clock = clock.Add(time.Second)
			}
			w := page(s, c.target)
			require.Equal(t, c.status, w.Code)
			require.Equal(t, "text/html; charset=utf-8", w.Header().Get("Content-Type"))
			golden(t, c.name+".html", masked(w.Body.Bytes()))
		})
	}
}

// Every page leads whoever is signed in to their account.
func TestSignedIn(t *testing.T) {
	t.Parallel()
	w := page(newServer(t, withAccounts("ann")(newPipeline(func() time.Time { return noon }))), "/")
	require.Contains(t, w.Body.String(), `<a class="who" href="/account">ann</a>`)
}

// TestStaleOverview: a status that cannot be read any more leaves the last values on the page and says so.
func TestStaleOverview(t *testing.T) {
	t.Parallel()
	clock := noon
	p := newPipeline(func() time.Time { return clock })
	s := newServer(t, p.config())
	require.Contains(t, page(s, "/").Body.String(), "1,204,551")
	p.fail(errDisk)
	clock = clock.Add(3 * time.Second)
	w := page(s, "/")
	require.Equal(t, http.StatusOK, w.Code)
	require.Contains(t, w.Body.String(), "1,204,551")
	require.Contains(t, w.Body.String(), "input/output error. The values are those of 2026-09-14 12:00:00 UTC")

	require.Equal(t, http.StatusServiceUnavailable, get(s, "/api/v1/status", "").Code, "a program must not take old values for present ones")
}

func TestAttention(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		tweak func(*web.Status)
		want  string
	}{
		{"failed job", func(s *web.Status) { s.Jobs[0].State, s.Jobs[0].Error = "FAILED", "disk full" }, "crusher-prime-job has failed: disk full"},
		{"source behind", func(s *web.Status) { s.Jobs[1].LagSeconds = new(95.0) }, "is 95 s behind the log (731 records)"},
		{"sink behind", func(s *web.Status) { s.Jobs[1].Sinks[0].BehindSeconds = new(600.0) }, "elastic of ingest-etl-edgenuity-lms-job is 10 min behind"},
		{"records lost", func(s *web.Status) { s.Ledger.Accounts[0].Total.Count += 3 }, "The ledger does not balance: collector to lake is 3 short."},
		{"records double", func(s *web.Status) { s.Ledger.Accounts[0].Total.Count -= 3 }, "collector to lake is 3 over."},
		{"records of several accounts lost", func(s *web.Status) {
			s.Ledger.Accounts[0].Total.Count += 3
			s.Ledger.Accounts[1].Total.Count += 2
		}, "collector to lake is 3 short, ingest-etl-edgenuity-lms-job is 2 short."},
		{"part unread", func(s *web.Status) { s.Problems = []string{"the lake's catalogue is locked"} }, "The lake&#39;s catalogue is locked."},
		{"dead letters", func(*web.Status) {}, "2 records made no row"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPipeline(func() time.Time { return noon })
			p.tweak = c.tweak
			body := page(newServer(t, p.config()), "/").Body.String()
			require.Contains(t, body, c.want)
			require.NotContains(t, body, "Nothing needs attention")
		})
	}
}

// TestAttentionWorstFirst: what a failed job brings with it comes after the failure.
func TestAttentionWorstFirst(t *testing.T) {
	t.Parallel()
	p := newPipeline(func() time.Time { return noon })
	p.tweak = func(s *web.Status) {
		s.Jobs[0].State = "FAILED"
		s.Ledger.Accounts[0].Total.Count += 3
	}
	require.Regexp(t, `(?s)crusher-prime-job has failed.*does not balance`, page(newServer(t, p.config()), "/").Body.String())
}

// TestUncertainLedger: a difference that may be nothing is shown, and is no alarm.
func TestUncertainLedger(t *testing.T) {
	t.Parallel()
	p := newPipeline(func() time.Time { return noon })
	p.tweak = func(s *web.Status) {
		s.Ledger.Accounts[0].Total.Count += 3
		s.Ledger.Accounts[0].Uncertain = true
	}
	s := newServer(t, p.config())
	body := page(s, "/").Body.String()
	require.Contains(t, body, "Not certain yet")
	require.Regexp(t, `<tr class="difference"><th scope="row">difference</th><td class="n">3</td>`, body)
	require.NotContains(t, body, "does not balance")
	require.Contains(t, get(s, "/api/v1/status", "").Body.String(), `"balanced":null`)
}

// TestUnknownIsNotZero: a value that could not be read shows as a dash, in its place and in every sum of it.
func TestUnknownIsNotZero(t *testing.T) {
	t.Parallel()
	p := newPipeline(func() time.Time { return noon })
	p.tweak = func(s *web.Status) {
		s.Lake.Entities = nil
		for i := range s.Tables[:6] {
			s.Tables[i].DeadLetters = nil
		}
	}
	body := page(newServer(t, p.config()), "/").Body.String()
	require.Regexp(t, `(?s)<h2>Raw lake</h2>\s*<p class="big">–</p>`, body)
	require.Regexp(t, `<dt>entities</dt><dd>–</dd>`, body)
	require.Regexp(t, `(?s)<h2>Dead letters</h2>\s*<p class="big">–</p>`, body)
}

func TestStatusJSON(t *testing.T) {
	t.Parallel()
	clock := noon
	p := newPipeline(func() time.Time { return clock })
	s := newServer(t, p.config())
	for range 8 {
		get(s, "/api/v1/status", "")
		clock = clock.Add(time.Second)
	}
	w := get(s, "/api/v1/status", "")
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))

	var st web.Status
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &st))
	require.Equal(t, clock, st.At)
	require.True(t, st.Ledger.Balanced())
	require.NotNil(t, st.Collected.PerSecond)
	require.InDelta(t, 412+12, *st.Collected.PerSecond, 5, "rate worked out from the totals of the last seconds")
	require.NotNil(t, st.Jobs[1].ReadPerSecond)

	var raw map[string]any
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &raw))
	require.Equal(t, true, raw["ledger"].(map[string]any)["balanced"])
}

// TestStatusIsReadOncePerSecond: many readers cost one.
func TestStatusIsReadOncePerSecond(t *testing.T) {
	t.Parallel()
	clock := noon
	p := newPipeline(func() time.Time { return clock })
	calls := 0
	cfg := p.config()
	cfg.Status = func(ctx context.Context, account string) (web.Status, error) { calls++; return p.status(ctx, account) }
	s := newServer(t, cfg)
	for range 10 {
		page(s, "/")
	}
	require.Equal(t, 1, calls)
	clock = clock.Add(time.Second)
	page(s, "/")
	require.Equal(t, 2, calls)
}

func TestHealth(t *testing.T) {
	t.Parallel()
	p := newPipeline(func() time.Time { return noon })
	var notReady error
	cfg := p.config()
	cfg.Ready = func(context.Context) error { return notReady }
	s := newServer(t, cfg)
	require.Equal(t, http.StatusOK, get(s, "/healthz", "").Code)
	require.Equal(t, http.StatusOK, get(s, "/readyz", "").Code)
	notReady = errDisk
	w := get(s, "/readyz", "")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Equal(t, errDisk.Error(), strings.TrimSpace(w.Body.String()))
}

func TestNewNeedsStatus(t *testing.T) {
	t.Parallel()
	_, err := web.New(web.Config{})
	require.ErrorContains(t, err, "Config.Status")
	_, err = web.New(web.Config{Status: newPipeline(time.Now).status, Dev: t.TempDir()})
	require.ErrorContains(t, err, "load the console's pages")
}

// people is accounts of one who is signed in, or of nobody. It says what it is told to.
type people struct {
	who    string
	issuer string
	err    error
}

func withAccounts(who string) func(p *pipeline) web.Config {
	return func(p *pipeline) web.Config {
		cfg := p.config()
		cfg.Accounts = people{who: who}
		return cfg
	}
}

func (a people) SignIn(*http.Request, string, string) (string, error) { return "secret", a.err }
func (a people) SignOut(context.Context, string) error                { return a.err }
func (a people) SetPassword(*http.Request, string, string, string) error {
	return a.err
}
func (a people) Setup(token string) bool                           { return token == "good" }
func (a people) SetUp(*http.Request, string, string, string) error { return a.err }

func (a people) Who(context.Context, string) (access.Principal, bool) {
	return access.Principal{Name: a.who, Role: control.Operator, Issuer: a.issuer}, a.who != ""
}

const issuer = "https://login.example.edu/realms/district"

// What a provider's sign-in may end with.
var (
	errAway   = &oidc.Error{Kind: oidc.ErrAway, Text: "the OpenID Connect provider " + issuer + " does not answer as one. Try again later, or sign in with a password; if it stays so, tell an admin: 503 Service Unavailable"}
	errNoRole = &oidc.Error{Kind: oidc.ErrNoRole, Text: "the OpenID Connect provider " + issuer + ` knows you as ann, and you have no role here: your groups are "students". Ask an admin to give one of them a role (oidc-roles), or to give you one that has`}
)

// school is a provider that says what it is told to. Who comes back from it goes to the table's page.
type school struct{ err error }

func (school) Name() string { return "the district's account" }

func (p school) Begin(_ *http.Request, next string) (address, flow string, err error) {
	return issuer + "/authorize?state=s&next=" + next, "flow of " + next, p.err
}

func (p school) Finish(*http.Request, string) (secret, next string, err error) {
	return "secret", "/tables/quiz_submission", p.err
}

func withProvider(err error) func(p *pipeline) web.Config {
	return func(p *pipeline) web.Config {
		cfg := withAccounts("")(p)
		cfg.Provider = school{err}
		return cfg
	}
}

func signedInAtProvider(p *pipeline) web.Config {
	cfg := p.config()
	cfg.Accounts = people{who: "ann@example.edu", issuer: issuer}
	return cfg
}

// Who goes to a provider keeps the sign-in meanwhile, and is signed in when it comes back.
func TestProvider(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		prefix := map[bool]string{true: "__Host-"}[secure]
		ask := func(target string, err error) *http.Response {
			cfg := withProvider(err)(newPipeline(func() time.Time { return noon }))
			cfg.Cookies.Secure = secure
			return page(newServer(t, cfg), target).Result()
		}
		res := ask("/login/oidc?next=/tables/quiz", nil)
		require.Equal(t, 303, res.StatusCode)
		require.Equal(t, issuer+"/authorize?state=s&next=/tables/quiz", res.Header.Get("Location"))
		require.Len(t, res.Cookies(), 1)
		flow := res.Cookies()[0]
		require.Equal(t, prefix+"millrace-oidc", flow.Name)
		require.Equal(t, "flow of /tables/quiz", flow.Value)
		require.Equal(t, []any{true, secure, http.SameSiteLaxMode, "/", 600}, []any{flow.HttpOnly, flow.Secure, flow.SameSite, flow.Path, flow.MaxAge})
		res = ask("/login/oidc?next=//evil.example/", nil)
		require.Equal(t, issuer+"/authorize?state=s&next=/", res.Header.Get("Location"))

		res = ask("/login/oidc/callback?code=x", nil)
		require.Equal(t, 303, res.StatusCode)
		require.Equal(t, "/tables/quiz_submission", res.Header.Get("Location"))
		require.Equal(t, []string{prefix + "millrace-oidc", prefix + "millrace"}, []string{res.Cookies()[0].Name, res.Cookies()[1].Name})
		require.Negative(t, res.Cookies()[0].MaxAge)

		for _, c := range []struct {
			err    error
			status int
			says   string
			ends   bool // the sign-in that has begun
		}{
			{errAway, 502, issuer, true},
			{errNoRole, 403, "(oidc-roles)", true},
			{&oidc.Error{Kind: oidc.ErrDenied, Text: "no"}, 403, "No.", true},
			{&oidc.Error{Kind: oidc.ErrNotBegun, Text: "begin again"}, 400, "Begin again.", false},
			{fmt.Errorf("sign in: %w: the user ann may not sign in here", control.ErrRefused), 403, "The user ann may not sign in here.", true},
			{web.Wait(29 * time.Second), 429, "Too many tries", true},
			{errDisk, 500, "input/output error", true},
		} {
			res := ask("/login/oidc/callback?code=x", c.err)
			require.Equal(t, c.status, res.StatusCode)
			require.Contains(t, drain(t, res.Body), c.says)
			var ended bool
			for _, cookie := range res.Cookies() {
				require.Equal(t, prefix+"millrace-oidc", cookie.Name, "nobody is signed in")
				ended = true
			}
			require.Equal(t, c.ends, ended)
		}
	}
	// Without a provider there is no way to one.
	s := newServer(t, withAccounts("")(newPipeline(func() time.Time { return noon })))
	require.Equal(t, 404, page(s, "/login/oidc").Code)
	require.Equal(t, 404, page(s, "/login/oidc/callback").Code)
}

// What is wrong with a form is said beside it, and what was typed is kept, but for passwords.
func TestForms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path, form string
		err        error
		status     int
		says       string
	}{
		{"/login", "name=ann&password=secret&next=/tables/quiz", control.ErrWrongPassword, 401, "Wrong name or password."},
		{"/login", "name=ann&password=secret&next=/tables/quiz", web.Wait(29 * time.Second), 429, "Too many tries; try again in 30 s."},
		{"/login", "name=ann&password=secret&next=/tables/quiz", errDisk, 500, "input/output error"},
		{"/login", "name=%zz", nil, 400, "the form"},
		{"/login", "name=ann&password=" + strings.Repeat("x", 20_000), nil, 400, "request body too large"},
		{"/setup", "token=good&name=ann&password=secret&again=secret", fmt.Errorf("add user ann: %w: a password has 10 characters or more", control.ErrRefused), 422, "A password has 10 characters or more."},
		{"/setup", "token=good&name=ann&password=secret&again=other", nil, 422, "The two passwords are not the same."},
		{"/setup", "token=used&name=ann&password=secret&again=secret", nil, 404, "the link was used"},
		{"/account", "old=secret&password=secret2&again=secret2", control.ErrWrongPassword, 401, "That is not your password."},
	} {
		p := newPipeline(func() time.Time { return noon })
		cfg := p.config()
		cfg.Accounts = people{who: "ann", err: c.err}
		s := newServer(t, cfg)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, c.path, strings.NewReader(c.form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Accept", "text/html")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		require.Equal(t, c.status, w.Code, "%s %s: %s", c.path, c.form, w.Body)
		require.Contains(t, w.Body.String(), c.says, "%s %s", c.path, c.err)
		require.NotContains(t, w.Body.String(), "secret")
		require.Empty(t, w.Result().Cookies()) //nolint:bodyclose // it has none
		if c.status == 401 && c.path == "/login" {
			require.Contains(t, w.Body.String(), `value="ann"`)
			require.Contains(t, w.Body.String(), `value="/tables/quiz"`)
		}
		require.Equal(t, c.status == 429, w.Header().Get("Retry-After") != "")
	}
}
