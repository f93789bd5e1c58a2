package lake

import (
	"cmp"
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"millrace/plan"
)

// Row is a row of a table by column name. A value is a string, int64, float64, bool, time.Time in UTC, []byte, []string, or
// nil; the slices belong to the caller.
type Row map[string]any

// ScanOptions choose rows and columns. The zero value is everything.
type ScanOptions struct {
	Columns []string // default: all, in the table's order

	// Where keeps the rows whose columns have these values: string, int64, bool, or nil for null.
	Where map[string]any

	// TimeColumn, From and To keep the rows with From <= TimeColumn < To. A zero bound is none.
	TimeColumn string
	From, To   time.Time

	// NewestBy is a timestamp column by which rows are ordered, latest first. It needs a Limit, as that many rows are held in
	// memory. Default: the order of the files.
	NewestBy string
	Limit    int // rows at most; 0 means all

	// Snapshot is the ID of a Snapshot, whose rows are meant. Default: the newest one. That it is not kept any more is an error that matches
	// ErrExpired.
	Snapshot int64
}

// Scan yields the table's rows as of now, or as of a snapshot, with corrections and withdrawals applied. It holds the columns of a row group in memory, and
// the ids of the corrections that have not been compacted. After an error it ends; a damaged file is one, before anything of it is yielded
// that is not as it was written.
func (t *Table) Scan(ctx context.Context, opts ScanOptions) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		s, err := t.prepare(ctx, opts)
		if err != nil {
			yield(nil, fmt.Errorf("scan table %s: %w", t.name, err))
			return
		}
		rows := s.rows(ctx, s.tasks)
		if opts.NewestBy != "" {
			rows = s.newest(ctx)
		}
		n := 0
		for row, err := range rows {
			if err != nil {
				yield(nil, t.readError("scan", err))
				return
			}
			if !yield(row, nil) {
				return
			}
			if n++; n == opts.Limit {
				return
			}
		}
	}
}

// scan reads data files of a table, with the corrections that apply to them.
type scan struct {
	opts   ScanOptions
	sortID int // of the column that opts.NewestBy names

	table      *Table
	tasks      []table.FileScanTask
	fields     []iceberg.NestedField // what is read of a file
	out        []int                 // of them, the columns of a row
	first      []int                 // those that say which rows there are: of conditions, and the id
	conditions []condition
	id         int // of the fields; below 0 when no correction applies
	voids      voids
}

// condition is on a column of the fields.
type condition struct {
	field int
	holds func(*plan.Cell) bool
}

// newScan is a scan of columns of files that planned has found.
func (t *Table) newScan(tasks []table.FileScanTask, columns []iceberg.NestedField) (*scan, error) {
	s := &scan{table: t, tasks: tasks, id: -1}
	for _, f := range columns {
		s.out = append(s.out, s.field(f))
	}
	if !slices.ContainsFunc(tasks, func(task table.FileScanTask) bool { return len(task.EqualityDeleteFiles) > 0 }) {
		return s, nil
	}
	id, err := column(t.seen(), "_id")
	if err != nil {
		return nil, err
	}
	s.id = s.field(id)
	s.first = append(s.first, s.id)
	s.voids = voids{table: t, id: id, files: map[string]int32{}, ids: map[string]int32{}}
	return s, nil
}

// field is the place of a column among the fields.
func (s *scan) field(f iceberg.NestedField) int {
	i := slices.IndexFunc(s.fields, func(have iceberg.NestedField) bool { return have.ID == f.ID })
	if i < 0 {
		i = len(s.fields)
		s.fields = append(s.fields, f)
	}
	return i
}

