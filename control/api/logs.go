package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Log is what the job of an instance said, line by line.
type Log interface {
	// Next returns the next line, with its end; the bytes are good until the next call. The error is io.EOF when there is none: one that is
	// followed may have another later.
	Next() ([]byte, error)

	// Lost reports whether lines may be missing before the one that Next returned.
	Lost() bool

	// Position names the place after the line that Next returned.
	Position() (string, error)

	Close() error
}

// LogStart says where a log is begun to be read.
type LogStart struct {
	Lines    int    // the last ones
	Bytes    int64  // of them at most
	Position string // if not empty, what comes after this one
	Follow   bool   // it is asked for more later
}

// Logs are the last lines of what the job of an instance said.
type Logs struct {
	UniqueID string   `json:"unique_id"`
	Lines    []string `json:"lines"` // the oldest first
}

// Bounds of an answer with lines.
const (
	defaultLines = 1000
	mostLines    = 10_000
	mostBytes    = 8 << 20
)

// Times of streams of lines.
const (
	lookAgain  = 200 * time.Millisecond // for more lines
	longestPut = 30 * time.Second       // for a client to take what it was sent: one that does not is cut off, and goes on from its last line
)

// logs answers with lines: as JSON, as text, or as a stream of events.
func (h *Handler) logs(r *http.Request, version string) (any, error) {
	from := LogStart{Lines: defaultLines, Bytes: mostBytes, Position: r.Header.Get("Last-Event-ID")}
	query := r.URL.Query()
	if text := query.Get("lines"); text != "" {
		var err error
		if from.Lines, err = strconv.Atoi(text); err != nil || from.Lines < 0 || from.Lines > mostLines {
			return nil, fmt.Errorf("%w: lines=%s: want 0 to %d", ErrInvalid, text, mostLines)
		}
	}
	if text := query.Get("follow"); text != "" {
		var err error
		if from.Follow, err = strconv.ParseBool(text); err != nil {
			return nil, fmt.Errorf("%w: follow=%s: want true or false", ErrInvalid, text)
		}
	}
	if !from.Follow && from.Position != "" {
		return nil, fmt.Errorf("%w: Last-Event-ID is for a stream: ask with follow=true", ErrInvalid)
	}
	id, log, err := h.Service.Log(r.Context(), r.PathValue("app"), version, from)
	if err != nil {
		return nil, err
	}
	switch {
	case from.Follow:
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.streamLog(w, r, log) }), nil
	case strings.HasPrefix(r.Header.Get("Accept"), "text/plain"):
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.sendLog(w, r, log, id) }), nil
	}
	defer func() { _ = log.Close() }() // it was only read
	all := Logs{UniqueID: id, Lines: []string{}}
	for {
		line, err := log.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all.Lines = append(all.Lines, string(bytes.ToValidUTF8(bytes.TrimRight(line, "\r\n"), []byte("\uFFFD"))))
	}
}

// slowly is a response that a client has to take within longestPut, write by write, whatever its server allows for all of it.
type slowly struct {
	http.ResponseWriter
	flush *http.ResponseController
}

func slow(w http.ResponseWriter) slowly { return slowly{w, http.NewResponseController(w)} }

func (s slowly) Write(b []byte) (int, error) {
	if err := s.flush.SetWriteDeadline(time.Now().Add(longestPut)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return s.ResponseWriter.Write(b)
}

// done lets the connection have other answers.
func (s slowly) done() { _ = s.flush.SetWriteDeadline(time.Time{}) } // what has no deadlines has none to take back

// sendLog sends lines as they are, for a file.
func (h *Handler) sendLog(w http.ResponseWriter, r *http.Request, log Log, id string) {
	defer func() { _ = log.Close() }() // it was only read
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", id+".log"))
	out := slow(w)
	defer out.done()
	for {
		line, err := log.Next()
		if err == nil {
			_, err = out.Write(line)
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			h.Logger.Warn("log not sent", "path", r.URL.Path, "error", err)
			panic(http.ErrAbortHandler) // half of it must not look like all
		}
	}
}

// streamLog sends lines as events until the client goes, or the server ends. It holds one of them, and waits for the client: the job does not.
//
//	id: …            where the stream goes on for whoever sends it as Last-Event-ID
//	data: …          a line
//
//	event: lost      lines may be missing here
//	data: …
func (h *Handler) streamLog(w http.ResponseWriter, r *http.Request, log Log) {
	defer func() { _ = log.Close() }() // it was only read
	w.Header().Set("Content-Type", eventStream)
	out := slow(w)
	defer out.done()
	look, alive := time.NewTicker(lookAgain), time.NewTicker(keepAlive)
	defer look.Stop()
	defer alive.Stop()
	var said string // the position that the client has
	for {
		event, err := nextEvent(log, &said)
		switch {
		case errors.Is(err, io.EOF):
			if out.flush.Flush() != nil {
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-h.Ending:
				return
			case <-alive.C:
				event = []byte(": alive\n\n")
			case <-look.C:
			}
		case err != nil:
			h.Logger.Warn("log not streamed", "path", r.URL.Path, "error", err)
			return
		}
		if r.Context().Err() != nil {
			return
		}
		if len(event) > 0 {
			if _, err := out.Write(event); err != nil {
				return // the client has gone, or does not take it
			}
		}
	}
}

// nextEvent is the event of the next line. Where there is none the client has to know the position all the same: what it asks for next goes on there.
func nextEvent(log Log, said *string) ([]byte, error) {
	var event bytes.Buffer
	line, err := log.Next()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if log.Lost() {
		event.WriteString("event: lost\ndata: lines may be missing here: the log was begun anew since\n\n")
	}
	at, positionErr := log.Position()
	if positionErr != nil {
		return nil, positionErr
	}
	if at != *said {
		fmt.Fprintf(&event, "id: %s\n", at)
	}
	if err == nil {
		for part := range bytes.SplitSeq(bytes.ToValidUTF8(bytes.TrimRight(line, "\r\n"), []byte("\uFFFD")), []byte("\r")) {
			fmt.Fprintf(&event, "data: %s\n", part)
		}
	}
	if at != *said || err == nil {
		event.WriteByte('\n')
	}
	*said = at
	if event.Len() > 0 {
		err = nil
	}
	return event.Bytes(), err
}
