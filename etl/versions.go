package etl

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"millrace/plan"
)

// version is one version of an entity.
type version struct {
	validFrom   int64 // microseconds since 1970
	fingerprint [16]byte
	deleted     bool   // the entity ended at validFrom
	source      string // proof: where it came from
	since       int64  // processing time, in hours since 1970, at which it had a successor; 0: it has none
	*content
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
func (vs versions) add(v version, now int64) (versions, bool) {
	i, found := slices.BinarySearchFunc(vs, v, version.compare)
	if found {
		return vs, false
	}
	vs = slices.Insert(slices.Clone(vs), i, v)
	vs.superseded(i, now)
	return vs, true
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

const versionsFormat = 2

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
		dst = binary.AppendUvarint(dst, uint64(v.since)) //nolint:gosec // hours
	}
	return dst
}

// parseVersions reads what append wrote. The versions lie in s until the next call; what they point to does not.
func parseVersions(b []byte, s *scratch) (versions, error) {
	if len(b) == 0 {
		return nil, nil
	}
	r := reader{b: b}
	if f := r.byte(); f != versionsFormat {
		return nil, fmt.Errorf("entity versions of format %d; this version reads format %d", f, versionsFormat)
	}
	n := r.count()
	contents := slices.Grow(s.contents[:0], n)[:n]
	for i := range contents {
		contents[i] = version{content: s.content.one()}
		copy(contents[i].fingerprint[:], r.take(16))
		contents[i].read(&r)
	}
	s.contents = contents
	n = r.count()
	vs := slices.Grow(s.versions[:0], n)[:n]
	s.versions = vs
	for i := range vs {
		validFrom, number := r.varint(), r.uvarint()
		if number >= uint64(len(contents)) {
			return nil, errTruncated
		}
		vs[i] = contents[number]
		vs[i].validFrom = validFrom
		vs[i].deleted = r.byte() == 1
		vs[i].source = r.string()
		vs[i].since = int64(r.uvarint()) //nolint:gosec // hours
	}
	return vs, r.end()
}

// Append makes a version a plan.Message.
func (v *version) Append(dst []byte) []byte {
	dst = binary.AppendVarint(dst, v.validFrom)
	dst = append(dst, v.fingerprint[:]...)
	dst = appendBool(dst, v.deleted)
	dst = appendString(dst, v.source)
	dst = appendBytes(dst, v.bytes)
	dst = binary.LittleEndian.AppendUint64(dst, v.layout)
	return appendBytes(dst, v.slots)
}

func (c *content) read(r *reader) {
	c.bytes = r.bytes()
	c.layout = r.uint64()
	c.slots = r.bytes()
}

// versionOf returns the version that an element brings. Another stage sent it in this very epoch, so that it cannot be damaged.
func versionOf(e *plan.Element) *version {
	if v, ok := e.Message.(*version); ok {
		return v
	}
	v, err := parseVersion(e.Payload)
	if err != nil {
		panic(err)
	}
	return v
}

func parseVersion(b []byte) (*version, error) {
	r := reader{b: b}
	v := &version{content: new(content)}
	v.validFrom = r.varint()
	copy(v.fingerprint[:], r.take(16))
	v.deleted = r.byte() == 1
	v.source = r.string()
	v.read(&r)
	return v, r.end()
}
