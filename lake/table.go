package lake

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"

	"millrace/plan"
)

// globalSpec is the id of each table's unpartitioned spec. Equality deletes are written under it and so apply to all
// partitions: a correction may move a row to another day, and a withdrawal does not know the row's day.
const globalSpec = 0

// Table is a table of a lake. Its methods may be called concurrently, but one goroutine at a time should write.
type Table struct {
	lake *Lake
	name Name

	// What the table was opened with; zero when it was only looked up.
	plan      plan.Table
	columns   []plan.Column
	partition []plan.PartitionField

	mu      sync.Mutex
	current *table.Table // as last seen in the catalogue
	claim   Claim        // of Claim; zero before
}

// Name is the table's name.
func (t *Table) Name() Name { return t.name }

// Columns are the table's columns in order, as the catalogue has them.
func (t *Table) Columns() []plan.Column { return planColumns(t.seen().Schema()) }

func (t *Table) seen() *table.Table {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.current
}

func (t *Table) see(tbl *table.Table) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.current = tbl
	if t.columns == nil {
		return // a reader's
	}
	u := upkeepOf(tbl)
	t.lake.metrics.snapshots.WithLabelValues(t.name.String()).Set(float64(u.Snapshots))
	if !u.Compacted.IsZero() {
		t.lake.metrics.compactedAt.WithLabelValues(t.name.String()).Set(float64(u.Compacted.Unix()))
	}
}

// readError says that the table's files could not be read. Those who read its metadata say in many ways that one is damaged.
func (t *Table) readError(what string, err error) error {
	var d *damage
	if errors.As(err, &d) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s table %s: %w", what, t.name, err)
	}
	return fmt.Errorf("%s table %s: %w; if files in %s are damaged, restore the lake from a backup", what, t.name, err,
		t.lake.fsys.readable(t.lake.base+"/"+t.name.Namespace+"/"+t.name.Table))
}

// load reads the table's newest state from the catalogue.
func (t *Table) load(ctx context.Context) error {
	tbl, err := t.lake.catalog.LoadTable(ctx, t.name.identifier())
	if errors.Is(err, catalog.ErrNoSuchTable) || errors.Is(err, catalog.ErrNoSuchNamespace) {
		return fmt.Errorf("table %s: %w", t.name, ErrNotFound)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("files of table %s are missing, restore the lake from a backup: %w", t.name, err)
	}
	if err != nil {
		return t.readError("load", err)
	}
	base := t.lake.base
	if c, ok := t.lake.catalog.(*restCatalogue); ok && !strings.HasPrefix(tbl.Location(), base+"/") {
		return fmt.Errorf("table %s of catalogue %s is in %s, outside of the lake's %s: it is another lake's, which has to have another namespace, or the catalogue "+
			"chooses the place, and the lake has to have that one", t.name, c.at.URI, tbl.Location(), base)
	}
	if !strings.HasPrefix(tbl.Location(), base+"/") {
		return fmt.Errorf("table %s is in %s, outside of the lake's %s: restore the lake from a backup", t.name, tbl.Location(), base)
	}
	t.see(tbl)
	return nil
}

func (t *Table) create(ctx context.Context) error {
	err := t.lake.catalog.CreateNamespace(ctx, table.Identifier{t.name.Namespace}, nil)
	if err != nil && !errors.Is(err, catalog.ErrNamespaceAlreadyExists) {
		return fmt.Errorf("make namespace %s: %w", t.name.Namespace, err)
	}
	_, err = t.lake.catalog.CreateTable(ctx, t.name.identifier(), icebergSchema(t.columns),
		catalog.WithLocation(t.lake.base+"/"+t.name.Namespace+"/"+t.name.Table),
		catalog.WithProperties(iceberg.Properties{
			"format-version":                          "2",
			table.ManifestMergeEnabledKey:             "true",
			table.ManifestMinMergeCountKey:            "32",
			table.MetadataDeleteAfterCommitEnabledKey: "true",
			table.MetadataPreviousVersionsMaxKey:      "20",
			table.WriteDeleteModeKey:                  table.WriteModeMergeOnRead,
			"write.parquet.compression-codec":         "zstd",
			"comment":                                 t.plan.Doc,
		}))
	if err != nil {
		return fmt.Errorf("make table %s: %w", t.name, err)
	}
	return nil
}

// conform brings the table to what its plan asks for: the partition spec of a table that was just made, new columns of one
// that was there. A crash in between leaves an empty table under the unpartitioned spec, which the next call completes.
func (t *Table) conform(ctx context.Context) error {
	return t.change(ctx, "change the schema", func(tbl *table.Table) (*table.Transaction, error) {
		missing, nullable, err := missingColumns(t.name.String(), tbl.Schema(), t.columns)
		if err != nil {
			return nil, err
		}
		tx := tbl.NewTransaction()
		changed := false
		spec := tbl.Spec()
		if !samePartition(tbl.Schema(), spec, t.partition) {
			if spec.NumFields() > 0 || tbl.CurrentSnapshot() != nil {
				return nil, fmt.Errorf("table %s is not partitioned by %s as the plan asks: keep its partitioning, or write to a new data version",
					t.name, describePartition(t.partition))
			}
			update := tx.UpdateSpec(true)
			for _, f := range t.partition {
				update.AddField(f.Column, transformOf(f.Transform), partitionName(f))
			}
			if err := update.Commit(); err != nil {
				return nil, err
			}
			changed = true
		}
		if len(missing)+len(nullable) > 0 {
			update := tx.UpdateSchema(true, false)
			next := 1 << 20 // any id: the catalogue assigns its own
			for _, c := range missing {
				update.AddColumn([]string{c.Name}, icebergType(c.Type, &next), c.Doc, false, nil)
			}
			for _, c := range nullable {
				update.UpdateColumn([]string{c.Name}, table.ColumnUpdate{Required: iceberg.Optional[bool]{Val: false, Valid: true}})
			}
			if err := update.Commit(); err != nil {
				return nil, err
			}
			changed = true
		}
		if !changed {
			return nil, nil
		}
		return tx, nil
	})
}
