package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
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
}

// parameter is one of a query.
type parameter struct {
	name, about string
	schema      *jsonschema.Schema
}

// least is the role that it takes.
func (e endpoint) least() control.Role {
	switch {
	case e.path == SQLPath: // it changes nothing
		return control.Analyst
	case e.method == http.MethodGet:
		return control.Viewer
	}
	return control.Operator
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
	return append(h.deploying(), []endpoint{
		reads(Path, "The apps with their instances", []App{}, func(r *http.Request) (any, error) { return h.apps(r) }),
		reads(Path+"/{app}/history", "Who decided what: the newest hundred operations, or those before another one", []control.Operation{}, h.ofApp(h.history),
			parameter{"before", "id of an operation", &jsonschema.Schema{Type: "integer"}}),
		reads(Path+"/{app}/instances/{version}/jobs", "The newest hundred runs of an instance", []control.Job{}, h.ofApp(versioned(func(r *http.Request, version string) (any, error) {
			return h.Service.Jobs(r.Context(), r.PathValue("app"), version)
		}))),
		reads(Path+"/{app}/instances/{version}/ledger", "Where each record is that the instance's job has read", Ledger{}, h.ofApp(versioned(func(r *http.Request, version string) (any, error) {
			return h.Service.Ledger(r.Context(), r.PathValue("app"), version)
		}))),
		reads(OperationsPath+"/{id}", "How an operation is", control.Operation{}, h.operation,
			parameter{"wait", "answer when it has ended, or after this time, at most " + longestWait.String(), &jsonschema.Schema{Type: "string", Examples: []any{"30s"}}}),
		{
			method: http.MethodPost, path: SQLPath, summary: "The rows of a SELECT over the lake's tables", scope: access.Tenant, body: reflect.TypeFor[QueryAsk](), status: http.StatusOK,
			answer: reflect.TypeFor[Rows](), serve: h.query,
		},
		begins(Path+"/{app}/instances", "Start a data version", func(*http.Request) control.Action { return control.Start }),
		begins(Path+"/{app}/instances/{version}/{action}", "Do something with an instance: "+actions(), func(r *http.Request) control.Action { return control.Action(r.PathValue("action")) }),
		begins(Path+"/{app}/rollback", "Make the data version serve that did before", func(*http.Request) control.Action { return control.Rollback }),
	}...)
}

func stringSchema(example string) *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Examples: []any{example}}
}

// inPath describes the wildcards of paths.
var inPath = map[string]string{
	"app": "name of an app", "version": "a data version, such as 20180827174235, or unversioned", "action": "one of: " + actions(), "id": "of an operation, or of a blocker",
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
		if e.method == http.MethodPost {
			described["security"] = []object{{"token": []string{}}}
		}
		if e.body == nil && e.method == http.MethodPost {
			described["requestBody"] = object{"required": true, "content": object{"application/octet-stream": object{}}}
		}
		if e.body == reflect.TypeFor[Ask]() {
			parameters = append(parameters, object{
				"name": "Idempotency-Key", "in": "header", "schema": object{"type": "string"},
				"description": "names the request: one that was used before means the operation that it was used for",
			})
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
		described["responses"] = object{
			strconv.Itoa(e.status): object{"description": http.StatusText(e.status), "content": object{"application/json": object{"schema": answer}}},
			"default":              object{"description": "what is wrong, and what to do", "content": object{"application/problem+json": object{"schema": problem}}},
		}
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
			"description": "Apps, their instances, and what is done with them. A POST begins an operation, which is recorded before it is answered, and carried out whatever is killed meanwhile.",
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
