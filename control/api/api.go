// Package api is what operators do, over HTTP: apps, their instances, and which data version readers see.
//
// The one idea: a handler understands a request and answers it, and a Service does the work. Command line and console ask the same
// addresses. Who asks is known by access, which stands before it; errors are problem documents (RFC 9457) that say what to do.
//
//	GET  /api/v1/apps                                          the apps with their instances
//	GET  /api/v1/apps/{app}/history                            who decided what: the newest hundred operations, or those before ?before=id
//	GET  /api/v1/apps/{app}/instances/{version}                what is recorded of an instance: Record
//	GET  /api/v1/apps/{app}/instances/{version}/logs           what its job said last: Logs, text/plain, or with ?follow=true text/event-stream
//	GET  /api/v1/apps/{app}/instances/{version}/jobs           the runs of an instance, the newest first
//	GET  /api/v1/apps/{app}/instances/{version}/ledger         where each record is that its job has read: Ledger
//	GET  /api/v1/artifacts                                     the versions of apps that were pushed
//	POST /api/v1/artifacts                                     push one: the file that 'millrace build' made
//	GET  /api/v1/apps/{app}/deploys                            which versions were deployed, the newest first
//	POST /api/v1/apps/{app}/deploys                            deploy one: DeployAsk
//	POST /api/v1/apps/{app}/deploys/rollback                   deploy the one before: DeployAsk
//	GET  /api/v1/apps/{app}/deploys/diff?version=              what that would change: Diff
//	GET  /api/v1/blockers                                      what keeps versions from being deployed, or kept
//	POST /api/v1/blockers                                      add one: BlockAsk
//	POST /api/v1/blockers/{id}/lift                            end one: LiftAsk
//	POST /api/v1/sql                                           the rows of a SELECT: QueryAsk
//	GET  /api/openapi.json                                     the description of the addresses below, as OpenAPI 3.1
//	GET  /api/v1/events                                        what changes, as it does: Changed (text/event-stream)
//	GET  /api/v1/operations/{id}                               how an operation is; ?wait=30s answers when it has ended, or after that time
//	POST /api/v1/apps/{app}/instances                          start a data version: Ask
//	POST /api/v1/apps/{app}/instances/{version}/{action}       an action of the lifecycle: Ask
//	POST /api/v1/apps/{app}/rollback                           make the version serve that did before: Ask
//	GET  /api/v1/apps/{app}/serving                            which data version readers see: Serving
//	GET  /api/v1/lake/stats                                    what the raw lake holds: LakeStats
//	GET  /api/v1/whoami                                        who asks, and what answers: Whoami
//	GET  /api/v1/tokens                                        tokens, as users and sensor keys below: the first ListPage, or those after ?after=
//	POST /api/v1/tokens                                        make one: TokenAsk, and a Secret is answered
//	POST /api/v1/tokens/{name}/revoke                          end one
//	GET  /api/v1/users                                         people who sign in
//	POST /api/v1/users                                         add one: UserAsk
//	GET  /api/v1/users/{name}                                  what is decided about one: User
//	POST /api/v1/users/{name}/{role, password, disable, enable or delete}    change one: UserChange
//	GET  /api/v1/keys                                          sensor keys
//	POST /api/v1/keys                                          make one: KeyAsk, and a Secret is answered
//	POST /api/v1/keys/{id}/revoke                              end one
//
// A POST below /instances, and to /rollback, is answered with 202 and the operation that was begun: it is recorded, and will be carried out. One with an Idempotency-Key that was
// used before is answered with the operation that it was used for.
//
// Each address says whose things it is about, in endpoints: for who is bound to an account an app that is not of it, and what belongs to such an app, is not
// there.
//
// What is changed by what was read of it has an ETag: an instance, what is deployed, what serves, and a user. A change that has it in If-Match is answered with 412, and
// what is there by now, when that is something else. Other changes refuse If-Match: it would promise what they do not do.
//
// It keeps nothing and knows no job.
package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/control"
	"millrace/control/access"
)

// Paths that the handler serves, with all that is below them.
const (
	Path           = "/api/v1/apps"
	OperationsPath = "/api/v1/operations"
	SQLPath        = "/api/v1/sql"
)

// VersionHeader is in every answer of the API, and has its Version: whoever asks knows by it that they have reached a Millrace, and one that they
// understand. Version is another one when programs that were written for the one before would not do with it.
const (
	VersionHeader = "Millrace-Api"
	Version       = "1"
)

