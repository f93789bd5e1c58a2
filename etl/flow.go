package etl

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"unsafe"

	"github.com/zeebo/xxh3"

	"millrace/plan"
)

// doc is one document of a record: the event or entity it began with, a value that FlatMap attached, a joined entity.
type doc struct {
	name   string
	bytes  []byte // nil: joined in vain
	layout uint64 // hash of the layout that made slots
	slots  []byte // where the layout's paths lie in bytes; nil when unknown
}

func (d *doc) append(dst []byte) []byte {
	dst = appendString(dst, d.name)
	if d.bytes == nil {
		return append(dst, 0)
	}
	dst = binary.AppendUvarint(dst, uint64(len(d.bytes))+1)
	dst = append(dst, d.bytes...)
	dst = binary.LittleEndian.AppendUint64(dst, d.layout)
	return appendBytes(dst, d.slots)
}

func (r *reader) doc() (d doc) {
	d.name = r.string()
	if n := r.uvarint(); n > 0 {
		d.bytes = r.take(n - 1)
		d.layout = r.uint64()
		d.slots = r.bytes()
	}
	return d
}

// flow is a record on its way from Read through the joins to Map: what the payload of an element between them holds.
//
// Its documents are the exact bytes that arrived; joining attaches another slice and serialises nothing anew.
type flow struct {
	table     string // by name: a state outlives a plan's numbering
	id        [16]byte
	account   string
	env       string
	eventTime int64

	// revs counts, for each step that can correct the record (an entity table's own, then one a join), how many times the
	// step had emitted it before. Compared from the left, the higher one is the later truth.
	revs    []uint32
	docs    []doc
	sources []string // proof: the record and each joined entity version
}

const flowFormat = 1

// size bounds the length of f's encoding from above, so that append need not grow its destination.
func (f *flow) size() int {
	n := 64 + len(f.table) + len(f.account) + len(f.env) + 5*len(f.revs)
	for i := range f.docs {
		d := &f.docs[i]
		n += 32 + len(d.name) + len(d.bytes) + len(d.slots)
	}
	for _, s := range f.sources {
		n += 8 + len(s)
	}
	return n
}

func (f *flow) append(dst []byte) []byte {
	return f.appendBody(f.appendHead(slices.Grow(dst, f.size())))
}

// appendHead appends what a record is known by.
func (f *flow) appendHead(dst []byte) []byte {
	dst = append(dst, flowFormat)
	dst = appendString(dst, f.table)
	dst = append(dst, f.id[:]...)
	dst = appendString(dst, f.account)
	dst = appendString(dst, f.env)
	dst = binary.AppendVarint(dst, f.eventTime)
	dst = append(dst, byte(len(f.revs)))
	for _, r := range f.revs {
		dst = binary.AppendUvarint(dst, uint64(r))
	}
	return dst
}

// appendBody appends what a record carries.
func (f *flow) appendBody(dst []byte) []byte {
	dst = append(dst, byte(len(f.docs)))
	for i := range f.docs {
		dst = f.docs[i].append(dst)
	}
	dst = append(dst, byte(len(f.sources)))
	for _, s := range f.sources {
		dst = appendString(dst, s)
	}
	return dst
}

// parseFlow reads what append wrote. The documents are slices of b.
func parseFlow(b []byte) (*flow, error) {
	r := reader{b: b}
	f, err := r.flowHead()
	if err != nil {
		return nil, err
	}
	return f, f.parseBody(r.b)
}

func (r *reader) flowHead() (*flow, error) {
	if v := r.byte(); v != flowFormat {
		return nil, fmt.Errorf("record of format %d; this version reads format %d", v, flowFormat)
	}
	f := &flow{table: r.string()}
	copy(f.id[:], r.take(16))
	f.account, f.env = r.string(), r.string()
	f.eventTime = r.varint()
	f.revs = make([]uint32, r.byte())
	for i := range f.revs {
		f.revs[i] = uint32(r.uvarint()) //nolint:gosec // written from a uint32
	}
	if r.bad {
		return nil, errTruncated
	}
	return f, nil
}

func (f *flow) parseBody(b []byte) error {
	r := reader{b: b}
	f.docs = make([]doc, r.byte())
	for i := range f.docs {
		f.docs[i] = r.doc()
	}
	f.sources = make([]string, r.byte())
	for i := range f.sources {
		f.sources[i] = r.string()
	}
	return r.end()
}

// with returns a copy of f with one more document, revision and, when it has one, source.
func (f *flow) with(d doc, rev uint32, source string) *flow {
	out := *f
	out.revs = append(append(make([]uint32, 0, len(f.revs)+1), f.revs...), rev)
	out.docs = append(append(make([]doc, 0, len(f.docs)+1), f.docs...), d)
	if source != "" {
		out.sources = append(append(make([]string, 0, len(f.sources)+1), f.sources...), source)
	}
	return &out
}

// bare returns f without what it carries: enough to know the record by.
func (f *flow) bare() *flow {
	out := *f
	out.docs, out.sources = nil, nil
	return &out
}

// maxSteps bounds the steps of a table that can correct its rows: the revision of a row has 54 bits for them.
const maxSteps = 6

// rev folds the revisions into one number that compares as they do. steps is how many the table has.
func (f *flow) rev(steps int) uint64 {
	if steps == 0 {
		return 0
	}
	width := bits.Len64(plan.MaxRev) / steps
	limit := uint64(1)<<width - 1
	var out uint64
	for i := range steps {
		r := uint32(0) // a step that was not reached
		if i < len(f.revs) {
			r = f.revs[i]
		}
		// A record corrected more often than fits (511 times with six steps) keeps the highest number; a later
		// correction then replaces the row because it comes later.
		out = out<<width | min(uint64(r), limit)
	}
	return out
}

// first reports whether no step ever emitted the record before.
func (f *flow) first() bool {
	for _, r := range f.revs {
		if r > 0 {
			return false
		}
	}
	return true
}

// compareRevs orders revisions of one record by their common prefix.
func compareRevs(a, b []uint32) int {
	for i := range min(len(a), len(b)) {
		switch {
		case a[i] < b[i]:
			return -1
		case a[i] > b[i]:
			return 1
		}
	}
	return 0
}

// rowID is the stable id of a row: a pure function of what the record is, never of how it came.
//
// The fingerprint is part of it because two events with one id and different content are two events.
func rowID(table, account, env, identity string, fingerprint [16]byte, index int) [16]byte {
	b := make([]byte, 0, 256)
	for _, s := range [...]string{table, account, env, identity} {
		b = appendString(b, s)
	}
	b = append(b, fingerprint[:]...)
	b = binary.AppendUvarint(b, uint64(index))
	return xxh3.Hash128(b).Bytes()
}

func idString(id [16]byte) string { return hex.EncodeToString(id[:]) }

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

func appendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func appendBytes(dst, s []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

var errTruncated = errors.New("truncated state")

// reader reads what the append functions wrote, and remembers whether it was all there.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v := r.uvarint()
	return int64(v>>1) ^ -int64(v&1) //nolint:gosec // zig-zag
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// count reads a number of things that take at least one byte each.
func (r *reader) count() int {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return 0
	}
	return int(n)
}

// string returns a string that is a slice of what is read, which nobody writes to: payloads and state stay as they are.
func (r *reader) string() string {
	b := r.take(r.uvarint())
	return unsafe.String(unsafe.SliceData(b), len(b))
}

func (r *reader) bytes() []byte { return r.take(r.uvarint()) }

func (r *reader) end() error {
	if r.bad || len(r.b) > 0 {
		return errTruncated
	}
	return nil
}
