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
	"millrace/record"
)

// doc is one document of a record: the event or entity it began with, a value that FlatMap attached, a joined entity.
type doc struct {
	name string
	*content
}

// content is a document's bytes. It is shared by all that hold it, and never written to.
type content struct {
	bytes  []byte // nil: joined in vain
	layout uint64 // hash of the layout that made slots
	slots  []byte // where the layout's paths lie in bytes; nil when unknown
}

// nothing is the content of an entity that a record was joined to in vain.
var nothing = new(content)

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

func (r *reader) doc() doc {
	d := doc{r.string(), nothing}
	if n := r.uvarint(); n > 0 {
		d.content = &content{bytes: r.take(n - 1), layout: r.uint64(), slots: r.bytes()}
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
	base      uint64 // of a replayed record: what its revisions begin at; 0 of others

	// revs counts, for each step that can correct the record (an entity table's own, then one a join), how many times the
	// step had emitted it before. Compared from the left, the higher one is the later truth.
	revs    []uint32
	docs    []doc
	sources []string // proof: the record and each joined entity version

	// A light record lacks the documents that it began with, and their source: see base.go.
	light         bool
	compared      []record.Value // values in those documents that the table's joins compare
	comparedJoins uint8          // how many joins the table had
	comparedHash  uint32         // and what they compared, see transformer.comparedHash

	kept int64 // until when base was told to keep its documents, in this epoch; not encoded
}

const flowFormat = 2

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
	for i := range f.compared {
		n += 4 + len(f.compared[i].Raw)
	}
	return n
}

// Append makes a flow a plan.Message.
func (f *flow) Append(dst []byte) []byte {
	return f.appendBody(f.appendHead(slices.Grow(dst, f.size())))
}

// appendHead appends what a record is known by.
func (f *flow) appendHead(dst []byte) []byte {
	dst = binary.AppendUvarint(append(dst, flowFormat), f.base)
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
	dst = appendBool(dst, f.light)
	if f.light {
		dst = append(dst, f.comparedJoins)
		dst = binary.LittleEndian.AppendUint32(dst, f.comparedHash)
		dst = append(dst, byte(len(f.compared)))
		for i := range f.compared {
			dst = appendBytes(dst, f.compared[i].Raw)
		}
	}
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

// flowOf returns the record that an element brings. Another stage sent it in this very epoch, so that it cannot be damaged.
func flowOf(e *plan.Element) *flow {
	if f, ok := e.Message.(*flow); ok {
		return f
	}
	f, err := parseFlow(e.Payload)
	if err != nil {
		panic(err)
	}
	return f
}

// parseFlow reads what Append wrote. The documents are slices of b.
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
	f := &flow{base: r.uvarint(), table: r.string()}
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
	if f.light = r.byte() == 1; f.light {
		f.comparedJoins, f.comparedHash = r.byte(), r.uint32()
		if n := r.byte(); n > 0 {
			f.compared = make([]record.Value, n)
		}
		for i := range f.compared {
			if raw := r.bytes(); len(raw) > 0 {
				f.compared[i] = record.Value{Raw: raw, Kind: kindOf(raw[0])}
			}
		}
	}
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
func (f *flow) with(s *scratch, d doc, rev uint32, source string) *flow {
	out := s.flows.one()
	*out = *f
	out.revs = plus(&s.revs, f.revs, rev)
	out.docs = plus(&s.docs, f.docs, d)
	if source != "" {
		out.sources = plus(&s.sources, f.sources, source)
	}
	return out
}

func plus[T any](in *slab[T], list []T, one T) []T {
	out := in.take(len(list) + 1)
	out[copy(out, list)] = one
	return out
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
		return f.base
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
	return min(out+f.base, plan.MaxRev)
}

// first reports whether no step ever emitted the record before.
func (f *flow) first() bool {
	if f.base > 0 {
		return false
	}
	for _, r := range f.revs {
		if r > 0 {
			return false
		}
	}
	return true
}

// olderThan reports whether f is an earlier revision of a record than g.
func (f *flow) olderThan(g *flow) bool {
	return f.base < g.base || f.base == g.base && compareRevs(f.revs, g.revs) < 0
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
