package delivery

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace/internal/spill"
	"millrace/lake"
	"millrace/plan"
)

// notCompared are the columns that say how a row was made, not what it says. Its evidence is compared by itself.
var notCompared = []string{"_id", "_rev", "_epoch", "_lineage", "_app_version", "_sources"}

// noTime is the event time of a row that has none.
const noTime = math.MinInt64

// tableReader compares a table. What a version has is at 0 for A, at 1 for B.
//
// Rows are sorted by id, each side by itself, and then met. A sorted row has what is needed and nothing else:
//
//	event time  int64, little-endian
//	values      length as uvarint, then Avro of the columns that both versions have with one type
//	retyped     length as uvarint, then Avro of those that they have with different types
//	evidence    Avro of _sources
type tableReader struct {
	cfg       CompareConfig
	names     [2]lake.Name // zero where there is no such table
	tables    [2]*lake.Table
	snapshots [2]int64
	records   [2]*spill.Records

	shared  plan.Schema
	retyped [2]plan.Schema // of the same names

	out     *TableComparison
	columns map[string]*ColumnComparison
	days    map[int64]*DayComparison // by days since 1970
	shown   map[string]int           // examples by kind, and of those that differ by column
}

var evidence = plan.Schema{Name: "evidence", Columns: []plan.Column{{Name: "_sources", Type: plan.Strings, Nullable: true}}}

