package index

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// place is where the values of a field are, in the SQL for one index.
type place struct {
	*field
	expr string
}

// place finds a mapped field or one of the metadata that can be searched.
func (c *compiler) place(path string) (place, bool) {
	switch path {
	case "_id":
		return place{&field{Path: path, Type: typeKeyword}, "id"}, true
	case "_index":
		return place{&field{Path: path, Type: typeKeyword}, c.arg(c.index.Name) + "::VARCHAR"}, true
	}
	f, ok := c.index.mapping.Fields[path]
	if !ok {
		return place{}, false
	}
	return place{f, f.column()}, true
}

func (c *compiler) unsearchable(f *field) error {
	return onShard(c.index.Name, "query_shard_exception", "failed to create query: field [%s] of type [%s] does not support searching", f.Path, f.Type)
}

func (c *compiler) badValue(f *field, v *value) error {
	return onShard(c.index.Name, "query_shard_exception", "failed to create query: [%s] is not a value of field [%s] of type [%s]", v.text(), f.Path, f.Type)
}

// any makes a condition on a value into one on the field: on some value of a field with several.
func (p place) any(condition func(v string) string) string {
	if p.Multi {
		return fmt.Sprintf("(len(list_filter(%s, lambda x: %s)) > 0)", p.expr, condition("x"))
	}
	return "(" + condition(p.expr) + ")"
}

// in is the condition that some value is in a list.
func in[T any](c *compiler, p place, values []T, sqlType string) string {
	switch {
	case p.Multi:
		return fmt.Sprintf("list_has_any(%s, %s)", p.expr, c.list(values, sqlType))
	case len(values) == 1:
		return fmt.Sprintf("(%s = %s::%s)", p.expr, c.arg(values[0]), sqlType)
	}
	return fmt.Sprintf("(%s IN (SELECT unnest(%s)))", p.expr, c.list(values, sqlType))
}

func (q termsQuery) sql(c *compiler) (string, error) {
	if o, ok := c.index.mapping.Objects[q.field]; ok && !o.Disabled {
		return "false", nil // an object has no terms of its own
	}
	if len(q.values) == 0 {
		return "false", nil
	}
	p, ok := c.place(q.field)
	if !ok {
		return "false", nil
	}
	switch storage(p.Type) {
	case "VARCHAR":
		var terms []string
		for i := range q.values {
			terms = append(terms, q.values[i].text())
		}
		return in(c, p, terms, "VARCHAR"), nil
	case "DOUBLE":
		var terms []float64
		for i := range q.values {
			n, ok := q.values[i].float()
			if !ok {
				return "", c.badValue(p.field, &q.values[i])
			}
			if p.Type != typeDouble {
				n = float64(float32(n))
			}
			terms = append(terms, n)
		}
		return in(c, p, terms, "DOUBLE"), nil
	case "BOOLEAN":
		var terms []bool
		for i := range q.values {
			b, err := p.parse(&q.values[i])
			if err != nil {
				return "", c.badValue(p.field, &q.values[i])
			}
			terms = append(terms, b.(bool))
		}
		return in(c, p, terms, "BOOLEAN"), nil
	case "BIGINT":
		if p.Type == typeDate {
			return c.dates(p, q.values)
		}
		terms := []int64{}
		for i := range q.values {
			if _, ok := q.values[i].float(); !ok {
				return "", c.badValue(p.field, &q.values[i])
			}
			if n, ok := q.values[i].integer(); ok { // 1.5 is a number that no long has
				terms = append(terms, n)
			}
		}
		return in(c, p, terms, "BIGINT"), nil
	}
	return "", c.unsearchable(p.field)
}

// dates is terms on a date: a term with parts left out is all instants that it can be.
func (c *compiler) dates(p place, values []value) (string, error) {
	var parts []string
	for i := range values {
		s, err := rangeQuery{field: p.Path, gte: &values[i], lte: &values[i], loc: time.UTC}.sql(c)
		if err != nil {
			return "", err
		}
		parts = append(parts, s)
	}
	return "(" + strings.Join(parts, " OR ") + ")", nil
}

