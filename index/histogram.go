package index

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// histogram is how a date_histogram rounds instants down.
type histogram struct {
	calendar byte          // unit of a calendar interval: m h d w M q y
	fixed    time.Duration // of a fixed one
	loc      *time.Location
	zone     string
	offset   time.Duration
	format   []format
	minimum  *value // of extended_bounds
	maximum  *value

	// changes are the instants at which loc's offset changes, between the first and the last instant there is, with the
	// offset that holds until then; last is the one that holds afterwards. Milliseconds.
	changes []zoneChange
	last    int64
}

type zoneChange struct{ at, before int64 }

const day = 24 * time.Hour

func (a *bucketAgg) dateHistogram(params *value) error {
	a.minimum = 0
	a.order = []bucketOrder{{"_key", false}}
	src := source{kind: "date_histogram"}
	for i := range params.obj {
		m := &params.obj[i]
		var err error
		switch m.key {
		case "field":
			src.field = m.val.text()
		case "min_doc_count":
			var n int
			n, err = natural(m)
			a.minimum = int64(n)
		case "order":
			a.order, err = parseOrder(&m.val)
		case "keyed":
			var on bool
			if on, err = boolean(m); on {
				err = unparsable("[date_histogram] [keyed] is not supported")
			}
		case "extended_bounds":
			if err = only("extended_bounds", &m.val, "min", "max"); err == nil {
				src.histogram.minimum, _ = m.val.get("min")
				src.histogram.maximum, _ = m.val.get("max")
			}
		default:
			var known bool
			if known, err = src.histogram.param(m); !known && err == nil {
				err = unparsable("[date_histogram] unknown field [%s]", m.key)
			}
		}
		if err != nil {
			return err
		}
	}
	if err := src.histogram.check(a.name); err != nil {
		return err
	}
	a.sources = []source{src}
	return needField(a.kind, a.name, src.field)
}

// param reads a parameter that date_histogram has everywhere.
func (h *histogram) param(m *member) (known bool, err error) {
	text := m.val.text()
	switch m.key {
	case "calendar_interval":
		unit, ok := map[string]byte{
			"minute": 'm', "1m": 'm', "hour": 'h', "1h": 'h', "day": 'd', "1d": 'd', "week": 'w', "1w": 'w',
			"month": 'M', "1M": 'M', "quarter": 'q', "1q": 'q', "year": 'y', "1y": 'y', "second": 's', "1s": 's',
		}[text]
		if !ok {
			return true, illegal("The supplied interval [%s] could not be parsed as a calendar interval.", text)
		}
		h.calendar = unit
	case "fixed_interval":
		if h.fixed, err = duration(text); err != nil || h.fixed <= 0 {
			return true, illegal("failed to parse setting [date_histogram.fixedInterval] with value [%s] as a time value: it must be a positive number with a unit: ms, s, m, h or d", text)
		}
	case "offset":
		h.offset, err = duration(strings.TrimPrefix(text, "+"))
	case "time_zone":
		h.zone = text
		h.loc, err = zone(text)
	case "format":
		if h.format, err = parseFormats(text); err != nil {
			err = illegal("Invalid format: [%s]: %s", text, err)
		}
	default:
		return false, nil
	}
	return true, err
}

func (h *histogram) check(name string) error {
	if (h.calendar == 0) == (h.fixed == 0) {
		return illegal("Required one of [calendar_interval] and [fixed_interval] for date_histogram [%s]", name)
	}
	if h.loc == nil {
		h.loc = time.UTC
	}
	switch h.calendar {
	case 's':
		h.fixed = time.Second
	case 'm':
		h.fixed = time.Minute
	case 'h':
		h.fixed = time.Hour
	case 'd':
		h.fixed = day
	}
	return nil
}

