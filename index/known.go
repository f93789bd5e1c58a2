package index

import "math/bits"

// known says of which ids an index has no row, so that the table is not scanned for documents that are new. It is Bloom filters (Bloom 1970,
// with the probes of Kirsch and Mitzenmacher 2006) over the hashes of all ids that the table has, or has had: twenty bits each, fourteen probes. Of a
// hundred thousand ids that are new some ten are taken for known ones: a bulk request looks for all of its documents at once, so with one or two in
// a hundred, as of ten bits, each request scanned the table. When a filter is full another one of twice its size begins.
type known struct{ filters []filter }

// filter is one of the filters.
type filter struct {
	bits []uint64
	room int // ids that can be added before too many seem known
}

const (
	knownLeast  = 1 << 16 // ids that the first filter has room for
	knownBits   = 20      // of each id
	knownProbes = 14
)

// newKnown has room for so many ids in its first filter, or a few more.
func newKnown(ids int) *known {
	k := &known{}
	k.grow(max(ids, knownLeast))
	return k
}

func (k *known) grow(ids int) {
	words := 1 << bits.Len(uint(ids*knownBits/64)) //nolint:gosec // a count
	k.filters = append(k.filters, filter{make([]uint64, words), words * 64 / knownBits})
}

func (k *known) add(h int64) {
	f := &k.filters[len(k.filters)-1]
	if f.room == 0 {
		k.grow(len(f.bits) * 64 / knownBits * 2)
		f = &k.filters[len(k.filters)-1]
	}
	f.room--
	at, step := uint64(h), uint64(h)>>32|1 //nolint:gosec // its bits
	for range knownProbes {
		f.bits[at>>6&uint64(len(f.bits)-1)] |= 1 << (at & 63)
		at += step
	}
}

// has is false only of what was never added.
func (k *known) has(h int64) bool {
	for i := range k.filters {
		if k.filters[i].has(h) {
			return true
		}
	}
	return false
}

func (f *filter) has(h int64) bool {
	at, step := uint64(h), uint64(h)>>32|1 //nolint:gosec // its bits
	for range knownProbes {
		if f.bits[at>>6&uint64(len(f.bits)-1)]&(1<<(at&63)) == 0 {
			return false
		}
		at += step
	}
	return true
}
