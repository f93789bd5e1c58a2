package index

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
)

// mergeSource puts the members of part over those of a document, objects into objects.
func mergeSource(source []byte, part *value) ([]byte, error) {
	old, err := parseJSON(source)
	if err != nil {
		return nil, err
	}
	merged := overlay(&old, part)
	if merged == &old {
		return source, nil
	}
	return appendJSON(nil, merged)
}

// overlay returns old itself when part changes nothing.
func overlay(old, part *value) *value {
	if old.kind != kindObject || part.kind != kindObject {
		if string(old.raw) == string(part.raw) {
			return old
		}
		return part
	}
	changed := false
	out := &value{kind: kindObject, obj: append([]member(nil), old.obj...)}
	for i := range part.obj {
		p := &part.obj[i]
		at, ok := out.get(p.key)
		if !ok {
			out.obj = append(out.obj, *p)
			changed = true
			continue
		}
		if next := overlay(at, &p.val); next != at {
			*at = *next
			changed = true
		}
	}
	if !changed {
		return old
	}
	return out
}

// appendJSON writes a value; parts that were parsed keep their bytes.
func appendJSON(dst []byte, v *value) ([]byte, error) {
	if v.raw != nil {
		return append(dst, v.raw...), nil
	}
	if v.kind == kindArray {
		dst = append(dst, '[')
		for i := range v.arr {
			if i > 0 {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = appendJSON(dst, &v.arr[i]); err != nil {
				return nil, err
			}
		}
		return append(dst, ']'), nil
	}
	dst = append(dst, '{')
	for i := range v.obj {
		if i > 0 {
			dst = append(dst, ',')
		}
		key, err := json.Marshal(v.obj[i].key)
		if err != nil {
			return nil, err
		}
		dst = append(append(dst, key...), ':')
		if dst, err = appendJSON(dst, &v.obj[i].val); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

// newUUID returns 22 random characters, as Elasticsearch names indices inside; newID 20, as it names documents without an id.
func newUUID() string { return random(16) }

func newID() string { return random(15) }

func random(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}
