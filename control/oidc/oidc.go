// Package oidc identifies people at an OpenID Connect provider: authorization code flow with PKCE, discovery, and ID tokens that are verified.
//
// The one idea: a sign-in is two requests of one browser, and what belongs to it is with the browser meanwhile, sealed (flow.go), so that the process keeps
// nothing for whoever only begins. What the provider says of a person becomes a control.Identity (claims.go); who may come in is control's to say.
//
//	browser ── Begin ──▶ provider's authorization endpoint, with state, nonce and the challenge of a verifier
//	        ◀──────────  code, state
//	        ── Finish ─▶ provider's token endpoint, with code and verifier: an ID token, with the nonce
//
// It keeps no access token, and signs nobody out at the provider.
package oidc

import (
	"cmp"
	"context"
	"crypto/cipher"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	goidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"millrace/control"
)

// Config says which provider it is, and what its claims mean here.
type Config struct {
	Issuer   string // URL of the provider, exactly as its tokens have it: https, or http of this machine alone
	ClientID string // that the provider knows this program by

	// ClientSecret is shown to the token endpoint. Default: none, as a public client has it; PKCE is used in either case.
	ClientSecret string

	Redirect string // URL that the provider sends browsers back to, exactly as it is registered there

	// RoleClaim tells the role: a text, or a list of them. It is a claim's name, or a path to a member of one that is an object: realm_access.roles. Default:
	// groups.
	RoleClaim   string
	Roles       map[string]control.Role // by value of that claim; of several the greatest counts
	DefaultRole control.Role            // of who has no value in Roles; 0: none, they are refused

	// AccountClaim tells the account that somebody is bound to: a text, named as RoleClaim is. Who has none is refused, unless they are admin. Default: nobody is
	// bound.
	AccountClaim string

	Transport http.RoundTripper // that reaches the provider; default: http.DefaultTransport
	Now       func() time.Time  // default: time.Now
}

// DefaultRoleClaim is what most providers call the claim with a person's groups.
const DefaultRoleClaim = "groups"

func (c Config) withDefaults() Config {
	c.RoleClaim = cmp.Or(c.RoleClaim, DefaultRoleClaim)
	if c.Transport == nil {
		c.Transport = http.DefaultTransport
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Kinds of an Error.
var (
	// ErrAway: the provider does not answer, or not as a provider does.
	ErrAway = errors.New("the provider is away")

	// ErrNotBegun: whoever comes back has not gone from here, or too long ago.
	ErrNotBegun = errors.New("the sign-in was not begun here")

	// ErrDenied: the provider says no, or what it says is not to be believed.
	ErrDenied = errors.New("the sign-in was denied")

	// ErrNoRole: the provider says who it is, and gives them no role, or not the account that they would have it in.
	ErrNoRole = errors.New("no role")
)

// Error says why somebody was not identified.
type Error struct {
	Kind error  // one of those above
	Text string // for them: what happened at which provider, and what to do
}

func (e *Error) Error() string { return e.Text }
func (e *Error) Unwrap() error { return e.Kind }

const (
	timeout = 10 * time.Second // of one request to the provider
	maxBody = 1 << 20          // bytes of one answer

	discoveryFresh = time.Hour       // then the provider is asked anew where its endpoints are
	discoveryAgain = 5 * time.Second // after a failure: until then it is everybody's who asks
)

// Provider identifies people. It is safe for concurrent use.
type Provider struct {
	cfg    Config
	client *http.Client
	sealed cipher.AEAD

	asking chan struct{} // holds one token while somebody asks for metadata

	mu    sync.Mutex
	found *metadata // of the provider; nil: not yet
	err   error     // why it is nil
	asked time.Time // when either was found
}

// metadata is what discovery says of a provider.
type metadata struct {
	provider *goidc.Provider
	verifier *goidc.IDTokenVerifier
	oauth    oauth2.Config
}

// New returns what identifies people at a provider. It does not ask the provider for anything: that may be away.
func New(cfg Config) (*Provider, error) {
	cfg = cfg.withDefaults()
	if err := ValidIssuer(cfg.Issuer); err != nil {
		return nil, err
	}
	if cfg.ClientID == "" {
		return nil, errors.New("the client id is missing")
	}
	if len(cfg.Roles) == 0 && cfg.DefaultRole == 0 {
		return nil, errors.New("nobody would have a role: neither values of the claim nor a default role are given")
	}
	p := &Provider{cfg: cfg, sealed: newSeal(), asking: make(chan struct{}, 1)}
	p.client = &http.Client{Timeout: timeout, Transport: guarded{cfg.Transport}, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		return fmt.Errorf("it sends on to %s, where secrets are not taken to", r.URL.Redacted())
	}}
	return p, nil
}

// ValidIssuer returns an error unless a URL can be an issuer: tokens, and the keys that they are verified with, come from there.
func ValidIssuer(issuer string) error {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%q is no issuer: want a URL such as https://login.example.edu/realms/district, without user, query and fragment", issuer)
	}
	if !confidential(u) {
		return fmt.Errorf("%q: an issuer is reached by https, or by http on this machine alone", issuer)
	}
	return nil
}

