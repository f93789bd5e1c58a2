package engine

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"millrace/plan"
	"millrace/sink"
)

// epochRecord is what an epoch's commit writes beside state, timers, counters and outbox entry.
type epochRecord struct {
	Epoch      uint64           `json:"epoch"` // 0: nothing committed yet
	Lineage    string           `json:"lineage"`
	Token      uint64           `json:"token"` // of the lineage, as the two below
	Ancestors  []sink.Point     `json:"ancestors,omitempty"`
	Version    string           `json:"version"`    // of the app
	Processing int64            `json:"processing"` // the processing clock, µs since 1970
	Watermark  int64            `json:"watermark"`
	Offsets    plan.Offsets     `json:"offsets"`
	Seeding    *plan.Seeding    `json:"seeding,omitempty"` // replaced, never written to
	Newest     map[int32]int64  `json:"newest"`            // newest event time by partition, µs
	Read       int64            `json:"read"`
	Skipped    int64            `json:"skipped"`
	Rows       int64            `json:"rows"`
	Collapsed  int64            `json:"collapsed"`
	Fired      int64            `json:"fired"`
	Dropped    int64            `json:"dropped,omitempty"` // expiring items
	Rejected   map[string]int64 `json:"rejected"`          // by sink

	Sizes map[uint16]stageSize `json:"sizes"` // by the stage's id
}

// clone copies r so that the copy can be changed while r is being shown.
func (r epochRecord) clone() epochRecord {
	r.Offsets, r.Newest, r.Rejected = maps.Clone(r.Offsets), maps.Clone(r.Newest), maps.Clone(r.Rejected)
	r.Sizes = maps.Clone(r.Sizes)
	return r
}

// state is the job's Pebble store. All reads see the last commit.
type state struct {
	db      *pebble.DB
	fault   *fault
	id      identity
	buckets *buckets
	packer  *packer
	sizes   map[uint16]stageSize // of stages as of the last commit, by id
	closed  bool
	listed  bool // by beginManifest
}

// fault is the first error that Pebble reported on its own: from a flush, a compaction, or a commit that cannot be taken
// back. Pebble's contract for the last is to end the process; a job ends instead, and the store is not used any more.
type fault struct {
	dir    string // the job's
	err    atomic.Pointer[error]
	raised chan struct{}
}

func newFault(dir string) *fault { return &fault{dir: dir, raised: make(chan struct{})} }

func (f *fault) raise(err error) {
	if corrupt(err) { // whoever meets it: a compaction may, at any time
		err = damage(f.dir, err)
	}
	if f.err.CompareAndSwap(nil, &err) {
		close(f.raised)
	}
}

func (f *fault) get() error {
	if p := f.err.Load(); p != nil {
		return *p
	}
	return nil
}

// pebbleLogger passes on what an operator should see; Pebble's own running commentary is not that.
type pebbleLogger struct {
	logger *slog.Logger
	fault  *fault
}

func (l pebbleLogger) Infof(string, ...any) {}
func (l pebbleLogger) Errorf(format string, args ...any) {
	l.logger.Error("state store", "error", fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Fatalf(format string, args ...any) {
	for _, a := range args {
		if err, ok := a.(error); ok {
			l.fault.raise(fmt.Errorf("state store: %w", err))
		}
	}
	l.fault.raise(fmt.Errorf("state store: "+format, args...))
}

func stateDir(fs vfs.FS, dir string) string { return fs.PathJoin(dir, "state") }

// openDB opens the store of the job directory dir.
func openDB(c Config, f *fault, readOnly bool) (*pebble.DB, error) {
	dir := stateDir(c.FS, c.Dir)
	opts := &pebble.Options{
		FS:                          storeFS{c.FS, dir, f},
		Comparer:                    comparer,
		FormatMajorVersion:          pebble.FormatNewest,
		CacheSize:                   c.CacheBytes + 2*c.MemTableBytes, // memtables and large batches are taken out of it
		MemTableSize:                uint64(c.MemTableBytes),
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       8,
		L0StopWritesThreshold:       32,
		LBaseMaxBytes:               64 << 20,
		MaxOpenFiles:                2048,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
		Logger:                      pebbleLogger{c.Logger, f},
		ReadOnly:                    readOnly,
		ErrorIfNotExists:            readOnly,
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { f.raise(fmt.Errorf("state store: %w", err)) },
		},
	}
	for i := range opts.Levels {
		// A file's bloom filter is read as one block. Of files that hold keys alone, or short values, it would be megabytes, and
		// a few of them would keep everything else out of the cache.
		opts.TargetFileSizes[i] = min(int64(2<<20)<<i, 8<<20)
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		opts.Levels[i].BlockSize = 8 << 10
		// Most of the state lives for an hour and is never read: a better compression costs more than all else together.
		opts.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.SnappyCompression }
	}
	// List entries go to blob files when they are flushed, and stay there: compactions then move keys alone. Packed, most have about
	// 100 bytes, so the least size is low.
	opts.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{
			Enabled: true, MinimumSize: 64, MaxBlobReferenceDepth: 64, RewriteMinimumAge: 10 * time.Minute, TargetGarbageRatio: 0.4,
		}
	}
	// Except a key's value, which is read with every record that comes to the key.
	opts.Experimental.SpanPolicyFunc = func(start []byte) (pebble.SpanPolicy, []byte, error) {
		switch kind := start[0]; {
		case kind < kindValue:
			return pebble.SpanPolicy{}, []byte{kindValue}, nil
		case kind == kindValue:
			return pebble.SpanPolicy{ValueStoragePolicy: pebble.ValueStorageLowReadLatency}, []byte{kindValue + 1}, nil
		}
		return pebble.SpanPolicy{}, nil, nil
	}
	if err := checkLogs(c.FS, dir); err != nil {
		return nil, damage(c.Dir, err)
	}
	if !readOnly && anyTornBlob(c.FS, dir) {
		// Looked at before Pebble compacts in the background, where it would panic.
		db, err := openDB(c, f, true)
		if err == nil {
			err = db.Close()
		}
		if err != nil && !errors.Is(err, pebble.ErrDBDoesNotExist) {
			return nil, err
		}
	}
	db, err := openOrFail(dir, opts, f)
	if err == nil {
		if err = checkBlobs(c.FS, c.Dir, db); err == nil {
			return db, nil
		}
		err = errors.Join(err, db.Close())
	}
	var damaged *damageError
	switch {
	case errors.As(damage(c.Dir, err), &damaged):
		return nil, damaged
	case strings.Contains(err.Error(), "lock held"), strings.Contains(err.Error(), "resource temporarily unavailable"):
		return nil, fmt.Errorf("job directory %s is in use by another process; stop it first: %w", c.Dir, err)
	case strings.Contains(err.Error(), "comparer"):
		return nil, fmt.Errorf("job directory %s was written by a version of the engine that this one cannot read: %w", c.Dir, err)
	}
	return nil, fmt.Errorf("open the state in %s: %w", dir, err)
}

