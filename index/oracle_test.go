package index_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The oracle evaluates searches over a few hundred random documents one by one, in the plainest way, and the server must say
// the same: the hits in order and all aggregations.

// oracleDoc is a random document, and where it is.
type oracleDoc struct {
	index string
	id    string
	k     []string // keyword
	n     []int64  // long
	x     []float64
	b     []bool
	d     []int64 // date, ms
}

const oracleMapping = `{"mappings":{"properties":{"k":{"type":"keyword"},"n":{"type":"long"},"x":{"type":"double"},"b":{"type":"boolean"},"d":{"type":"date"}}}}`

// start of the oracle's dates: a Thursday.
var oracleStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

const oracleDay = 24 * 60 * 60 * 1000

// some returns no, one or, more rarely, several values.
func some[T any](r *rand.Rand, one func() T) []T {
	n := []int{0, 1, 1, 1, 1, 1, 1, 2, 3}[r.IntN(9)]
	var out []T
	for range n {
		out = append(out, one())
	}
	return out
}

func newOracleDoc(r *rand.Rand, index string, id int) oracleDoc {
	d := oracleDoc{index: index, id: fmt.Sprintf("%s%04d", index, id)}
	d.k = some(r, func() string { return []string{"a", "b", "b'c", "Ä", "x\"y", "a b"}[r.IntN(6)] })
	d.n = some(r, func() int64 { return int64(r.IntN(7) - 3) })
	d.x = some(r, func() float64 { return float64(r.IntN(16)-8) / 4 }) // sums are exact
	d.d = some(r, func() int64 { return oracleStart + r.Int64N(60*oracleDay) })
	if r.IntN(3) > 0 {
		d.b = []bool{r.IntN(2) == 0}
	}
	return d
}

func (d oracleDoc) source(t *testing.T) string {
	t.Helper()
	m := map[string]any{"n": d.n, "x": d.x, "k": d.k, "d": d.d}
	if len(d.b) > 0 {
		m["b"] = d.b[0]
	}
	b, err := json.Marshal(m)
	require.NoError(t, err)
	return string(b)
}

// oracleQuery is a query and what it means.
type oracleQuery struct {
	json  any
	match func(oracleDoc) bool
}

type obj = map[string]any

func randomQuery(r *rand.Rand, depth int) oracleQuery {
	anyOf := func(d oracleDoc, has func(string) bool) bool { return slices.ContainsFunc(d.k, has) }
	kinds := 9
	if depth > 2 {
		kinds = 8
	}
	switch r.IntN(kinds) {
	case 0:
		v := []string{"a", "b'c", "zz", "Ä"}[r.IntN(4)]
		return oracleQuery{obj{"term": obj{"k": v}}, func(d oracleDoc) bool { return slices.Contains(d.k, v) }}
	case 1:
		vs := []string{"b", "x\"y"}
		return oracleQuery{obj{"terms": obj{"k": vs}}, func(d oracleDoc) bool {
			return anyOf(d, func(s string) bool { return slices.Contains(vs, s) })
		}}
	case 2:
		low, high := int64(r.IntN(7)-3), int64(r.IntN(7)-3)
		return oracleQuery{obj{"range": obj{"n": obj{"gt": low, "lte": high}}}, func(d oracleDoc) bool {
			return slices.ContainsFunc(d.n, func(n int64) bool { return n > low && n <= high })
		}}
	case 3:
		from := oracleStart + int64(r.IntN(60))*oracleDay
		to := from + 20*oracleDay
		bounds := obj{"gte": from, "lt": to}
		if r.IntN(2) == 0 { // Elasticsearch takes no date beside a number
			bounds = obj{"gte": time.UnixMilli(from).UTC().Format("2006-01-02"), "lt": time.UnixMilli(to).UTC().Format(time.RFC3339)}
		}
		return oracleQuery{obj{"range": obj{"d": bounds}}, func(d oracleDoc) bool {
			return slices.ContainsFunc(d.d, func(at int64) bool { return at >= from && at < to })
		}}
	case 4:
		return oracleQuery{obj{"exists": obj{"field": "x"}}, func(d oracleDoc) bool { return len(d.x) > 0 }}
	case 5:
		v := []string{"a", "b", "x"}[r.IntN(3)]
		return oracleQuery{obj{"prefix": obj{"k": v}}, func(d oracleDoc) bool {
			return anyOf(d, func(s string) bool { return strings.HasPrefix(s, v) })
		}}
	case 6:
		v := r.IntN(2) == 0
		return oracleQuery{obj{"term": obj{"b": v}}, func(d oracleDoc) bool { return slices.Contains(d.b, v) }}
	case 7:
		return oracleQuery{obj{"range": obj{"x": obj{"gte": -0.3}}}, func(d oracleDoc) bool {
			return slices.ContainsFunc(d.x, func(x float64) bool { return x >= -0.3 })
		}}
	}
	return randomBool(r, depth)
}

