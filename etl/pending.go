package etl

import (
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/s2"
)

// pending is a record in a key's list.
type pending struct {
	flow   *flow  // its documents and sources are missing when it comes from the list, until unpack
	head   []byte // of flow, encoded; nil when that has not been done
	packed []byte // the rest of flow, encoded, as an S2 block; nil when that has not been done

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

// encode encodes it, without what it carries when it is a trace. What it carries is an S2 block, but of one literal: runners compress
// lists, to less than this could.
func (it *pending) encode(s *scratch) []byte {
	packed := it.packed
	switch {
	case it.trace:
		packed = nil
	case packed == nil:
		s.body = it.flow.appendBody(s.body[:0])
		s.packed = appendLiteral(s.packed[:0], s.body)
		packed = s.packed
	}
	head := it.head
	if head == nil {
		s.head = it.flow.appendHead(s.head[:0])
		head = s.head
	}
	dst := s.arena.room(96 + len(it.place.key) + len(head) + len(packed))
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
	dst = append(dst, head...)
	return s.arena.keep(append(dst, packed...))
}

// appendLiteral appends the S2 block that says b as it is.
func appendLiteral(dst, b []byte) []byte {
	const literal = 63 << 2 // with its length, less one, in four bytes
	dst = append(binary.AppendUvarint(dst, uint64(len(b))), literal)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(b)-1)) //nolint:gosec // documents are smaller than 4 GiB
	return append(dst, b...)
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
	if it.flow.docs != nil || len(it.packed) == 0 {
		return nil
	}
	body, err := s2.Decode(nil, it.packed)
	if err != nil {
		return fmt.Errorf("waiting record %x: %w", it.flow.id, err)
	}
	return it.flow.parseBody(body)
}
