package lake

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// ErrFenced means that a table was claimed by a later lineage than the one that writes.
var ErrFenced = errors.New("claimed by a later lineage")

// ErrForeign means that a table holds rows of a history that the claim knows nothing of.
var ErrForeign = errors.New("continue that lineage, or write to a new data version")

// ErrExpired means that a table cannot go back to a point because no snapshot from then was kept.
var ErrExpired = errors.New("the snapshots of that time have expired")

// The properties of a table that say whose it is. A claim changes them in the commit that takes the table back, and every
// commit of rows is made on the condition that they have not changed.
const (
	propOwner        = keyPrefix + "owner"
	propToken        = keyPrefix + "token"
	propLineage      = keyPrefix + "claimed-by"
	propBase         = keyPrefix + "base" // id of the snapshot that the claim's lineage began on, or noSnapshot
	propFirstLineage = keyPrefix + "first-lineage"
	propFirstEpoch   = keyPrefix + "first-epoch"

	noSnapshot = "none"
)

// tagPrefix begins the names of the tags that hold snapshots for a way back.
const tagPrefix = keyPrefix + "at."

// Mark is the end of an epoch of a lineage.
type Mark struct {
	Lineage string
	Epoch   uint64
}

func (m Mark) tag() string { return fmt.Sprintf("%s%s.%d", tagPrefix, m.Lineage, m.Epoch) }

// Claim says in whose name a table is written.
type Claim struct {
	Owner   string // who may claim the table: the app
	Lineage string
	Token   uint64          // higher than that of every lineage before; at least 1
	Start   Mark            // where the lineage left its parent; zero when it has none
	Holds   func(Mark) bool // whether a mark is in the lineage's history
}

// Claim makes the lineage the table's only writer: commits of a Table with a smaller token are refused with ErrFenced from then
// on. In the same commit the table goes back to what it held at Start, or before, if its newest snapshot then held less; a
// reader sees the one state or the other. Claiming again changes nothing.
//
// The error matches ErrExpired when no snapshot of that time is left, ErrForeign when a lineage without a parent finds rows
// of another one.
func (t *Table) Claim(ctx context.Context, c Claim) error {
	if t.lake.cfg.ReadOnly {
		return ErrReadOnly
	}
	if c.Lineage == "" || c.Token == 0 || c.Holds == nil {
		return fmt.Errorf("claim table %s: lineage %q with token %d is no claim", t.name, c.Lineage, c.Token)
	}
	back := false
	err := t.edit(ctx, "claim", func(tbl *table.Table) ([]table.Requirement, []table.Update, error) {
		back = false
		props := tbl.Properties()
		if owner := props[propOwner]; owner != "" && owner != c.Owner {
			return nil, nil, fmt.Errorf("it belongs to %s, not to %s: write to another data version", owner, c.Owner)
		}
		switch held, err := tokenOf(tbl); {
		case err != nil:
			return nil, nil, err
		case held > c.Token, held == c.Token && props[propLineage] != c.Lineage:
			return nil, nil, fencedBy(tbl, c.Lineage)
		case held == c.Token:
			return nil, nil, nil
		}
		base, err := baseOf(tbl, c)
		if err != nil {
			return nil, nil, err
		}
		current := tbl.CurrentSnapshot()
		properties := iceberg.Properties{
			propOwner: c.Owner, propToken: strconv.FormatUint(c.Token, 10), propLineage: c.Lineage, propBase: noSnapshot,
		}
		var updates []table.Update
		switch {
		case base != nil:
			properties[propBase] = strconv.FormatInt(base.SnapshotID, 10)
			if current == nil || current.SnapshotID != base.SnapshotID {
				updates = append(updates, table.NewSetSnapshotRefUpdate(table.MainBranch, base.SnapshotID, table.BranchRef, 0, 0, 0))
			}
			if c.Start != (Mark{}) && tbl.SnapshotByName(c.Start.tag()) == nil {
				updates = append(updates, table.NewSetSnapshotRefUpdate(c.Start.tag(), base.SnapshotID, table.TagRef, 0, 0, 0))
			}
		case current != nil:
			updates = append(updates, table.NewRemoveSnapshotRefUpdate(table.MainBranch))
		}
		fence, err := t.lake.catalog.claimed(tbl)
		if err != nil {
			return nil, nil, err
		}
		updates = append(updates, fence...)
		back = current != nil && (base == nil || base.SnapshotID != current.SnapshotID)
		return nil, append(updates, table.NewSetPropertiesUpdate(properties)), nil
	})
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.claim = c
	t.mu.Unlock()
	if back {
		t.lake.cfg.Logger.Info("table taken back", "table", t.name.String(), "lineage", c.Lineage, "to", c.Start)
	}
	return nil
}

