package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"millrace/plan"
)

// ReadManifest reads what the checkpoint or savepoint in dir says about itself. A nil fs is the operating system's.
func ReadManifest(fs vfs.FS, dir string) (Manifest, error) {
	if fs == nil {
		fs = vfs.Default
	}
	var m Manifest
	f, err := fs.Open(fs.PathJoin(dir, manifestName))
	if err != nil {
		return m, fmt.Errorf("%s is not a checkpoint: %w", dir, err)
	}
	text, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return m, fmt.Errorf("read checkpoint %s: %w", dir, err)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("read checkpoint %s: %w", dir, err)
	}
	if m.Format != stateFormat {
		return m, fmt.Errorf("checkpoint %s has format %d and this version of the engine reads format %d", dir, m.Format, stateFormat)
	}
	return m, nil
}

// Restore makes the job directory dir, which must not exist, from the checkpoint or savepoint from, and begins a new
// lineage there, named after now. The checkpoint stays as it is. Every file is checked against its checksum.
//
// Rows that the checkpoint's outbox holds are published again; sinks recognise them.
func Restore(fs vfs.FS, from, dir string, now time.Time) error {
	if fs == nil {
		fs = vfs.Default
	}
	m, err := ReadManifest(fs, from)
	if err != nil {
		return err
	}
	if _, err := fs.Stat(dir); err == nil {
		return fmt.Errorf("restore %s to %s: the directory exists already", from, dir)
	}
	tmp := fs.PathJoin(fs.PathDir(dir), "tmp-"+fs.PathBase(dir))
	if err := errors.Join(fs.RemoveAll(tmp), copyCheckpoint(fs, m, from, tmp)); err != nil {
		return fmt.Errorf("restore %s to %s: %w", from, dir, err)
	}
	if err := beginLineage(Config{FS: fs, Dir: tmp}.withDefaults(), now); err != nil {
		return fmt.Errorf("restore %s to %s: %w", from, dir, err)
	}
	if err := fs.Rename(tmp, dir); err != nil {
		return fmt.Errorf("restore %s to %s: %w", from, dir, err)
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
		if strings.Contains(f.Name, "..") {
			return fmt.Errorf("the manifest names a file outside: %s", f.Name)
		}
		src := fs.PathJoin(from, f.Name)
		crc, err := checksum(fs, src, f.Bytes)
		if err != nil {
			return err
		}
		if crc != f.CRC {
			return fmt.Errorf("%s is damaged: its checksum is not the manifest's", src)
		}
		// Tables, blobs and segments are never written again. Pebble does write to its other files, so they are copied.
		put := vfs.Copy
		if neverRewritten(f.Name) || strings.HasPrefix(f.Name, "outbox/") {
			put = vfs.LinkOrCopy
		}
		if err := put(fs, src, fs.PathJoin(dir, f.Name)); err != nil {
			return err
		}
	}
	return errors.Join(syncDir(fs, fs.PathJoin(dir, "outbox")), syncDir(fs, stateDir(fs, dir)))
}

func beginLineage(c Config, now time.Time) error {
	s := &state{fault: newFault()}
	var err error
	if s.db, err = openDB(c, s.fault, false); err != nil {
		return err
	}
	var rec epochRecord
	found, err := s.getJSON(keyEpoch, &rec)
	if err == nil && found {
		rec.Lineage = newLineage(now)
		b := s.db.NewBatch()
		if err = setJSON(b, keyEpoch, rec); err == nil {
			err = s.commit(b)
		}
	}
	return errors.Join(err, s.close())
}

// ReadProgress reads the committed progress of a job that is not running from its directory, and changes nothing there.
// A nil fs is the operating system's.
func ReadProgress(fs vfs.FS, dir string) (Progress, error) {
	c := Config{FS: fs, Dir: dir}.withDefaults()
	if _, err := c.FS.Stat(stateDir(c.FS, dir)); err != nil {
		return Progress{}, fmt.Errorf("%s is not a job's directory: %w", dir, err)
	}
	s := &state{fault: newFault()}
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
	if s.id.Format != stateFormat {
		return Progress{}, fmt.Errorf("job directory %s has format %d and this version of the engine reads format %d", c.Dir, s.id.Format, stateFormat)
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
