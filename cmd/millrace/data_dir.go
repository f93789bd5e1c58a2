package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"millrace/control/local"
	"millrace/engine"
	"millrace/eventlog"
)

// dataFormat is the format of a data directory as a whole: which parts it has and where. The parts have formats of their own.
const dataFormat = 1

// indexFile is the file of the embedded index.
const indexFile = "index.duckdb"

// dataDir is the directory that holds everything one stack owns:
//
//	millrace.json    what directory this is: its format
//	lock             held by the process that uses it
//	running.json     where that process listens, and the token of who may command it
//	keys.db          sensor keys, tokens, instances
//	log/             the embedded broker's records
//	index.duckdb     the embedded index
//	lake/            catalogue and warehouse
//	jobs/<unique id>/  state and outbox of a job; <unique id>.old is the state before it was taken back
//	savepoints/<unique id>/<name>/  a savepoint of a job
//	backing-up/      while a backup is made: links to what goes into it
//	demo*            a demo: the simulator's key, its district, what it has sent
type dataDir struct {
	path string
	lock *os.File
	head dataDirHead
}

type dataDirHead struct {
	Format    int    `json:"format"`
	CreatedBy string `json:"created_by"`

	// Whether the jobs' log and index are embedded or elsewhere; empty until a stack first ran. What jobs have read and published is
	// there, so it stays so.
	Log   place `json:"log,omitempty"`
	Index place `json:"index,omitempty"`

	// Whether the tables go to topics of the log too. Topics that were begun later would lack rows, so it stays as it first was.
	TableTopics bool `json:"table_topics,omitempty"`

	// Unique ids of the jobs that have their directory. One that is gone is a loss.
	Jobs []string `json:"jobs,omitempty"`
}

// place says where a part of a stack is.
type place string

const (
	embedded place = "embedded"
	external place = "external"
)

// running is what running.json holds.
type running struct {
	PID    int    `json:"pid"`
	Listen string `json:"listen"`
	Log    string `json:"log"`
	Index  string `json:"index"`

	Security eventlog.Security `json:"security,omitzero"` // of the log
	Token    string            `json:"token"`             // of who may change what runs
}

var errInUse = errors.New("in use")

func dataDirFlag(cmd *cobra.Command) string {
	return cmd.Flag("data-dir").Value.String()
}

// openDataDir takes the directory for this process alone, and makes it when it does not exist.
func openDataDir(path string) (*dataDir, error) {
	d := &dataDir{path: path}
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, fmt.Errorf("data directory %s cannot be made: %w; choose another with --data-dir", path, cause(err))
	}
	lock, err := os.OpenFile(d.join("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory %s cannot be written: %w; mend that, or choose another with --data-dir", path, cause(err))
	}
	d.lock = lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close() // it was not ours
		return nil, fmt.Errorf("data directory %s is %w by another millrace%s; stop that one, or choose another with --data-dir", path, errInUse, d.owner())
	}
	if err := d.checkHead(true); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// jobsEnd is how long jobs may take to end that ran in a process of before.
const jobsEnd = 5 * time.Second

// openStillDataDir is openDataDir for what changes or copies files of jobs: none of them runs, also not one whose 'millrace serve' was killed.
func openStillDataDir(ctx context.Context, path string) (*dataDir, error) {
	d, err := openDataDir(path)
	if err != nil {
		return nil, err
	}
	if err := local.AwaitEnd(ctx, d.join(processesDir), jobsEnd); err != nil {
		return nil, errors.Join(fmt.Errorf("data directory %s: job %w; start 'millrace serve' as it was, which takes it over, stop that, and try again", path, err), d.Close())
	}
	return d, nil
}

// readDataDir opens an existing directory for reading, whether or not a process uses it.
func readDataDir(path string) (*dataDir, error) {
	d := &dataDir{path: path}
	if _, err := os.Stat(d.join("millrace.json")); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("data directory %s cannot be read: %w; mend that, or name another with --data-dir", path, cause(err))
		}
		why := fmt.Sprintf("it has no millrace.json (%s)", cause(err))
		if _, err := os.Stat(path); err != nil {
			why = cause(err).Error()
		}
		return nil, fmt.Errorf("%s is no data directory: %s; name one with --data-dir, or make one with 'millrace serve' or 'millrace demo'", path, why)
	}
	return d, d.checkHead(false)
}

func (d *dataDir) checkHead(create bool) error {
	name := d.join("millrace.json")
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && create {
		entries, err := os.ReadDir(d.path)
		if err != nil {
			return fmt.Errorf("read data directory %s: %w", d.path, cause(err))
		}
		for _, e := range entries {
			if e.Name() != "lock" && e.Name() != "millrace.json.tmp" { // a start that was killed had come so far
				return fmt.Errorf("%s holds %s and is no data directory; choose an empty or new one with --data-dir", d.path, e.Name())
			}
		}
		d.head = dataDirHead{Format: dataFormat, CreatedBy: version}
		return writeJSON(name, d.head)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, cause(err))
	}
	var head dataDirHead
	if err := json.Unmarshal(b, &head); err != nil {
		return fmt.Errorf("%s is damaged (%w); restore it from a backup: {\"format\":%d}", name, err, dataFormat)
	}
	if head.Format != dataFormat {
		return fmt.Errorf("data directory %s has format %d, this millrace (%s) reads format %d; use the version that made it, %s", d.path, head.Format, version, dataFormat, head.CreatedBy)
	}
	d.head = head
	return nil
}

