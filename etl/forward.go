package etl

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/zeebo/xxh3"

	"millrace/caliper"
	"millrace/plan"
	"millrace/record"
)

// emitter is where forward emits: into an epoch's output, or into messages that wait for dedup's word.
type emitter interface {
	add(stage int, e plan.Element)
	count(counter int, n int64)
}

type outputEmitter struct{ *plan.Output }

func (o outputEmitter) add(stage int, e plan.Element) { o.Send(stage, e) }
func (o outputEmitter) count(counter int, n int64)    { o.Count(counter, n) }

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
			out.add(p.mapStageOf(f), plan.Element{Key: f.id[:], Time: f.eventTime, Tag: tagRecord, Message: f})
			return place{}
		}
		j := &t.joins[step]
		if key, ok := t.joinKey(step, f, s); ok {
			stage := t.joinStages[step]
			out.add(stage, plan.Element{Key: key, Time: f.eventTime, Tag: tag, Message: f})
			return place{stage: p.stageIDs[stage], key: key}
		}
		next := f.with(s, doc{j.field, nothing}, 0, "")
		if f.light && step >= int(f.comparedJoins) {
			f = next // the join is new since the row was made, and what it compares is not known
			continue
		}
		switch j.otherwise {
		case Drop:
			p.withdraw(t, f, out)
			out.count(t.counters.dropped, 1)
			if f.light { // it stays subscribed without passing base
				p.extendBase(f, tagExtend, s.now+t.correctFor.Microseconds(), out)
			}
			return place{drop: step + 1}
		case DeadLetter:
			for t.step(next) < len(t.joins) {
				next = next.with(s, doc{t.joins[t.step(next)].field, nothing}, 0, "")
			}
			out.add(p.mapStageOf(next), failed(next, failure{"join", []string{"join " + j.field + ": the record has no value for " + missing(j)}}))
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
		out.add(stage, plan.Element{Key: before.key, Time: f.eventTime, Tag: tagRetract, Message: f.bare()})
	}
}

// withdraw takes back the row, or the dead letter, that an earlier revision of f may have become: f waits again, or is dropped.
func (p *program) withdraw(t *transformer, f *flow, out emitter) {
	if !f.first() {
		out.add(p.mapStage, plan.Element{Time: f.eventTime, Tag: tagRetract, Message: f})
	}
}

// A join's key is a hash of the tenant and of the values that the join compares: short, whatever the identifiers are, and spread
// evenly over key groups. With 128 bits two of 10⁹ keys meet with a probability of 10⁻²¹.

// joinKey returns the key of the thing that f is to be joined with. Not ok: a value is missing, or names nobody.
func (t *transformer) joinKey(step int, f *flow, s *scratch) ([]byte, bool) {
	if !t.comparesAlike(f) {
		return nil, false // another version of the app joined it by something else, and it waited for that
	}
	s.reader.t = t
	s.reader.reset(f)
	key := appendTenant(s.key[:0], f.account, f.env)
	for i := range t.conditions[step] {
		var ok bool
		if key, ok = s.appendPart(key, s.reader.find(t.conditions[step][i])); !ok {
			return nil, false
		}
	}
	s.key = key
	return s.hash(key), true
}

func appendTenant(dst []byte, account, env string) []byte {
	return appendString(appendString(dst, account), env)
}

// hash returns the 16 bytes of b's hash.
func (s *scratch) hash(b []byte) []byte {
	h := xxh3.Hash128(b).Bytes()
	return s.arena.keep(append(s.arena.room(len(h)), h[:]...))
}

// appendPart appends one value of a key. Not ok: it is missing, or names nobody.
func (s *scratch) appendPart(dst []byte, v record.Value) ([]byte, bool) {
	switch v.Kind {
	case record.String:
		text, _ := textOf(v)
		return appendString(dst, text), !caliper.Anonymous(text, "")
	case record.Number:
		return appendString(dst, number(v)), true
	case record.Bool:
		return appendBytes(dst, v.Raw), true
	}
	return dst, false
}

// textOf is v.Text without a copy where the text needs no decoding: it is a slice of the document, which nobody writes to.
func textOf(v record.Value) (string, bool) {
	if v.Kind != record.String || bytes.IndexByte(v.Raw, '\\') >= 0 {
		return v.Text()
	}
	body := v.Raw[1 : len(v.Raw)-1]
	return unsafe.String(unsafe.SliceData(body), len(body)), true
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

// entityKeys are the keys that an entity is filed under: one for each combination of the alternatives that it has.
func (s *joinState) entityKeys(values []record.Value, account, env string, scr *scratch) [][]byte {
	keys := [][]byte{appendTenant(nil, account, env)}
	for _, slots := range s.entitySlots {
		var parts [][]byte
		for _, slot := range slots {
			part, ok := scr.appendPart(nil, values[slot])
			if ok && !slices.ContainsFunc(parts, func(p []byte) bool { return bytes.Equal(p, part) }) {
				parts = append(parts, part)
			}
		}
		var next [][]byte
		for _, k := range keys {
			for _, p := range parts {
				next = append(next, append(slices.Clip(k), p...))
			}
		}
		keys = next
	}
	for i, k := range keys {
		keys[i] = scr.hash(k)
	}
	return keys
}