// planned are the data files that a scan of iceberg-go's would read, each once: it lists large ones a part at a time.
func (t *Table) planned(ctx context.Context, of *table.Scan) ([]table.FileScanTask, error) {
	tasks, err := of.PlanFiles(ctx)
	if err != nil {
		return nil, t.readError("list the files of", err)
	}
	for _, task := range tasks {
		if len(task.DeleteFiles)+len(task.DeletionVectorFiles) > 0 {
			return nil, fmt.Errorf("read table %s: rows of file %s were deleted by another program, by their places: only deletes by _id are known",
				t.name, t.lake.fsys.readable(task.File.FilePath()))
		}
	}
	return slices.CompactFunc(tasks, func(a, b table.FileScanTask) bool { return a.File.FilePath() == b.File.FilePath() }), nil
}

func (t *Table) prepare(ctx context.Context, opts ScanOptions) (*scan, error) {
	if err := t.load(ctx); err != nil {
		return nil, err
	}
	tbl := t.seen()
	names := slices.Clone(opts.Columns)
	if len(names) == 0 {
		for _, c := range t.Columns() {
			names = append(names, c.Name)
		}
	}
	if opts.NewestBy != "" {
		if opts.Limit <= 0 {
			return nil, fmt.Errorf("the newest rows by %s need a limit", opts.NewestBy)
		}
		if !slices.Contains(names, opts.NewestBy) {
			names = append(names, opts.NewestBy)
		}
	}
	columns := make([]iceberg.NestedField, len(names))
	var err error
	for i, name := range names {
		if columns[i], err = column(tbl, name); err != nil {
			return nil, err
		}
	}
	filter, conditions, err := opts.filter(tbl)
	if err != nil {
		return nil, err
	}
	of := []table.ScanOption{table.WithRowFilter(filter)}
	if opts.Snapshot != 0 {
		if tbl.SnapshotByID(opts.Snapshot) == nil {
			return nil, fmt.Errorf("snapshot %d: %w", opts.Snapshot, ErrExpired)
		}
		of = append(of, table.WithSnapshotID(opts.Snapshot))
	}
	tasks, err := t.planned(ctx, tbl.Scan(of...))
	if err != nil {
		return nil, err
	}
	s, err := t.newScan(tasks, columns)
	if err != nil {
		return nil, err
	}
	s.opts = opts
	for _, c := range conditions {
		i := s.field(c.column)
		s.first = append(s.first, i)
		s.conditions = append(s.conditions, condition{i, c.holds})
	}
	if opts.NewestBy != "" {
		f, err := timestamp(tbl, opts.NewestBy)
		if err != nil {
			return nil, err
		}
		s.sortID = f.ID
		slices.SortStableFunc(s.tasks, func(a, b table.FileScanTask) int { return cmp.Compare(s.latest(b), s.latest(a)) })
	}
	return s, nil
}

func column(tbl *table.Table, name string) (iceberg.NestedField, error) {
	f, ok := tbl.Schema().FindFieldByName(name)
	if !ok {
		return f, fmt.Errorf("there is no column %s", name)
	}
	return f, nil
}

func timestamp(tbl *table.Table, name string) (iceberg.NestedField, error) {
	f, err := column(tbl, name)
	if err == nil && planType(f.Type) != plan.Timestamp {
		err = fmt.Errorf("column %s is no timestamp", name)
	}
	return f, err
}

// columnCondition is a condition on a column of the table.
type columnCondition struct {
	column iceberg.NestedField
	holds  func(*plan.Cell) bool
}

