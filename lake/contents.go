package lake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Contents is what a raw table holds at one snapshot, as its manifests say: no data file is opened.
type Contents struct {
	Table    Name
	Snapshot int64   // its id; 0 for a table that nothing was committed to
	Shares   []Share // in order of source type, account, env and month; none is empty
}

// Share is the records of one source type, account, env and month.
type Share struct {
	SourceType string
	Account    string
	Env        string
	Month      time.Time // of event time, UTC: its first instant

	Files   int   // that hold them
	Bytes   int64 // of these files; of one that the selection cuts, the part that its records are estimated to be
	Records Count

	// Oldest and Newest are the event times of the first and the last record. Where the selection cuts a file they are bounds.
	Oldest, Newest time.Time
}

// Count is a number of records. It is exact unless a selection cuts files: what is in them is known from Least to Most.
type Count struct {
	Least, Most int64
	Estimate    int64 // between them: records spread evenly over the time of their file
}

// Exact reports whether the number is known.
func (c Count) Exact() bool { return c.Least == c.Most }

// Plus is the sum of two counts.
func (c Count) Plus(o Count) Count {
	return Count{Least: c.Least + o.Least, Most: c.Most + o.Most, Estimate: c.Estimate + o.Estimate}
}

// Selection chooses records of raw tables. The zero value is all of them.
type Selection struct {
	SourceType, Account, Env string    // empty: every one
	From, To                 time.Time // of event time: From <= it < To. A zero bound is none
}

// ErrEmptyRange is matched by the error for a Selection whose range can hold no record.
var ErrEmptyRange = errors.New("empty range")

// Check returns an error that matches ErrEmptyRange when the range can hold no record.
func (s Selection) Check() error {
	if s.From.IsZero() || s.To.IsZero() || s.From.Before(s.To) {
		return nil
	}
	why := "ends before it begins: exchange the two"
	if s.From.Equal(s.To) {
		why = "ends where it begins, and its end is not part of it: name a later end"
	}
	return fmt.Errorf("%w: from %s to %s it %s", ErrEmptyRange, instant(s.From), instant(s.To), why)
}

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// UnknownError says that a Selection names what the lake holds no records of.
type UnknownError struct {
	What  string // source type, account or env
	Name  string
	Known []string // what there is, sorted
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("the lake has no records of %s %q; it has %s", e.What, e.Name, strings.Join(e.Known, ", "))
}

// Contents answers what each table of a namespace of raw tables holds of a selection, in order of the tables' names. Of each it is one
// snapshot. The error is an *UnknownError when none of the tables, at any time, has records of what is selected by name.
func (l *Lake) Contents(ctx context.Context, namespace string, sel Selection) ([]Contents, error) {
	if err := sel.Check(); err != nil {
		return nil, err
	}
	names, err := l.Tables(ctx)
	if err != nil {
		return nil, err
	}
	var all []Contents
	var parts []partition
	for _, name := range names {
		if name.Namespace != namespace {
			continue
		}
		t, err := l.Lookup(ctx, name)
		if err != nil {
			return nil, err
		}
		held, err := t.extents(ctx)
		if err != nil {
			return nil, err
		}
		for _, m := range held.manifests {
			for i := range m.parts {
				parts = append(parts, m.parts[i].partition)
			}
		}
		all = append(all, held.contents(name, sel))
	}
	return all, sel.known(parts)
}

// Contents is Lake.Contents of one table. A name that it has no records of is no error: another table may have some.
func (t *Table) Contents(ctx context.Context, sel Selection) (Contents, error) {
	if err := sel.Check(); err != nil {
		return Contents{}, err
	}
	if err := t.load(ctx); err != nil {
		return Contents{}, err
	}
	held, err := t.extents(ctx)
	if err != nil {
		return Contents{}, err
	}
	return held.contents(t.name, sel), nil
}

// known returns an error when there is no partition of what s names.
func (s Selection) known(parts []partition) error {
	for _, by := range []struct {
		what, name string
		of         func(partition) string
	}{
		{"source type", s.SourceType, func(p partition) string { return p.sourceType }},
		{"account", s.Account, func(p partition) string { return p.account }},
		{"env", s.Env, func(p partition) string { return p.env }},
	} {
		if by.name == "" || len(parts) == 0 {
			continue
		}
		var names []string
		for _, p := range parts {
			names = append(names, by.of(p))
		}
		slices.Sort(names)
		names = slices.Compact(names)
		if !slices.Contains(names, by.name) {
			return &UnknownError{What: by.what, Name: by.name, Known: names}
		}
		// An env is looked for among those of the account.
		parts = slices.DeleteFunc(slices.Clone(parts), func(p partition) bool { return by.of(p) != by.name })
	}
	return nil
}

