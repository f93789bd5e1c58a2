package record

import "bytes"

// decimal is a number's exact value: digits × 10^exp, the digits without zeros at either end. Zero has no digits.
type decimal struct {
	digits   []byte
	exp      int64
	negative bool
	huge     bool // the exponent is beyond reckoning; digits and exp say nothing
}

func (d decimal) zero() bool { return len(d.digits) == 0 && !d.huge }

// maxExponent bounds the exponents that are reckoned with: a document's length more or less still fits an int64.
const maxExponent = 1 << 56

// parseDecimal reads a valid number. Digits that lie around a point are put together in buf.
func parseDecimal(raw, buf []byte) decimal {
	var d decimal
	if raw[0] == '-' {
		d.negative = true
		raw = raw[1:]
	}
	mantissa := raw
	var exponent []byte
	if e := bytes.IndexAny(raw, "eE"); e >= 0 {
		mantissa, exponent = raw[:e], raw[e+1:]
	}
	whole, fraction, _ := bytes.Cut(mantissa, []byte{'.'})
	digits := whole
	if len(fraction) > 0 {
		digits = append(append(buf, whole...), fraction...)
		d.exp = -int64(len(fraction))
	}
	digits = bytes.TrimLeft(digits, "0")
	trimmed := bytes.TrimRight(digits, "0")
	d.exp += int64(len(digits) - len(trimmed))
	d.digits = trimmed
	if len(trimmed) == 0 {
		return decimal{}
	}
	if len(exponent) > 0 {
		e, huge := parseExponent(exponent)
		d.exp += e
		d.huge = huge
	}
	return d
}

func parseExponent(s []byte) (e int64, huge bool) {
	negative := s[0] == '-'
	if negative || s[0] == '+' {
		s = s[1:]
	}
	for _, c := range s {
		if e = e*10 + int64(c-'0'); e > maxExponent {
			return 0, true
		}
	}
	if negative {
		e = -e
	}
	return e, false
}
