package index

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/duckdb/duckdb-go/v2"
	"github.com/zeebo/xxh3"
)

// action is what an op does to a document.
type action string

const (
	actionIndex  action = "index"  // put, whether it is there or not
	actionCreate action = "create" // put, unless it is there
	actionDelete action = "delete"
	actionUpdate action = "update" // merge a part into what is there
)

// versioning says what Version of an op means.
type versioning uint8

const (
	internal    versioning = iota // versions count up by one
	external                      // Version becomes the document's if it is higher than the one there
	externalGTE                   // … higher or equal
)

// op is one document write.
type op struct {
	action     action
	target     string // index or alias
	id         string
	source     []byte // the document, or for an update the part
	doc        value  // source, parsed
	versioning versioning
	version    int64
	ifSeqNo    *int64 // write only if the document's last write had this number
	upsert     *value // of an update: the document to put when there is none
	asUpsert   bool   // of an update: the part is that document
	alias      bool   // target must be an alias
	refused    *Error // found wrong when it was read; it then only takes its place among the results
}

// result is what became of an op.
type result struct {
	index   string
	id      string
	version int64
	seq     int64
	outcome string // created, updated, deleted, not_found, noop
	err     *Error
}

func (r result) status() int {
	switch {
	case r.err != nil:
		return r.err.Status
	case r.outcome == "created":
		return 201
	case r.outcome == "not_found":
		return 404
	}
	return 200
}

// docState is a document, or its tombstone, as a batch sees it.
type docState struct {
	row     int64 // rowid in the table; -1 when it is not there
	known   bool  // there is a version, of a document or a tombstone
	deleted bool
	version int64
	seq     int64
	source  string
	cells   cells
	dirty   bool
}

// target is one index in a batch.
type target struct {
	index   *index
	mapping *mapping // the index's, or a larger copy
	docs    map[string]*docState
	seq     int64
}

// grown reports that the batch needs more of the mapping than there is.
func (t *target) grown() bool { return t.mapping != t.index.mapping }

// apply does ops in order in one transaction. Refusals are results; an error means that nothing was done.
func (w *writer) apply(ctx context.Context, ops []*op) ([]result, error) {
	results := make([]result, len(ops))
	targets, err := w.route(ctx, ops, results)
	if err != nil {
		return nil, err
	}
	for {
		batch, grew, err := w.attempt(ctx, ops, targets, results)
		if err != nil {
			return nil, err
		}
		if !grew {
			w.count(results)
			for _, t := range batch {
				w.seqs[t.index.Number] = t.seq
			}
			return results, nil
		}
		// A table cannot be altered and written in one transaction. This happens once per new field.
		if err := w.grow(ctx, batch); err != nil {
			return nil, err
		}
		for name, x := range targets {
			if x != nil {
				targets[name] = w.s.catalog.indices[x.Name]
			}
		}
	}
}

// route finds the index of each op by its target's name, and makes those that are not there.
func (w *writer) route(ctx context.Context, ops []*op, results []result) (map[string]*index, error) {
	targets := map[string]*index{}
	for i, o := range ops {
		results[i] = result{index: o.target, id: o.id, err: o.refused}
		if o.refused != nil {
			continue
		}
		if o.alias && w.s.catalog.indices[o.target] != nil || o.alias && len(w.s.catalog.aliased(o.target)) == 0 {
			results[i].err = refuse(404, "index_not_found_exception", "no such index [%s] and [require_alias] request flag is [true] and [%s] is not an alias", o.target, o.target)
			o.refused = results[i].err
			continue
		}
		if _, ok := targets[o.target]; ok {
			continue
		}
		x, err := w.s.catalog.writable(o.target)
		if err == nil && x == nil {
			if o.action == actionDelete && o.versioning == internal || o.action == actionUpdate && o.upsert == nil && !o.asUpsert {
				err = notFound(o.target)
			} else {
				x, err = w.autoCreate(ctx, o.target)
			}
		}
		var refused *Error
		if errors.As(err, &refused) {
			results[i].err, o.refused = refused, refused
			continue
		}
		if err != nil {
			return nil, err
		}
		targets[o.target] = x
	}
	return targets, nil
}

