package api

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"millrace/control"
	"millrace/control/access"
)

// Paths of what the lake's tables hold.
const (
	TablesPath = "/api/v1/lake/tables"
	RawPath    = "/api/v1/lake/raw"
	DiffPath   = "/api/v1/lake/diff"
)

// LakeTable is a table of the lake, and how large it is.
type LakeTable struct {
	Namespace string `json:"namespace"`
	Table     string `json:"table"`
	Rows      int64  `json:"rows"`
	Files     int    `json:"files"`
	Bytes     int64  `json:"bytes"`

	Snapshots int       `json:"snapshots"`          // that are kept
	Compacted time.Time `json:"compacted,omitzero"` // when files were last joined
}

// TableRows are rows, each an object with its columns.
type TableRows struct {
	Rows []any `json:"rows"`
	More bool  `json:"more,omitempty"` // there are more than an answer has
}

// RowsQuery chooses rows.
type RowsQuery struct {
	Table string // namespace.name, or the name of one that serves; empty: what the raw lake keeps
	Kind  string // of what the raw lake keeps: event, entity or reject; empty: all
	Limit int    // rows at most, of the raw lake of each kind; 0: all
}

// DiffQuery says what is compared with what.
type DiffQuery struct {
	A, B   string   // data versions, or serving
	Tables []string // empty: all
	LakeQuery
	Examples int // of each table and kind of difference
}

// JSONL is the media type of rows that are streamed, each a line.
const JSONL = "application/jsonl"

// Bounds of rows in one answer that is no stream.
const (
	defaultRows = 100
	mostRows    = 10_000
)

// defaultExamples is how many examples of a difference an answer has.
const defaultExamples = 3

// rowEndpoints are the addresses of what the lake's tables hold.
func (h *Handler) rowEndpoints() []endpoint {
	text := func(name, about, example string) parameter { return parameter{name, about, stringSchema(example)} }
	limit := parameter{"limit", fmt.Sprintf("rows at most, 0 to %d, default %d; of a stream any number, 0 and the default are all", mostRows, defaultRows), &jsonschema.Schema{Type: "integer"}}
	rows := func(path, summary string, serve func(*http.Request) (any, error), query ...parameter) endpoint {
		return endpoint{
			method: http.MethodGet, path: path, summary: summary + ". With Accept: " + JSONL + " a stream of all, a row a line; one that fails breaks off, without its end", scope: access.Tenant, query: append(query, limit),
			status: http.StatusOK, answer: reflect.TypeFor[TableRows](), serve: serve, streams: []string{JSONL}, takes: control.Analyst,
		}
	}
	return []endpoint{
		{
			method: http.MethodGet, path: TablesPath, summary: "The tables of the lake, and how large they are", status: http.StatusOK, answer: reflect.TypeFor[[]LakeTable](), takes: control.Analyst,
			serve: func(r *http.Request) (any, error) { return h.Service.Tables(r.Context()) },
		},
		rows(TablesPath+"/{table}/rows", "Rows of a table as the lake holds them; of a name that the data versions of several apps have which serve, those of all", func(r *http.Request) (any, error) {
			return h.rows(r, RowsQuery{Table: r.PathValue("table")}, "limit")
		}),
		rows(RawPath, "What the raw lake keeps, with the exact bytes", func(r *http.Request) (any, error) {
			return h.rows(r, RowsQuery{Kind: r.URL.Query().Get("kind")}, "kind", "limit")
		}, text("kind", "only those of this one: event, entity or reject", "event")),
		{
			method: http.MethodGet, path: DiffPath, summary: "How the tables of two data versions differ, row by row", scope: access.Tenant, status: http.StatusOK, answer: reflect.TypeOf(h.Comparison), takes: control.Analyst,
			serve: h.diff, query: []parameter{
				text("a", "a data version, or serving", "serving"), text("b", "a data version, or serving", "20180827174235"), text("table", "only this one; it may be repeated", "quiz_submission"),
				text("account", "only rows of this one", "deepthought"), text("env", "only rows of this one", "deepthought3"),
				text("from", "day or instant of the first event time", "2018-11-30"), text("to", "day or instant that event times are before", "2018-12-01T12:00:00Z"),
				{"examples", fmt.Sprintf("of each table and kind of difference, 0 to %d; default %d", defaultRows, defaultExamples), &jsonschema.Schema{Type: "integer"}},
			},
		},
	}
}

