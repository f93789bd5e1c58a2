package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxLog is the size from which on a log is begun anew, in bytes. The one before is kept.
const maxLog = 16 << 20

// processLog is the standard output and the standard error of this process. What the runtime says of a panic goes there as everything does, so
// the files are exchanged below the process's writers.
type processLog struct {
	name string
	fds  []int
}

// keepLog makes a file this process's standard output and standard error.
func keepLog(name string) (*processLog, error) {
	l := &processLog{name, []int{syscall.Stdout, syscall.Stderr}}
	return l, l.attach()
}

func (l *processLog) attach() error {
	f, err := os.OpenFile(l.name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("log of the job: %w", err)
	}
	for _, fd := range l.fds {
		if err := unix.Dup2(int(f.Fd()), fd); err != nil {
			return errors.Join(fmt.Errorf("log of the job: %w", err), f.Close())
		}
	}
	return f.Close()
}

// watch begins the log anew whenever it has become large.
func (l *processLog) watch() {
	for range time.Tick(time.Second) {
		if err := l.rotate(maxLog); err != nil {
			fmt.Fprintln(os.Stderr, "the log is not begun anew, and grows:", err)
		}
	}
}

func (l *processLog) rotate(limit int64) error {
	info, err := os.Stat(l.name)
	if err != nil || info.Size() < limit {
		return err
	}
	if err := os.Rename(l.name, l.name+".1"); err != nil {
		return err
	}
	return l.attach()
}

// followEvery is how often a file that is followed is looked at.
const followEvery = 200 * time.Millisecond

// Follow copies what is appended to a log from an offset on to w, over its new beginnings, until ctx ends; then it copies what is still there.
// A log that is not there yet is waited for.
func Follow(ctx context.Context, name string, from int64, w io.Writer) error {
	var f *os.File
	defer func() {
		if f != nil {
			_ = f.Close() // it was only read
		}
	}()
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for old := false; ; { // the file that is open, in that another one has its name
		ending := ctx.Err() != nil
		if f == nil {
			var err error
			if f, err = os.Open(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if f != nil {
				if _, err := f.Seek(from, io.SeekStart); err != nil {
					return err
				}
			}
		}
		if f != nil {
			anew, err := begunAnew(f, name)
			if err != nil {
				return err
			}
			if _, err := io.Copy(w, f); err != nil {
				return err
			}
			if anew && (old || ending) { // its process had the time to take the new one
				_ = f.Close()
				f, from, old = nil, 0, false
				continue
			}
			old = anew
		}
		if ending {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// begunAnew reports whether another file has the name of an open one by now.
func begunAnew(f *os.File, name string) (bool, error) {
	was, err := f.Stat()
	if err != nil {
		return false, err
	}
	is, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // about to be made
	}
	return err == nil && !os.SameFile(was, is), err
}
