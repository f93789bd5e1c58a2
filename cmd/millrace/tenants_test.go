package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/apps/lms"
	"millrace/control"
	"millrace/control/access"
	"millrace/control/api"
	"millrace/delivery"
	"millrace/delivery/catalog"
	"millrace/record"
	"millrace/web"
)

// The two tenants. The name of the second, in any case, is in all that is of it and in what was done for it, and nowhere else.
const (
	ownAccount = "acme"
	marker     = "globex"
)

// appendTenants appends for each tenant events that become rows, one that waits, one that is unreadable, a reject, and a record of a source type that no app
// reads; the second has more of them.
func (s *stack) appendTenants(t *testing.T) {
	t.Helper()
	for n, account := range []string{ownAccount, marker} {
		item := func(id, body string) record.Item {
			return record.Item{
				Account: account, Env: account + "-env", SourceType: lms.App.SourceTypes[0], Kind: record.Event, ID: "urn:" + account + ":" + id, Sensor: account + "-sensor",
				ReceivedAt: time.Now(), Bytes: []byte(strings.ReplaceAll(body, "WHO", account)),
			}
		}
		reject := item("reject", `{"WHO":`)
		reject.Kind = record.Reject
		other := item("other", `{"id":"urn:WHO:other","type":"Event","eventTime":"2018-08-20T00:00:00Z"}`)
		other.SourceType = strings.ToUpper(account) + "_SIS"
		items := []record.Item{
			item("2", `{"id":"urn:WHO:2","type":"OutcomeEvent","eventTime":"2018-08-20T00:00:00Z","actor":{"id":"urn:WHO:p"},"object":{"assignable":{"id":"urn:WHO:q"}},"generated":{"actor":{"id":"urn:WHO:p"},"totalScore":1}}`),
			item("4", `no json of WHO`), reject, other,
		}
		for i := range n + 1 {
			items = append(items, item(fmt.Sprint("view", i), fmt.Sprintf(`{"id":"urn:WHO:view%d","type":"ViewEvent","eventTime":"2018-08-2%dT00:00:00Z","actor":{"id":"urn:WHO:p"},"object":{"id":"urn:WHO:page"}}`, i, i)))
		}
		require.NoError(t, s.log.Append(t.Context(), items))
	}
	require.NoError(t, s.untilPublished(t.Context()))
}

// request is one to a route.
type request struct {
	method, path, body string
}

