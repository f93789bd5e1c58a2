// Package whatif compares the tables of two data versions: what a person reads before one of them is promoted.
//
// The one idea: a row has the same id in both versions, so the tables are joined by it, without either in memory. Hashes of ids and values
// are sorted on disk (internal/spill), and joined; so the comparison is exact, but for collisions of 96 bits, at any size. A table is read up
// to three times, each time the same snapshot:
//
//	all rows ─▶ id, values │ id, evidence      which rows differ, and on which days
//	rows of those days ─▶ id, value of each column     in which columns
//	rows named as examples                             what they say, and their evidence
//
// _rev, _epoch, _lineage and _app_version differ by nature and are not compared. It reads lakes only, and judges nothing.
package whatif

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/zeebo/xxh3"

	"millrace/internal/spill"
	"millrace/lake"
	"millrace/plan"
)

// Config says what is compared. Lake, A and B are needed.
type Config struct {
	Lake   *lake.Lake
	A, B   string   // namespaces
	Tables []string // default: all of both

	Examples int    // of each kind and table; default 3
	Temp     string // where hashes are sorted that do not fit in memory; default that of the system
	Memory   int    // bytes of hashes that are held in memory at a time; default 64 MiB
}

// Diff is what the comparison found.
type Diff struct {
	A      string  `json:"a"` // namespaces
	B      string  `json:"b"`
	Same   bool    `json:"same"` // all rows of all tables
	Tables []Table `json:"tables"`
}

// Table is the comparison of one table. A row whose columns are the same and whose evidence is not is among Same, and counted again in
// OtherEvidence.
type Table struct {
	Name          string  `json:"name"`
	A             Side    `json:"a"`
	B             Side    `json:"b"`
	Same          int64   `json:"same"`
	OtherEvidence int64   `json:"other_evidence"`
	OnlyA         int64   `json:"only_a"`
	OnlyB         int64   `json:"only_b"`
	Differ        int64   `json:"differ"`
	Columns       []Count `json:"columns"` // in which rows differ that both have, the most frequent first
	Days          []Day   `json:"days"`    // that differ, in order

	// Columns that one version has and the other has not, or has with another type. Their values are compared as null where they are
	// not.
	ColumnsOnlyA []string `json:"columns_only_a,omitempty"`
	ColumnsOnlyB []string `json:"columns_only_b,omitempty"`
	OtherType    []string `json:"other_type,omitempty"`

	Examples []Example `json:"examples"`
}

// Differs reports whether any row is not in both with the same values.
func (t Table) Differs() bool { return t.OnlyA+t.OnlyB+t.Differ > 0 || t.A.Missing != t.B.Missing }

// Side is a table in one of the versions.
type Side struct {
	Missing  bool   `json:"missing,omitempty"`
	Snapshot string `json:"snapshot,omitempty"` // a number that JSON numbers cannot hold
	Rows     int64  `json:"rows"`
}

// Count is how many rows differ in a column.
type Count struct {
	Column string `json:"column"`
	Rows   int64  `json:"rows"`
}

// Day is a day of event time, UTC. A row that both have counts on the day that it has in A.
type Day struct {
	Day    string `json:"day"`
	OnlyA  int64  `json:"only_a"`
	OnlyB  int64  `json:"only_b"`
	Differ int64  `json:"differ"`
}

// Example is a row that is not the same in both: those with the smallest hashes of their ids.
type Example struct {
	ID       string   `json:"id"`
	Kind     string   `json:"kind"` // only_a, only_b, differ
	Day      string   `json:"day"`
	Columns  []Values `json:"columns"` // that differ, or all of a row that only one has
	Evidence Evidence `json:"evidence"`
}

// Values are a column's in both versions.
type Values struct {
	Column string `json:"column"`
	A      any    `json:"a"`
	B      any    `json:"b"`
}

// Evidence are the records that a row was made from.
type Evidence struct {
	A []string `json:"a,omitempty"`
	B []string `json:"b,omitempty"`
}

// Kinds of an Example.
const (
	OnlyA  = "only_a"
	OnlyB  = "only_b"
	Differ = "differ"
)

