package record

import "encoding/binary"

// Scan goes over doc once, checks that it is JSON and puts the value of the i-th path into out[i], Missing where there is
// none. out must have Len elements. It does not allocate. With an error, which is a *SyntaxError, all of out is Missing.
func (p *Paths) Scan(doc []byte, out []Value) error {
	out = out[:p.count]
	clear(out)
	s := scan{doc: doc, out: out, longest: p.longest}
	i, f := s.value(next(doc, 0), 0, &p.root)
	if f == noFault {
		if i = next(doc, i); i == len(doc) {
			return nil
		}
		f = faultTrailing
	}
	clear(out)
	return syntaxError(doc, i, f)
}

// scan is one run of Scan. Its functions follow the document and the trie together; what no path leads through is left
// to the functions of Validate.
type scan struct {
	doc     []byte
	out     []Value
	longest int
}

// value goes over the value at n's place.
func (s *scan) value(i, depth int, n *node) (int, fault) {
	d := s.doc
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
				s.out[e] = Value{Raw: d[from:i:i], Kind: String}
			}
		}
	case '{':
		if n.names == nil {
			i, f = skipObject(d, i, depth)
		} else {
			i, f = s.object(i, depth, n)
		}
	case '[':
		if n.at == nil {
			i, f = skipArray(d, i, depth)
		} else {
			i, f = s.array(i, depth, n)
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
			s.out[e] = v
		}
	}
	return i, noFault
}

func (s *scan) object(i, depth int, n *node) (int, fault) {
	d := s.doc
	if depth == MaxDepth {
		return i, faultDepth
	}
	var (
		f       fault
		escaped bool
		seen    uint64
	)
	if i = next(d, i+1); i < len(d) && d[i] == '}' {
		return i + 1, noFault
	}
	for {
		from := i
		if i, escaped, f = skipName(d, i); f != noFault {
			return i, f
		}
		var m *named
		if escaped {
			m = s.escapedName(n, d[from+1:i-1])
		} else {
			m = n.find(d, from+1, i-1)
		}
		if i, f = skipColon(d, i); f != noFault {
			return i, f
		}
		switch {
		case m != nil:
			if seen&m.bit == m.bit { // a duplicate, or one of too many to tell
				for _, b := range m.node.below {
					s.out[b] = Value{}
				}
			}
			seen |= m.bit
			i, f = s.value(i, depth+1, m.node)
		case i < len(d) && d[i] == '"':
			i, _, f = skipString(d, i+1)
		default:
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

func (s *scan) array(i, depth int, n *node) (int, fault) {
	d := s.doc
	if depth == MaxDepth {
		return i, faultDepth
	}
	var f fault
	if i = next(d, i+1); i < len(d) && d[i] == ']' {
		return i + 1, noFault
	}
	for k := 0; ; k++ {
		var c *node
		for _, x := range n.at {
			if x.index == k {
				c = x.node
				break
			}
		}
		if c != nil {
			i, f = s.value(i, depth+1, c)
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

// find returns n's step with the name d[from:to], which has no escapes, or nil.
func (n *node) find(d []byte, from, to int) *named {
	head := headOf(d[from:], to-from)
	if n.filter&filterBit(head, to-from) == 0 {
		return nil
	}
	for i := range n.names {
		m := &n.names[i]
		if m.head == head && len(m.name) == to-from && (to-from <= 8 || m.name[8:] == string(d[from+8:to])) {
			return m
		}
	}
	return nil
}

// escapedName is find for a name with escapes.
func (s *scan) escapedName(n *node, body []byte) *named {
	const longestEscape = 6 // bytes that spell one byte: \u0041
	if len(body) > longestEscape*s.longest {
		return nil
	}
	var buf [256]byte
	name := appendDecoded(buf[:0], body)
	return n.find(name, 0, len(name))
}

// headOf returns the first n bytes of b, at most eight, as a number.
func headOf(b []byte, n int) uint64 {
	if len(b) >= 8 {
		h := binary.LittleEndian.Uint64(b)
		if n < 8 {
			h &= 1<<(8*n) - 1
		}
		return h
	}
	var h uint64
	for i := min(n, len(b)) - 1; i >= 0; i-- {
		h = h<<8 | uint64(b[i])
	}
	return h
}

func filterBit(head uint64, n int) uint64 {
	return 1 << ((head ^ head>>13 ^ uint64(n)*7) & 63)
}
