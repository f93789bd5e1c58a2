package index

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// cells are the values of one document by column number: nil, a scalar, or a slice with at least two. Columns past the end have none.
type cells []any

func (c cells) of(f *field) any {
	if f.Column >= len(c) {
		return nil
	}
	return c[f.Column]
}

func (c *cells) set(f *field, cell any) {
	for f.Column >= len(*c) { // the mapping has grown since
		*c = append(*c, nil)
	}
	(*c)[f.Column] = cell
}

// reader takes a document apart into cells, and notes what the mapping lacks for it.
type reader struct {
	m     *mapping // grown in place when owned
	owned bool     // m is a copy of base that may be changed
	id    string
	cells cells
	err   error
}

// read returns the cells of a document. The mapping returned is m, or a larger copy when the document has new fields or first
// puts several values in one; it is also returned with an error, because Elasticsearch keeps what it learned.
//
// With owned, m belongs to the caller's batch and grows in place.
func read(m *mapping, owned bool, id string, doc *value) (cells, *mapping, error) {
	r := reader{m: m, owned: owned, id: id, cells: make(cells, m.Columns)}
	for i := range doc.obj {
		if isMetadata(doc.obj[i].key) {
			return nil, m, documentError("[1:1] Field [%s] is a metadata field and cannot be added inside a document. Use the index API request parameters.", doc.obj[i].key)
		}
	}
	r.object("", doc)
	return r.cells, r.m, r.err
}

func documentError(format string, args ...any) *Error {
	return refuse(400, "document_parsing_exception", format, args...)
}

func (r *reader) object(path string, v *value) {
	if r.m.Objects[path].Disabled {
		return
	}
	for i := range v.obj {
		if r.err != nil {
			return
		}
		name := v.obj[i].key
		if path != "" {
			name = path + "." + name
		}
		r.member(path, name, &v.obj[i].val)
	}
}

func (r *reader) member(path, name string, v *value) {
	if f, ok := r.m.Fields[name]; ok {
		r.leaf(f, v)
		return
	}
	if o, ok := r.m.Objects[name]; ok {
		switch {
		case o.Disabled || v.kind == kindNull:
		case v.kind == kindObject:
			r.object(name, v)
		case v.kind == kindArray:
			for i := range v.arr {
				if r.err == nil {
					r.member(path, name, &v.arr[i])
				}
			}
		default:
			r.err = documentError("[1:1] object mapping for [%s] tried to parse field [%s] as object, but found a concrete value", name, name)
		}
		return
	}
	r.unmapped(path, name, v)
}

// unmapped handles a field that the mapping does not have.
func (r *reader) unmapped(path, name string, v *value) {
	first := v
	for first.kind == kindArray {
		if len(first.arr) == 0 {
			first = &value{kind: kindNull}
			break
		}
		i := 0
		for i < len(first.arr)-1 && first.arr[i].kind == kindNull {
			i++
		}
		first = &first.arr[i]
	}
	switch dynamic := r.m.dynamic(path); {
	case dynamic == "strict":
		within, short := "_doc", name
		if path != "" {
			within, short = path, name[len(path)+1:]
		}
		e := documentError("[1:1] mapping set to strict, dynamic introduction of [%s] within [%s] is not allowed", short, within)
		e.Type = "strict_dynamic_mapping_exception"
		r.err = e
		return
	case dynamic == "false" || first.kind == kindNull:
		return
	}
	if len(r.m.Fields) >= maxFields {
		r.err = illegal("Limit of total fields [%d] has been exceeded while adding new fields [1]", maxFields)
		return
	}
	if r.err = checkPath(name); r.err != nil {
		return
	}
	if !r.owned {
		r.m, r.owned = r.m.clone(), true
	}
	if first.kind == kindObject {
		if r.err = r.m.objectsAbove(name + ".x"); r.err == nil {
			r.member(path, name, v)
		}
		return
	}
	f := &field{Path: name, Type: guess(first)}
	if r.err = r.m.add(f); r.err == nil {
		r.leaf(f, v)
	}
}

// guess is the type that a first value gives a field. Strings are keywords: this server does not analyse text.
func guess(v *value) string {
	switch v.kind {
	case kindBool:
		return typeBoolean
	case kindNumber:
		if _, err := strconv.ParseInt(string(v.raw), 10, 64); err == nil {
			return typeLong
		}
		return typeDouble
	}
	if strings.ContainsAny(v.str, "-:/") { // as in Elasticsearch, a year alone is not enough
		if _, ok := parseISO(v.str, time.UTC, false); ok {
			return typeDate
		}
	}
	return typeKeyword
}

