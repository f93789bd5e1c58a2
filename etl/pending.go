package etl

import (
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/s2"
)

// pending is a record in a key's list.
type pending struct {
	flow   *flow  // its documents and sources are missing when it comes from the list, until unpack
	head   []byte // of flow, encoded
	body   []byte // of flow, encoded; nil when only packed is there
	packed []byte // body, compressed; nil when that has not been done

	waiting bool
	until   int64 // processing time at which it stops waiting, or its subscription ends
	trace   bool  // subscribed no more: listed for place and dropFlag alone, without documents
	keep    int64 // processing time until which a trace stays

	emitted  uint32 // how many times it was handed on
	chosen   [16]byte
	joined   bool // with chosen; false: handed on without an entity
	place    place
	dropFlag bool // dropped here, by Else
	gone     bool // taken out of the list
}

const pendingFormat = 2

// newPending makes a pending record of one that came as payload.
func newPending(payload []byte) (*pending, error) {
	r := reader{b: payload}
	f, err := r.flowHead()
	if err != nil {
		return nil, err
	}
	it := &pending{flow: f, head: payload[:len(payload)-len(r.b)], body: r.b}
	return it, f.parseBody(it.body)
}

// encode encodes it. Bodies are compressed, because most of what a job writes is lists of records that nobody asks for again.
func (it *pending) encode(s *scratch) []byte {
	if it.packed == nil && len(it.body) > 0 {
		s.packed = s2.Encode(s.packed[:cap(s.packed)], it.body)
		it.packed = s.packed
		defer func() { it.packed = nil }() // the scratch space is the next one's
	}
	dst := s.arena.room(96 + len(it.place.key) + len(it.head) + len(it.packed))
	dst = append(dst, pendingFormat)
	dst = appendBool(dst, it.waiting)
	dst = appendBool(dst, it.joined)
	dst = appendBool(dst, it.dropFlag)
	dst = appendBool(dst, it.trace)
	dst = binary.AppendVarint(dst, it.until)
	dst = binary.AppendVarint(dst, it.keep)
	dst = binary.AppendUvarint(dst, uint64(it.emitted))
	dst = append(dst, it.chosen[:]...)
	dst = it.place.append(dst)
	dst = append(dst, it.head...)
	return s.arena.keep(append(dst, it.packed...))
}

func parsePending(b []byte) (*pending, error) {
	r := reader{b: b}
	if v := r.byte(); v != pendingFormat {
		return nil, fmt.Errorf("waiting record of format %d; this version reads format %d", v, pendingFormat)
	}
	it := &pending{
		waiting: r.byte() == 1, joined: r.byte() == 1, dropFlag: r.byte() == 1, trace: r.byte() == 1,
		until: r.varint(), keep: r.varint(), emitted: uint32(r.uvarint()), //nolint:gosec // written from a uint32
	}
	copy(it.chosen[:], r.take(16))
	it.place = r.place()
	if r.bad {
		return nil, errTruncated
	}
	head := r.b
	var err error
	if it.flow, err = r.flowHead(); err != nil {
		return nil, err
	}
	it.head, it.packed = head[:len(head)-len(r.b)], r.b
	return it, nil
}

// unpack gives it.flow its documents and sources.
func (it *pending) unpack() error {
	if it.body != nil || len(it.packed) == 0 {
		return nil
	}
	var err error
	if it.body, err = s2.Decode(nil, it.packed); err != nil {
		return fmt.Errorf("waiting record %x: %w", it.flow.id, err)
	}
	return it.flow.parseBody(it.body)
}

// strip leaves of it what it is known by.
func (it *pending) strip() {
	it.flow = it.flow.bare()
	it.body, it.packed = nil, nil
}
