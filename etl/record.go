package etl

import (
	"millrace/record"
)

// Value is a JSON value inside a record's documents.
type Value = record.Value

// Record is what FlatMap works on: the event, and what FlatMap attached to it.
type Record struct {
	r *Reader
	f *flow
}

// Value returns the value at a path; its kind is Missing when there is none.
func (rec Record) Value(p Path) Value {
	rec.r.reset(rec.f)
	return rec.r.value(p)
}

// String returns the string at a path, and "" when there is none.
func (rec Record) String(p Path) string {
	s, _ := rec.Value(p).Text()
	return s
}

// Each calls fn for each element of the array at a path; for the value itself when it is no array; not at all when there is none.
func (rec Record) Each(p Path, fn func(Value) error) error {
	v := rec.Value(p)
	switch {
	case !v.IsSet():
		return nil
	case v.Kind != record.Array:
		return fn(v)
	}
	return v.Each(fn)
}

// With returns the record with one more document: Map and the joins find v under the name. The bytes are shared.
func (rec Record) With(name string, v Value) Record {
	f := *rec.f
	f.docs = append(append(make([]doc, 0, len(f.docs)+1), f.docs...), doc{name, &content{bytes: v.Raw}})
	return Record{rec.r, &f}
}