// filter is what the options ask of rows: for choosing files by their bounds, and for looking at each row.
func (o *ScanOptions) filter(tbl *table.Table) (iceberg.BooleanExpression, []columnCondition, error) {
	var filter iceberg.BooleanExpression = iceberg.AlwaysTrue{}
	var conditions []columnCondition
	and := func(e iceberg.BooleanExpression, f iceberg.NestedField, holds func(*plan.Cell) bool) {
		filter = iceberg.NewAnd(filter, e)
		conditions = append(conditions, columnCondition{f, holds})
	}
	for name, value := range o.Where {
		f, err := column(tbl, name)
		if err != nil {
			return nil, nil, err
		}
		ref := iceberg.Reference(name)
		kind := planType(f.Type)
		switch v := value.(type) {
		case nil:
			and(iceberg.IsNull(ref), f, func(c *plan.Cell) bool { return c.Null })
			continue
		case string:
			if kind == plan.String {
				and(iceberg.EqualTo(ref, v), f, func(c *plan.Cell) bool { return !c.Null && string(c.Bytes) == v })
				continue
			}
		case int64:
			if kind == plan.Long {
				and(iceberg.EqualTo(ref, v), f, func(c *plan.Cell) bool { return !c.Null && c.Int == v })
				continue
			}
		case bool:
			if kind == plan.Bool {
				and(iceberg.EqualTo(ref, v), f, func(c *plan.Cell) bool { return !c.Null && c.Bool == v })
				continue
			}
		}
		return nil, nil, fmt.Errorf("column %s cannot be compared with %v", name, value)
	}
	if o.TimeColumn != "" {
		f, err := timestamp(tbl, o.TimeColumn)
		if err != nil {
			return nil, nil, err
		}
		ref := iceberg.Reference(o.TimeColumn)
		if from := o.From.UnixMicro(); !o.From.IsZero() {
			and(iceberg.GreaterThanEqual(ref, iceberg.Timestamp(from)), f, func(c *plan.Cell) bool { return !c.Null && c.Int >= from })
		}
		if to := o.To.UnixMicro(); !o.To.IsZero() {
			and(iceberg.LessThan(ref, iceberg.Timestamp(to)), f, func(c *plan.Cell) bool { return !c.Null && c.Int < to })
		}
	}
	return filter, conditions, nil
}

// latest is the upper bound of the ordering column in a file.
func (s *scan) latest(task table.FileScanTask) int64 {
	b := task.File.UpperBoundValues()[s.sortID]
	if len(b) != 8 {
		return 1<<63 - 1 // not known
	}
	return int64(binary.LittleEndian.Uint64(b))
}

// read calls do with the rows of files that are wanted, chunk by chunk, until it returns false. The chunk's columns are there once they were
// fetched.
func (s *scan) read(ctx context.Context, tasks []table.FileScanTask, do func(chunk *chunkReader, rows []int) (bool, error)) error {
	rows := make([]int, 0, chunkRows)
	more := true
	for i := 0; i < len(tasks) && more; i++ {
		void, err := s.voids.of(ctx, tasks[i])
		if err != nil {
			return err
		}
		file, err := s.table.lake.openData(tasks[i].File)
		if err != nil {
			return err
		}
		err = file.read(ctx, s.fields, 0, func(c *chunkReader) (bool, error) {
			if err := c.fetch(s.first); err != nil {
				return false, err
			}
			rows = rows[:0]
			for row := range c.Rows {
				if s.wants(c, row, void) {
					rows = append(rows, row)
				}
			}
			if len(rows) == 0 {
				return true, nil
			}
			var err error
			more, err = do(c, rows)
			return more, err
		})
		if err := errors.Join(err, file.close()); err != nil {
			return err
		}
	}
	return nil
}

// cells fills cells with those of a row, in the order of the scan's columns.
func (s *scan) cells(c *chunkReader, row int, cells []plan.Cell) []plan.Cell {
	for i, column := range s.out {
		cells[i] = c.Cells[column][row]
	}
	return cells
}

func (s *scan) wants(c *chunkReader, row int, void func(id []byte) bool) bool {
	for _, is := range s.conditions {
		if !is.holds(&c.Cells[is.field][row]) {
			return false
		}
	}
	return void == nil || !void(c.Cells[s.id][row].Bytes)
}

