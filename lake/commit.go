package lake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"millrace/internal/retry"
	"millrace/plan"
)

// The keys of a snapshot's summary by which a commit is recognised. Snapshots of maintenance carry those of the snapshot
// before them on.
const (
	keyPrefix    = "millrace."
	keyLineage   = keyPrefix + "lineage"
	keyEpochFrom = keyPrefix + "epoch-from"
	keyEpochTo   = keyPrefix + "epoch-to"
	keyHeld      = keyPrefix + "held"    // JSON object: partition → offset up to which the namespace's tables hold everything
	keyOffsets   = keyPrefix + "offsets" // JSON object: partition → offset of the next record
)

// Position is what a commit holds: a run of epochs of one lineage, and how far in the log their records reach.
type Position struct {
	Lineage   string
	FromEpoch uint64
	ToEpoch   uint64
	Offsets   plan.Offsets // by partition, the offset of the first record that is not in the table

	// Held is how far all tables that the batch's rows go to hold everything once this one is committed, by partition: up to the batch, and with
	// the last of its commits to its end.
	Held plan.Offsets
}

func (p Position) summary() iceberg.Properties {
	return iceberg.Properties{
		keyLineage:   p.Lineage,
		keyEpochFrom: strconv.FormatUint(p.FromEpoch, 10),
		keyEpochTo:   strconv.FormatUint(p.ToEpoch, 10),
		keyOffsets:   offsetsText(p.Offsets),
		keyHeld:      offsetsText(p.Held),
	}
}

func offsetsText(o plan.Offsets) string {
	text, err := json.Marshal(o)
	if err != nil {
		panic(err) // a map of integers
	}
	return string(text)
}

// positionOf reads the position of the newest snapshot that has one.
func positionOf(tbl *table.Table) (Position, bool, error) {
	for s := tbl.CurrentSnapshot(); s != nil; {
		if s.Summary != nil && s.Summary.Properties[keyLineage] != "" {
			p, err := parsePosition(s.Summary.Properties)
			if err != nil {
				return Position{}, false, fmt.Errorf("summary of snapshot %d: %w", s.SnapshotID, err)
			}
			return p, true, nil
		}
		if s.ParentSnapshotID == nil {
			break
		}
		s = tbl.SnapshotByID(*s.ParentSnapshotID)
	}
	return Position{}, false, nil
}

func parsePosition(summary iceberg.Properties) (Position, error) {
	p := Position{Lineage: summary[keyLineage]}
	var errs [4]error
	p.FromEpoch, errs[0] = strconv.ParseUint(summary[keyEpochFrom], 10, 64)
	p.ToEpoch, errs[1] = strconv.ParseUint(summary[keyEpochTo], 10, 64)
	errs[2] = json.Unmarshal([]byte(summary[keyOffsets]), &p.Offsets)
	if held, ok := summary[keyHeld]; ok { // commits of before say nothing of it
		errs[3] = json.Unmarshal([]byte(held), &p.Held)
	}
	return p, errors.Join(errs[:]...)
}

// carried are the millrace keys of the current snapshot, for a snapshot of maintenance.
func carried(tbl *table.Table) iceberg.Properties {
	props := iceberg.Properties{}
	if s := tbl.CurrentSnapshot(); s != nil && s.Summary != nil {
		for k, v := range s.Summary.Properties {
			if strings.HasPrefix(k, keyPrefix) {
				props[k] = v
			}
		}
	}
	return props
}

// Published returns what the newest commit of the table holds; false when nothing has been committed.
func (t *Table) Published(ctx context.Context) (Position, bool, error) {
	if err := t.load(ctx); err != nil {
		return Position{}, false, err
	}
	p, ok, err := positionOf(t.seen())
	if err != nil {
		return Position{}, false, fmt.Errorf("read the position of table %s: %w", t.name, err)
	}
	return p, ok, nil
}

