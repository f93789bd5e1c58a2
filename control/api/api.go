// Package api is what operators do, over HTTP: apps, their instances, and which data version readers see.
//
// The one idea: a handler understands a request and answers it, and a Service does the work. Command line and console ask the same
// addresses. Whoever changes something shows a token; errors are problem documents (RFC 9457) that say what to do.
//
//	GET  /api/v1/apps                                          the apps with their instances
//	GET  /api/v1/apps/{app}/history                            who decided what, the newest first
//	GET  /api/v1/apps/{app}/instances/{version}/ledger         where each record is that its job has read: Ledger
//	POST /api/v1/apps/{app}/instances                          start a data version: Start
//	POST /api/v1/apps/{app}/instances/{version}/{action}       suspend, resume, promote or delete: Act
//	POST /api/v1/apps/{app}/rollback                           make the version serve that did before: Act
//
// It keeps nothing and knows no job.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"millrace/control"
)

// Path is the pattern that the handler serves.
const Path = "/api/v1/apps"

// App is an app with its instances.
type App struct {
	Name        string     `json:"name"`
	Version     string     `json:"version"`
	Description string     `json:"description,omitempty"`
	Singleton   bool       `json:"singleton,omitempty"` // it has one instance, which the system starts
	SourceTypes []string   `json:"source_types,omitempty"`
	Serving     string     `json:"serving,omitempty"` // the data version that readers see
	Promoting   string     `json:"promoting,omitempty"`
	Instances   []Instance `json:"instances"`
}

// Instance is one namespace of an app's output, and its job.
type Instance struct {
	UniqueID    string    `json:"unique_id"`
	DataVersion string    `json:"data_version"`
	Created     time.Time `json:"created,omitzero"`
	State       string    `json:"state"` // RUNNING, SEEDING, SUSPENDED, FAILED; STOPPED when nothing serves the data directory
	Error       string    `json:"error,omitempty"`
	Seeding     *Seeding  `json:"seeding,omitempty"`

	Read       int64 `json:"read"`
	Rows       int64 `json:"rows"`
	LagRecords int64 `json:"lag_records"`

	Epoch     uint64 `json:"epoch"`     // last committed
	Published uint64 `json:"published"` // up to this one its rows are in the index, the lake and the table topics
}

// Seeding is how far an instance is that begins with records of the lake.
type Seeding struct {
	Rows int64 `json:"rows"` // in the files that are read
	Read int64 `json:"read"` // of them
	Kept int64 `json:"kept"` // of them, records of the range
	Done bool  `json:"done"`

	RowsPerSecond float64 `json:"rows_per_second,omitempty"`
	SecondsLeft   float64 `json:"seconds_left,omitempty"`
}

// Ledger is the bookkeeping of one job. Balanced is left out while records move so that it is not certain, or a target could not be counted.
type Ledger struct {
	UniqueID string    `json:"unique_id"`
	Epoch    uint64    `json:"epoch"` // last committed; what the job counts is of this one
	At       time.Time `json:"at"`    // when the targets were counted
	Balanced *bool     `json:"balanced,omitempty"`
	Accounts []Account `json:"accounts"`
	Problems []string  `json:"problems,omitempty"` // what could not be counted; its accounts are left out
}

// Account is one equation: the total is the sum of the parts.
type Account struct {
	Name       string   `json:"name"`
	Total      Amount   `json:"total"`
	Parts      []Amount `json:"parts"`
	Difference int64    `json:"difference"`          // above 0: records are missing; below: some are there twice
	Uncertain  bool     `json:"uncertain,omitempty"` // the difference is no larger than what moved while it was counted
}

// Amount is one term of an account.
type Amount struct {
	Name  string `json:"name"`
	Count int64  `json:"count"`
}