func randomBool(r *rand.Rand, depth int) oracleQuery {
	parts := map[string][]oracleQuery{}
	body := obj{}
	for _, name := range []string{"must", "filter", "should", "must_not"} {
		var list []any
		for range r.IntN(3) {
			q := randomQuery(r, depth+1)
			parts[name] = append(parts[name], q)
			list = append(list, q.json)
		}
		if list != nil {
			body[name] = list
		}
	}
	minimum := 0
	if len(parts["should"]) > 0 && len(parts["must"])+len(parts["filter"]) == 0 {
		minimum = 1
	}
	if r.IntN(3) == 0 && len(parts["should"]) > 0 {
		minimum = 1 + r.IntN(len(parts["should"]))
		body["minimum_should_match"] = minimum
	}
	return oracleQuery{obj{"bool": body}, func(d oracleDoc) bool {
		for _, q := range append(slices.Clone(parts["must"]), parts["filter"]...) {
			if !q.match(d) {
				return false
			}
		}
		for _, q := range parts["must_not"] {
			if q.match(d) {
				return false
			}
		}
		n := 0
		for _, q := range parts["should"] {
			if q.match(d) {
				n++
			}
		}
		return n >= minimum
	}}
}

// oracleAgg is an aggregation and what it gives for documents.
type oracleAgg struct {
	json any
	eval func([]oracleDoc) any
}

func randomAggs(r *rand.Rand, depth int) (any, func([]oracleDoc) obj) {
	aggs := map[string]oracleAgg{"m": randomMetric(r)}
	if depth < 3 {
		aggs["z"] = randomBuckets(r, depth)
	}
	body := obj{}
	for name, a := range aggs {
		body[name] = a.json
	}
	return body, func(docs []oracleDoc) obj {
		out := obj{}
		for name, a := range aggs {
			out[name] = a.eval(docs)
		}
		return out
	}
}

func numbers(docs []oracleDoc) (all []float64) {
	for _, d := range docs {
		all = append(all, d.x...)
	}
	return all
}

func randomMetric(r *rand.Rand) oracleAgg {
	value := func(v any) any { return obj{"value": v} }
	metric := func(kind, field string, eval func([]oracleDoc) any) oracleAgg {
		return oracleAgg{obj{kind: obj{"field": field}}, eval}
	}
	sum := func(docs []oracleDoc) (s float64) {
		for _, x := range numbers(docs) {
			s += x
		}
		return s
	}
	switch r.IntN(6) {
	case 0:
		return metric("sum", "x", func(docs []oracleDoc) any { return value(sum(docs)) })
	case 1:
		return metric("avg", "x", func(docs []oracleDoc) any {
			if len(numbers(docs)) == 0 {
				return value(nil)
			}
			return value(sum(docs) / float64(len(numbers(docs))))
		})
	case 2:
		return metric("min", "x", func(docs []oracleDoc) any {
			if len(numbers(docs)) == 0 {
				return value(nil)
			}
			return value(slices.Min(numbers(docs)))
		})
	case 3:
		return metric("value_count", "x", func(docs []oracleDoc) any { return value(len(numbers(docs))) })
	case 4:
		// Without a threshold Elasticsearch reserves so much for each bucket that a small one answers for some shards only.
		return oracleAgg{obj{"cardinality": obj{"field": "k", "precision_threshold": 100}}, func(docs []oracleDoc) any {
			seen := map[string]bool{}
			for _, d := range docs {
				for _, k := range d.k {
					seen[k] = true
				}
			}
			return value(len(seen))
		}}
	}
	return metric("stats", "x", func(docs []oracleDoc) any {
		all := numbers(docs)
		if len(all) == 0 {
			return obj{"count": 0, "min": nil, "max": nil, "avg": nil, "sum": 0}
		}
		return obj{"count": len(all), "min": slices.Min(all), "max": slices.Max(all), "avg": sum(docs) / float64(len(all)), "sum": sum(docs)}
	})
}

