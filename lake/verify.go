package lake

import (
	"context"
	"errors"

	"github.com/apache/iceberg-go"
)

// Verify reads every column of every file that the table's rows are in now, and of those with corrections to them. It returns an error for the
// first file that is not as it was written, and names it.
func (t *Table) Verify(ctx context.Context) error {
	if err := t.load(ctx); err != nil {
		return err
	}
	tbl := t.seen()
	tasks, err := t.planned(ctx, tbl.Scan())
	if err != nil {
		return err
	}
	verify := func(d iceberg.DataFile, columns []iceberg.NestedField) error {
		if err := t.lake.verify(ctx, d, columns); err != nil {
			return t.readError("verify", err)
		}
		return nil
	}
	deletes := map[string]struct{}{}
	for _, task := range tasks {
		if err := verify(task.File, tbl.Schema().Fields()); err != nil {
			return err
		}
		for _, d := range task.EqualityDeleteFiles {
			if _, done := deletes[d.FilePath()]; done {
				continue
			}
			deletes[d.FilePath()] = struct{}{}
			id, err := column(tbl, "_id")
			if err != nil {
				return err
			}
			if err := verify(d, []iceberg.NestedField{id}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *Lake) verify(ctx context.Context, d iceberg.DataFile, columns []iceberg.NestedField) error {
	file, err := l.openData(d)
	if err != nil {
		return err
	}
	all := make([]int, len(columns))
	for i := range all {
		all[i] = i
	}
	err = file.read(ctx, columns, 0, func(c *chunkReader) (bool, error) { return true, c.fetch(all) })
	if err == nil {
		err = file.load([]*span{file.index()})
	}
	return errors.Join(err, file.close())
}
