package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"millrace/control/access"
)

// EventsPath streams what changes (text/event-stream). It begins with the event "apps", which asks the client to read Path: what it knew before may
// be old. Each "instance" that follows is a Changed. Another "apps" comes when the client did not keep up.
const EventsPath = "/api/v1/events"

// Changed says how an instance is by now.
type Changed struct {
	App         string `json:"app"`
	Account     string `json:"account"` // whose the app is; who is bound to another one is not told
	DataVersion string `json:"data_version"`
	State       string `json:"state"` // empty: it was deleted
	UpdatedBy   string `json:"updated_by,omitempty"`
}

// Events hands changes to whoever streams them. The zero value is ready.
type Events struct {
	mu      sync.Mutex
	clients map[chan Changed]struct{}
	ended   bool
}

// End ends all streams, and those that begin later: a server that shuts down waits for its requests.
func (e *Events) End() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
	for client := range e.clients {
		delete(e.clients, client)
		close(client)
	}
}

// backlog is how many changes wait for a client.
const backlog = 64

// Say tells all clients of a change. It does not wait for them.
func (e *Events) Say(c Changed) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for client := range e.clients {
		select {
		case client <- c:
		default: // it did not keep up: its stream says so
			delete(e.clients, client)
			close(client)
		}
	}
}

// join returns the changes from now on, until leave is called, or it is closed because its reader did not keep up. After End it returns false.
func (e *Events) join() (changes chan Changed, leave func(), ok bool) {
	changes = make(chan Changed, backlog)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return nil, nil, false
	}
	if e.clients == nil {
		e.clients = map[chan Changed]struct{}{}
	}
	e.clients[changes] = struct{}{}
	return changes, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.clients, changes)
	}, true
}

// keepAlive is how often a stream says something, so that what is between knows that it is used.
const keepAlive = 15 * time.Second

// ServeHTTP streams changes until the client goes, or the server ends.
func (e *Events) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", eventStream)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	for r.Context().Err() == nil {
		if !e.stream(r.Context(), w, access.From(r.Context())) {
			return
		}
	}
}

// stream streams changes until the client did not keep up. It reports whether there is a client still.
func (e *Events) stream(ctx context.Context, w http.ResponseWriter, who access.Principal) bool {
	changes, leave, ok := e.join()
	if !ok {
		return false
	}
	defer leave()
	flush := http.NewResponseController(w)
	send := func(format string, args ...any) bool {
		_, err := fmt.Fprintf(w, format, args...)
		return err == nil && flush.Flush() == nil
	}
	if !send("event: apps\ndata: %s\n\n", Path) {
		return false
	}
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-alive.C:
			if !send(": alive\n\n") {
				return false
			}
		case c, ok := <-changes:
			if !ok {
				return true
			}
			if !who.Sees(c.Account) {
				continue
			}
			text, err := json.Marshal(c)
			if err != nil || !send("event: instance\ndata: %s\n\n", text) {
				return false
			}
		}
	}
}
