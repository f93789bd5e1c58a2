package plan

import (
	"fmt"
	"slices"
)

// Conversion makes rows of one version of a schema rows of another.
type Conversion struct {
	from, to Schema
	source   []int // by column of to: the column of from, or -1 for null
	cells    []Cell
}

// NewConversion returns the conversion of rows from one schema to another that Compare allows after it, and nil when their
// encodings are the same. It is not safe for concurrent use.
func NewConversion(from, to Schema) (*Conversion, error) {
	c := &Conversion{from: from, to: to, cells: make([]Cell, len(from.Columns)+len(to.Columns))}
	same := len(from.Columns) == len(to.Columns)
	for i, n := range to.Columns {
		at := slices.IndexFunc(from.Columns, func(o Column) bool { return o.Name == n.Name })
		switch {
		case at < 0 && !n.Nullable:
			return nil, fmt.Errorf("column %s of %s is new and not nullable", n.Name, to.Name)
		case at < 0:
			same = false
		case from.Columns[at].Type != n.Type, from.Columns[at].Nullable && !n.Nullable:
			return nil, fmt.Errorf("column %s of %s has changed its type", n.Name, to.Name)
		default:
			same = same && at == i && from.Columns[at].Nullable == n.Nullable
		}
		c.source = append(c.source, at)
	}
	if same {
		return nil, nil
	}
	return c, nil
}

// Append appends the row value, of the old schema, to dst in the new one.
func (c *Conversion) Append(dst, value []byte) ([]byte, error) {
	was, is := c.cells[:len(c.from.Columns)], c.cells[len(c.from.Columns):]
	if err := c.from.Decode(value, was); err != nil {
		return dst, err
	}
	for i, at := range c.source {
		is[i] = Cell{Null: true}
		if at >= 0 {
			is[i] = was[at]
		}
	}
	return c.to.Append(dst, is)
}