func (w *writer) autoCreate(ctx context.Context, name string) (*index, error) {
	err := w.alter(ctx, func(ctx context.Context, tx *sql.Tx, c *catalog) (*catalog, error) {
		return w.create(ctx, tx, c, newIndex(name, w.s.config.Now()))
	})
	return w.s.catalog.indices[name], err
}

// attempt does ops against the mappings there are. When a mapping has to grow it changes nothing and says so.
func (w *writer) attempt(ctx context.Context, ops []*op, targets map[string]*index, results []result) (batch []*target, grew bool, err error) {
	tx, err := w.conn.BeginTx(ctx, nil)
	if err != nil {
		return nil, false, err
	}
	defer func() {
		if err != nil || grew {
			err = errors.Join(err, tx.Rollback())
		}
	}()
	byNumber := map[int]*target{}
	ids := map[*target][]*op{}
	for _, o := range ops {
		if o.refused != nil {
			continue
		}
		x := targets[o.target]
		t := byNumber[x.Number]
		if t == nil {
			t = &target{index: x, mapping: x.mapping, docs: map[string]*docState{}}
			byNumber[x.Number] = t
			batch = append(batch, t)
		}
		ids[t] = append(ids[t], o)
	}
	for _, t := range batch {
		if err := w.lookUp(ctx, tx, t, ids[t]); err != nil {
			return nil, false, fmt.Errorf("look up documents of index %s: %w", t.index.Name, err)
		}
	}
	for i, o := range ops {
		if o.refused == nil {
			results[i] = byNumber[targets[o.target].Number].decide(o)
		}
	}
	for _, t := range batch {
		if t.grown() {
			return batch, true, nil
		}
	}
	for _, t := range batch {
		if err := w.flush(ctx, tx, t); err != nil {
			return nil, false, fmt.Errorf("write documents to index %s: %w", t.index.Name, err)
		}
	}
	return batch, false, tx.Commit()
}

func (w *writer) grow(ctx context.Context, batch []*target) error {
	return w.alter(ctx, func(ctx context.Context, tx *sql.Tx, c *catalog) (*catalog, error) {
		for _, t := range batch {
			if !t.grown() {
				continue
			}
			if err := migrate(ctx, tx, t.index, t.mapping); err != nil {
				return nil, err
			}
			x := t.index.withMapping(t.mapping)
			if err := x.store(ctx, tx); err != nil {
				return nil, err
			}
			c = c.with(x)
		}
		return c, nil
	})
}

func hash(id string) int64 { return int64(xxh3.HashString(id)) }

// lookUp reads the versions of the documents that ops are about, and for updates the documents.
func (w *writer) lookUp(ctx context.Context, tx *sql.Tx, t *target, ops []*op) error {
	seq, ok := w.seqs[t.index.Number]
	if !ok {
		q := fmt.Sprintf("SELECT coalesce(max(seq) + 1, 0) FROM %s", t.index.table())
		if err := tx.QueryRowContext(ctx, q).Scan(&seq); err != nil {
			return err
		}
	}
	t.seq = seq
	ids, err := w.knownOf(ctx, tx, t.index)
	if err != nil {
		return err
	}
	var hashes []int64
	source := "NULL"
	for _, o := range ops {
		if _, ok := t.docs[o.id]; !ok {
			t.docs[o.id] = &docState{row: -1}
			if h := hash(o.id); ids.has(h) {
				hashes = append(hashes, h)
			}
		}
		if o.action == actionUpdate {
			source = "source"
		}
	}
	if len(hashes) == 0 {
		return nil
	}
	q := fmt.Sprintf("SELECT rowid, id, version, seq, deleted, %s FROM %s WHERE h IN (SELECT unnest($1::BIGINT[]))", source, t.index.table())
	rows, err := tx.QueryContext(ctx, q, hashes)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		d := docState{known: true}
		var id string
		var text sql.NullString
		if err := rows.Scan(&d.row, &id, &d.version, &d.seq, &d.deleted, &text); err != nil {
			return err
		}
		d.source = text.String
		if _, ok := t.docs[id]; ok { // else it shares another one's hash
			t.docs[id] = &d
		}
	}
	return rows.Err()
}

