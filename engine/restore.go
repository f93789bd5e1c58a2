package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"millrace/plan"
)

// Restore makes the job directory dir, which must not exist, from the checkpoint or savepoint from, and begins a new
// lineage there, named after now. The checkpoint stays as it is. Every file is checked first; the error matches ErrDamaged
// when one is not what was written, as that of Verify does.
//
// Rows that the checkpoint's outbox holds are published again, to all sinks; sinks recognise them. A nil fs is the operating
// system's.
func Restore(fs vfs.FS, from, dir string, now time.Time) error {
	if fs == nil {
		fs = vfs.Default
	}
	err := finishRewind(fs, dir)
	if err == nil {
		if _, statErr := fs.Stat(dir); statErr == nil {
			err = errors.New("the directory exists already")
		}
	}
	if err == nil {
		err = restoreTo(fs, from, dir, dir, now, 0)
	}
	if err != nil {
		return fmt.Errorf("restore %s to %s: %w", from, dir, err)
	}
	return nil
}

// Rewind takes the job in dir, which must not run, back to a checkpoint or savepoint of its instance: it is Restore in its
// place. What was in dir is in dir.old afterwards, until the next Rewind. A crash leaves the one job or the other, and a half-made
// change is finished when the directory is opened. A nil fs is the operating system's.
func Rewind(fs vfs.FS, from, dir string, now time.Time) error {
	if fs == nil {
		fs = vfs.Default
	}
	if err := rewind(fs, from, dir, now); err != nil {
		return fmt.Errorf("take %s back to %s: %w", dir, from, err)
	}
	return nil
}

func rewind(fs vfs.FS, from, dir string, now time.Time) error {
	if err := finishRewind(fs, dir); err != nil {
		return err
	}
	token := uint64(0)
	if _, err := fs.Stat(dir); err == nil {
		id, rec, err := readRecord(fs, dir)
		var damaged *damageError
		switch {
		case errors.As(err, &damaged): // one reason to go back; the clock alone says which lineage is later
		case err != nil:
			return err
		default:
			m, err := ReadManifest(fs, from)
			if err != nil {
				return damagedOr(fs, from, m, err)
			}
			if m.Instance != id.Instance {
				return fmt.Errorf("the savepoint is of instance %s and the job of %s", m.Instance, id.Instance)
			}
			token = rec.Token
		}
	}
	if err := fs.RemoveAll(dir + oldSuffix); err != nil {
		return err
	}
	if err := restoreTo(fs, from, dir, dir+nextSuffix, now, token); err != nil {
		return err
	}
	return finishRewind(fs, dir)
}

func damagedOr(fs vfs.FS, from string, m Manifest, err error) error {
	if errors.Is(err, ErrDamaged) {
		err = fmt.Errorf("%w; %s", err, offer(fs, from, m))
	}
	return err
}

// The directory that a job is to have, from the moment on that it is whole, and the one that it had.
const (
	nextSuffix = ".next"
	oldSuffix  = ".old"
)

// finishRewind puts the job directory into its place that a rewind has made.
func finishRewind(fs vfs.FS, dir string) error {
	if _, err := fs.Stat(dir + nextSuffix); err != nil {
		return nil //nolint:nilerr // there is none
	}
	if _, err := fs.Stat(dir); err == nil {
		if err := fs.Rename(dir, dir+oldSuffix); err != nil {
			return err
		}
		if err := syncDir(fs, fs.PathDir(dir)); err != nil {
			return err
		}
	}
	if err := fs.Rename(dir+nextSuffix, dir); err != nil {
		return err
	}
	return syncDir(fs, fs.PathDir(dir))
}

// restoreTo makes target, which becomes visible, complete, by one rename. It is put together in tmp-<dir>.
func restoreTo(fs vfs.FS, from, dir, target string, now time.Time, token uint64) error {
	m, err := Verify(fs, from)
	if err != nil {
		return err
	}
	if err := makeDir(fs, fs.PathDir(dir)); err != nil {
		return err
	}
	tmp := fs.PathJoin(fs.PathDir(dir), "tmp-"+fs.PathBase(dir))
	if err := errors.Join(fs.RemoveAll(tmp), copyCheckpoint(fs, m, from, tmp)); err != nil {
		return err
	}
	if err := beginLineage(Config{FS: fs, Dir: tmp}.withDefaults(), m, now, token); err != nil {
		return err
	}
	if err := syncDir(fs, tmp); err != nil {
		return err
	}
	if err := fs.Rename(tmp, target); err != nil {
		return err
	}
	return syncDir(fs, fs.PathDir(dir))
}

func copyCheckpoint(fs vfs.FS, m Manifest, from, dir string) error {
	for _, d := range []string{dir, fs.PathJoin(dir, "outbox"), stateDir(fs, dir)} {
		if err := makeDir(fs, d); err != nil {
			return err
		}
	}
	for _, f := range m.Files {
		// Tables, blobs and segments are never written again. Pebble does write to its other files, so they are copied.
		put := vfs.Copy
		if neverRewritten(f.Name) || strings.HasPrefix(f.Name, "outbox/") {
			put = vfs.LinkOrCopy
		}
		if err := put(fs, fs.PathJoin(from, f.Name), fs.PathJoin(dir, f.Name)); err != nil {
			return err
		}
	}
	return errors.Join(syncDir(fs, fs.PathJoin(dir, "outbox")), syncDir(fs, stateDir(fs, dir)))
}

