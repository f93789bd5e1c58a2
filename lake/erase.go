package lake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"millrace/plan"
)

// propErased is how many rows of a table were erased.
const propErased = keyPrefix + "erased-rows"

// Erased says what Erase did.
type Erased struct {
	Rows      int64 // that are gone
	Files     int   // that held them, and were written anew without
	Snapshots int   // earlier ones, which held them too, and are gone
}

// Erase removes rows of a table that is only appended to for good, in place of a correction that hides them: files that hold such rows are written anew without, and all earlier
// snapshots go, with what only they refer to. So nobody can go back to before. A row's cells are in the order of Columns, and valid during the
// call. It does the same again, and finishes what an interrupted one has begun.
//
// The caller must be the only one who writes the table. It is an error that a snapshot is pinned: who reads it must end first.
func (t *Table) Erase(ctx context.Context, erased func(cells []plan.Cell) bool) (done Erased, err error) {
	if t.lake.cfg.ReadOnly {
		return done, ErrReadOnly
	}
	if err := t.load(ctx); err != nil {
		return done, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("erase rows of table %s: %w", t.name, err)
		}
	}()
	for name := range maps.Keys(refsOf(t.seen())) {
		if reader, ok := strings.CutPrefix(name, pinPrefix); ok {
			return done, fmt.Errorf("%s reads an earlier snapshot: wait until it has, or delete it", reader)
		}
	}
	tbl := t.seen()
	held, err := tokenOf(tbl)
	if err != nil {
		return done, err
	}
	t.mu.Lock()
	t.claim.Token = held // in the name of whose it is: a later claim ends this
	t.mu.Unlock()
	tasks, err := t.planned(ctx, tbl.Scan())
	if err != nil {
		return done, err
	}
	slices.SortFunc(tasks, func(a, b table.FileScanTask) int { return strings.Compare(a.File.FilePath(), b.File.FilePath()) })
	for _, task := range tasks {
		if len(task.EqualityDeleteFiles) > 0 {
			return done, errors.New("it has corrections; only tables that are appended to can be erased from")
		}
		rows, err := t.eraseFile(ctx, tbl, task, erased)
		if err != nil {
			return done, err
		}
		if rows > 0 {
			done.Rows += rows
			done.Files++
		}
	}
	done.Snapshots, err = t.forgetSnapshots(ctx)
	if err != nil {
		return done, err
	}
	_, err = t.sweep(ctx, 0)
	return done, err
}

// eraseFile writes a file anew if it holds rows to erase, and returns how many.
func (t *Table) eraseFile(ctx context.Context, tbl *table.Table, task table.FileScanTask, erased func(cells []plan.Cell) bool) (rows int64, err error) {
	s, err := t.newScan([]table.FileScanTask{task}, tbl.Schema().Fields())
	if err != nil {
		return 0, err
	}
	cells := make([]plan.Cell, len(s.out))
	errFound := errors.New("found")
	err = s.read(ctx, s.tasks, func(c *chunkReader, at []int) (bool, error) {
		if err := c.fetch(s.out); err != nil {
			return false, err
		}
		for _, row := range at {
			if erased(s.cells(c, row, cells)) {
				return false, errFound
			}
		}
		return true, nil
	})
	if !errors.Is(err, errFound) {
		return 0, err
	}
	keep := func(cells []plan.Cell) bool {
		if erased(cells) {
			rows++
			return false
		}
		return true
	}
	_, err = t.rewrite(ctx, tbl, []table.FileScanTask{task}, keep, func(now *table.Table) iceberg.Properties {
		return iceberg.Properties{propErased: strconv.FormatInt(erasedRows(now)+rows, 10)}
	})
	return rows, err
}

func erasedRows(tbl *table.Table) int64 {
	n, _ := strconv.ParseInt(tbl.Properties()[propErased], 10, 64) // 0 when it never was
	return n
}

// forgetSnapshots drops all snapshots but the newest, and the names by which they were kept.
func (t *Table) forgetSnapshots(ctx context.Context) (dropped int, err error) {
	err = t.edit(ctx, "forget the names of earlier snapshots", func(tbl *table.Table) (_ []table.Requirement, updates []table.Update, _ error) {
		for _, name := range slices.Sorted(maps.Keys(refsOf(tbl))) {
			if name != table.MainBranch && name != claimRef {
				updates = append(updates, table.NewRemoveSnapshotRefUpdate(name))
			}
		}
		return nil, updates, nil
	})
	if err != nil {
		return 0, err
	}
	return dropped, t.change(context.WithoutCancel(ctx), "expire all earlier snapshots", func(tbl *table.Table) (*table.Transaction, error) {
		dropped = max(upkeepOf(tbl).Snapshots-1, 0)
		if dropped == 0 {
			return nil, nil
		}
		tx := tbl.NewTransaction()
		return tx, tx.ExpireSnapshots(table.WithRetainLast(1), table.WithOlderThan(0), table.WithPostCommit(false))
	})
}

// refsOf are the branches and tags of a table.
func refsOf(tbl *table.Table) map[string]table.SnapshotRef {
	return maps.Collect(tbl.Metadata().Refs())
}
