package etl

import (
	"encoding/binary"
	"fmt"

	"millrace/plan"
)

// latestState is the keyed stage of a table of entities: of each entity it hands on the newest version seen.
type latestState struct {
	p     *program
	t     *transformer
	stage int
}

// latest is the state of one entity.
type latest struct {
	version version // without content
	emitted uint32
	place   place
}

const latestFormat = 2

func (l *latest) append(dst []byte) []byte {
	dst = append(dst, latestFormat)
	dst = binary.AppendVarint(dst, l.version.validFrom)
	dst = append(dst, l.version.fingerprint[:]...)
	dst = appendBool(dst, l.version.deleted)
	dst = binary.AppendUvarint(dst, uint64(l.emitted))
	return l.place.append(dst)
}

func parseLatest(b []byte) (*latest, error) {
	r := reader{b: b}
	if f := r.byte(); f != latestFormat {
		return nil, fmt.Errorf("newest version of format %d; this version reads format %d", f, latestFormat)
	}
	l := &latest{}
	l.version.validFrom = r.varint()
	copy(l.version.fingerprint[:], r.take(16))
	l.version.deleted = r.byte() == 1
	l.emitted = uint32(r.uvarint()) //nolint:gosec // written from a uint32
	l.place = r.place()
	return l, r.end()
}

// described is a description of an entity, for the table that has a row of it.
type described struct {
	deleted     bool
	fingerprint [16]byte
	flow        *flow
}

// Append makes a description a plan.Message.
func (d *described) Append(dst []byte) []byte {
	dst = appendBool(dst, d.deleted)
	dst = append(dst, d.fingerprint[:]...)
	return d.flow.Append(dst)
}

// describedOf returns the description that an element brings. Another stage sent it in this very epoch, so that it cannot be
// damaged.
func describedOf(e *plan.Element) *described {
	if d, ok := e.Message.(*described); ok {
		return d
	}
	r := reader{b: e.Payload}
	d := &described{deleted: r.byte() == 1}
	copy(d.fingerprint[:], r.take(16))
	var err error
	if d.flow, err = parseFlow(r.b); err != nil {
		panic(err)
	}
	return d
}

func (s *latestState) keyed(_ plan.Clock, keys []*plan.Key, output *plan.Output) {
	scr := scratches.Get().(*scratch)
	defer scr.release()
	out := outputEmitter{output}
	for _, k := range keys {
		var l *latest
		if k.Value != nil {
			var err error
			if l, err = parseLatest(k.Value); err != nil {
				panic(fmt.Sprintf("state of latest/%s: %v", s.t.name, err))
			}
		}
		for i := range k.Inputs {
			d := describedOf(&k.Inputs[i])
			v := version{validFrom: k.Inputs[i].Time, deleted: d.deleted, fingerprint: d.fingerprint}
			f := *d.flow // the message may be read by others
			l = s.next(l, v, &f, k.Inputs[i].Tag == tagAgain, scr, out)
		}
		k.SetValue = l.append(nil)
	}
}

// next takes up a version. One that is replayed is emitted again if it is still the newest.
func (s *latestState) next(l *latest, v version, f *flow, again bool, scr *scratch, out outputEmitter) *latest {
	if l == nil {
		l = &latest{version: v}
		out.count(s.t.counters.in, 1)
	} else {
		if c := v.compare(l.version); c < 0 || c == 0 && !again {
			return l
		}
		if l.version.deleted {
			out.count(s.t.counters.deleted, -1)
		}
		l.version = v
	}
	f.revs = []uint32{l.emitted}
	l.emitted++
	before := l.place
	if v.deleted {
		out.count(s.t.counters.deleted, 1)
		l.place = place{}
		s.p.withdraw(s.t, f, out)
	} else {
		tag := tagRecord
		if !f.first() {
			tag = tagAgain
		}
		l.place = s.p.forward(s.t, f, scr, out, tag)
	}
	s.p.leave(s.t, f, before, l.place, out)
	return l
}
