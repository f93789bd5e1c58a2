package iceberg

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"millrace/lake"
	"millrace/plan"
	"millrace/sink"
)

// Begin claims the app's tables in the namespace, those included that the plan does not have any more, and takes each back to
// where the lineage began. The tables go one after the other; readers see each before or after.
//
// It fails when a table has no snapshot of that time any more, and for a lineage without ancestors when a table holds rows of
// another one.
func (s *Sink) Begin(ctx context.Context, l sink.Lineage, _ sink.Past) error {
	claim := lake.Claim{Owner: s.cfg.Plan.App, Lineage: l.ID, Token: l.Token, Holds: func(m lake.Mark) bool {
		return l.Holds(sink.Point(m))
	}}
	if start, forked := l.Start(); forked {
		claim.Start = lake.Mark(start)
	}
	if err := s.findOthers(ctx); err != nil {
		return err
	}
	if claim.Start == (lake.Mark{}) { // before the first claim: a job that lost its directory must not stop another one
		for _, t := range s.all() {
			last, ok, err := t.Published(ctx)
			if err != nil {
				return err
			}
			if _, token := t.Owner(); ok && token < l.Token && !claim.Holds(lake.Mark{Lineage: last.Lineage, Epoch: last.ToEpoch}) {
				return fmt.Errorf("table %s holds epochs up to %d of lineage %s and the job is of lineage %s: %w", t.Name(), last.ToEpoch, last.Lineage, l.ID, lake.ErrForeign)
			}
		}
	}
	for _, t := range s.all() {
		if err := t.Claim(ctx, claim); err != nil {
			return fenced(err)
		}
		// Not before the claim: what lies there may be what another writer is about to commit.
		if _, err := t.Sweep(ctx, 0); err != nil {
			return err
		}
	}
	s.lineage = l
	return nil
}

// findOthers looks for the tables of the app that the plan does not have.
func (s *Sink) findOthers(ctx context.Context) error {
	names, err := s.cfg.Lake.Tables(ctx)
	if err != nil {
		return err
	}
	s.others = nil
	for _, name := range names {
		if name.Namespace != s.cfg.Namespace || slices.ContainsFunc(s.tables, func(t *lake.Table) bool { return t.Name() == name }) {
			continue
		}
		t, err := s.cfg.Lake.Lookup(ctx, name)
		if err != nil {
			return err
		}
		if app, _ := t.Owner(); app == s.cfg.Plan.App {
			s.others = append(s.others, t)
		}
	}
	return nil
}

func (s *Sink) all() []*lake.Table { return slices.Concat(s.tables, s.others) }

func fenced(err error) error {
	if errors.Is(err, lake.ErrFenced) {
		return fmt.Errorf("%w: %w", err, sink.ErrFenced)
	}
	return err
}

// Keep tags each table's snapshots of the points.
func (s *Sink) Keep(ctx context.Context, points []sink.Point) error {
	marks := make([]lake.Mark, len(points))
	for i, p := range points {
		marks[i] = lake.Mark(p)
	}
	for _, t := range s.all() {
		if err := t.Keep(ctx, marks); err != nil {
			return fenced(err)
		}
	}
	return nil
}

// Past returns what the tables held where the lineage began.
func (s *Sink) Past(_ context.Context, l sink.Lineage) (sink.Past, error) {
	if l.ID != s.lineage.ID {
		return nil, fmt.Errorf("iceberg: the past of lineage %s is asked for and %q was begun", l.ID, s.lineage.ID)
	}
	p := &past{}
	for _, t := range s.all() {
		columns := t.Columns()
		if !slices.ContainsFunc(columns, func(c plan.Column) bool { return c.Name == "_rev" }) {
			continue // append-only
		}
		p.lake = append(p.lake, t)
		p.tables = append(p.tables, plan.Table{Name: t.Name().Table, Schema: plan.Schema{Name: t.Name().Table, Columns: own(columns)}})
	}
	return p, nil
}

// own are the columns that are not meta columns.
func own(columns []plan.Column) []plan.Column {
	return slices.DeleteFunc(slices.Clone(columns), func(c plan.Column) bool {
		return slices.ContainsFunc(plan.MetaColumns, func(m plan.Column) bool { return m.Name == c.Name })
	})
}

// past is the tables' bases.
type past struct {
	lake   []*lake.Table
	tables []plan.Table
}

func (p *past) Tables() []plan.Table { return p.tables }

func (p *past) Rows(ctx context.Context, table int) iter.Seq2[sink.PastRow, error] {
	return func(yield func(sink.PastRow, error) bool) {
		schema := p.tables[table].Schema
		cells := make([]plan.Cell, len(schema.Columns))
		for row, err := range p.lake[table].Base(ctx) {
			var out sink.PastRow
			if err == nil {
				out, err = pastRow(schema, cells, row)
				out.Table = table
			}
			if !yield(out, err) || err != nil {
				return
			}
		}
	}
}

// pastRow is the inverse of what the lake writes of a row. Columns that came later than the row are null.
func pastRow(schema plan.Schema, cells []plan.Cell, row lake.Row) (sink.PastRow, error) {
	for i, c := range schema.Columns {
		var err error
		if cells[i], err = lake.Cell(row[c.Name]); err != nil {
			return sink.PastRow{}, fmt.Errorf("column %s: %w", c.Name, err)
		}
	}
	value, err := schema.Append(nil, cells)
	if err != nil {
		return sink.PastRow{}, err
	}
	out := sink.PastRow{Row: plan.Row{Value: value}}
	text := func(name string) string { s, _ := row[name].(string); return s }
	number := func(name string) uint64 { n, _ := row[name].(int64); return uint64(n) }
	out.ID, out.Rev, out.Epoch = text("_id"), number("_rev"), number("_epoch")
	out.Lineage, out.AppVersion, out.Account, out.Env = text("_lineage"), text("_app_version"), text("account_id"), text("env_id")
	out.Sources, _ = row["_sources"].([]string)
	if at, ok := row["_event_time"].(time.Time); ok {
		out.EventTime = at.UnixMicro()
	}
	return out, nil
}