// openOrFail is pebble.Open that ends when a write fails: see storeFS.
func openOrFail(dir string, opts *pebble.Options, f *fault) (*pebble.DB, error) {
	type opened struct {
		db  *pebble.DB
		err error
	}
	done := make(chan opened, 1)
	go func() {
		db, err := pebble.Open(dir, opts)
		done <- opened{db, err}
	}()
	select {
	case o := <-done:
		return o.db, o.err
	case <-f.raised:
		return nil, f.get()
	}
}

// openState opens the store, checks that it is this plan's and instance's, and changes it to what the plan is now. What is refused
// is refused before anything is changed.
func openState(c Config) (*state, error) {
	if err := checkPlan(c); err != nil {
		return nil, err
	}
	f := newFault(c.Dir)
	db, err := openDB(c, f, false)
	if err != nil {
		return nil, err
	}
	s := &state{db: db, fault: f}
	if err := s.guard(c.Dir, func() error { return s.identify(c) }); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// after returns the smallest key that is greater than all keys with the prefix, which has a byte below 255.
func after(prefix []byte) []byte {
	end := slices.Clone(prefix)
	for i := len(end) - 1; ; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
}

// commit applies b and syncs it. An error is final: the store must not be written again, and Pebble may still hold b.
func (s *state) commit(b *pebble.Batch) error {
	err := s.do(func() error { return s.db.Apply(b, pebble.Sync) })
	if err != nil {
		s.fault.raise(err)
	}
	return s.fault.get()
}

// do calls f, which writes to the store, and returns its error. When the store is stuck, waiting for a write that has failed (see
// storeFS), do returns the fault and leaves f to the process's end.
func (s *state) do(f func() error) error {
	if err := s.fault.get(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				said, _, _ := strings.Cut(fmt.Sprint(p), "\n") // without its stack
				s.fault.raise(fmt.Errorf("state store: %s", said))
			}
		}()
		done <- f()
	}()
	select {
	case err := <-done:
		return err
	case <-s.fault.raised:
		return s.fault.get()
	}
}

// beginManifest makes sure, once in a process's life, that Pebble has begun its manifest. It does so at the first flush; a checkpoint
// before that has an empty one, and cannot be restored.
func (s *state) beginManifest() error {
	if s.listed {
		return nil
	}
	b := s.db.NewBatch()
	if err := setJSON(b, keyIdentity, s.id); err != nil { // nothing is not flushed
		return err
	}
	if err := s.commit(b); err != nil {
		return err
	}
	s.listed = true
	return errors.Join(b.Close(), s.do(s.db.Flush))
}

func (s *state) getJSON(key []byte, into any) (found bool, err error) {
	// Not by Get, which takes a value that it cannot read for an empty one.
	err = s.scan(key, func(k, v []byte) error {
		if !bytes.Equal(k, key) {
			return nil
		}
		found = true
		return json.Unmarshal(v, into)
	})
	if err != nil {
		return false, fmt.Errorf("read %s: %w", key[1:], err)
	}
	return found, nil
}

func setJSON(b *pebble.Batch, key []byte, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.Set(key, text, nil)
}

// scan calls f with every key that has the prefix. Key and value are only valid during the call.
func (s *state) scan(prefix []byte, f func(key, value []byte) error) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return err
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		var v []byte
		if v, err = it.ValueAndErr(); err == nil {
			err = f(it.Key(), v)
		}
	}
	return errors.Join(err, it.Error(), it.Close())
}

// counters reads all committed counters, also those that the plan no longer has.
func (s *state) counters() (map[string]int64, error) {
	all := map[string]int64{}
	err := s.scan([]byte{kindCounter}, func(k, v []byte) error {
		n, w := binary.Varint(v)
		if w <= 0 {
			return fmt.Errorf("counter %s has the value %x", k[1:], v)
		}
		all[string(k[1:])] = n
		return nil
	})
	return all, err
}

// close closes the store. After a fault it is left as it is, locked until the process ends: Pebble cannot close a store
// whose commits fail.
func (s *state) close() error {
	if s.closed || s.fault.get() != nil {
		return nil
	}
	s.closed = true
	return s.do(s.db.Close)
}
