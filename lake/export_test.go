package lake

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"millrace/plan"
)

// OpenWithFaults opens a lake whose file system asks fault before each change; see fileSystem.
func OpenWithFaults(ctx context.Context, cfg Config, fault func(op, path string) error) (*Lake, error) {
	cfg.fault = fault
	return Open(ctx, cfg)
}

// WithRowGroups is cfg with smaller row groups: a chunk of rows is one when bytes is 1.
func WithRowGroups(cfg Config, bytes int64) Config {
	cfg.rowGroup = bytes
	return cfg
}

// SplitFiles makes iceberg-go list the table's files a part at a time from that many bytes on, as it does from 128 MiB on.
func (t *Table) SplitFiles(ctx context.Context, bytes int64) error {
	return t.change(ctx, "split files", func(tbl *table.Table) (*table.Transaction, error) {
		tx := tbl.NewTransaction()
		return tx, tx.SetProperties(iceberg.Properties{table.ReadSplitTargetSizeKey: fmt.Sprint(bytes)})
	})
}

// Interrupt calls fn after each commit that the lake's catalogue has made; its error is what the writer is told.
func (l *Lake) Interrupt(fn func() error) { l.catalog = interrupted{l.catalog, fn} }

type interrupted struct {
	catalogue
	after func() error
}

func (c interrupted) CommitTable(ctx context.Context, name table.Identifier, reqs []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	meta, location, err := c.catalogue.CommitTable(ctx, name, reqs, updates)
	if err == nil {
		err = c.after()
	}
	return meta, location, err
}

// Entry is a data file in a manifest, without the file.
type Entry struct {
	SourceType, Account, Env string
	Oldest, Newest           time.Time // of one day
	Records, Bytes           int64
	Unbounded                bool // the manifest says nothing of Oldest and Newest but their day
}

// Enter commits entries to a raw table, with statistics like those of written files.
func (t *Table) Enter(ctx context.Context, pos Position, entries ...Entry) error {
	p := &Pending{}
	tbl := t.seen()
	spec, schema := tbl.Spec(), tbl.Schema()
	for i, e := range entries {
		values, logical := map[int]any{}, map[int]string{}
		var day int
		for _, f := range spec.Fields() {
			c, _ := schema.FindFieldByID(f.SourceID())
			switch c.Name {
			case "source_type":
				values[f.FieldID] = e.SourceType
			case "account":
				values[f.FieldID] = e.Account
			case "env":
				values[f.FieldID] = e.Env
			default:
				values[f.FieldID], logical[f.FieldID], day = iceberg.Date(dayOf(e.Oldest.UnixMicro())), "date", f.SourceID()
			}
		}
		path := fmt.Sprintf("%s/data/data-%012x%012x.parquet", tbl.Location(), pos.ToEpoch, i)
		b, err := iceberg.NewDataFileBuilder(spec, iceberg.EntryContentData, path, iceberg.ParquetFile, values, logical, nil, e.Records, e.Bytes)
		if err != nil {
			return err
		}
		counts, nulls, sizes := map[int]int64{}, map[int]int64{}, map[int]int64{}
		lower, upper := map[int][]byte{}, map[int][]byte{}
		for _, f := range schema.Fields() {
			counts[f.ID], nulls[f.ID], sizes[f.ID] = e.Records, 0, e.Bytes/int64(schema.NumFields())
			switch planType(f.Type) {
			case plan.Timestamp, plan.Long:
				lower[f.ID] = binary.LittleEndian.AppendUint64(nil, uint64(e.Oldest.UnixMicro()))
				upper[f.ID] = binary.LittleEndian.AppendUint64(nil, uint64(e.Newest.UnixMicro()))
			case plan.String:
				lower[f.ID], upper[f.ID] = fmt.Appendf(nil, "%016x", i), fmt.Appendf(nil, "%016x", i*7919)
			}
		}
		if e.Unbounded {
			delete(lower, day)
			delete(upper, day)
		}
		b.ValueCounts(counts).NullValueCounts(nulls).ColumnSizes(sizes).LowerBoundValues(lower).UpperBoundValues(upper).SplitOffsets([]int64{4})
		p.data = append(p.data, b.Build())
	}
	return t.Commit(ctx, p, pos)
}

// Compactable are the sizes of the files that Compact would make one of, for each that it would make.
func (t *Table) Compactable(ctx context.Context) (groups [][]int64, err error) {
	if err := t.load(ctx); err != nil {
		return nil, err
	}
	tasks, err := t.compactable(ctx, t.seen())
	for _, g := range tasks {
		var sizes []int64
		for _, task := range g {
			sizes = append(sizes, task.File.FileSizeBytes())
		}
		groups = append(groups, sizes)
	}
	return groups, err
}

// ManifestColumns are the ids of a raw table's partition fields, and of the column whose day is one.
type ManifestColumns struct{ SourceType, Account, Env, Day, Time int }

// ManifestFile is what is read of an entry of a manifest.
type ManifestFile struct {
	SourceType, Account, Env string
	Day                      int32
	Records, Bytes           int64
	Oldest, Newest           int64 // µs
	Bounded                  bool
}

// ReadManifest reads the entries of the files that are there, in order of partitions.
func ReadManifest(content []byte, c ManifestColumns) (files []ManifestFile, err error) {
	steps := manifestSteps{columns: partitionColumns{sourceType: c.SourceType, account: c.Account, env: c.Env, day: c.Day, time: c.Time}}
	m, err := steps.decode(content)
	if err != nil {
		return nil, err
	}
	for _, p := range m.parts {
		for _, e := range p.files {
			files = append(files, ManifestFile{p.sourceType, p.account, p.env, p.day, e.records, e.bytes, e.oldest, e.newest, e.bounded})
		}
	}
	return files, nil
}

// Joined is what Compact makes of the small files of a partition, by their sizes: those that it leaves, and the files that it makes of the others.
func Joined(sizes []int64) (left, joined []int64) {
	tasks := make([]table.FileScanTask, len(sizes))
	in := map[string]int64{}
	for i, size := range sizes {
		b, err := iceberg.NewDataFileBuilder(*iceberg.UnpartitionedSpec, iceberg.EntryContentData, fmt.Sprint(i), iceberg.ParquetFile, nil, nil, nil, 1, size)
		if err != nil {
			panic(err)
		}
		tasks[i].File = b.Build()
		in[fmt.Sprint(i)] = size
	}
	for _, group := range joinable(tasks, false) {
		sum := int64(0)
		for _, task := range group {
			sum += task.File.FileSizeBytes()
			delete(in, task.File.FilePath())
		}
		joined = append(joined, sum)
	}
	for _, size := range in {
		left = append(left, size)
	}
	return left, joined
}
