package index

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// route is one operation: what it answers to and which URL parameters it takes.
type route struct {
	methods string // blank-separated
	pattern string // segments; {x} takes one that does not begin with an underscore, {index} also _all
	params  string // blank-separated, beside commonParams
	name    string // in metrics
	handle  func(*Server, *request) (reply, error)
}

const (
	commonParams = "pretty human error_trace"
	targetParams = " ignore_unavailable allow_no_indices expand_wildcards"
	masterParams = " timeout master_timeout cluster_manager_timeout"
	// Of these only version and the conditions have an effect: a write is refreshed and on all its shards when it returns.
	writeParams  = "version version_type op_type if_seq_no if_primary_term refresh timeout wait_for_active_shards require_alias"
	getParams    = "_source _source_includes _source_excludes realtime refresh preference version version_type"
	searchParams = "typed_keys preference request_cache allow_partial_search_results max_concurrent_shard_requests" +
		" pre_filter_shard_size batched_reduce_size ccs_minimize_roundtrips search_type ignore_throttled" + targetParams
)

// routes are tried in order.
var routes = []route{
	{"GET HEAD", "/", "", "info", (*Server).info},
	{"POST PUT", "/_bulk", "refresh timeout wait_for_active_shards require_alias", "bulk", (*Server).bulk},
	{"POST PUT", "/{index}/_bulk", "refresh timeout wait_for_active_shards require_alias", "bulk", (*Server).bulk},
	{"GET POST", "/_search", searchParams + " size from track_total_hits", "search", (*Server).search},
	{"GET POST", "/{index}/_search", searchParams + " size from track_total_hits", "search", (*Server).search},
	{"GET POST", "/_msearch", searchParams, "search", (*Server).multiSearch},
	{"GET POST", "/{index}/_msearch", searchParams, "search", (*Server).multiSearch},
	{"GET POST", "/_count", "preference" + targetParams, "count", (*Server).count},
	{"GET POST", "/{index}/_count", "preference" + targetParams, "count", (*Server).count},
	{"GET HEAD", "/{index}/_doc/{id}", getParams, "get", (*Server).getDocument},
	{"PUT POST", "/{index}/_doc/{id}", writeParams, "write", (*Server).putDocument},
	{"DELETE", "/{index}/_doc/{id}", writeParams, "write", (*Server).deleteDocument},
	{"POST", "/{index}/_doc", writeParams, "write", (*Server).putDocument},
	{"PUT POST", "/{index}/_create/{id}", writeParams, "write", (*Server).createDocument},
	{"POST", "/{index}/_update/{id}", writeParams, "write", (*Server).updateDocument},
	{"GET HEAD", "/{index}/_source/{id}", getParams, "get", (*Server).getSource},
	{"GET POST", "/_refresh", targetParams, "refresh", (*Server).refresh},
	{"GET POST", "/{index}/_refresh", targetParams, "refresh", (*Server).refresh},
	{"GET", "/_cluster/health", "wait_for_status timeout level" + masterParams, "health", (*Server).health},
	{"GET", "/_cluster/health/{index}", "wait_for_status timeout level" + masterParams, "health", (*Server).health},
	{"GET", "/_cat/indices", "format v h s bytes" + targetParams, "cat", (*Server).catIndices},
	{"GET", "/_cat/indices/{index}", "format v h s bytes" + targetParams, "cat", (*Server).catIndices},
	{"POST", "/_aliases", masterParams, "admin", (*Server).updateAliases},
	{"GET", "/_alias", targetParams, "admin", (*Server).getAlias},
	{"GET HEAD", "/_alias/{alias}", targetParams, "admin", (*Server).getAlias},
	{"GET", "/{index}/_alias", targetParams, "admin", (*Server).getAlias},
	{"GET HEAD", "/{index}/_alias/{alias}", targetParams, "admin", (*Server).getAlias},
	{"PUT POST", "/{index}/_alias/{alias}", masterParams, "admin", (*Server).putAlias},
	{"DELETE", "/{index}/_alias/{alias}", masterParams, "admin", (*Server).deleteAlias},
	{"GET", "/_mapping", targetParams + masterParams, "admin", (*Server).getMapping},
	{"GET", "/{index}/_mapping", targetParams + masterParams, "admin", (*Server).getMapping},
	{"PUT POST", "/{index}/_mapping", targetParams + masterParams, "admin", (*Server).putMapping},
	{"PUT", "/{index}", "wait_for_active_shards" + masterParams, "admin", (*Server).createIndex},
	{"GET", "/{index}", "include_defaults flat_settings features" + targetParams + masterParams, "admin", (*Server).getIndex},
	{"HEAD", "/{index}", "flat_settings" + targetParams, "admin", (*Server).headIndex},
	{"DELETE", "/{index}", targetParams + masterParams, "admin", (*Server).deleteIndex},
}

