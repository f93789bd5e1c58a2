package index

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// query is a parsed query. What it means depends on the mapping of the index it is asked of.
type query interface {
	// sql returns a condition that is true for the documents that match, and false or null for the others. Whoever negates
	// or counts it makes null false; leaves do not, because DuckDB skips data only by plain comparisons.
	sql(c *compiler) (string, error)
}

// compiler turns queries into SQL for one index. All values of clients become parameters.
type compiler struct {
	*statement
	index *index
	now   time.Time
}

// statement collects the parameters of one SQL statement.
type statement struct{ args []any }

// arg adds a parameter and returns how SQL refers to it.
func (s *statement) arg(v any) string {
	s.args = append(s.args, v)
	return "$" + strconv.Itoa(len(s.args))
}

// list adds a parameter that is a slice.
func (s *statement) list(values any, sqlType string) string {
	return s.arg(values) + "::" + sqlType + "[]"
}

type (
	matchAll  struct{}
	matchNone struct{}
	idsQuery  struct{ ids []string }
	boolQuery struct {
		must, should, mustNot []query // filter is must: nothing is scored
		minimum               int     // of should
	}
	termsQuery struct {
		field  string
		values []value
	}
	rangeQuery struct {
		field            string
		gt, gte, lt, lte *value
		formats          []format // nil: the field's
		loc              *time.Location
	}
	existsQuery struct{ field string }
	prefixQuery struct{ field, prefix string }
)

const (
	maxBoolDepth = 30   // Elasticsearch's indices.query.bool.max_nested_depth
	maxClauses   = 1024 // in all of a search
	maxTerms     = 65_536
)

// queryParser counts what a search's queries contain.
type queryParser struct{ clauses int }

// parse reads an object with one query.
func (p *queryParser) parse(v *value, depth int) (query, error) {
	if v.kind != kindObject {
		return nil, unparsable("[_na] query malformed, no start_object after query name")
	}
	if len(v.obj) == 0 {
		return nil, illegal("query malformed, empty clause found")
	}
	if len(v.obj) > 1 {
		return nil, unparsable("[%s] malformed query, expected [END_OBJECT] but found [FIELD_NAME]", v.obj[0].key)
	}
	if depth > maxBoolDepth {
		return nil, illegal("The nested depth of the query exceeds the maximum nested depth for bool queries set in [indices.query.bool.max_nested_depth]: %d", maxBoolDepth)
	}
	if p.clauses++; p.clauses > maxClauses {
		return nil, refuse(400, "too_many_nested_clauses", "Query contains too many nested clauses; maxClauseCount is set to %d", maxClauses)
	}
	name, body := v.obj[0].key, &v.obj[0].val
	if body.kind != kindObject {
		return nil, unparsable("[%s] query malformed, no start_object after query name", name)
	}
	switch name {
	case "match_all":
		return matchAll{}, only(name, body, "boost")
	case "match_none":
		return matchNone{}, only(name, body, "boost")
	case "bool":
		return p.bool(body, depth)
	case "constant_score":
		filter, ok := body.get("filter")
		if !ok {
			return nil, unparsable("[constant_score] requires a 'filter' element")
		}
		if err := only(name, body, "filter", "boost"); err != nil {
			return nil, err
		}
		return p.parse(filter, depth+1)
	case "term", "match":
		return parseTerm(name, body)
	case "terms":
		return parseTerms(body)
	case "range":
		return parseRange(body)
	case "exists":
		f, ok := body.get("field")
		if !ok || f.kind != kindString || f.str == "" {
			return nil, unparsable("[exists] must be provided with a [field]")
		}
		return existsQuery{f.str}, only(name, body, "field", "boost")
	case "prefix":
		field, val, err := oneField(name, "value", body)
		if err != nil {
			return nil, err
		}
		return prefixQuery{field, val.text()}, nil
	case "ids":
		return parseIDs(body)
	case "query_string":
		// What dashboards send when nothing is typed in. There is no parser for more.
		q, ok := body.get("query")
		if !ok || q.text() != "*" && q.text() != "*:*" {
			return nil, unparsable("[query_string] is not supported, except with the query [*]")
		}
		return matchAll{}, only(name, body, "query", "analyze_wildcard", "default_field", "default_operator", "boost")
	}
	return nil, unparsable("unknown query [%s]", name)
}

