package engine

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"millrace/plan"
	"millrace/sink"
)

// Manifest is what a checkpoint or savepoint says about itself, in its checkpoint.json.
type Manifest struct {
	Format    int          `json:"format"`
	App       string       `json:"app"`
	Version   string       `json:"version"`
	Instance  string       `json:"instance"`
	KeyGroups int          `json:"key_groups"`
	Lineage   string       `json:"lineage"`
	Token     uint64       `json:"token"` // of the lineage, as the next
	Ancestors []sink.Point `json:"ancestors,omitempty"`
	Epoch     uint64       `json:"epoch"`
	Offsets   plan.Offsets `json:"offsets"`
	Stages    []string     `json:"stages"` // that have state
	Tables    []string     `json:"tables"`
	Made      time.Time    `json:"made"`
	Files     []File       `json:"files"`

	Plan plan.Description `json:"plan"` // that made it
}

// File is one file of a checkpoint, with the checksum of its first Bytes bytes. Links of outbox segments may be longer.
type File struct {
	Name  string `json:"name"` // relative to the checkpoint
	Bytes int64  `json:"bytes"`
	CRC   uint32 `json:"crc32c"`
}

const manifestName = "checkpoint.json"

// checksums remembers the checksums of state files that never change, by name.
type checksums map[string]uint32

// request is one to the engine's loop, which does it between two epochs.
type request struct {
	do   func() error
	done chan error
}

// Savepoint makes a savepoint in dir, which must not exist, at the next boundary of epochs. It holds state, unpublished
// rows and a manifest with checksums, shares unchanged files with the job by hard links where the file system can, and
// does not stop the job. A savepoint in Config.Savepoints is also made known to archives among the sinks, for which Savepoint
// waits: after an error of theirs the savepoint is there, and they are told again at the next start.
//
// It works while Run does; before it, when Run waits meanwhile; and after it, unless that failed: then it is of the last commit, and what
// sinks have published is in it.
func (e *Engine) Savepoint(ctx context.Context, dir string) error {
	err := e.savepoint(ctx, dir)
	if err == nil {
		err = e.keep(ctx)
	}
	if err != nil {
		err = fmt.Errorf("savepoint %s: %w", dir, err)
	}
	return err
}

// Copy makes in dir, which must not exist, the directory of a job that was killed at the next boundary of epochs: state and unpublished rows, in files of
// which those that never change are shared by hard links where the file system can. Nothing is read through, nobody is told, and it may be called
// while sinks are held. It works when Savepoint does.
func (e *Engine) Copy(ctx context.Context, dir string) error {
	if err := e.betweenEpochs(ctx, func() error { return e.copyTo(dir) }); err != nil {
		return fmt.Errorf("copy the job to %s: %w", dir, err)
	}
	return nil
}

func (e *Engine) copyTo(dir string) error {
	fs := e.c.FS
	if _, err := fs.Stat(dir); err == nil {
		return errors.New("it exists already")
	}
	if err := makeDir(fs, dir); err != nil {
		return err
	}
	if err := e.linkAll(dir); err != nil {
		return err
	}
	return syncDir(fs, dir)
}

func (e *Engine) savepoint(ctx context.Context, dir string) error {
	if err := makeDir(e.c.FS, e.c.FS.PathDir(dir)); err != nil {
		return err
	}
	return e.betweenEpochs(ctx, func() error { return e.checkpoint(dir) })
}

