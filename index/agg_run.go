package index

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"
)

// level is a bucket aggregation as one search executes it: what its keys are in SQL, and the buckets found.
type level struct {
	*bucketAgg
	depth   int
	keys    []levelKey
	metrics []unified           // fields of the metrics
	within  map[string][]bucket // by path of the bucket around
	ends    [2]*int64           // of a date_histogram with extended_bounds
	inside  []*level
}

// levelKey is one key of a level.
type levelKey struct {
	source
	unified
	name    string // k<depth>_<i>
	columns []column
	key     func(st *statement) string // SQL over the columns
	several bool                       // key is a list: the document is in a bucket for each
}

// bucket is one bucket found.
type bucket struct {
	keys   []any
	path   string // of its keys and those of the buckets around it
	count  int64
	other  int64            // terms: documents in buckets that were left out
	values []map[string]any // of the metrics, by property; nil when it is empty
}

// aggregate runs the aggregations of a search, each as one statement that groups by the keys of all around it.
func (x *execution) aggregate(q *searchRequest) (map[string]any, error) {
	root, err := x.level(q.aggs, 0)
	if err != nil {
		return nil, err
	}
	total := 0
	if err := x.run(nil, root, &total); err != nil {
		return nil, err
	}
	b := bucket{values: emptyValues(root)}
	if found := root.within[""]; len(found) > 0 {
		b = found[0]
	}
	r := renderer{typed: q.typedKeys, total: &total}
	out := map[string]any{}
	err = r.inside(root, b, out)
	return out, err
}

func emptyValues(l *level) []map[string]any { return make([]map[string]any, len(l.bucketAgg.metrics)) }

func (x *execution) level(a *bucketAgg, depth int) (*level, error) {
	l := &level{bucketAgg: a, depth: depth, within: map[string][]bucket{}}
	for i, src := range a.sources {
		k, err := x.levelKey(l, src, fmt.Sprintf("k%d_%d", depth, i))
		if err != nil {
			return nil, err
		}
		l.keys = append(l.keys, k)
	}
	for _, m := range a.metrics {
		u, err := x.unify(m.field)
		if err != nil {
			return nil, err
		}
		if u.typ == "" {
			u.sql = "DOUBLE"
		}
		if err := m.check(x, u); err != nil {
			return nil, err
		}
		l.metrics = append(l.metrics, u)
	}
	for _, b := range a.buckets {
		in, err := x.level(b, depth+1)
		if err != nil {
			return nil, err
		}
		l.inside = append(l.inside, in)
	}
	return l, nil
}

func (x *execution) levelKey(l *level, src source, name string) (k levelKey, err error) {
	k = levelKey{source: src, name: name}
	if src.kind == "filters" {
		return x.filtersKey(k), nil
	}
	if k.unified, err = x.unify(src.field); err != nil {
		return k, err
	}
	if k.typ == "" {
		k.sql = map[bool]string{true: "BIGINT", false: "VARCHAR"}[src.kind == "date_histogram"]
	}
	value := name + "v"
	k.columns = []column{k.unified.column(value)}
	k.several = k.multi
	if src.kind == "date_histogram" {
		return k, x.histogramKey(l, &k, value)
	}
	k.key = func(st *statement) string {
		expr := value
		if k.multi {
			expr = "list_distinct(" + value + ")"
		}
		if src.missing == nil {
			return expr
		}
		if k.multi {
			return fmt.Sprintf("coalesce(%s, [%s::%s])", expr, st.arg(k.missingValue()), k.sql)
		}
		return fmt.Sprintf("coalesce(%s, %s::%s)", expr, st.arg(k.missingValue()), k.sql)
	}
	if src.missing != nil && k.missingValue() == nil {
		return k, illegal("[missing] [%s] of aggregation [%s] is not a value of field [%s]", src.missing.raw, l.name, src.field)
	}
	return k, nil
}

