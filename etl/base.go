package etl

import (
	"encoding/binary"
	"fmt"

	"millrace/plan"
	"millrace/record"
)

// A record that was joined stays in the list of each join for as long as its row may be corrected. Its event is kept once all the
// same: in the stage base, under the record's id. Lists hold light records, without the documents that the record began with but
// with the values in them that joins compare. A light record that is emitted again becomes whole in base, on its way to map.
//
//	join ── documents ──────▶ base                                  when the record is first subscribed
//	join ── whole record ───────────────────────────────▶ map        when it comes for the first time
//	join ── light record ──▶ join … ──▶ base ── whole record ──▶ map when it is corrected
//
// Base forgets documents by itself. Whoever makes a light record, or lets one wait, says until when they are needed; a light
// record that passes prolongs them by the longest CorrectFor of its table. A runner may have to forget early (plan.Expiring): it then
// forgets light records in lists no later than what base has for them, as they are listed no longer than that. One that waits is not
// forgotten, and so base holds its documents.

const baseFormat = 1

// kept is what a record began with, and until when it is needed: what joins tell base, and what base has in its lists.
type kept struct {
	until  int64
	source string
	docs   []doc // nil: those that are there already
}

// Append makes it a plan.Message.
func (k *kept) Append(dst []byte) []byte {
	dst = append(dst, baseFormat)
	dst = binary.AppendVarint(dst, k.until)
	dst = appendString(dst, k.source)
	dst = append(dst, byte(len(k.docs)))
	for i := range k.docs {
		dst = k.docs[i].append(dst)
	}
	return dst
}

func parseKept(b []byte) (*kept, error) {
	r := reader{b: b}
	if v := r.byte(); v != baseFormat {
		return nil, fmt.Errorf("documents of format %d; this version reads format %d", v, baseFormat)
	}
	k := &kept{until: r.varint(), source: r.string()}
	if n := r.byte(); n > 0 {
		k.docs = make([]doc, n)
	}
	for i := range k.docs {
		k.docs[i] = r.doc()
	}
	return k, r.end()
}

// keptOf returns what an element brings. Another stage sent it in this very epoch, so that it cannot be damaged.
func keptOf(e *plan.Element) *kept {
	if k, ok := e.Message.(*kept); ok {
		return k
	}
	k, err := parseKept(e.Payload)
	if err != nil {
		panic(err)
	}
	return k
}

// base is the keyed stage that makes light records whole.
func (p *program) base(clock plan.Clock, keys []*plan.Key, out *plan.Output) {
	s := scratches.Get().(*scratch)
	defer s.release()
	for _, k := range keys {
		have := new(kept)
		for _, b := range k.List {
			old, err := parseKept(b)
			if err != nil {
				panic(fmt.Sprintf("state of base: %v", err))
			}
			if old.until >= have.until {
				have = old
			}
		}
		until, hold := have.until, int64(0)
		for i := range k.Inputs {
			switch in := &k.Inputs[i]; in.Tag {
			case tagKeep, tagExtend:
				told := keptOf(in)
				until = max(until, told.until)
				if have.docs == nil {
					have = &kept{source: told.source, docs: told.docs}
				}
			case tagHold:
				hold = max(hold, keptOf(in).until)
			}
		}
		if have.docs == nil {
			panic(fmt.Sprintf("record %x is to be emitted again, and base does not have its documents", k.Key))
		}
		for i := range k.Inputs {
			in := &k.Inputs[i]
			var f *flow
			switch in.Tag {
			case tagRecord:
				f = flowOf(in)
				out.Send(p.mapStage, plan.Element{Time: f.eventTime, Tag: tagRecord, Message: f.whole(have, s)})
			case tagFailed:
				d := deadOf(in)
				f = d.flow
				out.Send(p.mapStage, failed(f.whole(have, s), d.failure))
			default:
				continue
			}
			until = max(until, clock.Processing+p.byName[f.table].correctFor.Microseconds())
		}
		if hold > 0 {
			item := kept{hold, have.source, have.docs}
			k.AppendUntil = append(k.AppendUntil, plan.Expiring{Item: item.Append(nil), Until: hold, Hold: true})
		}
		if until > max(have.until, hold) {
			item := kept{until, have.source, have.docs}
			k.AppendUntil = append(k.AppendUntil, plan.Expiring{Item: item.Append(nil), Until: until})
		}
	}
}

