package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/control"
	"millrace/control/access"
	"millrace/control/api"
)

// service notes what it is asked for, and fails when it is told to.
type service struct {
	breaks error // what rows end with
	asked  []string
	audit  []string
	log    *said // for who asks next; nil: a short one
	err    error

	serving  int64          // revision of what serves
	store    *control.Store // nil: there are no addresses of it
	lake     api.LakeQuery  // that was asked for last
	lakeStat api.LakeStats
}

func (s *service) Serving(_ context.Context, app string) (control.Serving, error) {
	return control.Serving{Line: control.Line{Program: app}, Now: "20180827174235", Wanted: "20180827174235", Before: "unversioned", Revision: s.serving}, nil
}

func (s *service) LakeStats(_ context.Context, account string, q api.LakeQuery) (api.LakeStats, error) {
	s.lake = q
	s.asked = append(s.asked, fmt.Sprintf("lake %q", account))
	return s.lakeStat, s.err
}

func (s *service) Stack(context.Context) (api.Stack, error) {
	return api.Stack{ID: "X", Name: "master-prod1", Engine: "embedded", Apps: []api.StackApp{}, Blockers: []control.Blocker{}}, s.err
}

func (s *service) Apps(context.Context) ([]api.App, error) {
	return []api.App{{Name: "a", Account: control.System}, {Name: "own", Account: "acme"}}, s.err
}

func (s *service) History(_ context.Context, app string, before int64) ([]control.Operation, error) {
	return []control.Operation{{ID: before, DataVersion: app}}, s.err
}

func (s *service) Jobs(_ context.Context, app, version string) ([]control.Job, error) {
	return []control.Job{{Origin: app + "--" + version}}, s.err
}

func (s *service) Instance(_ context.Context, app, version string) (control.Instance, error) {
	return control.Instance{Line: control.Line{Program: app}, DataVersion: version, State: control.Running, Revision: 3}, s.err
}

// said is a log.
type said struct {
	lines []string
	lost  bool
	at    int
	ended chan struct{} // closed when it is closed
}

func (l *said) Next() ([]byte, error) {
	if l.at == len(l.lines) {
		return nil, io.EOF
	}
	l.at++
	return []byte(l.lines[l.at-1]), nil
}

func (l *said) Lost() bool {
	lost := l.lost
	l.lost = false
	return lost
}

func (l *said) Position() (string, error) { return fmt.Sprint(l.at), nil }

func (l *said) Close() error {
	close(l.ended)
	return nil
}

func (s *service) Log(_ context.Context, app, version string, from api.LogStart) (string, api.Log, error) {
	s.asked = append(s.asked, fmt.Sprintf("log %s %s %+v", app, version, from))
	if s.log == nil {
		s.log = &said{lines: []string{"one\r\n", "two\rthree \xff\n", "four"}, lost: true, ended: make(chan struct{})}
	}
	log := s.log
	s.log = nil
	return app + "--" + version, log, s.err
}

func (s *service) Ledger(_ context.Context, app, version string) (api.Ledger, error) {
	return api.Ledger{UniqueID: app + "--" + version, Balanced: new(true)}, s.err
}

func (s *service) Do(_ context.Context, app, version string, ask api.Ask) (control.Operation, error) {
	s.asked = append(s.asked, fmt.Sprintf("%s %s %s %v %v %v key=%s %s", ask.Action, app, version, ask.By(), ask.Force, ask.Seed != nil, ask.Key, ask.Savepoint)+matching(ask.Revisions))
	return control.Operation{ID: 7, Action: ask.Action}, s.err
}

func (s *service) Operation(ctx context.Context, id int64) (control.Operation, error) {
	deadline, _ := ctx.Deadline()
	op := control.Operation{ID: id, Began: deadline, Line: control.Line{Account: control.System}}
	switch id {
	case 404:
		return control.Operation{}, control.ErrUnknownOperation
	case 8:
		op.Account = "acme"
	}
	return op, s.err
}

func (s *service) Query(_ context.Context, account, query string) (api.Rows, error) {
	s.asked = append(s.asked, fmt.Sprintf("query %q %s", account, query))
	return api.Rows{Columns: []string{"n", "who"}, Rows: [][]any{{7, nil}}}, s.err
}

// compared is what versions are compared to.
type compared struct {
	Same bool `json:"same"`
}