// missingValue is what documents without a value are taken to have; nil when that is not of the field's type.
func (k *levelKey) missingValue() any {
	f := field{Type: k.typ, Format: k.format}
	if k.typ == "" {
		f.Type = typeKeyword
	}
	v, err := f.parse(k.source.missing)
	if err != nil {
		return nil
	}
	return v
}

func (x *execution) filtersKey(k levelKey) levelKey {
	k.sql, k.several = "BIGINT", true
	var parts []string
	for i, f := range k.filters {
		col := fmt.Sprintf("%sb%d", k.name, i)
		k.columns = append(k.columns, column{col, "BOOLEAN", f.sql})
		parts = append(parts, fmt.Sprintf("CASE WHEN %s THEN %d::BIGINT END", col, i))
	}
	list := "[" + strings.Join(parts, ", ") + "]::BIGINT[]"
	k.key = func(*statement) string { return fmt.Sprintf("list_filter(%s, lambda f: f IS NOT NULL)", list) }
	return k
}

func (x *execution) histogramKey(l *level, k *levelKey, value string) error {
	if k.typ != "" && k.typ != typeDate {
		return onShard(x.indices[0].Name, "illegal_argument_exception", "Field [%s] of type [%s] is not supported for aggregation [date_histogram]", k.field, k.typ)
	}
	low, high, err := k.histogram.bounds(k.unified, x.now)
	if err != nil {
		return err
	}
	first, last := x.now.UnixMilli(), x.now.UnixMilli()
	if k.histogram.zone != "" && k.typ != "" {
		if first, last, err = x.span(k.unified, first); err != nil {
			return err
		}
	}
	for _, b := range []*int64{low, high} {
		if b != nil {
			first, last = min(first, *b), max(last, *b)
		}
	}
	k.histogram.prepare(first, last)
	for i, b := range []*int64{low, high} {
		if b != nil {
			key := k.histogram.key(*b)
			l.ends[i] = &key
		}
	}
	h := k.histogram
	k.key = func(*statement) string {
		if k.multi {
			return fmt.Sprintf("list_distinct(list_transform(%s, lambda x: %s))", value, h.sql("x"))
		}
		return h.sql(value)
	}
	return nil
}

// span returns the first and the last instant of a field among the documents.
func (x *execution) span(u unified, otherwise int64) (first, last int64, err error) {
	st := &statement{}
	base, err := x.base(st, []column{u.column("v")})
	if err != nil {
		return 0, 0, err
	}
	q := "SELECT min(v), max(v) FROM (" + base + ")"
	if u.multi {
		q = "SELECT min(list_min(v)), max(list_max(v)) FROM (" + base + ")"
	}
	var a, b sql.NullInt64
	if err := x.tx.QueryRowContext(x.ctx, q, st.args...).Scan(&a, &b); err != nil {
		return 0, 0, err
	}
	if !a.Valid {
		return otherwise, otherwise, nil
	}
	return a.Int64, b.Int64, nil
}

// run finds the buckets of l inside those of the levels around it, then those inside them.
func (x *execution) run(around []*level, l *level, total *int) error {
	st := &statement{}
	q, err := x.statement(st, around, l)
	if err != nil {
		return err
	}
	if q != "" {
		if err := x.collect(st, q, around, l, total); err != nil {
			return err
		}
	}
	path := append(slices.Clone(around), l)
	for _, in := range l.inside {
		if err := x.run(path, in, total); err != nil {
			return err
		}
	}
	return nil
}

