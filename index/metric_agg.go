package index

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

func parseMetric(name, kind string, params *value) (*metricAgg, error) {
	a := &metricAgg{name: name, kind: kind, percents: []float64{1, 5, 25, 50, 75, 95, 99}}
	for i := range params.obj {
		m := &params.obj[i]
		ok := true
		switch {
		case m.key == "field":
			a.field, ok = m.val.str, m.val.kind == kindString
		case m.key == "precision_threshold" && kind == "cardinality": // counts are exact without
		case (m.key == "tdigest" || m.key == "hdr") && kind == "percentiles": // as are percentiles
		case m.key == "keyed" && kind == "percentiles":
			a.list = m.val.text() == "false"
		case m.key == "percents" && kind == "percentiles":
			a.percents, ok = nil, m.val.kind == kindArray && len(m.val.arr) > 0 && len(m.val.arr) <= 100
			for j := range m.val.arr {
				p, isNumber := m.val.arr[j].float()
				if !isNumber || p < 0 || p > 100 {
					return nil, illegal("percent must be in [0,100], got [%s]: [%s]", m.val.arr[j].raw, name)
				}
				a.percents = append(a.percents, p)
			}
		default:
			return nil, unparsable("[%s] unknown field [%s]", kind, m.key)
		}
		if !ok {
			return nil, unparsable("[%s] of aggregation [%s] has the unsupported value [%s]", m.key, name, m.val.raw)
		}
	}
	return a, needField(kind, name, a.field)
}

// sql returns the columns that the metric is made of, by property. v is the column of its field.
func (a *metricAgg) sql(u unified, v string) map[string]string {
	number := func(expr string) string { return "(" + expr + ")::DOUBLE" }
	flat := fmt.Sprintf("flatten(list(%s) FILTER (%[1]s IS NOT NULL))", v)
	sum, least, greatest, count, distinct := "sum(%s)", "min(%s)", "max(%s)", "count(%s)", "count(DISTINCT hash(%s))" // of hashes: the values themselves take several times the memory
	quantile := "quantile_cont(%s, [" + fractions(a.percents) + "])"
	if u.sql == "DOUBLE" {
		sum = "fsum(%s)" // does not depend on the order in which threads add up
	}
	if u.sql == "BOOLEAN" && a.kind != "cardinality" && a.kind != "value_count" {
		v += "::INTEGER"
	}
	if u.multi {
		if u.sql == "BOOLEAN" {
			v = strings.TrimSuffix(v, "::INTEGER") + "::INTEGER[]"
		}
		sum, least, greatest, count = strings.ReplaceAll(sum, "%s", "list_sum(%s)"), "min(list_min(%s))", "max(list_max(%s))", "sum(len(%s))"
		distinct = fmt.Sprintf("len(list_distinct(flatten(list(list_transform(%s, lambda e: hash(e))) FILTER (%[1]s IS NOT NULL))))", v)
		quantile = "list_aggregate(" + flat + ", 'quantile_cont', [" + fractions(a.percents) + "])"
	}
	of := func(pattern string) string {
		if !strings.Contains(pattern, "%s") {
			return pattern
		}
		return fmt.Sprintf(pattern, v)
	}
	all := map[string]string{
		"sum": number(of(sum)), "min": number(of(least)), "max": number(of(greatest)),
		"count": "coalesce(" + of(count) + ", 0)::BIGINT", "distinct": "coalesce(" + of(distinct) + ", 0)::BIGINT",
	}
	pick := func(names ...string) map[string]string {
		out := map[string]string{}
		for _, n := range names {
			out[n] = all[n]
		}
		return out
	}
	switch a.kind {
	case "sum", "min", "max":
		return pick(a.kind)
	case "avg":
		return map[string]string{"avg": fmt.Sprintf("(%s / nullif(%s, 0))", all["sum"], all["count"])}
	case "value_count":
		return pick("count")
	case "cardinality":
		return pick("distinct")
	case "percentiles":
		return map[string]string{"quantiles": of(quantile) + "::DOUBLE[]"}
	}
	stats := pick("count", "min", "max", "sum")
	stats["avg"] = fmt.Sprintf("(%s / nullif(%s, 0))", all["sum"], all["count"])
	return stats
}

func fractions(percents []float64) string {
	parts := make([]string, len(percents))
	for i, p := range percents {
		parts[i] = strconv.FormatFloat(p/100, 'f', -1, 64)
	}
	return strings.Join(parts, ", ")
}

// check refuses a metric of values that are no numbers.
func (a *metricAgg) check(x *execution, u unified) error {
	if u.sql == "VARCHAR" && u.typ != "" && a.kind != "cardinality" && a.kind != "value_count" {
		return onShard(x.indices[0].Name, "illegal_argument_exception", "Field [%s] of type [%s] is not supported for aggregation [%s]", a.field, u.typ, a.kind)
	}
	return nil
}

// render is the metric as clients are shown it. values are by property; none for a bucket without documents.
func (a *metricAgg) render(u unified, values map[string]any) map[string]any {
	float := func(name string) any {
		f, ok := values[name].(float64)
		if !ok {
			if name == "sum" {
				return double(0)
			}
			return nil
		}
		return double(f)
	}
	whole := func(name string) int64 {
		n, _ := values[name].(int64)
		return n
	}
	out := map[string]any{}
	switch a.kind {
	case "value_count":
		out["value"] = whole("count")
	case "cardinality":
		out["value"] = whole("distinct")
	case "stats":
		out["count"] = whole("count")
		for _, name := range []string{"min", "max", "avg", "sum"} {
			out[name] = float(name)
			u.dated(out, name, out[name])
		}
	case "percentiles":
		return a.renderPercentiles(u, values)
	default:
		out["value"] = float(a.kind)
		u.dated(out, "value", out["value"])
	}
	return out
}

// dated adds a date's or a boolean's number as text.
func (u unified) dated(out map[string]any, name string, v any) {
	if d, ok := v.(double); ok && u.typ == typeBoolean {
		out[name+"_as_string"] = strconv.FormatBool(d != 0)
	}
	if d, ok := v.(double); ok && u.typ == typeDate && math.Abs(float64(d)) < maxMillis {
		out[name+"_as_string"] = u.print(nil, int64(d), time.UTC)
	}
}

func (a *metricAgg) renderPercentiles(u unified, values map[string]any) map[string]any {
	list, _ := values["quantiles"].([]any)
	keyed := map[string]any{}
	items := make([]map[string]any, len(a.percents))
	for i, p := range a.percents {
		var v any
		if i < len(list) {
			if f, ok := list[i].(float64); ok {
				v = double(f)
			}
		}
		name, _ := double(p).MarshalJSON() // of a finite number
		keyed[string(name)] = v
		u.dated(keyed, string(name), v)
		items[i] = map[string]any{"key": double(p), "value": v}
		u.dated(items[i], "value", v)
	}
	if a.list {
		return map[string]any{"values": items}
	}
	return map[string]any{"values": keyed}
}
