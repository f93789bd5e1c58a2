// Package web serves the console: pages rendered on the server that show the pipeline moving, and the status as JSON.
//
// The one idea: a page is a full render of its parts, and a live page is the same parts rendered again. Every page works as a
// plain GET; a stream of server-sent events then replaces the parts that changed, at most once a second, rendered once
// for all readers. A page has no private back door: what it shows is what Config's functions answer.
//
//	GET /                   overview; ?table= picks whose newest rows it shows
//	GET /tables/{table}     newest rows of one table, with their proof columns
//	GET /events?topics=     changed parts of a page, as server-sent events
//	GET /api/v1/status      the overview's values, as JSON
//	GET /healthz, /readyz   200 while the process lives; 200 when it can work, else 503 with the reason
//
//	GET /login, /account    forms of people who sign in; /setup for the first of them; POST /logout
//	GET /login/oidc         sends them to an OpenID Connect provider, which sends them back to /login/oidc/callback
//
// Who is bound to an account is shown the same pages of what is of that account: its values are asked for by the account's name, and read, kept and streamed apart
// from those of others.
//
// Who may see a page is decided before it: the pages change nothing but who is signed in, and passwords.
package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"time"

	"millrace/control/access"
)

// csp lets a page use what this server serves, and nothing else: no inline script or style, no other host, no frame.
const csp = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; " +
	"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Config says where the console's values come from. Status is needed; everything else has a default. Functions that take an account answer with what is of that
// one alone, or when it is empty with all.
type Config struct {
	Stack string // what the environment is called that this is the console of; default: it is not said

	// Status reads the pipeline's state. It is called for each account at most about once a second, by one goroutine at a time.
	Status func(ctx context.Context, account string) (Status, error)

	// Rows returns the newest n rows of a table, newest first, as text; a null is "". It is called for tables that Status
	// names, about once a second while somebody looks. Default: no rows.
	Rows func(ctx context.Context, account, table string, n int) (columns []string, rows [][]string, err error)

	// DeadLetters returns the newest n dead letters, newest first. Default: none.
	DeadLetters func(ctx context.Context, account string, n int) ([]DeadLetter, error)

	// Ready says why the process cannot work yet; nil when it can. Default: always ready.
	Ready func(context.Context) error

	Accounts Accounts       // people who sign in; default: nobody does, and there are no pages for it
	Provider Provider       // at which they sign in too; default: none
	Cookies  access.Cookies // that sessions are in

	Logger *slog.Logger     // default: none
	Now    func() time.Time // default: time.Now

	// Dev is the path of this package's source. When set, templates and assets are read from there at every request.
	Dev string
}

func (c Config) withDefaults() Config {
	if c.Rows == nil {
		c.Rows = func(context.Context, string, string, int) ([]string, [][]string, error) { return nil, nil, nil }
	}
	if c.DeadLetters == nil {
		c.DeadLetters = func(context.Context, string, int) ([]DeadLetter, error) { return nil, nil }
	}
	if c.Ready == nil {
		c.Ready = func(context.Context) error { return nil }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Server is the console's handler. Run must run for its pages to be live.
type Server struct {
	cfg     Config
	handler http.Handler
	site    func() (*site, error)
	samples *samples
	hub     *hub
}

// New returns a server for cfg. It fails when cfg has no Status, or its templates do not parse.
func New(cfg Config) (*Server, error) {
	if cfg.Status == nil {
		return nil, errors.New("web: Config.Status is missing")
	}
	s := &Server{cfg: cfg.withDefaults(), hub: newHub()}
	s.samples = &samples{read: s.cfg.Status, now: s.cfg.Now}

	files := fs.FS(embedded)
	if cfg.Dev != "" {
		files = os.DirFS(cfg.Dev)
	}
	loaded, err := loadSite(files)
	if err != nil {
		return nil, fmt.Errorf("load the console's pages: %w", err)
	}
	s.site = func() (*site, error) { return loaded, nil }
	if cfg.Dev != "" {
		s.site = func() (*site, error) { return loadSite(files) }
	}

	mux := http.NewServeMux()
	handle := func(pattern string, f func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := f(w, r); err != nil {
				s.serveError(w, r, err)
			}
		})
	}
	handle("GET /{$}", s.serveOverview)
	handle("GET /tables/{table}", s.serveTable)
	handle("GET /events", s.serveEvents)
	handle("GET /assets/{name}", s.serveAsset)
	handle("GET /api/v1/status", s.serveStatus)
	handle("GET /healthz", func(w http.ResponseWriter, _ *http.Request) error { return text(w, http.StatusOK, "ok") })
	handle("GET /readyz", s.serveReady)
	if s.cfg.Accounts != nil {
		s.accountsPages(handle)
		if s.cfg.Provider != nil {
			s.providerPages(handle)
		}
	}
	handle("GET /", func(_ http.ResponseWriter, r *http.Request) error {
		return fmt.Errorf("%w: %s", ErrNotFound, r.URL.Path)
	})
	s.handler = http.NewCrossOriginProtection().Handler(secure(mux))
	return s, nil
}

// secure sets the headers that every answer has.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", csp)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store") // assets set their own
		next.ServeHTTP(w, r)
	})
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Run keeps rates, charts and streams going until ctx ends, and then ends the streams. It returns nil.
func (s *Server) Run(ctx context.Context) error {
	s.hub.Run(ctx, func(ctx context.Context) { s.samples.of("").sample(ctx) }, func(topic string, err error) {
		s.cfg.Logger.Warn("page part not rendered", "topic", topic, "error", err)
	})
	return nil
}

// serveEvents streams the parts of the page that topics names: overview:<table>, table:<table>.
func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request) error {
	name, account := r.URL.Query().Get("topics"), accountOf(r)
	render, err := s.topic(r.Context(), account, name)
	if err != nil {
		return err
	}
	return s.hub.serve(w, r, account+":"+name, render) // there is no colon in an account's name: no other one has this stream
}

func (s *Server) serveStatus(w http.ResponseWriter, r *http.Request) error {
	now := s.samples.of(accountOf(r)).sample(r.Context())
	if now.Err != nil {
		// A program must not take old values for the present ones.
		return problem(w, http.StatusServiceUnavailable, "the status could not be read: "+now.Err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(now.Status)
}

// accountOf is the account that who asks is bound to; empty: they are not.
func accountOf(r *http.Request) string { return access.From(r.Context()).Account }

func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) error {
	if err := s.cfg.Ready(r.Context()); err != nil {
		return text(w, http.StatusServiceUnavailable, err.Error())
	}
	return text(w, http.StatusOK, "ready")
}

func text(w http.ResponseWriter, status int, body string) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintln(w, body)
	return nil
}