// Commit makes the rows of p visible in one snapshot that records pos. If the table already holds the epochs of pos,
// because an earlier try succeeded without telling, nothing changes, and the files of p are left to Sweep. The error matches
// ErrFenced when a later lineage has claimed the table.
//
// Another writer's commit in between is no error: the commit is tried again on top of it. Once begun a commit is finished
// also when ctx ends, because stopping half-way would leave its outcome unknown.
func (t *Table) Commit(ctx context.Context, p *Pending, pos Position) error {
	if t.lake.cfg.ReadOnly {
		return ErrReadOnly
	}
	if pos.Lineage == "" || pos.FromEpoch > pos.ToEpoch {
		return fmt.Errorf("commit to table %s: lineage %q, epochs %d to %d is no position", t.name, pos.Lineage, pos.FromEpoch, pos.ToEpoch)
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	start := t.lake.cfg.Now()
	known := false
	err := t.change(context.WithoutCancel(ctx), "commit", func(tbl *table.Table) (*table.Transaction, error) {
		if err := t.fence(tbl); err != nil {
			return nil, err
		}
		last, ok, err := positionOf(tbl)
		if err != nil {
			return nil, err
		}
		ok = ok && (last.Lineage == pos.Lineage || t.token() > 0) // what a claimed table holds is all of one history
		if known = ok && last.ToEpoch >= pos.ToEpoch; known || p.empty() {
			return nil, nil
		}
		if ok && last.ToEpoch >= pos.FromEpoch {
			return nil, fmt.Errorf("epochs %d to %d are partly in the table, which ends with %d: leave out those it has",
				pos.FromEpoch, pos.ToEpoch, last.ToEpoch)
		}
		if err := t.present(context.WithoutCancel(ctx), p); err != nil {
			return nil, err
		}
		tx := tbl.NewTransaction()
		if tbl.CurrentSnapshot() == nil {
			if err := tx.SetProperties(iceberg.Properties{
				propFirstLineage: pos.Lineage, propFirstEpoch: strconv.FormatUint(pos.FromEpoch, 10),
			}); err != nil {
				return nil, err
			}
		}
		if len(p.deletes) == 0 {
			return tx, tx.AddDataFiles(ctx, p.data, pos.summary(), table.WithoutDuplicateCheck(), table.WithoutAutoNameMapping())
		}
		return tx, tx.NewRowDelta(pos.summary()).AddRows(p.data...).AddDeletes(p.deletes...).Commit(ctx)
	})
	if err != nil {
		return err
	}
	t.lake.release(p.locations)
	outcome := "done"
	if known {
		outcome = "known"
	}
	t.lake.metrics.commits.WithLabelValues(outcome).Inc()
	t.lake.metrics.seconds.Observe(t.lake.cfg.Now().Sub(start).Seconds())
	t.expire(context.WithoutCancel(ctx))
	return nil
}

// present returns an error when a file of p is gone: swept, perhaps by a writer that has claimed the table since t looked at it.
func (t *Table) present(ctx context.Context, p *Pending) error {
	for _, f := range p.locations {
		_, err := t.lake.fsys.Stat(f)
		if err == nil {
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look for the files of the batch: %w", err)
		}
		if err := t.load(ctx); err != nil {
			return err
		}
		if err := t.fence(t.seen()); err != nil {
			return err
		}
		return fmt.Errorf("a file of the batch is gone, write the batch again: %w", err)
	}
	return nil
}

// change commits what prepare stages on the newest state of the table. When the table was changed by another writer
// meanwhile, or the outcome is unknown, it calls prepare again on the new state: prepare sees there what is done, and returns
// no transaction when nothing is left to do.
func (t *Table) change(ctx context.Context, what string, prepare func(*table.Table) (*table.Transaction, error)) error {
	return t.edit(ctx, what, func(tbl *table.Table) ([]table.Requirement, []table.Update, error) {
		tx, err := prepare(tbl)
		if err != nil || tx == nil {
			return nil, nil, err
		}
		if err := t.completeSummaries(tx); err != nil {
			return nil, nil, err
		}
		staged, err := tx.TableCommit()
		return staged.Requirements, staged.Updates, err
	})
}

// edit is change for what no transaction can stage. iceberg-go's own commit is not used: it would put what was staged on the
// state that another writer has left meanwhile, without asking whether it may still be there.
func (t *Table) edit(ctx context.Context, what string, prepare func(*table.Table) ([]table.Requirement, []table.Update, error)) error {
	first := true
	err := retry.Do(ctx, retry.Policy{Min: 10 * time.Millisecond, Max: time.Second, Attempts: 20}, func(ctx context.Context) error {
		if !first || t.seen() == nil {
			if err := t.load(ctx); err != nil {
				return retry.Permanent(err)
			}
		}
		first = false
		tbl := t.seen()
		requirements, updates, err := prepare(tbl)
		if err != nil {
			return retry.Permanent(err)
		}
		if len(updates) == 0 {
			return nil
		}
		meta, _, err := t.lake.catalog.CommitTable(ctx, t.name.identifier(), append(requirements, unchanged{tbl.Metadata()}), updates)
		if err == nil {
			t.removeMetadata(tbl.Metadata(), meta)
			if err = t.load(ctx); err != nil {
				return retry.Permanent(err)
			}
			return nil
		}
		// Worth another look if the table has moved: by another writer, or by this very commit.
		if loadErr := t.load(ctx); loadErr != nil {
			return retry.Permanent(errors.Join(err, loadErr))
		}
		if t.seen().MetadataLocation() != tbl.MetadataLocation() || errors.Is(err, table.ErrCommitFailed) {
			t.lake.metrics.conflicts.Inc()
			return err
		}
		return retry.Permanent(err)
	})
	if err != nil {
		return fmt.Errorf("%s to table %s: %w", what, t.name, err)
	}
	return nil
}

// unchanged is the requirement that the table is as it was when the commit was prepared. The catalogue checks it against the
// very state that its compare-and-set replaces, so what prepare saw, the claim above all, still holds when the commit does.
type unchanged struct{ since table.Metadata }

func (u unchanged) GetType() string { return "millrace-unchanged" }

func (u unchanged) Validate(now table.Metadata) error {
	if now == nil || !now.Equals(u.since) {
		return fmt.Errorf("%w: the table was changed by another writer", table.ErrCommitFailed)
	}
	return nil
}

// removeMetadata removes the metadata files that the newest no longer lists. What it leaves, Sweep finds.
func (t *Table) removeMetadata(before, after table.Metadata) {
	keep := map[string]struct{}{}
	for m := range after.PreviousFiles() {
		keep[m.MetadataFile] = struct{}{}
	}
	if c := before.SnapshotByName(claimRef); c != nil && after.SnapshotByID(c.SnapshotID) == nil {
		if err := t.lake.fsys.Remove(c.ManifestList); err != nil {
			t.lake.cfg.Logger.Debug("list of an old claim not removed", "file", c.ManifestList, "error", err)
		}
	}
	for m := range before.PreviousFiles() {
		if _, ok := keep[m.MetadataFile]; ok {
			continue
		}
		if err := t.lake.fsys.Remove(t.seen().Location() + "/metadata/" + path.Base(m.MetadataFile)); err != nil {
			t.lake.cfg.Logger.Debug("old metadata not removed", "file", m.MetadataFile, "error", err)
		}
	}
}