func randomBuckets(r *rand.Rand, depth int) oracleAgg {
	sub, evalSub := randomAggs(r, depth+1)
	bucket := func(docs []oracleDoc, rest obj) obj {
		out := evalSub(docs)
		out["doc_count"] = len(docs)
		for k, v := range rest {
			out[k] = v
		}
		return out
	}
	switch r.IntN(3) {
	case 0:
		q := randomQuery(r, 2)
		return oracleAgg{obj{"filter": q.json, "aggs": sub}, func(docs []oracleDoc) any { return bucket(choose(docs, q.match), nil) }}
	case 1:
		size := 1 + r.IntN(6)
		return oracleAgg{obj{"terms": obj{"field": "k", "size": size, "shard_size": 100}, "aggs": sub}, func(docs []oracleDoc) any {
			groups := map[string][]oracleDoc{}
			total := 0
			for _, d := range docs {
				for _, k := range distinct(d.k) {
					groups[k] = append(groups[k], d)
					total++
				}
			}
			keys := sortedKeys(groups)
			slices.SortStableFunc(keys, func(a, b string) int { return len(groups[b]) - len(groups[a]) })
			list := []any{}
			for _, k := range keys[:min(size, len(keys))] {
				list = append(list, bucket(groups[k], obj{"key": k}))
				total -= len(groups[k])
			}
			return obj{"buckets": list, "doc_count_error_upper_bound": 0, "sum_other_doc_count": total}
		}}
	}
	days := int64(1 + r.IntN(9))
	return oracleAgg{obj{"date_histogram": obj{"field": "d", "fixed_interval": fmt.Sprintf("%dd", days)}, "aggs": sub}, func(docs []oracleDoc) any {
		groups := map[int64][]oracleDoc{}
		for _, d := range docs {
			var keys []int64
			for _, at := range d.d {
				keys = append(keys, at-at%(days*oracleDay))
			}
			for _, k := range distinct(keys) {
				groups[k] = append(groups[k], d)
			}
		}
		list := []any{}
		if keys := sortedKeys(groups); len(keys) > 0 {
			for k := keys[0]; k <= keys[len(keys)-1]; k += days * oracleDay {
				list = append(list, bucket(groups[k], obj{"key": k, "key_as_string": time.UnixMilli(k).UTC().Format("2006-01-02T15:04:05.000Z")}))
			}
		}
		return obj{"buckets": list}
	}}
}

func choose(docs []oracleDoc, keep func(oracleDoc) bool) (out []oracleDoc) {
	for _, d := range docs {
		if keep(d) {
			out = append(out, d)
		}
	}
	return out
}

func distinct[T cmp.Ordered](values []T) []T {
	s := slices.Clone(values)
	slices.Sort(s)
	return slices.Compact(s)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) (keys []K) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func TestSearchesAgreeWithOracle(t *testing.T) {
	t.Parallel()
	h := setup(t)
	askOracle(t, 150, func(r *http.Request) (int, []byte) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code, w.Body.Bytes()
	})
}

func TestOracleAgreesWithOpenSearch(t *testing.T) {
	t.Parallel()
	url := server(t, "opensearch")
	askOracle(t, 150, func(r *http.Request) (int, []byte) { return askServer(t, url, r) })
}