func (s *service) Tables(context.Context) ([]api.LakeTable, error) {
	return []api.LakeTable{{Namespace: "raw", Table: "events", Rows: 7}}, s.err
}

// Rows yields three rows, and then s.breaks.
func (s *service) Rows(_ context.Context, account string, q api.RowsQuery) (iter.Seq2[[]byte, error], func(), error) {
	s.asked = append(s.asked, fmt.Sprintf("rows %q %+v", account, q))
	return func(yield func([]byte, error) bool) {
		for n := range 3 {
			if q.Limit > 0 && n == q.Limit || !yield(fmt.Appendf(nil, `{"n":%d}`, n), nil) {
				return
			}
		}
		if s.breaks != nil {
			yield(nil, s.breaks)
		}
	}, func() { s.asked = append(s.asked, "done") }, s.err
}

func (s *service) Compare(_ context.Context, account string, q api.DiffQuery) (any, error) {
	s.asked = append(s.asked, fmt.Sprintf("compare %q %+v", account, q))
	return compared{true}, s.err
}

func (s *service) Artifacts(context.Context) ([]control.Artifact, error) {
	return []control.Artifact{{App: "a"}}, s.err
}

func (s *service) Push(_ context.Context, from io.Reader, who string) (control.Artifact, error) {
	b, err := io.ReadAll(from)
	s.asked = append(s.asked, fmt.Sprintf("push %s %s", b, who))
	return control.Artifact{App: "a", Version: "2"}, errors.Join(err, s.err)
}

func (s *service) Deploys(context.Context, string) ([]control.Deploy, error) {
	return []control.Deploy{{ID: 3}}, s.err
}

func (s *service) Deploy(_ context.Context, app string, ask api.DeployAsk) (control.Deploy, error) {
	revisions := matching(ask.Revisions)
	ask.Revisions = nil
	s.asked = append(s.asked, fmt.Sprintf("deploy %s %+v", app, ask)+revisions)
	return control.Deploy{ID: 4}, s.err
}

func (s *service) Diff(_ context.Context, app, version string) (api.Diff, error) {
	return api.Diff{App: app, To: version}, s.err
}

func (s *service) Blockers(context.Context) ([]control.Blocker, error) {
	return []control.Blocker{{ID: 5}}, s.err
}

func (s *service) Block(_ context.Context, b control.Blocker) (control.Blocker, error) {
	s.asked = append(s.asked, fmt.Sprintf("block %s %s %s", b.App, b.Reason, b.Who))
	return b, s.err
}

func (s *service) Savepoints(context.Context) ([]api.Savepoint, error) {
	return []api.Savepoint{{Name: "kept", Kind: "savepoint", Instance: "a-system-system--unversioned", Epoch: 7}}, s.err
}

func (s *service) DeleteSavepoint(_ context.Context, instance, name string) (api.Savepoint, error) {
	s.asked = append(s.asked, fmt.Sprintf("delete savepoint %s %s", instance, name))
	return api.Savepoint{Name: name, Instance: instance}, s.err
}

func (s *service) DeleteArtifact(_ context.Context, app, version, who string) (control.Artifact, error) {
	s.asked = append(s.asked, fmt.Sprintf("delete artifact %s %s %s", app, version, who))
	return control.Artifact{App: app, Version: version, SHA256: "aa", DeletedBy: who}, s.err
}

func (s *service) Lift(_ context.Context, id int64, who string) (control.Blocker, error) {
	s.asked = append(s.asked, fmt.Sprintf("lift %d %s", id, who))
	return control.Blocker{ID: id}, s.err
}

// secret is that of an admin, and bound that of somebody who is bound to account acme.
const (
	secret = "right"
	bound  = "acme's"
)

// matching says which revisions were asked for.
func matching(revisions []int64) string {
	if revisions == nil {
		return ""
	}
	return fmt.Sprintf(" revisions=%v", revisions)
}

func serve(t *testing.T, s *service) func(method, path, token, body string) (int, string) {
	t.Helper()
	h, err := api.New(api.Config{Service: s, Store: s.store, Version: "1.2.3", Comparison: compared{}, Audit: func(_ context.Context, e control.Entry) error {
		s.audit = append(s.audit, fmt.Sprintf("%s %s %s %s: %s", e.Who, e.Role, e.Action, e.Subject, e.Outcome))
		return nil
	}})
	require.NoError(t, err)
	who := access.Config{Find: func(_ context.Context, found string) (access.Principal, error) {
		if found == bound {
			return access.Principal{Name: "district", Role: control.Operator, Account: "acme"}, nil
		}
		if found != secret {
			return access.Principal{}, access.ErrUnknown
		}
		return access.Principal{Name: "local", Role: control.Admin, Local: true}, nil
	}, Anonymous: control.Viewer}
	server := httptest.NewServer(who.Mux(append(h.Routes(), access.Route{Pattern: "/", Least: control.Viewer, Handler: h})))
	t.Cleanup(server.Close)
	return func(method, path, token, body string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
		require.NoError(t, err)
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res.StatusCode, strings.TrimSpace(string(b))
	}
}

