package api

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"millrace/control"
	"millrace/control/access"
)

// SpecPath is where the description of the API is: OpenAPI 3.1.
const SpecPath = "/api/openapi.json"

// endpoint is one address of the API. Handlers and description are made of the same ones, so that neither has what the other lacks.
type endpoint struct {
	method, path string
	summary      string
	scope        access.Scope // zero: it is of the stack as a whole
	query        []parameter
	body         reflect.Type // of the request; nil: it has none, or for a POST bytes
	status       int          // of the answer when it succeeds
	answer       reflect.Type
	serve        func(*http.Request) (any, error)

	tag     bool         // a GET answers with an ETag, and a POST takes it in If-Match
	streams []string     // media types that it may answer with too
	takes   control.Role // the least role; 0: viewer for a GET, operator for what changes something
}

func (e endpoint) withTag() endpoint {
	e.tag = true
	return e
}

// conditional is what serves, unless it is asked for on a condition that it does not look at.
func (e endpoint) conditional(serve func(*http.Request) (any, error)) func(*http.Request) (any, error) {
	if e.tag || e.method == http.MethodGet {
		return serve
	}
	return func(r *http.Request) (any, error) {
		if r.Header.Get("If-Match") != "" {
			return nil, fmt.Errorf("%w: If-Match: this has no revisions; leave it out", ErrInvalid)
		}
		return serve(r)
	}
}

// parameter is one of a query.
type parameter struct {
	name, about string
	schema      *jsonschema.Schema
}

// least is the role that it takes.
func (e endpoint) least() control.Role {
	if e.method == http.MethodGet {
		return cmp.Or(e.takes, control.Viewer)
	}
	return cmp.Or(e.takes, control.Operator)
}

// endpoints are all of the API.
func (h *Handler) endpoints() []endpoint {
	reads := func(path, summary string, answer any, serve func(*http.Request) (any, error), query ...parameter) endpoint {
		return endpoint{method: http.MethodGet, path: path, summary: summary, scope: access.Tenant, query: query, status: http.StatusOK, answer: reflect.TypeOf(answer), serve: serve}
	}
	begins := func(path, summary string, action func(*http.Request) control.Action) endpoint {
		return endpoint{
			method: http.MethodPost, path: path, summary: summary, scope: access.Tenant, body: reflect.TypeFor[Ask](), status: http.StatusAccepted, answer: reflect.TypeFor[control.Operation](),
			serve: func(r *http.Request) (any, error) { return h.do(r, action(r)) },
		}
	}
	var all []endpoint
	if h.Store != nil {
		all = h.identities()
	}
	if h.Service == nil {
		return all
	}
	text := func(name, about, example string) parameter { return parameter{name, about, stringSchema(example)} }
	lake := reads(LakeStatsPath, "How many records the raw lake holds, by source type, account, env, month of event time and kind", LakeStats{}, h.lakeStats,
		text("source_type", "only those of this one", "EDGENUITY_LMS"), text("account", "only those of this one", "deepthought"), text("env", "only those of this one", "deepthought3"),
		text("from", "day or instant of the first event time", "2018-11-30"), text("to", "day or instant that event times are before", "2018-12-01T12:00:00Z"))
	lake.takes = control.Analyst
	all = append(append(append(all, lake), h.rowEndpoints()...), append(h.savepointEndpoints(), h.deploying()...)...)
	return append(all, []endpoint{
		{
			method: http.MethodGet, path: StackPath, summary: "The stack, and which versions of apps are there", status: http.StatusOK, answer: reflect.TypeFor[Stack](),
			serve: func(r *http.Request) (any, error) { return h.Service.Stack(r.Context()) },
		},
		reads(Path, "The apps with their instances", []App{}, func(r *http.Request) (any, error) { return h.apps(r) }),
		reads(Path+"/{app}/history", "Who decided what: the newest hundred operations, or those before another one", []control.Operation{}, h.ofApp(h.history),
			parameter{"before", "id of an operation", &jsonschema.Schema{Type: "integer"}}),
		reads(Path+"/{app}/instances/{version}", "What is recorded of an instance", Record{}, h.ofApp(versioned(func(r *http.Request, version string) (any, error) {
			in, err := h.Service.Instance(r.Context(), r.PathValue("app"), version)
			return tagged{Tag(in.Revision), recordOf(in)}, err
		}))).withTag(),
		reads(Path+"/{app}/serving", "Which data version readers see, and what a rollback leads to", Serving{}, h.ofApp(h.serving)).withTag(),
		h.logsEndpoint(),
		reads(Path+"/{app}/instances/{version}/jobs", "The newest hundred runs of an instance", []control.Job{}, h.ofApp(versioned(func(r *http.Request, version string) (any, error) {
			return h.Service.Jobs(r.Context(), r.PathValue("app"), version)
		}))),
		reads(Path+"/{app}/instances/{version}/ledger", "Where each record is that the instance's job has read", Ledger{}, h.ofApp(versioned(func(r *http.Request, version string) (any, error) {
			return h.Service.Ledger(r.Context(), r.PathValue("app"), version)
		}))),
		reads(OperationsPath+"/{id}", "How an operation is", control.Operation{}, h.operation,
			parameter{"wait", "answer when it has ended, or after this time, at most " + longestWait.String(), &jsonschema.Schema{Type: "string", Examples: []any{"30s"}}}),
		{
			method: http.MethodPost, path: SQLPath, summary: "The rows of a SELECT over the lake's tables", scope: access.Tenant, body: reflect.TypeFor[QueryAsk](), status: http.StatusOK, takes: control.Analyst, // it changes nothing
			answer: reflect.TypeFor[Rows](), serve: h.query,
		},
		begins(Path+"/{app}/instances", "Start a data version", func(*http.Request) control.Action { return control.Start }),
		begins(Path+"/{app}/instances/{version}/{action}", "Do something with an instance: "+actions(), func(r *http.Request) control.Action { return control.Action(r.PathValue("action")) }).withTag(),
		begins(Path+"/{app}/rollback", "Make the data version serve that did before", func(*http.Request) control.Action { return control.Rollback }).withTag(),
	}...)
}

