package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/zeebo/xxh3"

	"millrace/delivery"
	"millrace/etl"
	"millrace/internal/spill"
	"millrace/lake"
	"millrace/plan"
	"millrace/sink/elastic"
	"millrace/sink/topic"
)

func hashOf(b []byte) spill.Hash { return xxh3.Hash128(b).Bytes() }

// stored is a row as one of the targets has it, read by that target's own format. Values are those of lake.Row.
type stored struct {
	id   string
	row  map[string]any
	gone bool   // a topic says that the row was deleted
	from string // a topic says what made the message
	err  error  // why it is no row of ours
}

// rowsIn reads all rows of a table in a target.
type rowsIn func(context.Context, plan.Table) iter.Seq2[stored, error]

func (a *auditor) rowsInLake(ctx context.Context, t plan.Table) iter.Seq2[stored, error] {
	return func(yield func(stored, error) bool) {
		table, err := a.s.lake.Lookup(ctx, lake.Name{Namespace: a.etl.instance.Namespace(), Table: t.Name})
		if err != nil {
			yield(stored{}, err)
			return
		}
		for row, err := range table.Scan(ctx, lake.ScanOptions{Columns: columnNames(t)}) {
			if err != nil {
				yield(stored{}, err)
				return
			}
			if !yield(stored{id: row["_id"].(string), row: row}, nil) {
				return
			}
		}
	}
}

func (a *auditor) rowsInIndex(ctx context.Context, t plan.Table) iter.Seq2[stored, error] {
	return func(yield func(stored, error) bool) {
		for d, err := range a.s.index.Documents(ctx, elastic.VersionAlias(t.Name, a.etl.instance.Suffix()), elastic.RowID) {
			if errors.Is(err, delivery.ErrNotFound) {
				return // no row was published
			}
			if err != nil {
				yield(stored{}, err)
				return
			}
			row, err := elastic.ReadDocument(t, d.ID, d.Version, d.Source)
			if !yield(stored{id: d.ID, row: row, err: err}, nil) {
				return
			}
		}
	}
}

func (a *auditor) rowsInTopic(ctx context.Context, t plan.Table) iter.Seq2[stored, error] {
	return func(yield func(stored, error) bool) {
		for m, err := range topic.Read(ctx, a.s.log, a.etl.instance.Namespace(), t.Name) {
			if err != nil {
				yield(stored{}, err)
				return
			}
			if !yield(stored{id: m.ID, row: m.Row, gone: m.Deleted, from: m.From, err: m.Err}, nil) {
				return
			}
		}
	}
}

// rowHasher makes one hash of all that a row says and that is the same in every target. _app_version is not: it is the version of the
// process that published the row, and after an upgrade one target may get from the new version what another had from the old.
type rowHasher struct {
	columns []plan.Column
	cells   []plan.Cell
	bytes   []byte
}

func newRowHasher(t plan.Table) *rowHasher {
	h := &rowHasher{columns: slices.Concat(t.Schema.Columns, plan.MetaColumns)}
	h.columns = slices.DeleteFunc(h.columns, func(c plan.Column) bool { return c.Name == "_app_version" })
	for i := range h.columns {
		h.columns[i].Nullable = true // a row of before the column was
	}
	h.cells = make([]plan.Cell, len(h.columns))
	return h
}

// hash returns zero for a row that is gone, and of what is no row of ours a hash that no row has.
func (h *rowHasher) hash(r stored) (spill.Hash, error) {
	switch {
	case r.gone:
		return spill.Hash{}, nil
	case r.err != nil:
		return hashOf([]byte("no row: " + r.err.Error())), nil
	}
	for i, c := range h.columns {
		h.cells[i] = lake.CellOf(r.row[c.Name])
	}
	var err error
	h.bytes, err = plan.Schema{Columns: h.columns}.Append(h.bytes[:0], h.cells)
	return hashOf(h.bytes), err
}

// differing are the names of the columns in which two rows differ.
func (h *rowHasher) differing(x, y map[string]any) (names []string) {
	for i, c := range h.columns {
		s := plan.Schema{Columns: h.columns[i : i+1]}
		in, errIn := s.Append(nil, []plan.Cell{lake.CellOf(x[c.Name])})
		other, errOther := s.Append(nil, []plan.Cell{lake.CellOf(y[c.Name])})
		if errIn != nil || errOther != nil || !bytes.Equal(in, other) {
			names = append(names, c.Name)
		}
	}
	return names
}

// gather hashes all rows of a table in a target, and calls each with them.
func gather(ctx context.Context, set *spill.Set, t plan.Table, in rowsIn, each func(stored) error) error {
	h := newRowHasher(t)
	for r, err := range in(ctx, t) {
		if err != nil {
			return err
		}
		value, err := h.hash(r)
		if err != nil {
			return err
		}
		if err := errors.Join(set.Add(hashOf([]byte(r.id)), value), each(r)); err != nil {
			return err
		}
	}
	return nil
}