func (t *tableReader) compare(ctx context.Context) (out *TableComparison, err error) {
	t.out = &TableComparison{Columns: []ColumnComparison{}, Days: []DayComparison{}, Examples: []Example{}}
	t.days, t.shown = map[int64]*DayComparison{}, map[string]int{}
	var columns [2][]lake.SnapshotColumn
	for i, name := range t.names {
		if name == (lake.Name{}) {
			t.out.OnlyIn = []string{t.cfg.B, t.cfg.A}[i]
			continue
		}
		t.out.Table = name.Table
		if t.tables[i], err = t.cfg.Lake.Lookup(ctx, name); err != nil {
			return nil, err
		}
		s, err := t.tables[i].Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(s.Columns, func(c lake.SnapshotColumn) bool { return c.Name == "_id" }) {
			return nil, fmt.Errorf("table %s has no column _id, by which rows are compared", name)
		}
		t.snapshots[i], columns[i] = s.ID, s.Columns
	}
	t.out.SnapshotA, t.out.SnapshotB = snapshotName(t.snapshots[0]), snapshotName(t.snapshots[1])
	t.layOut(columns)
	defer func() {
		for _, r := range t.records {
			err = errors.Join(err, r.Close())
		}
	}()
	group, within := errgroup.WithContext(ctx)
	for i := range t.records {
		t.records[i] = spill.NewRecords(t.cfg.Temp, t.cfg.Memory/2)
		group.Go(func() error { return t.gather(within, i) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := t.meet(ctx); err != nil {
		return nil, err
	}
	return t.finish(columns), nil
}

func snapshotName(id int64) string {
	if id == 0 {
		return ""
	}
	return strconv.FormatInt(id, 10)
}

// layOut decides which columns are compared, and how.
func (t *tableReader) layOut(columns [2][]lake.SnapshotColumn) {
	if t.out.OnlyIn != "" { // its rows are compared with none
		columns[0] = slices.Concat(columns[0], columns[1])
		columns[1] = columns[0]
	}
	t.columns = map[string]*ColumnComparison{}
	for _, a := range columns[0] {
		i := slices.IndexFunc(columns[1], func(b lake.SnapshotColumn) bool { return b.Name == a.Name })
		if i < 0 || slices.Contains(notCompared, a.Name) {
			continue
		}
		b := columns[1][i]
		ca := plan.Column{Name: a.Name, Type: a.Type, Nullable: true} // a row of before the column was
		cb := plan.Column{Name: b.Name, Type: b.Type, Nullable: true}
		if ca == cb {
			t.shared.Columns = append(t.shared.Columns, ca)
		} else {
			t.retyped[0].Columns = append(t.retyped[0].Columns, ca)
			t.retyped[1].Columns = append(t.retyped[1].Columns, cb)
		}
		t.columns[a.Name] = &ColumnComparison{Column: a.Name, TypeA: a.Type.String(), TypeB: b.Type.String()}
	}
}

// gather sorts the rows of a version.
func (t *tableReader) gather(ctx context.Context, side int) error {
	if t.snapshots[side] == 0 {
		return nil // no such table, or nothing in it
	}
	opts := lake.ScanOptions{Columns: []string{"_id", "_sources"}, Snapshot: t.snapshots[side], Where: map[string]any{}}
	for _, c := range slices.Concat(t.shared.Columns, t.retyped[side].Columns) {
		opts.Columns = append(opts.Columns, c.Name)
	}
	// Rows are not chosen by time here: one that has moved out of the range would look like one that is in the other version alone.
	for column, value := range map[string]string{"account_id": t.cfg.Account, "env_id": t.cfg.Env} {
		if value != "" {
			opts.Where[column] = value
		}
	}
	var key, value, part []byte
	var cells []plan.Cell
	add := func(s plan.Schema, row lake.Row, sized bool) (err error) {
		cells = cells[:0]
		for _, c := range s.Columns {
			cells = append(cells, lake.CellOf(row[c.Name]))
		}
		if part, err = s.Append(part[:0], cells); err != nil {
			return err
		}
		if sized {
			value = binary.AppendUvarint(value, uint64(len(part)))
		}
		value = append(value, part...)
		return nil
	}
	for row, err := range t.tables[side].Scan(ctx, opts) {
		if errors.Is(err, lake.ErrExpired) {
			return fmt.Errorf("%w while it was read: try again, or stop the process that uses the lake", err)
		}
		if err != nil {
			return err
		}
		id, ok := row["_id"].(string)
		if !ok {
			return fmt.Errorf("table %s has a row without _id: run 'millrace check'", t.names[side])
		}
		at := int64(noTime)
		if when, ok := row["_event_time"].(time.Time); ok {
			at = when.UnixMicro()
		}
		value = binary.LittleEndian.AppendUint64(value[:0], uint64(at)) //nolint:gosec // read as it was written
		if err := errors.Join(add(t.shared, row, true), add(t.retyped[side], row, true), add(evidence, row, false)); err != nil {
			return err
		}
		key = append(key[:0], id...)
		if err := t.records[side].Add(key, value); err != nil {
			return err
		}
	}
	return nil
}

// sortedRow is a row of a version as tableReader says.
type sortedRow struct {
	id, values, retyped, evidence []byte
	at                            int64
}

func parseSorted(r spill.Record) sortedRow {
	out := sortedRow{id: r.Key, at: int64(binary.LittleEndian.Uint64(r.Value))} //nolint:gosec // written so
	rest := r.Value[8:]
	for _, part := range []*[]byte{&out.values, &out.retyped} {
		n, size := binary.Uvarint(rest)
		*part, rest = rest[size:][:n], rest[size:][n:]
	}
	out.evidence = rest
	return out
}

// cursor is at a row of a version, or behind the last one when it has no more.
type cursor struct {
	row  sortedRow
	more bool
	last []byte // id of the row before
	next func() (spill.Record, error, bool)
}

func (c *cursor) advance(of lake.Name) error {
	first := !c.more
	c.last = append(c.last[:0], c.row.id...)
	r, err, more := c.next()
	if c.more = more && err == nil; !c.more {
		return err
	}
	if c.row = parseSorted(r); !first && bytes.Equal(c.row.id, c.last) {
		return fmt.Errorf("table %s has row %s twice: run 'millrace check'", of, c.last)
	}
	return nil
}

// meet compares the sorted rows of both versions.
func (t *tableReader) meet(ctx context.Context) error {
	var cursors [2]cursor
	for i := range cursors {
		next, stop := iter.Pull2(t.records[i].Sorted())
		defer stop()
		cursors[i].next = next
		if err := cursors[i].advance(t.names[i]); err != nil {
			return err
		}
	}
	a, b := &cursors[0], &cursors[1]
	for n := 0; a.more || b.more; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var rows [2]*sortedRow
		order := bytes.Compare(a.row.id, b.row.id)
		if a.more && (!b.more || order <= 0) {
			rows[0] = &a.row
		}
		if b.more && (!a.more || order >= 0) {
			rows[1] = &b.row
		}
		if err := t.pair(rows); err != nil {
			return fmt.Errorf("read what was sorted on disk: %w", err)
		}
		for i := range rows {
			if rows[i] == nil {
				continue
			}
			if err := cursors[i].advance(t.names[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// pair compares the rows of an id, of which one may be nil.
func (t *tableReader) pair(rows [2]*sortedRow) error {
	if !slices.ContainsFunc(rows[:], t.wanted) {
		return nil
	}
	a, b := rows[0], rows[1]
	kind, differing, err := t.kind(a, b)
	if err != nil {
		return err
	}
	var dayA, dayB *DayComparison
	if a != nil {
		dayA = t.day(a.at)
		dayA.RowsA++
		t.out.RowsA++
	}
	if b != nil {
		dayB = t.day(b.at)
		dayB.RowsB++
		t.out.RowsB++
	}
	if a != nil && b != nil && dayA != dayB {
		dayA.MovedAway++
		dayB.MovedHere++
	}
	for _, counts := range []*RowCounts{&t.out.RowCounts, &cmp.Or(dayA, dayB).RowCounts} {
		switch kind {
		case OnlyInA:
			counts.OnlyA++
		case OnlyInB:
			counts.OnlyB++
		case Differs:
			counts.Differ++
		case OtherEvidence:
			counts.OtherEvidence++
		default:
			counts.Same++
		}
	}
	for _, v := range differing {
		t.columns[v.Column].Differ++
	}
	return t.example(kind, a, b, differing)
}

// wanted is whether a row is in the range.
func (t *tableReader) wanted(r *sortedRow) bool {
	if r == nil {
		return false
	}
	from, to := t.cfg.From, t.cfg.To
	return (from.IsZero() || r.at >= from.UnixMicro()) && (to.IsZero() || r.at < to.UnixMicro() && r.at != noTime)
}

// kind says what became of a row, "" when it is the same, and in which columns it differs.
func (t *tableReader) kind(a, b *sortedRow) (kind string, differing []Values, err error) {
	switch {
	case b == nil:
		return OnlyInA, nil, nil
	case a == nil:
		return OnlyInB, nil, nil
	}
	if !bytes.Equal(a.values, b.values) || len(t.retyped[0].Columns) > 0 {
		if differing, err = t.differing(a, b); err != nil || len(differing) > 0 {
			return Differs, differing, err
		}
	}
	if !bytes.Equal(a.evidence, b.evidence) {
		return OtherEvidence, nil, nil
	}
	return "", nil, nil
}

// differing are the columns in which two rows differ, with both values.
func (t *tableReader) differing(a, b *sortedRow) (out []Values, err error) {
	for _, part := range []struct {
		schemas [2]plan.Schema
		a, b    []byte
	}{{[2]plan.Schema{t.shared, t.shared}, a.values, b.values}, {t.retyped, a.retyped, b.retyped}} {
		cellsA, err := decoded(part.schemas[0], part.a)
		if err != nil {
			return nil, err
		}
		cellsB, err := decoded(part.schemas[1], part.b)
		if err != nil {
			return nil, err
		}
		for i := range cellsA {
			columnA, columnB := part.schemas[0].Columns[i], part.schemas[1].Columns[i]
			if !sameValue(columnA.Type, &cellsA[i], columnB.Type, &cellsB[i]) {
				out = append(out, Values{columnA.Name, shownValue(columnA.Type, &cellsA[i]), shownValue(columnB.Type, &cellsB[i])})
			}
		}
	}
	return out, nil
}

func decoded(s plan.Schema, b []byte) ([]plan.Cell, error) {
	cells := make([]plan.Cell, len(s.Columns))
	return cells, s.Decode(b, cells)
}

// day is the day of an instant.
func (t *tableReader) day(at int64) *DayComparison {
	number := at / microsPerDay
	if at%microsPerDay < 0 {
		number--
	}
	if at == noTime {
		number = noTime
	}
	d := t.days[number]
	if d == nil {
		d = &DayComparison{Day: dayName(at)}
		t.days[number] = d
	}
	return d
}

const microsPerDay = int64(24 * time.Hour / time.Microsecond)

func dayName(at int64) string {
	if at == noTime {
		return "no event time"
	}
	return time.UnixMicro(at).UTC().Format(time.DateOnly)
}

// finish puts the result into order.
func (t *tableReader) finish(columns [2][]lake.SnapshotColumn) *TableComparison {
	out := t.out
	out.Same = out.OnlyIn == "" && out.sound()
	for side, all := range columns {
		for _, c := range all {
			known := t.columns[c.Name]
			switch {
			case slices.Contains(notCompared, c.Name):
				continue
			case out.OnlyIn != "":
				continue
			case known == nil:
				var types [2]string
				types[side] = c.Type.String()
				out.Columns = append(out.Columns, ColumnComparison{Column: c.Name, TypeA: types[0], TypeB: types[1]})
				out.Same = false
			case side == 0 && (known.Differ > 0 || known.TypeA != known.TypeB):
				out.Columns = append(out.Columns, *known)
				out.Same = out.Same && known.TypeA == known.TypeB
			}
		}
	}
	for _, number := range slices.Sorted(maps.Keys(t.days)) {
		if d := t.days[number]; !d.sound() || d.OtherEvidence+d.MovedHere > 0 {
			out.Days = append(out.Days, *d)
		}
	}
	order := []string{Differs, OnlyInA, OnlyInB, OtherEvidence}
	slices.SortStableFunc(out.Examples, func(a, b Example) int { return cmp.Compare(slices.Index(order, a.Kind), slices.Index(order, b.Kind)) })
	return out
}
