package plan

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

var (
	// Names end up as index names, as file names and in metrics.
	appName    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,99}$`)
	tableName  = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)
	columnName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)
)

// Check reports everything that makes p unfit to run: every problem at once, each naming the thing.
func (p *Plan) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if !appName.MatchString(p.App) {
		bad("app name %q: want lower-case letters, digits and dashes, starting with a letter", p.App)
	}
	if p.Read == nil {
		bad("plan %s has no Read function", p.App)
	}
	for _, to := range p.ReadTo {
		if to < 0 || to >= len(p.Stages) {
			bad("plan %s reads to stage %d of %d", p.App, to, len(p.Stages))
		}
	}
	stages := map[string]bool{}
	for i, s := range p.Stages {
		if s.Name == "" || stages[s.Name] {
			bad("stage %d has the name %q, which is empty or taken", i, s.Name)
		}
		stages[s.Name] = true
		if (s.Stateless == nil) == (s.Keyed == nil) {
			bad("stage %s must have exactly one of Stateless and Keyed", s.Name)
		}
		for _, to := range s.To {
			if to <= i || to >= len(p.Stages) {
				bad("stage %s sends to stage %d, which is not a later one", s.Name, to)
			}
		}
	}
	tables := map[string]bool{}
	for _, t := range p.Tables {
		if !tableName.MatchString(t.Name) {
			bad("table name %q: want lower-case letters, digits and underscores, starting with a letter", t.Name)
		}
		if tables[t.Name] {
			bad("table %s is declared twice", t.Name)
		}
		tables[t.Name] = true
		errs = append(errs, t.check()...)
		for _, j := range t.Joins {
			if j.Stage < 0 || j.Stage >= len(p.Stages) {
				bad("table %s joins in stage %d of %d", t.Name, j.Stage, len(p.Stages))
			}
		}
	}
	counters := map[string]bool{}
	for _, c := range p.Counters {
		if c == "" || counters[c] {
			bad("counter %q is empty or taken", c)
		}
		counters[c] = true
	}
	has := func(name string) bool { return stages[name] || tables[name] || counters[name] }
	for _, old := range slices.Sorted(maps.Keys(p.Renamed)) {
		if name := p.Renamed[old]; !has(name) {
			bad("%s is renamed to %s, which the plan does not have", old, name)
		}
		if has(old) {
			bad("%s is renamed to %s, and the plan still has %[1]s", old, p.Renamed[old])
		}
	}
	for _, name := range p.Removed {
		if has(name) {
			bad("%s is removed, and the plan still has it", name)
		}
		if to, ok := p.Renamed[name]; ok {
			bad("%s is removed, and renamed to %s", name, to)
		}
	}
	return errors.Join(errs...)
}

func (t Table) check() (errs []error) {
	columns := map[string]bool{}
	if !t.AppendOnly {
		for _, c := range MetaColumns {
			columns[c.Name] = true
		}
	}
	if len(t.Schema.Columns) == 0 {
		errs = append(errs, fmt.Errorf("table %s has no columns", t.Name))
	}
	seen := map[string]bool{} // targets such as DuckDB compare column names without regard to case
	for _, c := range t.Schema.Columns {
		switch {
		case !columnName.MatchString(c.Name):
			errs = append(errs, fmt.Errorf("column %q of table %s: want letters, digits and underscores", c.Name, t.Name))
		case columns[c.Name]:
			errs = append(errs, fmt.Errorf("column %s of table %s: the name is taken by the row's own metadata", c.Name, t.Name))
		case seen[strings.ToLower(c.Name)]:
			errs = append(errs, fmt.Errorf("column %s of table %s is declared twice", c.Name, t.Name))
		}
		seen[strings.ToLower(c.Name)] = true
		columns[c.Name] = true
		if c.Type < String || c.Type > Strings {
			errs = append(errs, fmt.Errorf("column %s of table %s has no known type", c.Name, t.Name))
		}
	}
	for _, f := range t.Partition {
		if !columns[f.Column] {
			errs = append(errs, fmt.Errorf("table %s is partitioned by %s, which is not a column", t.Name, f.Column))
		}
	}
	return errs
}

// Counter returns the index of a counter's name, and whether there is one.
func (p *Plan) Counter(name string) (int, bool) {
	for i, c := range p.Counters {
		if c == name {
			return i, true
		}
	}
	return 0, false
}

// Table returns the index of a table's name, and whether there is one.
func (p *Plan) Table(name string) (int, bool) {
	for i, t := range p.Tables {
		if t.Name == name {
			return i, true
		}
	}
	return 0, false
}
