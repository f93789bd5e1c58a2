package web

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	pushEvery    = time.Second
	idleEvery    = 4 // ticks of pushEvery between two samples while nobody looks; the charts have a step of five
	commentEvery = 15 * time.Second
	writeTimeout = 10 * time.Second // a reader that takes longer than this for one push is gone
)

// part is one element of a page that changes: its id, which is also its template's name, and its HTML.
type part struct {
	id   string
	html []byte
}

// hub renders each watched topic once a second for all its readers and tells them what changed.
//
// Renderings are numbered, and a topic remembers for each part in which one it last changed. A reader knows the number it
// has seen, so a push, and a resume by Last-Event-ID, is the parts that changed since: snapshots, whatever was missed.
// Numbers are never used twice, also not by a topic that was left and joined again, which therefore sends everything.
type hub struct {
	run string // of this process: numbers of another one mean nothing here

	mu      sync.Mutex
	seq     uint64
	topics  map[string]*topic // those with readers
	stopped bool
}

type topic struct {
	render  func(context.Context) ([]part, error)
	readers int
	seq     uint64 // of the present rendering
	parts   []changed
	next    chan struct{} // closed when a new rendering is there, and when the hub stops
}

type changed struct {
	part
	seq uint64 // rendering in which it last changed
}

func newHub() *hub { return &hub{run: rand.Text()[:8], topics: map[string]*topic{}} }

// Run renders watched topics once a second, and calls each as often, less often while nobody watches, until ctx ends, then ends all streams.
func (h *hub) Run(ctx context.Context, each func(context.Context), onError func(topic string, err error)) {
	tick := time.NewTicker(pushEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			h.mu.Lock()
			h.stopped = true
			for _, t := range h.topics {
				close(t.next)
			}
			h.topics = map[string]*topic{}
			h.mu.Unlock()
			return
		case <-tick.C:
		}
		h.mu.Lock()
		watched := maps.Clone(h.topics)
		h.mu.Unlock()
		if len(watched) > 0 || n%idleEvery == 0 {
			each(ctx)
		}
		for name, t := range watched {
			parts, err := renderWithin(ctx, t)
			if err != nil {
				if ctx.Err() == nil {
					onError(name, err)
				}
				continue
			}
			h.mu.Lock()
			h.seq++
			t.take(parts, h.seq)
			h.mu.Unlock()
		}
	}
}

func renderWithin(ctx context.Context, t *topic) ([]part, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return t.render(ctx)
}

// take makes parts the topic's present rendering and wakes its readers.
func (t *topic) take(parts []part, seq uint64) {
	t.seq = seq
	next := make([]changed, len(parts))
	for i, p := range parts {
		next[i] = changed{part: p, seq: t.seq}
		for _, old := range t.parts {
			if old.id == p.id && bytes.Equal(old.html, p.html) {
				next[i].seq = old.seq
			}
		}
	}
	t.parts = next
	close(t.next)
	t.next = make(chan struct{})
}

// join adds a reader to a topic. It returns nil when the hub has stopped.
func (h *hub) join(name string, render func(context.Context) ([]part, error)) *topic {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return nil
	}
	t := h.topics[name]
	if t == nil {
		t = &topic{render: render, next: make(chan struct{})}
		h.topics[name] = t
	}
	t.readers++
	return t
}

func (h *hub) leave(name string, t *topic) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t.readers--; t.readers == 0 && h.topics[name] == t {
		delete(h.topics, name)
	}
}

// since returns the parts that changed after the rendering seen, the number of the present one, and the signal of the next.
func (h *hub) since(t *topic, seen uint64) (parts []part, seq uint64, next <-chan struct{}, stopped bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range t.parts {
		if c.seq > seen {
			parts = append(parts, c.part)
		}
	}
	return parts, t.seq, t.next, h.stopped
}

// serve is one stream. It returns when the reader goes away, takes no data, or the hub stops.
func (h *hub) serve(w http.ResponseWriter, r *http.Request, name string, render func(context.Context) ([]part, error)) error {
	t := h.join(name, render)
	if t == nil {
		return errStopping
	}
	defer h.leave(name, t)

	head := w.Header()
	head.Set("Content-Type", "text/event-stream")
	head.Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	write := func(b []byte) error {
		// The server's own write timeout is for pages; a stream lives as long as each of its writes gets through.
		if err := out.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		return out.Flush()
	}
	// A first byte at once, so that the reader knows the stream is open.
	if write([]byte(": open\n\n")) != nil {
		return nil
	}

	seen := h.seen(r.Header.Get("Last-Event-ID"))
	comment := time.NewTicker(commentEvery)
	defer comment.Stop()
	_, _, next, stopped := h.since(t, seen)
	for !stopped {
		select {
		case <-r.Context().Done():
			return nil
		case <-comment.C:
			if write([]byte(": still here\n\n")) != nil {
				return nil
			}
			continue
		case <-next:
		}
		var parts []part
		var seq uint64
		parts, seq, next, stopped = h.since(t, seen)
		if len(parts) == 0 {
			continue
		}
		if write(h.event(seq, parts)) != nil {
			return nil
		}
		seen = seq
	}
	return nil
}

// seen reads a Last-Event-ID. One of another process, or none, has seen nothing.
func (h *hub) seen(id string) uint64 {
	run, number, _ := strings.Cut(id, "-")
	seq, err := strconv.ParseUint(number, 10, 64)
	if run != h.run || err != nil {
		return 0
	}
	return seq
}

// event writes parts as one message that htmx swaps in.
func (h *hub) event(seq uint64, parts []part) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "id: %s-%d\n", h.run, seq)
	for _, p := range parts {
		fmt.Fprintf(&b, "data: <hx-partial hx-target=\"#%s\" hx-swap=\"innerMorph\">\n", p.id)
		for line := range bytes.Lines(p.html) {
			b.WriteString("data: ")
			b.Write(bytes.TrimRight(line, "\r\n"))
			b.WriteByte('\n')
		}
		b.WriteString("data: </hx-partial>\n")
	}
	b.WriteByte('\n')
	return b.Bytes()
}
