package index

import (
	"strings"
)

// bucketAgg is an aggregation that puts documents into buckets, with those inside it. The root has no kind and one bucket.
type bucketAgg struct {
	name    string
	kind    string   // terms, date_histogram, filter, filters, composite
	sources []source // what the keys of its buckets are; one, but for composite
	size    int      // of terms and composite
	order   []bucketOrder
	minimum int64 // min_doc_count
	after   []value
	metrics []*metricAgg
	buckets []*bucketAgg
}

// source is where one key of a bucket comes from.
type source struct {
	name    string // in composite
	kind    string // terms, date_histogram, filters
	field   string
	missing *value // terms: stands for no value
	desc    bool   // composite

	histogram histogram

	filters []query
	names   []string // of filters; nil when they are a list
}

// bucketOrder is one key that the buckets of a terms aggregation are ordered by.
type bucketOrder struct {
	path string // _count, _key, or the name of a metric inside, with .property when it has several
	desc bool
}

// metricAgg is an aggregation that makes numbers of a bucket.
type metricAgg struct {
	name     string
	kind     string
	field    string
	percents []float64
	list     bool // percentiles as a list instead of an object
}

// maxBuckets is Elasticsearch's search.max_buckets.
const maxBuckets = 65_536

func tooManyBuckets() error {
	return refuse(400, "too_many_buckets_exception", "Trying to create too many buckets. Must be less than or equal to: [%d]. This limit can be set by changing the [search.max_buckets] cluster level setting.", maxBuckets)
}

// maxAggDepth bounds how deep aggregations nest, and maxAggs how many a search has: each bucket aggregation is a statement.
const (
	maxAggDepth = 20
	maxAggs     = 200
)

type aggParser struct {
	queries *queryParser
	count   int
}

func parseAggs(p *queryParser, v *value) (*bucketAgg, error) {
	root := &bucketAgg{}
	return root, (&aggParser{queries: p}).children(root, v, 0)
}

// children reads an object of named aggregations into what they are inside of.
func (p *aggParser) children(parent *bucketAgg, v *value, depth int) error {
	if v.kind != kindObject {
		return unparsable("Expected [START_OBJECT] under [aggs], but got a [%s]", v.kind)
	}
	if depth > maxAggDepth {
		return illegal("aggregations are nested deeper than %d levels", maxAggDepth)
	}
	for i := range v.obj {
		if p.count++; p.count > maxAggs {
			return illegal("a search has more than %d aggregations", maxAggs)
		}
		name, body := v.obj[i].key, &v.obj[i].val
		if strings.ContainsAny(name, "[]>") || name == "" {
			return unparsable("Invalid aggregation name [%s]. Aggregation names cannot contain '[', ']', and '>'", name)
		}
		if body.kind != kindObject {
			return unparsable("Aggregation definition for [%s] starts with a [%s], expected a [START_OBJECT].", name, body.kind)
		}
		if err := p.one(parent, name, body, depth); err != nil {
			return err
		}
	}
	return nil
}

func (p *aggParser) one(parent *bucketAgg, name string, body *value, depth int) error {
	var kind string
	var params, inside *value
	for i := range body.obj {
		m := &body.obj[i]
		switch m.key {
		case "aggs", "aggregations":
			inside = &m.val
		case "meta":
			return unparsable("[meta] of aggregation [%s] is not supported", name)
		default:
			if kind != "" {
				return unparsable("Found two aggregation type definitions in [%s]: [%s] and [%s]", name, kind, m.key)
			}
			kind, params = m.key, &m.val
		}
	}
	if kind == "" {
		return unparsable("Missing definition for aggregation [%s]", name)
	}
	if params.kind != kindObject {
		return unparsable("[%s] of aggregation [%s] must be an object", kind, name)
	}
	switch kind {
	case "sum", "avg", "min", "max", "cardinality", "value_count", "stats", "percentiles":
		if inside != nil {
			return illegal("Aggregator [%s] of type [%s] cannot accept sub-aggregations", name, kind)
		}
		m, err := parseMetric(name, kind, params)
		if err != nil {
			return err
		}
		parent.metrics = append(parent.metrics, m)
		return nil
	}
	a := &bucketAgg{name: name, kind: kind, minimum: 1}
	var err error
	switch kind {
	case "terms":
		err = a.terms(params)
	case "date_histogram":
		err = a.dateHistogram(params)
	case "filter":
		var q query
		if q, err = p.queries.parse(params, 1); err == nil {
			a.sources = []source{{kind: "filters", filters: []query{q}}}
		}
	case "filters":
		err = a.filters(p.queries, params)
	case "composite":
		if depth > 0 {
			return illegal("[composite] aggregation cannot be used with a parent aggregation")
		}
		err = a.composite(params)
	default:
		return unparsable("Unknown aggregation type [%s]", kind)
	}
	if err != nil {
		return err
	}
	parent.buckets = append(parent.buckets, a)
	if inside != nil {
		if err := p.children(a, inside, depth+1); err != nil {
			return err
		}
	}
	return a.checkOrder()
}

