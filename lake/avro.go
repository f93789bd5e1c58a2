package lake

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/twmb/avro"
)

// avroFile reads the blocks of an Avro object container file. Values are taken from a block by an avroCursor, which passes over what nobody asks
// for. A library makes values of all there is, or of a chosen part by reflection.
type avroFile struct {
	schema string // of what is in it, as JSON
	codec  string
	mark   []byte // that each block ends with
	rest   []byte
}

const (
	avroMagic    = "Obj\x01"
	avroMarkSize = 16
	avroBlock    = 64 << 20 // bytes that a block may be inflated to
)

func openAvro(content []byte) (*avroFile, error) {
	rest, ok := bytes.CutPrefix(content, []byte(avroMagic))
	if !ok {
		return nil, errors.New("it is no Avro file")
	}
	f := &avroFile{codec: "null"}
	c := avroCursor{bytes: rest}
	for {
		n, _ := c.items()
		if n == 0 {
			break
		}
		for ; n > 0 && c.err == nil; n-- {
			switch key, value := c.text(), c.text(); string(key) {
			case "avro.schema":
				f.schema = string(value)
			case "avro.codec":
				f.codec = string(value)
			}
		}
	}
	f.mark = c.take(avroMarkSize)
	f.rest = rest[c.at:]
	if c.err != nil {
		return nil, fmt.Errorf("its header: %w", c.err)
	}
	return f, nil
}

// next returns the next block: how many values it has, and their bytes, which may use buf. It has no values after the last block.
func (f *avroFile) next(buf *avroBuffer) (values int64, content []byte, err error) {
	for len(f.rest) > 0 {
		c := avroCursor{bytes: f.rest}
		values = c.long()
		packed := c.text()
		mark := c.take(avroMarkSize)
		switch {
		case c.err != nil:
			return 0, nil, c.err
		case values < 0:
			return 0, nil, fmt.Errorf("a block has %d values", values)
		case !bytes.Equal(mark, f.mark):
			return 0, nil, errors.New("a block does not end with the file's mark")
		}
		f.rest = f.rest[c.at:]
		if values == 0 {
			continue
		}
		content, err = buf.unpack(f.codec, packed)
		return values, content, err
	}
	return 0, nil, nil
}

// avroBuffer is where blocks are inflated, one after the other.
type avroBuffer struct {
	content bytes.Buffer
	packed  *bytes.Reader
	inflate io.Reader
}

var avroBuffers = sync.Pool{New: func() any {
	packed := bytes.NewReader(nil)
	return &avroBuffer{packed: packed, inflate: flate.NewReader(packed)}
}}

var unzstd = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderMaxMemory(avroBlock))
})

func (b *avroBuffer) unpack(codec string, packed []byte) ([]byte, error) {
	switch codec {
	case "null":
		return packed, nil
	case "deflate":
		b.packed.Reset(packed)
		if err := b.inflate.(flate.Resetter).Reset(b.packed, nil); err != nil {
			return nil, err
		}
		b.content.Reset()
		n, err := b.content.ReadFrom(io.LimitReader(b.inflate, avroBlock+1))
		if err == nil && n > avroBlock {
			err = errAvroBlock
		}
		return b.content.Bytes(), err
	case "snappy":
		if len(packed) < crc32.Size {
			return nil, io.ErrUnexpectedEOF
		}
		packed, sum := packed[:len(packed)-crc32.Size], packed[len(packed)-crc32.Size:]
		n, err := snappy.DecodedLen(packed)
		if err != nil {
			return nil, err
		}
		if n > avroBlock {
			return nil, errAvroBlock
		}
		content, err := snappy.Decode(nil, packed)
		if err == nil && crc32.ChecksumIEEE(content) != binary.BigEndian.Uint32(sum) {
			err = errors.New("the checksum of a block does not fit it")
		}
		return content, err
	case "zstandard":
		d, err := unzstd()
		if err != nil {
			return nil, err
		}
		return d.DecodeAll(packed, nil)
	}
	return nil, fmt.Errorf("it is compressed by %q; known are null, deflate, snappy and zstandard", codec)
}

var (
	errAvroBlock  = fmt.Errorf("a block has more than %d bytes", avroBlock)
	errAvroNumber = errors.New("a number has more than 64 bits")
)

// avroType is what has to be known of a type to pass over its values. One that takes no bytes is nil.
type avroType struct {
	kind  avroKind
	n     int         // of varints, or bytes
	parts []*avroType // a record's fields, a union's branches, or an array's items
}

type avroKind int

const (
	avroVarints avroKind = iota // n of them: ints, longs, enums
	avroBytes                   // n of them
	avroText                    // a length and so many bytes
	avroRecord
	avroUnion
	avroArray // or map
)

