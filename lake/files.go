package lake

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	iceio "github.com/apache/iceberg-go/io"
)

// This file is the only one that knows that a table's files are on the local file system; the others handle locations:
// URIs, as the catalogue and the manifests record them.

// fsProperty is the catalogue property by which iceberg-go's calls find the file system of their lake.
const fsProperty = "millrace.fs"

// openFS holds the file system of each open lake by its number, as text. iceberg-go makes file systems from a location and
// properties alone, so the instance has to be found by name.
var (
	openMu   sync.Mutex
	openFS   = map[string]*fileSystem{}
	openNext int
)

// The stock local file system of iceberg-go does not sync what it writes: a power cut after a commit would leave a
// catalogue that names files of no content.
func init() {
	iceio.Unregister("file")
	iceio.Register("file", func(_ context.Context, _ *url.URL, props map[string]string) (iceio.IO, error) {
		openMu.Lock()
		defer openMu.Unlock()
		if fsys, ok := openFS[props[fsProperty]]; ok {
			return fsys, nil
		}
		return &fileSystem{}, nil
	})
}

// fileSystem is the local file system with durable writes: a file is synced when it is closed, its folder no later than
// when a table's metadata names it.
type fileSystem struct {
	fault func(op, path string) error // tests: called before each change, an error prevents it

	mu    sync.Mutex
	dirty map[string]struct{} // folders with entries that are not synced yet
}

func newFileSystem(fault func(op, path string) error) (fsys *fileSystem, name string) {
	fsys = &fileSystem{fault: fault}
	openMu.Lock()
	defer openMu.Unlock()
	openNext++
	name = fmt.Sprint(openNext)
	openFS[name] = fsys
	return fsys, name
}

func forgetFileSystem(name string) {
	openMu.Lock()
	defer openMu.Unlock()
	delete(openFS, name)
}

// location is the URI of a local path.
func location(path string) string {
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(path)}).String()
}

// localPath is the path of a location, for messages and for readers of the files themselves.
func localPath(location string) string {
	u, err := url.Parse(location)
	if err != nil || u.Scheme != "file" {
		return location // a path already
	}
	return filepath.FromSlash(u.Path)
}

func (f *fileSystem) check(op, path string) error {
	if f.fault == nil {
		return nil
	}
	return f.fault(op, path)
}

// Open opens a file for reading.
func (f *fileSystem) Open(name string) (iceio.File, error) {
	file, err := os.Open(localPath(name))
	if err != nil {
		return nil, err
	}
	return file, nil
}

// ReadFile reads a whole file.
func (f *fileSystem) ReadFile(name string) ([]byte, error) { return os.ReadFile(localPath(name)) }

// Stat describes a file.
func (f *fileSystem) Stat(name string) (fs.FileInfo, error) { return os.Stat(localPath(name)) }

// Remove removes a file.
func (f *fileSystem) Remove(name string) error {
	path := localPath(name)
	if err := f.check("remove", path); err != nil {
		return err
	}
	return os.Remove(path)
}

// WriteFile writes a whole file durably.
func (f *fileSystem) WriteFile(name string, content []byte) error {
	w, err := f.Create(name)
	if err != nil {
		return err
	}
	if _, err := w.Write(content); err != nil {
		return errors.Join(err, w.Close())
	}
	return w.Close()
}

// Create makes a new file, which is durable once its Close returns nil and its folder is synced. Metadata is what makes
// other files reachable, so before its content is written the folders of everything written so far are synced.
func (f *fileSystem) Create(name string) (iceio.FileWriter, error) {
	path := localPath(name)
	if err := f.makeDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if err := f.check("create", path); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	f.mark(filepath.Dir(path))
	return &fileWriter{fsys: f, path: path, file: file, buf: bufio.NewWriterSize(file, 64<<10)}, nil
}

func (f *fileSystem) makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := f.makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f.mark(filepath.Dir(dir))
	return nil
}

func (f *fileSystem) mark(dir string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dirty == nil {
		f.dirty = map[string]struct{}{}
	}
	f.dirty[dir] = struct{}{}
}

// syncDirs makes the names of all files written so far durable.
func (f *fileSystem) syncDirs() error {
	f.mu.Lock()
	dirs := f.dirty
	f.dirty = nil
	f.mu.Unlock()
	for dir := range dirs {
		if err := f.syncDir(dir); err != nil {
			f.mu.Lock()
			for d := range dirs {
				if f.dirty == nil {
					f.dirty = map[string]struct{}{}
				}
				f.dirty[d] = struct{}{}
			}
			f.mu.Unlock()
			return err
		}
	}
	return nil
}

func (f *fileSystem) syncDir(dir string) error {
	if err := f.check("syncdir", dir); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// walk calls fn with the location and description of each file below a location. A missing folder has no files.
func (f *fileSystem) walk(root string, fn func(location string, info fs.FileInfo) error) error {
	return filepath.WalkDir(localPath(root), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return fn(location(path), info)
	})
}

// fileWriter counts and buffers what is written to one new file.
type fileWriter struct {
	fsys *fileSystem
	path string
	file *os.File
	buf  *bufio.Writer
	n    int64
}

func (w *fileWriter) Write(p []byte) (int, error) {
	n, err := w.buf.Write(p)
	w.n += int64(n)
	return n, err
}

func (w *fileWriter) ReadFrom(r io.Reader) (int64, error) {
	n, err := w.buf.ReadFrom(r)
	w.n += n
	return n, err
}

// Close makes the content durable. The folder of a metadata file is synced too: the catalogue's commit comes next.
func (w *fileWriter) Close() error {
	err := w.buf.Flush()
	if err == nil {
		err = w.fsys.check("sync", w.path)
	}
	if err == nil {
		err = w.file.Sync()
	}
	if err := errors.Join(err, w.file.Close()); err != nil {
		return err
	}
	if strings.HasSuffix(w.path, ".metadata.json") {
		return w.fsys.syncDirs()
	}
	return nil
}

// abandon closes and removes a file that will not be used. What it cannot remove, Sweep will.
func (w *fileWriter) abandon() {
	_ = w.file.Close()
	if w.fsys.check("remove", w.path) == nil {
		_ = os.Remove(w.path)
	}
}