func TestRequests(t *testing.T) {
	t.Parallel()
	s := &service{}
	ask := serve(t, s)
	const version = "/api/v1/apps/a/instances/20180827174235/"
	for _, c := range []struct {
		path, body, asked string
	}{
		{"/api/v1/apps/a/instances", "", "start a  { } false false key= "},
		{"/api/v1/apps/a/instances", `{"seed":{"from":"2018-01-01"},"reason":"r"}`, "start a  { r} false true key= "},
		{version + "suspend", `{"who":"w","reason":"r"}`, "suspend a 20180827174235 {w r} false false key= "},
		{version + "savepoint", `{"savepoint":"s"}`, "savepoint a 20180827174235 { } false false key= s"},
		{version + "recover", `{"savepoint":"checkpoint/3"}`, "recover a 20180827174235 { } false false key= checkpoint/3"},
		{version + "resume", `{}`, "resume a 20180827174235 { } false false key= "},
		{version + "promote", `{}`, "promote a 20180827174235 { } false false key= "},
		{version + "promote", `{"force":true,"reason":"r"}`, "promote a 20180827174235 { r} true false key= "},
		{version + "delete", `{"reason":"r"}`, "delete a 20180827174235 { r} false false key= "},
		{"/api/v1/apps/a/rollback", `{"who":"w"}`, "rollback a  {w } false false key= "},
	} {
		for _, token := range []string{"", "wrong"} {
			status, body := ask("POST", c.path, token, c.body)
			require.Equal(t, 401, status, body)
		}
		require.Empty(t, s.asked, "without the token nothing is done")
		status, body := ask("POST", c.path, secret, c.body)
		require.Equal(t, 202, status, body)
		require.Contains(t, body, `"id":7`)
		require.Equal(t, []string{c.asked}, s.asked)
		s.asked = nil
	}
	require.Equal(t, " admin start a : operation 7", s.audit[0])
	require.Equal(t, "w admin suspend a 20180827174235: operation 7", s.audit[2])
	status, body := ask("GET", "/api/v1/apps", "", "")
	require.Equal(t, 200, status)
	require.Contains(t, body, `"name":"a"`)
	status, body = ask("GET", "/api/v1/apps/b/history?before=9", "", "")
	require.Equal(t, 200, status)
	require.Contains(t, body, `"id":9,`)
	require.Contains(t, body, `"data_version":"b"`)
	status, body = ask("GET", version+"jobs", "", "")
	require.Equal(t, 200, status)
	require.Contains(t, body, `"origin":"a--20180827174235"`)
	status, body = ask("GET", "/api/v1/operations/7?wait=30s", "", "")
	require.Equal(t, 200, status)
	require.Contains(t, body, `"id":7`)
	status, body = ask("GET", version+"ledger", "", "")
	require.Equal(t, 200, status)
	require.Contains(t, body, `"unique_id":"a--20180827174235"`)
	require.Contains(t, body, `"balanced":true`)
}

