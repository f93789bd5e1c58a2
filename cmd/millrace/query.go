package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"millrace/control/api"
	"millrace/delivery"
)

const (
	queryRows   = 10_000      // that an answer has at most
	queryBytes  = 8 << 20     // of the values of an answer
	queryTime   = time.Minute // that a query may take, with the wait for the one before it
	queryMemory = 64 << 20    // bytes that a query may hold. There is one at a time: they are not in the share of any part of the process
	querySpill  = 1 << 30     // bytes of what does not fit there, on disk
)

// errQueryTime means that a query took too long.
var errQueryTime = fmt.Errorf("%w: the query took longer than %s: ask for less, or with 'millrace sql' where the data directory is", api.ErrTooMuch, queryTime)

// Query implements api.Service.
func (s *stack) Query(ctx context.Context, account, query string) (api.Rows, error) {
	rows, err := s.query(ctx, account, query)
	var fault *delivery.StatementError
	switch {
	case errors.As(err, &fault):
		err = fmt.Errorf("%w: %w", api.ErrInvalid, fault)
	case errors.Is(err, delivery.ErrTooLarge):
		err = fmt.Errorf("%w: %w", api.ErrTooMuch, err)
	case !errors.Is(err, api.ErrTooMuch):
		err = s.errOfAccount(account, err)
	}
	return rows, err
}

// query asks one after the other.
func (s *stack) query(ctx context.Context, account, query string) (rows api.Rows, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, queryTime, errQueryTime)
	defer cancel()
	select {
	case s.querying <- struct{}{}:
		defer func() { <-s.querying }()
	case <-ctx.Done():
		return rows, context.Cause(ctx)
	}
	q, err := delivery.NewSQL(delivery.SQLConfig{
		Lake: s.lake, Account: account, Rows: queryRows, Memory: queryMemory, Spill: querySpill,
		Serving: s.servingNamespaces,
	})
	if err != nil {
		return rows, err
	}
	a, err := q.Query(ctx, query)
	if err != nil {
		return rows, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	rows = api.Rows{Columns: a.Columns, Rows: [][]any{}, More: a.More}
	size := 0
	for row, err := range a.JSON(ctx) {
		if err != nil {
			return rows, err
		}
		values := make([]any, len(row))
		for i, cell := range row {
			size += len(cell)
			values[i] = cell
		}
		if size > queryBytes {
			rows.More = true
			break
		}
		rows.Rows = append(rows.Rows, values)
	}
	return rows, nil
}
