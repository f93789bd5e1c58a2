package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/blob"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// damageError says in one sentence that files of a job directory are not what was written.
type damageError struct {
	dir   string // of the job
	cause error
}

func (e *damageError) Error() string {
	what, _, _ := strings.Cut(e.cause.Error(), "\n") // Pebble adds lines that repeat it
	return fmt.Sprintf("state in job directory %s is damaged: %s; restore the data directory from a backup", e.dir, what)
}

func (e *damageError) Unwrap() error { return e.cause }

// damage returns err, as a damageError if a damaged or missing file is what it says.
func damage(dir string, err error) error {
	var known *damageError
	switch {
	case err == nil, errors.As(err, &known), errors.Is(err, pebble.ErrDBDoesNotExist):
		return err
	case pebble.IsCorruptionError(err), errors.Is(err, fs.ErrNotExist):
		return &damageError{dir, err}
	}
	for _, said := range []string{"on-disk corruption", "merger name from file", "object size mismatch", "malformed manifest", "invalid key=value syntax"} {
		if strings.Contains(err.Error(), said) {
			return &damageError{dir, err}
		}
	}
	return err
}

// corrupt reports whether err, of a job that ran, says that the store found a damaged file.
func corrupt(err error) bool {
	return pebble.IsCorruptionError(err) || err != nil && strings.Contains(err.Error(), "on-disk corruption") // of a panic there is the text alone
}

// guard calls f and returns its error, or what it panics with: Pebble panics at some damaged files. After a panic the
// store is not used any more, not even closed.
func (s *state) guard(dir string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &damageError{dir, fmt.Errorf("the state store panics: %v", p)}
			s.fault.raise(err)
		}
	}()
	return damage(dir, f())
}

// checkBlobs checks that the blob files of an open store are there and whole: their sizes and footers. Pebble checks its tables
// when it opens, but not these, and panics later, where nobody can recover, when one's footer is damaged.
//
// A file that is gone is damage only when the store still wants it: once open, Pebble compacts in the background.
func checkBlobs(fs vfs.FS, dir string, db *pebble.DB) error {
	for name, size := range blobs(fs, dir, db) {
		info, err := fs.Stat(name)
		switch {
		case err != nil:
		case uint64(info.Size()) != size:
			err = fmt.Errorf("%s has %d bytes where %d were written", name, info.Size(), size)
		default:
			err = checkBlob(fs, name)
		}
		if err == nil {
			continue
		}
		if _, wanted := blobs(fs, dir, db)[name]; wanted {
			return &damageError{dir, err}
		}
	}
	return nil
}

// blobs are the sizes of the store's blob files by name.
func blobs(fs vfs.FS, dir string, db *pebble.DB) map[string]uint64 {
	all := map[string]uint64{}
	for b := range db.DebugCurrentVersion().BlobFiles.All() {
		all[fs.PathJoin(stateDir(fs, dir), fmt.Sprintf("%s.blob", b.Physical.FileNum))] = b.Physical.Size
	}
	return all
}

func checkBlob(fs vfs.FS, name string) error {
	f, err := fs.Open(name)
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = blob.NewFileReader(context.Background(), readable, blob.FileReaderOptions{})
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return errors.Join(err, readable.Close())
}

// anyTornBlob reports whether a blob file in dir has no good footer. That is damage, or what a killed process was writing.
func anyTornBlob(fs vfs.FS, dir string) bool {
	names, err := fs.List(dir)
	if err != nil {
		return false // there is nothing yet, or Pebble says what is wrong
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".blob") && checkBlob(fs, fs.PathJoin(dir, name)) != nil {
			return true
		}
	}
	return false
}
