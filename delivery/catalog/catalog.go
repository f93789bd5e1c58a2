// Package catalog shows a lake's tables to other engines: an Iceberg REST catalogue that reads and never writes.
//
// The one idea: an engine needs to be told where a table's newest metadata file is, and reads everything else from where the lake
// keeps it, as it would without Millrace. So Trino, Spark or PyIceberg see the very same files, and a commit of Millrace at
// once.
//
// The namespace serving stands for that of the data version that serves: what its tables are changes in one moment when another version is
// made to.
//
//	GET       /iceberg/v1/config
//	GET       /iceberg/v1/namespaces
//	GET HEAD  /iceberg/v1/namespaces/{namespace}
//	GET       /iceberg/v1/namespaces/{namespace}/tables
//	GET HEAD  /iceberg/v1/namespaces/{namespace}/tables/{table}
//
// Every request needs a bearer token, which is not bound to an account: the engine reads a table's files, and those hold the rows of all accounts. It does not give out files, nor keys for where they are.
package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"millrace/lake"
)

// Path is where the catalogue is below a server's address.
const Path = "/iceberg/"

// ErrUnknownToken is what Config.Authorize returns, wrapped or not, for a token that gives no right to read.
var ErrUnknownToken = errors.New("unknown token")

// ErrForbidden is matched by what Config.Authorize returns for a token that is known and may not read whole tables. Its text is what is answered.
var ErrForbidden = errors.New("forbidden")

// Config says what is shown to whom. Lake and Authorize are needed.
type Config struct {
	Lake      *lake.Lake // not closed by the catalogue
	Authorize func(ctx context.Context, token string) error

	// Serving are the namespaces that "serving" stands for. Of a table that several of them have it is that of the first. Default: there is none.
	Serving func(ctx context.Context) (namespaces []string, err error)

	Logger *slog.Logger // default: discards
}

// Catalog is the handler.
type Catalog struct {
	cfg Config
	mux *http.ServeMux
}

// New returns a catalogue.
func New(cfg Config) (*Catalog, error) {
	if cfg.Lake == nil || cfg.Authorize == nil {
		return nil, errors.New("catalog: Config.Lake or Config.Authorize is missing")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Catalog{cfg: cfg, mux: http.NewServeMux()}
	for path, read := range map[string]func(*http.Request) (any, error){
		"v1/config":                                c.config,
		"v1/namespaces":                            c.namespaces,
		"v1/namespaces/{namespace}":                c.namespace,
		"v1/namespaces/{namespace}/tables":         c.tables,
		"v1/namespaces/{namespace}/tables/{table}": c.table,
	} {
		c.mux.HandleFunc(Path+path, func(w http.ResponseWriter, r *http.Request) { c.answer(w, r, read) })
	}
	c.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		c.answer(w, r, func(r *http.Request) (any, error) {
			return nil, fault{http.StatusNotFound, "NoSuchEndpointException", "there is no " + r.URL.Path + " in this catalogue"}
		})
	})
	return c, nil
}

// ServeHTTP answers one request.
func (c *Catalog) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.mux.ServeHTTP(w, r) }

// fault is an error as the specification shows it.
type fault struct {
	code    int
	kind    string
	message string
}

func (f fault) Error() string { return f.message }

// faultOf maps an error to what is answered. It is the only place that does.
func faultOf(err error) fault {
	var f fault
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, ErrUnknownToken):
		return fault{http.StatusUnauthorized, "NotAuthorizedException", "this needs a token in Authorization: Bearer …; 'millrace token add' makes one"}
	case errors.Is(err, ErrForbidden):
		return fault{http.StatusForbidden, "ForbiddenException", err.Error()}
	case errors.Is(err, lake.ErrNotFound):
		return fault{http.StatusNotFound, "NoSuchTableException", err.Error()}
	case errors.Is(err, lake.ErrUnavailable):
		return fault{http.StatusServiceUnavailable, "ServiceUnavailableException", err.Error()}
	}
	return fault{http.StatusInternalServerError, "InternalServerError", err.Error()}
}

func (c *Catalog) answer(w http.ResponseWriter, r *http.Request, read func(*http.Request) (any, error)) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	body, err := c.read(r, read)
	if err != nil {
		f := faultOf(err)
		switch f.code {
		case http.StatusInternalServerError:
			c.cfg.Logger.Error("request failed", "path", r.URL.Path, "error", err)
		case http.StatusUnauthorized:
			w.Header().Set("WWW-Authenticate", "Bearer")
		case http.StatusMethodNotAllowed:
			w.Header().Set("Allow", "GET, HEAD")
		}
		w.WriteHeader(f.code)
		body = map[string]any{"error": map[string]any{"message": f.message, "type": f.kind, "code": f.code}}
	} else if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusNoContent)
	}
	if r.Method == http.MethodHead {
		return
	}
	if err := json.NewEncoder(w).Encode(body); err != nil {
		c.cfg.Logger.Debug("answer not written", "path", r.URL.Path, "error", err)
	}
}