// beginLineage forks the history of the job in Config.Dir. Sinks go back to the position of the one that was furthest behind: what
// one of them has to restore from another one's target may be that old.
func beginLineage(c Config, m Manifest, now time.Time, token uint64) error {
	s := &state{fault: newFault(c.Dir)}
	var err error
	if s.db, err = openDB(c, s.fault, false); err != nil {
		return err
	}
	err = s.guard(c.Dir, func() error {
		// Before the first epoch there is no record. What the lineage made after that is not the new one's either.
		rec := epochRecord{Lineage: m.Lineage, Token: m.Token}
		if _, err := s.getJSON(keyEpoch, &rec); err != nil {
			return err
		}
		token := newToken(now, max(rec.Token, token))
		forked := rec.history().Fork(rec.Epoch, newLineage(token), token)
		rec.Lineage, rec.Token, rec.Ancestors = forked.ID, forked.Token, forked.Ancestors
		b := s.db.NewBatch()
		if err := setJSON(b, keyEpoch, rec); err != nil {
			return err
		}
		if err := s.levelSinks(b); err != nil {
			return err
		}
		return s.commit(b)
	})
	return errors.Join(err, s.close())
}

// levelSinks gives all sinks the lowest of their positions.
func (s *state) levelSinks(b *pebble.Batch) error {
	all := map[string]position{}
	var lowest *position
	err := s.scan([]byte{kindSink}, func(k, v []byte) error {
		var p position
		if err := json.Unmarshal(v, &p); err != nil {
			return fmt.Errorf("read position of sink %s: %w", k[1:], err)
		}
		all[string(k[1:])] = p
		if lowest == nil || p.Epoch < lowest.Epoch {
			lowest = &p
		}
		return nil
	})
	for name, p := range all {
		err = errors.Join(err, setJSON(b, sinkKey(name), position{Epoch: lowest.Epoch, Offsets: lowest.Offsets, Refused: max(p.Refused, p.Epoch)}))
	}
	return err
}

// readRecord reads whose job a directory holds and its last commit.
func readRecord(fs vfs.FS, dir string) (id identity, rec epochRecord, err error) {
	s := &state{fault: newFault(dir)}
	if s.db, err = openDB(Config{FS: fs, Dir: dir}.withDefaults(), s.fault, true); err != nil {
		return id, rec, err
	}
	err = s.guard(dir, func() error {
		found, err := s.getJSON(keyIdentity, &id)
		if err == nil && !found {
			err = &damageError{dir, errors.New("it does not say whose it is any more")}
		}
		if err == nil {
			_, err = s.getJSON(keyEpoch, &rec)
		}
		return err
	})
	return id, rec, errors.Join(err, s.close())
}

// ReadProgress reads the committed progress of a job that is not running from its directory, and changes nothing there.
// A nil fs is the operating system's.
func ReadProgress(fs vfs.FS, dir string) (Progress, error) {
	c := Config{FS: fs, Dir: dir}.withDefaults()
	if _, err := c.FS.Stat(dir + nextSuffix); err == nil {
		c.Dir = dir + nextSuffix // a rewind that opening finishes
		dir = c.Dir
	}
	if _, err := c.FS.Stat(stateDir(c.FS, dir)); err != nil {
		return Progress{}, fmt.Errorf("%s is not a job's directory: %w", dir, err)
	}
	s := &state{fault: newFault(c.Dir)}
	var err error
	if s.db, err = openDB(c, s.fault, true); err != nil {
		return Progress{}, err
	}
	p, err := s.readProgress(c)
	return p, errors.Join(err, s.close())
}

func (s *state) readProgress(c Config) (Progress, error) {
	if found, err := s.getJSON(keyIdentity, &s.id); err != nil || !found {
		return Progress{}, errors.Join(err, fmt.Errorf("%s holds no job's state", c.Dir))
	}
	if err := checkFormat("job directory", c.Dir, s.id.Format); err != nil {
		return Progress{}, err
	}
	var rec epochRecord
	if _, err := s.getJSON(keyEpoch, &rec); err != nil {
		return Progress{}, err
	}
	counters, err := s.counters()
	if err != nil {
		return Progress{}, err
	}
	entries, err := readEntries(s)
	if err != nil {
		return Progress{}, err
	}
	p := rec.progress()
	p.App, p.Instance, p.Counters = s.id.App, s.id.Instance, counters
	p.Stages = stageProgress(s.id.Stages, rec.Sizes)
	p.StateBytes = int64(s.db.Metrics().DiskSpaceUsage())
	lowest := uint64(1<<64 - 1)
	err = s.scan([]byte{kindSink}, func(k, v []byte) error {
		var pos position
		if err := json.Unmarshal(v, &pos); err != nil {
			return fmt.Errorf("read position of sink %s: %w", k[1:], err)
		}
		sp := SinkProgress{Name: string(k[1:]), Epoch: pos.Epoch, Rejected: rec.Rejected[string(k[1:])]}
		sp.add(entriesAfter(entries, pos.Epoch))
		p.Sinks = append(p.Sinks, sp)
		lowest = min(lowest, pos.Epoch)
		return nil
	})
	for _, e := range entriesAfter(entries, lowest) {
		p.OutboxBytes += e.Bytes
	}
	timers, timersErr := openTimers(s, slices.Collect(maps.Values(s.id.Stages)))
	if timersErr == nil {
		p.NextTimer = timers.next(plan.ProcessingTime)
	}
	return p, errors.Join(err, timersErr)
}
