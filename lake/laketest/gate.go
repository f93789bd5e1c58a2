package laketest

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Gate stands before the S3 server and lets a number of requests through. Of the ones after that the first is, if Answerless says so,
// still carried out; none of them is answered.
type Gate struct {
	URL string

	mu         sync.Mutex
	left       int
	answerless bool
	refused    int
}

// NewGate opens a gate; the test is skipped when lakes are on the local disk.
func NewGate(t testing.TB) *Gate {
	t.Helper()
	if !OnS3() {
		t.Skip("MILLRACE_S3 is not set: scripts/servers/s3.sh starts a server for it")
	}
	server, err := url.Parse(os.Getenv("MILLRACE_S3"))
	require.NoError(t, err)
	g := &Gate{}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(server)
		r.Out.Host = r.In.Host // it is signed
	}}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pass, answerless := g.take()
		switch {
		case pass:
			proxy.ServeHTTP(w, r)
			return
		case answerless:
			proxy.ServeHTTP(httptest.NewRecorder(), r)
		}
		panic(http.ErrAbortHandler) // cuts the connection
	}))
	t.Cleanup(front.Close)
	g.URL = front.URL
	return g
}

func (g *Gate) take() (pass, answerless bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left > 0 {
		g.left--
		return true, false
	}
	g.refused++
	return false, g.answerless && g.refused == 1
}

// Let lets that many requests through from now on.
func (g *Gate) Let(requests int, answerless bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left, g.answerless, g.refused = requests, answerless, 0
}

// Refused is how many requests had no answer since Let.
func (g *Gate) Refused() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refused
}