// table checks that the rows of a table are the same in lake, index and topic. It returns how many the lake has, and how many it has
// refused and has no revision of. A row that is there twice counts as one, and makes a check fail.
func (a *auditor) table(ctx context.Context, t plan.Table) (rows, lost int64, err error) {
	inLake, inIndex, inTopic, told := a.set(), a.set(), a.set(), a.set()
	defer func() { err = errors.Join(err, inLake.Close(), inIndex.Close(), inTopic.Close(), told.Close()) }()
	each := ignore
	if t.Name == etl.DeadLetterTable {
		each = a.letter
	}
	if err := gather(ctx, inLake, t, a.rowsInLake, each); err != nil {
		return 0, 0, err
	}
	refused := a.refusals(t.Name)
	all := int64(0)
	for g, err := range spill.Join(inLake, refused) {
		if err != nil {
			return 0, 0, err
		}
		all += int64(len(g.Values[0]))
		switch {
		case len(g.Values[0]) > 0:
			rows++
		case slices.Contains(g.Values[1], hashOf([]byte("iceberg"))):
			lost++
		}
	}
	a.l.equal(t.Name+": rows of the lake, each once", rows, all)

	err = gather(ctx, inIndex, t, a.rowsInIndex, ignore)
	if err == nil {
		err = a.same(ctx, t, inLake, target{"index", "elastic", a.rowsInIndex, inIndex})
	} else if errors.Is(err, delivery.ErrForeign) {
		a.l.Checks = append(a.l.Checks, ledgerCheck{Name: t.Name + sameRows + "index", Want: rows, Detail: err.Error()})
		err = nil
	}
	if err != nil || !a.s.cfg.dir.head.TableTopics {
		return rows, lost, err
	}
	err = gather(ctx, inTopic, t, a.rowsInTopic, func(r stored) error {
		return told.Add(hashOf([]byte(r.id+" "+r.from)), spill.Hash{})
	})
	if err != nil {
		return rows, lost, err
	}
	repeated := int64(0)
	for g, err := range spill.Join(told) {
		if err != nil {
			return rows, lost, err
		}
		repeated += int64(len(g.Values[0]) - 1)
	}
	a.l.equal(t.Name+": messages of the table topic that are there twice", 0, repeated)
	return rows, lost, a.same(ctx, t, inLake, target{"table topic", "topic", a.rowsInTopic, inTopic})
}

func ignore(stored) error { return nil }

// letter takes note of a dead letter: of a record that became no row, or of a row that a sink has refused.
func (a *auditor) letter(r stored) error {
	table, stage := r.row["table_name"].(string), r.row["stage"].(string)
	sink, ok := strings.CutPrefix(stage, "sink/")
	if !ok {
		a.letters[table]++
		return nil
	}
	return a.refusals(table).Add(hashOf([]byte(strings.TrimSuffix(r.id, "-"+sink))), hashOf([]byte(sink)))
}

func (a *auditor) refusals(table string) *spill.Set {
	if a.refused[table] == nil {
		a.refused[table] = a.set()
	}
	return a.refused[table]
}

// target is where the lake's rows should be too.
type target struct {
	name, sink string
	rows       rowsIn
	set        *spill.Set
}

// sameRows is between the names of a table and of what the lake is compared with.
const sameRows = ": rows that are the same in lake and "

// namedRows is how many rows a check names.
const namedRows = 3

// same checks that a target holds the rows that the lake holds, with the same values, but for those of which a dead letter says that one
// of the two has refused them: it may have none of their revisions, or an older one. Of several messages of a topic the last one counts.
func (a *auditor) same(ctx context.Context, t plan.Table, inLake *spill.Set, other target) error {
	c := ledgerCheck{Name: t.Name + sameRows + other.name}
	differ := map[spill.Hash]*pair{}
	refusing := []spill.Hash{hashOf([]byte("iceberg")), hashOf([]byte(other.sink))}
	for g, err := range spill.Join(inLake, other.set, a.refusals(t.Name)) {
		if err != nil {
			return err
		}
		in, there := last(g.Values[0]), last(g.Values[1])
		excused := slices.ContainsFunc(g.Values[2], func(sink spill.Hash) bool { return slices.Contains(refusing, sink) })
		if excused || in == there && in == (spill.Hash{}) {
			continue
		}
		c.Want++
		if in == there {
			c.Got++
		} else if len(differ) < namedRows {
			differ[g.Key] = &pair{}
		}
	}
	c.OK = c.Want == c.Got
	if !c.OK {
		if err := a.find(ctx, t, differ, other.rows); err != nil {
			return err
		}
		c.Detail = describePairs(newRowHasher(t), differ, other.name)
	}
	a.l.Checks = append(a.l.Checks, c)
	return nil
}

func last(values []spill.Hash) spill.Hash {
	if len(values) == 0 {
		return spill.Hash{}
	}
	return values[len(values)-1]
}

// pair is a row in the lake and elsewhere; nil where it is not.
type pair struct{ inLake, other *stored }

// find reads the rows of some ids again.
func (a *auditor) find(ctx context.Context, t plan.Table, differ map[spill.Hash]*pair, other rowsIn) error {
	for r, err := range a.rowsInLake(ctx, t) {
		if err != nil {
			return err
		}
		if p := differ[hashOf([]byte(r.id))]; p != nil {
			p.inLake = &r
		}
	}
	for r, err := range other(ctx, t) {
		if err != nil {
			return err
		}
		if p := differ[hashOf([]byte(r.id))]; p != nil {
			if p.other = &r; r.gone {
				p.other = nil
			}
		}
	}
	return nil
}

// describePairs says of each row where it is and in what it differs, in order of ids. Values are not shown: they are people's.
func describePairs(h *rowHasher, differ map[spill.Hash]*pair, other string) string {
	var parts []string
	for _, p := range differ {
		switch {
		case p.inLake == nil && p.other == nil:
			continue // it has gone meanwhile
		case p.inLake == nil:
			parts = append(parts, p.other.id+" is not in the lake")
		case p.other == nil:
			parts = append(parts, p.inLake.id+" is not in the "+other)
		case p.other.err != nil:
			parts = append(parts, fmt.Sprintf("%s is no row in the %s: %s", p.other.id, other, p.other.err))
		default:
			parts = append(parts, p.inLake.id+" differs in "+strings.Join(h.differing(p.inLake.row, p.other.row), ", "))
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}
