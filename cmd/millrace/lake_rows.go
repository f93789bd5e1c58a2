package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"millrace/control/api"
	"millrace/delivery"
	"millrace/ingest"
	"millrace/lake"
	"millrace/record"
)

const (
	readers     = 2                               // who read rows at once: each holds a row group
	readersWait = time.Minute                     // for one of them
	rowsTime    = lake.DefaultKeepFor - sqlMargin // that rows may take: for that long their files are kept
	diffTime    = 5 * time.Minute                 // that a comparison may take, with the wait for the one before it
	diffMemory  = 64 << 20                        // bytes in which it sorts
)

// errRowsTime means that rows, or a comparison, took too long.
func errRowsTime(most time.Duration) error {
	return fmt.Errorf("%w: it took longer than %s: ask for less, or where the data directory is", api.ErrTooMuch, most)
}

// lakeTables lists the tables of a lake.
func lakeTables(ctx context.Context, l *lake.Lake) ([]api.LakeTable, error) {
	names, err := l.Tables(ctx)
	if err != nil {
		return nil, err
	}
	all := []api.LakeTable{}
	for _, n := range names {
		t, err := lakeTable(ctx, l, n)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

func lakeTable(ctx context.Context, l *lake.Lake, n lake.Name) (api.LakeTable, error) {
	out := api.LakeTable{Namespace: n.Namespace, Table: n.Table}
	t, err := l.Lookup(ctx, n)
	if err != nil {
		return out, err
	}
	if out.Rows, err = t.Count(ctx); err != nil {
		return out, err
	}
	files, err := t.Files(ctx)
	if err != nil {
		return out, err
	}
	for _, f := range files {
		out.Files++
		out.Bytes += f.Bytes
	}
	u, err := t.Upkeep(ctx)
	out.Snapshots, out.Compacted = u.Snapshots, u.Compacted
	return out, err
}

// rowsOf yields the rows that a query chooses, those of an account or of all. serving are the namespaces that readers see. Errors match api.ErrNotFound for what
// is not there, and api.ErrInvalid.
func rowsOf(ctx context.Context, l *lake.Lake, serving func(context.Context) ([]string, error), account string, q api.RowsQuery) (iter.Seq2[[]byte, error], error) {
	if q.Table == "" {
		tables, err := rawTablesOf(ctx, l, q.Kind)
		var all []iter.Seq2[[]byte, error]
		for _, t := range tables {
			all = append(all, scanRows(ctx, account, q.Limit, t))
		}
		return concat(all), err
	}
	tables, err := findTables(ctx, l, serving, q.Table)
	if err != nil {
		return nil, err
	}
	tables = slices.DeleteFunc(tables, func(t *lake.Table) bool { return account != "" && delivery.AccountColumn(t.Name(), t.Columns()) == "" })
	if len(tables) == 0 {
		return nil, fmt.Errorf("%w: table %q does not say whose its rows are", api.ErrNotFound, q.Table)
	}
	return scanRows(ctx, account, q.Limit, tables...), nil
}

// rawTablesOf are the tables of the raw lake that hold items of a kind, or of all.
func rawTablesOf(ctx context.Context, l *lake.Lake, kind string) (all []*lake.Table, err error) {
	names := rawTables
	if kind != "" {
		k, ok := record.ParseKind(kind)
		if !ok {
			return nil, fmt.Errorf("%w: kind %q: want event, entity or reject", api.ErrInvalid, kind)
		}
		names = names[k-record.Event : k-record.Event+1]
	}
	for _, name := range names {
		t, err := l.Lookup(ctx, lake.Name{Namespace: ingest.Namespace, Table: name})
		if errors.Is(err, lake.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// findTables finds a table by namespace.name, or by its name: if there are several, those of the data versions that serve. All apps have dead letters.
func findTables(ctx context.Context, l *lake.Lake, serving func(context.Context) ([]string, error), name string) (found []*lake.Table, err error) {
	names, err := l.Tables(ctx)
	if err != nil {
		return nil, err
	}
	meant := slices.DeleteFunc(slices.Clone(names), func(n lake.Name) bool { return n.String() != name && n.Table != name })
	if len(meant) == 0 {
		return nil, fmt.Errorf("%w: there is no table %q; the lake has %s", api.ErrNotFound, name, namesText(names))
	}
	if len(meant) > 1 {
		spaces, err := serving(ctx)
		if err != nil {
			return nil, err
		}
		several := meant
		if meant = slices.DeleteFunc(slices.Clone(meant), func(n lake.Name) bool { return !slices.Contains(spaces, n.Namespace) }); len(meant) == 0 {
			return nil, fmt.Errorf("%w: table %q is in several namespaces, of which none serves; name one: %s", api.ErrInvalid, name, namesText(several))
		}
	}
	for _, n := range meant {
		t, err := l.Lookup(ctx, n)
		if err != nil {
			return nil, err
		}
		found = append(found, t)
	}
	return found, nil
}

func namesText(names []lake.Name) string {
	var all []string
	for _, n := range names {
		all = append(all, n.String())
	}
	return strings.Join(all, ", ")
}

// scanRows yields rows of tables, one table after the other, each as a JSON object, and so many at most; 0 is all.
func scanRows(ctx context.Context, account string, limit int, tables ...*lake.Table) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		left := limit
		var line []byte
		for _, t := range tables {
			columns := t.Columns()
			opts := lake.ScanOptions{Limit: left}
			if account != "" {
				opts.Where = map[string]any{delivery.AccountColumn(t.Name(), columns): account}
			}
			for row, err := range t.Scan(ctx, opts) {
				if err == nil {
					line, err = appendRow(line[:0], columns, row)
				}
				if !yield(line, err) || err != nil {
					return
				}
				left--
			}
			if limit > 0 && left == 0 {
				return
			}
		}
	}
}

// concat yields what several yield, one after the other.
func concat(all []iter.Seq2[[]byte, error]) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, one := range all {
			for row, err := range one {
				if !yield(row, err) {
					return
				}
			}
		}
	}
}

// Tables implements api.Service.
func (s *stack) Tables(ctx context.Context) ([]api.LakeTable, error) { return lakeTables(ctx, s.lake) }

// Rows implements api.Service.
func (s *stack) Rows(ctx context.Context, account string, q api.RowsQuery) (rows iter.Seq2[[]byte, error], done func(), err error) {
	waiting, enough := context.WithTimeoutCause(ctx, readersWait, fmt.Errorf("%w: others read rows, and it was waited for %s: try again", api.ErrTooMuch, readersWait))
	defer enough()
	select {
	case s.reading <- struct{}{}:
	case <-waiting.Done():
		return nil, nil, context.Cause(waiting)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, rowsTime, errRowsTime(rowsTime))
	done = func() {
		cancel()
		<-s.reading
	}
	all, err := rowsOf(ctx, s.lake, s.servingNamespaces, account, q)
	if err != nil {
		done()
		return nil, nil, s.errOfRows(account, err)
	}
	return func(yield func([]byte, error) bool) {
		for row, err := range all {
			if err != nil && ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			if !yield(row, s.errOfRows(account, err)) {
				return
			}
		}
	}, done, nil
}

// errOfRows is what who asked for rows is told of an error.
func (s *stack) errOfRows(account string, err error) error {
	if errors.Is(err, api.ErrNotFound) || errors.Is(err, api.ErrInvalid) || errors.Is(err, api.ErrTooMuch) {
		return err
	}
	return s.errOfAccount(account, err)
}

// Compare implements api.Service. It compares one after the other.
func (s *stack) Compare(ctx context.Context, account string, q api.DiffQuery) (any, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, diffTime, errRowsTime(diffTime))
	defer cancel()
	select {
	case s.comparing <- struct{}{}:
		defer func() { <-s.comparing }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if account != "" && q.Account != "" && q.Account != account {
		return nil, fmt.Errorf("%w: account %s has no rows of account %q", api.ErrNotFound, account, q.Account)
	}
	if account != "" {
		q.Account = account
	}
	c, err := diffVersions(ctx, s.lake, func(ctx context.Context, other string) (string, error) { return servingBeside(ctx, s.cfg.dir, other) }, diffMemory, q)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, s.errOfRows(account, err)
	}
	return c, nil
}

