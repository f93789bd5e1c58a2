package spill

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
)

const (
	defaultMemory = 32 << 20 // bytes of records
	fanIn         = 16       // runs of a level; so many are merged to one of the next
	readAhead     = 64 << 10 // bytes of a run that is read
)

// Records are what a Set is, of keys and values that are bytes of any length.
//
// Runs are merged as soon as there are many: so what is held in memory, and how many files are open, does not grow with the number of records, but
// for the logarithm of it. Close it after use. It is not safe for concurrent use.
type Records struct {
	dir     string
	memory  int
	bytes   []byte // keys and values
	entries []place
	levels  [][]*os.File // runs, each a file without a name; those of a level are older than those of the levels before it
}

// place is where a record is in Records.bytes: its key, and behind that its value.
type place struct{ from, value, to int }

// placeBytes is what an entry takes beside its bytes.
const placeBytes = 24

// NewRecords returns empty records whose files, if they need any, are on the disk of the directory. memory is how many bytes are gathered for
// a run; 0 means 32 MiB. A record may be longer: it is then held by itself.
func NewRecords(dir string, memory int) *Records {
	if memory <= 0 {
		memory = defaultMemory
	}
	return &Records{dir: dir, memory: memory}
}

// Add adds a record. It keeps none of the slices.
func (r *Records) Add(key, value []byte) error {
	if size := len(r.bytes) + len(key) + len(value) + placeBytes*(len(r.entries)+1); len(r.entries) > 0 && size > r.memory {
		if err := r.spill(); err != nil {
			return fmt.Errorf("sort on the disk of %s: %w", r.dir, err)
		}
	}
	from := len(r.bytes)
	r.bytes = append(append(r.bytes, key...), value...)
	r.entries = append(r.entries, place{from, from + len(key), len(r.bytes)})
	return nil
}

func (r *Records) sort() {
	slices.SortStableFunc(r.entries, func(a, b place) int { return bytes.Compare(r.bytes[a.from:a.value], r.bytes[b.from:b.value]) })
}

// spill writes the records in memory as a run of the first level, and merges the levels that are full.
func (r *Records) spill() error {
	if err := r.write(0, r.inMemory()); err != nil {
		return err
	}
	if r.bytes, r.entries = r.bytes[:0], r.entries[:0]; cap(r.bytes) > 2*r.memory {
		r.bytes = nil // of a record that was very long
	}
	for level := 0; level < len(r.levels) && len(r.levels[level]) == fanIn; level++ {
		runs := r.levels[level]
		var sources []*recordRun
		for _, f := range runs {
			run, err := openRun(f)
			if err != nil {
				return err
			}
			sources = append(sources, run)
		}
		if err := r.write(level+1, mergeRecords(sources)); err != nil {
			return err
		}
		r.levels[level] = nil
		for _, f := range runs {
			if err := f.Close(); err != nil {
				return err
			}
		}
	}
	return nil
}

// write makes a run of a level.
func (r *Records) write(level int, records iter.Seq2[Record, error]) error {
	f, err := os.CreateTemp(r.dir, "sort-*.tmp")
	if err != nil {
		return err
	}
	if level == len(r.levels) {
		r.levels = append(r.levels, nil)
	}
	r.levels[level] = append(r.levels[level], f)
	if err := os.Remove(f.Name()); err != nil { // it goes with the process, however that ends
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	var head []byte
	for record, err := range records {
		if err != nil {
			return err
		}
		head = binary.AppendUvarint(head[:0], uint64(len(record.Key)))
		head = binary.AppendUvarint(head, uint64(len(record.Value)))
		for _, b := range [][]byte{head, record.Key, record.Value} {
			_, _ = w.Write(b) // Flush says what went wrong
		}
	}
	return w.Flush()
}

// Close frees what is held. Records that are closed are empty.
func (r *Records) Close() error {
	var errs []error
	for _, runs := range r.levels {
		for _, f := range runs {
			errs = append(errs, f.Close())
		}
	}
	r.bytes, r.entries, r.levels = nil, nil, nil
	return errors.Join(errs...)
}

// Record is one of Records.
type Record struct{ Key, Value []byte }

// Sorted yields the records by key, those with the same key in the order in which they were added. A record is good until the next one.
// Nothing may be added meanwhile.
func (r *Records) Sorted() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		var runs []*recordRun
		for _, level := range slices.Backward(r.levels) {
			for _, f := range level {
				run, err := openRun(f)
				if err != nil {
					yield(Record{}, err)
					return
				}
				runs = append(runs, run)
			}
		}
		next, stop := iter.Pull2(r.inMemory())
		defer stop()
		runs = append(runs, &recordRun{pull: next})
		mergeRecords(runs)(yield)
	}
}

// inMemory yields the records in memory.
func (r *Records) inMemory() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		r.sort()
		for _, e := range r.entries {
			if !yield(Record{r.bytes[e.from:e.value], r.bytes[e.value:e.to]}, nil) {
				return
			}
		}
	}
}

// recordRun is a run being read, of a file or of memory.
type recordRun struct {
	number int
	head   Record
	from   *bufio.Reader
	buf    []byte
	pull   func() (Record, error, bool)
}

func openRun(f *os.File) (*recordRun, error) {
	size, err := f.Seek(0, io.SeekEnd)
	return &recordRun{from: bufio.NewReaderSize(io.NewSectionReader(f, 0, size), readAhead)}, err
}

func (r *recordRun) next() (more bool, err error) {
	if r.pull != nil {
		r.head, err, more = r.pull()
		return more, err
	}
	if _, err := r.from.Peek(1); errors.Is(err, io.EOF) {
		return false, nil
	}
	key, err := binary.ReadUvarint(r.from)
	if err == nil {
		var value uint64
		value, err = binary.ReadUvarint(r.from)
		if err == nil {
			r.buf = slices.Grow(r.buf[:0], int(key+value))[:key+value] //nolint:gosec // they were lengths
			_, err = io.ReadFull(r.from, r.buf)
		}
	}
	if err != nil {
		return false, fmt.Errorf("read what was sorted on disk: %w", err)
	}
	r.head = Record{r.buf[:key], r.buf[key:]}
	return true, nil
}

// mergeRecords yields the records of runs, the older ones of which come first.
func mergeRecords(runs []*recordRun) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		var m recordMerge
		for i, run := range runs {
			run.number = i
			more, err := run.next()
			if err != nil {
				yield(Record{}, err)
				return
			}
			if more {
				m = append(m, run)
			}
		}
		heap.Init(&m)
		for len(m) > 0 {
			if !yield(m[0].head, nil) {
				return
			}
			switch more, err := m[0].next(); {
			case err != nil:
				yield(Record{}, err)
				return
			case more:
				heap.Fix(&m, 0)
			default:
				heap.Pop(&m)
			}
		}
	}
}

// recordMerge is a heap of runs by the key of their heads, earlier runs first.
type recordMerge []*recordRun

func (m recordMerge) Len() int { return len(m) }
func (m recordMerge) Less(i, j int) bool {
	return cmp.Or(bytes.Compare(m[i].head.Key, m[j].head.Key), cmp.Compare(m[i].number, m[j].number)) < 0
}
func (m recordMerge) Swap(i, j int) { m[i], m[j] = m[j], m[i] }
func (m *recordMerge) Push(x any)   { *m = append(*m, x.(*recordRun)) }
func (m *recordMerge) Pop() any {
	last := (*m)[len(*m)-1]
	*m = (*m)[:len(*m)-1]
	return last
}
