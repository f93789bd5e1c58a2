package lake

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"millrace/plan"
)

const (
	smallFile   = 64 << 20 // bytes; smaller files of a partition are joined
	targetFile  = 128 << 20
	largestFile = 256 << 20
	smallFiles  = 8  // of a partition, from which on they are joined; fewer are when there is enough in them for a file that is not small
	joinedShare = 4  // the largest file of what is joined is at most this part of it, unless that makes a file that is not small
	deleteFiles = 64 // of the table, from which on every file they apply to is written anew without the rows
)

// Compacted says what Compact did.
type Compacted struct {
	Removed int // data files
	Added   int // data files
	Deletes int // delete files that nothing needs any more
}

// Compact joins small data files, and when 64 or more files of corrections have gathered, applies them for good. After it the files
// of a partition have 64 to 256 MB, but for small ones that do not make up another one together. Each new file is one commit, made beside
// those of a writer: readers see the same rows before and after. What is replaced stays on disk until its snapshots expire.
func (t *Table) Compact(ctx context.Context) (Compacted, error) {
	var done Compacted
	if t.lake.cfg.ReadOnly {
		return done, ErrReadOnly
	}
	if t.columns == nil {
		return done, fmt.Errorf("compact table %s: it was opened by Lookup, for reading", t.name)
	}
	if err := t.load(ctx); err != nil {
		return done, err
	}
	start := t.lake.cfg.Now()
	tbl := t.seen()
	groups, err := t.compactable(ctx, tbl)
	if err == nil {
		for _, g := range groups {
			var added int
			if added, err = t.rewrite(ctx, tbl, g, nil, t.compactedNow); err != nil {
				break
			}
			done.Added += added
			done.Removed += len(g)
		}
	}
	if err == nil && len(groups) > 0 {
		done.Deletes, err = t.dropDeadDeletes(ctx)
	}
	m := t.lake.metrics
	m.compacted.Add(float64(done.Removed))
	if err != nil {
		m.upkeepErrors.WithLabelValues("compact").Inc()
		return done, fmt.Errorf("compact table %s: %w", t.name, err)
	}
	if done != (Compacted{}) {
		m.compactSeconds.Observe(t.lake.cfg.Now().Sub(start).Seconds())
		t.lake.cfg.Logger.Info("table compacted", "table", t.name.String(), "removed", done.Removed, "added", done.Added, "deletes", done.Deletes)
	}
	return done, nil
}

// compactable returns the files to rewrite: each group becomes one file.
func (t *Table) compactable(ctx context.Context, tbl *table.Table) ([][]table.FileScanTask, error) {
	tasks, err := t.planned(ctx, tbl.Scan())
	if err != nil {
		return nil, err
	}
	deletes := map[string]struct{}{}
	for _, task := range tasks {
		for _, d := range task.EqualityDeleteFiles {
			deletes[d.FilePath()] = struct{}{}
		}
	}
	apply := len(deletes) >= deleteFiles
	small := map[string][]table.FileScanTask{} // by partition
	forced := map[string]bool{}
	var groups [][]table.FileScanTask
	spec := tbl.Spec()
	for _, task := range tasks {
		if int(task.File.SpecID()) != spec.ID() {
			continue
		}
		key := fmt.Sprintf("%#v", task.File.Partition()) // a map prints in order of its keys; its texts are quoted, so no two partitions print alike
		corrected := apply && len(task.EqualityDeleteFiles) > 0
		switch {
		case task.File.FileSizeBytes() < smallFile:
			small[key] = append(small[key], task)
			forced[key] = forced[key] || corrected
		case corrected:
			groups = append(groups, []table.FileScanTask{task})
		}
	}
	for key, files := range small {
		groups = append(groups, joinable(files, forced[key])...)
	}
	for _, g := range groups {
		slices.SortFunc(g, func(a, b table.FileScanTask) int { return strings.Compare(a.File.FilePath(), b.File.FilePath()) })
	}
	slices.SortFunc(groups, func(a, b []table.FileScanTask) int {
		return strings.Compare(a[0].File.FilePath(), b[0].File.FilePath())
	})
	return groups, nil
}

// joinable divides the small files of a partition into groups, each of which makes a file that is neither small nor too large, but for the
// last one when there is not enough. Forced files are all in a group. Nothing is joined for little: a file that is more than a fourth of what
// would be joined, which does not make a full one, is left alone, so that a partition to which little comes is not written over and over.
// What is left alone is at most seven files, and one for each third by which the sum of those that are no larger grows up to a full file's.
func joinable(files []table.FileScanTask, forced bool) (groups [][]table.FileScanTask) {
	size := func(f table.FileScanTask) int64 { return f.File.FileSizeBytes() }
	total := int64(0)
	for _, f := range files {
		total += size(f)
	}
	if !forced && total < smallFile {
		slices.SortFunc(files, func(a, b table.FileScanTask) int {
			return cmp.Or(cmp.Compare(size(b), size(a)), strings.Compare(a.File.FilePath(), b.File.FilePath()))
		})
		for len(files) > 0 && size(files[0]) > total/joinedShare {
			total -= size(files[0])
			files = files[1:]
		}
		if len(files) < smallFiles {
			return nil
		}
	}
	var group []table.FileScanTask
	joined, rest := int64(0), total
	for _, f := range files {
		group = append(group, f)
		joined += size(f)
		rest -= size(f)
		if joined >= targetFile && rest >= smallFile { // what is left makes a file of its own; less goes with this one
			groups = append(groups, group)
			group, joined = nil, 0
		}
	}
	return append(groups, group)
}