// request is what a handler is given.
type request struct {
	*http.Request
	vars  map[string]string
	query url.Values
	body  []byte
}

func (r *request) flag(name string) bool {
	v, ok := r.query[name]
	return ok && (v[0] == "" || v[0] == "true")
}

func (r *request) lenience() lenience {
	return lenience{ignoreUnavailable: r.flag("ignore_unavailable"), refuseNone: r.query.Get("allow_no_indices") == "false"}
}

// json returns the body as an object; an absent one is an empty object.
func (r *request) json() (value, error) {
	if len(bytes.TrimSpace(r.body)) == 0 {
		return value{kind: kindObject, raw: []byte("{}")}, nil
	}
	v, err := parseJSON(r.body)
	if err != nil {
		return v, unparsable("%s", err)
	}
	if v.kind != kindObject {
		return v, unparsable("the request body must be a JSON object, but is a JSON %s", v.kind)
	}
	return v, nil
}

// reply is an answer: JSON unless text is set.
type reply struct {
	status int // default 200
	body   any
	text   string
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := s.config.Now()
	name, out := "unknown", reply{}
	rt, vars, err := match(r)
	if err == nil {
		name = rt.name
		out, err = s.answer(rt, vars, r)
	}
	if out.status == 0 {
		out.status = http.StatusOK
	}
	if err != nil {
		out = s.failure(r, err)
	}
	s.respond(w, r, out)
	status := strconv.Itoa(out.status/100) + "xx"
	s.metrics.requests.WithLabelValues(name, status).Observe(s.config.Now().Sub(start).Seconds())
}

// failure is the reply for an error, and the place where the server's own faults are logged.
func (s *Server) failure(r *http.Request, err error) reply {
	var plain *plainError
	if errors.As(err, &plain) {
		body := map[string]any{"error": plain.text}
		if plain.status == http.StatusMethodNotAllowed {
			body["status"] = plain.status
		}
		return reply{status: plain.status, body: body}
	}
	if r.Context().Err() != nil { // the client is gone, or is at its deadline
		err = refuse(http.StatusServiceUnavailable, "task_cancelled_exception", "the request was cancelled: %s", context.Cause(r.Context()))
	}
	e := asError(err)
	if e.Status >= 500 && r.Context().Err() == nil {
		s.config.Logger.Error("index request", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	return reply{status: e.Status, body: e.body()}
}

func (s *Server) answer(rt *route, vars map[string]string, r *http.Request) (reply, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return reply{}, illegal("malformed URL query: %s", err)
	}
	for p := range query {
		if !slices.Contains(strings.Fields(rt.params+" "+commonParams), p) {
			return reply{}, illegal("request [%s] contains unrecognized parameter: [%s]", r.URL.Path, p)
		}
	}
	body, err := s.readBody(r)
	if err != nil {
		return reply{}, err
	}
	return rt.handle(s, &request{Request: r, vars: vars, query: query, body: body})
}

// plainError is a refusal whose body is not structured, as Elasticsearch's router gives them.
type plainError struct {
	status int
	text   string
}

func (e *plainError) Error() string { return e.text }

func match(r *http.Request) (*route, map[string]string, error) {
	var segments []string
	for part := range strings.SplitSeq(strings.Trim(r.URL.EscapedPath(), "/"), "/") {
		s, err := url.PathUnescape(part)
		if err != nil {
			return nil, nil, illegal("malformed path: %s", err)
		}
		if s != "" {
			segments = append(segments, s)
		}
	}
	allowed := []string{}
	for i := range routes {
		vars, ok := routes[i].match(segments)
		if !ok {
			continue
		}
		methods := strings.Fields(routes[i].methods)
		if slices.Contains(methods, r.Method) {
			return &routes[i], vars, nil
		}
		allowed = append(allowed, methods...)
	}
	if len(allowed) > 0 {
		return nil, nil, &plainError{405, fmt.Sprintf("Incorrect HTTP method for uri [%s] and method [%s], allowed: [%s]", r.URL.Path, r.Method, strings.Join(allowed, ", "))}
	}
	return nil, nil, &plainError{400, fmt.Sprintf("no handler found for uri [%s] and method [%s]", r.URL.Path, r.Method)}
}

func (rt *route) match(segments []string) (map[string]string, bool) {
	var pattern []string
	if rt.pattern != "/" {
		pattern = strings.Split(rt.pattern[1:], "/")
	}
	if len(pattern) != len(segments) {
		return nil, false
	}
	vars := map[string]string{}
	for i, p := range pattern {
		switch s := segments[i]; {
		case p == "{id}":
			vars["id"] = s
		case p[0] == '{':
			if s[0] == '_' && s != "_all" {
				return nil, false
			}
			vars[p[1:len(p)-1]] = s
		case p != s:
			return nil, false
		}
	}
	return vars, true
}

// readBody returns the decompressed body, within the limit.
func (s *Server) readBody(r *http.Request) ([]byte, error) {
	limit := s.config.MaxBodyBytes
	sent := &io.LimitedReader{R: r.Body, N: limit + 1}
	var in io.Reader = sent
	switch e := r.Header.Get("Content-Encoding"); e {
	case "", "identity":
	case "gzip":
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, illegal("the request body is not gzip: %s", err)
		}
		in = z
	default:
		return nil, refuse(http.StatusUnsupportedMediaType, "media_type_header_exception", "Content-Encoding [%s] is not supported", e)
	}
	body, err := io.ReadAll(io.LimitReader(in, limit+1))
	if sent.N <= 0 || int64(len(body)) > limit {
		// A client that is cut off while it sends sees a broken connection, not the answer.
		_, _ = io.CopyN(io.Discard, r.Body, 4*limit)
		return nil, refuse(http.StatusRequestEntityTooLarge, "content_too_long_exception", "the request body is larger than the %d bytes that are taken at once", limit)
	}
	if err != nil {
		return nil, illegal("read the request body: %s", err)
	}
	if len(body) == 0 {
		return nil, nil
	}
	switch t := mediaType(r); t {
	case "application/json", "application/x-ndjson", "application/vnd.elasticsearch+json", "application/vnd.elasticsearch+x-ndjson":
	case "":
		return nil, refuse(http.StatusNotAcceptable, "media_type_header_exception", "a request with a body must have a Content-Type header, application/json or application/x-ndjson")
	default:
		return nil, refuse(http.StatusNotAcceptable, "media_type_header_exception", "Content-Type header [%s] is not supported", t)
	}
	return body, nil
}

