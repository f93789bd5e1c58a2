package main

import (
	"context"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"millrace/control/api"
)

// Flags are stronger than variables, and these than the context in use. No token is shown to another than the one that it is for.
func TestWhatIsAsked(t *testing.T) {
	t.Parallel()
	prod, stage := remote{Name: "prod", URL: "https://prod:1", Token: "p"}, remote{Name: "stage", URL: "https://stage:1", Token: "s"}
	byURL := func(url string) remote { return remote{URL: url, Token: "env"} }
	const u, v = "https://u:1", "http://127.0.0.1:1"
	for _, c := range []struct {
		flags, env saying
		current    string
		want       remote
		origin     string
		fails      string
	}{
		{origin: "default"},
		{current: "prod", want: prod, origin: "file"},
		{current: "gone", fails: `there is no context "gone"; there are local, prod, stage`},
		{env: saying{context: "stage"}, current: "prod", want: stage, origin: contextVariable},
		{env: saying{context: "local"}, current: "prod", origin: contextVariable},
		{env: saying{url: u}, current: "prod", want: byURL(u), origin: urlVariable},
		{env: saying{dataDir: "d"}, current: "prod", origin: dirVariable},
		{flags: saying{context: "prod"}, env: saying{context: "stage"}, want: prod, origin: "flag"},
		{flags: saying{context: "prod"}, env: saying{url: u}, want: prod, origin: "flag"},
		{flags: saying{context: "prod"}, env: saying{dataDir: "d"}, want: prod, origin: "flag"},
		{flags: saying{context: "local"}, env: saying{url: u}, current: "prod", origin: "flag"},
		{flags: saying{url: v}, env: saying{context: "stage"}, current: "prod", want: byURL(v), origin: "flag"},
		{flags: saying{url: v}, env: saying{url: u}, want: byURL(v), origin: "flag"},
		{flags: saying{dataDir: "d"}, env: saying{context: "stage"}, current: "prod", origin: "flag"},
		{flags: saying{context: "gone"}, env: saying{context: "stage"}, fails: `there is no context "gone"`},
		{flags: saying{context: "prod", url: u}, fails: "--context and --url say two things"},
		{flags: saying{context: "prod", dataDir: "d"}, fails: "--context and --data-dir say two things"},
		{env: saying{context: "prod", url: u, dataDir: "d"}, fails: "MILLRACE_CONTEXT and MILLRACE_URL and MILLRACE_DATA_DIR say two things"},
		{flags: saying{context: "prod"}, env: saying{url: u, dataDir: "d"}, want: prod, origin: "flag"},
		{flags: saying{context: "prod", caFile: "ca.pem"}, fails: "--ca-file belongs to --url"},
		{flags: saying{caFile: "ca.pem"}, current: "prod", fails: "--ca-file belongs to --url"},
		{flags: saying{url: u, caFile: "none.pem"}, fails: "--ca-file none.pem: no such file or directory"},
		{env: saying{url: u, caFile: "none.pem"}, fails: "none.pem"},
		{env: saying{caFile: "none.pem"}, current: "prod", want: prod, origin: "file"},
		{flags: saying{url: "http://10.0.0.1:1"}, fails: "--url http://10.0.0.1:1 has no TLS, and everybody on the way would read the token: want https://10.0.0.1:1"},
		{env: saying{url: "http://example.edu"}, fails: "has no TLS"},
		{flags: saying{url: "http://[::1]:8420"}, want: byURL("http://[::1]:8420"), origin: "flag"},
		{flags: saying{url: "http://localhost"}, want: byURL("http://localhost"), origin: "flag"},
		{flags: saying{url: "example.edu:8420"}, fails: "is no address of a Millrace"},
		{flags: saying{url: "https://example.edu/console"}, fails: "is no address of a Millrace"},
		{flags: saying{url: "https://ann:secret@example.edu"}, fails: "--url https://ann:xxxxx@example.edu is no address"},
		{flags: saying{url: "ftp://example.edu"}, fails: "is no address of a Millrace"},
	} {
		got, err := chooseAsked(c.flags, c.env, "env", contexts{Current: c.current, Contexts: []remote{prod, stage}}, "file")
		if c.fails != "" {
			require.ErrorContains(t, err, c.fails, "%+v", c)
			continue
		}
		require.NoError(t, err, "%+v", c)
		require.Equal(t, asked{c.want, c.origin}, got, "%+v", c)
	}
}

// Each command is known by what it works on: what is not said works on a data directory, and is refused with a context.
func TestReach(t *testing.T) {
	t.Parallel()
	found := map[reach][]string{}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, below := range cmd.Commands() {
			walk(below)
		}
		if !cmd.HasSubCommands() {
			found[reachOf(cmd)] = append(found[reachOf(cmd)], strings.TrimPrefix(cmd.CommandPath(), "millrace "))
		}
	}
	walk(rootCommand())
	require.Equal(t, []string{
		"app cancel", "app delete", "app force", "app history", "app jobs", "app list", "app operation", "app promote", "app recover", "app resume", "app rollback", "app savepoint",
		"app start", "app suspend", "app upgrade", "audit", "blocker add", "blocker lift", "blocker list", "build delete", "build list", "build push", "check", "deploy diff", "deploy list", "deploy new",
		"deploy rollback", "diff", "doctor", "key add", "key list", "key revoke", "lake stats", "logs", "raw", "ready", "rows", "savepoint delete", "savepoint list", "sql", "stack show", "tables", "token add", "token list", "token revoke", "top",
		"user add", "user delete", "user disable", "user enable", "user list", "user password", "user role",
	}, found[asks])
	require.Equal(t, []string{"bench", "demo", "restore", "serve"}, found[starts])
	require.Equal(t, []string{"config show", "context add", "context list", "context remove", "context use", "describe", "new", "run", "send", "stack list", "version"}, found[neither])
	for path := range reaches {
		switch path {
		case "help", "completion", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd:
			continue // cobra adds them
		}
		cmd, rest, err := rootCommand().Find(strings.Fields(path))
		require.NoError(t, err)
		require.Empty(t, rest, "there is no command %q", path)
		require.NotNil(t, cmd)
	}
}

