package index

import (
	"encoding/json"
	"strings"
)

// sourceFilter says which parts of a document a client wants.
type sourceFilter struct {
	none     bool
	includes []string // dotted paths with stars; none given: all
	excludes []string
}

// sourceParams reads _source, _source_includes and _source_excludes of a URL.
func sourceParams(r *request) (f sourceFilter, err error) {
	list := func(name string) []string {
		if r.query.Get(name) == "" {
			return nil
		}
		return strings.Split(r.query.Get(name), ",")
	}
	switch v := r.query.Get("_source"); v {
	case "", "true":
	case "false":
		f.none = true
	default:
		f.includes = list("_source")
	}
	f.includes = append(f.includes, list("_source_includes")...)
	f.excludes = list("_source_excludes")
	return f, nil
}

// parseSource reads the _source of a search.
func parseSource(v *value) (f sourceFilter, err error) {
	list := func(v *value) []string {
		if v.kind == kindString {
			return []string{v.str}
		}
		var out []string
		if v.kind != kindArray {
			err = unparsable("Expected one of [VALUE_BOOLEAN, START_OBJECT] but found [%s] in [_source]", v.raw)
		}
		for _, item := range v.arr {
			if item.kind != kindString {
				err = unparsable("Unknown key for a value [%s] in [_source]", item.raw)
			}
			out = append(out, item.str)
		}
		return out
	}
	switch v.kind {
	case kindBool:
		f.none = !v.isTrue()
	case kindObject:
		for i := range v.obj {
			switch v.obj[i].key {
			case "includes", "include":
				f.includes = list(&v.obj[i].val)
			case "excludes", "exclude":
				f.excludes = list(&v.obj[i].val)
			default:
				return f, unparsable("Unknown key for a value in [_source]: [%s]", v.obj[i].key)
			}
		}
	default:
		f.includes = list(v)
	}
	return f, err
}

// apply returns what the filter leaves of a document; nil when nothing was asked for.
func (f sourceFilter) apply(source []byte) (json.RawMessage, error) {
	if f.none {
		return nil, nil
	}
	if len(f.includes) == 0 && len(f.excludes) == 0 {
		return source, nil
	}
	doc, err := parseJSON(source)
	if err != nil {
		return nil, err
	}
	kept, ok := f.keep("", &doc, len(f.includes) == 0)
	if !ok {
		return json.RawMessage("{}"), nil
	}
	return appendJSON(nil, kept)
}

// keep returns what is left of the value at path; all says that a path above it is included.
func (f sourceFilter) keep(path string, v *value, all bool) (*value, bool) {
	if path != "" {
		all = all || anyMatches(f.includes, path)
		if anyMatches(f.excludes, path) {
			return nil, false
		}
	}
	switch v.kind {
	case kindObject:
		out := &value{kind: kindObject, obj: []member{}}
		for i := range v.obj {
			child := v.obj[i].key
			if path != "" {
				child = path + "." + child
			}
			if kept, ok := f.keep(child, &v.obj[i].val, all); ok {
				out.obj = append(out.obj, member{v.obj[i].key, *kept})
			}
		}
		return out, all || len(out.obj) > 0
	case kindArray:
		out := &value{kind: kindArray}
		for i := range v.arr {
			if kept, ok := f.keep(path, &v.arr[i], all); ok {
				out.arr = append(out.arr, *kept)
			}
		}
		return out, all || len(out.arr) > 0
	}
	return v, all
}

func anyMatches(patterns []string, path string) bool {
	for _, p := range patterns {
		if matches(p, path) {
			return true
		}
	}
	return false
}
