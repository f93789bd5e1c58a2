// Package local runs jobs as processes of this machine, and keeps hold of them.
//
//	Supervisor.Start ──spawns──▶ executable … DIR ──▶ Serve: opens the job, answers on a socket
//	       │                                            ▲
//	    Process ──── run, end, savepoint, copy, hold, progress, metrics, close (HTTP over a Unix socket)
//
// The one idea: a process holds the lock of its job's folder from before it is there until it is gone. Its supervisor takes the lock and hands
// it down, so nobody can run the job a second time, whatever either of them is doing, and whoever gets the lock knows that the process has
// ended. Nothing rests on process ids, which the system gives out again.
//
// A supervisor that is started again finds the processes that are there: it adopts one that runs what it would start, and ends the others. A
// process whose log or index is in the process of its supervisor is tied to it: it ends when that does, as there is nothing it could read.
//
// What a process says, also what it says when it panics, is in the file log of its folder, which the process itself keeps from growing.
package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Files of a job's folder. They are of the process that runs, or ran last.
const (
	lockFile    = "lock"
	specFile    = "spec.json"    // what it was started with
	processFile = "process.json" // where it answers
	endFile     = "end.json"     // how it ended, unless it was killed
	socketName  = "socket"       // unless its name would be too long
	logName     = "log"          // what it said; log.1 is what it said before
)

// The files that a process is handed down, after the three of every process.
const (
	lockFD  = 3
	readyFD = 4 // it says here that it answers
	tieFD   = 5 // a pipe that ends when its supervisor does; something else for a process that is not tied
)

// LogFile is where the job of a folder says what it does. What does not fit there any more is in LogFile + ".1".
func LogFile(dir string) string { return filepath.Join(dir, logName) }

// whereabouts is where a process answers.
type whereabouts struct {
	PID    int    `json:"pid"`
	Socket string `json:"socket"`
}

// EndError is how a process ended that was not told to.
type EndError struct {
	Reason string `json:"error,omitempty"`

	// Final: it would end the same way again, so there is no use in starting it again.
	Final bool `json:"final,omitempty"`
}

func (e *EndError) Error() string { return e.Reason }

// Final marks an error of a job's Open or Run that would come again: the process is not started again by itself.
func Final(err error) error {
	if err == nil {
		return nil
	}
	return finalError{err}
}

type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

func readJSON(name string, v any) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// writeJSON replaces a file: whoever reads it finds the old or the new content. A crash of the machine may leave neither.
func writeJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err == nil {
		err = os.WriteFile(name+".tmp", append(b, '\n'), 0o600)
	}
	if err == nil {
		err = os.Rename(name+".tmp", name)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func remove(names ...string) error {
	var errs []error
	for _, name := range names {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
