package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"millrace/control/access"
	"millrace/control/api"
	"millrace/delivery"
)

// sqlPath answers a SELECT: POST a sqlAsk, and a sqlAnswer comes back. Who is bound to an account asks the rows of that one.
const sqlPath = "/api/v1/sql"

const (
	mostSQL   = 64 << 10    // bytes of a request
	sqlRows   = 10_000      // that an answer has at most
	sqlBytes  = 8 << 20     // of the values of an answer
	sqlTime   = time.Minute // that a query may take, with the wait for the one before it
	sqlMemory = 64 << 20    // bytes that a query may hold. There is one at a time: they are not in the share of any part of the process
	sqlSpill  = 1 << 30     // bytes of what does not fit there, on disk
)

// sqlAsk is a query.
type sqlAsk struct {
	Query string `json:"query"` // one SELECT, as 'millrace sql' takes it
}

// sqlAnswer are the rows of a query.
type sqlAnswer struct {
	Columns []string            `json:"columns"`
	Rows    [][]json.RawMessage `json:"rows"`           // in the order of the columns; what JSON has no value for is a string
	More    bool                `json:"more,omitempty"` // there are more rows than an answer has
}

// serveSQL answers a query.
func (s *stack) serveSQL(w http.ResponseWriter, r *http.Request) {
	answer, err := s.querySQL(r)
	status, kind, body := http.StatusOK, "application/json", any(answer)
	if err != nil {
		var fault *delivery.StatementError
		switch {
		case errors.As(err, &fault), errors.Is(err, api.ErrInvalid):
			status = http.StatusBadRequest
		case errors.Is(err, delivery.ErrTooLarge), errors.Is(err, errSQLTime):
			status = http.StatusUnprocessableEntity
		default: // it may name files, whose paths name accounts
			s.cfg.logger.Error("request failed", "path", r.URL.Path, "error", err)
			status, err = http.StatusInternalServerError, errors.New("the query could not be carried out; the log says why")
		}
		kind, body = "application/problem+json", api.Problem{Title: http.StatusText(status), Status: status, Detail: err.Error()}
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Type", kind)
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		s.cfg.logger.Debug("answer not written", "path", r.URL.Path, "error", err)
	}
}

// errSQLTime means that a query took too long.
var errSQLTime = fmt.Errorf("the query took longer than %s: ask for less, or with 'millrace sql' where the data directory is", sqlTime)

func (s *stack) querySQL(r *http.Request) (answer sqlAnswer, err error) {
	var ask sqlAsk
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, mostSQL))
	d.DisallowUnknownFields()
	if err := d.Decode(&ask); err != nil {
		return answer, fmt.Errorf(`%w: the request's body: %w; want {"query": "SELECT …"}`, api.ErrInvalid, err)
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), sqlTime, errSQLTime)
	defer cancel()
	select {
	case s.querying <- struct{}{}:
		defer func() { <-s.querying }()
	case <-ctx.Done():
		return answer, context.Cause(ctx)
	}
	q, err := delivery.NewSQL(delivery.SQLConfig{
		Lake: s.lake, Account: access.From(r.Context()).Account, Rows: sqlRows, Memory: sqlMemory, Spill: sqlSpill,
		Serving: func(ctx context.Context, _ string) (string, error) { return s.servingNamespace(ctx) },
	})
	if err != nil {
		return answer, err
	}
	a, err := q.Query(ctx, ask.Query)
	if err != nil {
		return answer, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	size := 0
	answer = sqlAnswer{Columns: a.Columns, Rows: [][]json.RawMessage{}, More: a.More}
	for row, err := range a.JSON(ctx) {
		if err != nil {
			return answer, err
		}
		for _, cell := range row {
			size += len(cell)
		}
		if size > sqlBytes {
			answer.More = true
			break
		}
		answer.Rows = append(answer.Rows, row)
	}
	return answer, nil
}
