package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"time"
)

// poster posts envelopes over one connection, as a sensor does. It has no HTTP client: that would take as much processor time as the
// collector that is measured.
type poster struct {
	conn    net.Conn
	answers *bufio.Reader
	head    []byte // of the request, up to the length
	request net.Buffers
}

// newPoster connects to the collector at target, with a sensor key. Close its connection after use.
func newPoster(ctx context.Context, target, key string) (*poster, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, fmt.Errorf("connect to the collector: %w", err)
	}
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: ", u.Path, u.Host, key)
	return &poster{conn: conn, answers: bufio.NewReader(conn), head: []byte(head)}, nil
}

// post sends items in one envelope and returns when it is answered.
func (p *poster) post(items [][]byte) error {
	open := []byte(`{"sensor":"` + sensor + `","sendTime":"` + time.Now().UTC().Format(stamp) + `","data":[`)
	size := len(open) + len("]}") + len(items) - 1
	p.request = append(p.request[:0], nil, open)
	for i, b := range items {
		if i > 0 {
			p.request = append(p.request, []byte(","))
		}
		p.request, size = append(p.request, b), size+len(b)
	}
	p.request = append(p.request, []byte("]}"))
	p.request[0] = append(strconv.AppendInt(bytes.Clone(p.head), int64(size), 10), "\r\n\r\n"...)
	all := p.request // writing consumes it
	if _, err := all.WriteTo(p.conn); err != nil {
		return fmt.Errorf("post an envelope: %w", err)
	}
	status, err := p.answers.ReadString('\n')
	if err != nil {
		return fmt.Errorf("read the collector's answer: %w", err)
	}
	if len(status) < 12 || status[9:12] != "200" {
		return fmt.Errorf("the collector answered %q", status)
	}
	for line := status; len(line) > 2; { // the answer to a sensor has no body
		if line, err = p.answers.ReadString('\n'); err != nil {
			return fmt.Errorf("read the collector's answer: %w", err)
		}
	}
	return nil
}

func (p *poster) close() error { return p.conn.Close() }