func tokenOf(tbl *table.Table) (uint64, error) {
	text := tbl.Properties()[propToken]
	if text == "" {
		return 0, nil
	}
	token, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("property %s: %w", propToken, err)
	}
	return token, nil
}

func fencedBy(tbl *table.Table, lineage string) error {
	props := tbl.Properties()
	return fmt.Errorf("lineage %s (token %s) holds the table and %s wants to write: %w", props[propLineage], props[propToken], lineage, ErrFenced)
}

// token is that of the table's claim, 0 when it was not claimed.
func (t *Table) token() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.claim.Token
}

// fence returns an error when another claim than t's holds the table.
func (t *Table) fence(tbl *table.Table) error {
	held, err := tokenOf(tbl)
	if err != nil {
		return err
	}
	t.mu.Lock()
	own := t.claim
	t.mu.Unlock()
	if held != own.Token {
		return fencedBy(tbl, own.Lineage)
	}
	return nil
}

// baseOf finds the snapshot that a lineage begins on; nil when the table was empty then.
func baseOf(tbl *table.Table, c Claim) (*table.Snapshot, error) {
	if c.Start == (Mark{}) {
		last, ok, err := positionOf(tbl)
		if err == nil && ok && !c.Holds(Mark{last.Lineage, last.ToEpoch}) {
			err = fmt.Errorf("it holds epochs up to %d of lineage %s and the job is of lineage %s: %w", last.ToEpoch, last.Lineage, c.Lineage, ErrForeign)
		}
		return tbl.CurrentSnapshot(), err
	}
	if s := tbl.SnapshotByName(c.Start.tag()); s != nil {
		return s, nil
	}
	s, err := newest(tbl, func(m Mark) bool { return m.Epoch <= c.Start.Epoch && c.Holds(m) })
	if errors.Is(err, ErrExpired) {
		err = fmt.Errorf("it cannot go back to epoch %d of lineage %s: %w", c.Start.Epoch, c.Start.Lineage, err)
	}
	return s, err
}

// newest returns the newest of the current snapshot and its ancestors whose position holds accepts; nil when the table was
// empty before all that it does not accept. A snapshot of maintenance has the position of the one before it, so it is
// found in its place.
func newest(tbl *table.Table, holds func(Mark) bool) (*table.Snapshot, error) {
	for s := tbl.CurrentSnapshot(); s != nil; s = tbl.SnapshotByID(*s.ParentSnapshotID) {
		if s.Summary != nil && s.Summary.Properties[keyLineage] != "" {
			p, err := parsePosition(s.Summary.Properties)
			if err != nil {
				return nil, fmt.Errorf("summary of snapshot %d: %w", s.SnapshotID, err)
			}
			if holds(Mark{p.Lineage, p.ToEpoch}) {
				return s, nil
			}
		}
		if s.ParentSnapshotID == nil {
			return nil, nil // all there ever was has been looked at
		}
	}
	props := tbl.Properties()
	first := Mark{Lineage: props[propFirstLineage]}
	if first.Lineage == "" {
		if tbl.CurrentSnapshot() == nil {
			return nil, nil
		}
		return nil, ErrExpired
	}
	var err error
	if first.Epoch, err = strconv.ParseUint(props[propFirstEpoch], 10, 64); err != nil {
		return nil, fmt.Errorf("property %s: %w", propFirstEpoch, err)
	}
	if holds(first) && tbl.CurrentSnapshot() != nil {
		return nil, ErrExpired
	}
	return nil, nil
}

