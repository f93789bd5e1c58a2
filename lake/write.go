package lake

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unicode/utf8"
	"unsafe"

	"github.com/apache/iceberg-go"
	"golang.org/x/sync/errgroup"

	"millrace/plan"
)

// Pending is what Write wrote: files that are durable and that no reader sees until Commit.
type Pending struct {
	Rejected []Rejected // rows that no table can hold; they are in none of the files
	Rows     int64      // in the data files
	Bytes    int64      // of all files

	data      []iceberg.DataFile
	deletes   []iceberg.DataFile
	locations []string // of both
}

// Rejected is a row that a table cannot hold.
type Rejected struct {
	Row    plan.Row
	Reason string
}

func (p *Pending) empty() bool { return len(p.data) == 0 && len(p.deletes) == 0 }

// Write makes durable files of rows: a data file for each partition, and for rows that replace or withdraw an earlier
// revision an equality delete of their ids. Nothing is visible before Commit. Of several rows with one id the one with the
// highest revision is written. lineage and appVersion fill the meta columns. Rows of the batch are not kept.
//
// Write may be called again for the same rows after any error or crash: the files of the earlier call are left to Sweep.
func (t *Table) Write(ctx context.Context, rows []plan.Row, lineage, appVersion string) (*Pending, error) {
	if t.lake.cfg.ReadOnly {
		return nil, ErrReadOnly
	}
	if t.columns == nil {
		return nil, fmt.Errorf("write to table %s: it was opened by Lookup, for reading", t.name)
	}
	p := &Pending{}
	groups, deletes, err := t.arrange(rows, p)
	if err != nil {
		return nil, fmt.Errorf("write to table %s: %w", t.name, err)
	}
	// The ids of the columns are the catalogue's.
	tbl := t.seen()
	p.data = make([]iceberg.DataFile, len(groups))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, g := range groups {
		file := t.lake.newFile(tbl.Location(), "data")
		p.locations = append(p.locations, file)
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			w, err := newDataWriter(t.lake, tbl, t.columns, file)
			if err != nil {
				return err
			}
			if err := t.writeRows(w, rows, g, lineage, appVersion); err != nil {
				w.abandon()
				return err
			}
			p.data[i], err = w.finish(iceberg.EntryContentData, tbl.Spec(), g.partition, nil)
			return err
		})
	}
	if len(deletes) > 0 {
		file := t.lake.newFile(tbl.Location(), "delete")
		p.locations = append(p.locations, file)
		group.Go(func() error {
			var err error
			p.deletes, err = t.writeDeletes(file, deletes)
			return err
		})
	}
	err = group.Wait()
	if err == nil {
		err = t.lake.fsys.syncDirs()
	}
	if err != nil {
		t.lake.release(p.locations)
		return nil, fmt.Errorf("write to table %s: %w", t.name, err)
	}
	for i, g := range groups {
		p.Rejected = append(p.Rejected, g.rejected...)
		if p.data[i] == nil { // all were
			t.lake.release(p.locations[i : i+1])
			p.locations[i] = ""
		}
	}
	p.data = slices.DeleteFunc(p.data, func(f iceberg.DataFile) bool { return f == nil })
	p.locations = slices.DeleteFunc(p.locations, func(l string) bool { return l == "" })
	for _, f := range slices.Concat(p.data, p.deletes) {
		p.Bytes += f.FileSizeBytes()
		t.lake.metrics.files.Inc()
	}
	for _, f := range p.data {
		p.Rows += f.Count()
	}
	t.lake.metrics.rows.Add(float64(p.Rows))
	t.lake.metrics.bytes.Add(float64(p.Bytes))
	return p, nil
}

// rowGroup is the rows of one partition.
type rowGroup struct {
	key       []byte
	partition []any // values in the order of the table's partition fields
	rows      []int32
	rejected  []Rejected // found when the rows were written
}

