package caliper

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"millrace/record"
)

// ParseDuration reads a length of time: ISO 8601 text (PT3000S, PT50M12S, P1DT2H, P2W; the last part may have a fraction)
// or a number of seconds, as Caliper 1.0 has it. A day is 24 hours. Years and months are refused, because how long they
// are depends on when they begin; so is what is negative or beyond 292 years.
func ParseDuration(v record.Value) (time.Duration, error) {
	switch v.Kind {
	case record.String:
		var buf [64]byte
		b, _ := v.AppendText(buf[:0])
		return parseDurationText(b)
	case record.Number:
		s, err := v.Float()
		if err != nil {
			return 0, err
		}
		if s < 0 || s > math.MaxInt64/1e9 {
			return 0, fmt.Errorf("%s is no number of seconds", v.Raw)
		}
		return time.Duration(math.Round(s * 1e9)), nil
	}
	return 0, fmt.Errorf("%v is not a duration", v.Kind)
}

// durationUnits are the units of a duration in the order they may come in. Those without a length are refused.
var durationUnits = []struct {
	letter byte
	inTime bool // behind the T
	length time.Duration
}{
	{letter: 'Y'},
	{letter: 'M'},
	{letter: 'W', length: 7 * 24 * time.Hour},
	{letter: 'D', length: 24 * time.Hour},
	{letter: 'H', inTime: true, length: time.Hour},
	{letter: 'M', inTime: true, length: time.Minute},
	{letter: 'S', inTime: true, length: time.Second},
}

func parseDurationText(b []byte) (time.Duration, error) {
	fail := func(why string) (time.Duration, error) {
		return 0, fmt.Errorf("%q is not an ISO 8601 duration: %s", clip(b), why)
	}
	if len(b) == 0 || b[0] != 'P' {
		return fail("expected something like PT50M12S")
	}
	var (
		total  time.Duration
		inTime bool
		unit   = -1 // of the last part
	)
	for i := 1; i < len(b); {
		if b[i] == 'T' && !inTime {
			inTime = true
			if i++; i == len(b) {
				return fail("there is nothing after T")
			}
			continue
		}
		from := i
		for i < len(b) && (isDigit(b[i]) || b[i] == '.' || b[i] == ',') {
			i++
		}
		if i == len(b) {
			return fail("the last number has no unit")
		}
		for unit++; unit < len(durationUnits) && (durationUnits[unit].letter != b[i] || durationUnits[unit].inTime != inTime); unit++ {
		}
		if unit == len(durationUnits) {
			return fail(fmt.Sprintf("%q is no unit, or not in its place", b[i]))
		}
		length := durationUnits[unit].length
		if length == 0 {
			return fail("years and months have no fixed length")
		}
		number := strings.Replace(string(b[from:i]), ",", ".", 1)
		value, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return fail(fmt.Sprintf("expected a number before %q", b[i]))
		}
		i++
		if i < len(b) && strings.Contains(number, ".") {
			return fail("only the last part may have a fraction")
		}
		part := math.Round(value * float64(length))
		if part+float64(total) >= math.MaxInt64 {
			return fail("it is beyond 292 years")
		}
		total += time.Duration(part)
	}
	if unit < 0 {
		return fail("it has no parts")
	}
	return total, nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
