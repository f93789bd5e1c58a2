package record

import (
	"cmp"
	"slices"
	"sync"
)

// Fingerprint returns a hash of the JSON value that doc is. Documents that differ only in white space, in the order of
// members, in how characters are escaped or in how a number is spelled (1, 1.0, 10e-1) have the same one; of duplicate
// members the last counts. It is the same on every machine and for every version of the program. The error is a
// *SyntaxError. Numbers with an exponent of more than 16 digits are only the same when they are spelled the same.
//
// Two documents that nobody has made for it collide about as seldom as 120 random bits do. It is no defence against somebody
// who looks for collisions.
func Fingerprint(doc []byte) ([16]byte, error) { return noPaths.ScanFingerprint(doc, nil) }

var noPaths Paths

// ScanFingerprint is Scan and Fingerprint in one pass over doc, at about two thirds of their cost. It allocates nothing
// but scratch space, which it keeps for the next document. With an error all of out is Missing.
func (p *Paths) ScanFingerprint(doc []byte, out []Value) ([16]byte, error) {
	out = out[:p.count]
	clear(out)
	scratch := printers.Get().(*printer)
	i, total, f := scratch.value(doc, next(doc, 0), 0, state{rootA, rootB}, &p.root, out)
	scratch.release()
	if f == noFault {
		if i = next(doc, i); i == len(doc) {
			return total.bytes(), nil
		}
		f = faultTrailing
	}
	clear(out)
	return [16]byte{}, syntaxError(doc, i, f)
}

// A document's hash is the sum of the hashes of its leaves: of strings, numbers, literals, and arrays and objects with nothing
// in them. A leaf's hash begins with the names and places of the path that leads to it. So it says which values are where,
// which is all that there is to say of a JSON value, and it does not matter in which order members come: nothing is sorted.
//
// What the members of an object contribute is kept until it ends, so that a duplicate can take its predecessor's place.

// printer is the scratch space of one fingerprint.
type printer struct {
	members []member // of the open objects, each of which has the upper end
	text    []byte   // decoded
}

// member is what a name that has been seen in an object contributes: the sum of the leaves of its value.
type member struct {
	name  state
	value sum
}

var printers = sync.Pool{New: func() any { return &printer{members: make([]member, 0, fewMembers)} }}

// release gives p back for the next document, unless it has grown beyond what is worth keeping.
func (p *printer) release() {
	const most = 1 << 20
	p.members = p.members[:0]
	if cap(p.members)*32+cap(p.text) <= most {
		printers.Put(p)
	}
}

// The functions below follow the document as those of Validate do and, where n is not nil, the trie as those of Scan. s is what
// the path to the value hashes to.

// value goes over the value at n's place and hashes it.
func (p *printer) value(d []byte, i, depth int, s state, n *node, out []Value) (int, sum, fault) {
	if i >= len(d) {
		return i, sum{}, faultEnd
	}
	var (
		h sum
		f fault
	)
	from := i
	switch d[i] {
	case '"':
		if i, s, f = p.string(d, i+1, s); f != noFault {
			return i, h, f
		}
		h = s.leaf()
		if n != nil {
			for c := n.id; c != nil; c = c.id { // the step id on a string is the string
				for _, e := range c.ends {
					out[e] = Value{Raw: d[from:i:i], Kind: String}
				}
			}
		}
	case '{':
		i, h, f = p.object(d, i, depth, s, n, out)
	case '[':
		i, h, f = p.array(d, i, depth, s, n, out)
	default:
		i, h, f = p.scalar(d, i, s)
	}
	if f != noFault {
		return i, h, f
	}
	if n != nil && n.ends != nil {
		v := Value{Raw: d[from:i:i], Kind: kindOf(d[from])}
		for _, e := range n.ends {
			out[e] = v
		}
	}
	return i, h, noFault
}