func (r *reader) leaf(f *field, v *value) {
	switch v.kind {
	case kindNull:
		return
	case kindArray:
		for i := range v.arr {
			if r.err == nil {
				r.leaf(r.m.Fields[f.Path], &v.arr[i])
			}
		}
		return
	}
	if f.Column < 0 {
		if v.kind != kindString {
			r.err = fieldError(f, r.id, v, fmt.Errorf("found a %s", v.kind))
		}
		return
	}
	cell, err := f.parse(v)
	if err != nil {
		r.err = fieldError(f, r.id, v, err)
		return
	}
	if cell == nil {
		return
	}
	old := r.cells.of(f)
	if old == nil {
		r.cells.set(f, cell)
		return
	}
	if !f.Multi {
		if !r.owned {
			r.m, r.owned = r.m.clone(), true
		}
		r.m.Fields[f.Path].Multi = true
	}
	if list, ok := old.([]any); ok {
		r.cells.set(f, append(list, cell))
	} else {
		r.cells.set(f, []any{old, cell})
	}
}

func fieldError(f *field, id string, v *value, err error) error {
	preview := v.text()
	if len(preview) > 100 {
		preview = preview[:100]
	}
	return documentError("[1:1] failed to parse field [%s] of type [%s] in document with id '%s'. Preview of field's value: '%s': %s", f.Path, f.Type, id, preview, err)
}

// parse turns a scalar into what the field's column holds; nil when the value is not kept.
func (f *field) parse(v *value) (any, error) {
	if v.kind == kindObject {
		return nil, fmt.Errorf("can't get a value out of an object")
	}
	switch f.Type {
	case typeKeyword:
		s := v.text()
		if f.IgnoreAbove > 0 && utf8.RuneCountInString(s) > f.IgnoreAbove {
			return nil, nil
		}
		if len(s) > 32766 {
			return nil, fmt.Errorf("the value is %d bytes, longer than the 32766 that a keyword may have", len(s))
		}
		return s, nil
	case typeBoolean:
		switch {
		case v.kind == kindBool:
			return v.isTrue(), nil
		case v.kind == kindString && (v.str == "true" || v.str == "false"):
			return v.str == "true", nil
		case v.kind == kindString && v.str == "":
			return false, nil
		}
		return nil, fmt.Errorf("only [true] or [false] are allowed")
	case typeDate:
		return f.parseDate(v)
	case typeDouble, "float", "half_float":
		n, ok := v.float()
		if !ok || math.Abs(n) > largest(f.Type) {
			return nil, fmt.Errorf("not a finite number of type [%s]", f.Type)
		}
		if f.Type != typeDouble {
			n = float64(float32(n))
		}
		return n, nil
	}
	n, ok := v.integer()
	if !ok {
		d, isNumber := v.float() // 1.9 is taken as 1
		if !isNumber || d < -(1<<63) || d >= 1<<63 {
			return nil, fmt.Errorf("not a whole number in the range of a [%s]", f.Type)
		}
		n = int64(d)
	}
	if low := int64(math.MinInt64) >> (64 - bitsOf(f.Type)); n < low || n > ^low {
		return nil, fmt.Errorf("value [%d] is out of range for a [%s]", n, f.Type)
	}
	return n, nil
}

// largest is the largest number of a type of floating-point numbers.
func largest(typ string) float64 {
	switch typ {
	case "float":
		return math.MaxFloat32
	case "half_float":
		return 65504
	}
	return math.MaxFloat64
}

// bitsOf is the size of a type of whole numbers.
func bitsOf(typ string) int {
	switch typ {
	case "integer":
		return 32
	case "short":
		return 16
	case "byte":
		return 8
	}
	return 64
}

func (f *field) parseDate(v *value) (any, error) {
	if v.kind == kindBool {
		return nil, fmt.Errorf("a boolean is not a date")
	}
	formats := defaultFormats
	if f.Format != "" {
		formats, _ = parseFormats(f.Format) // checked when it was mapped
	}
	for _, form := range formats {
		if ms, ok := form.parse(v.text(), time.UTC, false); ok {
			return ms, nil
		}
	}
	name := f.Format
	if name == "" {
		name = defaultFormat
	}
	return nil, fmt.Errorf("failed to parse date field [%s] with format [%s]", v.text(), name)
}
