package lake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/apache/iceberg-go"

	"millrace/plan"
)

// Snapshot is a state of a table as the files that hold it, for engines that read Parquet by themselves. Files of data with the rows that
// no correction voids are the table: a correction in Deletes voids the rows with its _id in files of a lower sequence number, and
// in no others.
//
// The files stay for Config.KeepFor after another snapshot has taken its place.
type Snapshot struct {
	Table   Name
	ID      int64 // 0 when nothing has been committed
	Columns []SnapshotColumn
	Data    []SnapshotFile
	Deletes []SnapshotFile // of one column, _id
}

// SnapshotColumn is a column of a snapshot. Files have it by its ID; one that is older than the column has it not, and all its values
// there are null.
type SnapshotColumn struct {
	plan.Column

	ID int
}

// SnapshotFile is a file of a snapshot.
type SnapshotFile struct {
	Path     string // of a local file; else its URL
	Rows     int64  // before corrections
	Bytes    int64
	Sequence int64

	location string
}

// Snapshot returns the table's newest snapshot.
func (t *Table) Snapshot(ctx context.Context) (*Snapshot, error) {
	if err := t.load(ctx); err != nil {
		return nil, err
	}
	tbl := t.seen()
	s := &Snapshot{Table: t.name}
	id := 0
	for _, f := range tbl.Schema().Fields() {
		kind := planType(f.Type)
		if kind == 0 {
			return nil, fmt.Errorf("column %s of table %s has the type %s, which no table of millrace has", f.Name, t.name, f.Type)
		}
		s.Columns = append(s.Columns, SnapshotColumn{plan.Column{Name: f.Name, Type: kind, Nullable: !f.Required, Doc: f.Doc}, f.ID})
		if f.Name == "_id" {
			id = f.ID
		}
	}
	current := tbl.CurrentSnapshot()
	if current == nil {
		return s, nil
	}
	s.ID = current.SnapshotID
	manifests, err := current.Manifests(t.lake.fsys)
	if err != nil {
		return nil, t.readError("list the files of", err)
	}
	for _, m := range manifests {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		for entry, err := range m.Entries(t.lake.fsys, true) {
			if err != nil {
				return nil, t.readError("list the files of", err)
			}
			f := entry.DataFile()
			file := SnapshotFile{
				Path: t.lake.fsys.readable(f.FilePath()), Rows: f.Count(), Bytes: f.FileSizeBytes(), Sequence: entry.SequenceNum(), location: f.FilePath(),
			}
			switch {
			case f.FileFormat() != iceberg.ParquetFile:
				return nil, fmt.Errorf("%s of table %s is no Parquet file: another program has written to the table", file.Path, t.name)
			case f.ContentType() == iceberg.EntryContentData:
				s.Data = append(s.Data, file)
			case f.ContentType() == iceberg.EntryContentEqDeletes && slices.Equal(f.EqualityFieldIDs(), []int{id}):
				s.Deletes = append(s.Deletes, file)
			default:
				return nil, fmt.Errorf("%s of table %s holds corrections by something else than _id: another program has written to the table", file.Path, t.name)
			}
		}
	}
	return s, nil
}

const copyBytes = 8 << 20 // of a file at once

// Local returns the path of a snapshot's file on this machine: its own, or that of a copy which it makes in dir.
func (l *Lake) Local(ctx context.Context, f SnapshotFile, dir string) (string, error) {
	info, err := l.fsys.Stat(f.location)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("%s is missing: restore the lake from a backup, or ask again if the snapshot is an old one: %w", f.Path, err)
	case err != nil:
		return "", err
	case info.Size() != f.Bytes:
		return "", fmt.Errorf("%s has %d bytes where %d bytes were written: restore the lake from a backup", f.Path, info.Size(), f.Bytes)
	}
	if _, ok := l.fsys.(*localFiles); ok {
		return f.Path, nil
	}
	in, err := l.fsys.Open(f.location)
	if err != nil {
		return "", err
	}
	defer func() { _ = in.Close() }() // it was only read
	to := filepath.Join(dir, path.Base(f.location))
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	buf := make([]byte, min(copyBytes, max(f.Bytes, 1)))
	for n := int64(0); err == nil && n < f.Bytes; n += int64(len(buf)) {
		if err = context.Cause(ctx); err != nil {
			break
		}
		buf = buf[:min(int64(len(buf)), f.Bytes-n)]
		if _, err = in.ReadAt(buf, n); errors.Is(err, io.EOF) {
			err = nil
		}
		if err == nil {
			_, err = out.Write(buf)
		}
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return "", fmt.Errorf("fetch %s: %w", f.Path, err)
	}
	return to, nil
}

// Metadata returns the table's newest metadata file, as Iceberg's specification has it, and its location, as other engines find it.
func (t *Table) Metadata(ctx context.Context) (location string, content []byte, err error) {
	if err := t.load(ctx); err != nil {
		return "", nil, err
	}
	location = t.seen().MetadataLocation()
	if content, err = t.lake.fsys.ReadFile(location); err != nil {
		return "", nil, t.readError("read the metadata of", err)
	}
	return location, content, nil
}
