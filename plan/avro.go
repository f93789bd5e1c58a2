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

// Decode reads a row that Append wrote into cells, one a column. The cells' bytes are slices of value, and their lists are
// those that cells had, filled anew where they have room: copy a list that is to outlive the next call.
func (s Schema) Decode(value []byte, cells []Cell) error {
	if len(cells) != len(s.Columns) {
		return fmt.Errorf("%d cells for the %d columns of %s", len(cells), len(s.Columns), s.Name)
	}
	d := decoder{rest: value}
	for i := range s.Columns {
		col := &s.Columns[i]
		if err := d.cell(col, &cells[i]); err != nil {
			return fmt.Errorf("column %s of %s: %w", col.Name, s.Name, err)
		}
	}
	if len(d.rest) > 0 {
		return fmt.Errorf("row of %s has %d bytes too many", s.Name, len(d.rest))
	}
	return nil
}

var errTruncated = errors.New("truncated Avro value")

type decoder struct{ rest []byte }

func (d *decoder) cell(col *Column, c *Cell) error {
	if col.Nullable {
		branch, ok := d.long()
		if !ok {
			return errTruncated
		}
		if branch == 0 {
			*c = Cell{Null: true, List: c.List[:0]}
			return nil
		}
		if branch != 1 {
			return fmt.Errorf("union branch %d", branch)
		}
	}
	ok := true
	switch col.Type {
	case String, Bytes:
		var b []byte
		b, ok = d.bytes()
		*c = Cell{Bytes: b}
	case Bool:
		if len(d.rest) < 1 {
			return errTruncated
		}
		*c = Cell{Bool: d.rest[0] != 0}
		d.rest = d.rest[1:]
	case Long, Timestamp:
		var n int64
		n, ok = d.long()
		*c = Cell{Int: n}
	case Double:
		if len(d.rest) < 8 {
			return errTruncated
		}
		*c = Cell{Float: math.Float64frombits(binary.LittleEndian.Uint64(d.rest))}
		d.rest = d.rest[8:]
	case Strings:
		list, err := d.list(c.List[:0])
		*c = Cell{List: list}
		return err
	default:
		return fmt.Errorf("type %d", col.Type)
	}
	if !ok {
		return errTruncated
	}
	return nil
}

func (d *decoder) list(list [][]byte) ([][]byte, error) {
	for {
		n, ok := d.long()
		if !ok {
			return list, errTruncated
		}
		if n == 0 {
			return list, nil
		}
		if n < 0 || n > int64(len(d.rest)) {
			return list, fmt.Errorf("array block of %d", n)
		}
		for range n {
			e, ok := d.bytes()
			if !ok {
				return list, errTruncated
			}
			list = append(list, e)
		}
	}
}

func (d *decoder) long() (int64, bool) {
	if len(d.rest) > 0 && d.rest[0] < 0x80 { // nearly all are
		u := d.rest[0]
		d.rest = d.rest[1:]
		return int64(u>>1) ^ -int64(u&1), true
	}
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		return 0, false
	}
	d.rest = d.rest[n:]
	return v, true
}

func (d *decoder) bytes() ([]byte, bool) {
	n, ok := d.long()
	if !ok || n < 0 || n > int64(len(d.rest)) {
		return nil, false
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b, true
}
