package access

import (
	"errors"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
)

// Where people sign in: ?next= is where they go then. ProviderPath sends them to an OpenID Connect provider, which sends them back to CallbackPath.
const (
	SignInPath   = "/login"
	ProviderPath = "/login/oidc"
	CallbackPath = "/login/oidc/callback"
)

// Names of cookies: of the one that holds a session's secret, and of the one that holds a sign-in at a provider until it is finished. Browsers take those
// with the prefix by TLS alone, and from this host alone.
const (
	sessionCookie = "millrace"
	flowCookie    = "millrace-oidc"
	securePrefix  = "__Host-"
)

// signedIn is who is signed in, with the secret of the session; without one, or with one that has ended, nobody is.
func (c Config) signedIn(r *http.Request) (p Principal, secret string, err error) {
	p = Principal{Name: "anonymous", Role: c.Anonymous}
	secret = c.Cookies.Secret(r)
	if secret == "" || c.Session == nil {
		return p, "", nil
	}
	who, err := c.Session(r.Context(), secret)
	if errors.Is(err, ErrUnknown) {
		return p, "", nil
	}
	return who, secret, err
}

// Cookies hold sessions' secrets in browsers, and sign-ins at a provider that have begun.
type Cookies struct {
	Secure bool // browsers reach the server by TLS, its own or that of something before it
}

// Secret is that of the session that a request shows; empty when it shows none.
func (c Cookies) Secret(r *http.Request) string { return c.shown(r, sessionCookie) }

// Begin has a browser show a session's secret from now on, for a time.
func (c Cookies) Begin(w http.ResponseWriter, secret string, lasts time.Duration) {
	http.SetCookie(w, c.cookie(sessionCookie, secret, int(lasts.Seconds())))
}

// End has a browser forget a session's secret.
func (c Cookies) End(w http.ResponseWriter) { http.SetCookie(w, c.cookie(sessionCookie, "", -1)) }

// Flow is the sign-in at a provider that a request shows; empty when it shows none.
func (c Cookies) Flow(r *http.Request) string { return c.shown(r, flowCookie) }

// BeginFlow has a browser show a sign-in at a provider when it comes back from there, within a time. Of two that one browser begins the later one counts.
func (c Cookies) BeginFlow(w http.ResponseWriter, flow string, lasts time.Duration) {
	http.SetCookie(w, c.cookie(flowCookie, flow, int(lasts.Seconds())))
}

// EndFlow has a browser forget a sign-in at a provider.
func (c Cookies) EndFlow(w http.ResponseWriter) { http.SetCookie(w, c.cookie(flowCookie, "", -1)) }

func (c Cookies) shown(r *http.Request, name string) string {
	cookie, err := r.Cookie(c.cookie(name, "", 0).Name)
	if err != nil {
		return ""
	}
	return cookie.Value
}

// cookie is one that scripts cannot read, and that other sites' pages show when a person follows a link from there, as from a provider, and not else.
func (c Cookies) cookie(name, value string, maxAge int) *http.Cookie {
	cookie := &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true, Secure: c.Secure, SameSite: http.SameSiteLaxMode}
	if c.Secure {
		cookie.Name = securePrefix + name
	}
	return cookie
}

// isPage reports whether a person asks for a page.
func isPage(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && strings.Contains(r.Header.Get("Accept"), "text/html")
}

// Next is where somebody goes who has signed in: a path of this server, or the overview when it is anything else.
func Next(text string) string {
	const overview = "/"
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" || !strings.HasPrefix(text, "/") || strings.Contains(text, "\\") ||
		path.Clean(u.Path) != u.Path {
		return overview
	}
	return u.RequestURI()
}
