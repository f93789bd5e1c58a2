package record

import (
	"cmp"
	"encoding/binary"
	"slices"
	"sync"

	"github.com/zeebo/xxh3"
)

// Fingerprint returns a hash of the JSON value that doc is. Documents that differ only in white space, in the order of
// members, in how characters are escaped or in how a number is spelled (1, 1.0, 10e-1) have the same one; of duplicate
// members the last counts. It is the same on every machine and for every version of the program. The error is a
// *SyntaxError. Numbers with an exponent of more than 16 digits are only the same when they are spelled the same.
func Fingerprint(doc []byte) ([16]byte, error) {
	p := printers.Get().(*printer)
	p.doc = doc
	i, h, f := p.value(next(doc, 0), 0)
	p.release()
	if f == noFault {
		if i = next(doc, i); i == len(doc) {
			return h.Bytes(), nil
		}
		f = faultTrailing
	}
	return [16]byte{}, syntaxError(doc, i, f)
}

// Every value is hashed with its kind's seed over:
//
//	null, true, false   the word
//	number              sign, exponent, digits (see decimal)
//	string              the decoded text
//	array               the elements' hashes
//	object              the hashes of names and values, in the order of the names' hashes
const (
	seedLiteral uint64 = iota + 1
	seedNumber
	seedString
	seedArray
	seedObject
)

// printer is the scratch space of one Fingerprint: two stacks, which every open array or object has the upper end of.
type printer struct {
	doc     []byte
	members []member // of open objects
	hashes  []byte   // of open arrays; above them text that is being decoded or put together
}

type member struct{ name, value xxh3.Uint128 }

var printers = sync.Pool{New: func() any { return new(printer) }}

// release gives p back for the next document, unless it has grown beyond what is worth keeping.
func (p *printer) release() {
	const most = 1 << 20
	p.doc, p.members, p.hashes = nil, p.members[:0], p.hashes[:0]
	if cap(p.members)*32+cap(p.hashes) <= most {
		printers.Put(p)
	}
}

func (p *printer) value(i, depth int) (int, xxh3.Uint128, fault) {
	d := p.doc
	if i >= len(d) {
		return i, xxh3.Uint128{}, faultEnd
	}
	switch d[i] {
	case '"':
		return p.text(i)
	case '{':
		return p.object(i, depth)
	case '[':
		return p.array(i, depth)
	}
	end, f := skipScalar(d, i)
	if f != noFault {
		return end, xxh3.Uint128{}, f
	}
	if kindOf(d[i]) == Number {
		return end, p.number(d[i:end]), noFault
	}
	return end, xxh3.Hash128Seed(d[i:end], seedLiteral), noFault
}

// text hashes the string that begins at i.
func (p *printer) text(i int) (int, xxh3.Uint128, fault) {
	end, escaped, f := skipString(p.doc, i+1)
	if f != noFault {
		return end, xxh3.Uint128{}, f
	}
	body := p.doc[i+1 : end-1]
	if !escaped {
		return end, xxh3.Hash128Seed(body, seedString), noFault
	}
	base := len(p.hashes)
	p.hashes = appendDecoded(p.hashes, body)
	h := xxh3.Hash128Seed(p.hashes[base:], seedString)
	p.hashes = p.hashes[:base]
	return end, h, noFault
}

func (p *printer) number(raw []byte) xxh3.Uint128 {
	var buf [64]byte
	n := parseDecimal(raw, buf[:0])
	if n.huge {
		return xxh3.Hash128Seed(raw, seedNumber)
	}
	base := len(p.hashes)
	sign := byte('+')
	if n.negative {
		sign = '-'
	}
	p.hashes = append(p.hashes, sign)
	p.hashes = binary.LittleEndian.AppendUint64(p.hashes, uint64(n.exp))
	p.hashes = append(p.hashes, n.digits...)
	h := xxh3.Hash128Seed(p.hashes[base:], seedNumber)
	p.hashes = p.hashes[:base]
	return h
}

func (p *printer) array(i, depth int) (int, xxh3.Uint128, fault) {
	d := p.doc
	if depth == MaxDepth {
		return i, xxh3.Uint128{}, faultDepth
	}
	base := len(p.hashes)
	if i = next(d, i+1); i < len(d) && d[i] == ']' {
		return i + 1, xxh3.Hash128Seed(nil, seedArray), noFault
	}
	for {
		var h xxh3.Uint128
		var f fault
		if i, h, f = p.value(i, depth+1); f != noFault {
			return i, h, f
		}
		p.hashes = appendHash(p.hashes, h)
		if i = next(d, i); i >= len(d) {
			return i, h, faultEnd
		}
		switch d[i] {
		case ',':
			i = next(d, i+1)
		case ']':
			h = xxh3.Hash128Seed(p.hashes[base:], seedArray)
			p.hashes = p.hashes[:base]
			return i + 1, h, noFault
		default:
			return i, h, faultComma
		}
	}
}

func (p *printer) object(i, depth int) (int, xxh3.Uint128, fault) {
	d := p.doc
	if depth == MaxDepth {
		return i, xxh3.Uint128{}, faultDepth
	}
	base := len(p.members)
	if i = next(d, i+1); i < len(d) && d[i] == '}' {
		return i + 1, xxh3.Hash128Seed(nil, seedObject), noFault
	}
	for {
		var m member
		var f fault
		switch {
		case i >= len(d):
			return i, m.value, faultEnd
		case d[i] != '"':
			return i, m.value, faultName
		}
		if i, m.name, f = p.text(i); f != noFault {
			return i, m.value, f
		}
		if i, f = skipColon(d, i); f != noFault {
			return i, m.value, f
		}
		if i, m.value, f = p.value(i, depth+1); f != noFault {
			return i, m.value, f
		}
		p.members = append(p.members, m)
		if i = next(d, i); i >= len(d) {
			return i, m.value, faultEnd
		}
		switch d[i] {
		case ',':
			i = next(d, i+1)
		case '}':
			h := p.combine(p.members[base:])
			p.members = p.members[:base]
			return i + 1, h, noFault
		default:
			return i, m.value, faultComma
		}
	}
}

// combine hashes an object's members, which it sorts.
func (p *printer) combine(members []member) xxh3.Uint128 {
	slices.SortStableFunc(members, func(a, b member) int {
		if c := cmp.Compare(a.name.Hi, b.name.Hi); c != 0 {
			return c
		}
		return cmp.Compare(a.name.Lo, b.name.Lo)
	})
	base := len(p.hashes)
	for i, m := range members {
		if i+1 < len(members) && members[i+1].name == m.name {
			continue // the last of several with one name counts, and the sort keeps their order
		}
		p.hashes = appendHash(appendHash(p.hashes, m.name), m.value)
	}
	h := xxh3.Hash128Seed(p.hashes[base:], seedObject)
	p.hashes = p.hashes[:base]
	return h
}

func appendHash(dst []byte, h xxh3.Uint128) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, h.Lo)
	return binary.LittleEndian.AppendUint64(dst, h.Hi)
}
