package record

import (
	"encoding/binary"
	"math/bits"
)

// string goes over the rest of a string, as skipString does, and hashes its decoded text.
func (p *printer) string(d []byte, i int, s state) (int, state, fault) {
	from, before := i, s
	for i >= 0 && i <= len(d)-16 {
		x := binary.LittleEndian.Uint64(d[i : i+8])
		if m := special(x); m != 0 {
			if i += bits.TrailingZeros64(m) >> 3; d[i] != '"' {
				break
			}
			return i + 1, s.mix(x&below(m), 0, stringA, stringB), noFault
		}
		y := binary.LittleEndian.Uint64(d[i+8 : i+16])
		if m := special(y); m != 0 {
			if i += 8 + bits.TrailingZeros64(m)>>3; d[i] != '"' {
				break
			}
			return i + 1, s.mix(x, y&below(m), stringA, stringB), noFault
		}
		s = s.mix(x, y, textA, textB)
		i += 16
	}
	return p.rareText(d, from, before, stringA, stringB)
}

// name goes over a member's name, hashes it and returns its step, nil when no path goes on with it.
func (p *printer) name(d []byte, i int, s state, n *node) (int, state, *step, fault) {
	if i >= 0 && i <= len(d)-18 && d[i] == '"' {
		x, y, end := binary.LittleEndian.Uint64(d[i+1:i+9]), uint64(0), i+1
		m := special(x)
		if m != 0 {
			x &= below(m)
		} else {
			y = binary.LittleEndian.Uint64(d[i+9 : i+17])
			m = special(y)
			y &= below(m)
			end += 8
		}
		if end += bits.TrailingZeros64(m) >> 3; d[end] == '"' && m != 0 { // shorter than 16 bytes, as nearly all names are
			var found *step
			if n != nil {
				found = n.find(key{x, y}, nil)
			}
			return end + 1, s.mix(x, y, nameA, nameB), found, noFault
		}
	}
	return p.rareName(d, i, s, n)
}

// rareName is name for long names, for those that are not plain ASCII, and near the document's end.
func (p *printer) rareName(d []byte, i int, s state, n *node) (int, state, *step, fault) {
	end, escaped, f := skipName(d, i)
	if f != noFault {
		return end, s, nil, f
	}
	name := d[i+1 : end-1]
	if escaped {
		p.text = appendDecoded(p.text[:0], name)
		name = p.text
	}
	var found *step
	if n != nil {
		found = n.findName(name)
	}
	return end, s.text(name, nameA, nameB), found, noFault
}

// rareText is string for strings that are not plain ASCII, and near the document's end.
func (p *printer) rareText(d []byte, i int, s state, ka, kb uint64) (int, state, fault) {
	end, escaped, f := skipString(d, i)
	if f != noFault {
		return end, s, f
	}
	body := d[i : end-1]
	if escaped {
		p.text = appendDecoded(p.text[:0], body)
		body = p.text
	}
	return end, s.text(body, ka, kb), noFault
}

// number hashes a valid number: its digits, without zeros at either end, and its exponent.
func (p *printer) number(raw []byte, s state) state {
	var (
		digits   uint64 // without the zeros at the end
		zeros    int    // at the end
		exponent int64
		negative uint64
		i        int
	)
	if raw[0] == '-' {
		negative, i = 1, 1
	}
	if len(raw) > i+19 { // the point, or a digit too many for a word
		return p.rareNumber(raw, s)
	}
	for ; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '0':
			zeros++
		case c == '.':
			exponent = int64(i + 1 - len(raw))
		case c > '9':
			return p.rareNumber(raw, s)
		default:
			for ; zeros > 0; zeros-- {
				digits *= 10
			}
			digits = digits*10 + uint64(c-'0')
		}
	}
	return s.decimal(digits, exponent+int64(zeros), negative)
}

// decimal takes in a number of up to 19 digits.
func (s state) decimal(digits uint64, exponent int64, negative uint64) state {
	if digits == 0 {
		exponent, negative = 0, 0
	}
	return s.mix(digits, uint64(exponent)<<1|negative, numberA, numberB)
}

// rareNumber is number for numbers that are long or have an exponent.
func (p *printer) rareNumber(raw []byte, s state) state {
	var buf [64]byte
	n := parseDecimal(raw, buf[:0])
	var negative uint64
	if n.negative {
		negative = 1
	}
	switch {
	case n.huge:
		return s.mix(wordHugeNumber, 0, literalA, literalB).text(raw, stringA, stringB)
	case len(n.digits) > 19:
		return s.mix(wordLongNumber, uint64(n.exp)<<1|negative, literalA, literalB).text(n.digits, stringA, stringB)
	}
	var digits uint64
	for _, c := range n.digits {
		digits = digits*10 + uint64(c-'0')
	}
	return s.decimal(digits, n.exp, negative)
}

func (s state) literal(word uint64) sum { return s.mix(word, 0, literalA, literalB).leaf() }