// confidential reports whether nobody listens on the way to an address.
func confidential(u *url.URL) bool {
	if u.Scheme != "http" {
		return u.Scheme == "https"
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// guarded asks confidential addresses alone, also of those that the provider has named, and reads no more than maxBody of an answer.
type guarded struct{ next http.RoundTripper }

func (g guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	if !confidential(r.URL) {
		return nil, fmt.Errorf("%s is not asked: it is neither https nor of this machine", r.URL.Redacted())
	}
	res, err := g.next.RoundTrip(r)
	if err == nil {
		res.Body = http.MaxBytesReader(nil, res.Body, maxBody)
	}
	return res, err
}

// away says that the provider could not be asked.
func (p *Provider) away(cause error) *Error {
	return &Error{ErrAway, fmt.Sprintf("the OpenID Connect provider %s does not answer as one. Try again later, or sign in with a password; if it stays so, tell an admin: %s",
		p.cfg.Issuer, Brief(cause.Error()))}
}

func (p *Provider) denied(format string, args ...any) *Error {
	return &Error{ErrDenied, fmt.Sprintf("the OpenID Connect provider %s did not sign you in: %s", p.cfg.Issuer, Brief(fmt.Sprintf(format, args...)))}
}

// Brief is a text of somebody else in one line of 300 characters at most, which does nothing to a terminal.
func Brief(text string) string {
	const most = 300
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > most {
		text = string(r[:most]) + "…"
	}
	return text
}

// discover returns what the provider says of itself. One asks at a time, and what they are told is told to those who wait.
func (p *Provider) discover(ctx context.Context) (*metadata, error) {
	if m, err, fresh := p.discovered(); fresh {
		return m, err
	}
	select {
	case p.asking <- struct{}{}:
		defer func() { <-p.asking }()
	case <-ctx.Done():
		return nil, p.away(context.Cause(ctx))
	}
	if m, err, fresh := p.discovered(); fresh {
		return m, err
	}
	m, err := p.ask(context.WithoutCancel(ctx)) // others wait for it, and it has a time limit of its own
	p.mu.Lock()
	defer p.mu.Unlock()
	p.found, p.err, p.asked = m, err, p.cfg.Now()
	return m, err
}

// discovered is what was found last, and whether that still counts.
func (p *Provider) discovered() (m *metadata, err error, fresh bool) { //nolint:revive // whether it counts is said of both
	p.mu.Lock()
	defer p.mu.Unlock()
	age := p.cfg.Now().Sub(p.asked)
	return p.found, p.err, p.found != nil && age < discoveryFresh || p.err != nil && age < discoveryAgain
}

func (p *Provider) ask(ctx context.Context) (*metadata, error) {
	ctx = goidc.ClientContext(ctx, p.client)
	provider, err := goidc.NewProvider(ctx, p.cfg.Issuer)
	if err != nil {
		return nil, p.away(err)
	}
	var says struct {
		Scopes      []string `json:"scopes_supported"`
		AuthMethods []string `json:"token_endpoint_auth_methods_supported"`
		Challenges  []string `json:"code_challenge_methods_supported"`
	}
	if err := provider.Claims(&says); err != nil {
		return nil, p.away(err)
	}
	endpoint := provider.Endpoint()
	if to, err := url.Parse(endpoint.AuthURL); err != nil || to.Host == "" || !confidential(to) {
		return nil, p.away(fmt.Errorf("its authorization endpoint is %q: want https", endpoint.AuthURL))
	}
	if len(says.Challenges) > 0 && !slices.Contains(says.Challenges, "S256") {
		return nil, p.away(fmt.Errorf("it takes code challenges %s: want S256", strings.Join(says.Challenges, ", ")))
	}
	// One attempt, of the way that it takes: a code that was shown twice is taken for stolen.
	endpoint.AuthStyle = oauth2.AuthStyleInHeader
	if p.cfg.ClientSecret == "" || len(says.AuthMethods) > 0 && !slices.Contains(says.AuthMethods, "client_secret_basic") {
		endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	return &metadata{
		provider: provider,
		verifier: provider.VerifierContext(ctx, &goidc.Config{ClientID: p.cfg.ClientID, Now: p.cfg.Now}),
		oauth:    oauth2.Config{ClientID: p.cfg.ClientID, ClientSecret: p.cfg.ClientSecret, Endpoint: endpoint, RedirectURL: p.cfg.Redirect, Scopes: p.scopes(says.Scopes)},
	}, nil
}

// scopes are those to ask for: names, and the claims of role and account, where the provider has a scope of that name.
func (p *Provider) scopes(supported []string) []string {
	scopes := []string{goidc.ScopeOpenID}
	for _, s := range []string{"profile", "email"} {
		if len(supported) == 0 || slices.Contains(supported, s) {
			scopes = append(scopes, s)
		}
	}
	for _, claim := range []string{p.cfg.RoleClaim, p.cfg.AccountClaim} {
		if slices.Contains(supported, claim) && !slices.Contains(scopes, claim) {
			scopes = append(scopes, claim)
		}
	}
	return scopes
}

// Begin begins a sign-in: the browser goes to an address of the provider, and shows flow when it comes back, within FlowLasts. Next is where it goes then, a
// path of this server. The error is an *Error.
func (p *Provider) Begin(ctx context.Context, next string) (address, flow string, err error) {
	m, err := p.discover(ctx)
	if err != nil {
		return "", "", err
	}
	f := newFlow(next, p.cfg.Now())
	return m.oauth.AuthCodeURL(f.State, goidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)), f.seal(p.sealed), nil
}

// Finish ends a sign-in: who it is says the provider, asked with the code of the query that it has sent the browser back with. Next is what Begin was given,
// empty for a flow that is not of Begin. The error is an *Error; with ErrNoRole the identity is whole but for the role, with others it is empty.
func (p *Provider) Finish(ctx context.Context, flow string, query url.Values) (id control.Identity, next string, err error) {
	f, ok := openFlow(p.sealed, flow, p.cfg.Now())
	if ok {
		next = f.Next
	}
	if !ok || subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(f.State)) != 1 {
		return id, next, &Error{ErrNotBegun, fmt.Sprintf("this sign-in was not begun in this browser at %s, or more than %d minutes ago, or is over: begin again there",
			origin(p.cfg.Redirect), int(FlowLasts.Minutes()))}
	}
	id, err = p.identify(ctx, f, query)
	return id, next, err
}

// origin is the part of a URL that cookies belong to.
func origin(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return text
	}
	return u.Scheme + "://" + u.Host
}