// logsEndpoint is the address of what the job of an instance says.
func (h *Handler) logsEndpoint() endpoint {
	return endpoint{
		method: http.MethodGet, path: Path + "/{app}/instances/{version}/logs", status: http.StatusOK, answer: reflect.TypeFor[Logs](),
		summary: "The last lines of what the instance's job said, of 8 MB at most; as they are with Accept: text/plain; with follow=true a stream of events, each a line, that goes on from Last-Event-ID",
		query: []parameter{
			{"lines", fmt.Sprintf("how many, 0 to %d; default: %d", mostLines, defaultLines), &jsonschema.Schema{Type: "integer"}},
			{"follow", "go on with what it says from then on", &jsonschema.Schema{Type: "boolean"}},
		},
		serve: versioned(h.logs), streams: []string{"text/plain", eventStream}, takes: control.Operator, // it may be of people, and of the machine
	}
}

// eventStream is the media type of server-sent events.
const eventStream = "text/event-stream"

// condition describes the header with which an endpoint takes a tag.
func (e endpoint) condition() object {
	if e.method == http.MethodGet {
		return headerParameter("If-None-Match", "an ETag that was answered before: the answer is 304 when it is that still")
	}
	about := "the ETag of what this was decided by"
	if strings.HasPrefix(e.path, Path+"/{app}/instances/") {
		about += ", to promote that of " + Path + "/{app}/serving"
	}
	return headerParameter("If-Match", about+": the answer is 412, and nothing is done, when there is another")
}

func headerParameter(name, about string) object {
	return object{"name": name, "in": "header", "description": about, "schema": object{"type": "string"}}
}

func stringSchema(example string) *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Examples: []any{example}}
}

// inPath describes the wildcards of paths.
var inPath = map[string]string{
	"app": "name of an app", "version": "a data version, such as 20180827174235, or unversioned", "action": "one of: " + actions(), "id": "of an operation, a blocker or a sensor key",
	"name": "of a token, or of a user", "build": "a version of the app that was pushed", "instance": "unique id of an instance", "savepoint": "name of a savepoint",
	"table": "name of a table that serves, or namespace.name",
}

var wildcard = regexp.MustCompile(`\{(\w+)\}`)

// about says what tokens that are bound to an account get.
var about = map[access.Scope]string{
	access.System: "A token that is bound to an account is refused (403): this is of the stack as a whole.",
	access.Tenant: "For a token that is bound to an account there is what is of that account: the rest is left out, or not found (404).",
}

// object is a JSON object of the description.
type object = map[string]any