// Compare compares.
func Compare(ctx context.Context, cfg Config) (*Diff, error) {
	if cfg.Lake == nil || cfg.A == "" || cfg.B == "" {
		return nil, errors.New("whatif: Config.Lake, A or B is missing")
	}
	if cfg.A == cfg.B {
		return nil, fmt.Errorf("%s cannot be compared with itself: name two data versions", cfg.A)
	}
	if cfg.Examples == 0 {
		cfg.Examples = 3
	}
	if cfg.Memory == 0 {
		cfg.Memory = 64 << 20
	}
	names, err := cfg.names(ctx)
	if err != nil {
		return nil, err
	}
	d := &Diff{A: cfg.A, B: cfg.B, Same: true, Tables: []Table{}}
	for _, name := range names {
		c := &comparison{cfg: cfg, out: Table{Name: name, Columns: []Count{}, Days: []Day{}, Examples: []Example{}}}
		if err := errors.Join(c.run(ctx), c.close()); err != nil {
			return nil, fmt.Errorf("compare table %s: %w", name, err)
		}
		d.Same = d.Same && !c.out.Differs()
		d.Tables = append(d.Tables, c.out)
	}
	return d, nil
}

// names are the tables to compare, in order.
func (c Config) names(ctx context.Context) ([]string, error) {
	all, err := c.Lake.Tables(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	namespaces := map[string]bool{}
	for _, n := range all {
		namespaces[n.Namespace] = true
		if n.Namespace == c.A || n.Namespace == c.B {
			names = append(names, n.Table)
		}
	}
	for _, want := range []string{c.A, c.B} {
		if !namespaces[want] {
			var have []string
			for n := range namespaces {
				have = append(have, n)
			}
			slices.Sort(have)
			return nil, fmt.Errorf("the lake has no namespace %s; it has %s", want, strings.Join(have, ", "))
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	for _, want := range c.Tables {
		if !slices.Contains(names, want) {
			return nil, fmt.Errorf("neither version has a table %s; they have %s", want, strings.Join(names, ", "))
		}
	}
	if len(c.Tables) > 0 {
		names = slices.DeleteFunc(names, func(n string) bool { return !slices.Contains(c.Tables, n) })
	}
	return names, nil
}

// side is a table in one of the versions while it is compared.
type side struct {
	table    *lake.Table // nil when it is missing
	snapshot int64
	types    map[string]plan.Type // of its columns
	out      *Side
}

// comparison compares one table.
type comparison struct {
	cfg     Config
	out     Table
	sides   [2]side
	columns []plan.Column // that are compared
	bytes   []byte
	sets    []*spill.Set
}

// pairs makes a set for each side, n times. Together they hold Config.Memory in memory.
func (c *comparison) pairs(n int) [][2]*spill.Set {
	const entry = 2 * len(spill.Hash{})
	out := make([][2]*spill.Set, n)
	for i := range out {
		for k := range out[i] {
			out[i][k] = spill.New(c.cfg.Temp, max(c.cfg.Memory/entry/(2*n), 2))
			c.sets = append(c.sets, out[i][k])
		}
	}
	return out
}

func (c *comparison) close() error {
	var errs []error
	for _, s := range c.sets {
		errs = append(errs, s.Close())
	}
	c.sets = nil
	return errors.Join(errs...)
}

func (c *comparison) run(ctx context.Context) error {
	for i, namespace := range []string{c.cfg.A, c.cfg.B} {
		if err := c.open(ctx, i, namespace); err != nil {
			return err
		}
	}
	c.compareColumns()
	differing, err := c.compareRows(ctx)
	if err := errors.Join(err, c.close()); err != nil || len(c.out.Days) == 0 {
		return err
	}
	if c.out.Differ > 0 {
		if err := c.compareValues(ctx); err != nil {
			return err
		}
	}
	return c.examples(ctx, differing)
}

func (c *comparison) open(ctx context.Context, i int, namespace string) error {
	s := &c.sides[i]
	s.out = []*Side{&c.out.A, &c.out.B}[i]
	s.types = map[string]plan.Type{}
	t, err := c.cfg.Lake.Lookup(ctx, lake.Name{Namespace: namespace, Table: c.out.Name})
	if errors.Is(err, lake.ErrNotFound) {
		s.out.Missing = true
		return nil
	}
	if err != nil {
		return err
	}
	snapshot, err := t.Snapshot(ctx)
	if err != nil {
		return err
	}
	for _, column := range t.Columns() {
		s.types[column.Name] = column.Type
	}
	if _, ok := s.types["_id"]; !ok {
		return fmt.Errorf("%s.%s has rows without ids: only tables of apps can be compared", namespace, c.out.Name)
	}
	s.table, s.snapshot = t, snapshot.ID
	if s.snapshot != 0 {
		s.out.Snapshot = fmt.Sprint(s.snapshot)
	}
	return nil
}

// byNature are the columns that are not compared; the id is what rows are joined by, and the evidence is compared apart.
var byNature = []string{"_id", "_rev", "_epoch", "_lineage", "_app_version", evidence}

const (
	evidence  = "_sources"
	eventTime = "_event_time"
)

// compareColumns finds the columns to compare, in the order of A, then of B.
func (c *comparison) compareColumns() {
	a, b := &c.sides[0], &c.sides[1]
	for i, s := range []*side{a, b} {
		if s.table == nil {
			continue
		}
		other := []*side{b, a}[i]
		for _, column := range s.table.Columns() {
			typ, both := other.types[column.Name]
			switch {
			case slices.Contains(byNature, column.Name):
				continue
			case !both && other.table != nil && i == 0:
				c.out.ColumnsOnlyA = append(c.out.ColumnsOnlyA, column.Name)
			case !both && other.table != nil:
				c.out.ColumnsOnlyB = append(c.out.ColumnsOnlyB, column.Name)
			case both && i == 1:
				continue // it was A's
			case both && typ != column.Type:
				c.out.OtherType = append(c.out.OtherType, column.Name)
			}
			c.columns = append(c.columns, column)
		}
	}
}

// row is a row of a side, and the hash of its id.
type row struct {
	lake.Row

	key spill.Hash
	day int32 // since 1970
}

// rows yields all rows of a side, with the columns that are compared and those that are always needed.
func (c *comparison) rows(ctx context.Context, i int, more ...string) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		s := &c.sides[i]
		if s.snapshot == 0 {
			return
		}
		names := append([]string{"_id", eventTime}, more...)
		for _, column := range c.columns {
			if _, ok := s.types[column.Name]; ok && column.Name != eventTime {
				names = append(names, column.Name)
			}
		}
		for r, err := range s.table.Scan(ctx, lake.ScanOptions{Columns: names, Snapshot: s.snapshot}) {
			if err != nil {
				yield(row{}, err)
				return
			}
			out := row{Row: r, key: c.hash([]byte(r["_id"].(string)))}
			out.day = dayOf(r[eventTime])
			if !yield(out, nil) {
				return
			}
		}
	}
}

func dayOf(v any) int32 {
	at, _ := v.(time.Time) // every row has one; else it is on a day of its own
	seconds, day := at.Unix(), int64(24*60*60)
	days := seconds / day
	if seconds%day < 0 {
		days--
	}
	return int32(days) //nolint:gosec // until the year 5 million
}

func dayText(day int32) string { return time.Unix(int64(day)*24*60*60, 0).UTC().Format(time.DateOnly) }

func (c *comparison) hash(b []byte) spill.Hash { return xxh3.Hash128(b).Bytes() }

// value appends a column's name and value, so that no two values are written alike.
func appendValue(b []byte, name string, v any) []byte {
	b = append(append(b, name...), 0)
	text := func(kind byte, s string) []byte {
		b = append(b, kind)
		b = binary.AppendUvarint(b, uint64(len(s)))
		return append(b, s...)
	}
	switch v := v.(type) {
	case nil:
		return append(b, 0)
	case string:
		return text(1, v)
	case []byte:
		return text(2, string(v))
	case int64:
		return binary.AppendVarint(append(b, 3), v)
	case float64:
		return fmt.Appendf(append(b, 4), "%v ", v)
	case bool:
		return fmt.Appendf(append(b, 5), "%v ", v)
	case time.Time:
		return binary.AppendVarint(append(b, 6), v.UnixMicro())
	case []string:
		b = binary.AppendUvarint(append(b, 7), uint64(len(v)))
		for _, s := range v {
			b = binary.AppendUvarint(b, uint64(len(s)))
			b = append(b, s...)
		}
		return b
	}
	return text(8, fmt.Sprint(v))
}

// withDay puts a day in the place of a hash's last four bytes.
func withDay(h spill.Hash, day int32) spill.Hash {
	binary.BigEndian.PutUint32(h[12:], uint32(day)) //nolint:gosec // and back
	return h
}

func dayIn(h spill.Hash) int32 { return int32(binary.BigEndian.Uint32(h[12:])) } //nolint:gosec // see withDay

// candidate is a row that is not the same in both.
type candidate struct {
	kind string
	day  int32
}

// compareRows finds which rows differ, and returns those that are examples.
func (c *comparison) compareRows(ctx context.Context) (map[spill.Hash]candidate, error) {
	sets := c.pairs(2)
	values, sources := sets[0], sets[1]
	for i := range c.sides {
		for r, err := range c.rows(ctx, i, evidence) {
			if err != nil {
				return nil, err
			}
			c.sides[i].out.Rows++
			c.bytes = c.bytes[:0]
			for _, column := range c.columns {
				c.bytes = appendValue(c.bytes, column.Name, r.Row[column.Name])
			}
			err := errors.Join(
				values[i].Add(r.key, withDay(c.hash(c.bytes), r.day)),
				sources[i].Add(r.key, c.hash(appendValue(nil, evidence, r.Row[evidence]))),
			)
			if err != nil {
				return nil, err
			}
		}
	}
	days, examples, shown := map[int32]*Day{}, map[spill.Hash]candidate{}, map[string]int{}
	for g, err := range spill.Join(values[0], values[1], sources[0], sources[1]) {
		if err != nil {
			return nil, err
		}
		a, b := g.Values[0], g.Values[1]
		if len(a) > 1 || len(b) > 1 {
			return nil, errors.New("a row is there twice; 'millrace check' says more")
		}
		var kind string
		var day int32
		switch {
		case len(b) == 0:
			kind, day = OnlyA, dayIn(a[0])
		case len(a) == 0:
			kind, day = OnlyB, dayIn(b[0])
		case a[0] == b[0]:
			c.out.Same++
			if g.Values[2][0] != g.Values[3][0] {
				c.out.OtherEvidence++
			}
			continue
		default:
			kind, day = Differ, dayIn(a[0])
		}
		d := days[day]
		if d == nil {
			d = &Day{Day: dayText(day)}
			days[day] = d
		}
		switch kind {
		case OnlyA:
			c.out.OnlyA++
			d.OnlyA++
		case OnlyB:
			c.out.OnlyB++
			d.OnlyB++
		case Differ:
			c.out.Differ++
			d.Differ++
		}
		if shown[kind] < c.cfg.Examples {
			shown[kind]++
			examples[g.Key] = candidate{kind, day}
		}
	}
	for _, day := range days {
		c.out.Days = append(c.out.Days, *day)
	}
	slices.SortFunc(c.out.Days, func(a, b Day) int { return strings.Compare(a.Day, b.Day) })
	return examples, nil
}

// compareValues counts in which columns rows differ that both have.
func (c *comparison) compareValues(ctx context.Context) error {
	differ := map[string]bool{} // days of A with rows that differ
	for _, d := range c.out.Days {
		differ[d.Day] = d.Differ > 0
	}
	columns := c.pairs(len(c.columns))
	for i := range c.sides {
		for r, err := range c.rows(ctx, i) {
			if err != nil {
				return err
			}
			// A row of B may have come from a day of A that it is not on.
			if i == 0 && !differ[dayText(r.day)] {
				continue
			}
			for k, column := range c.columns {
				c.bytes = appendValue(c.bytes[:0], column.Name, r.Row[column.Name])
				if err := columns[k][i].Add(r.key, c.hash(c.bytes)); err != nil {
					return err
				}
			}
		}
	}
	for k, column := range c.columns {
		n := int64(0)
		for g, err := range spill.Join(columns[k][0], columns[k][1]) {
			if err != nil {
				return err
			}
			if len(g.Values[0]) > 0 && len(g.Values[1]) > 0 && g.Values[0][0] != g.Values[1][0] {
				n++
			}
		}
		if n > 0 {
			c.out.Columns = append(c.out.Columns, Count{column.Name, n})
		}
	}
	slices.SortStableFunc(c.out.Columns, func(a, b Count) int { return int(b.Rows - a.Rows) })
	return nil
}

// examples reads the rows that are shown.
func (c *comparison) examples(ctx context.Context, wanted map[spill.Hash]candidate) error {
	found := map[spill.Hash]*[2]lake.Row{}
	for i := range c.sides {
		for r, err := range c.rows(ctx, i, evidence) {
			if err != nil {
				return err
			}
			if _, ok := wanted[r.key]; !ok {
				continue
			}
			if found[r.key] == nil {
				found[r.key] = &[2]lake.Row{}
			}
			found[r.key][i] = r.Row
		}
	}
	for key, x := range wanted {
		rows := found[key]
		if rows == nil {
			return errors.New("a row is not there any more that was a moment ago")
		}
		e := Example{Kind: x.kind, Day: dayText(x.day), Columns: []Values{}}
		for i, r := range rows {
			if r == nil {
				continue
			}
			e.ID = r["_id"].(string)
			sources, _ := r[evidence].([]string) // null is none
			*[]*[]string{&e.Evidence.A, &e.Evidence.B}[i] = sources
		}
		for _, column := range c.columns {
			v := Values{Column: column.Name}
			if rows[0] != nil {
				v.A = rows[0][column.Name]
			}
			if rows[1] != nil {
				v.B = rows[1][column.Name]
			}
			if x.kind != Differ || string(appendValue(nil, "", v.A)) != string(appendValue(nil, "", v.B)) {
				e.Columns = append(e.Columns, v)
			}
		}
		c.out.Examples = append(c.out.Examples, e)
	}
	slices.SortFunc(c.out.Examples, func(a, b Example) int {
		if a.Kind != b.Kind {
			return strings.Compare(a.Kind, b.Kind)
		}
		return strings.Compare(a.ID, b.ID)
	})
	return nil
}