// knownOf is what is known of an index's ids.
func (w *writer) knownOf(ctx context.Context, tx *sql.Tx, x *index) (*known, error) {
	if k := w.known[x.Number]; k != nil {
		return k, nil
	}
	var n int
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM "+x.table()).Scan(&n); err != nil {
		return nil, err
	}
	k := newKnown(2 * n)
	rows, err := tx.QueryContext(ctx, "SELECT h FROM "+x.table())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var h int64
		if err := rows.Scan(&h); err != nil {
			return nil, err
		}
		k.add(h)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	w.known[x.Number] = k
	return k, nil
}

func conflict(index, id, format string, args ...any) *Error {
	e := refuse(409, "version_conflict_engine_exception", "[%s]: version conflict, %s", id, fmt.Sprintf(format, args...))
	e.Index = index
	return e
}

// decide does one op to the batch's view of its document.
func (t *target) decide(o *op) result {
	d := t.docs[o.id]
	r := result{index: t.index.Name, id: o.id}
	if r.err = t.check(o, d); r.err != nil {
		return r
	}
	exists := d.known && !d.deleted
	doc, source := &o.doc, o.source
	switch {
	case o.action == actionDelete:
		r.outcome = "not_found"
		if exists {
			r.outcome = "deleted"
		}
		next := docState{row: d.row, known: true, deleted: true, dirty: true}
		if !d.known && o.versioning == internal {
			r.version, r.seq = 1, t.seq // there never was one: nothing to remember
			return r
		}
		return t.put(o, d, next, r)
	case o.action == actionUpdate && exists:
		merged, err := mergeSource([]byte(d.source), &o.doc)
		if err != nil {
			r.err = asError(err)
			return r
		}
		if string(merged) == d.source {
			r.outcome, r.version, r.seq = "noop", d.version, d.seq
			return r
		}
		parsed, err := parseJSON(merged)
		if err != nil {
			r.err = asError(fmt.Errorf("document %s of index %s as merged: %w", o.id, t.index.Name, err))
			return r
		}
		doc, source = &parsed, merged
	case o.action == actionUpdate && o.upsert != nil:
		doc, source = o.upsert, o.upsert.raw
	case o.action == actionUpdate && !o.asUpsert:
		r.err = refuse(404, "document_missing_exception", "[%s]: document missing", o.id)
		r.err.Index = t.index.Name
		return r
	}
	cells, m, err := read(t.mapping, t.grown(), o.id, doc)
	t.mapping = m
	if err != nil {
		r.err = asError(err)
		return r
	}
	r.outcome = "created"
	if exists {
		r.outcome = "updated"
	}
	return t.put(o, d, docState{row: d.row, known: true, source: string(source), cells: cells, dirty: true}, r)
}

// put makes next the state of a document, with its version and sequence number.
func (t *target) put(o *op, d *docState, next docState, r result) result {
	next.version = d.version + 1
	if o.versioning != internal {
		next.version = o.version
	}
	next.seq = t.seq
	t.seq++
	*d = next
	r.version, r.seq = next.version, next.seq
	return r
}