// Keep holds the snapshots that the table needs for going back to each of the marks, however old they get, and lets go of
// those of other marks. A mark that the table cannot go back to any more is left out.
func (t *Table) Keep(ctx context.Context, marks []Mark) error {
	return t.edit(ctx, "keep snapshots", func(tbl *table.Table) ([]table.Requirement, []table.Update, error) {
		if err := t.fence(tbl); err != nil {
			return nil, nil, err
		}
		t.mu.Lock()
		holds := t.claim.Holds
		t.mu.Unlock()
		wanted := map[string]bool{}
		var updates []table.Update
		for _, m := range marks {
			wanted[m.tag()] = true
			if tbl.SnapshotByName(m.tag()) != nil || holds == nil || !holds(m) {
				continue
			}
			s, err := newest(tbl, func(p Mark) bool { return p.Epoch <= m.Epoch && holds(p) })
			switch {
			case errors.Is(err, ErrExpired):
				t.lake.cfg.Logger.Warn("table cannot go back any more", "table", t.name.String(), "lineage", m.Lineage, "epoch", m.Epoch)
			case err != nil:
				return nil, nil, err
			case s != nil:
				updates = append(updates, table.NewSetSnapshotRefUpdate(m.tag(), s.SnapshotID, table.TagRef, 0, 0, 0))
			}
		}
		var gone []string
		for name := range tbl.Metadata().Refs() {
			if strings.HasPrefix(name, tagPrefix) && !wanted[name] {
				gone = append(gone, name)
			}
		}
		slices.Sort(gone)
		for _, name := range gone {
			updates = append(updates, table.NewRemoveSnapshotRefUpdate(name))
		}
		return nil, updates, nil
	})
}

// Owner is the app that has claimed the table, with the highest token so far; empty when none has.
func (t *Table) Owner() (app string, token uint64) {
	token, err := tokenOf(t.seen())
	if err != nil {
		token = 0 // Claim says so
	}
	return t.seen().Properties()[propOwner], token
}

// Base yields the rows that the table held where the lineage that claims it began, with the columns of that time. After an
// error it ends.
func (t *Table) Base(ctx context.Context) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		s, err := t.base(ctx)
		if err != nil {
			yield(nil, fmt.Errorf("read table %s as it was where lineage %s began: %w", t.name, t.seen().Properties()[propLineage], err))
			return
		}
		if s == nil {
			return
		}
		for row, err := range s.rows(ctx, s.tasks) {
			if err != nil {
				yield(nil, t.readError("read", err))
				return
			}
			if !yield(row, nil) {
				return
			}
		}
	}
}

// base plans the scan of Base; nil when the table was empty.
func (t *Table) base(ctx context.Context) (*scan, error) {
	tbl := t.seen()
	base := tbl.Properties()[propBase]
	if base == noSnapshot {
		return nil, nil
	}
	id, err := strconv.ParseInt(base, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("property %s: %w", propBase, err)
	}
	snapshot := tbl.SnapshotByID(id)
	if snapshot == nil {
		return nil, ErrExpired
	}
	schema := tbl.Schema()
	if snapshot.SchemaID != nil && tbl.Schemas()[*snapshot.SchemaID] != nil {
		schema = tbl.Schemas()[*snapshot.SchemaID]
	}
	tasks, err := t.planned(ctx, tbl.Scan(table.WithSnapshotID(id)))
	if err != nil {
		return nil, err
	}
	return t.newScan(tasks, schema.Fields())
}
