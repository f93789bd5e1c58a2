package etl

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
)

// version is one version of an entity.
type version struct {
	validFrom   int64 // microseconds since 1970
	fingerprint [16]byte
	deleted     bool   // the entity ended at validFrom
	source      string // proof: where it came from
	bytes       []byte
	layout      uint64 // of slots, see doc
	slots       []byte
}

// compare orders versions by validity. At one instant an end comes after what it ends, and the fingerprint makes the order total,
// so that it never depends on arrival.
func (v version) compare(o version) int {
	return cmp.Or(cmp.Compare(v.validFrom, o.validFrom), cmp.Compare(ended(v), ended(o)), bytes.Compare(v.fingerprint[:], o.fingerprint[:]))
}

func ended(v version) int {
	if v.deleted {
		return 1
	}
	return 0
}

// versions are an entity's versions in order of validity.
type versions []version

// add returns vs with v, and whether that changed anything. A description repeated without a change stays a version of its
// own: whether one came between the two is known only when all have come.
func (vs versions) add(v version) (versions, bool) {
	i, found := slices.BinarySearchFunc(vs, v, version.compare)
	if found {
		return vs, false
	}
	return slices.Insert(slices.Clone(vs), i, v), true
}

// at returns the version that a record of time t is joined with: the newest one valid at t, or the earliest if all are later.
// Nil when there is none, or when the entity was deleted by then.
func (vs versions) at(t int64) *version {
	for i := len(vs) - 1; i >= 0; i-- {
		if vs[i].validFrom <= t {
			if vs[i].deleted {
				return nil
			}
			return &vs[i]
		}
	}
	for i := range vs {
		if !vs[i].deleted {
			return &vs[i]
		}
	}
	return nil
}

const versionsFormat = 1

// append encodes vs: the distinct contents, then the versions, each with its content's number. Most descriptions repeat one.
func (vs versions) append(dst []byte) []byte {
	dst = append(dst, versionsFormat)
	numbers := map[[16]byte]uint64{}
	var contents []int // the first version with each content
	for i, v := range vs {
		if _, ok := numbers[v.fingerprint]; !ok {
			numbers[v.fingerprint] = uint64(len(contents))
			contents = append(contents, i)
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(contents)))
	for _, i := range contents {
		dst = append(dst, vs[i].fingerprint[:]...)
		dst = appendBytes(dst, vs[i].bytes)
		dst = binary.LittleEndian.AppendUint64(dst, vs[i].layout)
		dst = appendBytes(dst, vs[i].slots)
	}
	dst = binary.AppendUvarint(dst, uint64(len(vs)))
	for _, v := range vs {
		dst = binary.AppendVarint(dst, v.validFrom)
		dst = binary.AppendUvarint(dst, numbers[v.fingerprint])
		dst = appendBool(dst, v.deleted)
		dst = appendString(dst, v.source)
	}
	return dst
}

func parseVersions(b []byte) (versions, error) {
	if len(b) == 0 {
		return nil, nil
	}
	r := reader{b: b}
	if f := r.byte(); f != versionsFormat {
		return nil, fmt.Errorf("entity versions of format %d; this version reads format %d", f, versionsFormat)
	}
	contents := make([]version, r.count())
	for i := range contents {
		copy(contents[i].fingerprint[:], r.take(16))
		contents[i].content(&r)
	}
	vs := make(versions, r.count())
	for i := range vs {
		validFrom, n := r.varint(), r.uvarint()
		if n >= uint64(len(contents)) {
			return nil, errTruncated
		}
		vs[i] = contents[n]
		vs[i].validFrom = validFrom
		vs[i].deleted = r.byte() == 1
		vs[i].source = r.string()
	}
	return vs, r.end()
}

// append encodes one version alone: the payload of an element that brings it.
func (v version) append(dst []byte) []byte {
	dst = binary.AppendVarint(dst, v.validFrom)
	dst = append(dst, v.fingerprint[:]...)
	dst = appendBool(dst, v.deleted)
	dst = appendString(dst, v.source)
	dst = appendBytes(dst, v.bytes)
	dst = binary.LittleEndian.AppendUint64(dst, v.layout)
	return appendBytes(dst, v.slots)
}

func (v *version) content(r *reader) {
	v.bytes = r.bytes()
	v.layout = r.uint64()
	v.slots = r.bytes()
}

func parseVersion(b []byte) (version, error) {
	r := reader{b: b}
	var v version
	v.validFrom = r.varint()
	copy(v.fingerprint[:], r.take(16))
	v.deleted = r.byte() == 1
	v.source = r.string()
	v.content(&r)
	return v, r.end()
}
