package plan

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// Cell is one value of a row, in the field of its column's type: Int for Long and Timestamp (microseconds), Float for
// Double, Bytes for String and Bytes, List for Strings. Null cells have no value.
type Cell struct {
	Null  bool
	Bool  bool
	Int   int64
	Float float64
	Bytes []byte
	List  [][]byte
}

// Avro returns the Avro schema of the rows, as JSON.
func (s Schema) Avro() string {
	type field struct {
		Name string `json:"name"`
		Doc  string `json:"doc,omitempty"`
		Type any    `json:"type"`
	}
	fields := make([]field, len(s.Columns))
	for i, c := range s.Columns {
		var t any
		switch c.Type {
		case String:
			t = "string"
		case Bool:
			t = "boolean"
		case Long:
			t = "long"
		case Double:
			t = "double"
		case Timestamp:
			t = map[string]string{"type": "long", "logicalType": "timestamp-micros"}
		case Bytes:
			t = "bytes"
		case Strings:
			t = map[string]string{"type": "array", "items": "string"}
		default:
			panic(fmt.Sprintf("column %s of %s has type %d", c.Name, s.Name, c.Type))
		}
		if c.Nullable {
			t = []any{"null", t}
		}
		fields[i] = field{c.Name, c.Doc, t}
	}
	out, err := json.MarshalIndent(struct {
		Type      string  `json:"type"`
		Name      string  `json:"name"`
		Namespace string  `json:"namespace"`
		Fields    []field `json:"fields"`
	}{"record", s.Name, "millrace.table", fields}, "", "  ")
	if err != nil {
		panic(err) // only strings went in
	}
	return string(out)
}

// Append appends a row, one cell a column, to dst in Avro's binary encoding.
//
// It is written by hand because it runs once a row and a reflecting encoder costs four times as much.
func (s Schema) Append(dst []byte, cells []Cell) ([]byte, error) {
	if len(cells) != len(s.Columns) {
		return dst, fmt.Errorf("%d cells for the %d columns of %s", len(cells), len(s.Columns), s.Name)
	}
	for i := range cells {
		col, cell := &s.Columns[i], &cells[i]
		if col.Nullable {
			if cell.Null {
				dst = append(dst, 0)
				continue
			}
			dst = append(dst, 2) // zig-zag of branch 1
		} else if cell.Null {
			return dst, fmt.Errorf("column %s of %s is null and not nullable", col.Name, s.Name)
		}
		switch col.Type {
		case String, Bytes:
			dst = binary.AppendVarint(dst, int64(len(cell.Bytes)))
			dst = append(dst, cell.Bytes...)
		case Bool:
			if cell.Bool {
				dst = append(dst, 1)
			} else {
				dst = append(dst, 0)
			}
		case Long, Timestamp:
			dst = binary.AppendVarint(dst, cell.Int)
		case Double:
			dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(cell.Float))
		case Strings:
			if len(cell.List) > 0 {
				dst = binary.AppendVarint(dst, int64(len(cell.List)))
				for _, e := range cell.List {
					dst = binary.AppendVarint(dst, int64(len(e)))
					dst = append(dst, e...)
				}
			}
			dst = append(dst, 0)
		}
	}
	return dst, nil
}

// Decode reads a row that Append wrote into cells, one a column. The cells' bytes are slices of value.
func (s Schema) Decode(value []byte, cells []Cell) error {
	if len(cells) != len(s.Columns) {
		return fmt.Errorf("%d cells for the %d columns of %s", len(cells), len(s.Columns), s.Name)
	}
	d := decoder{value}
	for i := range s.Columns {
		col := &s.Columns[i]
		cell, err := d.cell(col)
		if err != nil {
			return fmt.Errorf("column %s of %s: %w", col.Name, s.Name, err)
		}
		cells[i] = cell
	}
	if len(d.rest) > 0 {
		return fmt.Errorf("row of %s has %d bytes too many", s.Name, len(d.rest))
	}
	return nil
}

var errTruncated = errors.New("truncated Avro value")

type decoder struct{ rest []byte }

func (d *decoder) cell(col *Column) (c Cell, err error) {
	if col.Nullable {
		branch, err := d.long()
		if err != nil {
			return c, err
		}
		switch branch {
		case 0:
			return Cell{Null: true}, nil
		case 1:
		default:
			return c, fmt.Errorf("union branch %d", branch)
		}
	}
	switch col.Type {
	case String, Bytes:
		c.Bytes, err = d.bytes()
	case Bool:
		if len(d.rest) < 1 {
			return c, errTruncated
		}
		c.Bool, d.rest = d.rest[0] != 0, d.rest[1:]
	case Long, Timestamp:
		c.Int, err = d.long()
	case Double:
		if len(d.rest) < 8 {
			return c, errTruncated
		}
		c.Float, d.rest = math.Float64frombits(binary.LittleEndian.Uint64(d.rest)), d.rest[8:]
	case Strings:
		for {
			n, err := d.long()
			if err != nil {
				return c, err
			}
			if n == 0 {
				return c, nil
			}
			if n < 0 || n > int64(len(d.rest)) {
				return c, fmt.Errorf("array block of %d", n)
			}
			for range n {
				e, err := d.bytes()
				if err != nil {
					return c, err
				}
				c.List = append(c.List, e)
			}
		}
	default:
		err = fmt.Errorf("type %d", col.Type)
	}
	return c, err
}

func (d *decoder) long() (int64, error) {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		return 0, errTruncated
	}
	d.rest = d.rest[n:]
	return v, nil
}

func (d *decoder) bytes() ([]byte, error) {
	n, err := d.long()
	if err != nil {
		return nil, err
	}
	if n < 0 || n > int64(len(d.rest)) {
		return nil, errTruncated
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b, nil
}
