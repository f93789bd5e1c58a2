package etl

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"millrace/plan"
	"millrace/record"
)

// A dead letter is replayed by having its item in the log once more, with the letter's name and a revision (record.Replay). Only the
// record that became the letter goes its way again: what else the item made is there. The record comes to its joins as one that
// came before, and its revisions begin where the letter's ended, so whatever it becomes now replaces the letter, or is one again.
//
// Dedup lets each letter's revision through once, so replaying twice is replaying once.

// sinkStage begins the stage of a letter of a row that a sink refused; the sink's name follows.
const sinkStage = "sink/"

// replays sends the record of a dead letter on its way, and reports whether the item is to be read as if it had never come: it
// could not be read at all before.
func (p *program) replays(it *record.Item, s *scratch, out *plan.Output) bool {
	r := it.Replay
	if r.App == p.app.Name && r.Table == "" {
		if p.readable(it, s) {
			m := s.messages.reset()
			p.addWithdrawal(it, m)
			p.sendReplay(it, s, out)
		}
		return true
	}
	out.Count(p.counts.replayed, 1)
	t := p.byName[r.Table]
	if r.App != p.app.Name || t == nil || t.source.kind != it.Kind || !p.readable(it, s) {
		return false // not ours, or no better than before: the letter stays
	}
	in, err := p.input(it, s)
	if err != nil {
		return false
	}
	m := s.messages.reset()
	if it.Kind == record.Entity {
		p.replayEntity(t, in, s, m)
	} else {
		p.replayEvent(t, in, s, m)
	}
	if strings.HasPrefix(r.Stage, sinkStage) {
		p.addWithdrawal(it, m)
	}
	p.sendReplay(it, s, out)
	return false
}

// readable reports whether this version of the app can read an item.
func (p *program) readable(it *record.Item, s *scratch) bool {
	probe := *it
	probe.Replay = nil
	trial := &plan.Output{Sent: make([][]plan.Element, p.mapStage+1), Counts: make([]int64, len(p.counterNames))}
	p.readItem(&probe, s, trial)
	return trial.Counts[p.counts.unreadable] == 0
}

// input scans an item that is readable.
func (p *program) input(it *record.Item, s *scratch) (*input, error) {
	s.values = make([]record.Value, len(p.layout.paths))
	slots, fingerprint, err := p.layout.scan(it.Bytes, s.values, nil)
	if err != nil {
		return nil, err
	}
	in := &input{it: it, values: s.values, slots: slots, fingerprint: fingerprint, source: string(appendSource(nil, it))}
	in.typ = termOf(s.values[p.head.typ])
	in.id, _ = s.values[p.head.id].Text()
	if it.Kind == record.Entity {
		in.time = p.versionTime(in.values[p.head.dateModified], it)
		return in, nil
	}
	return in, in.readTime(in.values[p.head.eventTime])
}

// replayEvent sends on those records of an event that the letter was made of. When this version makes no such record the letter
// goes.
func (p *program) replayEvent(t *transformer, in *input, s *scratch, m *messages) {
	r := in.it.Replay
	id, _, _ := strings.Cut(r.Letter, "-")
	var found []*flow
	if t.source.matches(record.Event, in.typ, termOf(in.values[p.head.action])) {
		base := p.record(t, in, in.fingerprint, s)
		all := []*flow{base}
		if t.flatMap != nil {
			var err error
			if all, err = p.unwind(t, in, base, in.fingerprint, s); err != nil {
				m.add(p.mapStage, failed(p.lettered(t, in, id, s), failure{"flat_map", []string{err.Error()}}))
				return
			}
		}
		for _, f := range all {
			// What FlatMap failed on was one letter of the whole event.
			if r.Stage == "flat_map" || idString(f.id) == id {
				f.base = r.Rev
				found = append(found, f)
			}
		}
	}
	if len(found) == 0 {
		m.add(p.mapStage, plan.Element{Time: in.time, Tag: tagRetract, Message: p.lettered(t, in, id, s)})
	}
	for _, f := range found {
		p.forward(t, f, s, m, tagAgain)
	}
	if !strings.HasPrefix(r.Stage, sinkStage) || len(found) == 0 {
		m.count(t.counters.in, int64(len(found))-1)
	}
}

// lettered is the record that the letter with an id was made of.
func (p *program) lettered(t *transformer, in *input, id string, s *scratch) *flow {
	f := &flow{
		table: t.name, account: in.it.Account, env: in.it.Env, eventTime: in.time, base: in.it.Replay.Rev,
		docs:    []doc{{"event", in.content(p.layout, s)}},
		sources: []string{in.source},
	}
	b, err := hex.DecodeString(id)
	if err != nil || len(b) != len(f.id) {
		return f // no letter of ours has such an id
	}
	copy(f.id[:], b)
	return f
}

// replayEntity sends an entity's version to the table of its entities once more.
func (p *program) replayEntity(t *transformer, in *input, s *scratch, m *messages) {
	for _, l := range p.latest {
		if l.t == t && t.source.matches(record.Entity, in.typ, "") {
			p.sendLatest(l, in, &version{
				validFrom: in.time, fingerprint: in.fingerprint, source: in.source, content: in.content(p.layout, s),
			}, in.id, tagAgain, s, m)
		}
	}
}

// sendReplay has dedup let the messages through if the letter's revision was not replayed before.
func (p *program) sendReplay(it *record.Item, s *scratch, out *plan.Output) {
	in := &input{it: it, time: it.ReceivedAt.UnixMicro()}
	p.sendToDedup('r', in, fmt.Sprintf("%s@%d", it.Replay.Letter, it.Replay.Rev), [16]byte{}, s, out)
}

// addWithdrawal has the letter withdrawn.
func (p *program) addWithdrawal(it *record.Item, m *messages) {
	b := appendString(nil, it.Replay.Letter)
	b = appendString(appendString(b, it.Account), it.Env)
	m.add(p.mapStage, plan.Element{Time: it.ReceivedAt.UnixMicro(), Tag: tagWithdraw, Payload: binary.AppendUvarint(b, it.Replay.Rev)})
}

func (p *program) withdrawLetter(r *reader, out *plan.Output) {
	row := plan.Row{ID: r.string(), Account: r.string(), Env: r.string()}
	row.Rev = r.uvarint()
	p.withdrawn(row, len(p.tables), out)
}
