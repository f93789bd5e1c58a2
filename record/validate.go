package record

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// Validate reports whether doc is one JSON value, as strictly as the package says. The error is a *SyntaxError.
func Validate(doc []byte) error {
	i := next(doc, 0)
	i, f := skipValue(doc, i, 0)
	if f == noFault {
		if i = next(doc, i); i == len(doc) {
			return nil
		}
		f = faultTrailing
	}
	return syntaxError(doc, i, f)
}

// The functions below take the document and where they begin, and return where they ended. With a fault that is the byte
// at fault. None allocates; the only recursion is over nesting, and bounded by MaxDepth.

// next returns where the next byte that is not white space is, or len(d).
func next(d []byte, i int) int {
	if uint(i) < uint(len(d)) && d[i] > ' ' {
		return i
	}
	return skipSpace(d, i)
}

const (
	ones   = 0x0101010101010101
	highs  = 0x8080808080808080
	spaces = ' ' * ones
	flip   = (' ' ^ '"') * ones
)

func skipSpace(d []byte, i int) int {
	for i < len(d) {
		switch d[i] {
		case ' ', '\n', '\t', '\r':
			i++
		default:
			return i
		}
		// Pretty-printed documents have long runs of spaces.
		for i+8 <= len(d) && binary.LittleEndian.Uint64(d[i:]) == spaces {
			i += 8
		}
	}
	return i
}

// skipValue goes over one value. depth counts the arrays and objects around it.
func skipValue(d []byte, i, depth int) (int, fault) {
	if i >= len(d) {
		return i, faultEnd
	}
	switch d[i] {
	case '"':
		i, _, f := skipString(d, i+1)
		return i, f
	case '{':
		return skipObject(d, i, depth)
	case '[':
		return skipArray(d, i, depth)
	}
	return skipScalar(d, i)
}

func skipObject(d []byte, i, depth int) (int, fault) {
	if depth == MaxDepth {
		return i, faultDepth
	}
	var f fault
	if i = next(d, i+1); i < len(d) && d[i] == '}' {
		return i + 1, noFault
	}
	for {
		if i, _, f = skipName(d, i); f != noFault {
			return i, f
		}
		if i+1 < len(d) && d[i] == ':' && d[i+1] > ' ' {
			i++
		} else if i, f = skipColon(d, i); f != noFault {
			return i, f
		}
		if i < len(d) && d[i] == '"' { // the commonest value, without another call
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

func skipArray(d []byte, i, depth int) (int, fault) {
	if depth == MaxDepth {
		return i, faultDepth
	}
	var f fault
	if i = next(d, i+1); i < len(d) && d[i] == ']' {
		return i + 1, noFault
	}
	for {
		if i, f = skipValue(d, i, depth+1); f != noFault {
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

// skipName goes over a member's name.
func skipName(d []byte, i int) (int, bool, fault) {
	if i >= len(d) {
		return i, false, faultEnd
	}
	if d[i] != '"' {
		return i, false, faultName
	}
	return skipString(d, i+1)
}

// skipColon goes over the colon and the space around it, to where a value must begin.
func skipColon(d []byte, i int) (int, fault) {
	if i = next(d, i); i >= len(d) {
		return i, faultEnd
	}
	if d[i] != ':' {
		return i, faultColon
	}
	return next(d, i+1), noFault
}

// skipString goes over the rest of a string, from behind its opening quote to behind its closing one, and says whether it
// has escapes.
func skipString(d []byte, i int) (end int, escaped bool, f fault) {
	for i >= 0 && i <= len(d)-8 { // said so, the word is read without more checks
		m := special(binary.LittleEndian.Uint64(d[i : i+8]))
		if m == 0 {
			i += 8
			continue
		}
		if i += bits.TrailingZeros64(m) >> 3; d[i] == '"' {
			return i + 1, false, noFault
		}
		break
	}
	return skipRareString(d, i)
}

// special returns a word in which the high bit of the lowest byte that needs a look is set: the lowest one of x that is a
// control character, a quote, a backslash or not ASCII. Higher bytes may be marked wrongly, by a borrow from below.
// Flipping a bit makes a quote of a space and lets control characters stay what they are, so that one comparison finds both.
func special(x uint64) uint64 {
	return ((x ^ flip) - (' '+1)*ones | ((x ^ '\\'*ones) - ones) | x) & highs
}

// skipRareString is skipString for strings with other things than plain ASCII, and near the document's end.
func skipRareString(d []byte, i int) (end int, escaped bool, f fault) {
	for i < len(d) {
		switch c := d[i]; {
		case c == '"':
			return i + 1, escaped, noFault
		case c == '\\':
			escaped = true
			if i, f = skipEscape(d, i); f != noFault {
				return i, escaped, f
			}
		case c < ' ':
			return i, escaped, faultControl
		case c < utf8.RuneSelf:
			for i++; i >= 0 && i <= len(d)-8; i += 8 {
				if m := special(binary.LittleEndian.Uint64(d[i : i+8])); m != 0 {
					i += bits.TrailingZeros64(m) >> 3
					break
				}
			}
		default:
			r, n := utf8.DecodeRune(d[i:])
			if r == utf8.RuneError && n == 1 {
				return i, escaped, faultUTF8
			}
			i += n
		}
	}
	return i, escaped, faultEnd
}

// skipEscape goes over one escape, from its backslash on.
func skipEscape(d []byte, i int) (int, fault) {
	if i+1 >= len(d) {
		return len(d), faultEnd
	}
	switch d[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2, noFault
	case 'u':
		for j := i + 2; j < i+6; j++ {
			if j >= len(d) {
				return j, faultEnd
			}
			if !isHex(d[j]) {
				return i, faultEscape
			}
		}
		return i + 6, noFault
	}
	return i, faultEscape
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// skipScalar goes over a number, true, false or null.
func skipScalar(d []byte, i int) (int, fault) {
	switch c := d[i]; {
	case c == '-' || isDigit(c):
		return skipNumber(d, i)
	case c == 'n':
		if i+4 <= len(d) && string(d[i:i+4]) == "null" { // the commonest, in one comparison
			return i + 4, noFault
		}
		return skipLiteral(d, i, "null")
	case c == 't':
		return skipLiteral(d, i, "true")
	case c == 'f':
		return skipLiteral(d, i, "false")
	}
	return i, faultValue
}

func skipLiteral(d []byte, i int, word string) (int, fault) {
	for j := range len(word) {
		if i+j >= len(d) {
			return i + j, faultEnd
		}
		if d[i+j] != word[j] {
			return i + j, faultLiteral
		}
	}
	return i + len(word), noFault
}

func skipNumber(d []byte, i int) (int, fault) {
	if d[i] == '-' {
		i++
	}
	if i < len(d) && d[i] == '0' { // a zero stands alone
		i++
	} else {
		var f fault
		if i, f = skipDigits(d, i); f != noFault {
			return i, f
		}
	}
	var f fault
	if i < len(d) && d[i] == '.' {
		if i, f = skipDigits(d, i+1); f != noFault {
			return i, f
		}
	}
	if i < len(d) && d[i]|0x20 == 'e' {
		if i++; i < len(d) && (d[i] == '+' || d[i] == '-') {
			i++
		}
		return skipDigits(d, i)
	}
	return i, noFault
}

// skipDigits goes over one digit or more.
func skipDigits(d []byte, i int) (int, fault) {
	if i >= len(d) {
		return i, faultEnd
	}
	if !isDigit(d[i]) {
		return i, faultNumber
	}
	for i++; i < len(d) && isDigit(d[i]); i++ {
	}
	return i, noFault
}
