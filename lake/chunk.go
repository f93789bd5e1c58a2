package lake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/parquet-go/parquet-go"

	"millrace/plan"
)

// Chunk is some rows of a data file, by column.
type Chunk struct {
	Row   int64         // number of the first of them in the file
	Rows  int           // how many
	Cells [][]plan.Cell // by column, as they were asked for, then by row; only valid until the next chunk, but for their bytes
}

// ReadFile yields the rows of a data file of the table from the given one on, in their order: the given columns, none of them a list. It is
// much cheaper than Scan, applies no corrections, and ends after an error, which names the file.
func (t *Table) ReadFile(ctx context.Context, f File, columns []string, from int64) iter.Seq2[Chunk, error] {
	return func(yield func(Chunk, error) bool) {
		if err := t.readFile(ctx, f, columns, from, func(c Chunk) bool { return yield(c, nil) }); err != nil {
			yield(Chunk{}, t.readError("read file "+f.Path+" of", err))
		}
	}
}

func (t *Table) readFile(ctx context.Context, f File, columns []string, from int64, yield func(Chunk) bool) (err error) {
	file, err := t.lake.fsys.Open(f.location)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	opened, err := parquet.OpenFile(file, f.Bytes, parquet.SkipBloomFilters(true))
	if err != nil {
		return err
	}
	if n := opened.NumRows(); n != f.Rows {
		return fmt.Errorf("it has %d rows and the catalogue says %d", n, f.Rows)
	}
	read := make([]columnReader, len(columns))
	for i, name := range columns {
		field, err := column(t.seen(), name)
		if err != nil {
			return err
		}
		read[i] = columnReader{name: name, kind: planType(field.Type), index: -1}
		if read[i].kind == plan.Strings || read[i].kind == 0 {
			return fmt.Errorf("column %s cannot be read by itself", name)
		}
		for _, c := range opened.Root().Columns() {
			if c.ID() == field.ID && c.Leaf() {
				read[i].index = c.Index()
			}
		}
	}
	chunk := Chunk{Cells: make([][]plan.Cell, len(columns))}
	first := int64(0)
	for _, group := range opened.RowGroups() {
		n := group.NumRows()
		if first += n; from >= first {
			continue
		}
		start := max(from-(first-n), 0)
		if err := readGroup(ctx, group, start, first-n, read, &chunk, yield); err != nil {
			if errors.Is(err, errEnough) {
				return nil
			}
			return err
		}
	}
	return nil
}

// errEnough says that the reader wants no more.
var errEnough = errors.New("enough")

func readGroup(ctx context.Context, group parquet.RowGroup, start, first int64, columns []columnReader, chunk *Chunk, yield func(Chunk) bool) (err error) {
	for i := range columns {
		if err := columns[i].open(group, start); err != nil {
			return err
		}
	}
	defer func() {
		for i := range columns {
			err = errors.Join(err, columns[i].close())
		}
	}()
	for row := start; row < group.NumRows(); row += int64(chunk.Rows) {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		chunk.Row, chunk.Rows = first+row, int(min(group.NumRows()-row, chunkRows))
		for i := range columns {
			if chunk.Cells[i], err = columns[i].read(chunk.Cells[i][:0], chunk.Rows); err != nil {
				return fmt.Errorf("column %s: %w", columns[i].name, err)
			}
		}
		if !yield(*chunk) {
			return errEnough
		}
	}
	return nil
}

// columnReader reads one column of a row group. Pages are not released: cells are slices of them, which their readers may keep.
type columnReader struct {
	name   string
	kind   plan.Type
	index  int // of the column in the file; below 0 when the file is older than the column
	pages  parquet.Pages
	values parquet.ValueReader // of the page at hand; nil when it is used up
	buffer []parquet.Value
}

func (c *columnReader) open(group parquet.RowGroup, start int64) error {
	if c.index < 0 {
		return nil
	}
	c.values, c.pages = nil, group.ColumnChunks()[c.index].Pages()
	if start == 0 {
		return nil
	}
	return c.pages.SeekToRow(start)
}

func (c *columnReader) close() error {
	if c.pages == nil {
		return nil
	}
	defer func() { c.pages = nil }()
	return c.pages.Close()
}

// read appends the next n cells.
func (c *columnReader) read(cells []plan.Cell, n int) ([]plan.Cell, error) {
	if c.index < 0 {
		for range n {
			cells = append(cells, plan.Cell{Null: true})
		}
		return cells, nil
	}
	if c.buffer == nil {
		c.buffer = make([]parquet.Value, chunkRows)
	}
	for len(cells) < n {
		if c.values == nil {
			page, err := c.pages.ReadPage()
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return nil, err
			}
			c.values = page.Values()
		}
		some, err := c.values.ReadValues(c.buffer[:n-len(cells)])
		for _, v := range c.buffer[:some] {
			cells = append(cells, cellOf(c.kind, v))
		}
		switch {
		case errors.Is(err, io.EOF), err == nil && some == 0:
			c.values = nil
		case err != nil:
			return nil, err
		}
	}
	return cells, nil
}

func cellOf(kind plan.Type, v parquet.Value) plan.Cell {
	if v.IsNull() {
		return plan.Cell{Null: true}
	}
	switch kind {
	case plan.Bool:
		return plan.Cell{Bool: v.Boolean()}
	case plan.Long, plan.Timestamp:
		return plan.Cell{Int: v.Int64()}
	case plan.Double:
		return plan.Cell{Float: v.Double()}
	}
	return plan.Cell{Bytes: v.ByteArray()}
}
