package engine

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"millrace/plan"
)

const (
	segmentMagic   = "MRLOUTBX"
	segmentVersion = 1
	segmentHeader  = len(segmentMagic) + 4

	// segmentBytes is the size past which rows go to a new segment: what is published is freed in pieces of this size.
	segmentBytes = 64 << 20
)

// entry is the outbox's manifest entry of an epoch that made rows; it is written by the epoch's commit. An epoch without
// rows has none.
type entry struct {
	Epoch   uint64       `json:"epoch"`
	Segment uint64       `json:"segment"`
	At      int64        `json:"at"`    // offset of the block in the segment
	Bytes   int64        `json:"bytes"` // of the block
	Rows    int          `json:"rows"`
	Offsets plan.Offsets `json:"offsets"`        // the source's, after the epoch
	Made    int64        `json:"made,omitempty"` // the epoch's processing clock, µs since 1970; 0 in entries of older versions
}

// outbox holds the rows that some sink has not published yet.
//
// A segment is written by one process life and never again by a later one: bytes after the last committed block, torn or
// whole, are named by no entry and go with the segment. That also makes hard links of segments safe.
type outbox struct {
	fs   vfs.FS
	dir  string
	past []pastTable // see identity

	// The writer's own: used by the engine's loop alone.
	file vfs.File
	at   int64
	buf  []byte

	mu       sync.Mutex
	segment  uint64   // the last one made
	writing  bool     // to it
	segments []uint64 // the files there are
	entries  []entry  // committed, not yet published by all sinks; by epoch
	bytes    int64    // of entries
	changed  chan struct{}
}

func segmentName(n uint64) string { return fmt.Sprintf("%010d.rows", n) }

func parseSegmentName(name string) (n uint64, ok bool) {
	if !strings.HasSuffix(name, ".rows") {
		return 0, false
	}
	_, err := fmt.Sscanf(name, "%d.rows", &n)
	return n, err == nil && segmentName(n) == name
}

// openOutbox takes the committed entries after epoch published, and removes the segments that none of them needs.
func openOutbox(fs vfs.FS, dir string, s *state, published uint64) (*outbox, error) {
	o := &outbox{fs: fs, dir: fs.PathJoin(dir, "outbox"), past: s.id.Past, changed: make(chan struct{})}
	if err := makeDir(fs, o.dir); err != nil {
		return nil, err
	}
	all, err := readEntries(s)
	if err != nil {
		return nil, err
	}
	for _, e := range all {
		if e.Epoch > published {
			o.entries = append(o.entries, e)
			o.bytes += e.Bytes
		}
		o.segment = max(o.segment, e.Segment)
	}
	names, err := fs.List(o.dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		n, ok := parseSegmentName(name)
		if !ok {
			continue
		}
		o.segment = max(o.segment, n)
		o.segments = append(o.segments, n)
	}
	return o, o.sweep()
}

// makeDir makes dir and syncs its parent, so that what is synced inside it is found after a crash.
func makeDir(fs vfs.FS, dir string) error {
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	return syncDir(fs, fs.PathDir(dir))
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return errors.Join(d.Sync(), d.Close())
}

func readEntries(s *state) ([]entry, error) {
	var all []entry
	err := s.scan([]byte{kindOutbox}, func(k, v []byte) error {
		var e entry
		if err := json.Unmarshal(v, &e); err != nil {
			return fmt.Errorf("read outbox entry %x: %w", k, err)
		}
		all = append(all, e)
		return nil
	})
	return all, err
}

// append writes and syncs the rows of an epoch. They count once the entry is committed.
func (o *outbox) append(p *plan.Plan, epoch uint64, rows []plan.Row, offsets plan.Offsets) (entry, error) {
	if o.file != nil && o.at >= segmentBytes {
		if err := o.closeSegment(); err != nil {
			return entry{}, err
		}
	}
	if o.file == nil {
		if err := o.newSegment(); err != nil {
			return entry{}, err
		}
	}
	o.buf = appendBlock(o.buf[:0], p, epoch, rows)
	e := entry{Epoch: epoch, Segment: o.segment, At: o.at, Bytes: int64(len(o.buf)), Rows: len(rows), Offsets: offsets}
	if _, err := o.file.Write(o.buf); err != nil {
		return entry{}, fmt.Errorf("write rows to %s: %w", o.path(o.segment), err)
	}
	if err := o.file.SyncData(); err != nil {
		return entry{}, fmt.Errorf("sync rows in %s: %w", o.path(o.segment), err)
	}
	o.at += e.Bytes
	if cap(o.buf) > 32<<20 {
		o.buf = nil // one epoch in a thousand must not set the memory used for all
	}
	return e, nil
}

func (o *outbox) path(segment uint64) string { return o.fs.PathJoin(o.dir, segmentName(segment)) }