func (s Selection) has(p partition) bool {
	return (s.SourceType == "" || s.SourceType == p.sourceType) && (s.Account == "" || s.Account == p.account) && (s.Env == "" || s.Env == p.env)
}

// contents adds up what the files hold of a selection.
func (h held) contents(name Name, sel Selection) Contents {
	from, to := int64(math.MinInt64), int64(math.MaxInt64)
	if !sel.From.IsZero() {
		from = ceilMicro(sel.From)
	}
	if !sel.To.IsZero() {
		to = ceilMicro(sel.To)
	}
	type key struct {
		sourceType, account, env string
		month                    int32
	}
	shares := map[key]*Share{}
	for _, m := range h.manifests {
		for i := range m.parts {
			p := &m.parts[i]
			if !sel.has(p.partition) {
				continue
			}
			month := monthOf(p.day)
			var share *Share
			for _, e := range p.files {
				records := e.within(from, to)
				if records.Most == 0 {
					continue
				}
				if share == nil {
					k := key{p.sourceType, p.account, p.env, month}
					if share = shares[k]; share == nil {
						share = &Share{SourceType: p.sourceType, Account: p.account, Env: p.env, Month: dayTime(month)}
						shares[k] = share
					}
				}
				share.add(e, records, from, to)
			}
		}
	}
	c := Contents{Table: name, Snapshot: h.snapshot}
	for _, s := range shares {
		c.Shares = append(c.Shares, *s)
	}
	slices.SortFunc(c.Shares, func(a, b Share) int {
		return cmp.Or(cmp.Compare(a.SourceType, b.SourceType), cmp.Compare(a.Account, b.Account), cmp.Compare(a.Env, b.Env), a.Month.Compare(b.Month))
	})
	return c
}

func (s *Share) add(e extent, records Count, from, to int64) {
	oldest, newest := time.UnixMicro(max(e.oldest, from)).UTC(), time.UnixMicro(min(e.newest, to-1)).UTC()
	if s.Files == 0 || oldest.Before(s.Oldest) {
		s.Oldest = oldest
	}
	if s.Files == 0 || newest.After(s.Newest) {
		s.Newest = newest
	}
	s.Files++
	s.Records = s.Records.Plus(records)
	if records.Exact() && records.Most == e.records {
		s.Bytes += e.bytes
	} else {
		s.Bytes += portion(e.bytes, records.Estimate, e.records)
	}
}

// within is how many of a file's records are from from to before to.
func (e extent) within(from, to int64) Count {
	if e.newest < from || e.oldest >= to || e.records == 0 {
		return Count{}
	}
	begins, ends := e.oldest >= from, e.newest < to // inside
	if begins && ends {
		return Count{Least: e.records, Most: e.records, Estimate: e.records}
	}
	c := Count{Most: e.records}
	if e.bounded { // there is a record at each end
		for _, inside := range []bool{begins, ends} {
			if inside {
				c.Least++
			} else {
				c.Most--
			}
		}
	}
	span := e.newest - e.oldest + 1
	covered := min(e.newest+1, to) - max(e.oldest, from)
	c.Estimate = min(max(portion(e.records, covered, span), c.Least), c.Most)
	return c
}

// portion is n × part / whole, rounded.
func portion(n, part, whole int64) int64 {
	return int64(math.Round(float64(n) * (float64(part) / float64(whole))))
}

// ceilMicro is the first microsecond, which is what event times are kept to, that is not before t.
func ceilMicro(t time.Time) int64 {
	micro := t.UnixMicro()
	if time.UnixMicro(micro).Before(t) {
		micro++
	}
	return micro
}

// monthOf is the first day of a day's month.
func monthOf(day int32) int32 {
	return day - int32(dayTime(day).Day()) + 1 //nolint:gosec // 1 to 31
}

func dayTime(day int32) time.Time { return time.UnixMicro(int64(day) * microsPerDay).UTC() }
