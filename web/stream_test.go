package web_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/web"
)

// message is one server-sent event as a reader gets it.
type message struct {
	id, data string
	comment  string
	at       time.Time
}

// reader is a stream's other end, without a network, so that it lives in a bubble of fake time.
type reader struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	got    []message
	header http.Header
	status int
	broken bool
}

func (r *reader) Header() http.Header { return r.header }

func (r *reader) WriteHeader(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func (r *reader) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken {
		return 0, errors.New("write: broken pipe")
	}
	return r.buf.Write(b)
}

func (r *reader) Flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		text, rest, ok := strings.Cut(r.buf.String(), "\n\n")
		if !ok {
			return
		}
		r.buf.Reset()
		r.buf.WriteString(rest)
		m := message{at: time.Now()}
		for line := range strings.Lines(text) {
			line = strings.TrimRight(line, "\n")
			switch {
			case strings.HasPrefix(line, "id: "):
				m.id = line[4:]
			case strings.HasPrefix(line, "data: "):
				m.data += line[6:] + "\n"
			case strings.HasPrefix(line, ": "):
				m.comment = line[2:]
			}
		}
		r.got = append(r.got, m)
	}
}

// messages returns what arrived so far: pushes and comments.
func (r *reader) messages() (pushes, comments []message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.got {
		if m.comment != "" {
			comments = append(comments, m)
		} else {
			pushes = append(pushes, m)
		}
	}
	return pushes, comments
}

// open starts a stream and returns its other end, how to hang up, and what is closed when the server has ended it.
func open(t *testing.T, h http.Handler, target, lastID string) (*reader, func(), chan struct{}) {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	t.Cleanup(leave)
	req := httptest.NewRequest(http.MethodGet, target, nil).WithContext(ctx)
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	r, done := &reader{header: http.Header{}, status: http.StatusOK}, make(chan struct{})
	go func() {
		defer close(done)
		h.ServeHTTP(r, req)
	}()
	return r, leave, done
}

// live runs f in a bubble of fake time with a server whose Run runs, and then checks that Run ends.
func live(t *testing.T, f func(t *testing.T, p *pipeline, s *web.Server, stop func())) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipeline(time.Now)
		s := newServer(t, p.config())
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		f(t, p, s, cancel)
		cancel()
		require.NoError(t, <-ended)
	})
}

const overview = "/events?topics=overview:quiz_submission"

var target = regexp.MustCompile(`<hx-partial hx-target="#([a-z]+)" hx-swap="innerMorph">`)

func targets(m message) (ids []string) {
	for _, t := range target.FindAllStringSubmatch(m.data, -1) {
		ids = append(ids, t[1])
	}
	return ids
}

func TestStreamPushesAtMostOncePerSecond(t *testing.T) {
	t.Parallel()
	live(t, func(t *testing.T, _ *pipeline, s *web.Server, _ func()) {
		r, leave, done := open(t, s, overview, "")
		time.Sleep(10 * time.Second) // of the bubble's time
		synctest.Wait()
		pushes, _ := r.messages()
		require.GreaterOrEqual(t, len(pushes), 9)
		require.LessOrEqual(t, len(pushes), 10)
		for i, m := range pushes {
			require.NotEmpty(t, m.id)
			require.NotContains(t, m.data, "<script")
			if i > 0 {
				require.GreaterOrEqual(t, m.at.Sub(pushes[i-1].at), time.Second)
				require.NotEqual(t, pushes[i-1].id, m.id)
			}
		}
		require.ElementsMatch(t, []string{"attention", "flow", "chart", "minutes", "ledger", "jobs", "tables", "newest", "dead"}, targets(pushes[0]),
			"the first push holds every part")
		require.Equal(t, "text/event-stream", r.header.Get("Content-Type"))
		leave()
		<-done
	})
}

func TestStreamSendsOnlyWhatChanged(t *testing.T) {
	t.Parallel()
	live(t, func(t *testing.T, _ *pipeline, s *web.Server, _ func()) {
		r, leave, done := open(t, s, overview, "")
		time.Sleep(4 * time.Second)
		synctest.Wait()
		pushes, _ := r.messages()
		require.GreaterOrEqual(t, len(pushes), 3)
		require.Contains(t, targets(pushes[2]), "flow")
		require.NotContains(t, targets(pushes[2]), "attention", "its text did not change")
		leave()
		<-done
	})
}

// TestStreamCommentsWhenNothingChanges: a proxy or browser must not take a quiet stream for a dead one.
func TestStreamCommentsWhenNothingChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		p := newPipeline(func() time.Time { return start })
		s := newServer(t, p.config())
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		r, leave, done := open(t, s, overview, "")
		time.Sleep(61 * time.Second)
		synctest.Wait()
		pushes, comments := r.messages()
		require.Len(t, pushes, 1, "one full push, then nothing changes")
		require.Len(t, comments, 1+4, "one at once, then one every 15 s")
		leave()
		<-done
		cancel()
		require.NoError(t, <-ended)
	})
}

