package engine

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// storeFS is the file system as Pebble sees it: no write of Pebble's ever fails there. The first one that does raises the fault, which
// ends the job, and the goroutine that wrote is left to the process's end. Told of the error, Pebble would try a flush again and again
// without a pause, or panic on a goroutine of its own: it does when a blob file cannot be finished.
//
// Only files of the store's own directory are meant. What Pebble writes to a checkpoint may fail; the caller is told.
type storeFS struct {
	vfs.FS
	dir   string
	fault *fault
}

// hold returns when err is nil or not Pebble's own.
func (s storeFS) hold(name string, err error) error {
	if err != nil && s.FS.PathDir(name) == s.dir {
		s.fault.raise(fmt.Errorf("state store: %w", err))
		select {}
	}
	return err
}

func (s storeFS) Unwrap() vfs.FS { return s.FS }

func (s storeFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return s.writable(name)(s.FS.Create(name, category))
}

func (s storeFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return s.writable(newname)(s.FS.ReuseForWrite(oldname, newname, category))
}

func (s storeFS) OpenDir(name string) (vfs.File, error) {
	return s.writable(s.FS.PathJoin(name, "itself"))(s.FS.OpenDir(name))
}

func (s storeFS) Rename(oldname, newname string) error {
	return s.hold(newname, s.FS.Rename(oldname, newname))
}

func (s storeFS) writable(name string) func(vfs.File, error) (vfs.File, error) {
	return func(f vfs.File, err error) (vfs.File, error) {
		if err = s.hold(name, err); err != nil {
			return nil, err
		}
		return storeFile{f, s, name}, nil
	}
}

type storeFile struct {
	vfs.File
	fs   storeFS
	name string
}

func (f storeFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.fs.hold(f.name, err)
}

func (f storeFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	return n, f.fs.hold(f.name, err)
}

func (f storeFile) Sync() error     { return f.fs.hold(f.name, f.File.Sync()) }
func (f storeFile) SyncData() error { return f.fs.hold(f.name, f.File.SyncData()) }
func (f storeFile) Close() error    { return f.fs.hold(f.name, f.File.Close()) }

func (f storeFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	return full, f.fs.hold(f.name, err)
}

func (f storeFile) Preallocate(offset, length int64) error {
	return f.fs.hold(f.name, f.File.Preallocate(offset, length))
}
