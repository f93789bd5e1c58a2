package delivery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"millrace/lake"
)

// CompareConfig says what Compare compares. Lake, A and B are needed.
type CompareConfig struct {
	Lake *lake.Lake // not closed by Compare
	A, B string     // data versions: 20180827174235, or unversioned

	Tables       []string  // default: all that either version has
	Account, Env string    // whose rows; default: everybody's
	From, To     time.Time // of event time, To excluded; zero is no bound. A row whose time is in the range in either version is compared

	Examples int    // of each table and kind of difference; default 3, below 0 for none
	Memory   int    // bytes in which rows are sorted; default 64 MiB
	Temp     string // directory for what does not fit there, for all rows of a table; default that of the system
}

const (
	defaultExamples      = 3
	defaultCompareMemory = 64 << 20
)

func (c CompareConfig) withDefaults() CompareConfig {
	if c.Examples == 0 {
		c.Examples = defaultExamples
	}
	if c.Memory <= 0 {
		c.Memory = defaultCompareMemory
	}
	if c.Temp == "" {
		c.Temp = os.TempDir()
	}
	return c
}

func (c CompareConfig) validate() error {
	switch {
	case c.Lake == nil:
		return errors.New("delivery: CompareConfig.Lake is nil")
	case c.A == c.B:
		return fmt.Errorf("%q is compared with itself: name two data versions", c.A)
	}
	return lake.Selection{From: c.From, To: c.To}.Check()
}

// Comparison is how two data versions differ.
type Comparison struct {
	A       string            `json:"a"`
	B       string            `json:"b"`
	Account string            `json:"account,omitempty"`
	Env     string            `json:"env,omitempty"`
	From    time.Time         `json:"from,omitzero"`
	To      time.Time         `json:"to,omitzero"`
	Same    bool              `json:"same"` // the same tables and columns, and the same rows but for their evidence
	Verdict string            `json:"verdict"`
	Tables  []TableComparison `json:"tables"` // in order of their names
}

// TableComparison is how one table differs. It was read at the two snapshots.
type TableComparison struct {
	Table     string `json:"table"`
	OnlyIn    string `json:"only_in,omitempty"`    // the version that alone has the table
	SnapshotA string `json:"snapshot_a,omitempty"` // of the lake; none when nothing has been committed
	SnapshotB string `json:"snapshot_b,omitempty"`
	Same      bool   `json:"same"`
	RowCounts

	// Columns are those in which rows differ, those that only one version has, and those of another type, in the order of the table.
	Columns  []ColumnComparison `json:"columns"`
	Days     []DayComparison    `json:"days"`     // that have a difference, evidence included; in order
	Examples []Example          `json:"examples"` // by kind, those with the smallest ids
}

// RowCounts are rows by what became of them. RowsA is Same + OtherEvidence + Differ + OnlyA, and of a table RowsB is likewise with OnlyB.
type RowCounts struct {
	RowsA         int64 `json:"rows_a"`
	RowsB         int64 `json:"rows_b"`
	Same          int64 `json:"rows_same"` // in values and evidence
	OtherEvidence int64 `json:"other_evidence"`
	Differ        int64 `json:"differ"` // in values
	OnlyA         int64 `json:"only_a"`
	OnlyB         int64 `json:"only_b"`
}

func (r *RowCounts) sound() bool { return r.Differ+r.OnlyA+r.OnlyB == 0 }

// ColumnComparison is a column that is not the same.
type ColumnComparison struct {
	Column string `json:"column"`
	TypeA  string `json:"type_a,omitempty"` // none when the version does not have it: then it is not compared
	TypeB  string `json:"type_b,omitempty"`
	Differ int64  `json:"differ"` // rows of both versions that differ in it
}

// DayComparison are the rows of a day of event time, in UTC. A row that has moved to another day counts as one that differs on its day in A.
type DayComparison struct {
	Day string `json:"day"` // 2018-11-30
	RowCounts
	MovedAway int64 `json:"moved_away"` // of those that differ: to another day in B
	MovedHere int64 `json:"moved_here"` // from another day in A; of RowsB alone
}

// Kinds of examples.
const (
	OnlyInA       = "only_a"
	OnlyInB       = "only_b"
	Differs       = "differs"
	OtherEvidence = "other_evidence"
)

// Example is a row that is not the same. Of those that differ there are enough for each column in which any do.
type Example struct {
	Kind     string   `json:"kind"`
	ID       string   `json:"id"`
	Account  string   `json:"account"`
	Env      string   `json:"env"`
	DayA     string   `json:"day_a,omitempty"`
	DayB     string   `json:"day_b,omitempty"`
	Values   []Values `json:"values"` // of the columns that differ; of a row of one version, those that are not null
	SourcesA []string `json:"sources_a"`
	SourcesB []string `json:"sources_b"`
}