// settle records where log and index are, the first time, and refuses another choice afterwards.
func (d *dataDir) settle(log, index place, tableTopics bool) error {
	for _, c := range []struct {
		what, flag string
		was, is    place
	}{{"log", "--brokers", d.head.Log, log}, {"index", "--index-url", d.head.Index, index}} {
		switch c.was {
		case "", c.is:
		case embedded:
			return usagef("data directory %s belongs to its embedded %s; leave %s out, or choose another with --data-dir", d.path, c.what, c.flag)
		default:
			return usagef("data directory %s belongs to another %s than the embedded one; give its address with %s, or choose another with --data-dir", d.path, c.what, c.flag)
		}
	}
	if d.head.Log != "" {
		if tableTopics && !d.head.TableTopics {
			return usagef("data directory %s was begun without table topics, and they would lack the rows that are there; leave --table-topics out, or choose another with --data-dir", d.path)
		}
		return nil
	}
	d.head.Log, d.head.Index, d.head.TableTopics = log, index, tableTopics
	return writeJSON(d.join("millrace.json"), d.head)
}

// part is something in a data directory that jobs rely on as soon as they have run.
type part struct {
	name, what string
	flag       string // of an address that takes the place of the part
}

// checkParts returns an error when a part is missing or empty though jobs have run. Made anew it would be empty, and what it held
// would be gone without a word: the parts are made before the jobs.
func (d *dataDir) checkParts(parts ...part) error {
	jobs, err := os.ReadDir(d.join("jobs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", d.join("jobs"), cause(err))
	}
	if len(jobs) == 0 && len(d.head.Jobs) == 0 {
		return nil
	}
	for _, p := range parts {
		info, err := os.Stat(d.join(p.name))
		if err == nil && info.Size() > 0 {
			continue
		}
		state := "empty"
		if err != nil {
			state = "missing"
		}
		instead := ""
		if p.flag != "" {
			instead = fmt.Sprintf(", or give %s again if the directory was used with it", p.flag)
		}
		return fmt.Errorf("%s, %s, is %s though jobs have run on it; restore the data directory from a backup%s", d.join(p.name), p.what, state, instead)
	}
	for _, id := range d.head.Jobs {
		if err := d.checkJob(id); err != nil {
			return err
		}
	}
	return nil
}

// checkJob returns an error when a job's state is missing or empty. Begun anew, the job could not take the place of the one that
// lake and index know.
func (d *dataDir) checkJob(id string) error {
	dir := d.join("jobs", id)
	for _, whole := range []string{dir, dir + ".next"} { // opening finishes a rewind
		if files, err := os.ReadDir(filepath.Join(whole, "state")); err == nil && len(files) > 0 {
			return nil
		}
	}
	state := "empty"
	if _, err := os.Stat(dir); err != nil {
		state = "missing"
	}
	instead := ""
	if kept, err := engine.ListCheckpoints(nil, d.join(savepointsDir, id)); err == nil && len(kept) > 0 {
		instead = ", or take the job back to a savepoint with 'millrace savepoint restore' ('millrace savepoint list' shows them)"
	}
	return fmt.Errorf("%s, the state of job %s, is %s though the job has run; restore the data directory from a backup%s", dir, id, state, instead)
}

// haveJobs notes that the jobs have their directories.
func (d *dataDir) haveJobs(ids ...string) error {
	if slices.Equal(d.head.Jobs, ids) {
		return nil
	}
	d.head.Jobs = ids
	return writeJSON(d.join("millrace.json"), d.head)
}

// forgetJob notes that a job's directory is to go.
func (d *dataDir) forgetJob(id string) error {
	return d.haveJobs(slices.DeleteFunc(slices.Clone(d.head.Jobs), func(have string) bool { return have == id })...)
}

func (d *dataDir) join(name ...string) string {
	return filepath.Join(append([]string{d.path}, name...)...)
}

// killed reports whether the process that used the directory last did not end by itself. It is asked before the directory is taken.
func (d *dataDir) killed() bool {
	_, err := os.Stat(d.join("running.json"))
	_, inUse := d.running()
	return err == nil && !inUse
}

// running returns where the process listens that uses the directory now; false when there is none.
func (d *dataDir) running() (running, bool) {
	var r running
	b, err := os.ReadFile(d.join("running.json"))
	if err != nil || json.Unmarshal(b, &r) != nil {
		return r, false
	}
	lock, err := os.Open(d.join("lock"))
	if err != nil {
		return r, false
	}
	defer func() { _ = lock.Close() }() // it was only read
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil {
		return r, false // nobody holds it: the file was left by a process that was killed
	}
	return r, true
}

func (d *dataDir) owner() string {
	var r running
	if b, err := os.ReadFile(d.join("running.json")); err == nil && json.Unmarshal(b, &r) == nil {
		return fmt.Sprintf(" (process %d, http://%s)", r.PID, r.Listen)
	}
	return ""
}

// Close gives the directory up.
func (d *dataDir) Close() error {
	if d.lock == nil {
		return nil
	}
	err := os.Remove(d.join("running.json"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, d.lock.Close())
}

// writeJSON replaces a file durably: whoever reads it finds the old or the new content.
func writeJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return writeFile(name, append(b, '\n'))
}

func writeFile(name string, b []byte) (err error) {
	tmp := name + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, cause(err))
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, cause(err))
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return fmt.Errorf("sync the directory of %s: %w", name, cause(err))
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// cause is what went wrong with a file, without the path that the sentence around it names.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
