package index

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxWindow is Elasticsearch's index.max_result_window.
const maxWindow = 10_000

// searchRequest is a parsed search.
type searchRequest struct {
	query      query
	from, size int
	sort       []sortKey
	after      []value
	source     sourceFilter
	total      int64 // count up to this many; -1 all, 0 not at all
	version    bool
	seqNo      bool
	aggs       *bucketAgg // a root without keys; nil when there are none
	typedKeys  bool
}

func parseSearch(body *value, r *request) (*searchRequest, error) {
	q := &searchRequest{query: matchAll{}, size: 10, total: maxWindow, typedKeys: r.flag("typed_keys")}
	p := &queryParser{}
	var err error
	for i := range body.obj {
		m := &body.obj[i]
		v := &m.val
		switch m.key {
		case "query":
			q.query, err = p.parse(v, 0)
		case "from":
			q.from, err = natural(m)
		case "size":
			q.size, err = natural(m)
		case "sort":
			q.sort, err = parseSort(v)
		case "search_after":
			if q.after = v.arr; v.kind != kindArray || len(v.arr) == 0 {
				err = unparsable("[search_after] must be an array with at least one value")
			}
		case "_source":
			q.source, err = parseSource(v)
		case "track_total_hits":
			q.total, err = trackTotal(v)
		case "version":
			q.version, err = boolean(m)
		case "seq_no_primary_term":
			q.seqNo, err = boolean(m)
		case "aggs", "aggregations":
			if q.aggs != nil {
				err = unparsable("Found two aggregation definitions")
			} else {
				q.aggs, err = parseAggs(p, v)
			}
		case "timeout", "terminate_after": // only Elasticsearch's own limits
		case "track_scores", "explain", "profile":
			var on bool
			if on, err = boolean(m); on {
				err = unparsable("[%s] is not supported", m.key)
			}
		case "stored_fields", "docvalue_fields", "fields", "script_fields", "runtime_mappings":
			// Dashboards send them empty.
			if len(v.arr) > 0 || len(v.obj) > 0 || v.kind == kindString {
				err = unparsable("[%s] is not supported", m.key)
			}
		default:
			err = unparsable("Unknown key for a %s in [%s].", v.kind, m.key)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := q.fromURL(r); err != nil {
		return nil, err
	}
	switch {
	case q.from+q.size > maxWindow:
		return nil, onShard("", "illegal_argument_exception", "Result window is too large, from + size must be less than or equal to: [%d] but was [%d]. See the scroll api for a more efficient way to request large data sets. This limit can be set by changing the [index.max_result_window] index level setting.", maxWindow, q.from+q.size)
	case q.after != nil && q.from > 0:
		return nil, refuse(400, "action_request_validation_exception", "Validation Failed: 1: `from` parameter must be set to 0 when `search_after` is used;")
	case q.after != nil && len(q.sort) == 0:
		return nil, illegal("Sort must contain at least one field when search_after is used")
	case q.after != nil && len(q.after) != len(q.sort):
		return nil, illegal("search_after has %d value(s) but sort has %d.", len(q.after), len(q.sort))
	}
	return q, nil
}

func (q *searchRequest) fromURL(r *request) error {
	for name, to := range map[string]*int{"size": &q.size, "from": &q.from} {
		if !r.query.Has(name) {
			continue
		}
		n, err := natural(&member{name, value{kind: kindString, str: r.query.Get(name)}})
		if err != nil {
			return err
		}
		*to = n
	}
	if r.query.Has("track_total_hits") {
		n, err := trackTotal(&value{kind: kindString, str: r.query.Get("track_total_hits")})
		q.total = n
		return err
	}
	return nil
}

func natural(m *member) (int, error) {
	n, ok := m.val.integer()
	if !ok || n < 0 || n > 1<<31-1 {
		return 0, illegal("[%s] parameter must be a number from 0 on, but was [%s]", m.key, m.val.text())
	}
	return int(n), nil
}

func boolean(m *member) (bool, error) {
	switch m.val.text() {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, illegal("Failed to parse value [%s] as only [true] or [false] are allowed.", m.val.text())
}

func trackTotal(v *value) (int64, error) {
	switch v.text() {
	case "true":
		return -1, nil
	case "false":
		return 0, nil
	}
	n, err := strconv.ParseInt(v.text(), 10, 32)
	if err != nil || n < -1 {
		return 0, illegal("[track_total_hits] parameter must be true, false or a positive number, but was [%s]", v.text())
	}
	return n, nil
}

type searchResponse struct {
	Took     int64          `json:"took"`
	TimedOut bool           `json:"timed_out"`
	Shards   map[string]int `json:"_shards"`
	Hits     struct {
		Total    *hitTotal `json:"total,omitempty"`
		MaxScore *double   `json:"max_score"`
		Hits     []hit     `json:"hits"`
	} `json:"hits"`
	Aggregations map[string]any `json:"aggregations,omitempty"`
	Status       int            `json:"status,omitempty"` // in a multi-search only
}

type hitTotal struct {
	Value    int64  `json:"value"`
	Relation string `json:"relation"`
}

type hit struct {
	Index   string          `json:"_index"`
	ID      string          `json:"_id"`
	Version *int64          `json:"_version,omitempty"`
	SeqNo   *int64          `json:"_seq_no,omitempty"`
	Term    int             `json:"_primary_term,omitempty"`
	Score   *double         `json:"_score"`
	Source  json.RawMessage `json:"_source,omitempty"`
	Sort    []any           `json:"sort,omitempty"`
}

func shardCounts(n int) map[string]int {
	return map[string]int{"total": n, "successful": n, "skipped": 0, "failed": 0}
}

func (s *Server) search(r *request) (reply, error) {
	body, err := r.json()
	if err != nil {
		return reply{}, err
	}
	out, err := s.runSearch(r.Context(), r, r.vars["index"], r.lenience(), &body)
	return reply{body: out}, err
}

func (s *Server) runSearch(ctx context.Context, r *request, target string, l lenience, body *value) (*searchResponse, error) {
	start := s.config.Now()
	q, err := parseSearch(body, r)
	if err != nil {
		return nil, err
	}
	out := &searchResponse{}
	err = s.read(ctx, func(snap snapshot) error {
		xs, err := snap.resolve(target, l)
		if err != nil {
			return err
		}
		x := &execution{snapshot: snap, ctx: ctx, indices: xs, query: q.query}
		out.Shards = shardCounts(len(xs))
		out.Hits.Hits = []hit{}
		if q.total != 0 {
			n, err := x.count()
			if err != nil {
				return err
			}
			out.Hits.Total = &hitTotal{n, "eq"}
			if q.total > 0 && n > q.total {
				out.Hits.Total = &hitTotal{q.total, "gte"}
			}
		}
		if q.size > 0 || q.after != nil || len(q.sort) > 0 { // also without hits: a bad sort is one
			if err := x.hits(q, out); err != nil {
				return err
			}
		}
		if q.aggs != nil {
			out.Aggregations, err = x.aggregate(q)
		}
		return err
	})
	out.Took = took(s.config.Now, start)
	return out, err
}

func (s *Server) count(r *request) (reply, error) {
	body, err := r.json()
	if err != nil {
		return reply{}, err
	}
	if err := only("_count", &body, "query"); err != nil {
		return reply{}, err
	}
	var q query = matchAll{}
	if v, ok := body.get("query"); ok {
		if q, err = (&queryParser{}).parse(v, 0); err != nil {
			return reply{}, err
		}
	}
	var n int64
	var shards map[string]int
	err = s.read(r.Context(), func(snap snapshot) error {
		xs, err := snap.resolve(r.vars["index"], r.lenience())
		if err != nil {
			return err
		}
		shards = shardCounts(len(xs))
		x := &execution{snapshot: snap, ctx: r.Context(), indices: xs, query: q}
		n, err = x.count()
		return err
	})
	return reply{body: map[string]any{"count": n, "_shards": shards}}, err
}

// multiSearch does searches one after another: pairs of lines, a header with the target and a search.
func (s *Server) multiSearch(r *request) (reply, error) {
	start := s.config.Now()
	if len(r.body) == 0 {
		return reply{}, refuse(400, "parse_exception", "request body is required")
	}
	lines := bytes.Split(bytes.TrimSuffix(r.body, []byte{'\n'}), []byte{'\n'})
	if len(lines)%2 != 0 {
		return reply{}, illegal("a multi-search is pairs of lines, a header and a search, but has %d lines", len(lines))
	}
	responses := []any{}
	for i := 0; i < len(lines); i += 2 {
		target, l, err := searchHeader(lines[i], r)
		if err != nil {
			return reply{}, err
		}
		body, err := parseJSON(lines[i+1])
		if err == nil && body.kind != kindObject {
			err = fmt.Errorf("a search must be a JSON object, but is a JSON %s", body.kind)
		}
		if err != nil {
			return reply{}, unparsable("%s", err)
		}
		out, err := s.runSearch(r.Context(), r, target, l, &body)
		if err != nil {
			responses = append(responses, s.failure(r.Request, err).body)
			continue
		}
		out.Status = http.StatusOK
		responses = append(responses, out)
	}
	return reply{body: map[string]any{"took": took(s.config.Now, start), "responses": responses}}, nil
}

func searchHeader(line []byte, r *request) (target string, l lenience, err error) {
	target, l = r.vars["index"], r.lenience()
	if len(bytes.TrimSpace(line)) == 0 {
		return target, l, nil
	}
	v, err := parseJSON(line)
	if err != nil || v.kind != kindObject {
		return "", l, unparsable("malformed header of a search: [%s]", line)
	}
	for _, m := range v.obj {
		switch m.key {
		case "index", "indices":
			target = m.val.text()
			if m.val.kind == kindArray {
				names := make([]string, len(m.val.arr))
				for i := range names {
					names[i] = m.val.arr[i].text()
				}
				target = strings.Join(names, ",")
			}
		case "ignore_unavailable":
			l.ignoreUnavailable = m.val.text() == "true"
		case "allow_no_indices":
			l.refuseNone = m.val.text() == "false"
		case "search_type", "preference", "expand_wildcards", "ignore_throttled", "request_cache", "max_concurrent_shard_requests":
		default:
			return "", l, illegal("key [%s] is not supported in the metadata section", m.key)
		}
	}
	return target, l, nil
}

// execution is one search over one snapshot.
type execution struct {
	snapshot
	ctx     context.Context
	indices []*index
	query   query
}

// column is a value that a statement needs of each document.
type column struct {
	name string
	typ  string // SQL type
	expr func(c *compiler) (string, error)
}

// base is SQL for the documents that match, of all indices, with ix, rid, id, seq and the given columns.
func (x *execution) base(st *statement, columns []column) (string, error) {
	var parts []string
	for i, idx := range x.indices {
		c := &compiler{statement: st, index: idx, now: x.now}
		list := fmt.Sprintf("SELECT %d AS ix, rowid AS rid, id, seq", i)
		for _, col := range columns {
			expr, err := col.expr(c)
			if err != nil {
				return "", err
			}
			list += ", " + expr + " AS " + col.name
		}
		where, err := x.query.sql(c)
		if err != nil {
			return "", err
		}
		parts = append(parts, list+" FROM "+idx.table()+" WHERE NOT deleted AND "+where)
	}
	if len(parts) == 0 {
		list := "SELECT 0 AS ix, 0::BIGINT AS rid, '' AS id, 0::BIGINT AS seq"
		for _, col := range columns {
			list += ", NULL::" + col.typ + " AS " + col.name
		}
		return list + " WHERE false", nil
	}
	return strings.Join(parts, " UNION ALL "), nil
}

func (x *execution) count() (n int64, err error) {
	st := &statement{}
	base, err := x.base(st, nil)
	if err != nil {
		return 0, err
	}
	err = x.tx.QueryRowContext(x.ctx, "SELECT count(*) FROM ("+base+")", st.args...).Scan(&n)
	return n, err
}

// unified is a field as all indices of a search have it together.
type unified struct {
	path   string
	typ    string // declared; empty when no index maps it
	sql    string // of one value
	multi  bool
	format string
}

// unify finds what a field is over all indices. Numbers of different types become doubles.
func (x *execution) unify(path string) (u unified, err error) {
	u.path = path
	for _, idx := range x.indices {
		c := &compiler{statement: &statement{}, index: idx}
		p, ok := c.place(path)
		if !ok {
			continue
		}
		if storage(p.Type) == "" {
			return u, onShard(idx.Name, "illegal_argument_exception", "Field [%s] of type [%s] does not support sorting and aggregations", path, p.Type)
		}
		u.multi = u.multi || p.Multi
		switch next := storage(p.Type); {
		case u.typ == "":
			u.typ, u.sql, u.format = p.Type, next, p.Format
		case next == u.sql && (p.Type == typeDate) == (u.typ == typeDate):
		case numeric(p.Type) && numeric(u.typ):
			u.typ, u.sql = typeDouble, "DOUBLE"
		default:
			return u, onShard(idx.Name, "illegal_argument_exception", "field [%s] is of type [%s] in one index and of type [%s] in another: search them apart", path, u.typ, p.Type)
		}
	}
	return u, nil
}

func numeric(typ string) bool {
	return typ != typeDate && (storage(typ) == "BIGINT" || storage(typ) == "DOUBLE")
}

func (u unified) sqlType() string {
	if u.multi {
		return u.sql + "[]"
	}
	return u.sql
}

// column makes the field a column of a statement.
func (u unified) column(name string) column {
	return column{name, u.sqlType(), func(c *compiler) (string, error) {
		p, ok := c.place(u.path)
		switch {
		case !ok:
			return "NULL::" + u.sqlType(), nil
		case u.multi && !p.Multi:
			return fmt.Sprintf("CASE WHEN %[1]s IS NULL THEN NULL ELSE [%[1]s] END::%[2]s", p.expr, u.sqlType()), nil
		}
		return p.expr + "::" + u.sqlType(), nil
	}}
}

// formats are those that instants of the field are printed in: the first of its mapping, or given ones.
func (u unified) print(given []format, ms int64, loc *time.Location) string {
	if given == nil {
		given, _ = parseFormats(u.format) // checked when it was mapped
	}
	return given[0].print(ms, loc)
}