func (p *printer) object(d []byte, i, depth int, s state, n *node, out []Value) (int, sum, fault) {
	var (
		f      fault
		seen   uint64 // of n's steps
		filter uint64 // a bit for each name, several names to a bit
	)
	if depth == MaxDepth {
		return i, sum{}, faultDepth
	}
	if i = next(d, i+1); i < len(d) && d[i] == '}' {
		return i + 1, s.literal(wordEmptyObject), noFault
	}
	if n != nil && n.table == nil {
		n = nil
	}
	base := len(p.members)
	for {
		var (
			step *step
			m    member
		)
		if i, m.name, step, f = p.name(d, i, s, n); f != noFault {
			return i, sum{}, f
		}
		if i+1 < len(d) && d[i] == ':' && d[i+1] > ' ' {
			i++
		} else if i, f = skipColon(d, i); f != noFault {
			return i, sum{}, f
		}
		isString := i < len(d) && d[i] == '"'
		switch {
		case step != nil:
			if seen&step.bit == step.bit { // a duplicate, or one of too many to tell
				for _, b := range step.node.below {
					out[b] = Value{}
				}
			}
			seen |= step.bit
			if isString && step.node.plain >= 0 { // the commonest: one path ends at a string
				from := i
				var end state
				i, end, f = p.string(d, i+1, m.name)
				if f == noFault {
					v := &out[step.node.plain]
					v.Raw, v.Kind = d[from:i:i], String
				}
				m.value = end.leaf()
			} else {
				i, m.value, f = p.value(d, i, depth+1, m.name, step.node, out)
			}
		case isString:
			var end state
			i, end, f = p.string(d, i+1, m.name)
			m.value = end.leaf()
		case i < len(d) && d[i] == '{':
			i, m.value, f = p.object(d, i, depth+1, m.name, nil, nil)
		case i < len(d) && d[i] != '[':
			i, m.value, f = p.scalar(d, i, m.name)
		default:
			i, m.value, f = p.value(d, i, depth+1, m.name, nil, nil)
		}
		if f != noFault {
			return i, sum{}, f
		}
		if bit := uint64(1) << (m.name.a & 63); filter&bit == 0 {
			filter |= bit
			p.members = append(p.members, m)
		} else {
			p.addOrReplace(base, m)
		}
		if i = next(d, i); i >= len(d) {
			return i, sum{}, faultEnd
		}
		switch d[i] {
		case ',':
			i = next(d, i+1)
		case '}':
			return i + 1, p.total(base), noFault
		default:
			return i, sum{}, faultComma
		}
	}
}

// fewMembers is up to how many members an object's names are compared with each other. In a larger one they are sorted when it
// ends.
const fewMembers = 64

// addOrReplace notes a member that may be a duplicate of one from base on.
//
//go:noinline // it would take registers from object's loop
func (p *printer) addOrReplace(base int, m member) {
	if members := p.members[base:]; len(members) <= fewMembers {
		for i := range members {
			if members[i].name == m.name {
				members[i].value = m.value
				return
			}
		}
	}
	p.members = append(p.members, m)
}

// total forgets the members from base on and returns the sum of their values: of those of one name the last one's.
func (p *printer) total(base int) (total sum) {
	members := p.members[base:]
	p.members = p.members[:base]
	if len(members) > fewMembers {
		slices.SortStableFunc(members, func(m, o member) int {
			return cmp.Or(cmp.Compare(m.name.a, o.name.a), cmp.Compare(m.name.b, o.name.b))
		})
		for i := 1; i < len(members); i++ {
			if members[i].name == members[i-1].name {
				members[i-1].value = sum{}
			}
		}
	}
	for i := range members {
		total = total.plus(members[i].value)
	}
	return total
}

func (p *printer) array(d []byte, i, depth int, s state, n *node, out []Value) (int, sum, fault) {
	var (
		total, h sum
		f        fault
	)
	if depth == MaxDepth {
		return i, total, faultDepth
	}
	if i = next(d, i+1); i < len(d) && d[i] == ']' {
		return i + 1, s.literal(wordEmptyArray), noFault
	}
	for k := 0; ; k++ {
		var c *node
		if n != nil {
			c = n.element(k)
		}
		if i, h, f = p.value(d, i, depth+1, s.mix(uint64(k), 0, indexA, indexB), c, out); f != noFault {
			return i, total, f
		}
		total = total.plus(h)
		if i = next(d, i); i >= len(d) {
			return i, total, faultEnd
		}
		switch d[i] {
		case ',':
			i = next(d, i+1)
		case ']':
			return i + 1, total, noFault
		default:
			return i, total, faultComma
		}
	}
}

func (p *printer) scalar(d []byte, i int, s state) (int, sum, fault) {
	end, f := skipScalar(d, i)
	if f != noFault {
		return end, sum{}, f
	}
	switch d[i] {
	case 'n':
		return end, s.literal(wordNull), noFault
	case 't':
		return end, s.literal(wordTrue), noFault
	case 'f':
		return end, s.literal(wordFalse), noFault
	}
	return end, p.number(d[i:end], s).leaf(), noFault
}
