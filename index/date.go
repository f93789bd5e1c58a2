package index

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// defaultFormat is what date fields take unless their mapping says otherwise.
const defaultFormat = "strict_date_optional_time||epoch_millis"

var defaultFormats, _ = parseFormats(defaultFormat)

// format is one way to write an instant: a named one of Elasticsearch's, or a pattern of letters.
type format struct {
	name   string
	layout string // Go's layout of a pattern; empty for named formats
}

// parseFormats reads formats separated by "||".
func parseFormats(s string) ([]format, error) {
	if s == "" {
		s = defaultFormat
	}
	var out []format
	for name := range strings.SplitSeq(s, "||") {
		switch name {
		case "strict_date_optional_time", "date_optional_time", "strict_date_optional_time_nanos", "iso8601",
			"epoch_millis", "epoch_second":
			out = append(out, format{name: name})
		case "strict_date_time", "date_time":
			out = append(out, format{name, "2006-01-02T15:04:05.000Z07:00"})
		case "strict_date_time_no_millis", "date_time_no_millis":
			out = append(out, format{name, "2006-01-02T15:04:05Z07:00"})
		case "strict_date", "date":
			out = append(out, format{name, "2006-01-02"})
		case "basic_date":
			out = append(out, format{name, "20060102"})
		case "strict_year_month", "year_month":
			out = append(out, format{name, "2006-01"})
		case "strict_year", "year":
			out = append(out, format{name, "2006"})
		default:
			layout, err := layoutOf(name)
			if err != nil {
				return nil, err
			}
			out = append(out, format{name, layout})
		}
	}
	return out, nil
}

// layoutOf translates a Java date pattern.
func layoutOf(pattern string) (string, error) {
	var out strings.Builder
	for i := 0; i < len(pattern); {
		c := pattern[i]
		if c == '\'' {
			end := strings.IndexByte(pattern[i+1:], '\'')
			if end < 0 {
				return "", fmt.Errorf("unclosed quote in date format [%s]", pattern)
			}
			if strings.ContainsAny(pattern[i+1:i+1+end], "0123456789MJTZ_") && pattern[i+1:i+1+end] != "T" && pattern[i+1:i+1+end] != "Z" {
				return "", fmt.Errorf("literal text in date format [%s] is not supported", pattern)
			}
			out.WriteString(pattern[i+1 : i+1+end])
			i += end + 2
			continue
		}
		n := 1
		for i+n < len(pattern) && pattern[i+n] == c {
			n++
		}
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			part, ok := map[string]string{
				"yyyy": "2006", "uuuu": "2006", "yy": "06", "MM": "01", "M": "1", "MMM": "Jan", "dd": "02", "d": "2",
				"HH": "15", "mm": "04", "ss": "05", "S": "0", "SS": "00", "SSS": "000", "SSSSSS": "000000", "EEE": "Mon",
				"X": "Z07", "XX": "Z0700", "XXX": "Z07:00", "Z": "-0700",
			}[pattern[i:i+n]]
			if !ok {
				return "", fmt.Errorf("date format [%s] has the unsupported pattern letters [%s]", pattern, pattern[i:i+n])
			}
			if c == 'S' && !strings.HasSuffix(out.String(), ".") && !strings.HasSuffix(out.String(), ",") {
				return "", fmt.Errorf("date format [%s] must have a point before its fraction", pattern)
			}
			out.WriteString(part)
		} else if c >= '0' && c <= '9' || c == '_' {
			return "", fmt.Errorf("date format [%s] has the unsupported character [%c]", pattern, c)
		} else {
			out.WriteString(pattern[i : i+n])
		}
		i += n
	}
	if out.Len() == 0 {
		return "", fmt.Errorf("empty date format")
	}
	return out.String(), nil
}

// parse reads an instant in milliseconds since 1970. Parts that text leaves out are the first there are, or the last with up;
// text without a zone is in loc.
func (f format) parse(text string, loc *time.Location, up bool) (int64, bool) {
	switch {
	case f.name == "epoch_millis" || f.name == "epoch_second":
		whole, fraction, dotted := strings.Cut(text, ".")
		n, err := strconv.ParseInt(whole, 10, 64)
		if err != nil || dotted && strings.Trim(fraction, "0123456789") != "" {
			return 0, false
		}
		if f.name == "epoch_second" {
			if n > maxMillis/1000 || n < minMillis/1000 {
				return 0, false
			}
			n *= 1000
		}
		return n, n <= maxMillis && n >= minMillis
	case f.layout == "":
		t, ok := parseISO(text, loc, up)
		return t, ok
	}
	t, err := time.ParseInLocation(f.layout, text, loc)
	if err != nil {
		return 0, false
	}
	return t.UnixMilli(), t.UnixMilli() <= maxMillis && t.UnixMilli() >= minMillis
}

