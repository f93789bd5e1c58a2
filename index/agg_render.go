package index

import (
	"cmp"
	"slices"
	"time"
)

// renderer turns buckets into the JSON of a response.
type renderer struct {
	typed bool // names carry the type of their aggregation
	total *int // buckets, with those made to fill gaps
}

func (r renderer) name(prefix, name string) string {
	if r.typed {
		return prefix + "#" + name
	}
	return name
}

// inside adds what the aggregations inside l are for one of its buckets.
func (r renderer) inside(l *level, b bucket, out map[string]any) error {
	for i, m := range l.bucketAgg.metrics {
		var values map[string]any
		if i < len(b.values) {
			values = b.values[i]
		}
		prefix := m.kind
		if prefix == "percentiles" {
			prefix = "tdigest_percentiles"
		}
		out[r.name(prefix, m.name)] = m.render(l.metrics[i], values)
	}
	for _, in := range l.inside {
		v, err := r.buckets(in, b.path)
		if err != nil {
			return err
		}
		out[r.name(in.prefix(), in.bucketAgg.name)] = v
	}
	return nil
}

// prefix is the type of the aggregation in typed names.
func (l *level) prefix() string {
	if l.kind != "terms" {
		return l.kind
	}
	switch l.keys[0].sql {
	case "VARCHAR":
		return "sterms"
	case "DOUBLE":
		return "dterms"
	}
	return "lterms"
}

// buckets is one aggregation inside the bucket with the given path.
func (r renderer) buckets(l *level, path string) (map[string]any, error) {
	found := l.within[path]
	switch l.kind {
	case "filter", "filters":
		return r.filters(l, path, found)
	case "date_histogram":
		return r.histogram(l, path, found)
	}
	out := map[string]any{}
	list := make([]map[string]any, len(found))
	kept := int64(0)
	for i, b := range found {
		k := l.keys[0]
		list[i] = map[string]any{"doc_count": b.count}
		if l.kind == "composite" {
			key := map[string]any{}
			for j, k := range l.keys {
				key[k.source.name] = k.composite(b.keys[j])
			}
			list[i]["key"] = key
			out["after_key"] = key
		} else {
			k.render(b.keys[0], list[i])
			kept += b.count
		}
		if err := r.inside(l, b, list[i]); err != nil {
			return nil, err
		}
	}
	if l.kind == "terms" {
		out["doc_count_error_upper_bound"] = 0
		out["sum_other_doc_count"] = int64(0)
		if len(found) > 0 {
			out["sum_other_doc_count"] = found[0].other - kept
		}
	}
	out["buckets"] = list
	return out, nil
}

// render adds the key of a terms bucket.
func (k levelKey) render(v any, out map[string]any) {
	out["key"] = v
	switch {
	case k.sql == "BOOLEAN":
		out["key"], out["key_as_string"] = 0, "false"
		if v.(bool) {
			out["key"], out["key_as_string"] = 1, "true"
		}
	case k.typ == typeDate:
		out["key_as_string"] = k.print(nil, v.(int64), time.UTC)
	case k.sql == "DOUBLE":
		out["key"] = double(v.(float64))
	}
}

// composite is one key of a composite bucket.
func (k levelKey) composite(v any) any {
	switch {
	case k.source.kind == "date_histogram":
		ms := k.histogram.instant(v.(int64))
		if k.histogram.format != nil {
			return k.print(k.histogram.format, ms, k.histogram.loc)
		}
		return ms
	case k.sql == "DOUBLE":
		return double(v.(float64))
	}
	return v
}

func (r renderer) filters(l *level, path string, found []bucket) (map[string]any, error) {
	src := l.keys[0].source
	all := make([]map[string]any, len(src.filters))
	for i := range all {
		b := bucket{path: pathOf(path, []any{int64(i)})}
		for _, f := range found {
			if f.keys[0].(int64) == int64(i) {
				b = f
			}
		}
		all[i] = map[string]any{"doc_count": b.count}
		if err := r.inside(l, b, all[i]); err != nil {
			return nil, err
		}
	}
	switch {
	case l.kind == "filter":
		return all[0], nil
	case src.names == nil:
		return map[string]any{"buckets": all}, nil
	}
	named := map[string]any{}
	for i, name := range src.names {
		named[name] = all[i]
	}
	return map[string]any{"buckets": named}, nil
}

// histogram fills the gaps between buckets, unless only those with documents are wanted.
func (r renderer) histogram(l *level, path string, found []bucket) (map[string]any, error) {
	k := l.keys[0]
	found = slices.Clone(found)
	slices.SortFunc(found, func(a, b bucket) int { return cmp.Compare(a.keys[0].(int64), b.keys[0].(int64)) })
	if l.minimum == 0 {
		var err error
		if found, err = r.fill(l, path, found); err != nil {
			return nil, err
		}
	}
	for i := len(l.order) - 1; i >= 0; i-- {
		o := l.order[i]
		slices.SortStableFunc(found, func(a, b bucket) int {
			c := cmp.Compare(a.count, b.count)
			if o.path == "_key" {
				c = cmp.Compare(a.keys[0].(int64), b.keys[0].(int64))
			}
			if o.desc {
				c = -c
			}
			return c
		})
	}
	list := []map[string]any{}
	for _, b := range found {
		if b.count < l.minimum {
			continue
		}
		ms := k.histogram.instant(b.keys[0].(int64))
		item := map[string]any{"key": ms, "key_as_string": k.print(k.histogram.format, ms, k.histogram.loc), "doc_count": b.count}
		if err := r.inside(l, b, item); err != nil {
			return nil, err
		}
		list = append(list, item)
	}
	return map[string]any{"buckets": list}, nil
}

func (r renderer) fill(l *level, path string, found []bucket) ([]bucket, error) {
	var first, last int64
	switch {
	case len(found) > 0:
		first, last = found[0].keys[0].(int64), found[len(found)-1].keys[0].(int64)
	case l.ends[0] != nil && l.ends[1] != nil:
		first, last = *l.ends[0], *l.ends[1]
	default:
		return nil, nil
	}
	if l.ends[0] != nil {
		first = min(first, *l.ends[0])
	}
	if l.ends[1] != nil {
		last = max(last, *l.ends[1])
	}
	var out []bucket
	for key := first; key <= last; key = l.keys[0].histogram.next(key) {
		if len(found) > 0 && found[0].keys[0].(int64) <= key {
			key = found[0].keys[0].(int64) // the change of an odd offset moves the keys after it
			out = append(out, found[0])
			found = found[1:]
			continue
		}
		if *r.total++; *r.total > maxBuckets {
			return nil, tooManyBuckets()
		}
		keys := []any{key}
		out = append(out, bucket{keys: keys, path: pathOf(path, keys)})
	}
	return out, nil
}
