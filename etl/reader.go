package etl

import (
	"fmt"
	"time"

	"millrace/caliper"
	"millrace/record"
)

// Problem is one reason why a record became no row.
type Problem struct {
	Path   Path // empty when the reason has none
	Reason string
}

func (p Problem) String() string {
	if p.Path == "" {
		return p.Reason
	}
	return string(p.Path) + ": " + p.Reason
}

// Reader gives Map the values of a record and of the entities joined to it.
//
// A method without a default makes its column required: a value that is missing, null or of another type is a Problem. With a
// default, a missing or null value is that; one of another type is a Problem still. The reader keeps every problem, and the
// record goes to the dead letters with all of them.
type Reader struct {
	t        *transformer
	flow     *flow
	docs     []readerDoc // beside flow.docs
	problems []Problem
	next     int     // in t.trail: the path that Map will ask for next, if it asks as it did before
	asked    *[]Path // not nil while the paths of a Map are looked for
}

type readerDoc struct {
	scanned bool
	values  []record.Value
	err     error
}

func (r *Reader) reset(f *flow) {
	r.flow, r.problems, r.next = f, nil, 0
	for len(r.docs) < len(f.docs) {
		r.docs = append(r.docs, readerDoc{})
	}
	for i := range r.docs {
		r.docs[i].scanned = false
	}
}

// value returns the value of the first alternative of p that is set, or one that is not.
func (r *Reader) value(p Path) record.Value {
	if r.asked != nil {
		*r.asked = append(*r.asked, p)
		return record.Value{}
	}
	if r.next < len(r.t.trail) && r.t.trail[r.next].path == p {
		r.next++
		return r.find(r.t.trail[r.next-1])
	}
	if i, ok := r.t.known[p]; ok {
		r.next = i + 1
		return r.find(r.t.trail[i])
	}
	late, err := r.t.resolve(p)
	if err != nil {
		r.problem(p, "%s", err)
		return record.Value{}
	}
	return r.find(late)
}

// find is value for a path that is ready for look-ups.
func (r *Reader) find(p resolvedPath) record.Value {
	var null record.Value
	for i := range p.alternatives {
		v := r.lookup(p.path, &p.alternatives[i])
		if v.IsSet() {
			return v
		}
		if v.Kind == record.Null {
			null = v
		}
	}
	return null
}

func (r *Reader) lookup(p Path, a *resolved) record.Value {
	if a.compared > 0 && r.flow.light {
		if a.compared > len(r.flow.compared) { // f has passed the last join that it was light for
			return record.Value{}
		}
		return r.flow.compared[a.compared-1]
	}
	for i := range r.flow.docs {
		d := &r.flow.docs[i]
		if d.name != a.doc {
			continue
		}
		if d.bytes == nil {
			return record.Value{}
		}
		if a.slot < 0 { // a path that no probe saw: asked for behind a branch
			var v [1]record.Value
			if err := a.late.Scan(d.bytes, v[:]); err != nil {
				r.problem(p, "%s", err)
			}
			return v[0]
		}
		if a.layout.made(d.content) {
			return a.layout.value(d.content, a.slot)
		}
		rd := &r.docs[i]
		if !rd.scanned {
			rd.scanned = true
			rd.values, rd.err = a.layout.values(d.content, rd.values)
		}
		if rd.err != nil {
			r.problem(p, "%s", rd.err)
			return record.Value{}
		}
		return rd.values[a.slot]
	}
	return record.Value{}
}

func (r *Reader) problem(p Path, format string, args ...any) {
	r.problems = append(r.problems, Problem{p, fmt.Sprintf(format, args...)})
}

// EventTime returns when the event was: its eventTime, or when it was sent if it tells none. Of an entity, when its version began.
func (r *Reader) EventTime() time.Time { return time.UnixMicro(r.flow.eventTime).UTC() }

// Has reports whether the path leads to a value other than null.
func (r *Reader) Has(p Path) bool { return r.value(p).IsSet() }

// String returns a string.
func (r *Reader) String(p Path, def ...string) string { return read(r, p, def, text) }

// Term returns a Caliper term, however it is spelled: "Learner" for http://purl.imsglobal.org/vocab/lis/v2/membership#Learner.
func (r *Reader) Term(p Path, def ...string) string { return read(r, p, def, term) }

// Float returns a number.
func (r *Reader) Float(p Path, def ...float64) float64 { return read(r, p, def, record.Value.Float) }

// Int returns a whole number.
func (r *Reader) Int(p Path, def ...int64) int64 { return read(r, p, def, record.Value.Int) }

// Bool returns true or false.
func (r *Reader) Bool(p Path, def ...bool) bool { return read(r, p, def, boolean) }

// Time returns a point in time.
func (r *Reader) Time(p Path, def ...time.Time) time.Time { return read(r, p, def, caliper.ParseTime) }

// Duration returns a length of time written as ISO 8601 has it: PT50M12S.
func (r *Reader) Duration(p Path, def ...time.Duration) time.Duration {
	return read(r, p, def, caliper.ParseDuration)
}

// Strings returns an array of strings; one string alone is an array of one.
func (r *Reader) Strings(p Path, def ...[]string) []string { return read(r, p, def, texts) }

// Opt returns a nullable column: nil for a missing or null value. One of another type is a Problem.
func Opt[T string | float64 | int64 | bool | time.Time | time.Duration](r *Reader, p Path) *T {
	v := r.value(p)
	if !v.IsSet() {
		return nil
	}
	out := new(T)
	var err error
	switch out := any(out).(type) {
	case *string:
		*out, err = text(v)
	case *float64:
		*out, err = v.Float()
	case *int64:
		*out, err = v.Int()
	case *bool:
		*out, err = boolean(v)
	case *time.Time:
		*out, err = caliper.ParseTime(v)
	case *time.Duration:
		*out, err = caliper.ParseDuration(v)
	}
	if err != nil {
		r.problem(p, "%s", err)
		return nil
	}
	return out
}

// OptTerm is Opt of a Caliper term.
func OptTerm(r *Reader, p Path) *string {
	v := r.value(p)
	if !v.IsSet() {
		return nil
	}
	s, err := term(v)
	if err != nil {
		r.problem(p, "%s", err)
		return nil
	}
	return &s
}

func read[T any](r *Reader, p Path, def []T, parse func(record.Value) (T, error)) (zero T) {
	v := r.value(p)
	if !v.IsSet() {
		if len(def) > 0 {
			return def[0]
		}
		if v.Kind == record.Null {
			r.problem(p, "is null, and the column is required")
		} else {
			r.problem(p, "is missing, and the column is required")
		}
		return zero
	}
	out, err := parse(v)
	if err != nil {
		r.problem(p, "%s", err)
		return zero
	}
	return out
}

func text(v record.Value) (string, error) {
	s, ok := textOf(v)
	if !ok {
		return "", fmt.Errorf("want a string, have %s", v.Kind)
	}
	return s, nil
}

func term(v record.Value) (string, error) {
	s, err := text(v)
	return caliper.Term(s), err
}

func boolean(v record.Value) (bool, error) {
	b, ok := v.Bool()
	if !ok {
		return false, fmt.Errorf("want true or false, have %s", v.Kind)
	}
	return b, nil
}

func texts(v record.Value) ([]string, error) {
	if v.Kind == record.String {
		s, err := text(v)
		return []string{s}, err
	}
	if v.Kind != record.Array {
		return nil, fmt.Errorf("want an array of strings, have %s", v.Kind)
	}
	out := []string{}
	err := v.Each(func(e record.Value) error {
		s, err := text(e)
		out = append(out, s)
		return err
	})
	return out, err
}
