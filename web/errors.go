package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
)

// ErrNotFound is what Config's functions return, wrapped, for a thing that does not exist.
var ErrNotFound = errors.New("not found")

// ErrInvalid is what Config's functions return, wrapped, for a question that cannot be answered as it was put.
var ErrInvalid = errors.New("invalid request")

// errStopping answers a stream that is asked for while the server stops.
var errStopping = errors.New("the server is stopping")

// statusOf maps an error to the status of its answer, its title, and what a person can do.
func statusOf(err error) (status int, title, advice string) {
	switch {
	case errors.Is(err, ErrNotFound):
		return http.StatusNotFound, "Not found", "The address may be mistyped, or what it names was deleted."
	case errors.Is(err, ErrInvalid):
		return http.StatusBadRequest, "Not understood", "Correct the address."
	case errors.Is(err, errStopping):
		return http.StatusServiceUnavailable, "Stopping", "Load the page again when the server is back."
	}
	return http.StatusInternalServerError, "This page could not be made", "Load it again; when that does not help, look into the server's log."
}

// serveError answers err: a page for people, a problem document for programs. It is the only place that does.
func (s *Server) serveError(w http.ResponseWriter, r *http.Request, err error) {
	status, title, advice := statusOf(err)
	if status == http.StatusInternalServerError && r.Context().Err() == nil {
		s.cfg.Logger.Error("request failed", "path", r.URL.Path, "error", err)
	}
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		if werr := problem(w, status, err.Error()); werr != nil {
			s.cfg.Logger.Debug("answer not written", "path", r.URL.Path, "error", werr)
		}
		return
	}
	data := struct {
		layout
		Heading, Message, Advice string
	}{s.frame(r, title), title, err.Error(), advice}
	site, serr := s.site()
	var body []byte
	if serr == nil {
		body, serr = site.render("error", "page", data)
	}
	if serr != nil {
		s.cfg.Logger.Error("error page not rendered", "error", serr)
		http.Error(w, title+": "+err.Error(), status)
		return
	}
	writePage(w, status, body)
}

// problem writes a problem document (RFC 9457).
func problem(w http.ResponseWriter, status int, detail string) error {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(struct {
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{http.StatusText(status), status, detail})
}

func writePage(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(body) //nolint:errcheck // the reader has gone away; there is nobody to tell
}