func (o *outbox) newSegment() error {
	next := o.segment + 1
	name := o.path(next)
	f, err := o.fs.Create(name, "outbox")
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	header := binary.LittleEndian.AppendUint32([]byte(segmentMagic), segmentVersion)
	if _, err = f.Write(header); err == nil {
		if err = f.Sync(); err == nil {
			err = syncDir(o.fs, o.dir)
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("create %s: %w", name, err), f.Close())
	}
	o.file, o.at = f, int64(segmentHeader)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.segment, o.writing = next, true
	o.segments = append(o.segments, next)
	return nil
}

func (o *outbox) closeSegment() error {
	if o.file == nil {
		return nil
	}
	err := o.file.Close()
	o.file = nil
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writing = false
	return err
}

// committed makes the rows of a committed epoch known to publishers.
func (o *outbox) committed(e entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.entries = append(o.entries, e)
	o.bytes += e.Bytes
	o.broadcast()
}

func (o *outbox) broadcast() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// size returns the bytes that wait, and a channel that is closed at the next change.
func (o *outbox) size() (int64, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bytes, o.changed
}

// pending returns the entries after epoch, and a channel that is closed at the next change.
func (o *outbox) pending(epoch uint64) ([]entry, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return entriesAfter(o.entries, epoch), o.changed
}

// entriesAfter returns the entries after epoch. Entries are only ever appended and cut off in front, so a caller may read
// the result while others do that.
func entriesAfter(all []entry, epoch uint64) []entry {
	i := sort.Search(len(all), func(i int) bool { return all[i].Epoch > epoch })
	return all[i:len(all):len(all)]
}

// release forgets what all sinks have durably published, up to and including epoch.
func (o *outbox) release(s *state, epoch uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	b := s.db.NewBatch()
	for n < len(o.entries) && o.entries[n].Epoch <= epoch {
		e := o.entries[n]
		o.bytes -= e.Bytes
		if err := b.Delete(appendOutboxKey(nil, e.Epoch), nil); err != nil {
			return err
		}
		n++
	}
	if n == 0 {
		return b.Close()
	}
	o.entries = o.entries[n:]
	// Not synced: an entry that comes back after a crash is not after the sinks' positions.
	err := s.do(func() error { return s.db.Apply(b, pebble.NoSync) })
	if err == nil {
		err = b.Close()
	}
	if err != nil {
		return err
	}
	o.broadcast()
	return o.sweep()
}

// sweep removes the segments that no entry names, except the one being written.
func (o *outbox) sweep() error {
	needed := map[uint64]bool{o.segment: o.writing}
	for _, e := range o.entries {
		needed[e.Segment] = true
	}
	for _, n := range o.segments {
		if needed[n] {
			continue
		}
		if err := o.fs.Remove(o.path(n)); err != nil {
			return fmt.Errorf("remove published rows: %w", err)
		}
	}
	o.segments = slices.DeleteFunc(o.segments, func(n uint64) bool { return !needed[n] })
	return nil
}

// read appends the rows of an entry to dst. A block that is damaged is an error that names file and offset.
func (o *outbox) read(dst []plan.Row, p *plan.Plan, f vfs.File, e entry) ([]plan.Row, error) {
	b, err := readBlock(f, e)
	if err == nil {
		dst, err = parseBlock(dst, p, o.past, b, e.Epoch)
	}
	if err != nil {
		err = fmt.Errorf("rows of epoch %d in %s at offset %d: %w", e.Epoch, o.path(e.Segment), e.At, err)
		if errors.Is(err, errBadBlock) {
			err = fmt.Errorf("%w; restore the data directory from a backup", err)
		}
		return dst, err
	}
	return dst, nil
}

func readBlock(f vfs.File, e entry) ([]byte, error) {
	b := make([]byte, e.Bytes)
	if n, err := f.ReadAt(b, e.At); n < len(b) {
		if err == nil || errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: the file ends", errBadBlock)
		}
		return nil, err
	}
	return b, nil
}

// openSegment opens a segment for reading and checks its header.
func (o *outbox) openSegment(segment uint64) (vfs.File, error) {
	name := o.path(segment)
	f, err := o.fs.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("rows that are not published yet are gone: %w; restore the data directory from a backup", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open rows that are not published yet: %w", err)
	}
	header := make([]byte, segmentHeader)
	if _, err := f.ReadAt(header, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(fmt.Errorf("read %s: %w", name, err), f.Close())
	}
	if string(header[:len(segmentMagic)]) != segmentMagic {
		return nil, errors.Join(fmt.Errorf("%s at offset 0: not an outbox segment; restore the data directory from a backup", name), f.Close())
	}
	if v := binary.LittleEndian.Uint32(header[len(segmentMagic):]); v != segmentVersion {
		return nil, errors.Join(fmt.Errorf("%s has format %d and this version of the engine reads format %d", name, v, segmentVersion), f.Close())
	}
	return f, nil
}
