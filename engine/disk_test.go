package engine_test

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// disk is the file system of one process life: it fails and crashes at the operation that it is told to.
//
// Operations are counted by the kind of file and what is done to it. So the same life has the same count at the same point, whatever
// Pebble's goroutines do to other files meanwhile; and they may begin new files only between two steps of the simulation.
type disk struct {
	mem *vfs.MemFS

	failAt  string // "blob write 3"; empty for none
	full    bool   // from there on all writes fail
	crashAt string // "log sync 3"; empty for none
	onCrash func()

	mu     sync.Mutex
	cond   *sync.Cond
	held   bool
	counts map[string]int
	failed bool
	over   bool                // the life is; what it still does does not count
	files  map[string]*written // made in this life
}

// written is a file of this life.
type written struct{ synced int64 }

func newDisk(mem *vfs.MemFS) *disk {
	d := &disk{mem: mem, counts: map[string]int{}, files: map[string]*written{}}
	d.cond = sync.NewCond(&d.mu)
	return d
}

func (d *disk) fs() vfs.FS { return diskFS{errorfs.Wrap(d.mem, errorfs.InjectorFunc(d.inject)), d} }

// diskFS knows how much of a file is synced, under whatever names: the file system in memory does not tell.
type diskFS struct {
	vfs.FS
	d *disk
}

type diskFile struct {
	vfs.File
	d *disk
	w *written
}

func (s diskFS) make(path string) func(vfs.File, error) (vfs.File, error) {
	return func(f vfs.File, err error) (vfs.File, error) {
		if err != nil {
			return nil, err
		}
		w := &written{}
		s.d.mu.Lock()
		defer s.d.mu.Unlock()
		s.d.files[path] = w
		return diskFile{f, s.d, w}, nil
	}
}

func (s diskFS) Create(path string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return s.make(path)(s.FS.Create(path, c))
}

func (s diskFS) ReuseForWrite(old, path string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return s.make(path)(s.FS.ReuseForWrite(old, path, c))
}

func (s diskFS) Rename(old, path string) error {
	err := s.FS.Rename(old, path)
	if err == nil {
		s.d.mu.Lock()
		defer s.d.mu.Unlock()
		for name, w := range s.d.files { // also what is in a directory
			if rest, ok := strings.CutPrefix(name, old); ok && (rest == "" || rest[0] == '/') {
				delete(s.d.files, name)
				s.d.files[path+rest] = w
			}
		}
	}
	return err
}

func (s diskFS) Link(old, path string) error {
	err := s.FS.Link(old, path)
	if err == nil {
		s.d.mu.Lock()
		defer s.d.mu.Unlock()
		if w := s.d.files[old]; w != nil {
			s.d.files[path] = w
		}
	}
	return err
}

func (f diskFile) sync(sync func() error) error {
	info, err := f.Stat()
	if err == nil {
		err = sync()
	}
	if err == nil {
		f.d.mu.Lock()
		defer f.d.mu.Unlock()
		f.w.synced = max(f.w.synced, info.Size())
	}
	return err
}

func (f diskFile) Sync() error     { return f.sync(f.File.Sync) }
func (f diskFile) SyncData() error { return f.sync(f.File.SyncData) }

// kindOf says what a file is.
func kindOf(path string) string {
	if strings.Contains(path, "checkpoints") || strings.Contains(path, "save") {
		return "checkpoint"
	}
	for _, kind := range []string{"sst", "blob", "log", "rows"} {
		if strings.HasSuffix(path, "."+kind) {
			return kind
		}
	}
	if strings.Contains(path, "MANIFEST") {
		return "manifest"
	}
	return "other"
}

func doingOf(op errorfs.OpKind) string {
	switch op {
	case errorfs.OpCreate, errorfs.OpReuseForWrite, errorfs.OpMkdirAll:
		return "create"
	case errorfs.OpFileWrite, errorfs.OpFileWriteAt:
		return "write"
	case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
		return "sync"
	case errorfs.OpRename:
		return "rename"
	case errorfs.OpLink:
		return "link"
	case errorfs.OpFileRead, errorfs.OpFileReadAt:
		return "read"
	}
	return ""
}