// TestStreamResumes: a reader that comes back gets what changed since, and everything when its id is of another process.
func TestStreamResumes(t *testing.T) {
	t.Parallel()
	live(t, func(t *testing.T, p *pipeline, s *web.Server, _ func()) {
		// Someone else keeps the topic alive.
		_, leaveOther, doneOther := open(t, s, overview, "")
		r, leave, done := open(t, s, overview, "")
		time.Sleep(3500 * time.Millisecond) // half way between two pushes
		synctest.Wait()
		leave()
		<-done
		pushes, _ := r.messages()
		last := pushes[len(pushes)-1].id

		p.mu.Lock()
		p.unread = errDisk // the rows and dead letters change, the ledger and the jobs go on
		p.mu.Unlock()
		time.Sleep(2 * time.Second)
		resumed, leave, done := open(t, s, overview, last)
		foreign, leaveForeign, doneForeign := open(t, s, overview, "zzzzzzzz-900")
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()

		pushes, _ = resumed.messages()
		require.Len(t, pushes, 1)
		require.Contains(t, targets(pushes[0]), "dead", "it changed while the reader was away")
		require.NotContains(t, targets(pushes[0]), "attention", "it did not change since the reader's id")
		pushes, _ = foreign.messages()
		require.Len(t, targets(pushes[0]), 9)

		leave()
		leaveForeign()
		leaveOther()
		<-done
		<-doneForeign
		<-doneOther

		// With nobody watching, numbering must not begin again below an id that a reader holds.
		again, leave, done := open(t, s, overview, last)
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		pushes, _ = again.messages()
		require.NotEmpty(t, pushes)
		require.Contains(t, targets(pushes[0]), "flow")
		leave()
		<-done
	})
}

func TestStreamsEndWithTheServer(t *testing.T) {
	t.Parallel()
	live(t, func(t *testing.T, _ *pipeline, s *web.Server, stop func()) {
		_, _, done := open(t, s, overview, "")
		time.Sleep(2 * time.Second)
		stop()
		<-done // without the reader going away
		r, _, done := open(t, s, overview, "")
		<-done
		require.Equal(t, http.StatusServiceUnavailable, r.status)
	})
}

func TestStreamOfADeadReaderEnds(t *testing.T) {
	t.Parallel()
	live(t, func(t *testing.T, _ *pipeline, s *web.Server, _ func()) {
		r, _, done := open(t, s, overview, "")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		r.mu.Lock()
		r.broken = true
		r.mu.Unlock()
		<-done
	})
}

func TestStreamShowsThatTheStatusCannotBeRead(t *testing.T) {
	t.Parallel()
	live(t, func(t *testing.T, p *pipeline, s *web.Server, _ func()) {
		r, leave, done := open(t, s, overview, "")
		time.Sleep(2 * time.Second)
		p.fail(errDisk)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		pushes, _ := r.messages()
		all := ""
		for _, m := range pushes {
			all += m.data
		}
		require.True(t, strings.Contains(all, "Not updating"), "no push says that the status cannot be read")
		leave()
		<-done
	})
}

func TestStreamOfUnknownTopic(t *testing.T) {
	t.Parallel()
	s := newServer(t, newPipeline(func() time.Time { return noon }).config())
	for _, topic := range []string{"", "nope", "table:nope"} {
		w := get(s, "/events?topics="+topic, "text/html, text/event-stream")
		require.Equal(t, http.StatusNotFound, w.Code, topic)
	}
}

// TestTableStream: the page of a table lives too.
func TestTableStream(t *testing.T) {
	t.Parallel()
	live(t, func(t *testing.T, _ *pipeline, s *web.Server, _ func()) {
		r, leave, done := open(t, s, "/events?topics=table:quiz_submission", "")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		pushes, _ := r.messages()
		require.ElementsMatch(t, []string{"facts", "rows"}, targets(pushes[0]))
		require.Contains(t, pushes[0].data, "_sources")
		leave()
		<-done
	})
}

// streams counts the goroutines that serve a stream. Only for tests that run alone.
func streams() int {
	buf := make([]byte, 1<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), "web.(*hub).serve(")
}

// TestStreamOverHTTP reads a stream from a real listener: the first event comes within its second, a reader that hangs up
// leaves nothing running, and Shutdown is not held up by open streams once Run has ended.
func TestStreamOverHTTP(t *testing.T) {
	p := newPipeline(time.Now)
	s := newServer(t, p.config())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	srv := httptest.NewServer(s)

	read := func(ctx context.Context) *http.Response {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+overview, nil)
		require.NoError(t, err)
		resp, err := srv.Client().Do(req)
		require.NoError(t, err)
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "id: ") {
				return resp
			}
		}
		require.NoError(t, lines.Err())
		require.Fail(t, "the stream ended without an event")
		return nil
	}
	deadline, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	for range 3 {
		hangUp, leave := context.WithCancel(deadline)
		resp := read(hangUp)
		leave()
		resp.Body.Close()
	}
	require.Eventually(t, func() bool { return streams() == 0 }, 10*time.Second, 10*time.Millisecond, "streams of readers that hung up still run")

	resp := read(deadline)
	require.Equal(t, 1, streams())
	cancel()
	require.NoError(t, <-ended)
	drain(t, resp.Body) // ends because the server ended it
	srv.Close()
}