// diffVersions compares two data versions. serving is which one serves of the app that has another one. Errors match api.ErrNotFound and api.ErrInvalid.
func diffVersions(ctx context.Context, l *lake.Lake, serving func(ctx context.Context, other string) (string, error), memory int, q api.DiffQuery) (c *delivery.Comparison, err error) {
	invalid := func(err error) error { return fmt.Errorf("%w: %w", api.ErrInvalid, err) }
	if q.A == "serving" {
		q.A, err = serving(ctx, q.B)
	}
	if err == nil && q.B == "serving" {
		q.B, err = serving(ctx, q.A)
	}
	none := notFoundError{}
	switch {
	case errors.As(err, &none):
		return nil, fmt.Errorf("%w: %w", api.ErrNotFound, err)
	case err != nil:
		return nil, err
	case q.A == q.B:
		return nil, invalid(fmt.Errorf("%s is compared with itself: name two data versions", q.A))
	}
	sel, err := selection(q.LakeQuery, "from", "to")
	if err != nil {
		return nil, invalid(err)
	}
	cfg := delivery.CompareConfig{
		Lake: l, A: q.A, B: q.B, Tables: q.Tables, Account: sel.Account, Env: sel.Env, From: sel.From, To: sel.To, Examples: q.Examples, Memory: memory,
	}
	if q.Examples == 0 {
		cfg.Examples = -1
	}
	c, err = delivery.Compare(ctx, cfg)
	if unknown := (*delivery.UnknownError)(nil); errors.As(err, &unknown) || errors.Is(err, delivery.ErrNoRows) {
		err = fmt.Errorf("%w: %w", api.ErrNotFound, err)
	}
	return c, err
}

// printLines prints rows, each a line.
func printLines(out io.Writer, rows iter.Seq2[[]byte, error]) error {
	for row, err := range rows {
		if err != nil {
			return err
		}
		if _, err := out.Write(append(row, '\n')); err != nil {
			return err
		}
	}
	return nil
}
