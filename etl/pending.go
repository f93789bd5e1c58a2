package etl

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// pending is a record in a key's list.
type pending struct {
	flow    *flow
	encoded []byte // of flow
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

const pendingFormat = 1

func (it *pending) append(dst []byte) []byte {
	dst = slices.Grow(dst, 64+len(it.place.key)+len(it.encoded))
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
	return append(dst, it.encoded...)
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
	it.encoded = r.b
	var err error
	it.flow, err = parseFlow(it.encoded)
	return it, err
}