// rows yields all rows of files.
func (s *scan) rows(ctx context.Context, tasks []table.FileScanTask) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		err := s.read(ctx, tasks, func(c *chunkReader, rows []int) (bool, error) {
			if err := c.fetch(s.out); err != nil {
				return false, err
			}
			for _, i := range rows {
				row := make(Row, len(s.out))
				for _, column := range s.out {
					row[s.fields[column].Name] = value(c.columns[column].kind, &c.Cells[column][i])
				}
				if !yield(row, nil) {
					return false, nil
				}
			}
			return true, nil
		})
		if err != nil {
			yield(nil, err)
		}
	}
}

// value is a cell as a Row has it. It shares no memory with the cell, which would keep the whole page.
func value(kind plan.Type, c *plan.Cell) any {
	if c.Null {
		return nil
	}
	switch kind {
	case plan.String:
		return string(c.Bytes)
	case plan.Bool:
		return c.Bool
	case plan.Long:
		return c.Int
	case plan.Double:
		return c.Float
	case plan.Timestamp:
		return time.UnixMicro(c.Int).UTC()
	case plan.Bytes:
		return append([]byte{}, c.Bytes...)
	}
	list := make([]string, len(c.List))
	for i, e := range c.List {
		list[i] = string(e)
	}
	return list
}

// CellOf is the cell that has a Row's value. It shares memory with the value.
func CellOf(v any) plan.Cell {
	switch v := v.(type) {
	case string:
		return plan.Cell{Bytes: bytesOf(v)}
	case int64:
		return plan.Cell{Int: v}
	case float64:
		return plan.Cell{Float: v}
	case bool:
		return plan.Cell{Bool: v}
	case time.Time:
		return plan.Cell{Int: v.UnixMicro()}
	case []byte:
		return plan.Cell{Bytes: v}
	case []string:
		list := make([][]byte, len(v))
		for i := range v {
			list[i] = bytesOf(v[i])
		}
		return plan.Cell{List: list}
	}
	return plan.Cell{Null: true}
}

// newest yields the opts.Limit latest rows, latest first. Files are read in order of their latest row, until none of the
// rest can have a later one than those at hand.
func (s *scan) newest(ctx context.Context) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		h := &oldestFirst{by: s.opts.NewestBy}
		for _, task := range s.tasks {
			if h.Len() == s.opts.Limit && s.latest(task) <= h.rank(0) {
				break
			}
			for row, err := range s.rows(ctx, []table.FileScanTask{task}) {
				if err != nil {
					yield(nil, err)
					return
				}
				switch {
				case h.Len() < s.opts.Limit:
					heap.Push(h, row)
				case rank(row[h.by]) > h.rank(0):
					h.rows[0] = row
					heap.Fix(h, 0)
				}
			}
		}
		rows := make([]Row, h.Len())
		for i := len(rows) - 1; i >= 0; i-- {
			rows[i] = heap.Pop(h).(Row)
		}
		for _, row := range rows {
			if len(s.opts.Columns) > 0 && !slices.Contains(s.opts.Columns, h.by) {
				delete(row, h.by)
			}
			if !yield(row, nil) {
				return
			}
		}
	}
}

// oldestFirst is a heap of rows whose first is the one to give up for a later one.
type oldestFirst struct {
	by   string
	rows []Row
}

func rank(v any) int64 {
	if t, ok := v.(time.Time); ok {
		return t.UnixMicro()
	}
	return -1 << 63
}

func (h *oldestFirst) rank(i int) int64   { return rank(h.rows[i][h.by]) }
func (h *oldestFirst) Len() int           { return len(h.rows) }
func (h *oldestFirst) Less(i, j int) bool { return h.rank(i) < h.rank(j) }
func (h *oldestFirst) Swap(i, j int)      { h.rows[i], h.rows[j] = h.rows[j], h.rows[i] }
func (h *oldestFirst) Push(x any)         { h.rows = append(h.rows, x.(Row)) }
func (h *oldestFirst) Pop() any {
	last := h.rows[len(h.rows)-1]
	h.rows = h.rows[:len(h.rows)-1]
	return last
}
