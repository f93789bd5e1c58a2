package access

import (
	"errors"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
)

// SignInPath is where people sign in. ?next= is where they go then.
const SignInPath = "/login"

// Names of the cookie that holds a session's secret. Browsers take the first one by TLS alone, and from this host alone.
const (
	secureCookie = "__Host-millrace"
	plainCookie  = "millrace"
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

// Cookies hold sessions' secrets in browsers.
type Cookies struct {
	Secure bool // browsers reach the server by TLS, its own or that of something before it
}

// Secret is that of the session that a request shows; empty when it shows none.
func (c Cookies) Secret(r *http.Request) string {
	cookie, err := r.Cookie(c.cookie("", 0).Name)
	if err != nil {
		return ""
	}
	return cookie.Value
}

// Begin has a browser show a session's secret from now on, for a time.
func (c Cookies) Begin(w http.ResponseWriter, secret string, lasts time.Duration) {
	http.SetCookie(w, c.cookie(secret, int(lasts.Seconds())))
}

// End has a browser forget a session's secret.
func (c Cookies) End(w http.ResponseWriter) { http.SetCookie(w, c.cookie("", -1)) }

func (c Cookies) cookie(secret string, maxAge int) *http.Cookie {
	cookie := &http.Cookie{Name: plainCookie, Value: secret, Path: "/", MaxAge: maxAge, HttpOnly: true, Secure: c.Secure, SameSite: http.SameSiteLaxMode}
	if c.Secure {
		cookie.Name = secureCookie
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