func mediaType(r *http.Request) string {
	t, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return strings.ToLower(strings.TrimSpace(t))
}

func (s *Server) respond(w http.ResponseWriter, r *http.Request, out reply) {
	h := w.Header()
	h.Set("X-Elastic-Product", "Elasticsearch")
	h.Set("X-Content-Type-Options", "nosniff")
	var body []byte
	if out.text != "" || out.body == nil {
		h.Set("Content-Type", "text/plain; charset=UTF-8")
		body = []byte(out.text)
	} else {
		h.Set("Content-Type", "application/json")
		if accept := r.Header.Get("Accept"); strings.HasPrefix(accept, "application/vnd.elasticsearch+json") && !strings.Contains(accept, ",") {
			h.Set("Content-Type", accept)
		}
		var buf bytes.Buffer
		enc := json.NewEncoder(&buf)
		enc.SetEscapeHTML(false)
		if q := r.URL.Query(); q.Has("pretty") && q.Get("pretty") != "false" {
			enc.SetIndent("", "  ")
		}
		if err := enc.Encode(out.body); err != nil {
			s.config.Logger.Error("encode response", "path", r.URL.Path, "error", err)
			out.status = http.StatusInternalServerError
			buf.Reset()
		}
		body = buf.Bytes()
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(out.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the client may be gone
	}
}

// esVersion is the version of Elasticsearch whose API is spoken.
const esVersion = "8.11.0"

func (s *Server) info(*request) (reply, error) {
	return reply{body: map[string]any{
		"name": "millrace", "cluster_name": "millrace", "cluster_uuid": "_na_", "tagline": "You Know, for Search",
		"version": map[string]any{
			"number": esVersion, "build_flavor": "default", "build_type": "embedded", "build_hash": "unknown",
			"build_date": "2023-11-04T10:04:57.184859352Z", "build_snapshot": false, "lucene_version": "9.8.0",
			"minimum_wire_compatibility_version": "7.17.0", "minimum_index_compatibility_version": "7.0.0",
		},
	}}, nil
}

func took(now func() time.Time, start time.Time) int64 { return now().Sub(start).Milliseconds() }