// The years 0000 to 9999, which is all that the ISO format can say.
const (
	minMillis = -62167219200000
	maxMillis = 253402300799999
)

// print writes an instant.
func (f format) print(ms int64, loc *time.Location) string {
	t := time.UnixMilli(ms).In(loc)
	switch f.name {
	case "epoch_millis":
		return strconv.FormatInt(ms, 10)
	case "epoch_second":
		return strconv.FormatInt(ms/1000, 10)
	}
	if f.layout == "" {
		return t.Format("2006-01-02T15:04:05.000Z07:00")
	}
	return t.Format(f.layout)
}

// parseISO reads strict_date_optional_time: 2026, 2026-11, 2026-11-23, 2026-11-23T09:30:00.123456Z, +01:00, +0100, +01.
func parseISO(s string, loc *time.Location, up bool) (int64, bool) {
	part := func(width, low, high int) (int, bool) {
		if len(s) < width {
			return 0, false
		}
		n := 0
		for _, c := range []byte(s[:width]) {
			if c < '0' || c > '9' {
				return 0, false
			}
			n = n*10 + int(c-'0')
		}
		s = s[width:]
		return n, n >= low && n <= high
	}
	skip := func(c byte) bool {
		if len(s) == 0 || s[0] != c {
			return false
		}
		s = s[1:]
		return true
	}
	year, ok := part(4, 0, 9999)
	if !ok {
		return 0, false
	}
	// given counts the parts that are there: year, month, day, hour, minute, second, fraction.
	at := [7]int{year, 1, 1, 0, 0, 0, 0}
	given := 1
	for _, next := range []struct {
		sep       byte
		low, high int
	}{{'-', 1, 12}, {'-', 1, 31}, {'T', 0, 23}, {':', 0, 59}, {':', 0, 59}} {
		if !skip(next.sep) {
			break
		}
		if next.sep == 'T' && s == "" {
			break // a trailing T is legal
		}
		if at[given], ok = part(2, next.low, next.high); !ok {
			return 0, false
		}
		given++
	}
	if given == 6 && (skip('.') || skip(',')) {
		digits := 0
		for scale := 100; len(s) > 0 && s[0] >= '0' && s[0] <= '9'; scale /= 10 {
			at[6] += int(s[0]-'0') * scale
			s = s[1:]
			digits++
		}
		if digits == 0 || digits > 9 {
			return 0, false
		}
		given++
	}
	if s != "" {
		if given < 4 {
			return 0, false
		}
		if loc, ok = parseZone(s); !ok {
			return 0, false
		}
	}
	t := time.Date(at[0], time.Month(at[1]), at[2], at[3], at[4], at[5], at[6]*1e6, loc)
	if given >= 3 && time.Date(at[0], time.Month(at[1]), at[2], 0, 0, 0, 0, time.UTC).Day() != at[2] {
		return 0, false // the 31st of a month that has 30 days
	}
	if up && given < 7 {
		t = []func() time.Time{
			func() time.Time { return t.AddDate(1, 0, 0) }, func() time.Time { return t.AddDate(0, 1, 0) },
			func() time.Time { return t.AddDate(0, 0, 1) }, func() time.Time { return t.Add(time.Hour) },
			func() time.Time { return t.Add(time.Minute) }, func() time.Time { return t.Add(time.Second) },
		}[given-1]().Add(-time.Millisecond)
	}
	return t.UnixMilli(), true
}

// parseZone reads Z, +01, +0100, +01:00 or a name of the time zone database.
func parseZone(s string) (*time.Location, bool) {
	if s == "Z" || s == "z" || s == "UTC" {
		return time.UTC, true
	}
	if len(s) > 0 && (s[0] == '+' || s[0] == '-') {
		digits := strings.Replace(s[1:], ":", "", 1)
		if len(digits) == 2 {
			digits += "00"
		}
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil || len(digits) != 4 || n/100 > 18 || n%100 > 59 {
			return nil, false
		}
		seconds := int(n/100*3600 + n%100*60)
		if s[0] == '-' {
			seconds = -seconds
		}
		return time.FixedZone("", seconds), true
	}
	return nil, false
}

// zone reads the time_zone of a request.
func zone(s string) (*time.Location, error) {
	if loc, ok := parseZone(s); ok {
		return loc, nil
	}
	if loc, err := time.LoadLocation(s); err == nil && s != "" && s != "Local" {
		return loc, nil
	}
	return nil, illegal("failed to parse time zone [%s]: Unknown time-zone ID", s)
}

