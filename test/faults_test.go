package test

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kversion"

	"millrace/index"
)

// TestKillOnFullDisk is TestKill, a quarter as often, on a disk that fills up at random moments and is freed for the next start. It
// needs a disk of its own, which only root can mount.
func TestKillOnFullDisk(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=1g"); err != nil {
		t.Skipf("no small disk can be mounted here: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(disk, syscall.MNT_DETACH)) })
	k := newKiller(t, filepath.Join(disk, "data"))
	require.NotEmpty(t, k.run(max(k.kills/4, 1), func() (end func()) {
		fill(t, filepath.Join(disk, "filler"))
		return func() { require.NoError(t, os.Remove(filepath.Join(disk, "filler"))) }
	}))
}

// fill writes a file until the disk has no room for another byte.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	require.NoError(t, err)
	defer func() { _ = f.Close() }() // it is full
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 16
		}
	}
}

// TestKillWithBrokenConnections is TestKill, a quarter as often, with log and index in another process than the demo: connections to
// them are reset, answer late, and are refused, at random moments and all the time.
func TestKillWithBrokenConnections(t *testing.T) {
	t.Parallel()
	network := &network{conns: map[net.Conn]bool{}}
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1), kfake.DataDir(t.TempDir()), kfake.SyncWrites(), kfake.MaxVersions(kversion.V3_4_0()),
		kfake.ListenFn(func(n, _ string) (net.Listener, error) { return network.listen(n) }),
	)
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	documents, err := index.Open(index.Config{Path: filepath.Join(t.TempDir(), "index.duckdb")})
	require.NoError(t, err)
	listener, err := network.listen("tcp")
	require.NoError(t, err)
	server := &http.Server{Handler: documents}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		require.NoError(t, server.Close())
		require.ErrorIs(t, <-served, http.ErrServerClosed)
		require.NoError(t, documents.Close())
	})
	k := newKiller(t, filepath.Join(t.TempDir(), "data"),
		"--brokers", strings.Join(cluster.ListenAddrs(), ","), "--index-url", "http://"+listener.Addr().String())
	require.NotEmpty(t, k.run(max(k.kills/4, 1), func() (end func()) {
		stop, stopped := make(chan struct{}), make(chan struct{})
		kind := k.moments.IntN(3)
		go func() {
			defer close(stopped)
			for {
				network.fault(kind)
				select {
				case <-stop:
					network.fault(-1)
					return
				case <-time.After(30 * time.Millisecond):
				}
			}
		}()
		return func() { close(stop); <-stopped }
	}))
}

// network is listeners whose connections can be made to fail.
type network struct {
	mu    sync.Mutex
	conns map[net.Conn]bool
	late  time.Duration
	down  bool
}

// fault resets all connections (0), makes answers late (1), or resets connections and refuses new ones (2). Any other ends that.
func (n *network) fault(kind int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.late, n.down = 0, false
	switch kind {
	case 1:
		n.late = 200 * time.Millisecond
	case 0, 2:
		n.down = kind == 2
		for c := range n.conns {
			reset(c)
			delete(n.conns, c)
		}
	}
}

// reset closes a connection without the other side being told that it has everything.
func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0) // it may be closed
	_ = c.Close()
}

func (n *network) listen(kind string) (net.Listener, error) {
	l, err := net.Listen(kind, "127.0.0.1:0")
	return listener{l, n}, err
}

type listener struct {
	net.Listener
	n *network
}

func (l listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		l.n.mu.Lock()
		down := l.n.down
		l.n.conns[c] = true
		l.n.mu.Unlock()
		if !down {
			return conn{c, l.n}, nil
		}
		reset(c)
	}
}

type conn struct {
	net.Conn
	n *network
}

// Write answers, late if that is the fault.
func (c conn) Write(p []byte) (int, error) {
	c.n.mu.Lock()
	late := c.n.late
	c.n.mu.Unlock()
	if late > 0 {
		<-time.After(late)
	}
	return c.Conn.Write(p)
}

func (c conn) Close() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	delete(c.n.conns, c.Conn)
	return c.Conn.Close()
}