// known returns the parameters of a request, and an error for one that there is not, or that is given more than once and not repeated: mistyped, and without it
// everything would be chosen.
func known(r *http.Request, names []string, repeated ...string) (url.Values, error) {
	query := r.URL.Query()
	for _, name := range slices.Sorted(maps.Keys(query)) {
		switch {
		case slices.Contains(repeated, name):
		case !slices.Contains(names, name):
			return nil, fmt.Errorf("%w: there is no parameter %q; there are %s", ErrInvalid, name, strings.Join(slices.Sorted(slices.Values(append(names, repeated...))), ", "))
		case len(query[name]) > 1:
			return nil, fmt.Errorf("%w: parameter %s is given %d times; give it once", ErrInvalid, name, len(query[name]))
		}
	}
	return query, nil
}

// number reads a parameter between 0 and a bound.
func number(query url.Values, name string, otherwise, most int) (int, error) {
	text := query.Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("%w: %s=%s: want 0 to %d", ErrInvalid, name, text, most)
	}
	return n, nil
}

// rows answers with rows: as a page, or as a stream of all.
func (h *Handler) rows(r *http.Request, q RowsQuery, names ...string) (any, error) {
	query, err := known(r, names)
	if err != nil {
		return nil, err
	}
	stream := strings.HasPrefix(r.Header.Get("Accept"), JSONL)
	most, otherwise := mostRows, defaultRows
	if stream {
		most, otherwise = 1<<31-1, 0
	}
	if q.Limit, err = number(query, "limit", otherwise, most); err != nil {
		return nil, err
	}
	limit := q.Limit
	if !stream {
		q.Limit++ // whether there are more
	}
	all, done, err := h.Service.Rows(r.Context(), access.From(r.Context()).Account, q)
	if err != nil {
		return nil, err
	}
	if stream {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer done()
			h.sendRows(w, r, all)
		}), nil
	}
	defer done()
	page, size := TableRows{Rows: []any{}}, 0
	for row, err := range all {
		if err != nil {
			return nil, err
		}
		if size += len(row); len(page.Rows) == limit || size > mostBytes {
			page.More = true
			break
		}
		page.Rows = append(page.Rows, json.RawMessage(slices.Clone(row)))
	}
	return page, nil
}

// sendRows streams rows until they end.
func (h *Handler) sendRows(w http.ResponseWriter, r *http.Request, all iter.Seq2[[]byte, error]) {
	w.Header().Set("Content-Type", JSONL)
	out := slow(w)
	defer out.done()
	for row, err := range all {
		if err == nil {
			_, err = out.Write(append(row, '\n'))
		}
		if err != nil {
			h.Logger.Warn("rows not sent", "path", r.URL.Path, "error", err)
			panic(http.ErrAbortHandler) // half of them must not look like all
		}
	}
}

// diff compares two data versions.
func (h *Handler) diff(r *http.Request) (any, error) {
	query, err := known(r, []string{"a", "b", "account", "env", "from", "to", "examples"}, "table")
	if err != nil {
		return nil, err
	}
	q := DiffQuery{
		A: query.Get("a"), B: query.Get("b"), Tables: query["table"],
		LakeQuery: LakeQuery{Account: query.Get("account"), Env: query.Get("env"), From: query.Get("from"), To: query.Get("to")},
	}
	if q.A == "" || q.B == "" {
		return nil, fmt.Errorf("%w: a and b: say which two data versions are compared", ErrInvalid)
	}
	if q.Examples, err = number(query, "examples", defaultExamples, defaultRows); err != nil {
		return nil, err
	}
	return h.Service.Compare(r.Context(), access.From(r.Context()).Account, q)
}