// parseDateMath reads an instant with Elasticsearch's arithmetic: now-1d/d, 2026-11-23||+1M/M. With up, what is rounded or left
// out is rounded to the end of its unit.
func parseDateMath(text string, formats []format, loc *time.Location, now time.Time, up bool) (int64, error) {
	fail := func() (int64, error) {
		names := make([]string, len(formats))
		for i, f := range formats {
			names[i] = f.name
		}
		return 0, refuse(400, "parse_exception", "failed to parse date field [%s] with format [%s]", text, strings.Join(names, "||"))
	}
	var t time.Time
	rest, isNow := strings.CutPrefix(text, "now")
	if isNow {
		t = now.Truncate(time.Millisecond).In(loc)
	} else {
		anchor, math, found := strings.Cut(text, "||")
		rest = math
		ok := false
		for _, f := range formats {
			var ms int64
			if ms, ok = f.parse(anchor, loc, up && !found); ok {
				t = time.UnixMilli(ms).In(loc)
				break
			}
		}
		if !ok {
			return fail()
		}
	}
	for rest != "" {
		op := rest[0]
		digits := 1
		for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
			digits++
		}
		if digits >= len(rest) || !strings.ContainsRune("+-/", rune(op)) {
			return fail()
		}
		n := 1
		if digits > 1 {
			var err error
			if n, err = strconv.Atoi(rest[1:digits]); err != nil || n > 1e9 {
				return fail()
			}
		}
		unit := rest[digits]
		rest = rest[digits+1:]
		if op == '/' {
			if digits > 1 {
				return fail()
			}
			start, ok := floorUnit(t, unit)
			if !ok {
				return fail()
			}
			t = start
			if up {
				t, _ = addUnit(t, unit, 1)
				t = t.Add(-time.Millisecond)
			}
			continue
		}
		if op == '-' {
			n = -n
		}
		var ok bool
		if t, ok = addUnit(t, unit, n); !ok {
			return fail()
		}
	}
	if ms := t.UnixMilli(); ms < minMillis || ms > maxMillis {
		return fail()
	}
	return t.UnixMilli(), nil
}

func addUnit(t time.Time, unit byte, n int) (time.Time, bool) {
	switch unit {
	case 'y':
		return addMonths(t, 12*n), true
	case 'M':
		return addMonths(t, n), true
	case 'w':
		return t.AddDate(0, 0, 7*n), true
	case 'd':
		return t.AddDate(0, 0, n), true
	case 'h', 'H':
		return t.Add(time.Duration(n) * time.Hour), n < 2e6 && n > -2e6
	case 'm':
		return t.Add(time.Duration(n) * time.Minute), n < 1e8 && n > -1e8
	case 's':
		return t.Add(time.Duration(n) * time.Second), true
	}
	return t, false
}

// addMonths keeps the day within the month it comes to: 31 January and a month is 28 February, where AddDate says 3 March.
func addMonths(t time.Time, n int) time.Time {
	if n > 200_000 || n < -200_000 {
		return time.UnixMilli(maxMillis + 1)
	}
	first := time.Date(t.Year(), t.Month()+time.Month(n), 1, t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), t.Location())
	last := first.AddDate(0, 1, -1).Day()
	return first.AddDate(0, 0, min(t.Day(), last)-1)
}

// floorUnit returns the start of t's year, month, …, in t's zone.
func floorUnit(t time.Time, unit byte) (time.Time, bool) {
	y, mo, d := t.Date()
	switch unit {
	case 'y':
		return time.Date(y, 1, 1, 0, 0, 0, 0, t.Location()), true
	case 'q':
		return time.Date(y, (mo-1)/3*3+1, 1, 0, 0, 0, 0, t.Location()), true
	case 'M':
		return time.Date(y, mo, 1, 0, 0, 0, 0, t.Location()), true
	case 'w':
		return time.Date(y, mo, d-(int(t.Weekday())+6)%7, 0, 0, 0, 0, t.Location()), true
	case 'd':
		return time.Date(y, mo, d, 0, 0, 0, 0, t.Location()), true
	case 'h', 'H':
		return t.Add(-time.Duration(t.Minute())*time.Minute - time.Duration(t.Second())*time.Second - time.Duration(t.Nanosecond())), true
	case 'm':
		return t.Add(-time.Duration(t.Second())*time.Second - time.Duration(t.Nanosecond())), true
	case 's':
		return t.Add(-time.Duration(t.Nanosecond())), true
	}
	return t, false
}