// spec is the description of the API.
func spec(endpoints []endpoint) ([]byte, error) {
	components := object{}
	paths := object{}
	for _, e := range endpoints {
		described := object{"summary": e.summary, "operationId": e.id(), "description": about[e.scope]}
		var parameters []object
		for _, m := range wildcard.FindAllStringSubmatch(e.path, -1) {
			parameters = append(parameters, object{"name": m[1], "in": "path", "required": true, "description": inPath[m[1]], "schema": object{"type": "string"}})
		}
		for _, p := range e.query {
			parameters = append(parameters, object{"name": p.name, "in": "query", "description": p.about, "schema": p.schema})
		}
		if e.tag {
			parameters = append(parameters, e.condition())
		}
		if slices.Contains(e.streams, eventStream) {
			parameters = append(parameters, headerParameter("Last-Event-ID", "of an event of a stream before: this one begins after it, in place of the last lines"))
		}
		if e.method == http.MethodPost || e.takes > 0 {
			described["security"] = []object{{"token": []string{}}}
		}
		if e.takes > 0 {
			described["description"] = "It takes the role " + e.takes.String() + ". " + about[e.scope]
		}
		if e.body == nil && e.method == http.MethodPost {
			described["requestBody"] = object{"required": true, "content": object{"application/octet-stream": object{}}}
		}
		if e.body == reflect.TypeFor[Ask]() {
			parameters = append(parameters, headerParameter("Idempotency-Key", "names the request: one that was used before means the operation that it was used for"))
		}
		if e.body != nil {
			body, err := refer(e.body, components)
			if err != nil {
				return nil, err
			}
			described["requestBody"] = object{"content": object{"application/json": object{"schema": body}}}
		}
		if parameters != nil {
			described["parameters"] = parameters
		}
		answer, err := refer(e.answer, components)
		if err != nil {
			return nil, err
		}
		problem, err := refer(reflect.TypeFor[Problem](), components)
		if err != nil {
			return nil, err
		}
		content := object{"application/json": object{"schema": answer}}
		for _, kind := range e.streams {
			content[kind] = object{}
		}
		problems := object{"application/problem+json": object{"schema": problem}}
		good := object{"description": http.StatusText(e.status), "content": content}
		responses := object{strconv.Itoa(e.status): good, "default": object{"description": "what is wrong, and what to do", "content": problems}}
		tag := object{"ETag": object{"description": "of the present revision, strong", "schema": object{"type": "string"}}}
		switch {
		case e.tag && e.method == http.MethodGet:
			good["headers"] = tag
			responses["304"] = object{"description": "it is what If-None-Match has", "headers": tag}
		case e.tag:
			responses["412"] = object{"description": "it is not what If-Match has any more: present says what it is", "headers": tag, "content": problems}
		}
		described["responses"] = responses
		of, _ := paths[e.path].(object)
		if of == nil {
			of = object{}
			paths[e.path] = of
		}
		of[strings.ToLower(e.method)] = described
	}
	return json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info": object{
			"title": "Millrace control plane", "version": "v1",
			"description": "Apps, their instances, and what is done with them. A POST begins an operation, which is recorded before it is answered, and carried out whatever is killed meanwhile. Every answer has the API's version in " + VersionHeader + ": " + Version + ".",
		},
		"paths": paths,
		"components": object{
			"schemas":         components,
			"securitySchemes": object{"token": object{"type": "http", "scheme": "bearer", "description": "'millrace token add' makes one; its role has to suffice. With --account it is bound to that one"}},
		},
	}, "", "  ")
}

// id names the endpoint for programs that are made of the description: getAppHistory.
func (e endpoint) id() string {
	id := strings.ToLower(e.method)
	for _, part := range strings.FieldsFunc(strings.TrimPrefix(e.path, "/api/v1/"), func(r rune) bool { return r == '/' || r == '{' || r == '}' }) {
		id += strings.ToUpper(part[:1]) + part[1:]
	}
	return id
}

// refer returns a reference to the schema of a type, which it adds to the components, or that of an array of them.
func refer(t reflect.Type, components object) (object, error) {
	if t.Kind() == reflect.Slice {
		items, err := refer(t.Elem(), components)
		return object{"type": []string{"array", "null"}, "items": items}, err
	}
	if _, ok := components[t.Name()]; !ok {
		s, err := jsonschema.ForType(t, nil)
		if err != nil {
			return nil, fmt.Errorf("describe %s: %w", t, err)
		}
		components[t.Name()] = s
	}
	return object{"$ref": "#/components/schemas/" + t.Name()}, nil
}