// check refuses an op whose condition on the document's version does not hold.
func (t *target) check(o *op, d *docState) *Error {
	exists := d.known && !d.deleted
	switch {
	case o.action == actionCreate && exists:
		return conflict(t.index.Name, o.id, "document already exists (current version [%d])", d.version)
	case o.versioning == external && d.known && d.version >= o.version:
		return conflict(t.index.Name, o.id, "current version [%d] is higher or equal to the one provided [%d]", d.version, o.version)
	case o.versioning == externalGTE && d.known && d.version > o.version:
		return conflict(t.index.Name, o.id, "current version [%d] is higher than the one provided [%d]", d.version, o.version)
	case o.ifSeqNo != nil && !exists:
		return conflict(t.index.Name, o.id, "required seqNo [%d], primary term [1]. but no document was found", *o.ifSeqNo)
	case o.ifSeqNo != nil && d.seq != *o.ifSeqNo:
		return conflict(t.index.Name, o.id, "required seqNo [%d], primary term [1]. current document has seqNo [%d] and primary term [1]", *o.ifSeqNo, d.seq)
	}
	return nil
}

// flush replaces the rows of the documents that the batch changed.
func (w *writer) flush(ctx context.Context, tx *sql.Tx, t *target) error {
	var gone []int64
	var changed []string
	for id, d := range t.docs {
		if !d.dirty {
			continue
		}
		changed = append(changed, id)
		if d.row >= 0 {
			gone = append(gone, d.row)
		} else {
			w.known[t.index.Number].add(hash(id)) // before it is committed: it may be, though the answer is lost
		}
	}
	if len(changed) == 0 {
		return nil
	}
	// In the order they were written, so that same requests make same files and time columns compress.
	slices.SortFunc(changed, func(a, b string) int { return int(t.docs[a].seq - t.docs[b].seq) })
	if len(gone) > 0 {
		w.touch(t.index.Number, gone)
		q := fmt.Sprintf("DELETE FROM %s WHERE rowid IN (SELECT unnest($1::BIGINT[]))", t.index.table())
		if _, err := tx.ExecContext(ctx, q, gone); err != nil {
			return err
		}
	}
	columns := []string{"h", "id", "version", "seq", "deleted", "source"}
	fixed := len(columns)
	var fields []*field
	for _, f := range t.mapping.Fields {
		if f.Column >= 0 {
			fields = append(fields, f)
			columns = append(columns, f.column())
		}
	}
	return appender(w.conn, t.index.table(), columns, func(a *duckdb.Appender) error {
		row := make([]driver.Value, len(columns))
		for _, id := range changed {
			d := t.docs[id]
			row[0], row[1], row[2], row[3], row[4], row[5] = hash(id), id, d.version, d.seq, d.deleted, nil
			if !d.deleted {
				row[5] = d.source
			}
			for i, f := range fields {
				row[fixed+i] = nil
				if cell := d.cells.of(f); cell != nil {
					row[fixed+i] = f.store(cell)
				}
			}
			if err := a.AppendRow(row...); err != nil {
				return err
			}
		}
		return nil
	})
}

// store turns a cell into what the appender takes for the field's column.
func (f *field) store(cell any) any {
	if !f.Multi {
		return cell
	}
	list, ok := cell.([]any)
	if !ok {
		list = []any{cell}
	}
	switch storage(f.Type) {
	case "VARCHAR":
		s := typed[string](list)
		slices.Sort(s)
		return slices.Compact(s) // as Elasticsearch counts them: keywords are a set, numbers a bag
	case "DOUBLE":
		return typed[float64](list)
	case "BOOLEAN":
		return typed[bool](list)
	}
	return typed[int64](list)
}

func typed[T any](list []any) []T {
	out := make([]T, len(list))
	for i, v := range list {
		out[i] = v.(T)
	}
	return out
}

func (w *writer) count(results []result) {
	w.s.metrics.groups.Observe(float64(len(results)))
	counts := map[string]int{}
	for _, r := range results {
		switch {
		case r.err == nil:
			counts[r.outcome]++
		case r.err.Status == 409:
			counts["conflict"]++
		default:
			counts["refused"]++
		}
	}
	for outcome, n := range counts {
		w.s.metrics.documents.WithLabelValues(outcome).Add(float64(n))
	}
}

func newIndex(name string, now time.Time) *index {
	return &index{Name: name, UUID: newUUID(), Created: now.UnixMilli(), Settings: []byte("{}"), mapping: newMapping(), aliases: map[string]alias{}}
}