// App is an app with its instances.
type App struct {
	Name        string   `json:"name"`
	Account     string   `json:"account"` // whose it is; system: it serves all accounts
	Version     string   `json:"version"`
	Description string   `json:"description,omitempty"`
	Singleton   bool     `json:"singleton,omitempty"` // it has one instance, which its first deploy starts, or the system
	SourceTypes []string `json:"source_types,omitempty"`
	Serving     string   `json:"serving,omitempty"` // the data version that readers see
	Promoting   string   `json:"promoting,omitempty"`

	Descriptor control.Descriptor `json:"descriptor"`

	Instances []Instance `json:"instances"`
}

// Instance is one namespace of an app's output, and its job.
type Instance struct {
	UniqueID    string            `json:"unique_id"`
	DataVersion string            `json:"data_version"`
	Created     time.Time         `json:"created,omitzero"`
	Version     string            `json:"version"` // of the app
	State       string            `json:"state"`   // one of control's
	Error       string            `json:"error,omitempty"`
	Can         []string          `json:"can,omitempty"`        // the actions that are possible now
	Savepoint   string            `json:"savepoint,omitempty"`  // that it was last suspended with
	Parameters  map[string]string `json:"parameters,omitempty"` // of its job, by the talk's names: accountId, dataVersion, startedBy, …
	Parallelism int               `json:"parallelism"`          // of its job
	Memory      int64             `json:"memory_mb"`            // that its job's process may hold
	Updated     time.Time         `json:"updated,omitzero"`
	UpdatedBy   string            `json:"updated_by,omitempty"`
	Revision    int64             `json:"revision"` // of its Record, whose ETag it is in quotes
	Seeding     *Seeding          `json:"seeding,omitempty"`

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

// Ask says who wants something done with an instance, why, and how.
type Ask struct {
	Who       string `json:"who,omitempty"`
	Reason    string `json:"reason,omitempty"`    // needed to delete, and with force
	Force     bool   `json:"force,omitempty"`     // promote or roll back to a version that is seeding or behind
	Seed      *Seed  `json:"seed,omitempty"`      // what a new instance begins with; none: the oldest record of the log
	Savepoint string `json:"savepoint,omitempty"` // name of the one to make, or to recover from; a checkpoint is checkpoint/<epoch>

	// What the job gets from now on, for start, resume, recover and upgrade. Default: what it had; for a new instance that of all jobs.
	Parallelism int   `json:"parallelism,omitempty"`
	Memory      int64 `json:"memory_mb,omitempty"`

	Action control.Action `json:"-"`
	Key    string         `json:"-"` // Idempotency-Key

	Revisions []int64 `json:"-"` // of If-Match: one of them must be the instance's, or to promote and to roll back that of what serves. nil: any may

	Role control.Role `json:"-"`
}

// By is who asks, for the history.
func (a Ask) By() control.By { return control.By{Who: a.Who, Reason: a.Reason} }

// check returns an error when a reason is needed and there is none.
func (a Ask) check() error {
	if (a.Force || a.Action == control.Delete || a.Action == control.Force) && strings.TrimSpace(a.Reason) == "" {
		return fmt.Errorf("%w: this needs a reason, for the history", ErrInvalid)
	}
	return nil
}

// Seed is a part of the lake. What is left out is not restricted.
type Seed struct {
	SourceType    string   `json:"source_type,omitempty"`
	Envs          []string `json:"envs,omitempty"` // account:env
	From          string   `json:"from,omitempty"` // day or instant; events before are left out
	To            string   `json:"to,omitempty"`   // day or instant; events from then on are left out
	EntitiesFirst bool     `json:"entities_first,omitempty"`
}

// QueryAsk is a query.
type QueryAsk struct {
	Query string `json:"query"` // one SELECT, as 'millrace sql' takes it
}

// Rows are those of a query.
type Rows struct {
	Columns []string `json:"columns"`
	Rows    [][]any  `json:"rows"`           // values in the order of the columns. What JSON has no value for is a string: bytes, times, a number that is not finite
	More    bool     `json:"more,omitempty"` // there are more than an answer has
}

// Errors of a Service. Those of control are understood too.
var (
	ErrInvalid  = errors.New("not understood")
	ErrNotFound = errors.New("not found")
	ErrTooMuch  = errors.New("it asks for too much")
)

// Service does what requests ask for.
type Service interface {
	Deployments

	Stack(ctx context.Context) (Stack, error)
	Apps(ctx context.Context) ([]App, error)
	History(ctx context.Context, app string, before int64) ([]control.Operation, error)
	Instance(ctx context.Context, app, dataVersion string) (control.Instance, error)
	Serving(ctx context.Context, app string) (control.Serving, error)

	// Log begins to read what the job of an instance says, also when it does not run, and returns the instance's unique id.
	Log(ctx context.Context, app, dataVersion string, from LogStart) (uniqueID string, log Log, err error)

	Jobs(ctx context.Context, app, dataVersion string) ([]control.Job, error)

	// Savepoints lists what jobs can go back to.
	Savepoints(ctx context.Context) ([]Savepoint, error)

	// DeleteSavepoint removes a savepoint of the instance with that unique id. The error matches ErrNotFound when there is none, and control.ErrRefused while
	// something needs it.
	DeleteSavepoint(ctx context.Context, instance, name string) (Savepoint, error)

	Ledger(ctx context.Context, app, dataVersion string) (Ledger, error)

	// Do begins an operation. For Start, and for Rollback, the data version is empty.
	Do(ctx context.Context, app, dataVersion string, ask Ask) (control.Operation, error)

	// Operation returns one once it has ended, or as it is when ctx does.
	Operation(ctx context.Context, id int64) (control.Operation, error)

	// Query returns rows of the lake's tables, of an account or, when it is empty, of all. The error matches ErrInvalid for a fault of the query, and ErrTooMuch when
	// it takes more than a query may. Of another error the text is shown to whoever asks.
	Query(ctx context.Context, account, query string) (Rows, error)

	// LakeStats answers what the raw lake holds, of an account or, when it is empty, of all. The error matches ErrInvalid for a query that cannot be understood, and
	// ErrNotFound for a name of nothing; both say what there is instead.
	LakeStats(ctx context.Context, account string, q LakeQuery) (LakeStats, error)

	// Tables lists the tables of the lake.
	Tables(ctx context.Context) ([]LakeTable, error)

	// Rows yields rows of a table, or of the raw lake, of an account or, when it is empty, of all, each as a JSON object, whose bytes are good until the next
	// one. The error matches ErrNotFound for a table that is not there, and ErrTooMuch when too many are read already. done ends what it holds.
	Rows(ctx context.Context, account string, q RowsQuery) (rows iter.Seq2[[]byte, error], done func(), err error)

	// Compare compares two data versions, by the rows of an account or, when it is empty, of all. It returns a Config.Comparison. The error matches ErrNotFound for
	// what is not there, ErrInvalid for a query that cannot be understood, and ErrTooMuch when it takes longer than it may.
	Compare(ctx context.Context, account string, q DiffQuery) (any, error)
}

// Config says who does the work, and who may ask for it.
type Config struct {
	Service Service        // default: none, and of the addresses there are those of Store alone
	Store   *control.Store // has the tokens, users and sensor keys. Default: none, and there are no addresses of them
	Version string         // of the program, for who asks

	Comparison any // what Service.Compare returns, the zero value: the description says how it looks

	// Audit takes note of who changed what, or was refused. Default: nobody does.
	Audit func(ctx context.Context, e control.Entry) error

	// Ending is closed when the server is about to end: streams end then, as it waits for its requests. Default: it never is.
	Ending <-chan struct{}

	Logger *slog.Logger // default: none
}

// maxBody is how large a request may be, in bytes.
const maxBody = 64 << 10

// Handler answers the addresses of the API.
type Handler struct {
	Config
	mux      *http.ServeMux
	changing access.Limit // of tokens, users and keys, by who asks
}

// New returns the handler.
func New(cfg Config) (*Handler, error) {
	if cfg.Service == nil && cfg.Store == nil {
		return nil, errors.New("api: Config.Service and Config.Store are nil")
	}
	if cfg.Service != nil && cfg.Comparison == nil {
		return nil, errors.New("api: Config.Comparison is nil")
	}
	if cfg.Audit == nil {
		cfg.Audit = func(context.Context, control.Entry) error { return nil }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	h := &Handler{Config: cfg, mux: mux, changing: access.Limit{Tries: 100, Every: time.Second}}
	endpoints := h.endpoints()
	for _, e := range endpoints {
		mux.HandleFunc(e.method+" "+e.path, func(w http.ResponseWriter, r *http.Request) { h.answer(w, r, e.status, e.conditional(e.serve)) })
	}
	description, err := spec(endpoints)
	if err != nil {
		return nil, err
	}
	mux.HandleFunc("GET "+SpecPath, func(w http.ResponseWriter, r *http.Request) {
		h.answer(w, r, http.StatusOK, func(*http.Request) (any, error) { return json.RawMessage(description), nil })
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		h.answer(w, r, http.StatusOK, func(r *http.Request) (any, error) {
			return nil, fmt.Errorf("%w: %s %s", ErrNotFound, r.Method, r.URL.Path)
		})
	})
	return h, nil
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// Routes are who may ask at which address: reading takes a viewer, or of rows, which are of people, an analyst, and changing an operator.
func (h *Handler) Routes() []access.Route {
	all := []access.Route{{Pattern: "GET " + SpecPath, Handler: h}}
	for _, e := range h.endpoints() {
		all = append(all, access.Route{Pattern: e.method + " " + e.path, Least: e.least(), Named: e.least() >= control.Operator, Scope: e.scope, Handler: h})
	}
	for _, path := range []string{Path + "/", OperationsPath + "/", ArtifactsPath + "/", SavepointsPath + "/", BlockersPath + "/", TokensPath + "/", UsersPath + "/", KeysPath + "/"} { // what is no endpoint
		all = append(all,
			access.Route{Pattern: "GET " + path, Least: control.Viewer, Handler: h},
			access.Route{Pattern: path, Least: control.Operator, Named: true, Handler: h})
	}
	return all
}

// apps are those that who asks sees.
func (h *Handler) apps(r *http.Request) ([]App, error) {
	all, err := h.Service.Apps(r.Context())
	if p := access.From(r.Context()); p.Account != "" {
		all = slices.DeleteFunc(slices.Clone(all), func(a App) bool { return !p.Sees(a.Account) })
	}
	return all, err
}

// owned returns an error unless the app of a request is there for who asks.
func (h *Handler) owned(r *http.Request) error {
	if access.From(r.Context()).Account == "" {
		return nil
	}
	all, err := h.apps(r)
	if err != nil {
		return err
	}
	name := r.PathValue("app")
	if !slices.ContainsFunc(all, func(a App) bool { return a.Name == name }) {
		return fmt.Errorf("%w: there is no app %q", ErrNotFound, name)
	}
	return nil
}

// ofApp is an endpoint of an app that who asks sees.
func (h *Handler) ofApp(f func(*http.Request) (any, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		if err := h.owned(r); err != nil {
			return nil, err
		}
		return f(r)
	}
}

// versioned checks the data version of a request.
func versioned(f func(r *http.Request, version string) (any, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		version := r.PathValue("version")
		if err := control.CheckDataVersion(version); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		return f(r, version)
	}
}

func (h *Handler) history(r *http.Request) (any, error) {
	before := int64(0)
	if text := r.URL.Query().Get("before"); text != "" {
		var err error
		if before, err = strconv.ParseInt(text, 10, 64); err != nil || before < 1 {
			return nil, fmt.Errorf("%w: before=%s: want the id of an operation", ErrInvalid, text)
		}
	}
	return h.Service.History(r.Context(), r.PathValue("app"), before)
}

// longestWait is how long a request may wait for the end of an operation.
const longestWait = time.Minute

func (h *Handler) operation(r *http.Request) (any, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: there is no operation %q", ErrNotFound, r.PathValue("id"))
	}
	wait := time.Duration(0)
	if text := r.URL.Query().Get("wait"); text != "" {
		if wait, err = time.ParseDuration(text); err != nil || wait < 0 || wait > longestWait {
			return nil, fmt.Errorf("%w: wait=%s: want a duration of at most %s, such as 30s", ErrInvalid, text, longestWait)
		}
	}
	if p := access.From(r.Context()); p.Account != "" {
		// Before the wait, which would tell that there is one.
		now, cancel := context.WithTimeout(r.Context(), 0)
		defer cancel()
		op, err := h.Service.Operation(now, id)
		if err == nil && !p.Sees(op.Account) || errors.Is(err, control.ErrUnknownOperation) {
			err = fmt.Errorf("%w: there is no operation %d", ErrNotFound, id)
		}
		if err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	return h.Service.Operation(ctx, id)
}

func (h *Handler) query(r *http.Request) (any, error) {
	var ask QueryAsk
	if err := decode(r, &ask); err != nil {
		return nil, err
	}
	return h.Service.Query(r.Context(), access.From(r.Context()).Account, ask.Query)
}

// do begins an operation.
func (h *Handler) do(r *http.Request, action control.Action) (any, error) {
	who := access.From(r.Context())
	var ask Ask
	if err := decode(r, &ask); err != nil {
		return nil, err
	}
	ask.Action, ask.Key, ask.Role = action, r.Header.Get("Idempotency-Key"), who.Role
	if !who.Local {
		ask.Who = who.Name
	}
	if who.Account != "" && ask.Key != "" {
		ask.Key = who.Account + ":" + ask.Key // another account's operations are not found by their keys
	}
	of := ""
	if action == control.Promote || action == control.Rollback {
		of = servingTags
	}
	var err error
	if ask.Revisions, err = revisions(r, of); err != nil {
		return nil, err
	}
	version := r.PathValue("version")
	if version != "" {
		if err := control.CheckDataVersion(version); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if !slices.Contains(control.Actions, action) || action == control.Start || action == control.Rollback {
			return nil, fmt.Errorf("%w: there is no action %q; there are %s", ErrNotFound, action, actions())
		}
	}
	if err := ask.check(); err != nil {
		return nil, err
	}
	err = h.owned(r)
	var op control.Operation
	if err == nil {
		op, err = h.Service.Do(r.Context(), r.PathValue("app"), version, ask)
		if of == servingTags {
			err = h.orStale(r, ask, err)
		}
	}
	return op, h.audited(r, control.Entry{
		Who: ask.Who, Action: string(action), Subject: r.PathValue("app") + " " + cmp.Or(op.DataVersion, version), Reason: ask.Reason,
		Outcome: fmt.Sprintf("operation %d", op.ID),
	}, err)
}

// actions names those that an instance can be asked for.
func actions() string {
	var words []string
	for _, a := range control.Actions {
		if a != control.Start && a != control.Rollback {
			words = append(words, string(a))
		}
	}
	return strings.Join(words, ", ")
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

func (h *Handler) answer(w http.ResponseWriter, r *http.Request, status int, f func(*http.Request) (any, error)) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	body, err := f(r)
	if stream, ok := body.(http.Handler); ok && err == nil {
		stream.ServeHTTP(w, r)
		return
	}
	kind := "application/json"
	if t, ok := body.(tagged); ok && err == nil {
		body = t.body
		w.Header().Set("ETag", t.tag)
		w.Header().Set("Cache-Control", "private, no-cache") // it may be kept, and is asked for all the same
		if hasSame(r, t.tag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	if err != nil {
		status, kind = statusOf(err), "application/problem+json"
		if status == http.StatusInternalServerError {
			h.Logger.Error("request failed", "path", r.URL.Path, "error", err)
		}
		problem := Problem{Title: http.StatusText(status), Status: status, Detail: err.Error()}
		if s := (*control.StaleError)(nil); errors.As(err, &s) {
			now := stale(s)
			w.Header().Set("ETag", now.tag)
			problem.Present = now.body
		}
		if wait := waitError(0); errors.As(err, &wait) {
			w.Header().Set("Retry-After", strconv.Itoa(wait.seconds()))
		}
		body = problem
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

	Present any `json:"present,omitempty"` // of a change that is stale: the Record, Deploy, Serving or User that is there now
}

func statusOf(err error) int {
	stale := (*control.StaleError)(nil)
	wait := waitError(0)
	switch {
	case errors.As(err, &stale):
		return http.StatusPreconditionFailed
	case errors.As(err, &wait):
		return http.StatusTooManyRequests
	case errors.Is(err, ErrInvalid), errors.Is(err, control.ErrInvalid):
		return http.StatusBadRequest
	case errors.Is(err, ErrTooMuch):
		return http.StatusUnprocessableEntity
	case errors.Is(err, control.ErrNotAllowed):
		return http.StatusForbidden
	case errors.Is(err, ErrNotFound), errors.Is(err, control.ErrUnknownInstance), errors.Is(err, control.ErrUnknownOperation),
		errors.Is(err, control.ErrUnknownArtifact), errors.Is(err, control.ErrUnknownBlocker), errors.Is(err, control.ErrUnknownToken), errors.Is(err, control.ErrUnknownUser),
		errors.Is(err, control.ErrUnknownKey):
		return http.StatusNotFound
	case errors.Is(err, control.ErrRefused), errors.Is(err, control.ErrInstanceExists), errors.Is(err, control.ErrTokenExists), errors.Is(err, control.ErrUserExists):
		return http.StatusConflict
	}
	return http.StatusInternalServerError
}