// rewrite replaces files of one partition of tbl by files with the rows that are left of them; of those, the ones that keep wants, if it is
// not nil. What note returns for the table as it is then becomes part of its properties.
func (t *Table) rewrite(ctx context.Context, tbl *table.Table, tasks []table.FileScanTask, keep func(cells []plan.Cell) bool,
	note func(*table.Table) iceberg.Properties,
) (added int, err error) {
	p := &Pending{}
	defer func() { t.lake.release(p.locations) }()
	if err := t.copyRows(ctx, tbl, tasks, keep, p); err != nil {
		return 0, err
	}
	if err := t.lake.fsys.syncDirs(); err != nil {
		return 0, err
	}
	// The new files stand where the snapshot stood that they were read from: corrections that a writer commits meanwhile
	// come after them and apply.
	sequence := tbl.CurrentSnapshot().SequenceNumber
	return len(p.data), t.change(context.WithoutCancel(ctx), "compact", func(now *table.Table) (*table.Transaction, error) {
		if err := t.fence(now); err != nil {
			return nil, err
		}
		tx := now.NewTransaction()
		if err := tx.SetProperties(note(now)); err != nil {
			return nil, err
		}
		r := tx.NewRewrite(carried(now)).DataSequenceNumber(sequence)
		for _, task := range tasks {
			r.DeleteFile(task.File)
		}
		for _, f := range p.data {
			r.AddDataFile(f)
		}
		return tx, r.Commit(ctx)
	})
}

func (t *Table) compactedNow(*table.Table) iceberg.Properties {
	return iceberg.Properties{propCompacted: t.lake.cfg.Now().UTC().Format(time.RFC3339)}
}

// copyRows writes the rows that are left of tasks, and that keep wants, to new files.
func (t *Table) copyRows(ctx context.Context, tbl *table.Table, tasks []table.FileScanTask, keep func(cells []plan.Cell) bool, p *Pending) error {
	s, err := t.newScan(tasks, tbl.Schema().Fields())
	if err != nil {
		return err
	}
	columns := planColumns(tbl.Schema())
	spec := tbl.Spec()
	var partition []any
	for _, f := range spec.Fields() {
		v := tasks[0].File.Partition()[f.FieldID]
		if day, ok := v.(int32); ok {
			v = iceberg.Date(day)
		}
		partition = append(partition, v)
	}
	var w *dataWriter
	finish := func() error {
		f, err := w.finish(iceberg.EntryContentData, spec, partition, nil)
		w = nil
		if err == nil {
			p.data = append(p.data, f)
		}
		return err
	}
	all := make([]plan.Cell, len(columns))
	err = s.read(ctx, tasks, func(c *chunkReader, rows []int) (bool, error) {
		if keep != nil {
			if err := c.fetch(s.out); err != nil {
				return false, err
			}
			rows = slices.DeleteFunc(rows, func(row int) bool { return !keep(s.cells(c, row, all)) })
		}
		if len(rows) == 0 {
			return true, nil
		}
		if w == nil {
			file := t.lake.newFile(tbl.Location(), "data")
			p.locations = append(p.locations, file)
			if w, err = newDataWriter(t.lake, tbl, columns, file); err != nil {
				return false, err
			}
		}
		if err := c.copyTo(w, s.out, rows); err != nil {
			return false, err
		}
		if w.written() >= largestFile-2*rowGroupBytes { // what is in memory comes on top
			return true, finish()
		}
		return true, nil
	})
	switch {
	case w == nil:
		return err
	case err != nil:
		w.abandon()
		return err
	}
	return finish()
}

// Cell is a value of a Row as a cell of its column.
func Cell(v any) (plan.Cell, error) {
	switch v := v.(type) {
	case nil:
		return plan.Cell{Null: true}, nil
	case string:
		return plan.Cell{Bytes: []byte(v)}, nil
	case []byte:
		return plan.Cell{Bytes: v}, nil
	case int64:
		return plan.Cell{Int: v}, nil
	case float64:
		return plan.Cell{Float: v}, nil
	case bool:
		return plan.Cell{Bool: v}, nil
	case time.Time:
		return plan.Cell{Int: v.UnixMicro()}, nil
	case []string:
		list := make([][]byte, len(v))
		for i, s := range v {
			list[i] = []byte(s)
		}
		return plan.Cell{List: list}, nil
	}
	return plan.Cell{}, fmt.Errorf("value of type %T", v)
}

// dropDeadDeletes removes the delete files that apply to no data file any more: a delete applies to files with a lower
// sequence number.
func (t *Table) dropDeadDeletes(ctx context.Context) (dropped int, err error) {
	return dropped, t.change(context.WithoutCancel(ctx), "drop applied corrections", func(now *table.Table) (*table.Transaction, error) {
		dropped = 0
		if err := t.fence(now); err != nil {
			return nil, err
		}
		manifests, err := now.CurrentSnapshot().Manifests(t.lake.fsys)
		if err != nil {
			return nil, err
		}
		oldest := int64(math.MaxInt64)
		var deletes []iceberg.ManifestEntry
		for _, m := range manifests {
			for entry, err := range m.Entries(t.lake.fsys, true) {
				if err != nil {
					return nil, err
				}
				if m.ManifestContent() == iceberg.ManifestContentDeletes {
					deletes = append(deletes, entry)
				} else {
					oldest = min(oldest, entry.SequenceNum())
				}
			}
		}
		tx := now.NewTransaction()
		r := tx.NewRewrite(carried(now))
		for _, d := range deletes {
			if d.SequenceNum() <= oldest {
				r.DeleteFile(d.DataFile())
				dropped++
			}
		}
		if dropped == 0 {
			return nil, nil
		}
		return tx, r.Commit(ctx)
	})
}
