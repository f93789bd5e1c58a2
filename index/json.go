package index

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"unicode/utf16"
	"unicode/utf8"
)

// kind is the JSON type of a value.
type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindArray
	kindObject
)

func (k kind) String() string {
	return [...]string{"null", "boolean", "number", "string", "array", "object"}[k]
}

// value is a parsed JSON value. Objects keep the order of their members, which sorts and composite sources depend on.
type value struct {
	kind kind
	raw  []byte // its bytes in the input
	str  string // of a string: unescaped
	arr  []value
	obj  []member
}

type member struct {
	key string
	val value
}

// get returns the member of an object with the given key.
func (v *value) get(key string) (*value, bool) {
	for i := range v.obj {
		if v.obj[i].key == key {
			return &v.obj[i].val, true
		}
	}
	return nil, false
}

// isTrue reports whether v is the literal true; for kindBool only.
func (v *value) isTrue() bool { return v.raw[0] == 't' }

// text returns a scalar as the string a keyword field takes it for.
func (v *value) text() string {
	if v.kind == kindString {
		return v.str
	}
	return string(v.raw)
}

// maxDepth bounds the nesting of what is parsed. Elasticsearch's parser stops at 1,000, its mappings at 20.
const maxDepth = 200

// parseJSON reads one strict JSON value: no duplicate keys, no invalid UTF-8, nothing after it. The result refers to b.
func parseJSON(b []byte) (value, error) {
	p := parsers.Get().(*parser)
	defer p.release()
	p.b, p.i = b, 0
	p.space()
	v, err := p.value(0)
	if err != nil {
		return value{}, err
	}
	p.space()
	if p.i < len(b) {
		return value{}, p.errorf("unexpected character %q after the value", rune(b[p.i]))
	}
	return v, nil
}

type parser struct {
	b []byte
	i int

	open []member // of the objects that are being read, the inner ones' after the outer ones'
}

// parsers keeps the room for members, which are copied once it is known how many an object has.
var parsers = sync.Pool{New: func() any { return new(parser) }}

func (p *parser) release() {
	if cap(p.open) > 256 { // an unusual one
		return
	}
	clear(p.open[:cap(p.open)])
	*p = parser{open: p.open[:0]}
	parsers.Put(p)
}

func (p *parser) errorf(format string, args ...any) error {
	return fmt.Errorf("invalid JSON at byte %d: %s", p.i, fmt.Sprintf(format, args...))
}

func (p *parser) space() {
	for p.i < len(p.b) {
		switch p.b[p.i] {
		case ' ', '\t', '\n', '\r':
			p.i++
		default:
			return
		}
	}
}

func (p *parser) value(depth int) (v value, err error) {
	if depth > maxDepth {
		return v, p.errorf("nested deeper than %d levels", maxDepth)
	}
	if p.i >= len(p.b) {
		return v, p.errorf("unexpected end")
	}
	start := p.i
	switch c := p.b[p.i]; {
	case c == '{':
		v.kind = kindObject
		v.obj, err = p.object(depth)
	case c == '[':
		v.kind = kindArray
		v.arr, err = p.array(depth)
	case c == '"':
		v.kind = kindString
		v.str, err = p.string()
	case c == 't':
		v.kind = kindBool
		err = p.literal("true")
	case c == 'f':
		v.kind = kindBool
		err = p.literal("false")
	case c == 'n':
		err = p.literal("null")
	case c == '-' || c >= '0' && c <= '9':
		v.kind = kindNumber
		err = p.number()
	default:
		err = p.errorf("unexpected character %q", rune(c))
	}
	v.raw = p.b[start:p.i]
	return v, err
}

func (p *parser) literal(word string) error {
	if len(p.b)-p.i < len(word) || string(p.b[p.i:p.i+len(word)]) != word {
		return p.errorf("unrecognized token")
	}
	p.i += len(word)
	return nil
}

