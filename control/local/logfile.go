package local

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// Follow copies what a reader has to w, and what comes after it, until ctx ends; then it copies what is still there. It closes the reader.
func Follow(ctx context.Context, r *LogReader, w io.Writer) error {
	defer func() { _ = r.Close() }() // it was only read
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		ending := ctx.Err() != nil
		r.follow = !ending
		if err := r.copy(w); err != nil || ending {
			return err
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// Copy copies what a reader has to w, and closes the reader.
func Copy(r *LogReader, w io.Writer) error {
	defer func() { _ = r.Close() }() // it was only read
	return r.copy(w)
}

func (r *LogReader) copy(w io.Writer) error {
	for {
		line, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			_, err = w.Write(line)
		}
		if err != nil {
			return err
		}
	}
}
