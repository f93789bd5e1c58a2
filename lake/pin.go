package lake

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"millrace/plan"
)

// ErrUnsettled means that the tables of a namespace are just being claimed by another lineage.
var ErrUnsettled = errors.New("they are being taken back, ask again")

// pinPrefix begins the names of the tags that hold snapshots for readers that take long.
const pinPrefix = keyPrefix + "pin."

// Held returns how far in the log a namespace's tables hold everything, by partition: of each record before, the rows are in their table.
// It is more than the least of their positions, as a table that had no rows for a while stays behind.
//
// The error matches ErrUnsettled when the tables are just being taken back, one after the other: ask again.
func (l *Lake) Held(ctx context.Context, tables ...*Table) (plan.Offsets, error) {
	held := plan.Offsets{}
	claims := map[uint64]string{}
	for _, t := range tables {
		pos, _, err := t.Published(ctx)
		if err != nil {
			return nil, err
		}
		for p, o := range pos.Held {
			held[p] = max(held[p], o)
		}
		_, token := t.Owner()
		claims[token] = t.name.String()
		noted, err := heldBeyond(t.seen(), token)
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", t.name, err)
		}
		for p, o := range noted {
			held[p] = max(held[p], o)
		}
	}
	if len(claims) > 1 {
		names := slices.Sorted(maps.Values(claims))
		return nil, fmt.Errorf("tables %s are of different lineages of their job: %w", strings.Join(names, ", "), ErrUnsettled)
	}
	return held, nil
}

// propBeyond is how far a namespace's tables hold the log beyond what the rows of a commit say: as JSON with the token of whose word it is.
const propBeyond = keyPrefix + "held-beyond"

type beyond struct {
	Token   uint64       `json:"token"`
	Offsets plan.Offsets `json:"offsets"`
}

// Hold notes how far in the log the namespace's tables hold everything, for Held. Commits say it with their rows; records that make none after the last
// commit are not known of otherwise. It is the word of the lineage that owns the table now, and a later one's does not include it. The caller must be
// the only one who writes the namespace.
func (t *Table) Hold(ctx context.Context, held plan.Offsets) error {
	return t.edit(ctx, "note what it holds", func(tbl *table.Table) ([]table.Requirement, []table.Update, error) {
		token, err := tokenOf(tbl)
		if err != nil {
			return nil, nil, err
		}
		text, err := json.Marshal(beyond{token, held})
		if err != nil || tbl.Properties()[propBeyond] == string(text) {
			return nil, nil, err
		}
		return nil, []table.Update{table.NewSetPropertiesUpdate(iceberg.Properties{propBeyond: string(text)})}, nil
	})
}

// heldBeyond is what Hold has noted in the name of a lineage.
func heldBeyond(tbl *table.Table, token uint64) (plan.Offsets, error) {
	text := tbl.Properties()[propBeyond]
	if text == "" {
		return nil, nil
	}
	var noted beyond
	if err := json.Unmarshal([]byte(text), &noted); err != nil {
		return nil, fmt.Errorf("property %s: %w", propBeyond, err)
	}
	if noted.Token != token {
		return nil, nil
	}
	return noted.Offsets, nil
}

// Pin holds the table's newest snapshot and its files, however long that takes, until Unpin, and returns its id; 0 for a table that
// was never written. Pinning under the same name again holds the newest one instead.
func (t *Table) Pin(ctx context.Context, name string) (snapshot int64, err error) {
	err = t.edit(ctx, "pin a snapshot", func(tbl *table.Table) ([]table.Requirement, []table.Update, error) {
		snapshot = 0
		current := tbl.CurrentSnapshot()
		if current == nil {
			return nil, nil, nil
		}
		snapshot = current.SnapshotID
		if held := tbl.SnapshotByName(pinPrefix + name); held != nil && held.SnapshotID == snapshot {
			return nil, nil, nil
		}
		return nil, []table.Update{table.NewSetSnapshotRefUpdate(pinPrefix+name, snapshot, table.TagRef, 0, 0, 0)}, nil
	})
	return snapshot, err
}

// Unpin lets go of what Pin holds. Without a pin it does nothing.
func (t *Table) Unpin(ctx context.Context, name string) error {
	return t.edit(ctx, "let go of a snapshot", func(tbl *table.Table) ([]table.Requirement, []table.Update, error) {
		if tbl.SnapshotByName(pinPrefix+name) == nil {
			return nil, nil, nil
		}
		return nil, []table.Update{table.NewRemoveSnapshotRefUpdate(pinPrefix + name)}, nil
	})
}

// FileFilter chooses files of a table by what its manifests say of them. Files that it leaves out have no such row; those that it
// does not may have others.
type FileFilter struct {
	In         map[string][]string // string columns and the values that they may have
	TimeColumn string              // with From <= value < To; a zero bound is none
	From, To   int64               // µs since 1970
	Least      map[string]int64    // long columns and their least values
}

func (f FileFilter) expression() iceberg.BooleanExpression {
	var e iceberg.BooleanExpression = iceberg.AlwaysTrue{}
	for name, values := range f.In {
		e = iceberg.NewAnd(e, iceberg.IsIn(iceberg.Reference(name), values...))
	}
	if f.From != 0 {
		e = iceberg.NewAnd(e, iceberg.GreaterThanEqual(iceberg.Reference(f.TimeColumn), iceberg.Timestamp(f.From)))
	}
	if f.To != 0 {
		e = iceberg.NewAnd(e, iceberg.LessThan(iceberg.Reference(f.TimeColumn), iceberg.Timestamp(f.To)))
	}
	for name, least := range f.Least {
		e = iceberg.NewAnd(e, iceberg.GreaterThanEqual(iceberg.Reference(name), least))
	}
	return e
}

// SnapshotFiles lists the data files of a snapshot that may have rows that the filter wants, in order of their locations: the same ones each time.
// The error matches ErrExpired when the snapshot is not kept any more.
func (t *Table) SnapshotFiles(ctx context.Context, snapshot int64, f FileFilter) ([]File, error) {
	if err := t.load(ctx); err != nil {
		return nil, err
	}
	tbl := t.seen()
	if tbl.SnapshotByID(snapshot) == nil {
		return nil, fmt.Errorf("read snapshot %d of table %s: %w", snapshot, t.name, ErrExpired)
	}
	tasks, err := t.planned(ctx, tbl.Scan(table.WithSnapshotID(snapshot), table.WithRowFilter(f.expression())))
	if err != nil {
		return nil, err
	}
	files := make([]File, len(tasks))
	for i, task := range tasks {
		if len(task.EqualityDeleteFiles) > 0 {
			return nil, fmt.Errorf("read snapshot %d of table %s: %w", snapshot, t.name, errors.New("it has corrections; only tables that are appended to can be read by files"))
		}
		files[i] = t.file(task)
	}
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.location, b.location) })
	return files, nil
}