func (d *disk) inject(op errorfs.Op) error {
	doing := doingOf(op.Kind)
	if doing == "" {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	kind := kindOf(op.Path)
	if doing == "create" && (kind == "sst" || kind == "blob") {
		for d.held {
			d.cond.Wait()
		}
	}
	if d.over {
		return nil
	}
	what := kind + " " + doing
	d.counts[what]++
	switch at := fmt.Sprint(what, " ", d.counts[what]); {
	case at == d.crashAt:
		d.onCrash()
		d.over = true
		return nil
	case at == d.failAt, d.full && d.failed && doing != "read" && doing != "sync":
		d.failed = true
		return &vfsError{doing, op.Path}
	}
	return nil
}

type vfsError struct{ doing, path string }

func (e *vfsError) Error() string { return fmt.Sprintf("%s %s: %s", e.doing, e.path, syscall.ENOSPC) }
func (e *vfsError) Unwrap() error { return syscall.ENOSPC }

func (d *disk) ended() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.over
}

// hold keeps Pebble from beginning new files, or no longer.
func (d *disk) hold(held bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = held
	d.cond.Broadcast()
}

// end ends the life and returns the disk as the next one finds it: after a crash of the machine, or only of the process.
func (d *disk) end(machine bool, seed uint64) *vfs.MemFS {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	all := d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(0, 0))})
	if !machine {
		return all
	}
	return d.torn(d.mem.CrashClone(vfs.CrashCloneCfg{}), all, seed)
}

// torn returns a disk between one that has only what was synced and one that has everything. Of a directory that is not synced, all
// new entries are there or none: Pebble counts on their order, which real file systems keep. Of a file, a part of what was not synced
// is there: its beginning, or zeros in its place.
func (d *disk) torn(synced, all *vfs.MemFS, seed uint64) *vfs.MemFS {
	out := vfs.NewCrashableMem()
	var walk func(dir string, known bool)
	walk = func(dir string, known bool) {
		must(out.MkdirAll(dir, 0o755))
		rng := chanceOf(seed, dir)
		names, err := all.List(dir)
		must(err)
		keep := rng.IntN(2) == 0
		old := map[string]bool{}
		if known {
			before, err := synced.List(dir)
			must(err)
			for _, n := range before {
				old[n] = true
			}
			names = append(names, before...)
		}
		slices.Sort(names)
		for _, n := range slices.Compact(names) {
			path := all.PathJoin(dir, n)
			info, err := all.Stat(path)
			switch {
			case err != nil && keep: // removed
			case err != nil:
				writeTo(out, path, content(synced, path))
			case !old[n] && !keep: // not there yet
			case info.IsDir():
				walk(path, old[n])
			default:
				before, after := []byte(nil), content(all, path)
				switch w := d.files[strings.TrimPrefix(path, "/")]; {
				case w != nil:
					before = after[:min(int(w.synced), len(after))]
				case old[n]:
					before = content(synced, path)
				}
				writeTo(out, path, tornFile(before, after, chanceOf(seed, path)))
			}
		}
		f, err := out.OpenDir(dir)
		must(err)
		must(f.Sync())
		must(f.Close())
	}
	walk("/", true)
	return out
}

// chanceOf makes what becomes of a file depend on its name, not on what other files there are: obsolete ones go at any time.
func chanceOf(seed uint64, path string) *rand.Rand {
	h := digest()
	fmt.Fprint(h, path)
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

func tornFile(before, after []byte, rng *rand.Rand) []byte {
	style, at := rng.IntN(3), rng.Float64()
	if len(after) <= len(before) || style == 0 {
		return before
	}
	n := len(before) + int(at*float64(len(after)-len(before)))
	if style == 1 || !bytes.HasPrefix(after, before) {
		return after[:n]
	}
	return append(slices.Clone(after[:n]), make([]byte, len(after)-n)...)
}

func content(fs vfs.FS, path string) []byte {
	f, err := fs.Open(path)
	must(err)
	b, err := io.ReadAll(f)
	must(err)
	must(f.Close())
	return b
}

func writeTo(fs vfs.FS, path string, b []byte) {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	must(err)
	_, err = f.Write(b)
	must(err)
	must(f.Sync())
	must(f.Close())
}

// must is for a file system in memory that does not fail.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// digest is a running hash that can be compared.
func digest() interface {
	io.Writer
	Sum64() uint64
} {
	return fnv.New64a()
}
