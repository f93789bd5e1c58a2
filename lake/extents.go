package lake

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"golang.org/x/sync/errgroup"
)

// cachedFiles is how many data files, of all tables, an open lake keeps the extents of. They take about 100 bytes each.
const cachedFiles = 200_000

// extent is what a manifest says of a data file: how much it holds, and of what time.
type extent struct {
	records, bytes int64
	oldest, newest int64 // microseconds
	bounded        bool  // there are records at oldest and newest; else nothing is known but the day
}

// partition is where a data file of a raw table is.
type partition struct {
	sourceType, account, env string
	day                      int32
}

// manifestExtents is a manifest, decoded. A manifest never changes, so neither does this.
type manifestExtents struct {
	path    string
	files   int
	records int64
	parts   []partitionExtents
}

type partitionExtents struct {
	partition
	files []extent
}

// held is the data files of one snapshot.
type held struct {
	snapshot  int64
	manifests []*manifestExtents
}

// extents reads the manifests of the snapshot that t has seen. Those that were of the table when it was last asked are not read again.
func (t *Table) extents(ctx context.Context) (held, error) {
	tbl := t.seen()
	columns, err := t.partitionColumns(tbl)
	if err != nil {
		return held{}, err
	}
	snapshot := tbl.CurrentSnapshot()
	if snapshot == nil {
		return held{}, nil
	}
	manifests, err := snapshot.Manifests(t.lake.fsys)
	if err != nil {
		return held{}, t.readError("read the manifests of", err)
	}
	h := held{snapshot: snapshot.SnapshotID, manifests: make([]*manifestExtents, len(manifests))}
	steps := manifestSteps{columns: columns}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, m := range manifests {
		if h.manifests[i] = t.lake.extents.find(t.name, m.FilePath()); h.manifests[i] != nil {
			continue
		}
		group.Go(func() (err error) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			h.manifests[i], err = steps.read(t.lake.fsys, m)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return held{}, t.readError("read the manifests of", err)
	}
	t.lake.extents.keep(t.name, h.manifests)
	return h, nil
}

// partitionColumns are the ids under which manifests keep what a file's extent is made of.
type partitionColumns struct {
	spec                          int32
	sourceType, account, env, day int // partition fields
	time                          int // the column whose day it is
}

func (t *Table) partitionColumns(tbl *table.Table) (partitionColumns, error) {
	spec := tbl.Spec()
	c := partitionColumns{spec: int32(spec.ID())} //nolint:gosec // iceberg-go's ids of specs are small
	for _, f := range spec.Fields() {
		switch column, _ := tbl.Schema().FindFieldByID(f.SourceID()); {
		case f.Transform.Equals(iceberg.DayTransform{}):
			c.day, c.time = f.FieldID, f.SourceID()
		case !f.Transform.Equals(iceberg.IdentityTransform{}):
		case column.Name == "source_type":
			c.sourceType = f.FieldID
		case column.Name == "account":
			c.account = f.FieldID
		case column.Name == "env":
			c.env = f.FieldID
		}
	}
	if c.sourceType == 0 || c.account == 0 || c.env == 0 || c.day == 0 {
		return c, fmt.Errorf("table %s is not partitioned by source_type, account, env and day, so its manifests do not say what it holds of each", t.name)
	}
	return c, nil
}

// read decodes a manifest.
func (s *manifestSteps) read(fsys fileSystem, m iceberg.ManifestFile) (*manifestExtents, error) {
	name := fsys.readable(m.FilePath())
	if m.ManifestContent() == iceberg.ManifestContentDeletes {
		return nil, errors.New("it has corrections, and how many records these leave is not in a manifest")
	}
	if m.PartitionSpecID() != s.columns.spec {
		return nil, fmt.Errorf("manifest %s is of another partitioning: rewrite its files under the present one", name)
	}
	content, err := fsys.ReadFile(m.FilePath())
	if err != nil {
		return nil, err
	}
	out, err := s.decode(content)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", name, err)
	}
	// A manifest that was cut between two blocks looks whole.
	if files, rows := m.AddedDataFiles()+m.ExistingDataFiles(), m.AddedRows()+m.ExistingRows(); out.files != int(files) || out.records != rows {
		return nil, fmt.Errorf("manifest %s has %d records in %d files, and the snapshot says %d in %d", name, out.records, out.files, rows, files)
	}
	out.path = m.FilePath()
	return out, nil
}

// decode makes the extents of a manifest's content.
func (s *manifestSteps) decode(content []byte) (*manifestExtents, error) {
	r, err := s.open(content)
	if err != nil {
		return nil, err
	}
	defer r.close()
	out := &manifestExtents{}
	at := map[partition]int{}
	texts := map[string]string{}
	text := func(b []byte) string {
		s, ok := texts[string(b)]
		if !ok {
			s = string(b)
			texts[s] = s
		}
		return s
	}
	for {
		entry, err := r.next()
		if err != nil || entry == nil {
			return out, err
		}
		if entry.sourceType == nil || entry.account == nil || entry.env == nil || !entry.dated {
			return nil, errors.New("it has a file whose partition it does not name")
		}
		p := partition{text(entry.sourceType), text(entry.account), text(entry.env), entry.day}
		i, seen := at[p]
		if !seen {
			i = len(out.parts)
			at[p] = i
			out.parts = append(out.parts, partitionExtents{partition: p})
		}
		out.parts[i].files = append(out.parts[i].files, entry.extent())
		out.files++
		out.records += entry.records
	}
}

func (e *manifestEntry) extent() extent {
	x := extent{records: e.records, bytes: e.bytes}
	if x.bounded = len(e.lower) == 8 && len(e.upper) == 8; x.bounded {
		x.oldest, x.newest = int64(binary.LittleEndian.Uint64(e.lower)), int64(binary.LittleEndian.Uint64(e.upper)) //nolint:gosec // as it was written
	} else { // engines may leave them out
		x.oldest, x.newest = int64(e.day)*microsPerDay, (int64(e.day)+1)*microsPerDay-1
	}
	return x
}

// extentCache keeps the extents of the manifests of each table's newest snapshot that was asked for.
type extentCache struct {
	mu     sync.Mutex
	tables map[Name]map[string]*manifestExtents // by path
	files  int                                  // in all of them
}

// find returns a manifest's extents, nil when they are not kept.
func (c *extentCache) find(table Name, path string) *manifestExtents {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tables[table][path]
}

// keep puts the manifests of a table's snapshot in the place of those of an earlier one. What there is no room for is read again when it is
// asked for again.
func (c *extentCache) keep(table Name, manifests []*manifestExtents) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.tables[table] {
		c.files -= m.files
	}
	kept := make(map[string]*manifestExtents, len(manifests))
	for _, m := range manifests {
		if c.files+m.files > cachedFiles {
			continue
		}
		c.files += m.files
		kept[m.path] = m
	}
	c.tables[table] = kept
}
