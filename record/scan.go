package record

import (
	"encoding/binary"
	"math/bits"
)

// Scan goes over doc once, checks that it is JSON and puts the value of the i-th path into out[i], Missing where there is
// none. out must have Len elements. It does not allocate. With an error, which is a *SyntaxError, all of out is Missing.
func (p *Paths) Scan(doc []byte, out []Value) error {
	out = out[:p.count]
	clear(out)
	i, f := scanValue(doc, next(doc, 0), 0, &p.root, out)
	if f == noFault {
		if i = next(doc, i); i == len(doc) {
			return nil
		}
		f = faultTrailing
	}
	clear(out)
	return syntaxError(doc, i, f)
}

// The functions of a scan follow the document and the trie together; what no path leads through is left to the functions
// of Validate. The results are handed down as an argument so that a caller's array of them can stay on its stack.

// scanValue goes over the value at n's place.
func scanValue(d []byte, i, depth int, n *node, out []Value) (int, fault) {
	if i >= len(d) {
		return i, faultEnd
	}
	var f fault
	from := i
	switch d[i] {
	case '"':
		if i, _, f = skipString(d, i+1); f != noFault {
			return i, f
		}
		for c := n.id; c != nil; c = c.id { // the step id on a string is the string
			for _, e := range c.ends {
				out[e] = Value{Raw: d[from:i:i], Kind: String}
			}
		}
	case '{':
		if n.table == nil {
			i, f = skipObject(d, i, depth)
		} else {
			i, f = scanObject(d, i, depth, n, out)
		}
	case '[':
		if n.at == nil {
			i, f = skipArray(d, i, depth)
		} else {
			i, f = scanArray(d, i, depth, n, out)
		}
	default:
		i, f = skipScalar(d, i)
	}
	if f != noFault {
		return i, f
	}
	if n.ends != nil {
		v := Value{Raw: d[from:i:i], Kind: kindOf(d[from])}
		for _, e := range n.ends {
			out[e] = v
		}
	}
	return i, noFault
}

func scanObject(d []byte, i, depth int, n *node, out []Value) (int, fault) {
	if depth == MaxDepth {
		return i, faultDepth
	}
	var (
		f    fault
		seen uint64
	)
	if i = next(d, i+1); i < len(d) && d[i] == '}' {
		return i + 1, noFault
	}
	for {
		var step *step
		if i, step, f = scanName(d, i, n); f != noFault {
			return i, f
		}
		if i+1 < len(d) && d[i] == ':' && d[i+1] > ' ' {
			i++
		} else if i, f = skipColon(d, i); f != noFault {
			return i, f
		}
		isString := i < len(d) && d[i] == '"'
		if step != nil {
			if seen&step.bit == step.bit { // a duplicate, or one of too many to tell
				for _, b := range step.node.below {
					out[b] = Value{}
				}
			}
			seen |= step.bit
			if isString && step.node.plain >= 0 { // the commonest: one path ends at a string
				from := i
				i, _, f = skipString(d, i+1)
				if f == noFault {
					v := &out[step.node.plain]
					v.Raw, v.Kind = d[from:i:i], String
				}
			} else {
				i, f = scanValue(d, i, depth+1, step.node, out)
			}
		} else if isString {
			i, _, f = skipString(d, i+1)
		} else {
			i, f = skipValue(d, i, depth+1)
		}
		if f != noFault {
			return i, f
		}
		if i = next(d, i); i >= len(d) {
			return i, faultEnd
		}
		switch d[i] {
		case ',':
			i = next(d, i+1)
		case '}':
			return i + 1, noFault
		default:
			return i, faultComma
		}
	}
}

func scanArray(d []byte, i, depth int, n *node, out []Value) (int, fault) {
	if depth == MaxDepth {
		return i, faultDepth
	}
	var f fault
	if i = next(d, i+1); i < len(d) && d[i] == ']' {
		return i + 1, noFault
	}
	for k := 0; ; k++ {
		if c := n.element(k); c != nil {
			i, f = scanValue(d, i, depth+1, c, out)
		} else {
			i, f = skipValue(d, i, depth+1)
		}
		if f != noFault {
			return i, f
		}
		if i = next(d, i); i >= len(d) {
			return i, faultEnd
		}
		switch d[i] {
		case ',':
			i = next(d, i+1)
		case ']':
			return i + 1, noFault
		default:
			return i, faultComma
		}
	}
}

// scanName goes over a member's name and returns its step, nil when no path goes on with it.
func scanName(d []byte, i int, n *node) (int, *step, fault) {
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
			return end + 1, n.find(key{x, y}, nil), noFault
		}
	}
	end, escaped, f := skipName(d, i)
	if f != noFault {
		return end, nil, f
	}
	name := d[i+1 : end-1]
	if !escaped {
		return end, n.findName(name), noFault
	}
	const longestEscape = 6 // bytes that spell one byte: \u0041
	if len(name) > longestEscape*n.longest {
		return end, nil, noFault
	}
	var buf [256]byte
	decoded := appendDecoded(buf[:0], name)
	return end, n.findName(decoded), noFault
}
