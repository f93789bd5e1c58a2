package engine

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"unsafe"

	"millrace/plan"
)

// group collects the elements and fired timers for a keyed stage by key. Keys come out in order of their state keys; a
// key's inputs stay in order.
func (g *program) group(stage int, outs []*plan.Output, fired []firedTimer) []keyed {
	n := 0
	for _, o := range outs {
		n += len(o.Sent[stage])
	}
	if n+len(fired) == 0 {
		return nil
	}
	// Two passes: number the distinct keys and count their inputs, then lay all inputs out in one slice.
	index := make(map[string]int32, n+len(fired))
	of := make([]int32, 0, n) // element → key number
	var keys [][]byte
	var count []int32
	number := func(key []byte) int32 {
		// The map holds slices of elements, which stay unchanged until the epoch is committed; so does the map.
		s := unsafe.String(unsafe.SliceData(key), len(key))
		i, ok := index[s]
		if !ok {
			i = int32(len(keys))
			index[s] = i
			keys = append(keys, key)
			count = append(count, 0)
		}
		return i
	}
	bytesOfKeys := 0
	for _, o := range outs {
		for i := range o.Sent[stage] {
			k := number(o.Sent[stage][i].Key)
			count[k]++
			of = append(of, k)
		}
	}
	timers := make([]int32, len(fired))
	for i := range fired {
		timers[i] = number(fired[i].key)
	}
	for _, k := range keys {
		bytesOfKeys += stageHeader + binary.MaxVarintLen32 + len(k)
	}

	type sortable struct {
		abbreviated uint64
		stateKey    []byte
		number      int32
	}
	arena := make([]byte, 0, bytesOfKeys)
	order := make([]sortable, len(keys))
	for i, k := range keys {
		from := len(arena)
		arena = appendValueKey(arena, g.stageIDs[stage], keyGroup(k, g.groups), k)
		stateKey := arena[from:len(arena):len(arena)]
		order[i] = sortable{comparer.AbbreviatedKey(stateKey[3:]), stateKey, int32(i)} // 3: kind and stage are the same for all
	}
	slices.SortFunc(order, func(a, b sortable) int {
		if c := cmp.Compare(a.abbreviated, b.abbreviated); c != 0 {
			return c
		}
		return bytes.Compare(a.stateKey, b.stateKey)
	})

	out := make([]keyed, len(keys))
	place := make([]int32, len(keys)) // key number → position in out
	inputs := make([]plan.Element, n)
	from := int32(0)
	for i := range order {
		k := order[i].number
		place[k] = int32(i)
		out[i].Key.Key = keys[k]
		out[i].stateKey = order[i].stateKey
		out[i].Inputs = inputs[from : from : from+count[k]]
		from += count[k]
	}
	tags := &g.listTags[stage]
	next := 0
	for _, o := range outs {
		for i := range o.Sent[stage] {
			e := &o.Sent[stage][i]
			k := &out[place[of[next]]]
			k.Inputs = append(k.Inputs, *e)
			k.needList = k.needList || tags[e.Tag]
			next++
		}
	}
	for i := range fired {
		k := &out[place[timers[i]]]
		k.Timers = append(k.Timers, fired[i].timer)
		k.needList = true
	}
	if len(fired) > 0 {
		for i := range out {
			slices.SortStableFunc(out[i].Timers, func(a, b plan.Timer) int { return cmp.Compare(a.At, b.At) })
		}
	}
	return out
}
