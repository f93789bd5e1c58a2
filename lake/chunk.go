package lake

import (
	"context"
	"errors"
	"iter"

	"github.com/apache/iceberg-go"

	"millrace/plan"
)

// Chunk is some rows of a data file, by column.
type Chunk struct {
	Row   int64         // number of the first of them in the file
	Rows  int           // how many
	Cells [][]plan.Cell // by column, as they were asked for, then by row; only valid until the next chunk, but for their bytes
}

// ReadFile yields the rows of a data file of the table from the given one on, in their order: the given columns. It is
// cheaper than Scan, applies no corrections, and ends after an error, which names the file.
func (t *Table) ReadFile(ctx context.Context, f File, columns []string, from int64) iter.Seq2[Chunk, error] {
	return func(yield func(Chunk, error) bool) {
		if err := t.readFile(ctx, f, columns, from, func(c Chunk) bool { return yield(c, nil) }); err != nil {
			yield(Chunk{}, t.readError("read a file of", err))
		}
	}
}

func (t *Table) readFile(ctx context.Context, f File, columns []string, from int64, yield func(Chunk) bool) (err error) {
	fields, all := make([]iceberg.NestedField, len(columns)), make([]int, len(columns))
	for i, name := range columns {
		all[i] = i
		if fields[i], err = column(t.seen(), name); err != nil {
			return err
		}
	}
	file, err := t.lake.openFile(f.location, f.Bytes, f.Rows)
	if err != nil {
		return err
	}
	err = file.read(ctx, fields, from, func(r *chunkReader) (bool, error) {
		if err := r.fetch(all); err != nil {
			return false, err
		}
		return yield(r.Chunk), nil
	})
	return errors.Join(err, file.close())
}

// chunkReader is at a chunk of a file's rows. Cells of a column are those of the chunk once the column was fetched.
type chunkReader struct {
	Chunk

	file    *dataFile
	columns []columnReader
	group   int   // row group
	at      int64 // row of the group at which the chunk begins
}

// read calls do with the rows of a file from the given one on, chunk by chunk, until it returns false. A column that the file lacks is
// null: it is older.
func (f *dataFile) read(ctx context.Context, fields []iceberg.NestedField, from int64, do func(*chunkReader) (bool, error)) error {
	columns, err := f.find(fields)
	if err != nil {
		return err
	}
	r := &chunkReader{Chunk: Chunk{Cells: make([][]plan.Cell, len(fields))}, file: f, columns: columns}
	defer r.leave()
	first := int64(0) // of the group
	for group := range f.parquet.RowGroups() {
		r.group = group
		n := f.parquet.RowGroups()[group].NumRows()
		r.leave()
		for r.at = max(from-first, 0); r.at < n; r.at += int64(r.Rows) {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			r.Row, r.Rows = first+r.at, int(min(n-r.at, chunkRows))
			if more, err := do(r); err != nil || !more {
				return err
			}
		}
		first += n
	}
	return nil
}

func (f *dataFile) find(fields []iceberg.NestedField) (columns []columnReader, err error) {
	defer f.recovered(&err)
	columns = make([]columnReader, len(fields))
	for i, field := range fields {
		if err := columns[i].find(f, field); err != nil {
			return nil, err
		}
	}
	return columns, nil
}

// leave ends with a group.
func (r *chunkReader) leave() {
	for i := range r.columns {
		r.columns[i].leave()
	}
}

// fetch reads the cells of columns.
func (r *chunkReader) fetch(columns []int) (err error) {
	defer r.file.recovered(&err)
	if err := r.open(columns); err != nil {
		return err
	}
	for _, i := range columns {
		if err := r.readCells(i); err != nil {
			return err
		}
	}
	return nil
}

// open sees to it that columns of the group are in memory and are as they were written.
func (r *chunkReader) open(columns []int) error {
	var missing []*span
	var opened []*columnReader
	for _, i := range columns {
		if c := &r.columns[i]; c.index >= 0 && c.pages == nil {
			missing = append(missing, c.open(r.file, r.group))
			opened = append(opened, c)
		}
	}
	if err := r.file.load(missing); err != nil {
		return err
	}
	for _, c := range opened {
		if r.file.sums == nil {
			if err := checkPages(&r.file.parquet.Metadata().RowGroups[r.group], c.index, c.chunk.bytes); err != nil {
				return r.file.damaged("column %s: %v", c.name, err)
			}
		}
	}
	return nil
}

// readCells reads the chunk's cells of a column, unless it has been read.
func (r *chunkReader) readCells(column int) (err error) {
	c := &r.columns[column]
	if c.at == r.at+int64(r.Rows) {
		return nil
	}
	if r.Cells[column], err = c.read(r.Cells[column], r.at, r.Rows); err != nil {
		return r.file.damaged("column %s: %v", c.name, err)
	}
	return nil
}

// copyTo adds rows of the chunk to a file of the given columns. Of columns that have not been read it copies the values as they are.
func (r *chunkReader) copyTo(w *dataWriter, columns, rows []int) (err error) {
	defer r.file.recovered(&err)
	if err := r.open(columns); err != nil {
		return err
	}
	for i, column := range columns {
		from, to := &r.columns[column], &w.columns[i]
		if from.at <= r.at && from.index >= 0 && from.optional == to.Nullable {
			had := len(to.values)
			if to.values, err = from.take(to.values, r.at, r.Rows); err != nil {
				return r.file.damaged("column %s: %v", from.name, err)
			}
			if len(rows) < r.Rows {
				to.values = to.values[:had+pick(to.values[had:], rows)]
			}
			continue
		}
		if err := r.readCells(column); err != nil {
			return err
		}
		for _, row := range rows {
			to.add(&r.Cells[column][row])
		}
	}
	return w.added(len(rows))
}
