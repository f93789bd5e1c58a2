package laketest

import (
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Gate stands before the S3 server, or the REST catalogue, and lets a number of requests through. Of the ones after that the first is, if Answerless says so,
// still carried out; none of them is answered.
type Gate struct {
	URL    string
	Status int // that refused requests are answered with; 0: the connection is cut. Not to be changed while there are requests

	mu         sync.Mutex
	hold       func(*http.Request)
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
	return newGate(t, os.Getenv("MILLRACE_S3"))
}

// NewCatalogGate opens a gate before the REST catalogue, which lets everything through; the test is skipped when there is none.
func NewCatalogGate(t testing.TB) *Gate {
	t.Helper()
	if !OnREST() {
		t.Skip("MILLRACE_ICEBERG_REST is not set: scripts/servers/iceberg-rest.sh starts a server for it")
	}
	g := newGate(t, os.Getenv("MILLRACE_ICEBERG_REST"))
	g.Let(math.MaxInt, false)
	return g
}

func newGate(t testing.TB, address string) *Gate {
	t.Helper()
	server, err := url.Parse(address)
	require.NoError(t, err)
	g := &Gate{}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(server)
		r.Out.Host = r.In.Host // it is signed
	}}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		hold := g.hold
		g.mu.Unlock()
		if hold != nil {
			hold(r)
		}
		pass, answerless := g.take()
		switch {
		case pass:
			proxy.ServeHTTP(w, r)
			return
		case answerless:
			proxy.ServeHTTP(httptest.NewRecorder(), r)
		}
		if g.Status != 0 {
			http.Error(w, "the gate is closed", g.Status)
			return
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

// Hold calls fn before each request from now on, which goes on when fn returns; nil holds none.
func (g *Gate) Hold(fn func(*http.Request)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hold = fn
}

// Refused is how many requests had no answer since Let.
func (g *Gate) Refused() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refused
}
