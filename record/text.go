package record

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

func hasEscape(body []byte) bool { return bytes.IndexByte(body, '\\') >= 0 }

// appendDecoded appends the text of a valid string's body: what is between its quotes.
func appendDecoded(dst, body []byte) []byte {
	for {
		n := bytes.IndexByte(body, '\\')
		if n < 0 {
			return append(dst, body...)
		}
		dst = append(dst, body[:n]...)
		c := body[n+1]
		body = body[n+2:]
		switch c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r := hex4(body)
			body = body[4:]
			if utf16.IsSurrogate(r) {
				pair := rune(utf8.RuneError)
				if len(body) >= 6 && body[0] == '\\' && body[1] == 'u' {
					pair = utf16.DecodeRune(r, hex4(body[2:]))
				}
				if pair != utf8.RuneError {
					body = body[6:]
				}
				r = pair // a surrogate alone is U+FFFD, and what follows it stands for itself
			}
			dst = utf8.AppendRune(dst, r)
		default: // a quote, a slash, a backslash
			dst = append(dst, c)
		}
	}
}

func hex4(b []byte) rune {
	var r rune
	for _, c := range b[:4] {
		if c >= 'A' {
			c = c&0x0f + 9
		}
		r = r<<4 | rune(c&0x0f)
	}
	return r
}