// duration reads a number with a unit.
func duration(s string) (time.Duration, error) {
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyz")
	unit, ok := map[string]time.Duration{
		"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": day,
	}[s[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || n > int64(200*366*day/unit) || n < -int64(200*366*day/unit) {
		return 0, illegal("failed to parse [%s] as a time value: it must be a whole number with a unit, ms, s, m, h or d, of at most 200 years", s)
	}
	return time.Duration(n) * unit, nil
}

// small reports an interval of at most an hour: it is rounded in the offset that holds at the instant, and its keys are in UTC.
// The keys of longer ones are local until they are shown, so that a day with a change of clocks is one bucket.
func (h *histogram) small() bool { return h.fixed > 0 && h.fixed <= time.Hour }

// prepare finds the changes of the zone's offset between two instants.
func (h *histogram) prepare(first, last int64) {
	// Beyond these years the offset is taken to be what it is at their ends.
	const low, high = -2_840_140_800_000, 7_258_118_400_000 // 1880, 2200
	first, last = max(first, low), min(last, high)
	h.changes = nil
	t := time.UnixMilli(first).In(h.loc)
	for {
		_, seconds := t.Zone()
		h.last = int64(seconds) * 1000
		_, end := t.ZoneBounds()
		if end.IsZero() || end.UnixMilli() > last {
			return
		}
		h.changes = append(h.changes, zoneChange{end.UnixMilli(), h.last})
		t = end
	}
}

func (h *histogram) offsetAt(ms int64) int64 {
	for _, c := range h.changes {
		if ms < c.at {
			return c.before
		}
	}
	return h.last
}

// sql rounds the instant v.
func (h *histogram) sql(v string) string {
	zone := strconv.FormatInt(h.last, 10)
	if len(h.changes) > 0 {
		zone = "CASE"
		for _, c := range h.changes {
			zone += fmt.Sprintf(" WHEN %s < %d THEN %d", v, c.at, c.before)
		}
		zone += fmt.Sprintf(" ELSE %d END", h.last)
	}
	local := fmt.Sprintf("(%s + (%s) - (%d))", v, zone, h.offset.Milliseconds())
	modulo := func(shift, by int64) string {
		return fmt.Sprintf("(((%s + %d) %% %d + %[3]d) %% %[3]d)", local, shift, by)
	}
	switch h.calendar {
	case 'M', 'q', 'y':
		unit := map[byte]string{'M': "month", 'q': "quarter", 'y': "year"}[h.calendar]
		return fmt.Sprintf("epoch_ms(date_trunc('%s', make_timestamp(%s * 1000)))", unit, local)
	case 'w':
		return fmt.Sprintf("(%s - %s)", local, modulo((3*day).Milliseconds(), (7*day).Milliseconds())) // 1970 began on a Thursday
	}
	if h.small() {
		return fmt.Sprintf("(%s - %s)", v, modulo(0, h.fixed.Milliseconds()))
	}
	return fmt.Sprintf("(%s - %s)", local, modulo(0, h.fixed.Milliseconds()))
}

// instant turns a key of sql into the instant at which its bucket begins.
func (h *histogram) instant(key int64) int64 {
	if h.small() {
		return key
	}
	return h.utc(key) + h.offset.Milliseconds()
}

// utc returns the first instant at which clocks show local or, when they skip it, later.
func (h *histogram) utc(local int64) int64 {
	for _, c := range h.changes {
		// The first offset under which local comes before the change.
		if at := local - c.before; at < c.at {
			return at
		}
		next := h.offsetAt(c.at)
		if local-next < c.at {
			return c.at // skipped
		}
	}
	return local - h.last
}

// key is the inverse of instant for keys, and rounds other instants down.
func (h *histogram) key(ms int64) int64 {
	if h.small() {
		local := ms + h.offsetAt(ms) - h.offset.Milliseconds()
		by := h.fixed.Milliseconds()
		return ms - (local%by+by)%by
	}
	local := ms + h.offsetAt(ms) - h.offset.Milliseconds()
	if h.calendar == 0 || h.calendar == 'd' {
		by := h.fixed.Milliseconds()
		return local - (local%by+by)%by
	}
	t, _ := floorUnit(time.UnixMilli(local).UTC(), h.calendar)
	return t.UnixMilli()
}

// next returns the key after a key.
func (h *histogram) next(key int64) int64 {
	t := time.UnixMilli(key).UTC()
	switch h.calendar {
	case 'M':
		return addMonths(t, 1).UnixMilli()
	case 'q':
		return addMonths(t, 3).UnixMilli()
	case 'y':
		return addMonths(t, 12).UnixMilli()
	case 'w':
		return key + (7 * day).Milliseconds()
	}
	return key + h.fixed.Milliseconds()
}

// bounds are the keys of extended_bounds, nil where there is none.
func (h *histogram) bounds(u unified, now time.Time) (low, high *int64, err error) {
	for _, b := range []struct {
		v  *value
		to **int64
	}{{h.minimum, &low}, {h.maximum, &high}} {
		if b.v == nil || b.v.kind == kindNull {
			continue
		}
		ms, ok := b.v.integer()
		if !ok {
			formats := h.format
			if formats == nil {
				formats, _ = parseFormats(u.format) // checked when it was mapped
			}
			if ms, err = parseDateMath(b.v.text(), formats, h.loc, now, false); err != nil {
				return nil, nil, err
			}
		}
		if ms < minMillis || ms > maxMillis {
			return nil, nil, illegal("[extended_bounds] has an instant out of range: [%s]", b.v.raw)
		}
		*b.to = &ms
	}
	if low != nil && high != nil && *low > *high {
		return nil, nil, illegal("[extended_bounds.min][%d] cannot be greater than [extended_bounds.max][%d]", *low, *high)
	}
	return low, high, nil
}
