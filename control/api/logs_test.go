package api_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/control/api"
)

func TestLogs(t *testing.T) {
	t.Parallel()
	s := &service{}
	ask := asks(t, s)
	const path = instancePath + "/logs"
	for _, c := range []struct {
		query, accept, last string
		status              int
		says, asked         string
	}{
		{"", "", "", 200, `{"unique_id":"a--20180827174235","lines":["one","two\rthree ` + "\uFFFD" + `","four"]}` + "\n", "{Lines:1000 Bytes:8388608 Position: Follow:false}"},
		{"?lines=0", "application/json", "", 200, `"lines":["one"`, "{Lines:0 Bytes:8388608 Position: Follow:false}"},
		{"?lines=10000&follow=false", "text/plain, */*", "", 200, "one\r\ntwo\rthree \xff\nfour", "{Lines:10000 Bytes:8388608 Position: Follow:false}"},
		{"?lines=10001", "", "", 400, "lines=10001: want 0 to 10000", ""},
		{"?lines=-1", "", "", 400, "want 0 to 10000", ""},
		{"?lines=x", "", "", 400, "want 0 to 10000", ""},
		{"?follow=x", "", "", 400, "follow=x: want true or false", ""},
		{"", "", "1-2-3", 400, "Last-Event-ID is for a stream", ""},
	} {
		s.asked = nil
		header := http.Header{"Accept": {c.accept}}
		if c.last != "" {
			header.Set("Last-Event-ID", c.last)
		}
		res := ask(http.MethodGet, path+c.query, header)
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.Equal(t, c.status, res.StatusCode)
		if !strings.HasPrefix(c.accept, "text/plain") {
			require.Contains(t, string(body), strings.TrimSuffix(c.says, "\n"))
		} else {
			require.Equal(t, c.says, string(body))
			require.Equal(t, "text/plain; charset=utf-8", res.Header.Get("Content-Type"))
			require.Equal(t, `attachment; filename="a--20180827174235.log"`, res.Header.Get("Content-Disposition"))
		}
		if c.asked != "" {
			require.Equal(t, []string{"log a 20180827174235 " + c.asked}, s.asked)
		}
	}
}

// A stream begins with where it is, has each line with where it ends, and goes on where its last event was. It ends with the server.
func TestLogStream(t *testing.T) {
	t.Parallel()
	s := &service{}
	ending := make(chan struct{})
	h, err := api.New(api.Config{Service: s, Comparison: compared{}, Ending: ending})
	require.NoError(t, err)
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	log := &said{lines: []string{"one\n", "two\rthree\r\n", "\n"}, lost: true, ended: make(chan struct{})}
	s.log = log
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+instancePath+"/logs?follow=true&lines=7", http.NoBody)
	require.NoError(t, err)
	req.Header.Set("Last-Event-ID", "1-2-3")
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.Equal(t, "text/event-stream", res.Header.Get("Content-Type"))
	lines := bufio.NewReader(res.Body)
	var got strings.Builder
	for strings.Count(got.String(), "\n\n") < 4 {
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		got.WriteString(line)
	}
	require.Equal(t, "event: lost\ndata: lines may be missing here: the log was begun anew since\n\nid: 1\ndata: one\n\nid: 2\ndata: two\ndata: three\n\nid: 3\ndata: \n\n", got.String())
	require.Equal(t, []string{"log a 20180827174235 {Lines:7 Bytes:8388608 Position:1-2-3 Follow:true}"}, s.asked)
	close(ending)
	rest, err := io.ReadAll(lines)
	require.NoError(t, err, "a stream that has ended")
	require.Empty(t, rest)
	require.NoError(t, res.Body.Close())
	<-log.ended

	s.log = &said{ended: make(chan struct{})} // of a server that is about to end
	req, err = http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+instancePath+"/logs?follow=true", http.NoBody)
	require.NoError(t, err)
	res, err = http.DefaultClient.Do(req)
	require.NoError(t, err)
	rest, err = io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, "id: 0\n\n", string(rest), "who has no line yet knows where to go on all the same")
	require.NoError(t, res.Body.Close())
}

// While a job says nothing its stream does, so that what is between knows that it is used; and it ends when the client goes.
func TestLogStreamOfSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &said{ended: make(chan struct{})}
		h, err := api.New(api.Config{Service: &service{log: log}, Comparison: compared{}})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		w := httptest.NewRecorder()
		go h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, instancePath+"/logs?follow=true", http.NoBody))
		<-time.After(31 * time.Second) // twice as often as it says something
		synctest.Wait()
		require.Equal(t, "id: 0\n\n: alive\n\n: alive\n\n", w.Body.String())
		cancel()
		<-log.ended
		synctest.Wait()
	})
}

// A client that takes nothing is cut off: neither its lines nor the server's requests heap up.
func TestLogStreamOfSlowClient(t *testing.T) {
	t.Parallel()
	log := &said{ended: make(chan struct{})}
	line := strings.Repeat("x", 1<<16) + "\n"
	for range 4000 { // more than a connection holds
		log.lines = append(log.lines, line)
	}
	h, err := api.New(api.Config{Service: &service{log: log}, Comparison: compared{}})
	require.NoError(t, err)
	w := &stuck{ResponseRecorder: httptest.NewRecorder(), takes: 3}
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, instancePath+"/logs?follow=true", http.NoBody))
	<-log.ended
	require.Equal(t, 4, log.at, "it reads no further than the client takes")
}

// stuck takes some writes, and none after them within any time.
type stuck struct {
	*httptest.ResponseRecorder
	takes int
	until time.Time // that it may take
}

func (s *stuck) SetWriteDeadline(at time.Time) error {
	s.until = at
	return nil
}

func (s *stuck) Write(b []byte) (int, error) {
	if s.takes--; s.takes < 0 && !s.until.IsZero() && time.Until(s.until) <= 30*time.Second {
		return 0, os.ErrDeadlineExceeded
	}
	return s.ResponseRecorder.Write(b)
}
