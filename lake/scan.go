package lake

import (
	"cmp"
	"container/heap"
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
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
}

// Scan yields the table's rows as of now, with corrections and withdrawals applied. It holds a batch of rows in memory, and
// the ids of the corrections that have not been compacted. After an error it ends.
func (t *Table) Scan(ctx context.Context, opts ScanOptions) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		s, err := t.prepare(ctx, opts)
		if err != nil {
			yield(nil, fmt.Errorf("scan table %s: %w", t.name, err))
			return
		}
		rows := s.rows(ctx)
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

// scan is a planned Scan.
type scan struct {
	opts    ScanOptions
	scan    *table.Scan
	tasks   []table.FileScanTask
	columns []string // what is read: opts.Columns and NewestBy
	sortID  int
}

func (t *Table) prepare(ctx context.Context, opts ScanOptions) (*scan, error) {
	if err := t.load(ctx); err != nil {
		return nil, err
	}
	tbl := t.seen()
	s := &scan{opts: opts, columns: slices.Clone(opts.Columns)}
	if len(s.columns) == 0 {
		for _, c := range t.Columns() {
			s.columns = append(s.columns, c.Name)
		}
	}
	if opts.NewestBy != "" {
		if opts.Limit <= 0 {
			return nil, fmt.Errorf("the newest rows by %s need a limit", opts.NewestBy)
		}
		if !slices.Contains(s.columns, opts.NewestBy) {
			s.columns = append(s.columns, opts.NewestBy)
		}
	}
	for _, name := range s.columns {
		if _, err := column(tbl, name); err != nil {
			return nil, err
		}
	}
	filter, err := s.filter(tbl)
	if err != nil {
		return nil, err
	}
	options := []table.ScanOption{
		table.WithSelectedFields(s.columns...),
		table.WithRowFilter(filter),
		table.WithArrowBatchSize(1024),
		table.WithMaxConcurrency(1), // each further one holds a file's batches
	}
	s.scan = tbl.Scan(options...)
	if s.tasks, err = s.scan.PlanFiles(ctx); err != nil {
		return nil, t.readError("read the manifests of", err)
	}
	if opts.NewestBy != "" {
		f, err := column(tbl, opts.NewestBy)
		if err != nil {
			return nil, err
		}
		if planType(f.Type) != plan.Timestamp {
			return nil, fmt.Errorf("column %s is no timestamp", opts.NewestBy)
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

func (s *scan) filter(tbl *table.Table) (iceberg.BooleanExpression, error) {
	var filter iceberg.BooleanExpression = iceberg.AlwaysTrue{}
	and := func(e iceberg.BooleanExpression) { filter = iceberg.NewAnd(filter, e) }
	for name, value := range s.opts.Where {
		f, err := column(tbl, name)
		if err != nil {
			return nil, err
		}
		ref := iceberg.Reference(name)
		kind := planType(f.Type)
		switch v := value.(type) {
		case nil:
			and(iceberg.IsNull(ref))
			continue
		case string:
			if kind == plan.String {
				and(iceberg.EqualTo(ref, v))
				continue
			}
		case int64:
			if kind == plan.Long {
				and(iceberg.EqualTo(ref, v))
				continue
			}
		case bool:
			if kind == plan.Bool {
				and(iceberg.EqualTo(ref, v))
				continue
			}
		}
		return nil, fmt.Errorf("column %s cannot be compared with %v", name, value)
	}
	if s.opts.TimeColumn != "" {
		f, err := column(tbl, s.opts.TimeColumn)
		if err != nil {
			return nil, err
		}
		if planType(f.Type) != plan.Timestamp {
			return nil, fmt.Errorf("column %s is no timestamp", s.opts.TimeColumn)
		}
		ref := iceberg.Reference(s.opts.TimeColumn)
		if !s.opts.From.IsZero() {
			and(iceberg.GreaterThanEqual(ref, iceberg.Timestamp(s.opts.From.UnixMicro())))
		}
		if !s.opts.To.IsZero() {
			and(iceberg.LessThan(ref, iceberg.Timestamp(s.opts.To.UnixMicro())))
		}
	}
	return filter, nil
}

// latest is the upper bound of the ordering column in a file.
func (s *scan) latest(task table.FileScanTask) int64 {
	b := task.File.UpperBoundValues()[s.sortID]
	if len(b) != 8 {
		return 1<<63 - 1 // not known
	}
	return int64(binary.LittleEndian.Uint64(b))
}

// rows yields all rows of the scan's files.
func (s *scan) rows(ctx context.Context) iter.Seq2[Row, error] {
	return s.read(ctx, s.tasks)
}

func (s *scan) read(ctx context.Context, tasks []table.FileScanTask) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		_, batches, err := s.scan.ReadTasks(ctx, tasks)
		if err != nil {
			yield(nil, err)
			return
		}
		for batch, err := range batches {
			if err != nil {
				yield(nil, err)
				return
			}
			ok := yieldBatch(batch, yield)
			batch.Release()
			if !ok {
				return
			}
		}
	}
}

func yieldBatch(batch arrow.RecordBatch, yield func(Row, error) bool) bool {
	names := make([]string, batch.NumCols())
	for i := range names {
		names[i] = batch.ColumnName(i)
	}
	for r := range int(batch.NumRows()) {
		row := make(Row, len(names))
		for i, name := range names {
			v, err := value(batch.Column(i), r)
			if err != nil {
				yield(nil, fmt.Errorf("column %s: %w", name, err))
				return false
			}
			row[name] = v
		}
		if !yield(row, nil) {
			return false
		}
	}
	return true
}

// value copies one value out of an Arrow array, whose memory is released with its batch.
func value(a arrow.Array, i int) (any, error) {
	if a.IsNull(i) {
		return nil, nil
	}
	switch a := a.(type) {
	case *array.String:
		return string([]byte(a.Value(i))), nil
	case *array.LargeString:
		return string([]byte(a.Value(i))), nil
	case *array.Binary:
		return slices.Clone(nonNil(a.Value(i))), nil
	case *array.LargeBinary:
		return slices.Clone(nonNil(a.Value(i))), nil
	case *array.Int64:
		return a.Value(i), nil
	case *array.Float64:
		return a.Value(i), nil
	case *array.Boolean:
		return a.Value(i), nil
	case *array.Timestamp:
		return time.UnixMicro(int64(a.Value(i))).UTC(), nil
	case array.ListLike:
		from, to := a.ValueOffsets(i)
		list := make([]string, 0, to-from)
		for j := from; j < to; j++ {
			v, err := value(a.ListValues(), int(j))
			if err != nil {
				return nil, err
			}
			s, _ := v.(string)
			list = append(list, s)
		}
		return list, nil
	}
	return nil, fmt.Errorf("type %s is none of a plan's", a.DataType())
}

func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
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
			for row, err := range s.read(ctx, []table.FileScanTask{task}) {
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
