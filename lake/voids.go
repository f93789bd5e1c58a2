package lake

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// voids are the ids that delete files name. Each file is read once, when the first data file that it applies to is.
type voids struct {
	table *Table
	id    iceberg.NestedField
	files map[string]int32 // location → number
	ids   map[string]int32 // id → its newest void
	voids []void
}

// void says that a delete file names an id.
type void struct {
	file int32
	next int32 // of the same id; below 0 when there is none
}

// of returns what tells whether the row of an id is void in the file of a task; nil when no delete applies to it.
func (v *voids) of(ctx context.Context, task table.FileScanTask) (func(id []byte) bool, error) {
	if len(task.EqualityDeleteFiles) == 0 {
		return nil, nil
	}
	for _, d := range task.EqualityDeleteFiles {
		if _, ok := v.files[d.FilePath()]; ok {
			continue
		}
		if err := v.read(ctx, d, int32(len(v.files))); err != nil {
			return nil, err
		}
		v.files[d.FilePath()] = int32(len(v.files))
	}
	applies := make([]bool, len(v.files))
	for _, d := range task.EqualityDeleteFiles {
		applies[v.files[d.FilePath()]] = true
	}
	return func(id []byte) bool {
		at, ok := v.ids[string(id)]
		for ; ok && at >= 0; at = v.voids[at].next {
			if applies[v.voids[at].file] {
				return true
			}
		}
		return false
	}, nil
}

func (v *voids) read(ctx context.Context, d iceberg.DataFile, number int32) error {
	if !slices.Equal(d.EqualityFieldIDs(), []int{v.id.ID}) {
		return fmt.Errorf("file %s deletes by other columns than _id, which this program does not do", v.table.lake.fsys.readable(d.FilePath()))
	}
	file, err := v.table.lake.openData(d)
	if err != nil {
		return err
	}
	err = file.read(ctx, []iceberg.NestedField{v.id}, 0, func(c *chunkReader) (bool, error) {
		if err := c.fetch([]int{0}); err != nil {
			return false, err
		}
		for i := range c.Rows {
			id := string(c.Cells[0][i].Bytes)
			next, ok := v.ids[id]
			if !ok {
				next = -1
			}
			v.ids[id] = int32(len(v.voids))
			v.voids = append(v.voids, void{number, next})
		}
		return true, nil
	})
	return errors.Join(err, file.close())
}