// betweenEpochs calls fn at the next boundary of epochs: in the engine's loop, or while there is none.
func (e *Engine) betweenEpochs(ctx context.Context, fn func() error) error {
	e.beginning.Lock()
	if !e.started.Load() {
		defer e.beginning.Unlock()
		return fn()
	}
	e.beginning.Unlock()
	r := &request{do: fn, done: make(chan error, 1)}
	select {
	case e.requests <- r:
		return <-r.done
	case <-e.stopped:
		if err := e.atRest(ctx); err != nil {
			return err
		}
		return fn()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func checkpointsDir(fs vfs.FS, dir string) string { return fs.PathJoin(dir, "checkpoints") }

func checkpointName(epoch uint64) string { return fmt.Sprintf("%016d", epoch) }

// periodicCheckpoint makes a checkpoint when one is due and there is something new, and removes the oldest.
func (e *Engine) periodicCheckpoint(now time.Time) error {
	if e.c.CheckpointEvery < 0 || now.Sub(e.checkpointed) < e.c.CheckpointEvery || e.rec.Epoch == e.checkpointAt {
		return nil
	}
	e.checkpointed, e.checkpointAt = now, e.rec.Epoch
	fs, dir := e.c.FS, checkpointsDir(e.c.FS, e.c.Dir)
	if err := makeDir(fs, dir); err != nil {
		return err
	}
	began := time.Now()
	if err := e.checkpoint(fs.PathJoin(dir, checkpointName(e.rec.Epoch))); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	e.c.Logger.Info("checkpoint", "epoch", e.rec.Epoch, "took", time.Since(began))
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	slices.Sort(names) // unfinished ones, tmp-…, come last
	var done []string
	for _, n := range names {
		if strings.HasPrefix(n, "tmp-") {
			err = errors.Join(err, fs.RemoveAll(fs.PathJoin(dir, n)))
		} else {
			done = append(done, n)
		}
	}
	for _, n := range done[:max(len(done)-e.c.CheckpointsKept, 0)] {
		err = errors.Join(err, fs.RemoveAll(fs.PathJoin(dir, n)))
	}
	if e.archive != nil {
		select {
		case e.archive.keeps <- nil:
		default: // it has not come to the last one yet
		}
	}
	return err
}

// checkpoint writes a checkpoint of the last commit to dir. It becomes visible, complete, by one rename.
func (e *Engine) checkpoint(dir string) error {
	began := time.Now()
	err := e.writeCheckpoint(dir)
	e.traceCheckpoint(began, err)
	if err != nil {
		e.metrics.checkpointFailures.Inc()
		return err
	}
	took := time.Since(began)
	e.metrics.checkpointSeconds.Observe(took.Seconds())
	e.mu.Lock()
	e.live.checkpointTime = took
	e.mu.Unlock()
	return nil
}

func (e *Engine) writeCheckpoint(dir string) error {
	fs := e.c.FS
	if _, err := fs.Stat(dir); err == nil {
		return fmt.Errorf("%s exists already", dir)
	}
	tmp := fs.PathJoin(fs.PathDir(dir), "tmp-"+fs.PathBase(dir))
	if err := fs.RemoveAll(tmp); err != nil {
		return err
	}
	if err := makeDir(fs, tmp); err != nil {
		return err
	}
	m := Manifest{
		Format: e.s.id.Format, App: e.s.id.App, Version: e.rec.Version, Instance: e.s.id.Instance, KeyGroups: e.s.id.KeyGroups,
		Lineage: e.rec.Lineage, Token: e.rec.Token, Ancestors: e.rec.Ancestors, Epoch: e.rec.Epoch, Offsets: e.rec.Offsets, Made: e.c.Now().UTC(),
		Plan: e.s.id.Plan,
	}
	for name, id := range e.s.id.Stages {
		holds, err := e.s.holds(id)
		if err != nil {
			return err
		}
		if holds {
			m.Stages = append(m.Stages, name)
		}
	}
	slices.Sort(m.Stages)
	for _, t := range e.c.Plan.Tables {
		m.Tables = append(m.Tables, t.Name)
	}
	if err := e.linkAll(tmp); err != nil {
		return err
	}
	for _, sub := range []string{"state", "outbox"} {
		names, err := fs.List(fs.PathJoin(tmp, sub))
		if err != nil {
			return err
		}
		slices.Sort(names)
		for _, name := range names {
			f, err := e.sums.file(fs, tmp, sub, name)
			if err != nil {
				return err
			}
			m.Files = append(m.Files, f)
		}
	}
	text, err := m.encode()
	if err != nil {
		return err
	}
	if err := writeFile(fs, fs.PathJoin(tmp, manifestName), text); err != nil {
		return err
	}
	if err := syncDir(fs, tmp); err != nil {
		return err
	}
	if err := fs.Rename(tmp, dir); err != nil {
		return err
	}
	return syncDir(fs, fs.PathDir(dir))
}

// linkAll puts state and outbox of the last commit into dir.
func (e *Engine) linkAll(dir string) error {
	fs := e.c.FS
	outbox := fs.PathJoin(dir, "outbox")
	if err := makeDir(fs, outbox); err != nil {
		return err
	}
	// Nothing is released meanwhile: the entries in the state's copy find their segments.
	e.outbox.mu.Lock()
	defer e.outbox.mu.Unlock()
	for _, n := range e.outbox.segments {
		if err := vfs.LinkOrCopy(fs, e.outbox.path(n), fs.PathJoin(outbox, segmentName(n))); err != nil {
			return err
		}
	}
	if err := syncDir(fs, outbox); err != nil {
		return err
	}
	if err := e.s.beginManifest(); err != nil {
		return err
	}
	return e.s.do(func() error { return e.s.db.Checkpoint(stateDir(fs, dir), pebble.WithFlushedWAL()) })
}

// file describes a file. The loop makes checkpoints, so a segment does not grow meanwhile.
func (c checksums) file(fs vfs.FS, dir, sub, name string) (File, error) {
	path := fs.PathJoin(dir, sub, name)
	info, err := fs.Stat(path)
	if err != nil {
		return File{}, err
	}
	f := File{Name: sub + "/" + name, Bytes: info.Size()}
	crc, known := c[name]
	if !known {
		if crc, err = checksum(fs, path, f.Bytes); err != nil {
			return File{}, err
		}
		if neverRewritten(name) {
			c[name] = crc
		}
	}
	f.CRC = crc
	return f, nil
}

// neverRewritten reports whether a file of the store is written once: Pebble's tables and blobs are.
func neverRewritten(name string) bool {
	return strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")
}

func checksum(fs vfs.FS, path string, n int64) (uint32, error) {
	f, err := fs.Open(path)
	if err != nil {
		return 0, err
	}
	h := crc32.New(castagnoli)
	_, err = io.CopyN(h, f, n)
	if err := errors.Join(err, f.Close()); err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	return h.Sum32(), nil
}

func writeFile(fs vfs.FS, path string, content []byte) error {
	f, err := fs.Create(path, "engine")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
