package plantest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/plan"
	"millrace/record"
)

// Wait is how long Toy's events wait for their entity, in processing time.
const Wait = time.Hour

// Event makes an item that Toy joins with the entity of its key.
func Event(key, id string) record.Item {
	return record.Item{Kind: record.Event, SourceType: "TOY", ID: id, Bytes: []byte(key)}
}

// Entity makes the item that Toy's events of that key wait for.
func Entity(key string) record.Item {
	return record.Item{Kind: record.Entity, SourceType: "TOY", ID: key, Bytes: []byte(key)}
}

// Toy's stages, tables and counters.
const (
	toyJoin = iota
	toyLetter
	toyTotal

	toyJoined  = 0
	toyLate    = 1
	toyLetters = 2
	toyTotals  = 3

	tagEvent  = 1
	tagEntity = 2
	tagDirect = 3
	tagLetter = 4
)

// Toy is a small plan that uses everything a runner offers but event time: an event joins the entity of its key, waits
// for it in the key's list, and is given up by a timer after Wait; joined events are counted per first letter of the key,
// and in all, by two ways: join → letter → total and join → total.
//
// Its final tables are ToyModel's, whatever the order, the epochs, the workers and the restarts.
func Toy() *plan.Plan {
	table := func(name string) plan.Table {
		return plan.Table{Name: name, Schema: plan.Schema{Name: "Toy", Columns: []plan.Column{{Name: "value", Type: plan.String}}}}
	}
	return &plan.Plan{
		App: "toy", Version: "1.0.0", SourceTypes: []string{"TOY"},
		Read: func(items []record.Item, out *plan.Output) {
			for _, it := range items {
				tag := uint8(tagEvent)
				if it.Kind == record.Entity {
					tag = tagEntity
				}
				out.Count(int(it.Kind)-1, 1)
				out.Send(toyJoin, plan.Element{Key: it.Bytes, Tag: tag, Payload: []byte(it.ID)})
			}
		},
		ReadTo: []int{toyJoin},
		Stages: []plan.Stage{
			{Name: "join", To: []int{toyLetter, toyTotal}, Keyed: toyJoinKeys, ListTags: []uint8{tagEntity}},
			{Name: "letter", To: []int{toyTotal}, Keyed: toyLetterKeys},
			{Name: "total", Keyed: toyTotalKeys},
		},
		Tables:   []plan.Table{table("joined"), table("late"), table("letters"), table("totals")},
		Counters: []string{"events", "entities", "late"},
	}
}

// ToyModel says what Toy's tables hold once items are read and Wait is over: table/id → value.
func ToyModel(items []record.Item) map[string]string {
	known, letters, total, want := map[string]bool{}, map[string]int{}, 0, map[string]string{}
	for _, it := range items {
		known[string(it.Bytes)] = known[string(it.Bytes)] || it.Kind == record.Entity
	}
	for _, it := range items {
		switch key := string(it.Bytes); {
		case it.Kind != record.Event:
		case known[key]:
			want["joined/"+it.ID] = key
			letters[key[:1]]++
			total++
		default:
			want["late/"+it.ID] = key
		}
	}
	for l, n := range letters {
		want["letters/"+l] = strconv.Itoa(n)
		want["totals/all"] = fmt.Sprintf("%d %d", total, total)
	}
	return want
}

// Tables returns what the rows make of the tables: table/id → the value of the highest revision. It is an error if the
// first row of an id does not say so, or a later one with a higher revision does.
func Tables(p *plan.Plan, rows []plan.Row) (map[string]string, error) {
	rev, values := map[string]uint64{}, map[string]string{}
	for _, r := range rows {
		id := p.Tables[r.Table].Name + "/" + r.ID
		old, seen := rev[id]
		if !seen && !r.First {
			return nil, fmt.Errorf("row %s begins with revision %d, which is not marked as the first", id, r.Rev)
		}
		if seen && r.First && r.Rev > old {
			return nil, fmt.Errorf("row %s has a second first revision, %d after %d", id, r.Rev, old)
		}
		if seen && r.Rev < old {
			continue
		}
		rev[id] = r.Rev
		if delete(values, id); r.Deleted {
			continue
		}
		cells := make([]plan.Cell, 1)
		if err := p.Tables[r.Table].Schema.Decode(r.Value, cells); err != nil {
			return nil, err
		}
		values[id] = string(cells[0].Bytes)
	}
	return values, nil
}

func toyRow(table int, id string, rev uint64, first bool, value string) plan.Row {
	v, err := plan.Schema{Columns: []plan.Column{{Type: plan.String}}}.Append(nil, []plan.Cell{{Bytes: []byte(value)}})
	if err != nil {
		panic(err) // one cell for one column
	}
	return plan.Row{Table: table, ID: id, Rev: rev, First: first, Account: "acme", Env: "test", Sources: []string{"toy " + id}, Value: v}
}

func toyJoinKeys(clock plan.Clock, keys []*plan.Key, out *plan.Output) {
	for _, k := range keys {
		var joined, waiting [][]byte
		entity := k.Value != nil
		for _, in := range k.Inputs {
			if in.Tag == tagEntity {
				entity = true
			} else {
				waiting = append(waiting, in.Payload)
			}
		}
		switch {
		case entity:
			k.SetValue = []byte("known")
			joined = append(slices.Clone(k.List), waiting...)
			k.ReplaceList = k.List != nil
		case len(k.Timers) > 0:
			for _, id := range k.List {
				out.Row(toyRow(toyLate, string(id), 1, true, string(k.Key)))
				out.Count(2, 1)
			}
			k.ReplaceList = true
			fallthrough
		default:
			if len(waiting) > 0 {
				k.Append = waiting
				k.SetTimers = []plan.Timer{{Domain: plan.ProcessingTime, At: clock.Processing + Wait.Microseconds()}}
			}
		}
		for _, id := range joined {
			out.Row(toyRow(toyJoined, string(id), 1, true, string(k.Key)))
			out.Send(toyLetter, plan.Element{Key: k.Key[:1]})
			out.Send(toyTotal, plan.Element{Key: []byte("all"), Tag: tagDirect})
		}
	}
}

func toyLetterKeys(_ plan.Clock, keys []*plan.Key, out *plan.Output) {
	for _, k := range keys {
		n, _ := strconv.Atoi(string(k.Value))
		for range k.Inputs {
			n++
			out.Row(toyRow(toyLetters, string(k.Key), uint64(n), n == 1, strconv.Itoa(n)))
			out.Send(toyTotal, plan.Element{Key: []byte("all"), Tag: tagLetter})
		}
		k.SetValue = []byte(strconv.Itoa(n))
	}
}

func toyTotalKeys(_ plan.Clock, keys []*plan.Key, out *plan.Output) {
	for _, k := range keys {
		var direct, letter int
		if k.Value != nil {
			if _, err := fmt.Sscan(string(k.Value), &direct, &letter); err != nil {
				panic(fmt.Sprintf("total has the value %q: %v", k.Value, err))
			}
		}
		first := direct+letter == 0
		for _, in := range k.Inputs {
			if in.Tag == tagDirect {
				direct++
			} else {
				letter++
			}
		}
		text := fmt.Sprintf("%d %d", direct, letter)
		k.SetValue = []byte(text)
		out.Row(toyRow(toyTotals, string(k.Key), uint64(direct+letter), first, text))
	}
}

// Format prints tables one row a line, sorted.
func Format(tables map[string]string) string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(tables)) {
		fmt.Fprintf(&b, "%s = %s\n", id, tables[id])
	}
	return b.String()
}
