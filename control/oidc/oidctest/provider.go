// Package oidctest is an OpenID Connect provider for tests: discovery, keys, authorization, token and userinfo endpoints that check what a provider has to
// check. Whoever is sent to it is the person of its Claims at once; what it says can be made wrong.
package oidctest

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// What the provider knows its client by.
const (
	ClientID     = "millrace"
	ClientSecret = "client secret that no file has" // it has to be escaped in the Authorization header
)

// Provider is a provider at http://127.0.0.1. Change it with Set alone.
type Provider struct {
	URL string // its issuer

	// Claims are those of who signs in: sub, and what the ID token shall have beside the protocol's own.
	Claims map[string]any
	// UserInfo are claims that only the userinfo endpoint has. Sub is that of Claims unless it is said.
	UserInfo map[string]any
	// Deny, when not empty, is the error that whoever signs in is sent back with.
	Deny string
	// Tamper changes an ID token before it is signed. An alg of none leaves it unsigned, HS256 signs it with the client's secret.
	Tamper func(header, claims map[string]any)
	// Forged tokens are signed with a key that the provider does not publish.
	Forged bool
	// SecretInForm has the token endpoint take the client's secret in the form, and not as HTTP's basic authentication.
	SecretInForm bool
	// Metadata changes what discovery says.
	Metadata func(map[string]any)
	// Away has it answer 503 to everything.
	Away bool

	mu       sync.Mutex
	server   *httptest.Server
	key      *rsa.PrivateKey
	forger   *rsa.PrivateKey
	redirect string
	codes    map[string]url.Values // of authorization requests, by code, until it is used
	tokens   map[string]bool       // access tokens
	asked    int                   // for metadata
}

// New runs a provider until the test ends. It sends browsers back to redirect alone.
func New(t *testing.T, redirect string) *Provider {
	t.Helper()
	p := &Provider{redirect: redirect, codes: map[string]url.Values{}, tokens: map[string]bool{}}
	for _, key := range []**rsa.PrivateKey{&p.key, &p.forger} {
		var err error
		if *key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			t.Fatal(err)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", p.metadata)
	mux.HandleFunc("GET /keys", p.keys)
	mux.HandleFunc("GET /authorize", p.authorize)
	mux.HandleFunc("POST /token", p.token)
	mux.HandleFunc("GET /userinfo", p.userInfo)
	p.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.Away {
			http.Error(w, "away", http.StatusServiceUnavailable)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(p.server.Close)
	p.URL = p.server.URL
	return p
}

// Set changes the provider while it runs.
func (p *Provider) Set(change func(*Provider)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

// SetRedirect says where browsers are sent back to.
func (p *Provider) SetRedirect(redirect string) { p.Set(func(p *Provider) { p.redirect = redirect }) }

// Asked is how often it was asked for its metadata.
func (p *Provider) Asked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (p *Provider) metadata(w http.ResponseWriter, _ *http.Request) {
	p.asked++
	says := map[string]any{
		"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys", "userinfo_endpoint": p.URL + "/userinfo",
		"scopes_supported":                      []string{"openid", "profile", "email", "groups"},
		"response_types_supported":              []string{"code"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"}, // a careless one
		"code_challenge_methods_supported":      []string{"S256"},
	}
	if p.Metadata != nil {
		p.Metadata(says)
	}
	answer(w, http.StatusOK, says)
}

func (p *Provider) keys(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{"keys": []any{map[string]any{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1", "n": b64(p.key.N.Bytes()), "e": b64(big.NewInt(int64(p.key.E)).Bytes()),
	}}})
}

func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("client_id") != ClientID || q.Get("redirect_uri") != p.redirect { // then nobody is sent anywhere
		http.Error(w, "unknown client or redirect_uri "+q.Get("redirect_uri"), http.StatusBadRequest)
		return
	}
	back := url.Values{"state": {q.Get("state")}, "iss": {p.URL}}
	scopes := strings.Fields(q.Get("scope"))
	switch {
	case p.Deny != "":
		back.Set("error", p.Deny)
		back.Set("error_description", "the\x1b[31m person\nsaid no")
	case q.Get("response_type") != "code" || len(scopes) == 0 || scopes[0] != "openid" || q.Get("state") == "" || q.Get("nonce") == "" ||
		q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43:
		back.Set("error", "invalid_request")
	default:
		code := rand.Text()
		p.codes[code] = q
		back.Set("code", code)
	}
	http.Redirect(w, r, p.redirect+"?"+back.Encode(), http.StatusFound)
}

func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	id, secret, _ := r.BasicAuth()
	id, _ = url.QueryUnescape(id)
	secret, _ = url.QueryUnescape(secret)
	if p.SecretInForm {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	if id != ClientID || secret != ClientSecret {
		answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	asked, ok := p.codes[r.PostFormValue("code")]
	delete(p.codes, r.PostFormValue("code"))
	challenge := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if !ok || r.PostFormValue("grant_type") != "authorization_code" || r.PostFormValue("redirect_uri") != asked.Get("redirect_uri") || b64(challenge[:]) != asked.Get("code_challenge") {
		answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
		return
	}
	access := rand.Text()
	p.tokens[access] = true
	now := time.Now()
	header := map[string]any{"alg": "RS256", "kid": "1", "typ": "JWT"}
	hash := sha256.Sum256([]byte(access))
	claims := map[string]any{"iss": p.URL, "aud": ClientID, "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "nonce": asked.Get("nonce"), "at_hash": b64(hash[:16])}
	maps.Copy(claims, p.Claims)
	if p.Tamper != nil {
		p.Tamper(header, claims)
	}
	answer(w, http.StatusOK, map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": p.sign(header, claims)})
}

func (p *Provider) userInfo(w http.ResponseWriter, r *http.Request) {
	access, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !p.tokens[access] {
		answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_token"})
		return
	}
	says := map[string]any{"sub": p.Claims["sub"]}
	maps.Copy(says, p.UserInfo)
	answer(w, http.StatusOK, says)
}

// sign makes a JSON Web Token, by hand: the provider is to know no library that the client knows.
func (p *Provider) sign(header, claims map[string]any) string {
	text := b64(marshal(header)) + "." + b64(marshal(claims))
	digest := sha256.Sum256([]byte(text))
	switch header["alg"] {
	case "none":
		return text + "."
	case "HS256":
		mac := hmac.New(sha256.New, []byte(ClientSecret))
		mac.Write([]byte(text))
		return text + "." + b64(mac.Sum(nil))
	}
	key := p.key
	if p.Forged {
		key = p.forger
	}
	signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:])
	if err != nil {
		panic(err)
	}
	return text + "." + b64(signature)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(marshal(v)) // who asked has gone
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