// statement is the SQL of one level, or nothing when no bucket around it is left.
func (x *execution) statement(st *statement, around []*level, l *level) (string, error) {
	var columns []column
	var laterals, keys, outer []string
	conditions := []string{"true"}
	var assign []string // keys that are not lists
	path := append(slices.Clone(around), l)
	for _, lv := range path {
		for i := range lv.keys {
			k := &lv.keys[i]
			columns = append(columns, k.columns...)
			keys = append(keys, k.name)
			if lv != l {
				outer = append(outer, k.name)
			}
		}
	}
	for i, m := range l.metrics {
		columns = append(columns, m.column(fmt.Sprintf("m%d", i)))
	}
	base, err := x.base(st, columns)
	if err != nil {
		return "", err
	}
	for _, lv := range path {
		for i := range lv.keys {
			k := &lv.keys[i]
			if k.several {
				laterals = append(laterals, fmt.Sprintf(", unnest(%s) AS u%s(%s)", k.key(st), k.name, k.name))
			} else {
				assign = append(assign, k.key(st)+" AS "+k.name)
			}
			conditions = append(conditions, k.name+" IS NOT NULL")
			if lv == l || lv.kind != "terms" && lv.kind != "composite" {
				continue
			}
			selected := lv.selected(i)
			if selected == nil {
				return "", nil
			}
			conditions = append(conditions, fmt.Sprintf("%s IN (SELECT unnest(%s))", k.name, st.list(selected, k.sql)))
		}
	}
	list := append(slices.Clone(keys), "count(*) AS n")
	for i, m := range l.bucketAgg.metrics {
		exprs := m.sql(l.metrics[i], fmt.Sprintf("m%d", i))
		for _, p := range properties(exprs) {
			list = append(list, fmt.Sprintf("%s AS m%d_%s", exprs[p], i, p))
		}
	}
	docs := base
	if len(assign) > 0 {
		docs = "SELECT *, " + strings.Join(assign, ", ") + " FROM (" + base + ")"
	}
	q := fmt.Sprintf("SELECT %s FROM (%s) d%s WHERE %s", strings.Join(list, ", "), docs, strings.Join(laterals, ""), strings.Join(conditions, " AND "))
	if len(keys) > 0 {
		q += " GROUP BY " + strings.Join(keys, ", ")
	}
	return l.limit(st, q, outer)
}

func properties(exprs map[string]string) []string {
	names := make([]string, 0, len(exprs))
	for p := range exprs {
		names = append(names, p)
	}
	slices.Sort(names)
	return names
}

// selected returns the values that one key of the level has in the buckets that were kept; nil when there are none.
func (l *level) selected(i int) any {
	seen := map[any]bool{}
	var list []any
	for _, bs := range l.within {
		for _, b := range bs {
			if !seen[b.keys[i]] {
				seen[b.keys[i]] = true
				list = append(list, b.keys[i])
			}
		}
	}
	if len(list) == 0 {
		return nil
	}
	switch list[0].(type) {
	case string:
		return typed[string](list)
	case float64:
		return typed[float64](list)
	case bool:
		return typed[bool](list)
	}
	return typed[int64](list)
}

// limit keeps the buckets of q that are wanted, in order.
func (l *level) limit(st *statement, q string, outer []string) (string, error) {
	partition := ""
	if len(outer) > 0 {
		partition = "PARTITION BY " + strings.Join(outer, ", ")
	}
	switch l.kind {
	case "terms":
		by := l.orderBy()
		return fmt.Sprintf("SELECT *, (sum(n) OVER (%s))::BIGINT AS other FROM (%s) WHERE n >= %d QUALIFY row_number() OVER (%s ORDER BY %s) <= %d ORDER BY %s LIMIT %d",
			partition, q, l.minimum, partition, by, l.size, by, maxBuckets+1), nil
	case "composite":
		where := "true"
		if l.after != nil {
			var err error
			if where, err = l.afterKeys(st); err != nil {
				return "", err
			}
		}
		var by []string
		for _, k := range l.keys {
			by = append(by, k.name+map[bool]string{false: " ASC", true: " DESC"}[k.desc])
		}
		return fmt.Sprintf("SELECT *, 0::BIGINT AS other FROM (%s) WHERE %s ORDER BY %s LIMIT %d", q, where, strings.Join(by, ", "), l.size), nil
	}
	return fmt.Sprintf("SELECT *, 0::BIGINT AS other FROM (%s) LIMIT %d", q, maxBuckets+1), nil
}