// arrange divides rows by partition, keeping their order, and finds the ids whose earlier revisions have to go. Of rows that
// compete for an id those that cannot be written go to p.Rejected, so that they do not displace an earlier revision that can;
// all others are looked at when they are written.
func (t *Table) arrange(rows []plan.Row, p *Pending) (groups []*rowGroup, deletes []string, err error) {
	var revisions *revisions
	if !t.plan.AppendOnly {
		if revisions, err = t.revisions(rows, p); err != nil {
			return nil, nil, err
		}
	}
	var key []byte
	cells := make([]plan.Cell, len(t.plan.Schema.Columns))
	own := t.partitionedByOwn()
	byKey := map[string]*rowGroup{}
	var last *rowGroup
	for i := range rows {
		r := &rows[i]
		if r.Deleted || (revisions != nil && !revisions.newest(i, r.ID)) {
			continue
		}
		if own {
			if err := t.plan.Schema.Decode(r.Value, cells); err != nil {
				return nil, nil, fmt.Errorf("row %s: %w", r.ID, err)
			}
		}
		key = key[:0]
		for _, f := range t.partition {
			key = appendPartitionKey(key, t.partitionCell(f, r, cells), f.Transform)
		}
		if last == nil || !bytes.Equal(key, last.key) {
			if last = byKey[string(key)]; last == nil {
				last = &rowGroup{key: bytes.Clone(key)}
				byKey[string(key)] = last
				groups = append(groups, last)
				for _, f := range t.partition {
					last.partition = append(last.partition, partitionValue(t.partitionCell(f, r, cells), f.Transform))
				}
			}
		}
		last.rows = append(last.rows, int32(i))
	}
	slices.SortFunc(groups, func(a, b *rowGroup) int { return bytes.Compare(a.key, b.key) })
	if revisions != nil {
		deletes = revisions.deletes
	}
	return groups, deletes, nil
}

// fault says why a table cannot hold a row; empty when it can.
func (t *Table) fault(r *plan.Row, cells []plan.Cell) string {
	for i := range t.plan.Schema.Columns {
		c := &t.plan.Schema.Columns[i]
		switch c.Type {
		case plan.String:
			if !utf8.Valid(cells[i].Bytes) {
				return fmt.Sprintf("column %s is not valid UTF-8", c.Name)
			}
		case plan.Strings:
			for _, s := range cells[i].List {
				if !utf8.Valid(s) {
					return fmt.Sprintf("column %s has an element that is not valid UTF-8", c.Name)
				}
			}
		}
	}
	if t.plan.AppendOnly {
		return ""
	}
	for _, s := range [...]string{r.ID, r.Account, r.Env} {
		if !utf8.ValidString(s) {
			return metaFault(s)
		}
	}
	for _, s := range r.Sources {
		if !utf8.ValidString(s) {
			return metaFault(s)
		}
	}
	return ""
}

func metaFault(s string) string {
	return fmt.Sprintf("%q, one of id, account, env and sources, is not valid UTF-8", s)
}

// partitionedByOwn is whether the table is partitioned by a column that is in the rows' values.
func (t *Table) partitionedByOwn() bool {
	return slices.ContainsFunc(t.partition, func(f plan.PartitionField) bool {
		return slices.ContainsFunc(t.plan.Schema.Columns, func(c plan.Column) bool { return c.Name == f.Column })
	})
}

func (t *Table) partitionCell(f plan.PartitionField, r *plan.Row, cells []plan.Cell) plan.Cell {
	for i := range t.plan.Schema.Columns {
		if t.plan.Schema.Columns[i].Name == f.Column {
			return cells[i]
		}
	}
	switch f.Column {
	case "account_id":
		return plan.Cell{Bytes: bytesOf(r.Account)}
	case "env_id":
		return plan.Cell{Bytes: bytesOf(r.Env)}
	}
	return plan.Cell{Int: r.EventTime}
}

const microsPerDay = 24 * 60 * 60 * 1_000_000

func dayOf(micros int64) int32 {
	day := micros / microsPerDay
	if micros%microsPerDay < 0 {
		day--
	}
	return int32(day)
}