// Values are what a row has in a column. Bytes that are no text are an object with a member base64.
type Values struct {
	Column string `json:"column"`
	A      any    `json:"a"`
	B      any    `json:"b"`
}

// ErrNoRows is matched by the error for a selection of rows of which neither data version has any.
var ErrNoRows = errors.New("nothing was compared")

// UnknownError says that Compare was asked for what the lake does not have.
type UnknownError struct {
	What  string // data version or table
	Name  string
	Known []string // what there is, sorted
}

func (e *UnknownError) Error() string {
	if len(e.Known) == 0 {
		return fmt.Sprintf("there is no %s %q: the lake has none yet", e.What, e.Name)
	}
	return fmt.Sprintf("there is no %s %q; the lake has %s", e.What, e.Name, strings.Join(e.Known, ", "))
}

// Compare compares two data versions row by row and value by value: rows are the same ones that have the same id. What differs by nature is
// left out: _rev, _epoch, _lineage and _app_version. _sources is evidence, of which a difference is counted apart.
//
// Each table is read once from one snapshot, and its rows are sorted on disk: memory does not grow with the tables, but for a little by day, and
// with corrections that have not been compacted. The same snapshots give the same Comparison. A file that is damaged or missing is an error that names it.
func Compare(ctx context.Context, cfg CompareConfig) (*Comparison, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	names, err := cfg.Lake.Tables(ctx)
	if err != nil {
		return nil, err
	}
	spaces, err := namespaces(names, cfg.A, cfg.B)
	if err != nil {
		return nil, err
	}
	tables, err := cfg.tables(names, spaces)
	if err != nil {
		return nil, err
	}
	c := &Comparison{A: cfg.A, B: cfg.B, Account: cfg.Account, Env: cfg.Env, From: cfg.From, To: cfg.To, Same: true, Tables: []TableComparison{}}
	rows := int64(0)
	for _, name := range tables {
		t := &tableReader{cfg: cfg}
		for i, space := range spaces {
			if at := (lake.Name{Namespace: space, Table: name}); slices.Contains(names, at) {
				t.names[i] = at
			}
		}
		out, err := t.compare(ctx)
		if err != nil {
			return nil, fmt.Errorf("compare %s of %s and %s: %w", name, cfg.A, cfg.B, err)
		}
		c.Same = c.Same && out.Same
		rows += out.RowsA + out.RowsB
		c.Tables = append(c.Tables, *out)
	}
	if selected := cfg.selected(); rows == 0 && selected != "" {
		return nil, fmt.Errorf("neither %s nor %s has rows%s, so %w", cfg.A, cfg.B, selected, ErrNoRows)
	}
	c.Verdict = c.verdict()
	return c, nil
}

// selected says in words which rows are compared; nothing when all are.
func (c CompareConfig) selected() (words string) {
	if c.Account != "" {
		words += fmt.Sprintf(" of account %q", c.Account)
	}
	if c.Env != "" {
		words += fmt.Sprintf(" of env %q", c.Env)
	}
	if !c.From.IsZero() {
		words += " from " + c.From.UTC().Format(time.RFC3339Nano)
	}
	if !c.To.IsZero() {
		words += " until " + c.To.UTC().Format(time.RFC3339Nano)
	}
	return words
}

// namespaces are where the lake keeps two data versions.
func namespaces(names []lake.Name, versions ...string) (spaces [2]string, err error) {
	known := map[string]string{} // by version
	for _, n := range names {
		if number, ok := strings.CutPrefix(n.Namespace, "v"); ok && dataVersion.MatchString(number) {
			known[number] = n.Namespace
		} else if n.Namespace == unversioned {
			known[unversioned] = n.Namespace
		}
	}
	for i, v := range versions {
		var ok bool
		if spaces[i], ok = known[v]; !ok {
			return spaces, &UnknownError{"data version", v, sortedKeys(known)}
		}
	}
	return spaces, nil
}

// unversioned is the data version of an instance that has none.
const unversioned = "unversioned"

// tables are the names of the tables to compare, in order.
func (c CompareConfig) tables(names []lake.Name, spaces [2]string) ([]string, error) {
	known := map[string]bool{}
	for _, n := range names {
		if slices.Contains(spaces[:], n.Namespace) {
			known[n.Table] = true
		}
	}
	if len(c.Tables) == 0 {
		return sortedKeys(known), nil
	}
	wanted := map[string]bool{}
	for _, t := range c.Tables {
		if !known[t] {
			return nil, &UnknownError{"table", t, sortedKeys(known)}
		}
		wanted[t] = true
	}
	return sortedKeys(wanted), nil
}