// requests are what a route is asked for: with each wildcard everything that there is of it, and below a folder what is known to be there.
func (s *stack) requests(r access.Route) (all []request) {
	method, path, ok := strings.Cut(r.Pattern, " ")
	methods := []string{method}
	if !ok {
		methods, path = []string{"GET", "POST"}, r.Pattern
	}
	paths := []string{strings.TrimSuffix(path, "{$}")}
	for name, values := range map[string][]string{
		"{app}": {etlLine.Program, rawLine.Program, "none"}, "{version}": {"unversioned", "20180827174235"}, "{action}": {"suspend", "delete", "promote"}, "{id}": {"1", "2", "3", "4", "99"}, "{name}": {marker, "operator", "none"},
		"{build}": {"1.0.0"}, "{instance}": {rawLine.Program + "-system-system--unversioned", "none"}, "{savepoint}": {"none"}, "{table}": {"activity_view", "dead_letter", "raw.events", "raw.rejects", "unversioned.quiz_submission", "none", "iceberg." + marker},
	} {
		var next []string
		for _, p := range paths {
			if !strings.Contains(p, name) {
				next = append(next, p)
				continue
			}
			for _, v := range values {
				next = append(next, strings.ReplaceAll(p, name, v))
			}
		}
		paths = next
	}
	var tables []string
	for _, t := range s.servingOf(etlLine).program().plan.Tables {
		tables = append(tables, t.Name)
	}
	switch path {
	case "/tables/":
		for _, t := range tables {
			paths = append(paths, path+t)
		}
	case "/{$}":
		for _, t := range tables {
			paths = append(paths, "/?table="+t)
		}
	case "/events":
		for _, t := range []string{"activity_view", "dead_letter"} { // each takes a second
			paths = append(paths, path+"?topics=overview:"+t, path+"?topics=table:"+t, path+"?topics="+url.QueryEscape("table:"+t+":"+marker))
		}
	case "/api/v1/lake/stats":
		paths = append(paths, path+"?account="+marker, path+"?env="+marker+"-env", path+"?source_type="+strings.ToUpper(marker)+"_SIS", path+"?account=none", path+"?from=2018-08-21&to=2018-08-22",
			path+"?source_type=none", path+"?account="+ownAccount)
	case api.RawPath:
		paths = append(paths, path+"?kind=reject", path+"?kind=none", path+"?limit=1")
	case api.DiffPath:
		second := "20180827174235"
		if all := s.versionsOf(etlLine); len(all) > 1 {
			second = all[1].instance.DataVersion
		}
		paths = append(paths, path+"?a=unversioned&b="+second, path+"?a="+second+"&b=serving&examples=100", path+"?a=unversioned&b="+second+"&account="+marker, path+"?a=unversioned&b="+second+"&env="+marker+"-env",
			path+"?a=unversioned&b=20180827174235", path+"?a=raw&b=unversioned", path+"?a=unversioned&b="+second+"&table=none", path+"?a=unversioned&b="+second+"&from=noon")
	case "/iceberg/":
		for _, p := range []string{"config", "namespaces", "namespaces/serving/tables", "namespaces/raw/tables/events", "namespaces/serving/tables/activity_view"} {
			paths = append(paths, path+"v1/"+p)
		}
	case profilePath:
		paths = append(paths, path+"goroutine?debug=1", path+"cmdline")
	case "/":
		paths = append(paths[:0], "/api/v1/nothing", "/nothing")
	}
	bodies := []string{`{"reason":"a test"}`}
	if path == api.SQLPath {
		bodies = nil
		for _, q := range []string{
			"FROM raw.events", "FROM raw.rejects", "FROM activity_view", "FROM dead_letter", "SELECT count(*) FROM raw.entities", "FROM " + marker,
			"SELECT account::INTEGER FROM raw.events", "SELECT sum(decode(bytes)::INTEGER) FROM raw.rejects", "FROM activity_view@unversioned", "SELECT error(account_id) FROM activity_view",
			"FROM read_parquet('*')", "FROM nothing", "SELECT",
		} {
			b, _ := json.Marshal(api.QueryAsk{Query: q}) // it is a string
			bodies = append(bodies, string(b))
		}
		bodies = append(bodies, "", "{", `{"sql":"x"}`)
	}
	for _, m := range methods {
		for _, p := range paths {
			if m == "GET" {
				all = append(all, request{m, p, ""})
				continue
			}
			for _, b := range bodies {
				all = append(all, request{m, p, b})
			}
		}
	}
	return all
}

// ask sends a request with a secret, and returns the answer with its headers. Of a stream it is the first two messages.
func (s *stack) ask(t *testing.T, a request, secret string) (status int, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, a.method, s.url()+a.path, strings.NewReader(a.body))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+secret)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err, "%s %s", a.method, a.path)
	defer func() { _ = res.Body.Close() }() // it was only read
	head := fmt.Sprintln(res.Header)
	if !strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		b, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res.StatusCode, head + string(b)
	}
	lines := bufio.NewReader(res.Body)
	for messages := 0; messages < 2; {
		line, err := lines.ReadString('\n')
		require.NoError(t, err, "%s %s", a.method, a.path)
		head += line
		if line != "\n" {
			continue
		}
		if messages++; messages == 1 && strings.HasPrefix(a.path, api.EventsPath) {
			s.events.Say(api.Changed{App: marker, Account: control.System, UpdatedBy: marker})
			s.events.Say(api.Changed{App: "own", Account: ownAccount})
		}
	}
	return res.StatusCode, head
}

// Who signs in and is bound to an account is shown what its tokens are shown, and may end their session and change their password.
func TestBoundUser(t *testing.T) {
	t.Parallel()
	s, stop := runStack(t, filepath.Join(t.TempDir(), "data"))
	defer stop()
	s.appendTenants(t)
	const password, next = "correct horse battery", "another horse battery"
	require.NoError(t, s.store.Users.Add(t.Context(), control.User{Name: "ann", Role: control.Analyst, Account: ownAccount}, password))
	ann := newBrowser(t, s.url())
	status, _, _ := ann.post("/login", "name", "ann", "password", password)
	require.Equal(t, http.StatusSeeOther, status)
	for path, want := range map[string]int{"/": 200, "/tables/activity_view": 200, "/account": 200, api.BlockersPath: 403, auditPath: 403, "/metrics": 403} {
		status, _, body := ann.get(path)
		require.Equal(t, want, status, path)
		require.NotContains(t, strings.ToLower(body), marker, path)
	}
	_, _, body := ann.get("/tables/activity_view")
	require.Contains(t, body, "urn:acme:page")
	status, _, body = ann.post("/account", "old", password, "password", next, "again", next)
	require.Less(t, status, 400, body)
	status, _, _ = ann.post("/logout")
	require.Less(t, status, 400)
	_, err := s.store.Users.SignIn(t.Context(), "ann", next)
	require.NoError(t, err)
}

