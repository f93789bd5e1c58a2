package index

import (
	"math"
	"strconv"
	"strings"
)

// integer returns a JSON number, or a string of one, that is a whole number and fits 64 bits.
func (v *value) integer() (int64, bool) {
	if v.kind != kindNumber && v.kind != kindString {
		return 0, false
	}
	s := v.text()
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, true
	}
	f, ok := parseFloat(s)
	if !ok || f != math.Trunc(f) || f < -(1<<63) || f >= 1<<63 {
		return 0, false
	}
	return int64(f), true
}

// float returns a JSON number, or a string of one, that is finite.
func (v *value) float() (float64, bool) {
	if v.kind != kindNumber && v.kind != kindString {
		return 0, false
	}
	return parseFloat(v.text())
}

// parseFloat takes decimal numbers only: not Go's hexadecimal, underscore, NaN and infinity forms.
func parseFloat(s string) (float64, bool) {
	if strings.Trim(s, "0123456789+-.eE") != "" || s == "" {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil
}

// double is a number in Java's notation for one: always with a fraction, so that clients in typed languages read a double.
type double float64

func (d double) MarshalJSON() ([]byte, error) {
	f := float64(d)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return []byte(`"` + strings.Replace(strconv.FormatFloat(f, 'g', -1, 64), "Inf", "Infinity", 1) + `"`), nil
	}
	if abs := math.Abs(f); abs != 0 && (abs < 1e-3 || abs >= 1e7) {
		s := strconv.FormatFloat(f, 'E', -1, 64)
		mantissa, exponent, _ := strings.Cut(s, "E")
		if !strings.Contains(mantissa, ".") {
			mantissa += ".0"
		}
		e, err := strconv.Atoi(exponent)
		return []byte(mantissa + "E" + strconv.Itoa(e)), err
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return []byte(s), nil
}
