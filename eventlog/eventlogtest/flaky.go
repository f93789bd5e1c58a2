package eventlogtest

import (
	"errors"
	"net"
	"sync"
	"time"
)

// Flaky makes listeners that break a connection in place of an answer, or answer late.
type Flaky struct {
	mu    sync.Mutex
	after int // answers until one is lost; below zero: none is
	late  time.Duration
}

// NewFlaky returns one whose listeners work, until Set says otherwise.
func NewFlaky() *Flaky { return &Flaky{after: -1} }

// Set says after how many answers one is lost, with its connection; below zero none is. From now on all come late.
func (f *Flaky) Set(after int, late time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.after, f.late = after, late
}

// Listen is net.Listen.
func (f *Flaky) Listen(network, address string) (net.Listener, error) {
	l, err := net.Listen(network, address) //nolint:noctx // it does not wait
	return flakyListener{l, f}, err
}

type flakyListener struct {
	net.Listener
	f *Flaky
}

func (l flakyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return flakyConn{c, l.f}, nil
}

type flakyConn struct {
	net.Conn
	f *Flaky
}

var errLost = errors.New("the connection breaks")

func (c flakyConn) Write(p []byte) (int, error) {
	c.f.mu.Lock()
	lost, late := c.f.after == 0, c.f.late
	c.f.after--
	c.f.mu.Unlock()
	if lost {
		return 0, errors.Join(errLost, c.Close())
	}
	if late > 0 {
		<-time.After(late)
	}
	return c.Conn.Write(p)
}
