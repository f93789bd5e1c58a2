package lake

import (
	"errors"
	"io"

	"github.com/apache/iceberg-go"
	"github.com/parquet-go/parquet-go"

	"millrace/plan"
)

const chunkValues = 1024 // that are decoded at once

// columnReader reads one column of a file. Pages are not released: cells are slices of them, which their readers may keep.
type columnReader struct {
	name     string
	kind     plan.Type
	index    int  // in the file; below 0 when the file is older than the column
	optional bool // whether a list may be null
	level    int  // definition level of a list's element

	// Of the row group at hand, once something of it was wanted:
	chunk  span
	pages  parquet.Pages
	at     int64               // rows that were read
	page   parquet.ValueReader // nil when it is used up
	values []parquet.Value     // of the page, decoded and not used yet
	buffer []parquet.Value
}

// kinds are how the types of a plan are stored.
var kinds = map[plan.Type]parquet.Kind{
	plan.String: parquet.ByteArray, plan.Bytes: parquet.ByteArray, plan.Strings: parquet.ByteArray, plan.Bool: parquet.Boolean,
	plan.Long: parquet.Int64, plan.Timestamp: parquet.Int64, plan.Double: parquet.Double,
}

// find finds the column by its id: its name may have been another one.
func (c *columnReader) find(f *dataFile, field iceberg.NestedField) error {
	*c = columnReader{name: field.Name, kind: planType(field.Type), index: -1}
	kind, ok := kinds[c.kind]
	if !ok {
		return f.damaged("column %s is %s, which no plan has", field.Name, field.Type)
	}
	for _, leaf := range f.parquet.Root().Columns() {
		if leaf.ID() != field.ID {
			continue
		}
		c.optional = leaf.Optional()
		for len(leaf.Columns()) == 1 {
			leaf = leaf.Columns()[0]
		}
		if !leaf.Leaf() || leaf.Type().Kind() != kind || leaf.MaxRepetitionLevel() > 0 != (c.kind == plan.Strings) {
			return f.damaged("column %s is not %s", field.Name, field.Type)
		}
		c.index, c.level = leaf.Index(), leaf.MaxDefinitionLevel()
	}
	if c.index < 0 && field.Required {
		return f.damaged("column %s is missing", field.Name)
	}
	return nil
}

// open begins with a row group. What it returns has to be loaded before anything is read.
func (c *columnReader) open(f *dataFile, group int) *span {
	c.chunk = f.chunk(group, c.index)
	c.pages = f.parquet.RowGroups()[group].ColumnChunks()[c.index].(*parquet.FileColumnChunk).PagesFrom(&c.chunk)
	if c.buffer == nil {
		c.buffer = make([]parquet.Value, chunkValues)
	}
	return &c.chunk
}

// leave ends with a row group.
func (c *columnReader) leave() {
	if c.pages != nil {
		_ = c.pages.Close() // there is nothing that could fail: all is in memory
	}
	c.chunk, c.pages, c.at, c.page, c.values = span{}, nil, 0, nil, nil
}

// read makes cells those of n rows from row at of the group on, which is none that was read before.
func (c *columnReader) read(cells []plan.Cell, at int64, n int) ([]plan.Cell, error) {
	if cap(cells) < n {
		cells = make([]plan.Cell, chunkRows)
	}
	cells = cells[:n]
	if c.index < 0 {
		for i := range cells {
			cells[i] = plan.Cell{Null: true}
		}
		return cells, nil
	}
	skip := int(at - c.at)
	c.at = at + int64(n)
	if c.kind == plan.Strings {
		return cells, c.readLists(cells, skip)
	}
	for i := -skip; i < n; {
		if err := c.fill(); err != nil {
			return nil, err
		}
		some := min(n-i, len(c.values))
		for j := max(0, -i); j < some; j++ {
			cells[i+j] = cellOf(c.kind, &c.values[j])
		}
		c.values = c.values[some:]
		i += some
	}
	return cells, nil
}

// readLists does so for lists, which have a value for each element, and one when they have none.
func (c *columnReader) readLists(cells []plan.Cell, skip int) error {
	for i := -skip - 1; ; c.values = c.values[1:] {
		err := c.fill()
		if errors.Is(err, errShort) && i == len(cells)-1 {
			return nil
		}
		if err != nil {
			return err
		}
		v := &c.values[0]
		if v.RepetitionLevel() == 0 {
			if i == len(cells)-1 {
				return nil
			}
			if i++; i >= 0 {
				cells[i] = plan.Cell{Null: c.optional && v.DefinitionLevel() == 0, List: cells[i].List[:0]}
			}
		}
		if i >= 0 && v.DefinitionLevel() == c.level {
			cells[i].List = append(cells[i].List, v.ByteArray())
		}
	}
}

// take appends to values those of n rows from row at of the group on, with their levels.
func (c *columnReader) take(values []parquet.Value, at int64, n int) ([]parquet.Value, error) {
	row := int(c.at-at) - 1 // that was read last
	c.at = at + int64(n)
	for {
		err := c.fill()
		if errors.Is(err, errShort) && row == n-1 {
			return values, nil
		}
		if err != nil {
			return values, err
		}
		from, to := 0, 0
		for ; to < len(c.values); to++ {
			if c.values[to].RepetitionLevel() > 0 {
				continue
			}
			if row == n-1 {
				break
			}
			if row++; row == 0 {
				from = to
			}
		}
		if row >= 0 {
			values = append(values, c.values[from:to]...)
		}
		if to < len(c.values) {
			c.values = c.values[to:]
			return values, nil
		}
		c.values = nil
	}
}

// pick moves the values of some rows to the front, and returns how many these are.
func pick(values []parquet.Value, rows []int) (n int) {
	row := -1
	for i := range values {
		if values[i].RepetitionLevel() == 0 {
			if row++; len(rows) > 0 && rows[0] < row {
				rows = rows[1:]
			}
		}
		if len(rows) > 0 && rows[0] == row {
			values[n] = values[i]
			n++
		}
	}
	return n
}

var errShort = errors.New("it has fewer values than the file has rows")

// fill sees to it that there are values.
func (c *columnReader) fill() error {
	for len(c.values) == 0 {
		if c.page == nil {
			page, err := c.pages.ReadPage()
			if errors.Is(err, io.EOF) {
				err = errShort
			}
			if err != nil {
				return err
			}
			c.page = page.Values()
		}
		n, err := c.page.ReadValues(c.buffer)
		c.values = c.buffer[:n]
		switch {
		case errors.Is(err, io.EOF), err == nil && n == 0:
			c.page = nil
		case err != nil:
			return err
		}
	}
	return nil
}

func cellOf(kind plan.Type, v *parquet.Value) plan.Cell {
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