func (a *bucketAgg) terms(params *value) error {
	a.size = 10
	a.order = []bucketOrder{{"_count", true}}
	src := source{kind: "terms"}
	for i := range params.obj {
		m := &params.obj[i]
		var err error
		switch m.key {
		case "field":
			src.field = m.val.text()
		case "size":
			if a.size, err = natural(m); err == nil && (a.size == 0 || a.size > maxBuckets) {
				err = illegal("[size] of terms must be from 1 to %d. Found [%d] in [%s]", maxBuckets, a.size, a.name)
			}
		case "min_doc_count":
			var n int
			if n, err = natural(m); err == nil && n == 0 {
				err = illegal("[min_doc_count] 0 of a terms aggregation is not supported")
			}
			a.minimum = int64(n)
		case "missing":
			src.missing = &m.val
			if k := m.val.kind; k != kindString && k != kindNumber && k != kindBool {
				err = unparsable("[missing] of terms must be a value, not a %s", k)
			}
		case "order":
			a.order, err = parseOrder(&m.val)
		case "shard_size", "execution_hint", "collect_mode", "shard_min_doc_count": // results are exact without
		case "show_term_doc_count_error":
			var on bool
			if on, err = boolean(m); on {
				err = unparsable("[terms] [show_term_doc_count_error] is not supported")
			}
		default:
			err = unparsable("[terms] unknown field [%s]", m.key)
		}
		if err != nil {
			return err
		}
	}
	a.sources = []source{src}
	return needField(a.kind, a.name, src.field)
}

func needField(kind, name, field string) error {
	if field == "" {
		return illegal("Required one of fields [field, script], but none were specified for [%s] aggregation [%s]", kind, name)
	}
	return nil
}

func parseOrder(v *value) ([]bucketOrder, error) {
	items := v.arr
	if v.kind == kindObject {
		items = []value{*v}
	}
	var out []bucketOrder
	for i := range items {
		if items[i].kind != kindObject || len(items[i].obj) != 1 {
			return nil, unparsable("Must specify at least one field for [order], one in each object")
		}
		m := items[i].obj[0]
		switch m.val.text() {
		case "asc", "desc":
			out = append(out, bucketOrder{m.key, m.val.text() == "desc"})
		default:
			return nil, unparsable("Unknown order direction [%s]", m.val.text())
		}
	}
	if len(out) == 0 {
		return nil, unparsable("Must specify at least one field for [order]")
	}
	return out, nil
}

// checkOrder refuses an order by what is not there.
func (a *bucketAgg) checkOrder() error {
	for _, o := range a.order {
		if o.path == "_count" || o.path == "_key" {
			continue
		}
		if a.kind == "date_histogram" {
			return illegal("a date_histogram is ordered by _key or _count, not [%s]", o.path)
		}
		if _, _, ok := a.ordered(o.path); !ok {
			return illegal("Invalid aggregation order path [%s]. The provided aggregation [%s] either does not exist, or is not a number that [%s] can be ordered by.", o.path, o.path, a.name)
		}
	}
	return nil
}