func TestWhatIsNotUnderstood(t *testing.T) {
	t.Parallel()
	s := &service{}
	ask := serve(t, s)
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"POST", "/api/v1/apps/a/instances", `{"sed":{}}`, 400, `unknown field "sed"`},
		{"POST", "/api/v1/apps/a/instances", `{"seed":1}`, 400, "cannot unmarshal"},
		{"POST", "/api/v1/apps/a/instances", `{} {}`, 400, "something comes after the object"},
		{"POST", "/api/v1/apps/a/instances", `{"reason":"` + strings.Repeat("x", 70_000) + `"}`, 400, "too large"},
		{"POST", "/api/v1/apps/a/instances/newest/promote", ``, 400, "no data version"},
		{"POST", "/api/v1/apps/a/instances/20180827174235/explode", ``, 404, "there are suspend, resume, recover, upgrade, savepoint, promote, cancel, force, delete"},
		{"POST", "/api/v1/apps/a/instances/20180827174235/promote", `{"force":true}`, 400, "this needs a reason"},
		{"POST", "/api/v1/apps/a/instances/20180827174235/delete", `{"reason":" "}`, 400, "this needs a reason"},
		{"POST", "/api/v1/apps/a/rollback", `{"force":true}`, 400, "this needs a reason"},
		{"GET", "/api/v1/apps/a/instances/newest/ledger", ``, 400, "no data version"},
		{"POST", "/api/v1/apps/a/instances/20180827174235/start", ``, 404, "there is no action"},
		{"POST", "/api/v1/apps/a/instances/20180827174235/force", `{}`, 400, "this needs a reason"},
		{"GET", "/api/v1/apps/a/history?before=x", ``, 400, "want the id of an operation"},
		{"GET", "/api/v1/operations/x", ``, 404, "there is no operation"},
		{"GET", "/api/v1/operations/7?wait=2h", ``, 400, "want a duration of at most 1m0s"},
		{"GET", "/api/v1/apps/a/instances", ``, 404, "GET /api/v1/apps/a/instances"},
		{"DELETE", "/api/v1/apps", ``, 404, "DELETE /api/v1/apps"},
	} {
		status, body := ask(c.method, c.path, secret, c.body)
		require.Equal(t, c.status, status, body)
		var p api.Problem
		require.NoError(t, json.Unmarshal([]byte(body), &p), body)
		require.Equal(t, c.status, p.Status)
		require.Contains(t, p.Detail, c.says)
	}
	require.Empty(t, s.asked)
}

func TestWhatTheServiceRefuses(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]int{
		fmt.Errorf("%w: from", api.ErrInvalid): 400, api.ErrNotFound: 404, control.ErrUnknownInstance: 404, control.ErrUnknownOperation: 404, control.ErrNotAllowed: 403,
		fmt.Errorf("promote: %w: behind", control.ErrRefused): 409, control.ErrInstanceExists: 409, errors.New("disk"): 500,
	} {
		status, body := serve(t, &service{err: err})("POST", "/api/v1/apps/a/rollback", secret, "")
		require.Equal(t, want, status)
		require.Contains(t, body, err.Error())
	}
}

// What is deployed is asked for by operators; past a blocker goes an admin alone.
func TestDeploying(t *testing.T) {
	t.Parallel()
	s := &service{}
	ask := serve(t, s)
	for _, c := range []struct {
		path, body string
		status     int
		asked      string
	}{
		{"/api/v1/artifacts?who=w", "bytes", 200, "push bytes w"},
		{"/api/v1/artifacts/a/1.0.26/delete", `{"reason":"r","who":"w"}`, 200, "delete artifact a 1.0.26 w"},
		{"/api/v1/artifacts/a/1.0.26/delete", ``, 400, ""},
		{"/api/v1/apps/a/deploys", `{"version":"2","reason":"r","who":"w"}`, 200, "deploy a {Who:w Reason:r Version:2 Force:false Revisions:[]}"},
		{"/api/v1/apps/a/deploys", `{"version":"2","force":true,"reason":"r"}`, 200, "deploy a {Who:local Reason:r Version:2 Force:true Revisions:[]}"},
		{"/api/v1/apps/a/deploys/rollback", ``, 200, "deploy a {Who:local Reason: Version: Force:false Revisions:[]}"},
		{"/api/v1/blockers", `{"reason":"exam week","app":"a","until":"2030-01-01T00:00:00Z"}`, 200, "block a exam week local"},
		{"/api/v1/blockers/5/lift", ``, 200, "lift 5 local"},
		{"/api/v1/apps/a/deploys", `{}`, 400, ""},
		{"/api/v1/apps/a/deploys", `{"version":"2","force":true}`, 400, ""},
		{"/api/v1/apps/a/deploys/rollback", `{"version":"2"}`, 400, ""},
		{"/api/v1/blockers", `{"reason":" "}`, 400, ""},
		{"/api/v1/blockers/five/lift", ``, 404, ""},
		{"/api/v1/savepoints/a--1/kept/delete", `{"reason":"r","who":"w"}`, 200, "delete savepoint a--1 kept"},
		{"/api/v1/savepoints/a--1/kept/delete", `{"reason":" "}`, 400, ""},
	} {
		status, body := ask("POST", c.path, "", c.body)
		require.Equal(t, 401, status, body)
		require.Empty(t, s.asked)
		status, body = ask("POST", c.path, secret, c.body)
		require.Equal(t, c.status, status, "%s %s: %s", c.path, c.body, body)
		if c.asked == "" {
			require.Empty(t, s.asked)
			continue
		}
		require.Equal(t, []string{c.asked}, s.asked)
		s.asked = nil
	}
	require.Equal(t, "w admin push a 2: pushed ", s.audit[0])
	require.Equal(t, "w admin delete artifact a 1.0.26: deleted aa", s.audit[1])
	require.Equal(t, "w admin deploy a 2: deploy 4", s.audit[2])
}

