package oracletest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"millrace/record"
)

// Every name that the records of a universe can have or refer to. They are few, so that everything meets.
const names = 3

func name(i int) string { return fmt.Sprintf("https://example.edu/%d", i) }

var start = time.Date(2018, 8, 27, 12, 0, 0, 0, time.UTC)

// randomTime returns one of few instants.
func randomTime(r *rand.Rand) time.Time { return start.Add(time.Duration(r.IntN(6)) * time.Hour) }

// randomRef makes a value that refers to an entity: mostly one that exists, sometimes nothing, nobody, or an odd spelling.
func randomRef(r *rand.Rand, pool int) any {
	switch r.IntN(16) {
	case 0:
		return nil
	case 1:
		return pick(r, "_:b0", "http://purl.imsglobal.org/caliper/v1/lis/Person", "")
	case 2:
		return float64(r.IntN(2))
	case 3:
		return map[string]any{"id": name(r.IntN(pool))}
	case 4:
		return []any{name(0)}
	}
	return name(r.IntN(pool))
}

func setRefs(r *rand.Rand, tree map[string]any, pool int) {
	for _, k := range []string{"ref", "ref2"} {
		if r.IntN(8) > 0 {
			tree[k] = randomRef(r, pool)
		}
	}
}

func randomEntity(r *rand.Rand, pool int) map[string]any {
	tree := map[string]any{
		"type": pick(r, "Person", "Person", "http://purl.imsglobal.org/caliper/v1/lis/Person", "Assessment", "AssignableDigitalResource", "Membership", "Membership"),
	}
	if r.IntN(6) > 0 {
		tree["val"] = fmt.Sprintf("v%d", r.IntN(4*pool))
	}
	switch r.IntN(12) {
	case 0:
	case 1:
		tree["id"] = pick[any](r, "_:b0", tree["type"])
	default:
		tree["id"] = name(r.IntN(pool))
	}
	if id, ok := tree["id"]; ok {
		tree["uid"] = id
	}
	if r.IntN(3) > 0 {
		tree["dateModified"] = randomTime(r).Format(time.RFC3339)
	}
	setRefs(r, tree, pool)
	return tree
}

func randomEvent(r *rand.Rand, n, pool int) map[string]any {
	tree := map[string]any{"type": pick(r, "A", "B"), "uid": fmt.Sprintf("e%d", n), "val": fmt.Sprintf("e%d", n)}
	if r.IntN(3) > 0 {
		tree["id"] = fmt.Sprintf("urn:%d", r.IntN(2*n+2)) // two of one id and different content are two
	}
	if r.IntN(8) > 0 {
		tree["eventTime"] = randomTime(r).Format(time.RFC3339)
	}
	tree["action"] = pick(r, "Created", "Modified", "Deleted", "http://purl.imsglobal.org/vocab/caliper/v1/action#Deleted")
	setRefs(r, tree, pool)
	var list []any
	for i := range r.IntN(4) {
		item := map[string]any{"n": fmt.Sprint(i), "val": fmt.Sprintf("e%d.%d", n, i)}
		setRefs(r, item, pool)
		if r.IntN(8) == 0 {
			item[pick(r, "skip", "skip", "boom")] = "yes"
		}
		list = append(list, item)
	}
	if list != nil {
		tree["list"] = list
	}
	return tree
}

// randomItems makes a universe of about n records. Of the entities many are described again: as they were, by a document or inside an
// event, at the same or at another time.
func randomItems(r *rand.Rand, n int) []record.Item {
	pool := max(names, n/12)
	var items []record.Item
	var described []map[string]any
	describe := func() map[string]any {
		if len(described) > 0 && r.IntN(3) == 0 {
			return pick(r, described...)
		}
		described = append(described, randomEntity(r, pool))
		return described[len(described)-1]
	}
	for i := range n/2 + r.IntN(n) {
		it := record.Item{Account: pick(r, "a", "a", "a", "a", "a", "b"), Env: "e", SourceType: "LMS", ReceivedAt: start, SendTime: randomTime(r)}
		if it.Kind = pick(r, record.Event, record.Entity, record.Entity); it.Kind == record.Event {
			tree := randomEvent(r, i, pool)
			if r.IntN(3) == 0 {
				tree["object"] = describe()
			}
			it.Bytes = spell(tree, 0)
		} else {
			it.Bytes = spell(describe(), 0)
		}
		items = append(items, it)
	}
	return items
}

// respell writes a document in another way that means the same.
func respell(doc []byte, style int) []byte {
	var tree any
	if err := json.Unmarshal(doc, &tree); err != nil {
		panic(err)
	}
	return spell(tree, style)
}

// spell writes a tree as JSON. Styles differ in white space, in the order of members and in the spelling of numbers.
func spell(tree any, style int) []byte {
	switch v := tree.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		if style == 1 {
			slices.Reverse(keys)
		}
		parts := make([]string, len(keys))
		for i, k := range keys {
			parts[i] = fmt.Sprintf("%q:%s", k, spell(v[k], style))
		}
		return []byte("{" + strings.Join(parts, ",") + "}")
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			parts[i] = string(spell(e, style))
		}
		sep := ","
		if style == 1 {
			sep = " , "
		}
		return []byte("[" + strings.Join(parts, sep) + "]")
	case float64:
		if style == 1 {
			return fmt.Appendf(nil, "%g.0", v)
		}
	}
	b, err := json.Marshal(tree)
	if err != nil {
		panic(err)
	}
	return b
}
