package lake

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/apache/iceberg-go/table"
)

// Sweep removes the table's files that no kept snapshot refers to, that no Pending of this process holds, and that were last
// changed at least olderThan ago: what a crash, an abandoned batch or an expired snapshot left. It returns how many it removed.
//
// With olderThan 0 the caller must be the table's only writer, with no Commit under way, as a job is when it starts. Others may pin snapshots
// meanwhile.
func (t *Table) Sweep(ctx context.Context, olderThan time.Duration) (int, error) {
	if t.lake.cfg.ReadOnly {
		return 0, ErrReadOnly
	}
	removed, err := t.sweep(ctx, olderThan)
	t.lake.metrics.swept.Add(float64(removed))
	if err != nil {
		t.lake.metrics.upkeepErrors.WithLabelValues("sweep").Inc()
		return removed, fmt.Errorf("sweep table %s: %w", t.name, err)
	}
	if removed > 0 {
		t.lake.cfg.Logger.Info("swept unreferenced files", "table", t.name.String(), "files", removed)
	}
	return removed, nil
}

// The order of the steps matters: a file that is listed is either still pending when the pending ones are looked at, or its
// commit came before the state is read, or nobody will commit it.
func (t *Table) sweep(ctx context.Context, olderThan time.Duration) (int, error) {
	l := t.lake
	cutoff := l.cfg.Now().Add(-olderThan)
	var old []string
	err := l.fsys.walk(t.seen().Location(), func(location string, info fs.FileInfo) error {
		if olderThan <= 0 || !info.ModTime().After(cutoff) { // clocks of servers differ
			old = append(old, location)
		}
		return nil
	})
	if err != nil || len(old) == 0 {
		return 0, err
	}
	l.mu.Lock()
	keep := maps.Clone(l.pending)
	l.mu.Unlock()
	if err := t.load(ctx); err != nil {
		return 0, err
	}
	if err := referenced(t.seen(), l.fsys, keep); err != nil {
		return 0, err
	}
	spared := func(location string) bool { _, ok := keep[known(location)]; return ok }
	if old = slices.DeleteFunc(old, spared); len(old) > 0 && olderThan < l.catalog.inFlight() {
		// A commit may be on its way: of a process that has ended, in the catalogue's server, or of one that pins a snapshot, which has written
		// its metadata and not made it the table's yet. It is refused from here on, or the files are found to be its.
		err := t.edit(ctx, "sweep", func(tbl *table.Table) ([]table.Requirement, []table.Update, error) {
			updates, err := l.catalog.claimed(tbl)
			return nil, updates, err
		})
		if err != nil {
			return 0, err
		}
		if err := referenced(t.seen(), l.fsys, keep); err != nil {
			return 0, err
		}
	}
	removed := 0
	for _, location := range old {
		if spared(location) {
			continue
		}
		if err := l.fsys.Remove(location); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}

// known is what a file is recognised by. The name of a metadata file has a UUID, and its location is the words of the program that wrote
// it, which may be a catalogue's: file:/x, or s3a://x. Beside one on the local disk Hadoop has its checksum, .name.crc.
func known(location string) string {
	if name, ok := strings.CutSuffix(path.Base(location), ".metadata.json.crc"); ok {
		return strings.TrimPrefix(name, ".") + ".metadata.json"
	}
	if strings.HasSuffix(location, ".metadata.json") {
		return path.Base(location)
	}
	return location
}

// referenced adds what all files that tbl refers to are recognised by.
func referenced(tbl *table.Table, fsys fileSystem, files map[string]struct{}) error {
	files[known(tbl.MetadataLocation())] = struct{}{}
	for m := range tbl.Metadata().PreviousFiles() {
		files[known(m.MetadataFile)] = struct{}{}
	}
	for _, s := range tbl.Metadata().Snapshots() {
		files[s.ManifestList] = struct{}{}
		manifests, err := s.Manifests(fsys)
		if err != nil {
			return err
		}
		for _, m := range manifests {
			if _, done := files[m.FilePath()]; done {
				continue
			}
			files[m.FilePath()] = struct{}{}
			for entry, err := range m.Entries(fsys, true) {
				if err != nil {
					return err
				}
				files[entry.DataFile().FilePath()] = struct{}{}
			}
		}
	}
	return nil
}

// expire drops snapshots in bulk when there are twice as many as are kept: so the state that each commit reads and writes stays small, and the
// price is paid once in many commits. The commit before it is done, so a failure is only logged; the next commit tries again.
func (t *Table) expire(ctx context.Context) {
	if upkeepOf(t.seen()).Snapshots < 2*t.lake.cfg.KeepSnapshots {
		return
	}
	if err := t.dropSnapshots(ctx); err != nil {
		t.lake.cfg.Logger.Warn("snapshots not expired", "table", t.name.String(), "error", err)
	}
}

// Expire drops all snapshots but the newest Config.KeepSnapshots of a table to which nothing has been committed for Config.KeepFor, and removes what
// only they held. A commit does so by itself, but only once there are twice as many, which a table that is not written any more would keep. It
// costs nothing when there is nothing to drop. The error matches ErrFenced when a later lineage has claimed the table.
func (t *Table) Expire(ctx context.Context) error {
	cfg := t.lake.cfg
	if cfg.ReadOnly {
		return ErrReadOnly
	}
	current := t.seen().CurrentSnapshot()
	if current == nil || current.TimestampMs > cfg.Now().Add(-cfg.KeepFor).UnixMilli() || upkeepOf(t.seen()).Snapshots <= cfg.KeepSnapshots {
		return nil
	}
	if err := t.dropSnapshots(ctx); err != nil {
		return fmt.Errorf("expire snapshots of table %s: %w", t.name, err)
	}
	return nil
}

// dropSnapshots drops those that are neither retained nor held by a tag, and sweeps what they held.
func (t *Table) dropSnapshots(ctx context.Context) error {
	cfg := t.lake.cfg
	before, after := 0, 0
	err := t.change(ctx, "expire snapshots", func(tbl *table.Table) (*table.Transaction, error) {
		if err := t.fence(tbl); err != nil {
			return nil, err
		}
		before = len(tbl.Metadata().Snapshots())
		after = before
		tx := tbl.NewTransaction()
		err := tx.ExpireSnapshots(table.WithRetainLast(t.retained(tbl)), table.WithOlderThan(cfg.KeepFor), table.WithPostCommit(false))
		if err != nil {
			return nil, err
		}
		staged, err := tx.StagedTable()
		if err != nil {
			return nil, err
		}
		if after = len(staged.Metadata().Snapshots()); after == before {
			return nil, nil
		}
		return tx, nil
	})
	if err != nil {
		t.lake.metrics.upkeepErrors.WithLabelValues("expire").Inc()
		return err
	}
	if after == before {
		return nil // all are held, and no file has lost its last snapshot
	}
	t.lake.metrics.expired.Add(float64(before - after))
	_, err = t.Sweep(ctx, cfg.KeepFor)
	return err
}

// retained is how many of the newest snapshots stay whatever their age: those down to the one that was the newest Config.KeepFor ago, on
// which a reader may have begun since, and Config.KeepSnapshots at least.
func (t *Table) retained(tbl *table.Table) int {
	cutoff := t.lake.cfg.Now().Add(-t.lake.cfg.KeepFor).UnixMilli()
	newest := int64(0) // then
	for e := range tbl.Metadata().SnapshotLogs() {
		if e.TimestampMs <= cutoff {
			newest = e.SnapshotID
		}
	}
	lookup := func(id int64) *table.Snapshot { return tbl.SnapshotByID(id) }
	for i, s := range table.AncestorsOf(tbl.CurrentSnapshot().SnapshotID, lookup) {
		if s.SnapshotID == newest {
			return max(t.lake.cfg.KeepSnapshots, i+1)
		}
	}
	return t.lake.cfg.KeepSnapshots
}
