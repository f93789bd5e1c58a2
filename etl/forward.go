package etl

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"millrace/caliper"
	"millrace/plan"
	"millrace/record"
)

// part is one value of a join's key.
type part = string

// out is where forward emits: into an epoch's output, or into messages that wait for dedup's word.
type emitter interface {
	add(stage int, e plan.Element)
	addFlow(stage int, e plan.Element, f *flow) // with f as payload
	count(counter int, n int64)
}

type outputEmitter struct {
	*plan.Output
	arena *arena
}

func (o outputEmitter) add(stage int, e plan.Element) { o.Send(stage, e) }
func (o outputEmitter) count(counter int, n int64)    { o.Count(counter, n) }

func (o outputEmitter) addFlow(stage int, e plan.Element, f *flow) {
	e.Payload = o.arena.keep(f.append(o.arena.room(f.size())))
	o.Send(stage, e)
}

// place is where forward left a record: what must be told when the record is corrected and goes elsewhere.
type place struct {
	stage uint32 // id of a join's stage, see stageID: a later version numbers its stages otherwise
	key   []byte // nil: at no join, but mapped or dropped
	drop  int    // 1 + the step whose policy dropped it; 0 when it was not
}

func (pl place) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, pl.stage)
	dst = binary.AppendUvarint(dst, uint64(pl.drop))
	return appendBytes(dst, pl.key)
}

func (r *reader) place() place {
	pl := place{stage: r.uint32(), drop: int(r.uvarint()), key: r.bytes()}
	if len(pl.key) == 0 {
		pl.key = nil
	}
	return pl
}

// forward sends f to its next join, or to map when it has passed all. A join whose key f lacks a value for is passed at once,
// as its policy says.
func (p *program) forward(t *transformer, f *flow, s *scratch, out emitter, tag uint8) place {
	for {
		step := t.step(f)
		if step == len(t.joins) {
			out.addFlow(p.mapStage, plan.Element{Time: f.eventTime, Tag: tagRecord}, f)
			return place{}
		}
		j := &t.joins[step]
		if parts, ok := p.keyParts(t, j, f, s); ok {
			key := joinKey(f.account, f.env, parts)
			stage := t.joinStages[step]
			out.addFlow(stage, plan.Element{Key: key, Time: f.eventTime, Tag: tag}, f)
			return place{stage: p.stageIDs[stage], key: key}
		}
		next := f.with(doc{name: j.field}, 0, "")
		switch j.otherwise {
		case Drop:
			p.withdraw(t, f, out)
			out.count(t.counters.dropped, 1)
			return place{drop: step + 1}
		case DeadLetter:
			for t.step(next) < len(t.joins) {
				next = next.with(doc{name: t.joins[t.step(next)].field}, 0, "")
			}
			out.add(p.mapStage, failed(next, failure{"join", []string{"join " + j.field + ": the record has no value for " + missing(j)}}))
			return place{}
		}
		f = next
	}
}

func missing(j *Join) string {
	paths := make([]string, len(j.conditions))
	for i, c := range j.conditions {
		paths[i] = string(c.record)
	}
	return strings.Join(paths, " or ")
}

// leave tells the place where f was left before that f went to now instead.
func (p *program) leave(t *transformer, f *flow, before, now place, out emitter) {
	if before.drop > 0 {
		out.count(t.counters.dropped, -1)
	}
	if before.key == nil || before.stage == now.stage && string(before.key) == string(now.key) {
		return
	}
	if stage, ok := p.stageByID[before.stage]; ok { // its state was not given up
		out.addFlow(stage, plan.Element{Key: before.key, Time: f.eventTime, Tag: tagRetract}, f)
	}
}

// withdraw takes back the row, or the dead letter, that an earlier revision of f may have become: f waits again, or is dropped.
func (p *program) withdraw(t *transformer, f *flow, out emitter) {
	if !f.first() {
		out.addFlow(p.mapStage, plan.Element{Time: f.eventTime, Tag: tagRetract}, f)
	}
}

// keyParts finds the values that a join compares. Not ok: one is missing, or names nobody.
func (p *program) keyParts(t *transformer, j *Join, f *flow, s *scratch) ([]part, bool) {
	s.parts = s.parts[:0]
	s.reader.t = t
	s.reader.reset(f)
	for _, c := range j.conditions {
		v, ok := keyPart(s.reader.value(c.record))
		if !ok {
			return nil, false
		}
		s.parts = append(s.parts, v)
	}
	return s.parts, true
}

func keyPart(v record.Value) (part, bool) {
	switch v.Kind {
	case record.String:
		s, _ := v.Text()
		return s, !caliper.Anonymous(s, "")
	case record.Number:
		return number(v), true
	case record.Bool:
		return string(v.Raw), true
	}
	return "", false
}

// number spells equal numbers alike: 7, 7.0 and 70e-1 are one key, as they are one content to dedup.
func number(v record.Value) string {
	if !bytes.ContainsAny(v.Raw, ".eE") && string(v.Raw) != "-0" {
		return string(v.Raw)
	}
	f, err := v.Float()
	if err != nil {
		return string(v.Raw)
	}
	return strconv.FormatFloat(f+0, 'f', -1, 64) // -0 + 0 is 0
}

// joinKey is the key of a tenant's thing that has these values.
func joinKey(account, env string, parts []part) []byte {
	n := 16 + len(account) + len(env)
	for _, p := range parts {
		n += 4 + len(p)
	}
	key := appendString(make([]byte, 0, n), account)
	key = appendString(key, env)
	for _, p := range parts {
		key = appendString(key, p)
	}
	return key
}

// entityKeys are the keys that an entity is filed under: one for each combination of the alternatives that it has.
func (s *joinState) entityKeys(values []record.Value, account, env string) [][]byte {
	combinations := [][]part{nil}
	for _, slots := range s.entitySlots {
		var found []part
		for _, slot := range slots {
			if v, ok := keyPart(values[slot]); ok && !slices.Contains(found, v) {
				found = append(found, v)
			}
		}
		var next [][]part
		for _, c := range combinations {
			for _, v := range found {
				next = append(next, append(slices.Clone(c), v))
			}
		}
		combinations = next
	}
	keys := make([][]byte, len(combinations))
	for i, c := range combinations {
		keys[i] = joinKey(account, env, c)
	}
	return keys
}
