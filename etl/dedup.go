package etl

import (
	"bytes"
	"encoding/binary"

	"millrace/plan"
)

// arrival is what Read sends to dedup: what an item means for the stages behind it, once it is known to be the first of its kind.
type arrival struct {
	fingerprint [16]byte
	counts      []delta
	sends       []send
}

type delta struct {
	counter int
	n       int64
}

type send struct {
	stage   int
	element plan.Element
}

// Append makes an arrival a plan.Message.
func (a *arrival) Append(dst []byte) []byte {
	dst = append(dst, a.fingerprint[:]...)
	dst = binary.AppendUvarint(dst, uint64(len(a.counts)))
	for _, c := range a.counts {
		dst = binary.AppendUvarint(dst, uint64(c.counter))
		dst = binary.AppendVarint(dst, c.n)
	}
	dst = binary.AppendUvarint(dst, uint64(len(a.sends)))
	for i := range a.sends {
		e := a.sends[i].element.Encode()
		dst = binary.AppendUvarint(dst, uint64(a.sends[i].stage))
		dst = append(dst, e.Tag)
		dst = binary.AppendVarint(dst, e.Time)
		dst = appendBytes(dst, e.Key)
		dst = appendBytes(dst, e.Payload)
	}
	return dst
}

// arrivalOf returns what an element brings. Read sent it in this very epoch, so that it cannot be damaged.
func arrivalOf(e *plan.Element) *arrival {
	if a, ok := e.Message.(*arrival); ok {
		return a
	}
	r := reader{b: e.Payload}
	a := new(arrival)
	copy(a.fingerprint[:], r.take(16))
	a.counts = make([]delta, r.count())
	for i := range a.counts {
		a.counts[i] = delta{int(r.uvarint()), r.varint()}
	}
	a.sends = make([]send, r.count())
	for i := range a.sends {
		a.sends[i].stage = int(r.uvarint())
		a.sends[i].element = plan.Element{Tag: r.byte(), Time: r.varint(), Key: r.bytes(), Payload: r.bytes()}
	}
	if err := r.end(); err != nil {
		panic(err)
	}
	return a
}

// dedup lets the first delivery of each event and of each entity version through. Its state is the fingerprints seen under the
// key's identity: one with the same identity and another content is no duplicate, it passes and is counted as a conflict.
func (p *program) dedup(_ plan.Clock, keys []*plan.Key, out *plan.Output) {
	s := scratches.Get().(*scratch)
	defer s.release()
	for _, k := range keys {
		seen := k.Value
		for i := range k.Inputs {
			a := arrivalOf(&k.Inputs[i])
			if contains(seen, a.fingerprint[:]) {
				out.Count(p.counts.duplicates, 1)
				continue
			}
			if len(seen) > 0 {
				out.Count(p.counts.conflicts, 1)
			}
			seen = s.arena.keep(append(append(s.arena.room(len(seen)+16), seen...), a.fingerprint[:]...))
			k.SetValue = seen
			for _, c := range a.counts {
				out.Count(c.counter, c.n)
			}
			for i := range a.sends {
				out.Send(a.sends[i].stage, a.sends[i].element)
			}
		}
	}
}

func contains(seen, fingerprint []byte) bool {
	for ; len(seen) >= 16; seen = seen[16:] {
		if bytes.Equal(seen[:16], fingerprint) {
			return true
		}
	}
	return false
}