// Start says what a new data version begins with.
type Start struct {
	Seed   *Seed  `json:"seed,omitempty"` // none: the oldest record of the log
	Who    string `json:"who,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Seed is a part of the lake. What is left out is not restricted.
type Seed struct {
	SourceType    string   `json:"source_type,omitempty"`
	Envs          []string `json:"envs,omitempty"` // account:env
	From          string   `json:"from,omitempty"` // day or instant; events before are left out
	To            string   `json:"to,omitempty"`   // day or instant; events from then on are left out
	EntitiesFirst bool     `json:"entities_first,omitempty"`
}

// Act says who does something with an instance, and why.
type Act struct {
	Who    string `json:"who,omitempty"`
	Reason string `json:"reason,omitempty"`
	Force  bool   `json:"force,omitempty"` // promote a version that is seeding or behind; needs a reason
}

func (a Act) by() control.By { return control.By{Who: a.Who, Reason: a.Reason} }

// check returns an error when a reason is needed and there is none.
func (a Act) check(needed bool) error {
	if needed && strings.TrimSpace(a.Reason) == "" {
		return fmt.Errorf("%w: this needs a reason, for the history", ErrInvalid)
	}
	return nil
}

// Errors of a Service. Those of control are understood too.
var (
	ErrInvalid  = errors.New("not understood")
	ErrNotFound = errors.New("not found")
)

// Service does what requests ask for.
type Service interface {
	Apps(ctx context.Context) ([]App, error)
	History(ctx context.Context, app string) ([]control.Change, error)
	Ledger(ctx context.Context, app, dataVersion string) (Ledger, error)
	Start(ctx context.Context, app string, start Start) (Instance, error)
	Suspend(ctx context.Context, app, dataVersion string, by control.By) (Instance, error)
	Resume(ctx context.Context, app, dataVersion string, by control.By) (Instance, error)
	Promote(ctx context.Context, app, dataVersion string, force bool, by control.By) (Instance, error)
	Rollback(ctx context.Context, app string, force bool, by control.By) (Instance, error)
	Delete(ctx context.Context, app, dataVersion string, by control.By) (Instance, error)
}

// Config says who does the work, and who may ask for it.
type Config struct {
	Service Service

	// Authorize returns an error unless a token lets its bearer change something.
	Authorize func(token string) error

	Logger *slog.Logger // default: none
}

// maxBody is how large a request may be, in bytes.
const maxBody = 64 << 10

type handler struct{ Config }

// New returns the handler.
func New(cfg Config) (http.Handler, error) {
	if cfg.Service == nil || cfg.Authorize == nil {
		return nil, errors.New("api: Config.Service or Config.Authorize is nil")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	h := &handler{cfg}
	mux := http.NewServeMux()
	read := func(pattern string, f func(*http.Request) (any, error)) {
		mux.HandleFunc("GET "+Path+pattern, func(w http.ResponseWriter, r *http.Request) { h.answer(w, r, f) })
	}
	change := func(pattern string, f func(*http.Request) (any, error)) {
		mux.HandleFunc("POST "+Path+pattern, func(w http.ResponseWriter, r *http.Request) {
			h.answer(w, r, func(r *http.Request) (any, error) {
				token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
				if err := h.Authorize(token); err != nil {
					return nil, errUnauthorized
				}
				return f(r)
			})
		})
	}
	read("", func(r *http.Request) (any, error) { return h.Service.Apps(r.Context()) })
	read("/{app}/history", func(r *http.Request) (any, error) { return h.Service.History(r.Context(), r.PathValue("app")) })
	read("/{app}/instances/{version}/ledger", func(r *http.Request) (any, error) {
		version := r.PathValue("version")
		if err := control.CheckDataVersion(version); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		return h.Service.Ledger(r.Context(), r.PathValue("app"), version)
	})
	change("/{app}/instances", h.start)
	change("/{app}/instances/{version}/{action}", h.act)
	change("/{app}/rollback", h.rollback)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		h.answer(w, r, func(r *http.Request) (any, error) {
			return nil, fmt.Errorf("%w: %s %s", ErrNotFound, r.Method, r.URL.Path)
		})
	})
	return mux, nil
}

var errUnauthorized = errors.New("this needs the token of the process that serves, in Authorization: Bearer …; it is in running.json of the data directory")

func (h *handler) start(r *http.Request) (any, error) {
	var start Start
	if err := decode(r, &start); err != nil {
		return nil, err
	}
	return h.Service.Start(r.Context(), r.PathValue("app"), start)
}

func (h *handler) act(r *http.Request) (any, error) {
	var act Act
	if err := decode(r, &act); err != nil {
		return nil, err
	}
	app, version := r.PathValue("app"), r.PathValue("version")
	if err := control.CheckDataVersion(version); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	switch r.PathValue("action") {
	case "suspend":
		return h.Service.Suspend(r.Context(), app, version, act.by())
	case "resume":
		return h.Service.Resume(r.Context(), app, version, act.by())
	case "promote":
		if err := act.check(act.Force); err != nil {
			return nil, err
		}
		return h.Service.Promote(r.Context(), app, version, act.Force, act.by())
	case "delete":
		if err := act.check(true); err != nil {
			return nil, err
		}
		return h.Service.Delete(r.Context(), app, version, act.by())
	}
	return nil, fmt.Errorf("%w: there is no action %q; there are suspend, resume, promote and delete", ErrNotFound, r.PathValue("action"))
}

func (h *handler) rollback(r *http.Request) (any, error) {
	var act Act
	if err := decode(r, &act); err != nil {
		return nil, err
	}
	if err := act.check(act.Force); err != nil {
		return nil, err
	}
	return h.Service.Rollback(r.Context(), r.PathValue("app"), act.Force, act.by())
}

// decode reads a request's body. None is an empty one.
func decode(r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil && d.More() {
		err = errors.New("something comes after the object")
	}
	if err != nil {
		return fmt.Errorf("%w: the request's body: %w", ErrInvalid, err)
	}
	return nil
}

func (h *handler) answer(w http.ResponseWriter, r *http.Request, f func(*http.Request) (any, error)) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	body, err := f(r)
	status, kind := http.StatusOK, "application/json"
	if err != nil {
		status, kind = statusOf(err), "application/problem+json"
		if status == http.StatusInternalServerError {
			h.Logger.Error("request failed", "path", r.URL.Path, "error", err)
		}
		body = Problem{http.StatusText(status), status, err.Error()}
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		h.Logger.Debug("answer not written", "path", r.URL.Path, "error", err)
	}
}

// Problem is a problem document.
type Problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, errUnauthorized):
		return http.StatusUnauthorized
	case errors.Is(err, ErrInvalid):
		return http.StatusBadRequest
	case errors.Is(err, ErrNotFound), errors.Is(err, control.ErrUnknownInstance):
		return http.StatusNotFound
	case errors.Is(err, control.ErrRefused), errors.Is(err, control.ErrInstanceExists):
		return http.StatusConflict
	}
	return http.StatusInternalServerError
}
