package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/klauspost/compress/s2"
)

// What the keys of a stage hold is much alike: descriptions of one type, events of a few. So it is compressed one by one, against a
// dictionary of the first that there were, to a tenth and less. Every look-up then reads a block with many values and decompresses
// one of them, and all that is written is small.
//
//	0 │ bytes as they are          1 │ S2 block, against the dictionary
//
// A stage has two dictionaries, of values and of list entries. Each is made once, when enough has been written to make it of.

const (
	packPlain = iota
	packDictionary
)

// Tests make them smaller, so that what they store is compressed.
var (
	packLeast  = 64       // bytes; less is not worth compressing
	sampleSize = 32 << 10 // of what a dictionary is made of
)

// dictKey names a dictionary: of what kind of keys, kindValue or kindList, of which stage.
type dictKey struct {
	stage uint16
	kind  byte
}

// packer has the dictionaries. Nil: the state's format has none, and what keys hold is stored as it is.
type packer struct {
	dicts   map[dictKey]*s2.Dict // committed
	samples map[dictKey][]byte   // of those that are to be made
	buf     []byte
}

func appendDictKey(dst []byte, k dictKey) []byte {
	return append(binary.BigEndian.AppendUint16(append(dst, keyDictionary...), k.stage), k.kind)
}

// openPacker reads the dictionaries that there are.
func openPacker(s *state) (*packer, error) {
	if s.id.Format < formatPacked {
		return nil, nil
	}
	p := &packer{dicts: map[dictKey]*s2.Dict{}, samples: map[dictKey][]byte{}}
	err := s.scan(keyDictionary, func(k, v []byte) error {
		d := s2.NewDict(slices.Clone(v))
		if k = k[len(keyDictionary):]; len(k) != 3 || d == nil {
			return fmt.Errorf("dictionary %x of %d bytes", k, len(v))
		}
		p.dicts[dictKey{binary.BigEndian.Uint16(k), k[2]}] = d
		return nil
	})
	return p, err
}

// pack returns what is stored for b, until the next call.
func (p *packer) pack(k dictKey, b []byte) []byte {
	if p == nil {
		return b
	}
	d := p.dicts[k]
	if len(b) >= packLeast {
		if d == nil {
			if have := p.samples[k]; len(have) < sampleSize {
				p.samples[k] = append(have, b[:min(len(b), sampleSize-len(have))]...)
			}
		} else {
			p.buf = slices.Grow(p.buf[:0], 1+s2.MaxEncodedLen(len(b)))
			out := d.Encode(p.buf[1:cap(p.buf)], b)
			if len(out) < len(b) {
				p.buf = p.buf[:1+len(out)]
				p.buf[0] = packDictionary
				return p.buf
			}
		}
	}
	p.buf = append(append(p.buf[:0], packPlain), b...)
	return p.buf
}

// unpack returns a copy of what pack was given, in held.
func (p *packer) unpack(k dictKey, b []byte, held *arena) ([]byte, error) {
	switch {
	case p == nil:
		return held.copy(b), nil
	case len(b) > 0 && b[0] == packPlain:
		return held.copy(b[1:]), nil
	case len(b) > 0 && b[0] == packDictionary && p.dicts[k] != nil:
		n, err := s2.DecodedLen(b[1:])
		if err != nil {
			return nil, err
		}
		return p.dicts[k].Decode(held.take(n), b[1:])
	}
	return nil, errors.New("packed in a way that is not known")
}

// dictionaries writes the dictionaries for which there are samples enough. They count for what is packed afterwards.
func (w *effects) dictionaries(p *packer) {
	if p == nil {
		return
	}
	for _, k := range slices.SortedFunc(maps.Keys(p.samples), func(a, b dictKey) int {
		return slices.Compare(appendDictKey(nil, a), appendDictKey(nil, b))
	}) {
		if len(p.samples[k]) < sampleSize {
			continue
		}
		d := s2.MakeDict(p.samples[k], nil)
		w.set(appendDictKey(nil, k), d.Bytes())
		p.dicts[k] = d
		delete(p.samples, k)
	}
}
