package lake

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	iceio "github.com/apache/iceberg-go/io"
)

// localFiles is the local file system with durable writes: a file is synced when it is closed, its folder no later than
// when a table's metadata names it.
//
// Iceberg's locations are absolute. Those of a lake that was moved since its first table was made are still below the place where
// it was, and mean the files where it is.
type localFiles struct {
	dir   string // of the warehouse
	base  string // its location, as the catalogue has it
	fault fault

	mu    sync.Mutex
	dirty map[string]struct{} // folders with entries that are not synced yet
}

// fileLocation is the URI of a local path.
func fileLocation(path string) string {
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(path)}).String()
}

func (f *localFiles) readable(location string) string {
	if rest, ok := strings.CutPrefix(location, f.base+"/"); ok {
		location = fileLocation(f.dir) + "/" + rest
	}
	u, err := url.Parse(location)
	if err != nil || u.Scheme != "file" {
		return location
	}
	return filepath.FromSlash(u.Path)
}

func (f *localFiles) location(path string) string {
	return f.base + strings.TrimPrefix(fileLocation(path), fileLocation(f.dir))
}

// Open opens a file for reading.
func (f *localFiles) Open(name string) (iceio.File, error) {
	file, err := os.Open(f.readable(name))
	if err != nil {
		return nil, err
	}
	return file, nil
}

// ReadFile reads a whole file.
func (f *localFiles) ReadFile(name string) ([]byte, error) { return os.ReadFile(f.readable(name)) }

// Stat describes a file.
func (f *localFiles) Stat(name string) (fs.FileInfo, error) { return os.Stat(f.readable(name)) }

// Remove removes a file. One that is gone is no error, as in S3: of two that sweep, or of a sweep and the writer that gives its file up, one
// is the first.
func (f *localFiles) Remove(name string) error {
	path := f.readable(name)
	if err := f.fault.check("remove", path); err != nil {
		return err
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// WriteFile writes a whole file durably.
func (f *localFiles) WriteFile(name string, content []byte) error {
	w, err := f.Create(name)
	if err != nil {
		return err
	}
	if _, err := w.Write(content); err != nil {
		return errors.Join(err, w.Close())
	}
	return w.Close()
}

// newFile makes a new file, which is durable once its Close returns nil and its folder is synced. Metadata is what makes
// other files reachable, so before its content is written the folders of everything written so far are synced.
func (f *localFiles) newFile(name string) (fileWriter, error) {
	path := f.readable(name)
	if err := f.makeDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if err := f.fault.check("create", path); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	f.mark(filepath.Dir(path))
	return &localFile{fsys: f, path: path, file: file, buf: bufio.NewWriterSize(file, 64<<10)}, nil
}

func (f *localFiles) makeDir(dir string) error {
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

func (f *localFiles) mark(dir string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dirty == nil {
		f.dirty = map[string]struct{}{}
	}
	f.dirty[dir] = struct{}{}
}

// Create is newFile, for iceberg-go.
func (f *localFiles) Create(name string) (iceio.FileWriter, error) { return f.newFile(name) }

func (f *localFiles) syncDirs() error {
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

func (f *localFiles) syncDir(dir string) error {
	if err := f.fault.check("syncdir", dir); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (f *localFiles) walk(root string, fn func(location string, info fs.FileInfo) error) error {
	return filepath.WalkDir(f.readable(root), func(path string, d fs.DirEntry, err error) error {
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
		return fn(f.location(path), info)
	})
}

func (f *localFiles) removeDirs(location string) error {
	path := f.readable(location)
	if err := f.fault.check("remove", path); err != nil {
		return err
	}
	return os.RemoveAll(path)
}

// localFile counts and buffers what is written to one new file.
type localFile struct {
	fsys *localFiles
	path string
	file *os.File
	buf  *bufio.Writer
	n    int64
}

func (w *localFile) Write(p []byte) (int, error) {
	n, err := w.buf.Write(p)
	w.n += int64(n)
	return n, err
}

func (w *localFile) ReadFrom(r io.Reader) (int64, error) {
	n, err := w.buf.ReadFrom(r)
	w.n += n
	return n, err
}

// Close makes the content durable. The folder of a metadata file is synced too: the catalogue's commit comes next.
func (w *localFile) Close() error {
	err := w.buf.Flush()
	if err == nil {
		err = w.fsys.fault.check("sync", w.path)
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

func (w *localFile) written() int64 { return w.n }

func (w *localFile) abandon() {
	_ = w.file.Close()
	if w.fsys.fault.check("remove", w.path) == nil {
		_ = os.Remove(w.path)
	}
}