// avroTypeOf compiles a schema in which no name refers to a type.
func avroTypeOf(n *avro.SchemaNode) (*avroType, error) {
	switch n.Type {
	case "null":
		return nil, nil
	case "int", "long", "enum":
		return &avroType{kind: avroVarints, n: 1}, nil
	case "boolean":
		return &avroType{kind: avroBytes, n: 1}, nil
	case "float":
		return &avroType{kind: avroBytes, n: 4}, nil
	case "double":
		return &avroType{kind: avroBytes, n: 8}, nil
	case "fixed":
		if n.Size == 0 {
			return nil, nil
		}
		return &avroType{kind: avroBytes, n: min(n.Size, avroBlock+1)}, nil // more is in no block, and its sums could overflow
	case "bytes", "string":
		return &avroType{kind: avroText}, nil
	case "record", "error":
		fields := make([]*avroType, len(n.Fields))
		for i := range n.Fields {
			var err error
			if fields[i], err = avroTypeOf(&n.Fields[i].Type); err != nil {
				return nil, err
			}
		}
		return avroSequence(fields...), nil
	case "union":
		t := &avroType{kind: avroUnion, parts: make([]*avroType, len(n.Branches))}
		for i := range n.Branches {
			var err error
			if t.parts[i], err = avroTypeOf(&n.Branches[i]); err != nil {
				return nil, err
			}
		}
		return t, nil
	case "array":
		items, err := avroTypeOf(n.Items)
		return &avroType{kind: avroArray, parts: []*avroType{items}}, err
	case "map":
		values, err := avroTypeOf(n.Values)
		return &avroType{kind: avroArray, parts: []*avroType{avroSequence(&avroType{kind: avroText}, values)}}, err
	}
	return nil, fmt.Errorf("its schema has the type %q, which contains itself or is not known", n.Type)
}

// avroSequence is one type for values that follow each other. Nearly all of a manifest is numbers, which are passed over together.
func avroSequence(types ...*avroType) *avroType {
	var parts []*avroType
	for _, t := range types {
		if t == nil {
			continue
		}
		if last := len(parts) - 1; last >= 0 && t.kind == parts[last].kind && t.kind <= avroBytes {
			parts[last] = &avroType{kind: t.kind, n: parts[last].n + t.n}
			continue
		}
		parts = append(parts, t)
	}
	switch len(parts) {
	case 0:
		return nil
	case 1:
		return parts[0]
	}
	return &avroType{kind: avroRecord, parts: parts}
}

// avroCursor takes values from bytes. After an error there is nothing left to take, and values are zero.
type avroCursor struct {
	bytes []byte
	at    int
	err   error
}

func (c *avroCursor) left() int { return len(c.bytes) - c.at }

func (c *avroCursor) fail(err error) {
	if c.at = len(c.bytes); c.err == nil {
		c.err = err
	}
}

func (c *avroCursor) long() int64 {
	if c.at < len(c.bytes) && c.bytes[c.at] < 0x80 {
		v := c.bytes[c.at]
		c.at++
		return int64(v>>1) ^ -int64(v&1)
	}
	v, n := binary.Uvarint(c.bytes[c.at:])
	switch {
	case n == 0:
		c.fail(io.ErrUnexpectedEOF)
		return 0
	case n < 0:
		c.fail(errAvroNumber)
		return 0
	}
	c.at += n
	return int64(v>>1) ^ -int64(v&1) //nolint:gosec // as Avro has signed numbers
}

func (c *avroCursor) int() int32 {
	v := c.long()
	if v != int64(int32(v)) { //nolint:gosec // it is compared
		c.fail(errors.New("a number has more than 32 bits"))
	}
	return int32(v) //nolint:gosec // it was compared
}

func (c *avroCursor) take(n int) []byte {
	if n > c.left() {
		c.fail(io.ErrUnexpectedEOF)
		return nil
	}
	c.at += n
	return c.bytes[c.at-n : c.at : c.at]
}

// text takes what has its length before it.
func (c *avroCursor) text() []byte {
	n := c.long()
	if n < 0 || n > int64(c.left()) {
		c.fail(io.ErrUnexpectedEOF)
		return nil
	}
	return c.take(int(n))
}

// items begins the next block of an array or map: its number of items, 0 after the last block, and their bytes where these are said. Items that
// take no bytes apart, there are never more of them than bytes left.
func (c *avroCursor) items() (n int64, size int) {
	if n = c.long(); n >= 0 {
		return n, 0
	}
	length := c.long()
	if n = -n; n < 0 || length < 0 || length > int64(c.left()) {
		c.fail(io.ErrUnexpectedEOF)
		return 0, 0
	}
	return n, int(length)
}

// branch takes which of n branches a union has.
func (c *avroCursor) branch(n int) (int, bool) {
	i := c.long()
	if i < 0 || i >= int64(n) {
		c.fail(fmt.Errorf("a union of %d types has number %d", n, i))
	}
	return int(i), c.err == nil
}

func (c *avroCursor) skip(t *avroType) {
	if t == nil {
		return
	}
	switch t.kind {
	case avroVarints:
		c.skipVarints(int64(t.n))
	case avroBytes:
		c.take(t.n)
	case avroText:
		c.text()
	case avroRecord:
		for _, f := range t.parts {
			c.skip(f)
		}
	case avroUnion:
		if i, ok := c.branch(len(t.parts)); ok {
			c.skip(t.parts[i])
		}
	case avroArray:
		c.skipItems(t.parts[0])
	}
}

func (c *avroCursor) skipItems(t *avroType) {
	for {
		n, size := c.items()
		switch {
		case n == 0:
			return
		case size > 0:
			c.take(size)
		case t == nil:
		case n > int64(c.left()):
			c.fail(io.ErrUnexpectedEOF)
		case t.kind == avroVarints:
			c.skipVarints(n * int64(t.n))
		default:
			for ; n > 0 && c.err == nil; n-- {
				c.skip(t)
			}
		}
	}
}

func (c *avroCursor) skipVarints(n int64) {
	begin := c.at
	for at := c.at; n > 0 && at < len(c.bytes); at++ {
		if c.bytes[at] < 0x80 {
			n--
			begin = at + 1
		} else if at-begin >= binary.MaxVarintLen64-1 {
			c.fail(errAvroNumber)
			return
		}
	}
	c.at = begin
	if n > 0 {
		c.fail(io.ErrUnexpectedEOF)
	}
}
