package etl

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
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

// scan validates bytes, finds its fingerprint, fills values, which are of the layout's length, and appends the slots to dst:
//
//	a bit for each path: is it set? │ of each that is: offset and length, 2 bytes each, or 4 in a document of 64 KiB and more
//
// Any path is found in them without reading the others.
func (l *layout) scan(bytes []byte, values []record.Value, dst []byte) (slots []byte, fingerprint [16]byte, err error) {
	if fingerprint, err = l.parser.ScanFingerprint(bytes, values); err != nil {
		return dst, fingerprint, err
	}
	return l.appendSlots(dst, bytes, values), fingerprint, nil
}

func (l *layout) appendSlots(dst, bytes []byte, values []record.Value) []byte {
	from := len(dst)
	for range l.bitmap() {
		dst = append(dst, 0)
	}
	base := uintptr(unsafe.Pointer(unsafe.SliceData(bytes)))
	wide := len(bytes) > math.MaxUint16
	for i := range values {
		if values[i].Kind == record.Missing {
			continue
		}
		dst[from+i/8] |= 1 << (i % 8)
		// Values are slices of the document: their distance is the offset.
		off := uintptr(unsafe.Pointer(unsafe.SliceData(values[i].Raw))) - base
		if n := len(values[i].Raw); wide {
			dst = binary.LittleEndian.AppendUint32(dst, uint32(off)) //nolint:gosec // documents are smaller than 4 GiB
			dst = binary.LittleEndian.AppendUint32(dst, uint32(n))   //nolint:gosec // as above
		} else {
			dst = binary.LittleEndian.AppendUint16(dst, uint16(off)) //nolint:gosec // not wide
			dst = binary.LittleEndian.AppendUint16(dst, uint16(n))   //nolint:gosec // as above
		}
	}
	return dst
}

func (l *layout) bitmap() int { return (len(l.paths) + 7) / 8 }

// made reports whether c's slots are this layout's.
func (l *layout) made(c *content) bool { return c.layout == l.hash && len(c.slots) > 0 }

// value returns the value of a path in a document whose slots this layout made.
func (l *layout) value(c *content, slot int) record.Value {
	set, bit := c.slots[slot/8], byte(1)<<(slot%8)
	if set&bit == 0 {
		return record.Value{}
	}
	rank := bits.OnesCount8(set & (bit - 1))
	for _, b := range c.slots[:slot/8] {
		rank += bits.OnesCount8(b)
	}
	var off, n int
	if len(c.bytes) > math.MaxUint16 {
		e := c.slots[l.bitmap()+8*rank:]
		off, n = int(binary.LittleEndian.Uint32(e)), int(binary.LittleEndian.Uint32(e[4:]))
	} else {
		e := c.slots[l.bitmap()+4*rank:]
		off, n = int(binary.LittleEndian.Uint16(e)), int(binary.LittleEndian.Uint16(e[2:]))
	}
	raw := c.bytes[off : off+n : off+n]
	return record.Value{Raw: raw, Kind: kindOf(raw[0])}
}

// values finds all values of a document that another layout scanned, or none.
func (l *layout) values(c *content, values []record.Value) ([]record.Value, error) {
	values = slices.Grow(values[:0], len(l.paths))[:len(l.paths)]
	return values, l.parser.Scan(c.bytes, values)
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