func (p *parser) object(depth int) ([]member, error) {
	p.i++
	first := len(p.open)
	for {
		p.space()
		members := p.open[first:]
		if p.i < len(p.b) && p.b[p.i] == '}' && len(members) == 0 {
			p.i++
			return []member{}, nil
		}
		if p.i >= len(p.b) || p.b[p.i] != '"' {
			return nil, p.errorf("expected a field name")
		}
		key, err := p.string()
		if err != nil {
			return nil, err
		}
		for i := range members {
			// Quadratic, and still faster than a map for the objects there are; large ones are bounded by the next check.
			if members[i].key == key {
				return nil, p.errorf("duplicate field %s", strconv.Quote(key))
			}
		}
		if len(members) >= 2_000 {
			return nil, p.errorf("an object with more than 2000 fields")
		}
		p.space()
		if p.i >= len(p.b) || p.b[p.i] != ':' {
			return nil, p.errorf("expected a colon")
		}
		p.i++
		p.space()
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		p.open = append(p.open, member{key, v})
		more, err := p.more('}')
		if err != nil {
			return nil, err
		}
		if !more {
			members = slices.Clone(p.open[first:])
			p.open = p.open[:first]
			return members, nil
		}
	}
}

func (p *parser) array(depth int) ([]value, error) {
	p.i++
	var items []value
	p.space()
	if p.i < len(p.b) && p.b[p.i] == ']' {
		p.i++
		return items, nil
	}
	for {
		p.space()
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		items = append(items, v)
		more, err := p.more(']')
		if err != nil || !more {
			return items, err
		}
	}
}

// more reads a comma, or the end of the array or object.
func (p *parser) more(end byte) (bool, error) {
	p.space()
	if p.i >= len(p.b) {
		return false, p.errorf("unexpected end")
	}
	c := p.b[p.i]
	p.i++
	switch c {
	case ',':
		return true, nil
	case end:
		return false, nil
	}
	p.i--
	return false, p.errorf("expected a comma or %q", rune(end))
}

func (p *parser) number() error {
	digits := func() bool {
		start := p.i
		for p.i < len(p.b) && p.b[p.i] >= '0' && p.b[p.i] <= '9' {
			p.i++
		}
		return p.i > start
	}
	if p.b[p.i] == '-' {
		p.i++
	}
	switch {
	case p.i < len(p.b) && p.b[p.i] == '0':
		p.i++
	case !digits():
		return p.errorf("malformed number")
	}
	if p.i < len(p.b) && p.b[p.i] == '.' {
		p.i++
		if !digits() {
			return p.errorf("malformed number")
		}
	}
	if p.i < len(p.b) && (p.b[p.i] == 'e' || p.b[p.i] == 'E') {
		p.i++
		if p.i < len(p.b) && (p.b[p.i] == '+' || p.b[p.i] == '-') {
			p.i++
		}
		if !digits() {
			return p.errorf("malformed number")
		}
	}
	return nil
}

func (p *parser) string() (string, error) {
	p.i++
	start := p.i
	plain := true
	for p.i < len(p.b) {
		switch c := p.b[p.i]; {
		case c == '"':
			s := p.b[start:p.i]
			if !utf8.Valid(s) {
				p.i = start
				return "", p.errorf("invalid UTF-8 in a string")
			}
			if plain {
				p.i++
				return string(s), nil
			}
			text, err := unescape(s)
			if err != nil {
				p.i = start
				return "", p.errorf("%s", err)
			}
			p.i++
			return text, nil
		case c < ' ':
			return "", p.errorf("control character in a string")
		case c == '\\':
			plain = false
			p.i += 2
		default:
			p.i++
		}
	}
	p.i = len(p.b)
	return "", p.errorf("unexpected end of a string")
}

var errEscape = errors.New("invalid escape in a string")

// unescape replaces the escapes in the inside of a string literal. A lone surrogate becomes U+FFFD.
func unescape(s []byte) (string, error) {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out = append(out, s[i])
			continue
		}
		i++
		switch s[i] {
		case '"', '\\', '/':
			out = append(out, s[i])
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := hex4(s[i+1:])
			if !ok {
				return "", errEscape
			}
			i += 4
			if utf16.IsSurrogate(r) {
				pair := rune(utf8.RuneError)
				if i+2 < len(s) && s[i+1] == '\\' && s[i+2] == 'u' {
					if low, ok := hex4(s[i+3:]); ok {
						pair = utf16.DecodeRune(r, low)
					}
				}
				if r = pair; r != utf8.RuneError {
					i += 6
				}
			}
			out = utf8.AppendRune(out, r)
		default:
			return "", errEscape
		}
	}
	return string(out), nil
}

func hex4(s []byte) (rune, bool) {
	if len(s) < 4 {
		return 0, false
	}
	for _, c := range s[:4] {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(string(s[:4]), 16, 32)
	return rune(n), err == nil
}
