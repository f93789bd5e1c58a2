package delivery

import (
	"bytes"
	"encoding/base64"
	"maps"
	"math"
	"slices"
	"time"
	"unicode/utf8"

	"millrace/plan"
)

// sameValue is whether two cells say the same. Whole numbers and others are compared as numbers; values of types that differ otherwise are
// the same only if both are null.
func sameValue(kindA plan.Type, a *plan.Cell, kindB plan.Type, b *plan.Cell) bool {
	if a.Null || b.Null {
		return a.Null && b.Null
	}
	switch {
	case kindA == plan.Long && kindB == plan.Double:
		return sameNumber(a.Int, b.Float)
	case kindA == plan.Double && kindB == plan.Long:
		return sameNumber(b.Int, a.Float)
	case kindA != kindB:
		return false
	}
	switch kindA {
	case plan.Bool:
		return a.Bool == b.Bool
	case plan.Long, plan.Timestamp:
		return a.Int == b.Int
	case plan.Double:
		return a.Float == b.Float || math.IsNaN(a.Float) && math.IsNaN(b.Float)
	case plan.Strings:
		return slices.EqualFunc(a.List, b.List, bytes.Equal)
	}
	return bytes.Equal(a.Bytes, b.Bytes)
}

// sameNumber compares without rounding: a large whole number may have no float64.
func sameNumber(n int64, f float64) bool {
	return f >= -1<<63 && f < 1<<63 && f == math.Trunc(f) && int64(f) == n
}

// shownValue is a cell as JSON can have it. It shares no memory with the cell.
func shownValue(kind plan.Type, c *plan.Cell) any {
	if c.Null {
		return nil
	}
	switch kind {
	case plan.String:
		return string(c.Bytes)
	case plan.Bool:
		return c.Bool
	case plan.Long:
		return c.Int
	case plan.Double:
		switch {
		case math.IsNaN(c.Float):
			return "NaN"
		case math.IsInf(c.Float, 1):
			return "Infinity"
		case math.IsInf(c.Float, -1):
			return "-Infinity"
		}
		return c.Float
	case plan.Timestamp:
		return time.UnixMicro(c.Int).UTC().Format(time.RFC3339Nano)
	case plan.Bytes:
		if utf8.Valid(c.Bytes) {
			return string(c.Bytes)
		}
		return map[string]string{"base64": base64.StdEncoding.EncodeToString(c.Bytes)}
	}
	list := make([]string, len(c.List))
	for i, e := range c.List {
		list[i] = string(e)
	}
	return list
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
