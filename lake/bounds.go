package lake

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"unicode/utf8"

	"millrace/plan"
)

const boundCharacter = 16 // characters of a string that its bounds keep, as Iceberg's default

// bounds are the least and the greatest value of a column, in Parquet's plain encoding, which for all types but strings is
// also that of Iceberg's single values.
type bounds struct {
	min, max []byte
	known    bool
}

// widen adds the bounds of a row group. It has none when all its values are null.
func (b *bounds) widen(t plan.Type, least, greatest []byte) {
	if least == nil || greatest == nil {
		return
	}
	if t == plan.Double && (math.IsNaN(double(least)) || math.IsNaN(double(greatest))) {
		return // all its values are
	}
	if !b.known {
		b.min, b.max, b.known = least, greatest, true
		return
	}
	if compareValues(t, least, b.min) < 0 {
		b.min = least
	}
	if compareValues(t, greatest, b.max) > 0 {
		b.max = greatest
	}
}

func compareValues(t plan.Type, a, b []byte) int {
	switch t {
	case plan.Long, plan.Timestamp:
		return cmp.Compare(int64(binary.LittleEndian.Uint64(a)), int64(binary.LittleEndian.Uint64(b)))
	case plan.Double:
		return cmp.Compare(double(a), double(b))
	}
	return bytes.Compare(a, b)
}

func double(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) }

// lower and upper are Iceberg's single-value serialisation; strings are cut.
func (b *bounds) lower(t plan.Type) []byte {
	if t != plan.String {
		return bytes.Clone(b.min)
	}
	cut, _ := cutString(b.min)
	return cut
}

// upper is false when no string of the bound's length is high enough.
func (b *bounds) upper(t plan.Type) ([]byte, bool) {
	if t != plan.String {
		return bytes.Clone(b.max), true
	}
	cut, whole := cutString(b.max)
	if whole {
		return cut, true
	}
	// The cut string sorts before the value, its successor after all that begin with it.
	for len(cut) > 0 {
		r, n := utf8.DecodeLastRune(cut)
		cut = cut[:len(cut)-n]
		next := r + 1
		if next == 0xd800 {
			next = 0xe000 // surrogates are no characters
		}
		if next <= utf8.MaxRune {
			return utf8.AppendRune(cut, next), true
		}
	}
	return nil, false
}

func cutString(s []byte) (cut []byte, whole bool) {
	n := 0
	for i := range string(s) {
		if n == boundCharacter {
			return bytes.Clone(s[:i]), false
		}
		n++
	}
	return bytes.Clone(s), true
}
