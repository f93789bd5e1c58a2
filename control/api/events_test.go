package api_test

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/control/access"
	"millrace/control/api"
)

// A client hears of every change, in order, or that it has to read anew; one that does not listen keeps nobody waiting.
func TestEvents(t *testing.T) {
	t.Parallel()
	events := &api.Events{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := access.Principal{Account: r.URL.Query().Get("account")}
		events.ServeHTTP(w, r.WithContext(access.With(r.Context(), p)))
	}))
	t.Cleanup(server.Close) // when the clients have gone
	join := func(account string) func() string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"?account="+account, http.NoBody)
		require.NoError(t, err)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		t.Cleanup(func() { _ = res.Body.Close() }) // it was only read
		require.Equal(t, "text/event-stream", res.Header.Get("Content-Type"))
		lines := bufio.NewReader(res.Body)
		return func() string {
			var event strings.Builder
			for {
				line, err := lines.ReadString('\n')
				require.NoError(t, err)
				if line == "\n" {
					return event.String()
				}
				event.WriteString(line)
			}
		}
	}
	next, idle, bound := join(""), join(""), join("acme")
	const reset = "event: apps\ndata: /api/v1/apps\n"
	require.Equal(t, reset, next())
	events.Say(api.Changed{App: "a", DataVersion: "v", State: "SUSPENDING", UpdatedBy: "hans"})
	events.Say(api.Changed{App: "a", DataVersion: "v"})
	require.Equal(t, "event: instance\ndata: {\"app\":\"a\",\"account\":\"\",\"data_version\":\"v\",\"state\":\"SUSPENDING\",\"updated_by\":\"hans\"}\n", next())
	require.Equal(t, "event: instance\ndata: {\"app\":\"a\",\"account\":\"\",\"data_version\":\"v\",\"state\":\"\"}\n", next())

	require.Equal(t, reset, bound())
	events.Say(api.Changed{App: "c", Account: "acme"})
	require.Equal(t, "event: instance\ndata: {\"app\":\"c\",\"account\":\"acme\",\"data_version\":\"\",\"state\":\"\"}\n", bound(), "and of the others nothing")
	require.Contains(t, next(), `"app":"c"`)

	long := strings.Repeat("x", 1<<16) // the network takes some of what nobody reads
	for range 1000 {
		events.Say(api.Changed{App: long})
	}
	require.Equal(t, reset, idle())
	lost := false
	for range 1002 {
		if lost = idle() == reset; lost {
			break
		}
	}
	require.True(t, lost, "it was told of more than it took, and does not know")
	events.Say(api.Changed{App: "b"})
	for !strings.Contains(idle(), `"app":"b"`) {
		continue
	}
	events.End()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	rest, err := io.ReadAll(res.Body)
	require.NoError(t, err, "a stream that has ended")
	require.Empty(t, rest)
	require.NoError(t, res.Body.Close())
}