func appendPartitionKey(key []byte, c plan.Cell, transform plan.Transform) []byte {
	if transform == plan.Day {
		d := uint32(dayOf(c.Int)) ^ 1<<31 // orders like the signed number
		return append(key, byte(d>>24), byte(d>>16), byte(d>>8), byte(d))
	}
	key = binary.AppendUvarint(key, uint64(len(c.Bytes)))
	return append(key, c.Bytes...)
}

func partitionValue(c plan.Cell, transform plan.Transform) any {
	if transform == plan.Day {
		return iceberg.Date(dayOf(c.Int))
	}
	return string(c.Bytes)
}

// writeRows adds the rows of g that the table can hold.
func (t *Table) writeRows(w *dataWriter, rows []plan.Row, g *rowGroup, lineage, appVersion string) error {
	own := len(t.plan.Schema.Columns)
	cells := make([]plan.Cell, len(t.columns))
	for _, i := range g.rows {
		r := &rows[i]
		if err := t.plan.Schema.Decode(r.Value, cells[:own]); err != nil {
			return fmt.Errorf("row %s: %w", r.ID, err)
		}
		if reason := t.fault(r, cells); reason != "" {
			g.rejected = append(g.rejected, Rejected{*r, reason})
			continue
		}
		if !t.plan.AppendOnly {
			metaCells(cells[own:], r, lineage, appVersion)
		}
		if err := w.add(cells); err != nil {
			return err
		}
	}
	return nil
}

// metaCells fills the cells of plan.MetaColumns, in their order.
func metaCells(cells []plan.Cell, r *plan.Row, lineage, appVersion string) {
	for i := range plan.MetaColumns {
		c := &cells[i]
		switch plan.MetaColumns[i].Name {
		case "_id":
			c.Bytes = bytesOf(r.ID)
		case "_rev":
			c.Int = int64(r.Rev)
		case "_epoch":
			c.Int = int64(r.Epoch)
		case "_lineage":
			c.Bytes = bytesOf(lineage)
		case "_app_version":
			c.Bytes = bytesOf(appVersion)
		case "_sources":
			c.List = c.List[:0]
			for _, s := range r.Sources {
				c.List = append(c.List, bytesOf(s))
			}
		case "_event_time":
			c.Int = r.EventTime
		case "account_id":
			c.Bytes = bytesOf(r.Account)
		case "env_id":
			c.Bytes = bytesOf(r.Env)
		default:
			panic("meta column " + plan.MetaColumns[i].Name + " has no value")
		}
	}
}

// bytesOf are the bytes of s, to be read only: a copy of every text of a row is a good part of what writing it costs.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// writeDeletes writes an equality delete of ids, which are sorted.
func (t *Table) writeDeletes(location string, ids []string) ([]iceberg.DataFile, error) {
	tbl := t.seen()
	field, ok := tbl.Schema().FindFieldByName("_id")
	if !ok {
		return nil, errors.New("column _id is missing")
	}
	w, err := newDataWriter(t.lake, tbl, []plan.Column{{Name: "_id", Type: plan.String}}, location)
	if err != nil {
		return nil, err
	}
	cell := make([]plan.Cell, 1)
	for _, id := range ids {
		cell[0].Bytes = []byte(id)
		if err := w.add(cell); err != nil {
			w.abandon()
			return nil, err
		}
	}
	spec := tbl.Metadata().PartitionSpecByID(globalSpec)
	if spec == nil || spec.NumFields() > 0 {
		w.abandon()
		return nil, errors.New("the table has no unpartitioned spec for its deletes")
	}
	file, err := w.finish(iceberg.EntryContentEqDeletes, *spec, nil, []int{field.ID})
	return []iceberg.DataFile{file}, err
}

// newFile names a new file of a table and protects it from Sweep until its Pending is committed or dropped.
func (l *Lake) newFile(table, kind string) string {
	var id [12]byte
	if _, err := rand.Read(id[:]); err != nil {
		panic(err) // documented never to fail
	}
	location := fmt.Sprintf("%s/data/%s-%s%s", table, kind, hex.EncodeToString(id[:]), sumSuffix)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending[location] = struct{}{}
	return location
}

// release ends the protection of files.
func (l *Lake) release(locations []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range locations {
		delete(l.pending, f)
	}
}
