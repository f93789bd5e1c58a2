package web

import (
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// unknown is shown for a value that nobody could read; never 0.
const unknown = "–"

// formatCount writes n with thousands separators: 1,204,551.
func formatCount(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, s = "−", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// formatNumber is formatCount for what templates hold; a nil pointer is unknown.
func formatNumber(v any) string {
	switch n := v.(type) {
	case int:
		return formatCount(int64(n))
	case int64:
		return formatCount(n)
	case uint64:
		return formatCount(int64(min(n, math.MaxInt64)))
	case *int64:
		if n != nil {
			return formatCount(*n)
		}
	}
	return unknown
}

// formatRate writes a rate per second: 0, 0.4, 12, 1,204.
func formatRate(r *float64) string {
	switch {
	case r == nil || math.IsNaN(*r) || math.IsInf(*r, 0):
		return unknown
	case math.Abs(*r) < 0.05:
		return "0"
	case math.Abs(*r) < 9.95:
		return strconv.FormatFloat(*r, 'f', 1, 64)
	}
	return formatCount(int64(math.Round(*r)))
}

// formatSeconds writes a duration in seconds in its largest fitting unit: 0.4 s, 12 s, 3 min, 5 h, 2 d.
func formatSeconds(s *float64) string {
	switch {
	case s == nil || math.IsNaN(*s) || math.IsInf(*s, 0):
		return unknown
	case *s < 0.05:
		return "0 s"
	case *s < 9.95 && *s != math.Floor(*s):
		return strconv.FormatFloat(*s, 'f', 1, 64) + " s"
	case *s < 120:
		return strconv.FormatFloat(math.Floor(*s), 'f', 0, 64) + " s"
	case *s < 2*3600:
		return strconv.FormatFloat(math.Floor(*s/60), 'f', 0, 64) + " min"
	case *s < 48*3600:
		return strconv.FormatFloat(math.Floor(*s/3600), 'f', 0, 64) + " h"
	}
	return formatCount(int64(*s/86400)) + " d"
}

// formatBytes writes a size in decimal units: 0 B, 640 B, 1.2 MB.
func formatBytes(n int64) string {
	if n < 1000 {
		return formatCount(n) + " B"
	}
	v, units := float64(n), []string{"kB", "MB", "GB", "TB"}
	for i, u := range units {
		v /= 1000
		if v < 999.5 || i == len(units)-1 {
			if v < 9.95 {
				return strconv.FormatFloat(v, 'f', 1, 64) + " " + u
			}
			return formatCount(int64(math.Round(v))) + " " + u
		}
	}
	return unknown
}

// moment is a time as a page shows it: words for reading, the exact instant for the title.
type moment struct {
	Text  string
	Exact string // 2018-08-27 22:13:04 UTC; empty when unknown
	ISO   string // for the datetime attribute
}

// formatTime writes t relative to now within a day, else as the UTC minute.
func formatTime(t, now time.Time) moment {
	if t.IsZero() {
		return moment{Text: unknown}
	}
	m := moment{Exact: t.UTC().Format("2006-01-02 15:04:05 UTC"), ISO: t.UTC().Format(time.RFC3339)}
	d := now.Sub(t)
	switch {
	case d.Abs() >= 24*time.Hour:
		m.Text = t.UTC().Format("2006-01-02 15:04") + " UTC"
	case d.Abs() < time.Second:
		m.Text = "now"
	case d < 0:
		m.Text = "in " + wholeSeconds(-d)
	default:
		m.Text = wholeSeconds(d) + " ago"
	}
	return m
}

// wholeSeconds is formatSeconds without tenths, which would only flicker in a relative time.
func wholeSeconds(d time.Duration) string { return formatSeconds(new(math.Floor(d.Seconds()))) }

// plural picks the word for n: 1 record, 2 records.
func plural(n int64, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// sentence starts s with a capital and ends it with a full stop, for errors shown as text.
func sentence(s string) string {
	s = strings.TrimSpace(s)
	if s == "" {
		return s
	}
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	first, size := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(first)) + s[size:]
}