// identify finds out who has come back.
func (p *Provider) identify(ctx context.Context, f flow, query url.Values) (id control.Identity, err error) {
	if iss := query.Get("iss"); iss != "" && iss != p.cfg.Issuer { // RFC 9207
		return id, p.denied("the answer is of another one, %s", iss)
	}
	if code := query.Get("error"); code != "" {
		if code == "temporarily_unavailable" || code == "server_error" {
			return id, p.away(fmt.Errorf("it says %s: %s", code, query.Get("error_description")))
		}
		return id, p.denied("it says %s %s", code, query.Get("error_description"))
	}
	if query.Get("code") == "" {
		return id, p.denied("its answer has neither a code nor an error")
	}
	m, err := p.discover(ctx)
	if err != nil {
		return id, err
	}
	ctx = goidc.ClientContext(ctx, p.client)
	token, err := m.oauth.Exchange(ctx, query.Get("code"), oauth2.VerifierOption(f.Verifier))
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) && refused.Response != nil && refused.Response.StatusCode < 500 {
		return id, p.denied("%s", retrieveError(refused))
	}
	if err != nil {
		return id, p.away(err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return id, p.denied("it sent no ID token")
	}
	verified, err := m.verifier.Verify(ctx, raw)
	if err != nil {
		return id, p.denied("its ID token is not believed: %s", err)
	}
	if subtle.ConstantTimeCompare([]byte(verified.Nonce), []byte(f.Nonce)) != 1 {
		return id, p.denied("its ID token is not believed: the nonce is that of another sign-in")
	}
	all := claims{}
	if err := verified.Claims(&all); err != nil {
		return id, p.denied("its ID token is not believed: %s", err)
	}
	if party, ok := all["azp"]; ok && party != p.cfg.ClientID || !ok && len(verified.Audience) > 1 {
		return id, p.denied("its ID token is not believed: it is for %v, and was given to another client", verified.Audience)
	}
	if verified.Subject == "" || len(verified.Subject) > maxSubject {
		return id, p.denied("its ID token is not believed: the subject has %d bytes, want 1 to %d", len(verified.Subject), maxSubject)
	}
	if !p.cfg.suffice(all) && m.provider.UserInfoEndpoint() != "" {
		if err := p.addUserInfo(ctx, m, token, verified, all); err != nil {
			return id, err
		}
	}
	id = control.Identity{Issuer: p.cfg.Issuer, Subject: verified.Subject, Names: all.names()}
	role, err := p.cfg.role(all)
	if err == nil {
		id.Account, err = p.cfg.account(all, role)
	}
	if err == nil {
		id.Role = role
	}
	return id, err
}

