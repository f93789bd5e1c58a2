package api_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/stretchr/testify/require"

	"millrace/control"
)

// The description names every address, and each answers what it says.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	s := &service{store: storeOf(t), lakeStat: lakeHolds}
	status, text := serve(t, s)("GET", "/api/openapi.json", "", "")
	require.Equal(t, 200, status)
	var spec struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Parameters  []struct{ Name, In, Description string }
			Security    []map[string][]string
			RequestBody *struct {
				Content map[string]struct{ Schema *jsonschema.Schema }
			}
			Responses map[string]struct {
				Content map[string]struct{ Schema *jsonschema.Schema }
				Headers map[string]any
			}
		}
		Components struct{ Schemas map[string]*jsonschema.Schema }
	}
	require.NoError(t, json.Unmarshal([]byte(text), &spec))
	require.Equal(t, "3.1.0", spec.OpenAPI)
	// conforms reports whether a text is what a schema of the description says.
	conforms := func(schema *jsonschema.Schema, text string) error {
		whole, err := json.Marshal(map[string]any{"$defs": spec.Components.Schemas, "allOf": []any{schema}})
		require.NoError(t, err)
		var rooted jsonschema.Schema
		require.NoError(t, json.Unmarshal([]byte(strings.ReplaceAll(string(whole), "#/components/schemas/", "#/$defs/")), &rooted))
		resolved, err := rooted.Resolve(nil)
		require.NoError(t, err)
		var value any
		require.NoError(t, json.Unmarshal([]byte(text), &value))
		return resolved.Validate(value)
	}
	ids, bodies := map[string]bool{}, map[string]string{ // where it is no Ask
		"/api/v1/apps/{app}/deploys": `{"version":"2"}`, "/api/v1/apps/{app}/deploys/rollback": `{"reason":"r"}`,
		"/api/v1/sql": `{"query":"SELECT 1"}`, "/api/v1/blockers": `{"reason":"r"}`, "/api/v1/blockers/{id}/lift": `{"who":"w"}`,
		"/api/v1/tokens": `{"name":"new","role":"viewer","account":"acme","expires":"2100-01-01T00:00:00Z"}`, "/api/v1/tokens/{name}/revoke": `{"who":"w"}`,
		"/api/v1/users": `{"name":"new","role":"viewer","password":"correct horse battery"}`, "/api/v1/users/{name}/role": `{"role":"analyst"}`,
		"/api/v1/users/{name}/password": `{"password":"correct horse battery"}`, "/api/v1/users/{name}/disable": `{"who":"w"}`, "/api/v1/users/{name}/enable": `{}`, "/api/v1/users/{name}/delete": `{}`,
		"/api/v1/keys": `{"account":"acme","env":"prod","source_type":"EDGENUITY_LMS"}`, "/api/v1/keys/{id}/revoke": `{"who":"w"}`,
		"/api/v1/artifacts/{app}/{build}/delete": `{"reason":"r"}`, "/api/v1/savepoints/{instance}/{savepoint}/delete": `{"reason":"r"}`,
	}
	for path, methods := range spec.Paths {
		for method, e := range methods {
			s.store = storeOf(t) // an address may change what another one needs
			keys, err := s.store.Keys.List(t.Context())
			require.NoError(t, err)
			ask := serve(t, s)
			require.False(t, ids[e.OperationID], e.OperationID)
			ids[e.OperationID] = true
			at := path
			for _, p := range e.Parameters {
				require.NotEmpty(t, p.Description, "%s %s", path, p.Name)
				value := map[string]string{"app": "a", "version": "20180827174235", "action": "suspend", "id": "7", "name": "ann", "build": "1.0.34", "table": "raw.events", "instance": "a-system-system--unversioned", "savepoint": "kept"}[p.Name]
				if strings.Contains(path, "/keys/") && p.Name == "id" {
					value = keys[0].ID
				}
				at = strings.ReplaceAll(at, "{"+p.Name+"}", value)
			}
			if path == "/api/v1/lake/diff" {
				at += "?a=serving&b=20180827174235"
			}
			require.NotContains(t, at, "{")
			body := ""
			if method == "post" {
				body = bodies[path]
				if content, isJSON := e.RequestBody.Content["application/json"]; isJSON {
					if body == "" {
						body = `{"who":"w","reason":"r","seed":{"from":"2018-01-01","envs":["a:b"]},"force":true,"savepoint":"s"}`
					}
					require.NoError(t, conforms(content.Schema, body))
					require.Error(t, conforms(content.Schema, `{"reazon":"r"}`))
				}
			}
			status, answer := ask(strings.ToUpper(method), at, secret, body)
			want := 200
			if method == "post" && (strings.Contains(path, "/instances") || path == "/api/v1/apps/{app}/rollback") {
				want = 202
			}
			require.Equal(t, want, status, "%s %s: %s", method, at, answer)
			for code, r := range e.Responses {
				if code == "304" || code == "412" { // TestConditions
					continue
				}
				if code != "default" {
					require.NoError(t, conforms(r.Content["application/json"].Schema, answer), "%s %s: %s", method, at, answer)
					continue
				}
				if path == "/api/v1/whoami" || strings.HasSuffix(path, "/serving") {
					continue // it has nothing that fails
				}
				s.err = control.ErrRefused
				require.NoError(t, s.store.Close())
				_, problem := ask(strings.ToUpper(method), at, secret, body)
				s.err = nil
				require.NoError(t, conforms(r.Content["application/problem+json"].Schema, problem), problem)
				require.Error(t, conforms(r.Content["application/problem+json"].Schema, answer))
			}
		}
	}
	require.Len(t, ids, 45)
}
