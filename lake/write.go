package lake

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"unicode/utf8"

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
			if err := t.writeRows(w, g.rows, lineage, appVersion); err != nil {
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
	key       string
	partition []any // values in the order of the table's partition fields
	rows      []plan.Row
}

// arrange sorts rows by partition, keeping their order, and finds the ids whose earlier revisions have to go. Rows that
// cannot be written go to p.Rejected, so that they do not displace an earlier revision that can.
func (t *Table) arrange(rows []plan.Row, p *Pending) (groups []*rowGroup, deletes []string, err error) {
	var key []byte
	cells := make([]plan.Cell, len(t.plan.Schema.Columns))
	byKey := map[string]int{}
	groupOf := make([]int, len(rows)) // index into groups, or one of:
	const rejected, withdrawn = -1, -2
	for i, r := range rows {
		if r.Deleted {
			groupOf[i] = withdrawn
			continue
		}
		if err := t.plan.Schema.Decode(r.Value, cells); err != nil {
			return nil, nil, fmt.Errorf("row %s: %w", r.ID, err)
		}
		if reason := t.fault(r, cells); reason != "" {
			p.Rejected = append(p.Rejected, Rejected{r, reason})
			groupOf[i] = rejected
			continue
		}
		key = key[:0]
		for _, f := range t.partition {
			key = appendPartitionKey(key, t.partitionCell(f, r, cells), f.Transform)
		}
		g, ok := byKey[string(key)]
		if !ok {
			g = len(groups)
			byKey[string(key)] = g
			groups = append(groups, &rowGroup{key: string(key)})
			for _, f := range t.partition {
				groups[g].partition = append(groups[g].partition, partitionValue(t.partitionCell(f, r, cells), f.Transform))
			}
		}
		groupOf[i] = g
	}
	var newest map[string]int
	if !t.plan.AppendOnly {
		newest, deletes = newestRevisions(rows, func(i int) bool { return groupOf[i] != rejected })
	}
	for i, r := range rows {
		if groupOf[i] < 0 || (newest != nil && newest[r.ID] != i) {
			continue
		}
		g := groups[groupOf[i]]
		g.rows = append(g.rows, r)
	}
	groups = slices.DeleteFunc(groups, func(g *rowGroup) bool { return len(g.rows) == 0 })
	slices.SortFunc(groups, func(a, b *rowGroup) int { return strings.Compare(a.key, b.key) })
	return groups, deletes, nil
}

// fault says why a table cannot hold a row; empty when it can.
func (t *Table) fault(r plan.Row, cells []plan.Cell) string {
	for i, c := range t.plan.Schema.Columns {
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
	for _, s := range append([]string{r.ID, r.Account, r.Env}, r.Sources...) {
		if !utf8.ValidString(s) {
			return fmt.Sprintf("%q, one of id, account, env and sources, is not valid UTF-8", s)
		}
	}
	return ""
}

// newestRevisions returns the index of the newest revision of each id, and the ids, sorted, of which the table has, or may
// have, an earlier one. Rows that valid refuses do not count.
func newestRevisions(rows []plan.Row, valid func(int) bool) (newest map[string]int, deletes []string) {
	newest = make(map[string]int, len(rows))
	first := make(map[string]bool)
	for i, r := range rows {
		if !valid(i) {
			continue
		}
		if r.First {
			first[r.ID] = true
		}
		if last, ok := newest[r.ID]; !ok || rows[last].Rev <= r.Rev {
			newest[r.ID] = i
		}
	}
	for id := range newest {
		if !first[id] {
			deletes = append(deletes, id)
		}
	}
	slices.Sort(deletes)
	return newest, deletes
}

func (t *Table) partitionCell(f plan.PartitionField, r plan.Row, cells []plan.Cell) plan.Cell {
	for i, c := range t.plan.Schema.Columns {
		if c.Name == f.Column {
			return cells[i]
		}
	}
	switch f.Column {
	case "account_id":
		return plan.Cell{Bytes: []byte(r.Account)}
	case "env_id":
		return plan.Cell{Bytes: []byte(r.Env)}
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

func (t *Table) writeRows(w *dataWriter, rows []plan.Row, lineage, appVersion string) error {
	own := len(t.plan.Schema.Columns)
	cells := make([]plan.Cell, len(t.columns))
	for _, r := range rows {
		if err := t.plan.Schema.Decode(r.Value, cells[:own]); err != nil {
			return fmt.Errorf("row %s: %w", r.ID, err)
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
func metaCells(cells []plan.Cell, r plan.Row, lineage, appVersion string) {
	sources := make([][]byte, len(r.Sources))
	for i, s := range r.Sources {
		sources[i] = []byte(s)
	}
	for i, c := range plan.MetaColumns {
		switch c.Name {
		case "_id":
			cells[i] = plan.Cell{Bytes: []byte(r.ID)}
		case "_rev":
			cells[i] = plan.Cell{Int: int64(r.Rev)}
		case "_epoch":
			cells[i] = plan.Cell{Int: int64(r.Epoch)}
		case "_lineage":
			cells[i] = plan.Cell{Bytes: []byte(lineage)}
		case "_app_version":
			cells[i] = plan.Cell{Bytes: []byte(appVersion)}
		case "_sources":
			cells[i] = plan.Cell{List: sources}
		case "_event_time":
			cells[i] = plan.Cell{Int: r.EventTime}
		case "account_id":
			cells[i] = plan.Cell{Bytes: []byte(r.Account)}
		case "env_id":
			cells[i] = plan.Cell{Bytes: []byte(r.Env)}
		default:
			panic("meta column " + c.Name + " has no value")
		}
	}
}

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
	location := fmt.Sprintf("%s/data/%s-%s.parquet", table, kind, hex.EncodeToString(id[:]))
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
