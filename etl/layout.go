package etl

import (
	"encoding/binary"
	"fmt"
	"slices"
	"unsafe"

	"github.com/zeebo/xxh3"

	"millrace/record"
)

// layout is the set of paths that a plan asks of one kind of document: of every event, or of the entities of one join.
//
// A document is scanned once, when it arrives. Where each path's value lies in it, its slots, then travels with the document,
// through stages and through state, so that later stages read values without scanning again. Slots made by a layout with
// another hash, that of an older app version, are made anew.
type layout struct {
	paths  []string
	index  map[string]int
	hash   uint64
	parser *record.Paths
}

func newLayout(paths []string) (*layout, error) {
	paths = slices.Clone(paths)
	slices.Sort(paths)
	l := &layout{paths: slices.Compact(paths), index: map[string]int{}}
	var b []byte
	for i, p := range l.paths {
		l.index[p] = i
		b = appendString(b, p)
	}
	l.hash = xxh3.Hash(b)
	var err error
	if l.parser, err = record.Compile(l.paths...); err != nil {
		return nil, fmt.Errorf("compile paths: %w", err)
	}
	return l, nil
}

// scan validates bytes and appends their slots to dst: of each path that leads to a value, the distance from the last such
// path, length and offset. values, of the layout's length, is filled.
func (l *layout) scan(bytes []byte, values []record.Value, dst []byte) ([]byte, error) {
	if err := l.parser.Scan(bytes, values); err != nil {
		return dst, err
	}
	base := uintptr(unsafe.Pointer(unsafe.SliceData(bytes)))
	last := -1
	for i := range values {
		if values[i].Kind == record.Missing {
			continue
		}
		// Values are slices of the document: their distance is the offset.
		off := uintptr(unsafe.Pointer(unsafe.SliceData(values[i].Raw))) - base
		dst = binary.AppendUvarint(dst, uint64(i-last))
		dst = binary.AppendUvarint(dst, uint64(len(values[i].Raw)))
		dst = binary.AppendUvarint(dst, uint64(off))
		last = i
	}
	return dst, nil
}

// values finds the values of d: by its slots if this layout made them, by a scan otherwise.
func (l *layout) values(d *doc, values []record.Value) ([]record.Value, error) {
	values = slices.Grow(values[:0], len(l.paths))[:len(l.paths)]
	if d.layout != l.hash || len(d.slots) == 0 {
		return values, l.parser.Scan(d.bytes, values)
	}
	clear(values)
	r := reader{b: d.slots}
	for i := -1; len(r.b) > 0; {
		step, n, off := r.uvarint(), r.uvarint(), r.uvarint()
		if n == 0 || off+n > uint64(len(d.bytes)) || step == 0 || step >= uint64(len(values)-i) {
			return nil, errTruncated
		}
		i += int(step) //nolint:gosec // less than the number of values
		raw := d.bytes[off : off+n : off+n]
		values[i] = record.Value{Raw: raw, Kind: kindOf(raw[0])}
	}
	return values, r.end()
}

// kindOf tells the kind of a valid JSON value from its first byte.
func kindOf(first byte) record.ValueKind {
	switch first {
	case '"':
		return record.String
	case '{':
		return record.Object
	case '[':
		return record.Array
	case 't', 'f':
		return record.Bool
	case 'n':
		return record.Null
	}
	return record.Number
}