func (c *Catalog) read(r *http.Request, read func(*http.Request) (any, error)) (any, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil, ErrUnknownToken
	}
	if err := c.cfg.Authorize(r.Context(), strings.TrimSpace(token)); err != nil {
		return nil, err
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return nil, fault{http.StatusMethodNotAllowed, "UnsupportedOperationException", r.Method + " is not possible: this catalogue is for reading"}
	}
	return read(r)
}

// config says what the catalogue can do, so that an engine asks for nothing else.
func (c *Catalog) config(*http.Request) (any, error) {
	const namespace, table = "/v1/{prefix}/namespaces/{namespace}", "/v1/{prefix}/namespaces/{namespace}/tables/{table}"
	return map[string]any{
		"defaults": map[string]string{}, "overrides": map[string]string{},
		"endpoints": []string{
			"GET /v1/{prefix}/namespaces", "GET " + namespace, "HEAD " + namespace, "GET " + namespace + "/tables", "GET " + table, "HEAD " + table,
		},
	}, nil
}

// byNamespace are the names of the lake's tables.
func (c *Catalog) byNamespace(ctx context.Context) (namespaces []string, tables map[string][]string, err error) {
	names, err := c.cfg.Lake.Tables(ctx)
	if err != nil {
		return nil, nil, err
	}
	tables = map[string][]string{}
	for _, n := range names {
		if tables[n.Namespace] == nil {
			namespaces = append(namespaces, n.Namespace)
		}
		tables[n.Namespace] = append(tables[n.Namespace], n.Table)
	}
	if c.cfg.Serving == nil {
		slices.Sort(namespaces)
		return namespaces, tables, nil
	}
	stands, err := c.cfg.Serving(ctx)
	if err != nil {
		return nil, nil, err
	}
	var served []string
	for _, namespace := range stands {
		served = append(served, tables[namespace]...)
	}
	if len(served) > 0 {
		slices.Sort(served)
		namespaces, tables[serving] = append(namespaces, serving), slices.Compact(served)
	}
	slices.Sort(namespaces)
	return namespaces, tables, nil
}

// serving is the namespace that stands for others.
const serving = "serving"

// lookup finds a table, also by what its namespace is called while it serves.
func (c *Catalog) lookup(ctx context.Context, namespace, table string) (*lake.Table, error) {
	if namespace != serving || c.cfg.Serving == nil {
		return c.cfg.Lake.Lookup(ctx, lake.Name{Namespace: namespace, Table: table})
	}
	stands, err := c.cfg.Serving(ctx)
	if err != nil {
		return nil, err
	}
	for _, namespace := range stands {
		t, err := c.cfg.Lake.Lookup(ctx, lake.Name{Namespace: namespace, Table: table})
		if !errors.Is(err, lake.ErrNotFound) {
			return t, err
		}
	}
	return nil, fmt.Errorf("%s.%s: %w", serving, table, lake.ErrNotFound)
}

func noNamespace(name string) error {
	return fault{http.StatusNotFound, "NoSuchNamespaceException", fmt.Sprintf("there is no namespace %q in the lake", name)}
}

func (c *Catalog) namespaces(r *http.Request) (any, error) {
	names, tables, err := c.byNamespace(r.Context())
	if err != nil {
		return nil, err
	}
	list := [][]string{}
	parent := r.URL.Query().Get("parent")
	switch {
	case parent == "":
		for _, n := range names {
			list = append(list, []string{n})
		}
	case tables[parent] == nil:
		return nil, noNamespace(parent)
	}
	return map[string]any{"namespaces": list}, nil
}

func (c *Catalog) namespace(r *http.Request) (any, error) {
	name := r.PathValue("namespace")
	_, tables, err := c.byNamespace(r.Context())
	if err == nil && tables[name] == nil {
		err = noNamespace(name)
	}
	return map[string]any{"namespace": []string{name}, "properties": map[string]string{}}, err
}

func (c *Catalog) tables(r *http.Request) (any, error) {
	name := r.PathValue("namespace")
	_, tables, err := c.byNamespace(r.Context())
	if err == nil && tables[name] == nil {
		err = noNamespace(name)
	}
	type identifier struct {
		Namespace []string `json:"namespace"`
		Name      string   `json:"name"`
	}
	list := []identifier{}
	for _, t := range tables[name] {
		list = append(list, identifier{[]string{name}, t})
	}
	return map[string]any{"identifiers": list}, err
}

func (c *Catalog) table(r *http.Request) (any, error) {
	t, err := c.lookup(r.Context(), r.PathValue("namespace"), r.PathValue("table"))
	if err != nil {
		return nil, err
	}
	location, metadata, err := t.Metadata(r.Context())
	return map[string]any{"metadata-location": location, "metadata": json.RawMessage(metadata), "config": map[string]string{}}, err
}
