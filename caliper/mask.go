package caliper

import (
	"bytes"
	"unicode/utf8"

	"millrace/record"
)

// mask returns a copy of body, as long, in which the faults that do not touch the structure are covered up: bytes that may
// not stand in a string become question marks, arrays and objects that nest too deep become a zero and spaces. What is
// left is scanned strictly to find where the items lie, so every other fault still counts.
func mask(body []byte) []byte {
	m := bytes.Clone(body)
	depth := 0
	for i := 0; i < len(m); {
		switch m[i] {
		case '"':
			i = maskString(m, i+1)
			continue
		case '{', '[':
			if depth == record.MaxDepth {
				end := closing(m, i)
				if end < 0 {
					return m
				}
				m[i] = '0'
				for i++; i < end; i++ {
					m[i] = ' '
				}
				continue
			}
			depth++
		case '}', ']':
			depth--
		}
		i++
	}
	return m
}

// maskString covers up the faults of the string whose first character is at i, and returns where it ends.
func maskString(m []byte, i int) int {
	for i < len(m) {
		switch c := m[i]; {
		case c == '"':
			return i + 1
		case c == '\\':
			if n := escapeLength(m[i:]); n > 0 {
				i += n
				continue
			}
			m[i] = '?'
			i++
		case c < ' ':
			m[i] = '?'
			i++
		case c < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRune(m[i:])
			if r == utf8.RuneError && n == 1 {
				m[i] = '?'
			}
			i += n
		}
	}
	return i
}

// escapeLength returns how long the escape at the beginning of b is; 0 when it is none.
func escapeLength(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	if b[1] != 'u' {
		if bytes.IndexByte([]byte(`"\/bfnrt`), b[1]) >= 0 {
			return 2
		}
		return 0
	}
	if len(b) < 6 {
		return 0
	}
	for _, c := range b[2:6] {
		if !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'f') {
			return 0
		}
	}
	return 6
}

// closing returns where the array or object that begins at i ends; -1 when it does not.
func closing(m []byte, i int) int {
	for depth := 0; i < len(m); i++ {
		switch m[i] {
		case '"':
			i = maskString(m, i+1) - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}