func TestChanges(t *testing.T) {
	t.Parallel()
	was := control.Descriptor{Type: control.DataStreamApp, Description: "one", Versioned: true, EnabledSeedingTargets: []string{"a"}}
	is := was
	is.Description, is.EnabledSeedingTargets = "two", []string{"a", "b"}
	all, err := api.Changes(was, was)
	require.NoError(t, err)
	require.Empty(t, all)
	all, err = api.Changes(was, is)
	require.NoError(t, err)
	require.Equal(t, []api.FieldChange{{Field: "description", Was: "one", Is: "two"}, {Field: "enabledSeedingTargets", Was: []any{"a"}, Is: []any{"a", "b"}}}, all)
}

// Who is bound to an account sees its apps and what belongs to them. Those of others are not found, as those that are not there, and what is of the stack is
// refused.
func TestBound(t *testing.T) {
	t.Parallel()
	s := &service{}
	ask := serve(t, s)
	status, text := ask("GET", "/api/v1/apps", bound, "")
	require.Equal(t, 200, status)
	require.Contains(t, text, `"name":"own"`)
	require.NotContains(t, text, `"name":"a"`)
	for _, path := range []string{"/history", "/instances/20180827174235/jobs", "/instances/20180827174235/ledger"} {
		status, _ = ask("GET", "/api/v1/apps/own"+path, bound, "")
		require.Equal(t, 200, status, path)
		status, there := ask("GET", "/api/v1/apps/a"+path, bound, "")
		require.Equal(t, 404, status, path)
		status, gone := ask("GET", "/api/v1/apps/b"+path, bound, "")
		require.Equal(t, 404, status, path)
		require.Equal(t, gone, strings.ReplaceAll(there, `\"a\"`, `\"b\"`), "whether there is one is not told")
	}
	status, _ = ask("GET", "/api/v1/operations/8?wait=1s", bound, "")
	require.Equal(t, 200, status)
	_, there := ask("GET", "/api/v1/operations/7?wait=1m", bound, "")
	_, gone := ask("GET", "/api/v1/operations/404?wait=1m", bound, "")
	require.Equal(t, gone, strings.ReplaceAll(there, "7", "404"))
	for _, path := range []string{"/instances", "/instances/20180827174235/suspend", "/rollback"} {
		status, _ = ask("POST", "/api/v1/apps/own"+path, bound, "")
		require.Equal(t, 202, status, path)
		status, text = ask("POST", "/api/v1/apps/a"+path, bound, "")
		require.Equal(t, 404, status, path)
		require.Contains(t, text, `there is no app \"a\"`)
	}
	require.Len(t, s.asked, 3, "nothing was done to an app of others")
	status, text = ask("POST", "/api/v1/sql", bound, `{"query":"SELECT 7"}`)
	require.Equal(t, 200, status)
	require.JSONEq(t, `{"columns":["n","who"],"rows":[[7,null]]}`, text)
	require.Equal(t, `query "acme" SELECT 7`, s.asked[3])
	for err, want := range map[error]int{api.ErrInvalid: 400, api.ErrTooMuch: 422, errors.New("disk"): 500} {
		s.err = err
		status, _ = ask("POST", "/api/v1/sql", bound, `{"query":"SELECT 7"}`)
		require.Equal(t, want, status)
	}
	s.err = nil
	require.Contains(t, strings.Join(s.audit, "\n"), `district operator suspend a 20180827174235: not found: there is no app "a"`)
	for _, path := range []string{"/api/v1/apps/own/deploys", "/api/v1/artifacts", "/api/v1/blockers", "/api/v1/nothing"} {
		status, text = ask("GET", path, bound, "")
		require.Equal(t, 403, status, path)
		require.Contains(t, text, "district is bound to account acme")
	}
}
