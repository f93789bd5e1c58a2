package index

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// sortKey is one key that hits are sorted by.
type sortKey struct {
	field    string // or _score, _doc, _id
	desc     bool
	first    bool   // documents without a value come first
	mode     string // which of several values: min or max
	unmapped string // type to take an unmapped field for
	formats  []format
}

func parseSort(v *value) ([]sortKey, error) {
	items := v.arr
	if v.kind != kindArray {
		items = []value{*v}
	}
	var keys []sortKey
	for i := range items {
		switch item := &items[i]; item.kind {
		case kindString:
			k := sortKey{field: item.str, desc: item.str == "_score"}
			keys = append(keys, k)
		case kindObject:
			for j := range item.obj {
				k, err := parseSortKey(&item.obj[j])
				if err != nil {
					return nil, err
				}
				keys = append(keys, k)
			}
		default:
			return nil, unparsable("malformed sort format, within the sort array, an object, or an actual string are allowed")
		}
	}
	return keys, nil
}

func parseSortKey(m *member) (k sortKey, err error) {
	k.field, k.desc = m.key, m.key == "_score"
	order := func(v *value) error {
		switch strings.ToLower(v.text()) {
		case "asc":
			k.desc = false
		case "desc":
			k.desc = true
		default:
			return illegal("No enum constant org.elasticsearch.search.sort.SortOrder.%s", strings.ToUpper(v.text()))
		}
		return nil
	}
	if m.val.kind != kindObject {
		return k, order(&m.val)
	}
	for i := range m.val.obj {
		o := &m.val.obj[i]
		bad := false
		switch o.key {
		case "order":
			err = order(&o.val)
		case "missing":
			k.first = o.val.text() == "_first"
			bad = o.val.text() != "_first" && o.val.text() != "_last"
		case "mode":
			k.mode = o.val.text()
			bad = k.mode != "min" && k.mode != "max"
		case "unmapped_type":
			k.unmapped = o.val.text()
			bad = storage(k.unmapped) == ""
		case "format":
			if k.formats, err = parseFormats(o.val.text()); err != nil {
				err = illegal("Invalid format: [%s]: %s", o.val.text(), err)
			}
		case "numeric_type":
			bad = true
		default:
			err = unparsable("[field_sort] unknown field [%s]", o.key)
		}
		if bad {
			err = illegal("[field_sort] [%s] with the value [%s] is not supported", o.key, o.val.raw)
		}
		if err != nil {
			return k, err
		}
	}
	return k, nil
}

// resolved is a sort key with what it sorts.
type resolved struct {
	sortKey
	unified
	name string // of its column
}

func (x *execution) resolveSort(keys []sortKey) (out []resolved, columns []column, err error) {
	for i, k := range keys {
		r := resolved{sortKey: k, name: fmt.Sprintf("s%d", i)}
		switch k.field {
		case "_score": // all score the same
			r.unified = unified{typ: "_score", sql: "DOUBLE"}
			columns = append(columns, column{r.name, "DOUBLE", func(*compiler) (string, error) { return "1.0::DOUBLE", nil }})
		case "_doc":
			r.unified = unified{typ: typeLong, sql: "BIGINT"}
			columns = append(columns, column{r.name, "BIGINT", func(*compiler) (string, error) { return "seq", nil }})
		default:
			if r.unified, err = x.unify(k.field); err != nil {
				return nil, nil, err
			}
			if r.typ == "" {
				if k.unmapped == "" && len(x.indices) > 0 {
					return nil, nil, onShard(x.indices[0].Name, "query_shard_exception", "No mapping found for [%s] in order to sort on", k.field)
				}
				if k.unmapped == "" {
					k.unmapped = typeKeyword
				}
				r.typ, r.sql = k.unmapped, storage(k.unmapped)
			}
			col := r.unified.column(r.name)
			if r.multi {
				mode := k.mode
				if mode == "" {
					mode = map[bool]string{false: "min", true: "max"}[k.desc]
				}
				list := col.expr
				col = column{r.name, r.sql, func(c *compiler) (string, error) {
					s, err := list(c)
					return fmt.Sprintf("list_%s(%s)", mode, s), err
				}}
			}
			columns = append(columns, col)
		}
		out = append(out, r)
	}
	return out, columns, nil
}

// order is the ORDER BY of keys; what is equal by them is in the order in which it was written.
func order(keys []resolved) string {
	var parts []string
	for _, k := range keys {
		direction, nulls := "ASC", "LAST"
		if k.desc {
			direction = "DESC"
		}
		if k.first {
			nulls = "FIRST"
		}
		parts = append(parts, fmt.Sprintf("%s %s NULLS %s", k.name, direction, nulls))
	}
	return strings.Join(append(parts, "ix", "seq"), ", ")
}

