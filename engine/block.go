package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"unsafe"

	"millrace/plan"
)

// A block holds the rows of one epoch; docs/formats/outbox.md draws it. Tables are named, not numbered, because the plan
// that reads a block may be a later version of the one that wrote it.
//
//	length u32 │ crc32c u32 │ epoch · tables · rows
//	           └ of the body  (uvarints and length-prefixed bytes)
const blockHeader = 8

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	flagDeleted = 1 << iota
	flagFirst
)

// appendBlock appends the block of an epoch's rows to dst.
func appendBlock(dst []byte, p *plan.Plan, epoch uint64, rows []plan.Row) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, blockHeader)...)
	dst = binary.AppendUvarint(dst, epoch)
	dst = binary.AppendUvarint(dst, uint64(len(p.Tables)))
	for i := range p.Tables {
		dst = appendString(dst, p.Tables[i].Name)
	}
	dst = binary.AppendUvarint(dst, uint64(len(rows)))
	for i := range rows {
		r := &rows[i]
		var flags byte
		if r.Deleted {
			flags |= flagDeleted
		}
		if r.First {
			flags |= flagFirst
		}
		dst = binary.AppendUvarint(dst, uint64(r.Table))
		dst = append(dst, flags)
		dst = appendString(dst, r.ID)
		dst = binary.AppendUvarint(dst, r.Rev)
		dst = binary.AppendVarint(dst, r.EventTime)
		dst = appendString(dst, r.Account)
		dst = appendString(dst, r.Env)
		dst = binary.AppendUvarint(dst, uint64(len(r.Sources)))
		for _, s := range r.Sources {
			dst = appendString(dst, s)
		}
		dst = appendString(dst, r.Value)
	}
	body := dst[start+blockHeader:]
	binary.LittleEndian.PutUint32(dst[start:], uint32(len(body)))
	binary.LittleEndian.PutUint32(dst[start+4:], crc32.Checksum(body, castagnoli))
	return dst
}

func appendString[S ~string | ~[]byte](dst []byte, s S) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

var errBadBlock = errors.New("the rows' bytes are not what was written")

// checkBlock returns the body of the block that b is, or what is wrong with it.
func checkBlock(b []byte) ([]byte, error) {
	if len(b) < blockHeader || int(binary.LittleEndian.Uint32(b)) != len(b)-blockHeader {
		return nil, fmt.Errorf("%w: length", errBadBlock)
	}
	if crc32.Checksum(b[blockHeader:], castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, fmt.Errorf("%w: checksum", errBadBlock)
	}
	return b[blockHeader:], nil
}

// parseBlock appends the rows of block b, which is of the given epoch, to dst, as rows of the plan's tables. Their texts, and their
// values where the table has not changed since, are slices of b: it must stay as it is, and a row of it holds all of it.
func parseBlock(dst []plan.Row, p *plan.Plan, past []pastTable, b []byte, epoch uint64) ([]plan.Row, error) {
	body, err := checkBlock(b)
	if err != nil {
		return dst, err
	}
	d := blockReader{rest: body}
	if e := d.uvarint(); e != epoch {
		return dst, fmt.Errorf("%w: block of epoch %d instead of %d", errBadBlock, e, epoch)
	}
	tables := make([]int, d.count())
	names := make([]string, len(tables))
	conversions := make([]*plan.Conversion, len(tables))
	for i := range tables {
		names[i] = string(d.bytes())
		t, conv, ok, err := resolve(p, past, names[i], epoch)
		if err != nil {
			return dst, fmt.Errorf("unpublished rows of table %s: %w", names[i], err)
		}
		conversions[i] = conv
		if !ok {
			t = -1
		}
		tables[i] = t
	}
	for n := d.count(); n > 0 && !d.bad; n-- {
		r := plan.Row{Epoch: epoch}
		t := d.uvarint()
		if t >= uint64(len(tables)) {
			d.bad = true
			break
		}
		if r.Table = tables[t]; r.Table < 0 {
			return dst, fmt.Errorf("unpublished rows of table %s would be lost: the plan of %s %s has no such table", names[t], p.App, p.Version)
		}
		flags := d.byte()
		r.Deleted, r.First = flags&flagDeleted != 0, flags&flagFirst != 0
		r.ID = d.text()
		r.Rev = d.uvarint()
		r.EventTime = d.varint()
		r.Account, r.Env = d.text(), d.text()
		if n := d.count(); n > 0 {
			r.Sources = make([]string, n)
		}
		for i := range r.Sources {
			r.Sources[i] = d.text()
		}
		if v := d.bytes(); len(v) > 0 {
			if r.Value = v; conversions[t] != nil {
				if r.Value, err = conversions[t].Append(nil, v); err != nil {
					return dst, fmt.Errorf("unpublished row %s of table %s: %w", r.ID, names[t], err)
				}
			}
		}
		dst = append(dst, r)
	}
	if d.bad || len(d.rest) > 0 {
		return dst, fmt.Errorf("%w: body", errBadBlock)
	}
	return dst, nil
}

// blockReader reads a body whose checksum was right; bad stands for a fault of the writer.
type blockReader struct {
	rest []byte
	bad  bool
}

func (d *blockReader) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	d.skip(n)
	return v
}

func (d *blockReader) varint() int64 {
	v, n := binary.Varint(d.rest)
	d.skip(n)
	return v
}

func (d *blockReader) skip(n int) {
	if n <= 0 {
		d.rest, d.bad = nil, true
		return
	}
	d.rest = d.rest[n:]
}

// count reads a number of things that take at least a byte each.
func (d *blockReader) count() int {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.rest, d.bad = nil, true
		return 0
	}
	return int(n)
}

func (d *blockReader) byte() byte {
	if len(d.rest) == 0 {
		d.bad = true
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

func (d *blockReader) bytes() []byte {
	n := d.count()
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

// text is bytes as a text, without a copy: the rows of a publication are many, and are all held while it lasts.
func (d *blockReader) text() string {
	b := d.bytes()
	return unsafe.String(unsafe.SliceData(b), len(b))
}