// Every route that there is is asked by somebody who is bound to an account, in each role, against a stack that has data of that account and of another one. A
// route refuses, or is said to be the tenants'; and nothing of the other account is in any answer.
func TestNoRouteShowsAnotherTenant(t *testing.T) {
	t.Parallel()
	s, stop := runStack(t, filepath.Join(t.TempDir(), "data"))
	defer stop()
	s.appendTenants(t)
	_, err := s.act(t.Context(), control.TakeSavepoint, etlLine.Program, "unversioned", api.Ask{Who: marker, Reason: "for " + marker})
	require.NoError(t, err)
	_, err = s.Block(t.Context(), control.Blocker{Reason: "for " + marker, Who: marker})
	require.NoError(t, err)
	require.NoError(t, s.store.Audit.Add(t.Context(), control.Entry{Who: marker, Action: "add token", Subject: marker}))
	tokens := map[control.Role]string{}
	for role := control.Viewer; role <= control.Operator; role++ {
		tokens[role], err = s.store.Tokens.Add(t.Context(), control.Token{Name: role.String(), Role: role, Account: ownAccount})
		require.NoError(t, err)
	}
	_, err = s.store.Tokens.Add(t.Context(), control.Token{Name: marker, Role: control.Viewer, Account: marker})
	require.NoError(t, err)
	_, err = s.store.Keys.Add(t.Context(), control.Key{Account: marker, Env: marker, SourceType: lms.App.SourceTypes[0]})
	require.NoError(t, err)
	require.NoError(t, s.store.Users.Add(t.Context(), control.User{Name: marker, Role: control.Viewer, Account: marker}, "correct horse battery"))

	_, err = s.act(t.Context(), control.Start, etlLine.Program, "", api.Ask{Who: marker, Seed: &api.Seed{From: "2018-08-21"}}) // it lacks rows of both
	require.NoError(t, err)
	require.NoError(t, s.untilPublished(t.Context()))

	leaks := map[string]bool{} // routes that show the other account to who is not bound
	for _, r := range s.routes() {
		for _, a := range s.requests(r) {
			for role, secret := range tokens {
				if r.Scope == access.Tenant && strings.HasPrefix(a.path, "/events") && role != control.Analyst {
					continue // a second for each; the role is checked elsewhere
				}
				status, text := s.ask(t, a, secret)
				what := fmt.Sprintf("%s: %s %s %s for %s: %d %s", r.Pattern, a.method, a.path, a.body, role, status, text)
				asks := strings.Contains(strings.ToLower(a.path+a.body), marker) // what was asked for may be said again
				if !asks {
					require.NotContains(t, strings.ToLower(text), marker, what)
				}
				require.Less(t, status, 500, what)
				switch {
				case r.Pattern == catalog.Path:
					require.Contains(t, []int{http.StatusUnauthorized, http.StatusForbidden}, status, what)
				case r.Least == 0:
				case r.Shows && a.method != "GET":
					require.Equal(t, http.StatusMethodNotAllowed, status, what)
				case r.Scope == access.System:
					require.Equal(t, http.StatusForbidden, status, what)
					require.Contains(t, text, "is bound to account "+ownAccount+", and this is of the stack as a whole", what)
				case role < r.Least:
					require.Equal(t, http.StatusForbidden, status, what)
				case strings.HasPrefix(r.Pattern, "POST "+api.Path):
					require.Equal(t, http.StatusNotFound, status, what) // apps that serve all tenants are not theirs to change
				}
			}
			if a.method == "GET" || strings.HasSuffix(r.Pattern, api.SQLPath) {
				if _, text := s.ask(t, a, s.secret); strings.Contains(strings.ToLower(text), marker) && !strings.Contains(strings.ToLower(a.path+a.body), marker) {
					leaks[r.Pattern] = true
				}
			}
		}
	}
	for _, pattern := range []string{
		"/{$}", "/tables/", "/events", "GET " + api.LakeStatsPath, "GET " + api.TablesPath + "/{table}/rows", "GET " + api.RawPath, "GET " + api.DiffPath, "GET " + api.TokensPath, "GET " + api.UsersPath, "GET " + api.KeysPath, "POST " + api.SQLPath, api.EventsPath, "GET " + api.Path + "/{app}/history", "GET " + api.OperationsPath + "/{id}",
		"GET " + api.BlockersPath, auditPath,
	} {
		require.True(t, leaks[pattern], "%s shows nothing of the other account to anybody, so that this test proves nothing of it", pattern)
	}

	// What is theirs is there.
	analyst := tokens[control.Analyst]
	status, text := s.ask(t, request{"GET", "/tables/activity_view", ""}, analyst)
	require.Equal(t, 200, status)
	require.Contains(t, text, "urn:acme:page")
	var st web.Status
	s.askJSON(t, "/api/v1/status", analyst, &st)
	i := slices.IndexFunc(st.Tables, func(t web.Table) bool { return t.Name == "activity_view" })
	require.EqualValues(t, 1, *st.Tables[i].Rows)
	require.EqualValues(t, 3, *st.Lake.Events)
	require.EqualValues(t, 2, *st.Lake.Rejects)
	require.Nil(t, st.Collected.Items)
	require.Empty(t, st.Jobs)
	require.Empty(t, st.DataDir)
	s.askJSON(t, "/api/v1/status", s.secret, &st)
	require.EqualValues(t, 3, *st.Tables[i].Rows, "and there is more")
	var stats api.LakeStats
	s.askJSON(t, "/api/v1/lake/stats", analyst, &stats)
	require.EqualValues(t, 5, stats.Total.Records)
	_, none := s.ask(t, request{"GET", "/api/v1/lake/stats?account=nobody", ""}, analyst)
	status, there := s.ask(t, request{"GET", "/api/v1/lake/stats?account=" + marker, ""}, analyst)
	require.Equal(t, 404, status)
	require.Equal(t, bodyOf(none), bodyOf(there), "whether there is one is not told")
	_, text = s.ask(t, request{"POST", api.SQLPath, `{"query":"SELECT account, count(*) AS n FROM raw.events GROUP BY ALL"}`}, analyst)
	require.Contains(t, text, `{"columns":["account","n"],"rows":[["acme",3]]}`)
	var rows api.TableRows
	s.askJSON(t, api.TablesPath+"/activity_view/rows", analyst, &rows)
	require.Len(t, rows.Rows, 1)
	s.askJSON(t, api.RawPath, analyst, &rows)
	require.Len(t, rows.Rows, 5)
	var c delivery.Comparison
	s.askJSON(t, api.DiffPath+"?a=unversioned&b="+s.versionsOf(etlLine)[1].instance.DataVersion, analyst, &c)
	require.False(t, c.Same)
	var apps []api.App
	s.askJSON(t, api.Path, analyst, &apps)
	require.Empty(t, apps)

	all, err := s.store.Audit.List(t.Context(), 0, 1000)
	require.NoError(t, err)
	require.True(t, slices.ContainsFunc(all, func(e control.Entry) bool {
		return e.Who == "operator" && e.Action == "suspend" && strings.Contains(e.Outcome, "not found")
	}))
}

func (s *stack) askJSON(t *testing.T, path, secret string, into any) {
	t.Helper()
	status, text := s.ask(t, request{"GET", path, ""}, secret)
	require.Equal(t, 200, status, text)
	require.NoError(t, json.Unmarshal([]byte(bodyOf(text)), into), text)
}

// bodyOf is an answer without its headers.
func bodyOf(text string) string {
	_, body, _ := strings.Cut(text, "\n")
	return body
}

// Of what cannot be read somebody who is bound to an account is told that alone: the reason may name what is of others.
func TestErrorsOfAnAccount(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	s := &stack{cfg: stackConfig{logger: slog.New(slog.NewTextHandler(&log, nil))}}
	err := fmt.Errorf("read lake/raw/events/account=%s/1.parquet: %w", marker, io.ErrUnexpectedEOF)
	require.Equal(t, err, s.errOfAccount("", err))
	require.EqualError(t, s.errOfAccount(ownAccount, err), "it could not be read; the log says why")
	require.Contains(t, log.String(), marker)
	require.NoError(t, s.errOfAccount(ownAccount, nil))
	err = fmt.Errorf("%w: there is none", web.ErrNotFound)
	require.Equal(t, err, s.errOfAccount(ownAccount, err))
}
