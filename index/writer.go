package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
)

// writer is the only one that changes the database: one goroutine that takes requests from a queue. Document writes that wait
// together are done in one transaction, so that many small requests share one sync of the disk.
type writer struct {
	s      *Server
	conn   *sql.Conn
	queue  chan *task
	quit   chan struct{} // closed by stop
	done   chan struct{} // closed when run has returned
	once   sync.Once
	number int           // of the newest index
	seqs   map[int]int64 // next _seq_no by index number; absent until first needed
	known  map[int]*known

	touched map[vector]struct{} // since the database was opened, see renew
	most    int                 // of them before the database is opened again
	broken  bool                // it was invalidated, or could not be opened again
}

// task is one request to write: documents, or a change of the catalog.
type task struct {
	ctx     context.Context
	ops     []*op
	change  func(ctx context.Context, tx *sql.Tx, c *catalog) (*catalog, error)
	results []result
	err     error
	done    chan struct{}
}

// maxGroup is how many document writes share a transaction at most.
const maxGroup = 10_000

var errClosed = refuse(503, "node_closed_exception", "the index is shutting down")

func startWriter(s *Server) (*writer, error) {
	ctx := context.Background()
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{
		s: s, conn: conn, seqs: map[int]int64{}, known: map[int]*known{}, touched: map[vector]struct{}{}, most: int(s.config.MemoryLimit / 4 / vectorBytes),
		queue: make(chan *task, 64), quit: make(chan struct{}), done: make(chan struct{}),
	}
	for _, x := range s.catalog.indices {
		w.number = max(w.number, x.Number)
	}
	go w.run()
	return w, nil
}

func (w *writer) stop() {
	w.once.Do(func() { close(w.quit) })
	<-w.done
}

// do queues t and waits until it is committed or refused. A request that ends while it is queued is not begun.
func (w *writer) do(ctx context.Context, t *task) error {
	t.ctx, t.done = ctx, make(chan struct{})
	select {
	case w.queue <- t:
	case <-ctx.Done():
		return ctx.Err()
	case <-w.done:
		return errClosed
	}
	select {
	case <-t.done:
		return t.err
	case <-w.done:
	}
	select {
	case <-t.done: // it was the last
		return t.err
	default:
		return errClosed
	}
}

// write does the operations in order and returns one result for each.
func (w *writer) write(ctx context.Context, ops []*op) ([]result, error) {
	t := &task{ops: ops}
	err := w.do(ctx, t)
	return t.results, err
}

// change replaces the catalog by what f makes of it, in one transaction with the statements f executes.
func (w *writer) change(ctx context.Context, f func(ctx context.Context, tx *sql.Tx, c *catalog) (*catalog, error)) error {
	return w.do(ctx, &task{change: f})
}

func (w *writer) run() {
	defer close(w.done)
	defer func() {
		if !w.broken {
			_ = w.conn.Close() // what was written is committed
		}
	}()
	var held *task // taken from the queue, but not part of the last group
	for {
		t := held
		held = nil
		if t == nil {
			select {
			case <-w.quit:
				return
			case t = <-w.queue:
			}
		}
		group := []*task{t}
		for n := len(t.ops); t.change == nil && held == nil && n < maxGroup; {
			select {
			case next := <-w.queue:
				if next.change != nil {
					held = next
				} else {
					group = append(group, next)
					n += len(next.ops)
				}
				continue
			default:
			}
			break
		}
		w.perform(group)
	}
}