// only refuses members that are not named.
func only(name string, v *value, names ...string) error {
next:
	for i := range v.obj {
		for _, n := range names {
			if v.obj[i].key == n {
				continue next
			}
		}
		return unparsable("[%s] unknown field [%s]", name, v.obj[i].key)
	}
	return nil
}

func (p *queryParser) bool(body *value, depth int) (query, error) {
	q := &boolQuery{}
	minimum := ""
	for i := range body.obj {
		m := &body.obj[i]
		var to *[]query
		switch m.key {
		case "must", "filter":
			to = &q.must
		case "should":
			to = &q.should
		case "must_not":
			to = &q.mustNot
		case "minimum_should_match":
			minimum = m.val.text()
			continue
		case "boost":
			continue
		default:
			return nil, unparsable("[bool] unknown field [%s]", m.key)
		}
		clauses := m.val.arr
		if m.val.kind == kindObject {
			clauses = []value{m.val}
		} else if m.val.kind != kindArray {
			return nil, unparsable("[bool] query does not support [%s]", m.key)
		}
		for j := range clauses {
			clause, err := p.parse(&clauses[j], depth+1)
			if err != nil {
				return nil, err
			}
			*to = append(*to, clause)
		}
	}
	if len(q.should) > 0 && len(q.must) == 0 {
		q.minimum = 1
	}
	if minimum == "" {
		return q, nil
	}
	n, err := minimumShouldMatch(minimum, len(q.should))
	q.minimum = n
	return q, err
}

// minimumShouldMatch reads 2, -1, 75% or -25% of n clauses.
func minimumShouldMatch(s string, n int) (int, error) {
	digits, percent := strings.CutSuffix(s, "%")
	m, err := strconv.Atoi(digits)
	if err != nil || m > 1e6 || m < -1e6 {
		return 0, illegal("[minimum_should_match] is a number or a percentage, not [%s]", s)
	}
	if percent {
		m = n * m / 100
	}
	if m < 0 {
		m = max(n+m, 0)
	}
	return m, nil
}

// oneField reads {"field": value} or {"field": {"<key>": value, "boost": 1}}.
func oneField(name, key string, body *value) (string, *value, error) {
	if len(body.obj) != 1 {
		return "", nil, unparsable("[%s] query requires exactly one field", name)
	}
	field, v := body.obj[0].key, &body.obj[0].val
	if v.kind == kindObject {
		inner, ok := v.get(key)
		if !ok {
			return "", nil, unparsable("[%s] query on [%s] requires [%s]", name, field, key)
		}
		if err := only(name, v, key, "boost"); err != nil {
			return "", nil, err
		}
		v = inner
	}
	if v.kind == kindArray || v.kind == kindObject || v.kind == kindNull {
		return "", nil, unparsable("[%s] query does not support an array, object or null for [%s]", name, field)
	}
	return field, v, nil
}

// parseTerm reads term, and match, which is the same where text is not analysed.
func parseTerm(name string, body *value) (query, error) {
	key := "value"
	if name == "match" {
		key = "query"
	}
	field, v, err := oneField(name, key, body)
	if err != nil {
		return nil, err
	}
	return termsQuery{field, []value{*v}}, nil
}

