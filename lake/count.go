package lake

import (
	"context"

	"github.com/apache/iceberg-go/table"
)

// File is a data file of a table.
type File struct {
	Path    string // of a local file; else its URL
	Rows    int64  // before corrections
	Bytes   int64
	Deletes int // files of corrections that apply to it

	location string
}

// Files lists the data files of the table's current snapshot.
func (t *Table) Files(ctx context.Context) ([]File, error) {
	if err := t.load(ctx); err != nil {
		return nil, err
	}
	tasks, err := t.planned(ctx, t.seen().Scan())
	if err != nil {
		return nil, err
	}
	files := make([]File, len(tasks))
	for i, task := range tasks {
		files[i] = t.file(task)
	}
	return files, nil
}

func (t *Table) file(task table.FileScanTask) File {
	location := task.File.FilePath()
	return File{
		Path: t.lake.fsys.readable(location), Rows: task.File.Count(), Bytes: task.File.FileSizeBytes(),
		Deletes: len(task.EqualityDeleteFiles), location: location,
	}
}

// Count returns the number of the table's rows after corrections. Files without corrections are counted from the manifests
// alone, of the others the ids are read.
func (t *Table) Count(ctx context.Context) (int64, error) {
	if err := t.load(ctx); err != nil {
		return 0, err
	}
	tasks, err := t.planned(ctx, t.seen().Scan())
	if err != nil {
		return 0, err
	}
	var n int64
	var corrected []table.FileScanTask
	for _, task := range tasks {
		if len(task.EqualityDeleteFiles) > 0 {
			corrected = append(corrected, task)
		} else {
			n += task.File.Count()
		}
	}
	s, err := t.newScan(corrected, nil)
	if err == nil {
		err = s.read(ctx, corrected, func(_ *chunkReader, rows []int) (bool, error) {
			n += int64(len(rows))
			return true, nil
		})
	}
	if err != nil {
		return 0, t.readError("count the rows of", err)
	}
	return n, nil
}