// perform does a group of tasks: one change, or several writes.
func (w *writer) perform(group []*task) {
	var live []*task
	for _, t := range group {
		if t.err = t.ctx.Err(); t.err != nil {
			close(t.done)
			continue
		}
		live = append(live, t)
	}
	if len(live) == 0 {
		return
	}
	if w.broken || w.worn() {
		if err := w.renew(); err != nil {
			for _, t := range live {
				t.err = err
				close(t.done)
			}
			return
		}
	}
	// Once begun it is finished: others may share the transaction, and the outcome must be one of the two.
	ctx := context.WithoutCancel(live[0].ctx)
	if live[0].change != nil {
		live[0].err = w.judge(w.alter(ctx, live[0].change))
		close(live[0].done)
		return
	}
	var ops []*op
	for _, t := range live {
		ops = append(ops, t.ops...)
	}
	results, err := w.apply(ctx, ops)
	if err = w.judge(err); err != nil {
		w.s.config.Logger.Error("write to index", "documents", len(ops), "error", err)
	}
	for _, t := range live {
		if t.err = err; err == nil {
			t.results, results = results[:len(t.ops)], results[len(t.ops):]
		}
		close(t.done)
	}
}

// alter changes the catalog, and tables with it.
func (w *writer) alter(ctx context.Context, f func(ctx context.Context, tx *sql.Tx, c *catalog) (*catalog, error)) error {
	tx, err := w.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	next, err := f(ctx, tx, w.s.catalog) // only this goroutine replaces it
	if err != nil || next == w.s.catalog {
		return errors.Join(err, tx.Rollback())
	}
	w.s.catalogMu.Lock()
	defer w.s.catalogMu.Unlock()
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit a change of the catalog: %w", err)
	}
	w.s.catalog = next
	return nil
}

// migrate brings the table of x from its mapping to m.
func migrate(ctx context.Context, tx *sql.Tx, x *index, m *mapping) error {
	var statements []string
	for _, f := range m.sorted() {
		if f.Column < 0 {
			continue
		}
		old, ok := x.mapping.Fields[f.Path]
		if ok && f.Multi && !old.Multi {
			statements = rebuild(x, m)
			break
		}
		if !ok {
			statements = append(statements, fmt.Sprintf("ALTER TABLE %s ADD COLUMN %s %s", x.table(), f.column(), f.sqlType()))
		}
	}
	for _, q := range statements {
		if _, err := tx.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("change the table of index %s: %w", x.Name, err)
		}
	}
	return nil
}

// rebuild copies the table of x into one of mapping m, in which columns of values have become columns of lists. ALTER COLUMN … TYPE …
// USING would be one statement, but DuckDB's log keeps its expression and cannot evaluate it when it replays the log after a crash.
func rebuild(x *index, m *mapping) []string {
	columns, values := "", ""
	for _, f := range m.sorted() {
		if f.Column < 0 {
			continue
		}
		columns += fmt.Sprintf(", %s %s", f.column(), f.sqlType())
		old, ok := x.mapping.Fields[f.Path]
		switch {
		case !ok:
			values += ", NULL"
		case f.Multi && !old.Multi:
			values += fmt.Sprintf(", CASE WHEN %s IS NULL THEN NULL ELSE [%[1]s] END", f.column())
		default:
			values += ", " + f.column()
		}
	}
	table, old := x.table(), x.table()+"_old"
	return []string{
		fmt.Sprintf("ALTER TABLE %s RENAME TO %s", table, old),
		fmt.Sprintf(documents, table, columns),
		fmt.Sprintf("INSERT INTO %s SELECT h, id, version, seq, deleted, source%s FROM %s", table, values, old),
		fmt.Sprintf("DROP TABLE %s", old),
	}
}

// create makes the table and the catalog row of a new index.
func (w *writer) create(ctx context.Context, tx *sql.Tx, c *catalog, x *index) (*catalog, error) {
	w.number++
	x.Number = w.number
	columns := ""
	for _, f := range x.mapping.sorted() {
		if f.Column >= 0 {
			columns += fmt.Sprintf(", %s %s", f.column(), f.sqlType())
		}
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf(documents, x.table(), columns)); err != nil {
		return nil, fmt.Errorf("make the table of index %s: %w", x.Name, err)
	}
	if err := x.store(ctx, tx); err != nil {
		return nil, fmt.Errorf("store index %s: %w", x.Name, err)
	}
	return c.with(x), nil
}
