package index_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
)

// The scripts of testdata/api are requests with their answers, without what differs from run to run:
//
//	send            send this-server-only      send not=elasticsearch      send only=elasticsearch
//	PUT /quiz
//	{"a": 1}
//	----
//	201 {"_id": …}
//
// They run against the embedded index here, and against real servers in TestScriptsOnOpenSearch and TestScriptsOnElasticsearch,
// which take the answers of the one for those of the others except where a script says so: what Elasticsearch answers otherwise than
// OpenSearch stands in the script too. "clean a b" deletes indices.
func TestScripts(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/api", func(t *testing.T, path string) {
		h := setup(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "clean" {
				return ""
			}
			if !concerns(d, "") {
				return d.Expected
			}
			return run(t, d, func(r *http.Request) (int, []byte) {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				return w.Code, w.Body.Bytes()
			})
		})
	})
}

func TestScriptsOnOpenSearch(t *testing.T) {
	t.Parallel()
	runScripts(t, "opensearch", server(t, "opensearch"))
}

func TestScriptsOnElasticsearch(t *testing.T) {
	t.Parallel()
	runScripts(t, "elasticsearch", elasticsearch(t))
}

func runScripts(t *testing.T, name, url string) {
	datadriven.Walk(t, "testdata/api", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "clean" {
				for _, a := range d.CmdArgs {
					askServer(t, url, httptest.NewRequest(http.MethodDelete, "/"+a.Key+"?ignore_unavailable=true", nil))
				}
				return ""
			}
			if d.HasArg("this-server-only") || !concerns(d, name) {
				return d.Expected
			}
			got := run(t, d, func(r *http.Request) (int, []byte) { return askServer(t, url, r) })
			if lenient(t, got) == lenient(t, d.Expected) {
				return d.Expected
			}
			return got
		})
	})
}

// concerns reports whether a step is for the named server.
func concerns(d *datadriven.TestData, server string) bool {
	for _, a := range d.CmdArgs {
		if a.Key == "only" && a.Vals[0] != server || a.Key == "not" && a.Vals[0] == server {
			return false
		}
	}
	return true
}

// server returns the address of a real server, or skips the test.
func server(t *testing.T, name string) string {
	t.Helper()
	variable := "MILLRACE_" + strings.ToUpper(name)
	url := os.Getenv(variable)
	if url == "" {
		t.Skipf("%s is not set: scripts/servers/%s.sh starts a server for it", variable, name)
	}
	return url
}

// elasticsearch returns the address of a real Elasticsearch that sorts by _id, which it does only where it is told to. Sinks and reports
// sort by row_id.
func elasticsearch(t *testing.T) string {
	t.Helper()
	url := server(t, "elasticsearch")
	r := httptest.NewRequest(http.MethodPut, "/_cluster/settings", strings.NewReader(`{"persistent":{"indices.id_field_data.enabled":true}}`))
	r.Header.Set("Content-Type", "application/json")
	status, answer := askServer(t, url, r)
	require.Equal(t, http.StatusOK, status, "%s", answer)
	return url
}

func askServer(t *testing.T, url string, r *http.Request) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), r.Method, url+r.URL.RequestURI(), r.Body)
	require.NoError(t, err)
	req.Header = r.Header
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, body
}

var uuid = regexp.MustCompile(`/[\w-]{22}\]`)

// run does the request of a script's step and returns what is compared.
func run(t *testing.T, d *datadriven.TestData, do func(*http.Request) (int, []byte)) string {
	t.Helper()
	first, body, _ := strings.Cut(d.Input, "\n")
	method, path, _ := strings.Cut(first, " ")
	r := httptest.NewRequest(method, path, strings.NewReader(""))
	if body != "" {
		r = httptest.NewRequest(method, path, strings.NewReader(body+"\n"))
		r.Header.Set("Content-Type", "application/json")
	}
	status, answer := do(r)
	var v any
	if decode(answer, &v) != nil {
		return fmt.Sprintf("%d %s", status, answer)
	}
	return fmt.Sprintf("%d %s\n", status, uuid.ReplaceAllString(indented(t, steady(v)), "/UUID]"))
}

// decode keeps the digits of numbers.
func decode(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return d.Decode(v)
}

func indented(t *testing.T, v any) string {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	require.NoError(t, enc.Encode(v))
	return strings.TrimSpace(b.String())
}

// steady takes away what differs from run to run or repeats itself.
func steady(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range []string{"took", "uuid", "index_uuid", "_shards", "root_cause", "failed_shards", "creation_date", "shard", "timed_out"} {
			delete(v, name)
		}
		for name := range v {
			v[name] = steady(v[name])
		}
	case []any:
		for i := range v {
			v[i] = steady(v[i])
		}
	}
	return v
}

// lenient is a step's outcome as far as a client depends on it: of errors their status, no scores, and not that nothing unusual happened,
// which Elasticsearch says more often.
func lenient(t *testing.T, outcome string) string {
	t.Helper()
	status, text, _ := strings.Cut(strings.TrimSpace(outcome), " ")
	var v any
	if decode([]byte(text), &v) != nil {
		return outcome
	}
	return status + " " + indented(t, essential(v))
}

func essential(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range []string{"max_score", "_score", "error", "_seq_no", "skipped"} {
			delete(v, name)
		}
		if v["errors"] == false && v["acknowledged"] == true {
			delete(v, "errors")
		}
		if v["terminated_early"] == false {
			delete(v, "terminated_early")
		}
		for name := range v {
			v[name] = essential(v[name])
		}
	case []any:
		for i := range v {
			v[i] = essential(v[i])
		}
	}
	return v
}