func (q existsQuery) sql(c *compiler) (string, error) {
	if p, ok := c.place(q.field); ok {
		if p.Type == typeBinary {
			return "", c.unsearchable(p.field)
		}
		return "(" + p.expr + " IS NOT NULL)", nil
	}
	parts := []string{"false"}
	for _, f := range c.index.mapping.under(q.field) {
		if f.Column >= 0 {
			parts = append(parts, f.column()+" IS NOT NULL")
		}
	}
	return "(" + strings.Join(parts, " OR ") + ")", nil
}

func (q prefixQuery) sql(c *compiler) (string, error) {
	p, ok := c.place(q.field)
	if !ok {
		return "false", nil
	}
	if p.Type != typeKeyword {
		return "", onShard(c.index.Name, "query_shard_exception", "Can only use prefix queries on keyword, text and wildcard fields - not on [%s] which is of type [%s]", p.Path, p.Type)
	}
	prefix := c.arg(q.prefix)
	return p.any(func(v string) string { return fmt.Sprintf("starts_with(%s, %s::VARCHAR)", v, prefix) }), nil
}

func (q rangeQuery) sql(c *compiler) (string, error) {
	p, ok := c.place(q.field)
	if !ok {
		return "false", nil
	}
	if storage(p.Type) == "" {
		return "", c.unsearchable(p.field)
	}
	type limit struct {
		op  string
		arg string
	}
	var limits []limit
	for _, b := range []struct {
		op string
		v  *value
	}{{">", q.gt}, {">=", q.gte}, {"<", q.lt}, {"<=", q.lte}} {
		if b.v == nil {
			continue
		}
		op, v, err := q.bound(c, p.field, b.op, b.v)
		if err != nil {
			return "", err
		}
		limits = append(limits, limit{op, c.arg(v) + "::" + storage(p.Type)})
	}
	return p.any(func(v string) string {
		parts := []string{v + " IS NOT NULL"}
		for _, l := range limits {
			parts = append(parts, v+" "+l.op+" "+l.arg)
		}
		return strings.Join(parts, " AND ")
	}), nil
}

// bound returns one end of a range in terms of the field's column.
func (q rangeQuery) bound(c *compiler, f *field, op string, v *value) (string, any, error) {
	switch {
	case f.Type == typeKeyword:
		return op, v.text(), nil
	case f.Type == typeBoolean:
		b, err := f.parse(v)
		if err != nil {
			return "", nil, c.badValue(f, v)
		}
		return op, b, nil
	case f.Type == typeDate:
		formats := q.formats
		if formats == nil {
			formats, _ = parseFormats(f.Format) // checked when it was mapped
		}
		ms, err := parseDateMath(v.text(), formats, q.loc, c.now, op == ">" || op == "<=")
		if err != nil {
			e := asError(err)
			return "", nil, onShard(c.index.Name, e.Type, "%s", e.Reason)
		}
		return op, ms, nil
	case storage(f.Type) == "DOUBLE":
		n, ok := v.float()
		if !ok {
			return "", nil, c.badValue(f, v)
		}
		return op, n, nil
	}
	if n, ok := v.integer(); ok {
		return op, n, nil
	}
	n, ok := v.float()
	if !ok {
		return "", nil, c.badValue(f, v)
	}
	switch up := op[0] == '>'; {
	case n >= 1<<63 && up || n < -(1<<63) && !up:
		return "<", int64(math.MinInt64), nil // no long is there
	case n >= 1<<63:
		return "<=", int64(math.MaxInt64), nil
	case n < -(1 << 63):
		return ">=", int64(math.MinInt64), nil
	case up:
		return ">=", int64(math.Ceil(n)), nil
	}
	return "<=", int64(math.Floor(n)), nil
}