func TestOracleAgreesWithElasticsearch(t *testing.T) {
	t.Parallel()
	url := elasticsearch(t)
	askOracle(t, 150, func(r *http.Request) (int, []byte) { return askServer(t, url, r) })
}

func askOracle(t *testing.T, searches int, do func(*http.Request) (int, []byte)) {
	r := rand.New(rand.NewPCG(1, 2))
	call := func(method, path, body string) string {
		req := httptest.NewRequest(method, path, strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		status, answer := do(req)
		require.Equal(t, 200, status, "%s %s %s: %s", method, path, body, answer)
		return string(answer)
	}
	names := []string{"oracle-1", "oracle-2"}
	var docs []oracleDoc
	var bulk strings.Builder
	for i, name := range names {
		call("DELETE", "/"+name+"?ignore_unavailable=true", "")
		call("PUT", "/"+name, oracleMapping)
		for j := range 200 {
			d := newOracleDoc(r, name, j)
			for range 1 + r.IntN(2) { // some are written twice
				fmt.Fprintf(&bulk, "{\"index\":{\"_index\":%q,\"_id\":%q}}\n%s\n", name, d.id, d.source(t))
			}
			if j%7 == i {
				fmt.Fprintf(&bulk, "{\"delete\":{\"_index\":%q,\"_id\":%q}}\n", name, d.id)
				continue
			}
			docs = append(docs, d)
		}
	}
	require.Contains(t, call("POST", "/_bulk?refresh=true", bulk.String()), `"errors":false`)
	for range searches {
		q := randomQuery(r, 0)
		aggs, eval := randomAggs(r, 0)
		body := obj{"query": q.json, "aggs": aggs, "size": 500, "_source": false, "sort": []any{obj{"n": []string{"asc", "desc"}[r.IntN(2)]}, obj{"_id": "asc"}}}
		if r.IntN(2) == 0 {
			delete(body, "sort")
		}
		text, err := json.Marshal(body)
		require.NoError(t, err)
		found := choose(docs, q.match)
		checkAnswer(t, string(text), call("POST", "/oracle-1,oracle-2/_search?allow_partial_search_results=false", string(text)), found, eval(found), body["sort"])
	}
	for _, name := range names {
		call("DELETE", "/"+name, "")
	}
}

func checkAnswer(t *testing.T, search, answer string, found []oracleDoc, aggs obj, sort any) {
	t.Helper()
	var got struct {
		Hits struct {
			Total struct{ Value int }
			Hits  []struct {
				ID string `json:"_id"`
			}
		}
		Aggregations any
	}
	require.NoError(t, json.Unmarshal([]byte(answer), &got))
	require.Equal(t, len(found), got.Hits.Total.Value, search)
	var ids, want []string
	for _, h := range got.Hits.Hits {
		ids = append(ids, h.ID)
	}
	if sort != nil {
		found = slices.Clone(found)
		desc := sort.([]any)[0].(obj)["n"] == "desc"
		slices.SortFunc(found, func(a, b oracleDoc) int {
			c := 0
			switch {
			case len(a.n) == 0 || len(b.n) == 0:
				c = len(b.n)*100 - len(a.n)*100 // those without come last
				if len(a.n) == len(b.n) {
					c = 0
				}
			case desc:
				c = cmp.Compare(slices.Max(b.n), slices.Max(a.n))
			default:
				c = cmp.Compare(slices.Min(a.n), slices.Min(b.n))
			}
			return cmp.Or(c, strings.Compare(a.id, b.id))
		})
	} else {
		slices.Sort(ids)
	}
	for _, d := range found {
		want = append(want, d.id)
	}
	if sort == nil {
		slices.Sort(want)
	}
	require.Equal(t, want, ids, search)
	wantAggs, err := json.Marshal(aggs)
	require.NoError(t, err)
	gotAggs, err := json.Marshal(got.Aggregations)
	require.NoError(t, err)
	require.JSONEq(t, string(wantAggs), string(gotAggs), search)
}
