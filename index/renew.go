package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
)

// For every vector of rows of which one was ever deleted DuckDB holds who made and who deleted each row, in the memory that MemoryLimit
// bounds, until the database is closed: 16 bytes a row and more, also for rows that a checkpoint has written long ago. A document that is replaced
// is deleted and appended, so an index that is corrected all the time fills that memory, the next checkpoint finds none, and DuckDB gives the
// database up. Closed and opened again, it takes none of it, and the deleted rows are taken out of the file (vacuum). The writer does that when a quarter of the memory may be taken; and when the
// database was given up for whatever reason, since what was committed is in its file.

// vector is rows of a table that DuckDB treats as one.
type vector struct {
	index  int   // number
	number int64 // of the vector
}

const (
	vectorRows  = 2048
	vectorBytes = 96 << 10 // held of one with deleted rows: 35 to 105 KB were measured, of one row in ten to three in ten replaced
)

// touch notes that rows of an index are deleted.
func (w *writer) touch(index int, rows []int64) {
	for _, r := range rows {
		w.touched[vector{index, r / vectorRows}] = struct{}{}
	}
}

// worn reports whether too much memory may be held for deleted rows.
func (w *writer) worn() bool { return len(w.touched) > w.most }

// judge takes note of an error after which the database answers nothing any more. Who asked may ask again.
func (w *writer) judge(err error) error {
	// The error that a failed checkpoint gives is of another type than those that follow it. What they have in common is this.
	if err == nil || !strings.Contains(err.Error(), "has been invalidated") {
		return err
	}
	w.broken = true
	return fmt.Errorf("%w: %w", errRenewed, err)
}

// errRenewed answers a request during which the database was given up. It may have been done or not.
var errRenewed = refuse(503, "index_renewed_exception", "the index has to be opened again; repeat the request")

// renew closes the database and opens it again, once nobody reads. Those who begin to read meanwhile wait.
func (w *writer) renew() error {
	s := w.s
	s.dbMu.Lock()
	defer s.dbMu.Unlock()
	if !w.broken {
		_ = w.conn.Close() // what was written is committed
	}
	if err := s.db.Close(); err != nil {
		s.config.Logger.Warn("index closed to be opened again", "path", s.config.Path, "error", err)
	}
	why := "memory held for replaced documents"
	if w.broken {
		why = "it was given up"
	}
	w.broken = true
	if err := s.reopen(); err != nil {
		return errors.Join(errRenewed, err)
	}
	var err error
	if w.conn, err = s.db.Conn(context.Background()); err != nil {
		return errors.Join(errRenewed, err)
	}
	w.broken = false
	clear(w.touched)
	clear(w.seqs)
	s.metrics.renewals.Inc()
	s.config.Logger.Info("index opened again", "path", s.config.Path, "why", why)
	return nil
}

// reopen is open for a database whose catalog others may be looking at.
func (s *Server) reopen() error {
	s.catalogMu.Lock()
	defer s.catalogMu.Unlock()
	return s.open()
}

// Rewrite makes the file of a closed index anew, without what was deleted from it: in a file that is used, that stays in free parts until they
// are used again. Interrupted it leaves the file as it was, or anew.
func Rewrite(path string) (err error) {
	if err := checkFile(path); err != nil {
		return err
	}
	next := path + ".next"
	if err := os.RemoveAll(next); err != nil {
		return openError(path, err)
	}
	db, err := sql.Open("duckdb", "")
	if err != nil {
		return openError(path, err)
	}
	quoted := func(name string) string { return "'" + strings.ReplaceAll(name, "'", "''") + "'" }
	for _, q := range []string{
		"ATTACH " + quoted(path) + " AS old",
		"ATTACH " + quoted(next) + " AS new " + attachOptions,
		"COPY FROM DATABASE old TO new",
		"DETACH new",
		"DETACH old",
	} {
		if _, err = db.ExecContext(context.Background(), q); err != nil {
			break
		}
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return errors.Join(fmt.Errorf("make index %s anew: %w", path, err), os.RemoveAll(next))
	}
	return os.Rename(next, path)
}