// hits adds the page of hits that q asks for.
func (x *execution) hits(q *searchRequest, out *searchResponse) error {
	keys, columns, err := x.resolveSort(q.sort)
	if err != nil {
		return err
	}
	st := &statement{}
	base, err := x.base(st, columns)
	if err != nil {
		return err
	}
	where := "true"
	if q.after != nil {
		if where, err = after(st, keys, q.after); err != nil {
			return err
		}
	}
	if q.size == 0 {
		return nil
	}
	sql := fmt.Sprintf("SELECT ix, rid, * EXCLUDE (ix, rid) FROM (%s) WHERE %s ORDER BY %s LIMIT %d OFFSET %d", base, where, order(keys), q.size, q.from)
	rows, err := x.tx.QueryContext(x.ctx, sql, st.args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	found := make([]map[int64]int, len(x.indices)) // by index, then rowid: which hit
	hits := []hit{}
	one := double(1)
	for rows.Next() {
		var ix int
		var rid, seq int64
		var h hit
		values := make([]any, len(keys))
		to := []any{&ix, &rid, &h.ID, &seq}
		for i := range values {
			to = append(to, &values[i])
		}
		if err := rows.Scan(to...); err != nil {
			return err
		}
		h.Index = x.indices[ix].Name
		h.Score = &one
		if len(keys) > 0 {
			h.Score = nil
		}
		for i, k := range keys {
			if k.typ == "_score" {
				h.Score = &one
			}
			h.Sort = append(h.Sort, k.render(values[i]))
		}
		if q.seqNo {
			h.SeqNo, h.Term = &seq, 1
		}
		if found[ix] == nil {
			found[ix] = map[int64]int{}
		}
		found[ix][rid] = len(hits)
		hits = append(hits, h)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if len(hits) > 0 {
		out.Hits.MaxScore = hits[0].Score
	}
	out.Hits.Hits = hits
	return x.sources(q, hits, found)
}

// sources reads the documents of hits, which the sort did without.
func (x *execution) sources(q *searchRequest, hits []hit, found []map[int64]int) error {
	if q.source.none && !q.version {
		return nil
	}
	for i, byRow := range found {
		if len(byRow) == 0 {
			continue
		}
		ids := make([]int64, 0, len(byRow))
		for id := range byRow {
			ids = append(ids, id)
		}
		rows, err := x.tx.QueryContext(x.ctx, fmt.Sprintf("SELECT rowid, version, source FROM %s WHERE rowid IN (SELECT unnest($1::BIGINT[]))", x.indices[i].table()), ids)
		if err != nil {
			return err
		}
		for rows.Next() {
			var id, version int64
			var source string
			if err = rows.Scan(&id, &version, &source); err != nil {
				break
			}
			h := &hits[byRow[id]]
			if q.version {
				h.Version = &version
			}
			if h.Source, err = q.source.apply([]byte(source)); err != nil {
				break
			}
		}
		if err == nil {
			err = rows.Err()
		}
		rows.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// missing is the number that stands for no value in the sort values of a hit; Elasticsearch has one for integers and dates.
func (k resolved) missing() int64 {
	low, high := int64(math.MinInt64), int64(math.MaxInt64)
	if k.sql == "BOOLEAN" {
		low, high = math.MinInt32, math.MaxInt32
	}
	if k.desc != k.first {
		return low
	}
	return high
}

// render is a sort value as clients are shown it.
func (k resolved) render(v any) any {
	if k.sql == "VARCHAR" {
		return v
	}
	if k.sql == "DOUBLE" {
		if v == nil {
			return double(math.Inf(map[bool]int{true: 1, false: -1}[k.missing() > 0]))
		}
		return double(v.(float64))
	}
	if v == nil {
		return k.missing()
	}
	if b, ok := v.(bool); ok {
		if b {
			return 1
		}
		return 0
	}
	if k.typ == typeDate && k.formats != nil {
		return k.formats[0].print(v.(int64), time.UTC)
	}
	return v
}

// cursor reads what render wrote; nil for no value.
func (k resolved) cursor(v *value) (any, error) {
	bad := illegal("Failed to parse search_after value for field [%s]: [%s]", k.field, v.raw)
	if v.kind == kindNull {
		return nil, nil
	}
	if v.kind == kindArray || v.kind == kindObject {
		return nil, bad
	}
	switch k.sql {
	case "VARCHAR":
		return v.text(), nil
	case "DOUBLE":
		if v.text() == "Infinity" || v.text() == "-Infinity" {
			return nil, nil
		}
		if n, ok := v.float(); ok {
			return n, nil
		}
		return nil, bad
	case "BOOLEAN":
		switch v.text() {
		case "true", "1":
			return true, nil
		case "false", "0":
			return false, nil
		}
	}
	n, ok := v.integer()
	if !ok && k.typ == typeDate {
		formats := k.formats
		if formats == nil {
			formats = defaultFormats
		}
		ms, err := parseDateMath(v.text(), formats, time.UTC, time.Time{}, false)
		if err != nil {
			return nil, bad
		}
		return ms, nil
	}
	switch {
	case ok && n == k.missing():
		return nil, nil
	case ok && k.sql == "BIGINT":
		return n, nil
	}
	return nil, bad
}

// after is the condition to come after a cursor.
func after(st *statement, keys []resolved, cursor []value) (string, error) {
	var alternatives []string
	equal := ""
	for i, k := range keys {
		v, err := k.cursor(&cursor[i])
		if err != nil {
			return "", err
		}
		beyond, same := "false", k.name+" IS NULL"
		switch {
		case v == nil && k.first:
			beyond = k.name + " IS NOT NULL"
		case v != nil:
			arg := st.arg(v) + "::" + k.sql
			op := ">"
			if k.desc {
				op = "<"
			}
			beyond, same = fmt.Sprintf("coalesce(%s %s %s, %v)", k.name, op, arg, !k.first), k.name+" IS NOT DISTINCT FROM "+arg
		}
		alternatives = append(alternatives, "("+equal+beyond+")")
		equal += same + " AND "
	}
	return "(" + strings.Join(alternatives, " OR ") + ")", nil
}