func (l *level) orderBy() string {
	key := l.keys[0].name
	var by []string
	for _, o := range l.order {
		direction := map[bool]string{false: " ASC", true: " DESC"}[o.desc]
		switch o.path {
		case "_count":
			by = append(by, "n"+direction)
		case "_key":
			by = append(by, key+direction)
		default:
			i, property, _ := l.ordered(o.path)
			if property == "" {
				property = map[string]string{"value_count": "count", "cardinality": "distinct"}[l.bucketAgg.metrics[i].kind]
			}
			if property == "" {
				property = l.bucketAgg.metrics[i].kind
			}
			by = append(by, fmt.Sprintf("m%d_%s%s NULLS LAST", i, property, direction))
		}
	}
	return strings.Join(append(by, key+" ASC"), ", ")
}

// afterKeys is the condition that a composite bucket comes after the one given.
func (l *level) afterKeys(st *statement) (string, error) {
	var alternatives []string
	equal := ""
	for i := range l.keys {
		k := &l.keys[i]
		v, err := k.afterValue(&l.after[i])
		if err != nil {
			return "", err
		}
		arg := st.arg(v) + "::" + k.sql
		op := ">"
		if k.desc {
			op = "<"
		}
		alternatives = append(alternatives, fmt.Sprintf("(%s%s %s %s)", equal, k.name, op, arg))
		equal += k.name + " = " + arg + " AND "
	}
	return "(" + strings.Join(alternatives, " OR ") + ")", nil
}

func (k *levelKey) afterValue(v *value) (any, error) {
	bad := illegal("invalid value for [after.%s]: [%s]", k.source.name, v.raw)
	if k.source.kind == "date_histogram" {
		ms, ok := v.integer()
		if k.histogram.format != nil {
			var err error
			if ms, err = parseDateMath(v.text(), k.histogram.format, k.histogram.loc, time.Time{}, false); err != nil {
				return nil, bad
			}
			ok = true
		}
		if !ok || ms < minMillis || ms > maxMillis {
			return nil, bad
		}
		return k.histogram.key(ms), nil
	}
	f := field{Type: k.typ, Format: k.unified.format}
	if k.typ == "" {
		f.Type = typeKeyword
	}
	if v.kind == kindNull || v.kind == kindArray || v.kind == kindObject {
		return nil, bad
	}
	cell, err := f.parse(v)
	if err != nil || cell == nil {
		return nil, bad
	}
	return cell, nil
}

// collect reads the buckets of a statement into the level.
func (x *execution) collect(st *statement, q string, around []*level, l *level, total *int) error {
	rows, err := x.tx.QueryContext(x.ctx, q, st.args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	outer := 0
	for _, lv := range around {
		outer += len(lv.keys)
	}
	var exprs [][]string
	for i, m := range l.bucketAgg.metrics {
		exprs = append(exprs, properties(m.sql(l.metrics[i], "")))
	}
	names, err := rows.Columns()
	if err != nil {
		return err
	}
	for rows.Next() {
		values := make([]any, len(names))
		to := make([]any, len(names))
		for i := range values {
			to[i] = &values[i]
		}
		if err := rows.Scan(to...); err != nil {
			return err
		}
		b := bucket{keys: values[outer : outer+len(l.keys)]}
		parent := pathOf("", values[:outer])
		b.path = pathOf(parent, b.keys)
		at := outer + len(l.keys)
		b.count = values[at].(int64)
		at++
		for _, names := range exprs {
			m := map[string]any{}
			for _, p := range names {
				m[p] = values[at]
				at++
			}
			b.values = append(b.values, m)
		}
		b.other = values[at].(int64)
		if *total++; *total > maxBuckets {
			return tooManyBuckets()
		}
		l.within[parent] = append(l.within[parent], b)
	}
	return rows.Err()
}

// pathOf identifies a bucket by its keys and those around it.
func pathOf(parent string, keys []any) string {
	for _, k := range keys {
		parent += fmt.Sprintf("%T:%q/", k, fmt.Sprint(k))
	}
	return parent
}
