// Package access finds out who asks over HTTP, and refuses what they may not do.
//
// The one idea: a route says the least role that it takes, in one table from which both the mux and the tests are made, so that none is
// forgotten. Who asks shows a token, as a bearer token, or as the password of HTTP's basic authentication, which browsers ask people for.
// Who shows none is anonymous, and has the role that Config gives to nobody in particular: none at all on addresses that others reach.
//
// Who is bound to an account reaches no route but those whose scope is Tenant: what answers there shows what is of that account, and nothing else. A route
// that says nothing of its scope is of the stack as a whole, and refused.
//
// It keeps nothing: control has the tokens.
package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"millrace/control"
)

// Principal is who asks.
type Principal struct {
	Name string
	Role control.Role

	// Account is the tenant that they are bound to: what is of another one does not exist for them. Empty: they are not bound.
	Account string

	// Expires is when the token ends that they show; zero: it does not.
	Expires time.Time

	// Local is whoever may read the data directory of the process: they say themselves who they are.
	Local bool

	// Issuer is the OpenID Connect provider at which somebody has signed in; empty: a password, a token, or nobody.
	Issuer string
}

// Sees reports whether what belongs to an account exists for the principal.
func (p Principal) Sees(account string) bool { return p.Account == "" || p.Account == account }

type key struct{}

// From is who asks, for a handler below Config.Mux.
func From(ctx context.Context) Principal {
	p, _ := ctx.Value(key{}).(Principal)
	return p
}

// With is a context in which somebody asks.
func With(ctx context.Context, p Principal) context.Context { return context.WithValue(ctx, key{}, p) }

// Scope says whose things a route is about.
type Scope int

const (
	System Scope = iota // the stack's: who is bound to an account is refused
	Tenant              // the tenants': its handler shows who is bound to an account what is of it alone, and answers for the rest as if it were not there
)

// Route is a pattern of http.ServeMux, who may ask there, and what answers. A pattern without a method is for all of them.
type Route struct {
	Pattern string
	Least   control.Role // 0: everybody; what answers has its own way to know who asks, or nothing to hide
	Named   bool         // not who is anonymous, whatever role that has
	Scope   Scope        // ignored when Least is 0
	Shows   bool         // it takes GET alone, and tells everybody so who asks otherwise: a sensor that has the wrong address
	Handler http.Handler
}

// ErrUnknown is what Config.Find returns for a secret that is nobody's.
var ErrUnknown = errors.New("unknown token")

// Config says who is who.
type Config struct {
	// Find returns whose secret it is. The error matches ErrUnknown when it is nobody's.
	Find func(ctx context.Context, secret string) (Principal, error)

	// Session returns who is signed in with a session's secret. The error matches ErrUnknown when it is nobody's. Default: nobody is.
	Session func(ctx context.Context, secret string) (Principal, error)
	Cookies Cookies // that sessions' secrets are in

	Anonymous control.Role // of who shows no secret; 0: they may do nothing

	Logger *slog.Logger // default: none
}

// Mux answers routes for those who may ask there.
func (c Config) Mux(routes []Route) http.Handler {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	for _, r := range routes {
		mux.Handle(r.Pattern, c.guard(r))
	}
	return mux
}

func (c Config) guard(route Route) http.Handler {
	if route.Least == 0 {
		return route.Handler
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if route.Shows && r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			refuse(w, http.StatusMethodNotAllowed, r.Method+" is not for this address")
			return
		}
		// A browser shows its password to whatever page asks it to.
		if err := origins.Check(r); err != nil {
			refuse(w, http.StatusForbidden, "a page of another site asks for this: "+err.Error())
			return
		}
		secret := shown(r)
		p := Principal{Name: "anonymous", Role: c.Anonymous}
		if secret == "" {
			var err error
			if p, secret, err = c.signedIn(r); err != nil {
				c.Logger.Error("who asks could not be found out", "path", r.URL.Path, "error", err)
				refuse(w, http.StatusInternalServerError, "who asks could not be found out; the log says why")
				return
			}
		} else {
			var err error
			if p, err = c.Find(r.Context(), secret); errors.Is(err, ErrUnknown) {
				refuse(w, http.StatusUnauthorized, "the token is unknown: it was revoked, has expired, or is no token; 'millrace token add' makes one")
				return
			} else if err != nil {
				c.Logger.Error("who asks could not be found out", "path", r.URL.Path, "error", err)
				refuse(w, http.StatusInternalServerError, "who asks could not be found out; the log says why")
				return
			}
		}
		switch {
		case p.Account != "" && route.Scope != Tenant:
			refuse(w, http.StatusForbidden, fmt.Sprintf("%s is bound to account %s, and this is of the stack as a whole: ask with a token that is not bound to an account", p.Name, p.Account))
		case secret == "" && (route.Named || p.Role < route.Least) && c.Session != nil && isPage(r):
			http.Redirect(w, r, SignInPath+"?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
		case secret == "" && (route.Named || p.Role < route.Least):
			refuse(w, http.StatusUnauthorized, fmt.Sprintf("this takes a token of the role %s or more, in Authorization: Bearer …, or as the password of a browser; 'millrace token add --role %s' makes one",
				route.Least, route.Least))
		case p.Role < route.Least:
			refuse(w, http.StatusForbidden, fmt.Sprintf("this takes the role %s, and %s is %s", route.Least, p.Name, p.Role))
		default:
			route.Handler.ServeHTTP(w, r.WithContext(With(r.Context(), p)))
		}
	})
}

// origins refuses what pages of other sites have a browser ask for, if that changes something.
var origins = http.NewCrossOriginProtection()

// shown is the secret that a request shows.
func shown(r *http.Request) string {
	if _, password, ok := r.BasicAuth(); ok {
		return password
	}
	secret, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return ""
	}
	return strings.TrimSpace(secret)
}

// refuse answers with a problem document (RFC 9457), and has a browser ask for a token where one is missing.
func refuse(w http.ResponseWriter, status int, detail string) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Basic realm="millrace: any name, and a token as the password", charset="UTF-8"`)
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"title": http.StatusText(status), "status": status, "detail": detail}) // who asked has gone
}

// IsLoopback reports whether an address, host:port, is of this machine alone.
func IsLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
