// Package spill sorts and compares sets that may be larger than memory should be.
//
// The one idea: entries gather in memory; when they are many they are sorted and written as one run, to a file that has no name.
// What is read is the merge of all runs. So a set takes the memory of a run and a buffer for each, however many entries it has,
// and a small set never touches the disk.
//
// It does not survive the process, and it does not know what its keys and values are hashes of.
package spill

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
)

// Hash is a key, or what is compared of a value.
type Hash = [16]byte

type entry struct{ key, value Hash }

const entryBytes = 2 * len(Hash{})

// defaultRun is how many entries are held in memory: 16 MiB.
const defaultRun = 16 << 20 / entryBytes

// Set is a multiset of entries. Close it after use. It is not safe for concurrent use.
type Set struct {
	dir     string
	run     int // entries of a run
	entries []entry
	file    *os.File
	ends    []int64 // of the runs in file, in bytes
}

// New returns an empty set whose file, if it needs one, is on the disk of the directory. run is how many entries are held in memory;
// 0 means 16 MiB of them.
func New(dir string, run int) *Set {
	if run <= 0 {
		run = defaultRun
	}
	return &Set{dir: dir, run: run}
}

// Add adds an entry.
func (s *Set) Add(key, value Hash) error {
	if len(s.entries) == s.run {
		if err := s.spill(); err != nil {
			return fmt.Errorf("sort on the disk of %s: %w", s.dir, err)
		}
	}
	s.entries = append(s.entries, entry{key, value})
	return nil
}

func (s *Set) sort() {
	slices.SortStableFunc(s.entries, func(a, b entry) int { return bytes.Compare(a.key[:], b.key[:]) })
}

// spill writes the entries in memory as a run.
func (s *Set) spill() error {
	if s.file == nil {
		f, err := os.CreateTemp(s.dir, "sort-*.tmp")
		if err != nil {
			return err
		}
		s.file = f
		if err := os.Remove(f.Name()); err != nil { // it goes with the process, however that ends
			return err
		}
	}
	s.sort()
	w := bufio.NewWriterSize(s.file, 1<<20)
	for i := range s.entries {
		_, _ = w.Write(s.entries[i].key[:]) // Flush says what went wrong
		_, _ = w.Write(s.entries[i].value[:])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	s.ends = append(s.ends, s.end()+int64(len(s.entries)*entryBytes))
	s.entries = s.entries[:0]
	return nil
}

func (s *Set) end() int64 {
	if len(s.ends) == 0 {
		return 0
	}
	return s.ends[len(s.ends)-1]
}

// Close frees what the set holds. A set that is closed is empty.
func (s *Set) Close() error {
	file := s.file
	s.entries, s.file, s.ends = nil, nil, nil
	if file == nil {
		return nil
	}
	return file.Close()
}

// sorted yields the entries by key, those with the same key in the order in which they were added.
func (s *Set) sorted() iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		s.sort()
		m := merge{}
		from := int64(0)
		for i, to := range s.ends {
			m = append(m, &run{number: i, from: bufio.NewReaderSize(io.NewSectionReader(s.file, from, to-from), 64<<10)})
			from = to
		}
		m = append(m, &run{number: len(s.ends), entries: s.entries})
		for i := len(m) - 1; i >= 0; i-- {
			ok, err := m[i].next()
			if err != nil {
				yield(entry{}, err)
				return
			}
			if !ok {
				m = slices.Delete(m, i, i+1)
			}
		}
		heap.Init(&m)
		for len(m) > 0 {
			if !yield(m[0].head, nil) {
				return
			}
			ok, err := m[0].next()
			switch {
			case err != nil:
				yield(entry{}, err)
				return
			case ok:
				heap.Fix(&m, 0)
			default:
				heap.Pop(&m)
			}
		}
	}
}

// run is a sorted run being read, in the file or in memory.
type run struct {
	number  int
	head    entry
	from    *bufio.Reader
	entries []entry
}

func (r *run) next() (bool, error) {
	if r.from == nil {
		if len(r.entries) == 0 {
			return false, nil
		}
		r.head, r.entries = r.entries[0], r.entries[1:]
		return true, nil
	}
	var b [entryBytes]byte
	if _, err := io.ReadFull(r.from, b[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		return false, fmt.Errorf("read what was sorted on disk: %w", err)
	}
	r.head = entry{Hash(b[:len(Hash{})]), Hash(b[len(Hash{}):])}
	return true, nil
}

// merge is a heap of runs by the key of their heads, earlier runs first.
type merge []*run

func (m merge) Len() int { return len(m) }
func (m merge) Less(i, j int) bool {
	return cmp.Or(bytes.Compare(m[i].head.key[:], m[j].head.key[:]), cmp.Compare(m[i].number, m[j].number)) < 0
}
func (m merge) Swap(i, j int) { m[i], m[j] = m[j], m[i] }
func (m *merge) Push(x any)   { *m = append(*m, x.(*run)) }
func (m *merge) Pop() any {
	last := (*m)[len(*m)-1]
	*m = (*m)[:len(*m)-1]
	return last
}

// Group is what several sets have of one key.
type Group struct {
	Key    Hash
	Values [][]Hash // of each set, in the order in which they were added to it
}

// Join yields every key that any of the sets has, in order, with what each has of it. It holds the values of one key in memory; a
// Group is good until the next one. Nothing may be added to the sets meanwhile.
func Join(sets ...*Set) iter.Seq2[Group, error] {
	return func(yield func(Group, error) bool) {
		heads := make([]entry, len(sets))
		more := make([]bool, len(sets))
		next := make([]func() (entry, error, bool), len(sets))
		advance := func(i int) (err error) {
			heads[i], err, more[i] = next[i]()
			return err
		}
		g := Group{Values: make([][]Hash, len(sets))}
		for i, s := range sets {
			var stop func()
			next[i], stop = iter.Pull2(s.sorted())
			defer stop()
			if err := advance(i); err != nil {
				yield(g, err)
				return
			}
		}
		for {
			first := -1
			for i := range sets {
				g.Values[i] = g.Values[i][:0]
				if more[i] && (first < 0 || bytes.Compare(heads[i].key[:], heads[first].key[:]) < 0) {
					first = i
				}
			}
			if first < 0 {
				return
			}
			g.Key = heads[first].key
			for i := range sets {
				for more[i] && heads[i].key == g.Key {
					g.Values[i] = append(g.Values[i], heads[i].value)
					if err := advance(i); err != nil {
						yield(g, err)
						return
					}
				}
			}
			if !yield(g, nil) {
				return
			}
		}
	}
}
