// Package etltest runs a plan in memory, for tests of apps and as the model that runners are compared with.
//
// It is the plainest runner there is: maps for state, one element after the other, no crash to survive. What it does in a page,
// engine and flink must do in earnest.
package etltest

import (
	"maps"
	"slices"
	"sort"
	"time"

	"millrace/plan"
	"millrace/record"
)

// Job is a plan that runs in memory.
type Job struct {
	Plan     *plan.Plan
	Now      time.Time // processing time; it moves by Advance
	Counters map[string]int64

	// Drop, when it is set, is asked before each epoch until when items that expire go before their time, see plan.Expiring.
	Drop func() int64

	stages []map[string]*state
	rows   []map[string]plan.Row
	offset int64
}

type state struct {
	value    []byte
	list     [][]byte
	expiring []plan.Expiring
	timers   map[plan.Timer]bool
}

// New returns a job that has read nothing.
func New(p *plan.Plan) *Job {
	j := &Job{Plan: p, Now: time.Date(2018, 8, 27, 17, 42, 35, 0, time.UTC), Counters: map[string]int64{}}
	for range p.Stages {
		j.stages = append(j.stages, map[string]*state{})
	}
	for range p.Tables {
		j.rows = append(j.rows, map[string]plan.Row{})
	}
	return j
}

// Feed runs one epoch over the items. Items without a position get the next one of partition 0.
func (j *Job) Feed(items ...record.Item) {
	items = slices.Clone(items)
	for i := range items {
		if items[i].Position == (record.Position{}) {
			items[i].Position = record.Position{Topic: "ingest-prime", Offset: j.offset}
			j.offset++
		}
	}
	j.epoch(items)
}

// Advance moves the clock and runs the epochs in which timers fire.
func (j *Job) Advance(d time.Duration) {
	end := j.Now.Add(d)
	for {
		next, ok := j.nextTimer()
		if !ok || next > end.UnixMicro() {
			break
		}
		if at := time.UnixMicro(next).UTC(); at.After(j.Now) {
			j.Now = at
		}
		j.epoch(nil)
	}
	j.Now = end
}

func (j *Job) nextTimer() (next int64, ok bool) {
	for _, keys := range j.stages {
		for _, s := range keys {
			for t := range s.timers {
				if t.Domain == plan.ProcessingTime && (!ok || t.At < next) {
					next, ok = t.At, true
				}
			}
		}
	}
	return next, ok
}

func (j *Job) epoch(items []record.Item) {
	p := j.Plan
	out := plan.NewOutput(p)
	p.Read(items, out)
	now := j.Now.UnixMicro()
	expire := now // timers that are still to fire may find what expires after their instants
	if next, ok := j.nextTimer(); ok {
		expire = min(expire, next)
	}
	if j.Drop != nil {
		j.drop(j.Drop())
	}
	for i, s := range p.Stages {
		if s.Stateless != nil {
			s.Stateless(encoded(out.Sent[i]), out)
			continue
		}
		keys := j.batch(i, encoded(out.Sent[i]), now, expire)
		s.Keyed(plan.Clock{Processing: now}, keys, out)
		for _, k := range keys {
			j.apply(i, k)
		}
	}
	for i, n := range out.Counts {
		j.Counters[p.Counters[i]] += n
	}
	for _, r := range out.Rows {
		if old, ok := j.rows[r.Table][r.ID]; !ok || r.Rev >= old.Rev {
			j.rows[r.Table][r.ID] = r
		}
	}
}

// drop lets the items that expire until then go, except what is held.
func (j *Job) drop(until int64) {
	for _, keys := range j.stages {
		for _, s := range keys {
			s.expiring = slices.DeleteFunc(s.expiring, func(x plan.Expiring) bool { return x.Until <= until && !x.Hold })
		}
	}
}

// encoded sends everything in its encoded form, as between processes; engine shows that messages work as they are.
func encoded(in []plan.Element) []plan.Element {
	out := make([]plan.Element, len(in))
	for i := range in {
		out[i] = in[i].Encode()
	}
	return out
}