// ordered finds the metric and the property of it that an order names.
func (a *bucketAgg) ordered(path string) (metric int, property string, ok bool) {
	name, property, dotted := strings.Cut(path, ".")
	for i, m := range a.metrics {
		if m.name != name && m.name != path {
			continue
		}
		switch m.kind {
		case "percentiles":
			return 0, "", false
		case "stats":
			switch property {
			case "count", "min", "max", "avg", "sum":
				return i, property, m.name == name
			}
			return 0, "", false
		}
		return i, "", m.name == path || !dotted || property == "value"
	}
	return 0, "", false
}

func (a *bucketAgg) filters(p *queryParser, params *value) error {
	body, ok := params.get("filters")
	if !ok || body.kind != kindObject && body.kind != kindArray {
		return unparsable("[filters] of aggregation [%s] requires an object or an array of filters", a.name)
	}
	if err := only("filters", params, "filters"); err != nil {
		return err
	}
	src := source{kind: "filters"}
	items := body.arr
	if body.kind == kindObject {
		src.names = []string{}
	}
	for i := range body.obj {
		src.names = append(src.names, body.obj[i].key)
		items = append(items, body.obj[i].val)
	}
	for i := range items {
		q, err := p.parse(&items[i], 1)
		if err != nil {
			return err
		}
		src.filters = append(src.filters, q)
	}
	a.sources = []source{src}
	return nil
}

func (a *bucketAgg) composite(params *value) error {
	a.size = 10
	var last *value
	for i := range params.obj {
		m := &params.obj[i]
		var err error
		switch m.key {
		case "size":
			if a.size, err = natural(m); err == nil && (a.size == 0 || a.size > maxBuckets) {
				err = illegal("[size] of composite must be from 1 to %d. Found [%d] in [%s]", maxBuckets, a.size, a.name)
			}
		case "sources":
			for j := range m.val.arr {
				var src source
				if src, err = compositeSource(&m.val.arr[j]); err != nil {
					return err
				}
				a.sources = append(a.sources, src)
			}
		case "after":
			last = &m.val
		default:
			err = unparsable("[composite] unknown field [%s]", m.key)
		}
		if err != nil {
			return err
		}
	}
	if len(a.sources) == 0 {
		return illegal("Composite [sources] cannot be null or empty")
	}
	if last == nil {
		return nil
	}
	if len(last.obj) != len(a.sources) {
		return illegal("[after] has %d value(s) but [sources] has %d", len(last.obj), len(a.sources))
	}
	for _, src := range a.sources {
		v, ok := last.get(src.name)
		if !ok {
			return illegal("Missing value for [after.%s]", src.name)
		}
		a.after = append(a.after, *v)
	}
	return nil
}

func compositeSource(v *value) (src source, err error) {
	if len(v.obj) != 1 || len(v.obj[0].val.obj) != 1 || v.obj[0].val.obj[0].val.kind != kindObject {
		return src, unparsable("a source of composite must be {name: {type: {…}}}, not [%s]", v.raw)
	}
	src.name = v.obj[0].key
	src.kind = v.obj[0].val.obj[0].key
	body := v.obj[0].val.obj[0].val
	if src.kind != "terms" && src.kind != "date_histogram" {
		return src, unparsable("invalid source type: [%s]", src.kind)
	}
	for i := range body.obj {
		m := &body.obj[i]
		err = nil
		switch m.key {
		case "field":
			src.field = m.val.text()
		case "order":
			src.desc = strings.EqualFold(m.val.text(), "desc")
			if !src.desc && !strings.EqualFold(m.val.text(), "asc") {
				err = unparsable("Unknown order direction [%s]", m.val.text())
			}
		case "missing_bucket":
			var on bool
			if on, err = boolean(m); on {
				err = unparsable("[composite] [missing_bucket] is not supported")
			}
		default:
			known := false
			if src.kind == "date_histogram" {
				known, err = src.histogram.param(m)
			}
			if !known && err == nil {
				err = unparsable("[%s] unknown field [%s]", src.kind, m.key)
			}
		}
		if err != nil {
			return src, err
		}
	}
	if src.kind == "date_histogram" {
		if err := src.histogram.check(src.name); err != nil {
			return src, err
		}
	}
	return src, needField(src.kind, src.name, src.field)
}