func parseTerms(body *value) (query, error) {
	var q termsQuery
	for i := range body.obj {
		m := &body.obj[i]
		if m.key == "boost" {
			continue
		}
		if q.field != "" {
			return nil, unparsable("[terms] query does not support multiple fields")
		}
		if m.val.kind != kindArray {
			return nil, unparsable("[terms] query requires an array of values for [%s]", m.key)
		}
		q.field, q.values = m.key, m.val.arr
	}
	if q.field == "" {
		return nil, unparsable("[terms] query requires a field name, followed by array of terms")
	}
	if len(q.values) > maxTerms {
		return nil, illegal("The number of terms [%d] used in the Terms Query request has exceeded the allowed maximum of [%d]", len(q.values), maxTerms)
	}
	for i := range q.values {
		if k := q.values[i].kind; k == kindNull || k == kindArray || k == kindObject {
			return nil, unparsable("No value specified for terms query: [%s] has a %s", q.field, k)
		}
	}
	return q, nil
}

func parseIDs(body *value) (query, error) {
	values, ok := body.get("values")
	if !ok {
		return nil, unparsable("[ids] requires providing [values]")
	}
	var q idsQuery
	items := values.arr
	if values.kind != kindArray {
		items = []value{*values}
	}
	for i := range items {
		if k := items[i].kind; k != kindString && k != kindNumber {
			return nil, unparsable("[ids] has a %s among its values", k)
		}
		q.ids = append(q.ids, items[i].text())
	}
	return q, only("ids", body, "values", "boost")
}

func parseRange(body *value) (query, error) {
	if len(body.obj) != 1 {
		return nil, unparsable("[range] query requires exactly one field")
	}
	q := rangeQuery{field: body.obj[0].key, loc: time.UTC}
	v := &body.obj[0].val
	if v.kind != kindObject {
		return nil, unparsable("[range] query malformed, no start_object after the field [%s]", q.field)
	}
	for i := range v.obj {
		m := &v.obj[i]
		bound := &m.val
		if bound.kind == kindArray || bound.kind == kindObject {
			return nil, unparsable("[range] query does not support [%s] with a %s", m.key, bound.kind)
		}
		if bound.kind == kindNull {
			bound = nil
		}
		var err error
		switch m.key {
		case "gt":
			q.gt = bound
		case "gte":
			q.gte = bound
		case "lt":
			q.lt = bound
		case "lte":
			q.lte = bound
		case "format":
			if q.formats, err = parseFormats(m.val.text()); err != nil {
				return nil, illegal("Invalid format: [%s]: %s", m.val.text(), err)
			}
		case "time_zone":
			q.loc, err = zone(m.val.text())
		case "boost":
		default:
			err = unparsable("[range] query does not support [%s]", m.key)
		}
		if err != nil {
			return nil, err
		}
	}
	return q, nil
}

func (matchAll) sql(*compiler) (string, error)  { return "true", nil }
func (matchNone) sql(*compiler) (string, error) { return "false", nil }

func (q idsQuery) sql(c *compiler) (string, error) {
	return fmt.Sprintf("id IN (SELECT unnest(%s))", c.list(q.ids, "VARCHAR")), nil
}

func (q *boolQuery) sql(c *compiler) (string, error) {
	parts := []string{"true"}
	for _, m := range q.must {
		s, err := m.sql(c)
		if err != nil {
			return "", err
		}
		parts = append(parts, s)
	}
	for _, m := range q.mustNot {
		s, err := m.sql(c)
		if err != nil {
			return "", err
		}
		parts = append(parts, "NOT coalesce("+s+", false)")
	}
	var should []string
	for _, m := range q.should {
		s, err := m.sql(c) // also when none is needed: a mistake in it is one
		if err != nil {
			return "", err
		}
		if q.minimum > 1 {
			s = "coalesce(" + s + ", false)"
		}
		should = append(should, s)
	}
	switch {
	case q.minimum > len(should):
		return "false", nil
	case q.minimum == 1:
		parts = append(parts, "("+strings.Join(should, " OR ")+")")
	case q.minimum > 1:
		parts = append(parts, fmt.Sprintf("(%s::INTEGER >= %d)", strings.Join(should, "::INTEGER + "), q.minimum))
	case len(should) > 0:
		parts = append(parts, "("+strings.Join(should, " OR ")+" OR true)") // keeps its parameters in the statement
	}
	return "(" + strings.Join(parts, " AND ") + ")", nil
}
