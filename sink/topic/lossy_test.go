package topic_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kversion"

	"millrace/eventlog"
)

// lossy is a broker behind a network that loses requests or answers.
type lossy struct {
	mu     sync.Mutex
	key    int16 // of the next request to lose something of; -1 for none
	answer bool  // lose its answer, not the request
	lost   chan struct{}
}

func newLossy(t *testing.T) (*lossy, *harness) {
	t.Helper()
	l := &lossy{key: -1}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.MaxVersions(kversion.V3_4_0()),
		kfake.BrokerConfigs(map[string]string{
			"log.retention.ms": "-1", "log.retention.bytes": "-1", "message.max.bytes": strconv.Itoa(eventlog.MaxRecordBytes),
		}),
		kfake.ListenFn(func(network, address string) (net.Listener, error) {
			inner, err := net.Listen(network, "127.0.0.1:0")
			return lossyListener{inner, l}, err
		}))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	return l, newHarness(cluster.ListenAddrs()...)
}

// lose loses the next request with the key, or its answer, and returns a channel that is closed when that has happened.
func (l *lossy) lose(key int16, answer bool) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.key, l.answer, l.lost = key, answer, make(chan struct{})
	return l.lost
}

type lossyListener struct {
	net.Listener
	lossy *lossy
}

func (l lossyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lossyConn{Conn: c, lossy: l.lossy}, nil
}

type lossyConn struct {
	net.Conn
	lossy   *lossy
	request []byte        // the rest of the request that is being handed on
	mute    chan struct{} // set when the next answer is to be lost
}

func (c *lossyConn) Read(p []byte) (int, error) {
	for len(c.request) == 0 {
		head := make([]byte, 4)
		if _, err := io.ReadFull(c.Conn, head); err != nil {
			return 0, err
		}
		request := append(head, make([]byte, binary.BigEndian.Uint32(head))...)
		if _, err := io.ReadFull(c.Conn, request[4:]); err != nil {
			return 0, errors.Join(io.ErrUnexpectedEOF, err)
		}
		c.request = c.through(request)
	}
	n := copy(p, c.request)
	c.request = c.request[n:]
	return n, nil
}

// through returns the request, or nothing of it when it is to be lost.
func (c *lossyConn) through(request []byte) []byte {
	c.lossy.mu.Lock()
	defer c.lossy.mu.Unlock()
	if c.lossy.key < 0 || int16(binary.BigEndian.Uint16(request[4:])) != c.lossy.key { //nolint:gosec // an API key
		return request
	}
	c.lossy.key = -1
	if c.lossy.answer {
		c.mute = c.lossy.lost
		return request
	}
	close(c.lossy.lost)
	return nil
}

func (c *lossyConn) Write(p []byte) (int, error) {
	c.lossy.mu.Lock()
	mute := c.mute
	c.mute = nil
	c.lossy.mu.Unlock()
	if mute != nil {
		close(mute)
		return len(p), nil
	}
	return c.Conn.Write(p)
}