// maxSubject is how long a subject may be, in bytes (OpenID Connect Core 1.0, section 2).
const maxSubject = 255

// addUserInfo adds the claims that the ID token has not. They are of the same person, or of nobody.
func (p *Provider) addUserInfo(ctx context.Context, m *metadata, token *oauth2.Token, verified *goidc.IDToken, all claims) error {
	if verified.AccessTokenHash != "" {
		if err := verified.VerifyAccessToken(token.AccessToken); err != nil {
			return p.denied("its access token is not believed: %s", err)
		}
	}
	info, err := m.provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return p.away(fmt.Errorf("ask it for more of you: %w", err))
	}
	if info.Subject != verified.Subject {
		return p.denied("what it says of you is of somebody else: of %q, and its ID token is of %q", info.Subject, verified.Subject)
	}
	more := claims{}
	if err := info.Claims(&more); err != nil {
		return p.away(fmt.Errorf("what it says of you: %w", err))
	}
	all.add(more)
	return nil
}

// retrieveError says why the token endpoint has refused. Whether the client is meant is for an admin.
func retrieveError(err *oauth2.RetrieveError) string {
	switch err.ErrorCode {
	case "":
		return "its token endpoint answers " + err.Response.Status
	case "invalid_client", "unauthorized_client":
		return strings.TrimSpace("it does not know this program: "+err.ErrorCode+" "+err.ErrorDescription) + "; an admin has to give it the client id and secret that it knows"
	case "invalid_grant":
		return strings.TrimSpace("the code was used, or has expired: "+err.ErrorCode+" "+err.ErrorDescription) + "; begin again"
	}
	return strings.TrimSpace("its token endpoint answers " + err.ErrorCode + " " + err.ErrorDescription)
}
