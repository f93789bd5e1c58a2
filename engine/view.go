package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// load implements view with one pass of one iterator over the values, and a second one over the lists that are needed.
// Keys are sorted, so each seek continues where the last one stopped; most absent keys are answered by a bloom filter.
func (s *state) load(keys []keyed) (err error) {
	if len(keys) == 0 {
		return nil
	}
	stage := keys[0].stateKey[1:3]
	id := binary.BigEndian.Uint16(stage)
	var held arena
	if s.sizes[id].Keys > 0 {
		if err := s.loadValues(stage, keys, &held); err != nil {
			return fmt.Errorf("read state: %w", err)
		}
	}
	if !slices.ContainsFunc(keys, func(k keyed) bool { return k.needList }) {
		return nil
	}

	prefix := append([]byte{kindList}, stage...)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix), UseL6Filters: true})
	if err != nil {
		return fmt.Errorf("read lists: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	var seek []byte
	for i := range keys {
		k := &keys[i]
		if !k.needList {
			continue
		}
		seek = append(append(seek[:0], kindList), k.stateKey[1:]...)
		for ok := it.SeekPrefixGE(seek); ok; ok = it.Next() {
			suffix := it.Key()[len(seek):]
			if len(suffix) != 8 {
				return fmt.Errorf("list of key %q: entry key of %d bytes", k.Key.Key, len(suffix))
			}
			k.listEpochs = append(k.listEpochs, binary.BigEndian.Uint64(suffix))
			v, err := it.ValueAndErr()
			if err != nil {
				return fmt.Errorf("read lists: %w", err)
			}
			entry, err := s.packer.unpack(dictKey{id, kindList}, v, &held)
			if err == nil {
				k.List, err = splitList(k.List, entry)
			}
			if err != nil {
				return fmt.Errorf("list of key %q: %w", k.Key.Key, err)
			}
		}
		if err := it.Error(); err != nil {
			return fmt.Errorf("read lists: %w", err)
		}
	}
	return s.loadExpiring(keys, &held)
}

// loadValues fills the values of keys.
func (s *state) loadValues(stage []byte, keys []keyed, held *arena) (err error) {
	prefix := append([]byte{kindValue}, stage...)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix), UseL6Filters: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for i := range keys {
		k := &keys[i]
		if it.SeekPrefixGE(k.stateKey) {
			v, err := it.ValueAndErr() // it may have to be read; the next seek would forget the error
			if err != nil {
				return err
			}
			if k.Value, err = s.packer.unpack(dictKey{binary.BigEndian.Uint16(stage), kindValue}, v, held); err != nil {
				return fmt.Errorf("value of key %q: %w", k.Key.Key, err)
			}
		} else if it.Error() != nil {
			break
		}
	}
	return it.Error()
}

// A list entry holds what one epoch appended: each item with its length before it.
func appendList(dst []byte, items [][]byte) []byte {
	for _, it := range items {
		dst = binary.AppendUvarint(dst, uint64(len(it)))
		dst = append(dst, it...)
	}
	return dst
}

func splitList(dst [][]byte, entry []byte) ([][]byte, error) {
	for len(entry) > 0 {
		n, w := binary.Uvarint(entry)
		if w <= 0 || n > uint64(len(entry)-w) {
			return dst, fmt.Errorf("an item of %d bytes in the last %d", n, len(entry))
		}
		end := w + int(n)
		dst = append(dst, entry[w:end:end])
		entry = entry[end:]
	}
	return dst, nil
}

// arena copies many small slices with few allocations. A chunk is freed when the last slice of it is. Chunks grow with what is
// copied: small epochs are many, and each has its own.
type arena struct {
	free  []byte
	chunk int // size of the last one
}

func (a *arena) copy(b []byte) []byte {
	out := a.take(len(b))
	copy(out, b)
	return out
}

// take returns n bytes, whose content is not defined.
func (a *arena) take(n int) []byte {
	if n > len(a.free) {
		a.chunk = min(max(2*a.chunk, 4<<10), 64<<10)
		a.free = make([]byte, max(n, a.chunk))
	}
	out := a.free[:n:n]
	a.free = a.free[n:]
	return out
}
