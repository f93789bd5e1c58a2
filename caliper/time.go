package caliper

import (
	"errors"
	"fmt"
	"math"
	"time"

	"millrace/record"
)

// ParseTime reads a point in time, in UTC. Sensors write it as
//   - ISO 8601 text with T or a space, any fraction of a second, and an offset; without an offset it is UTC, which is what
//     Caliper asks for;
//   - a number of milliseconds since 1970, at least 1e11 (in 1973): smaller ones are seconds sent by mistake;
//   - an object that a date library was turned into, with one of $date, iso, value, millis, date (and timezone), epochSecond
//     (and nano), which holds one of the former.
//
// Fractions beyond nanoseconds are cut off. The error says what the value is instead.
func ParseTime(v record.Value) (time.Time, error) { return parseTime(v, 0) }

func parseTime(v record.Value, depth int) (time.Time, error) {
	switch v.Kind {
	case record.String:
		var buf [64]byte
		b, _ := v.AppendText(buf[:0])
		return parseTimeText(b)
	case record.Number:
		return parseMillis(v)
	case record.Object:
		if depth < 2 {
			return parseTimeObject(v, depth)
		}
	}
	return time.Time{}, fmt.Errorf("%v is not a time", v.Kind)
}

func parseMillis(v record.Value) (time.Time, error) {
	const least, most = 1e11, 253402300800000 // the year 10000
	ms, err := v.Float()
	if err != nil {
		return time.Time{}, err
	}
	if ms < least || ms >= most {
		return time.Time{}, fmt.Errorf("%s is no number of milliseconds since 1970", v.Raw)
	}
	whole, fraction := math.Modf(ms)
	return time.UnixMilli(int64(whole)).Add(time.Duration(fraction * float64(time.Millisecond))).UTC(), nil
}

func parseTimeObject(v record.Value, depth int) (time.Time, error) {
	var inner, zone, seconds, nanos, long record.Value
	err := v.Members(func(key []byte, m record.Value) error {
		switch string(key) {
		case "$date", "iso", "value", "millis", "date":
			inner = m
		case "timezone":
			zone = m
		case "epochSecond":
			seconds = m
		case "nano":
			nanos = m
		case "$numberLong":
			long = m
		}
		return nil
	})
	if err != nil {
		return time.Time{}, err
	}
	switch {
	case seconds.IsSet():
		s, err := seconds.Int()
		if err != nil || s < 0 || s >= 253402300800 {
			return time.Time{}, errors.New("its epochSecond is no number of seconds since 1970")
		}
		var n int64
		if nanos.IsSet() {
			if n, err = nanos.Int(); err != nil || n < 0 || n >= 1e9 {
				return time.Time{}, errors.New("its nano is no number of nanoseconds")
			}
		}
		return time.Unix(s, n).UTC(), nil
	case long.IsSet(): // {"$numberLong": "1447582500000"}
		text, _ := long.Text()
		if record.Validate([]byte(text)) != nil {
			return time.Time{}, errors.New("its $numberLong is no number in a string")
		}
		return parseMillis(record.Value{Raw: []byte(text), Kind: record.Number})
	case !inner.IsSet():
		return time.Time{}, errors.New("it is an object without a member that is known to hold a time")
	case zone.IsSet():
		return parseZonedTime(inner, zone)
	}
	return parseTime(inner, depth+1)
}

// parseZonedTime reads what PHP makes of a date: local time in one member, its zone in another.
func parseZonedTime(local, zone record.Value) (time.Time, error) {
	name, _ := zone.Text()
	if name == "UTC" || name == "GMT" {
		name = "Z"
	}
	var buf [96]byte
	b, isString := local.AppendText(buf[:0])
	if !isString {
		return time.Time{}, fmt.Errorf("its date is %v, not a string", local.Kind)
	}
	if _, end, err := parseOffset([]byte(name), 0); name == "" || err != nil || end != len(name) {
		return time.Time{}, fmt.Errorf("its timezone is %s; only UTC and offsets are known here", zone.Raw)
	}
	return parseTimeText(append(b, name...))
}

// parseTimeText reads 2016-11-15T10:15:00.123Z and its like.
func parseTimeText(b []byte) (time.Time, error) {
	fail := func(why string) (time.Time, error) {
		return time.Time{}, fmt.Errorf("%q is not an ISO 8601 time: %s", clip(b), why)
	}
	if len(b) < len("2016-11-15") || b[4] != '-' || b[7] != '-' {
		return fail("expected a date like 2016-11-15")
	}
	year, month, day := digits(b, 0, 4), digits(b, 5, 2), digits(b, 8, 2)
	if year < 0 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return fail("there is no such day")
	}
	if len(b) == 10 {
		return fail("it has no time of day")
	}
	if c := b[10]; c != 'T' && c != 't' && c != ' ' {
		return fail("expected T between the date and the time of day")
	}
	if len(b) < len("2016-11-15T10:15") || b[13] != ':' {
		return fail("expected a time of day like 10:15:00")
	}
	hour, minute, second, nano := digits(b, 11, 2), digits(b, 14, 2), 0, 0
	i := 16
	if i < len(b) && b[i] == ':' {
		second = digits(b, i+1, 2)
		if i += 3; i < len(b) && (b[i] == '.' || b[i] == ',') {
			from := i + 1
			unit := 100_000_000
			for i = from; i < len(b) && isDigit(b[i]); i++ {
				nano += int(b[i]-'0') * unit
				unit /= 10
			}
			if i == from {
				return fail("expected digits after the decimal point")
			}
		}
	}
	// A leap second is read as the second after it.
	if hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60 {
		return fail("there is no such time of day")
	}
	offset, i, err := parseOffset(b, i)
	if err != nil {
		return fail(err.Error())
	}
	if i != len(b) {
		return fail("there is more after its end")
	}
	return time.Date(year, time.Month(month), day, hour, minute, second, nano, time.UTC).Add(-offset), nil
}

// parseOffset reads Z, +01:00, +0100, +01 or nothing.
func parseOffset(b []byte, i int) (time.Duration, int, error) {
	if i >= len(b) {
		return 0, i, nil
	}
	sign := time.Duration(1)
	switch b[i] {
	case 'Z', 'z':
		return 0, i + 1, nil
	case '+':
	case '-':
		sign = -1
	default:
		return 0, i, errors.New("expected Z or an offset like +01:00 at its end")
	}
	hours := digits(b, i+1, 2)
	minutes := 0
	i += 3
	if i < len(b) {
		if b[i] == ':' {
			i++
		}
		minutes = digits(b, i, 2)
		i += 2
	}
	if hours < 0 || hours > 18 || minutes < 0 || minutes > 59 {
		return 0, i, errors.New("there is no such offset")
	}
	return sign * (time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute), i, nil
}

// digits reads n digits at i; -1 when they are not there.
func digits(b []byte, i, n int) int {
	if i+n > len(b) {
		return -1
	}
	v := 0
	for _, c := range b[i : i+n] {
		if !isDigit(c) {
			return -1
		}
		v = v*10 + int(c-'0')
	}
	return v
}

func daysIn(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// clip shortens a text for a message.
func clip(b []byte) string {
	const most = 60
	if len(b) <= most {
		return string(b)
	}
	return string(b[:most]) + "…"
}