func (j *Job) batch(stage int, in []plan.Element, now, expire int64) (keys []*plan.Key) {
	byKey := map[string]*plan.Key{}
	key := func(k string) *plan.Key {
		if byKey[k] == nil {
			byKey[k] = &plan.Key{Key: []byte(k)}
			if s := j.stages[stage][k]; s != nil {
				byKey[k].Value = s.value
			}
			keys = append(keys, byKey[k])
		}
		return byKey[k]
	}
	for _, e := range in {
		k := key(string(e.Key))
		k.Inputs = append(k.Inputs, e)
	}
	for name, s := range j.stages[stage] {
		for t := range s.timers {
			if t.Domain == plan.ProcessingTime && t.At <= now {
				k := key(name)
				k.Timers = append(k.Timers, t)
				delete(s.timers, t)
			}
		}
	}
	for _, k := range keys {
		sort.Slice(k.Timers, func(a, b int) bool { return k.Timers[a].At < k.Timers[b].At })
		load := len(k.Timers) > 0
		for _, e := range k.Inputs {
			load = load || slices.Contains(j.Plan.Stages[stage].ListTags, e.Tag)
		}
		if s := j.stages[stage][string(k.Key)]; load && s != nil {
			k.List = slices.Clone(s.list)
			s.expiring = slices.DeleteFunc(s.expiring, func(x plan.Expiring) bool { return x.Until <= expire })
			for _, x := range s.expiring {
				k.List = append(k.List, x.Item)
			}
		}
	}
	sort.Slice(keys, func(a, b int) bool { return string(keys[a].Key) < string(keys[b].Key) })
	return keys
}

func (j *Job) apply(stage int, k *plan.Key) {
	s := j.stages[stage][string(k.Key)]
	if s == nil {
		s = &state{timers: map[plan.Timer]bool{}}
		j.stages[stage][string(k.Key)] = s
	}
	if k.SetValue != nil {
		s.value = k.SetValue
		if len(s.value) == 0 {
			s.value = nil
		}
	}
	if k.ReplaceList {
		s.list, s.expiring = nil, nil
	}
	s.expiring = append(s.expiring, k.AppendUntil...)
	s.list = append(s.list[:len(s.list):len(s.list)], k.Append...)
	for _, t := range k.ClearTimers {
		delete(s.timers, t)
	}
	for _, t := range k.SetTimers {
		s.timers[t] = true
	}
}

// Listed returns how many items the keys of all stages have in their lists: for etl, the records that may still change.
func (j *Job) Listed() (n int) {
	for _, keys := range j.stages {
		for _, s := range keys {
			n += len(s.list)
			for _, x := range s.expiring {
				if x.Until > j.Now.UnixMicro() {
					n++
				}
			}
		}
	}
	return n
}

// Newest returns the newest revision of each row of a table by id, withdrawn ones included.
func (j *Job) Newest(table string) map[string]plan.Row {
	i, ok := j.Plan.Table(table)
	if !ok {
		return nil
	}
	return maps.Clone(j.rows[i])
}

// Rows returns a table's rows by id, as values by column. Withdrawn rows are not among them.
func (j *Job) Rows(table string) map[string]map[string]any {
	i, ok := j.Plan.Table(table)
	if !ok {
		panic("no table " + table + " in " + j.Plan.App)
	}
	out := map[string]map[string]any{}
	for id, r := range j.rows[i] {
		if !r.Deleted {
			out[id] = Values(j.Plan.Tables[i].Schema, r.Value)
		}
	}
	return out
}

// Values decodes a row: string, bool, int64, float64, time.Time, []byte, []string or nil by column.
func Values(s plan.Schema, value []byte) map[string]any {
	cells := make([]plan.Cell, len(s.Columns))
	if err := s.Decode(value, cells); err != nil {
		panic(err)
	}
	out := map[string]any{}
	for i, c := range s.Columns {
		cell := cells[i]
		switch {
		case cell.Null:
			out[c.Name] = nil
		case c.Type == plan.String:
			out[c.Name] = string(cell.Bytes)
		case c.Type == plan.Bool:
			out[c.Name] = cell.Bool
		case c.Type == plan.Long:
			out[c.Name] = cell.Int
		case c.Type == plan.Double:
			out[c.Name] = cell.Float
		case c.Type == plan.Timestamp:
			out[c.Name] = time.UnixMicro(cell.Int).UTC()
		case c.Type == plan.Bytes:
			out[c.Name] = cell.Bytes
		case c.Type == plan.Strings:
			list := []string{}
			for _, e := range cell.List {
				list = append(list, string(e))
			}
			out[c.Name] = list
		}
	}
	return out
}