// keepsBase reports whether the table's records are light once they are joined.
func (t *transformer) keepsBase() bool { return t.correctFor > 0 && t.expires() }

// expires reports whether the table's records leave the lists of joins by themselves once they no longer wait. In a table of entities
// the next version of an entity may correct its row at any time.
func (t *transformer) expires() bool { return t.source.kind == record.Event }

// compared is a value in the documents that a record begins with that some join compares.
type compared struct {
	doc  string
	slot int
}

// findCompared numbers the values that light records carry. Those of the first n joins come first.
func (t *transformer) findCompared() {
	joined := map[string]bool{}
	var said []byte
	t.comparedHash = []uint32{hash32(nil)}
	for i, j := range t.joins {
		t.correctFor = max(t.correctFor, j.correctFor)
		for k, c := range t.conditions[i] {
			said = appendString(said, j.conditions[k].record.canonical())
			for a := range c.alternatives {
				alt := &c.alternatives[a]
				if joined[alt.doc] || i == 0 { // the first join's key is never looked for again
					continue
				}
				t.compared = append(t.compared, compared{alt.doc, alt.slot})
				alt.compared = len(t.compared)
			}
		}
		joined[j.field] = true
		t.comparedHash = append(t.comparedHash, hash32(said))
	}
}

// lighten returns f without what it began with.
func (t *transformer) lighten(f *flow, s *scratch) *flow {
	if f.light {
		return f
	}
	out := s.flows.one()
	*out = *f
	out.light = true
	out.docs = f.docs[len(f.docs)-len(f.revs):] // each join adds a document and a revision
	out.sources = f.sources[1:]
	out.comparedJoins, out.comparedHash = uint8(len(t.joins)), t.comparedHash[len(t.joins)] //nolint:gosec // maxSteps at most
	if t.step(f)+1 < len(t.joins) {
		out.compared = s.compared.take(len(t.compared))
		s.reader.t = t
		s.reader.reset(f)
		for i, c := range t.compared {
			out.compared[i] = s.reader.lookup("", &resolved{doc: c.doc, slot: c.slot, layout: t.layout})
		}
	}
	return out
}

// comparesAlike reports whether the joins that the table had when f became light still compare the same.
func (t *transformer) comparesAlike(f *flow) bool {
	return !f.light || int(f.comparedJoins) <= len(t.joins) && f.comparedHash == t.comparedHash[f.comparedJoins]
}

// whole returns f with what it began with.
func (f *flow) whole(k *kept, s *scratch) *flow {
	if !f.light {
		return f
	}
	out := s.flows.one()
	*out = *f
	out.light, out.compared = false, nil
	out.docs = append(append(s.docs.take(len(k.docs) + len(f.docs))[:0], k.docs...), f.docs...)
	out.sources = append(append(s.sources.take(1 + len(f.sources))[:0], k.source), f.sources...)
	return out
}

// mapStageOf is where f goes when it has passed all joins.
func (p *program) mapStageOf(f *flow) int {
	if f.light {
		return p.baseStage
	}
	return p.mapStage
}

// keepBase tells base the documents of a record that the join is about to subscribe to, unless it was told in this epoch. It returns
// until when base has them.
func (c *joinCall) keepBase(t *transformer, j *Join, f *flow) int64 {
	until := c.now + t.correctFor.Microseconds()
	if !t.keepsBase() || j.correctFor == 0 || f.light || f.kept >= until {
		return f.kept
	}
	c.out.add(c.p.baseStage, plan.Element{
		Key: f.id[:], Time: f.eventTime, Tag: tagKeep,
		Message: &kept{until: until, source: f.sources[0], docs: f.docs[:len(f.docs)-len(f.revs)]},
	})
	return until
}

// extendBase tells base until when the documents of a light record are needed that does not pass there: tagExtend of one that is
// listed, tagHold of one that waits.
func (p *program) extendBase(f *flow, tag uint8, until int64, out emitter) {
	out.add(p.baseStage, plan.Element{Key: f.id[:], Time: f.eventTime, Tag: tag, Message: &kept{until: until}})
}