// askOf is what a command hears of a server at a context.
func askOf(t *testing.T, r remote) error {
	t.Helper()
	c, err := remoteClient(asked{remote: r})
	require.NoError(t, err)
	var apps []api.App
	return c.do(t.Context(), http.MethodGet, api.Path, nil, &apps)
}

func TestWhoAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		answer http.HandlerFunc
		says   string
		code   int
	}{
		{func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, `context c, AT does not answer like a Millrace, but with 200 OK and "text/html`, 0},
		{func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }, "does not answer like a Millrace, but with 404 Not Found", 0},
		{func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://elsewhere.example/", http.StatusFound)
		}, "it sends on to http://elsewhere.example/; give the URL of the Millrace itself", 0},
		{func(w http.ResponseWriter, _ *http.Request) { w.Header().Set(api.VersionHeader, "2") }, "context c, AT speaks version 2 of the API, and this program (dev) version 1: use the millrace that runs there", 0},
		{func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(api.VersionHeader, api.Version)
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"title":"Unauthorized","status":401,"detail":"the token is unknown"}`))
		}, "context c, AT: the token is unknown; 'millrace token add' there makes another one, and 'millrace context add c --url AT' has it be shown", exitNotAllowed},
		{func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(api.VersionHeader, api.Version)
			w.WriteHeader(http.StatusPreconditionFailed)
			_, _ = w.Write([]byte(`{"status":412,"detail":"it has changed"}`))
		}, "it has changed", exitConflict},
		{func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(api.VersionHeader, api.Version)
			_, _ = w.Write([]byte("[{"))
		}, "ask context c, AT: read the answer to /api/v1/apps: unexpected EOF", 0},
	} {
		var shown string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			shown = r.Header.Get("Authorization")
			c.answer(w, r)
		}))
		err := askOf(t, remote{Name: "c", URL: server.URL, Token: "mrt_x"})
		require.ErrorContains(t, err, strings.ReplaceAll(c.says, "AT", server.URL))
		require.Equal(t, "Bearer mrt_x", shown)
		var coded interface{ exitCode() int }
		if c.code != 0 {
			require.ErrorAs(t, err, &coded)
			require.Equal(t, c.code, coded.exitCode())
		}
		server.Close()
		require.ErrorContains(t, askOf(t, remote{Name: "c", URL: server.URL}), "connection refused; see that 'millrace serve' runs there, and that this is its URL")
	}
}

// A certificate is trusted that the system's authorities have signed, or those of the context, and no other.
func TestAuthorities(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(api.VersionHeader, api.Version)
		_, _ = w.Write([]byte("[]"))
	}))
	t.Cleanup(server.Close)
	err := askOf(t, remote{Name: "c", URL: server.URL})
	require.ErrorContains(t, err, "certificate signed by unknown authority; if its authority is your own give that with --ca-file")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	require.NoError(t, askOf(t, remote{Name: "c", URL: server.URL, CAFile: ca}))
	require.NoError(t, os.WriteFile(ca, []byte("none"), 0o600))
	_, err = remoteClient(asked{remote: remote{Name: "c", URL: server.URL, CAFile: ca}})
	require.ErrorContains(t, err, "has no certificate: want a file of PEM")
}

// Who follows a log that breaks off asks for what came after its last line, and has each line once.
func TestFollowedLogBreaksOff(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var begun []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun = append(begun, r.Header.Get("Last-Event-ID"))
		w.Header().Set(api.VersionHeader, api.Version)
		switch len(begun) {
		case 1:
			_, _ = w.Write([]byte("id: 0\n\nid: 1\ndata: one\n\n: alive\n\nid: 2\ndata: tw")) // it breaks off in the middle of a line
		case 2:
			w.WriteHeader(http.StatusBadGateway)
		case 3:
			_, _ = w.Write([]byte("event: lost\ndata: lines may be missing here\n\nid: 2\ndata: two\ndata: halves\n\n"))
		default:
			cancel()
		}
	}))
	t.Cleanup(server.Close)
	c, err := remoteClient(asked{remote: remote{Name: "c", URL: server.URL}})
	require.NoError(t, err)
	cmd := &cobra.Command{}
	cmd.SetContext(ctx)
	var out, errs strings.Builder
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	require.ErrorIs(t, c.followLogs(cmd, "/logs"), context.Canceled)
	require.Equal(t, "one\ntwo\nhalves\n", out.String())
	require.Contains(t, errs.String(), "millrace: lines may be missing here\n")
	require.Equal(t, []string{"", "1", "1", "2"}, begun[:4])
}
