package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Change is one difference between two versions of a plan, and what it means for an instance that goes from one to the other.
type Change struct {
	What    string `json:"what"`    // stage join/Person/id removed
	Meaning string `json:"meaning"` // what becomes of state and rows; when refused, why, and what to do
	Refused bool   `json:"refused"`
}

// Comparison is what an instance would go through on its way from one version of its plan to another.
type Comparison struct {
	App     string   `json:"app"`
	From    string   `json:"from"` // versions
	To      string   `json:"to"`
	Changes []Change `json:"changes"`

	// What a runner does to the state, when nothing is refused.
	RenamedStages map[string]string `json:"-"` // old name → new name
	RemovedStages []string          `json:"-"` // by their old names
	RenamedTables map[string]string `json:"-"`
	RemovedTables []string          `json:"-"`
}

// RefusedError says why a plan cannot go on with the state of another.
type RefusedError struct {
	App, From, To string // versions of the app
	Why           error  // all reasons
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s cannot go from version %s to %s: %s", e.App, e.From, e.To, e.Why)
}

func (e *RefusedError) Unwrap() error { return e.Why }

// Err returns all that is refused, as a *RefusedError, or nil.
func (c Comparison) Err() error {
	var errs []error
	for _, ch := range c.Changes {
		if ch.Refused {
			errs = append(errs, fmt.Errorf("%s: %s", ch.What, ch.Meaning))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return &RefusedError{c.App, c.From, c.To, errors.Join(errs...)}
}

// Compare says what it means for an instance of the plan was to go on as the plan now. holds says whether a stage of was has any
// state; nil stands for yes.
//
// The rule: what keeps its name and its meaning goes on. What would lose records or state is refused, unless the app says that it
// means it (Plan.Removed), or where the state went (Plan.Renamed). What targets cannot hold beside the rows they have is refused.
func Compare(was, now Description, holds func(stage string) bool) Comparison {
	c := &comparer{
		Comparison: Comparison{
			App: now.App, From: was.Version, To: now.Version, Changes: []Change{},
			RenamedStages: map[string]string{}, RenamedTables: map[string]string{},
		},
		was: was, now: now, holds: holds,
	}
	if c.holds == nil {
		c.holds = func(string) bool { return true }
	}
	if was.App != now.App {
		c.refuse("app "+was.App+" became "+now.App, "it is another app's state: give the new app an instance of its own")
		return c.Comparison
	}
	c.sources()
	c.stages()
	c.tables()
	c.counters()
	return c.Comparison
}

type comparer struct {
	Comparison
	was, now Description
	holds    func(string) bool
}

func (c *comparer) allow(what, meaning string, args ...any) {
	c.Changes = append(c.Changes, Change{What: what, Meaning: fmt.Sprintf(meaning, args...)})
}

func (c *comparer) refuse(what, meaning string, args ...any) {
	c.Changes = append(c.Changes, Change{What: what, Meaning: fmt.Sprintf(meaning, args...), Refused: true})
}

// orAnew is the way out of what an instance cannot go through.
const orAnew = "or start a new data version and seed it"

func (c *comparer) sources() {
	was, now := c.was.SourceTypes, c.now.SourceTypes
	switch {
	case len(was) == 0 && len(now) == 0:
	case len(now) == 0:
		c.allow("source types: now all", "items of the types that are new are read from here on; those before are not")
	case len(was) == 0:
		c.allow("source types: now "+strings.Join(now, ", "), "items of other types are not read any more")
	default:
		for _, t := range without(now, was) {
			c.allow("source type "+t+" added", "its items are read from here on; those before are not")
		}
		for _, t := range without(was, now) {
			c.allow("source type "+t+" removed", "its items are not read any more; what was made of them stays")
		}
	}
}

func (c *comparer) stages() {
	now := map[string]StageDescription{}
	var added []string
	for _, s := range keyedStages(c.now) {
		now[s.Name] = s
		added = append(added, s.Name)
	}
	for _, old := range keyedStages(c.was) {
		name := old.Name
		if to, ok := c.now.Renamed[name]; ok {
			if _, ok := now[to]; ok {
				name = to
			}
		}
		s, ok := now[name]
		if !ok {
			c.stageRemoved(old, added, now)
			continue
		}
		if i := slices.Index(added, name); i >= 0 {
			added = slices.Delete(added, i, i+1)
		} else {
			c.refuse(fmt.Sprintf("stage %s renamed to %s", old.Name, name), "another stage has become %s too: give each a name of its own", name)
			continue
		}
		what := "stage " + name
		if name != old.Name {
			what = fmt.Sprintf("stage %s renamed to %s", old.Name, name)
		}
		switch {
		case (old.Key != s.Key || old.Format != s.Format) && !c.holds(old.Name):
			c.RemovedStages = append(c.RemovedStages, old.Name)
			c.allow(what, "it has no state yet, and begins anew")
		case old.Key != s.Key:
			c.refuse(what, "its state is kept by %s and would be looked for by %s: give it another name, name the old one in Removed, and seed a new data version if the state is needed",
				orUnknown(old.Key), orUnknown(s.Key))
		case old.Format != s.Format:
			c.refuse(what, "its state has the format %q and this version reads %q: run the version that wrote it, %s", old.Format, s.Format, orAnew)
		case name != old.Name:
			c.RenamedStages[old.Name] = name
			c.allow(what, "its state goes on under the new name")
		}
	}
	for _, name := range added {
		c.allow("stage "+name+" added", "it begins without state: what came before it is not known to it; go back to a savepoint to read that again, %s", orAnew)
	}
}

func (c *comparer) stageRemoved(old StageDescription, added []string, now map[string]StageDescription) {
	what := "stage " + old.Name + " removed"
	switch {
	case !c.holds(old.Name):
		c.RemovedStages = append(c.RemovedStages, old.Name)
		c.allow(what, "it has no state")
		return
	case slices.Contains(c.now.Removed, old.Name):
		c.RemovedStages = append(c.RemovedStages, old.Name)
		c.allow(what, "its state is deleted, with the records that wait in it")
		return
	}
	hint := fmt.Sprintf("keep it, or name it in Removed to delete its state: Removed: []string{%q}", old.Name)
	for _, name := range added {
		if s := now[name]; old.Key != "" && s.Key == old.Key && s.Format == old.Format {
			hint = fmt.Sprintf("if it is now called %s, say so: Renamed: map[string]string{%q: %q}; otherwise %s", name, old.Name, name, hint)
			break
		}
	}
	c.refuse(what, "its state would be lost, with the records that wait in it; %s", hint)
}

func (c *comparer) tables() {
	seen := map[string]bool{}
	for _, old := range c.was.Tables {
		name := old.Name
		if to, ok := c.now.Renamed[name]; ok {
			if _, ok := c.now.Table(to); ok {
				name = to
			}
		}
		t, ok := c.now.Table(name)
		switch {
		case !ok && slices.Contains(c.now.Removed, old.Name):
			c.RemovedTables = append(c.RemovedTables, old.Name)
			c.allow("table "+old.Name+" removed", "its rows stay in index and lake; records that wait to become rows of it are dropped")
			continue
		case !ok:
			c.refuse("table "+old.Name+" removed", "records that wait to become rows of it would be lost; keep it, or name it in Removed: Removed: []string{%q}", old.Name)
			continue
		case seen[name]:
			c.refuse(fmt.Sprintf("table %s renamed to %s", old.Name, name), "another table has become %s too: give each a name of its own", name)
			continue
		}
		seen[name] = true
		if name != old.Name {
			c.RenamedTables[old.Name] = name
			c.allow(fmt.Sprintf("table %s renamed to %s", old.Name, name),
				"rows published so far stay in %s of index and lake; rows from here on, those of waiting records and corrections too, go to %s", old.Name, name)
		}
		c.table(old, t)
	}
	for _, t := range c.now.Tables {
		if !seen[t.Name] {
			c.allow("table "+t.Name+" added", "it begins empty, with what is read from here on; go back to a savepoint to read more, %s", orAnew)
		}
	}
}

func (c *comparer) table(old, now TableDescription) {
	if old.Reads != now.Reads {
		c.allow("table "+now.Name+" reads "+now.Reads, "from here on; it read %s", orUnknown(old.Reads))
	}
	if old.AppendOnly != now.AppendOnly {
		c.refuse("table "+now.Name, "it was append-only, or has become so, and its rows cannot be both: give it another name")
	}
	if was, is := strings.Join(old.Partition, ", "), strings.Join(now.Partition, ", "); was != is {
		c.refuse("table "+now.Name+" partitioned by "+is, "its rows in the lake are partitioned by %s: keep that, %s", was, orAnew)
	}
	c.joins(old, now)
	c.columns(old, now)
}

func (c *comparer) joins(old, now TableDescription) {
	for i, was := range old.Joins {
		what := fmt.Sprintf("join %s.%s", now.Name, was.Field)
		if i >= len(now.Joins) {
			c.refuse(what+" removed", "records on their way through it would be lost, and rows could not be corrected any more: keep it, give the table another name, %s", orAnew)
			continue
		}
		is := now.Joins[i]
		stage := was.Stage
		if to, ok := c.RenamedStages[stage]; ok {
			stage = to
		}
		if stage != is.Stage {
			c.refuse(fmt.Sprintf("%s over %s became %s over %s", what, stage, is.Field, is.Stage),
				"records on their way through it would be lost: keep the joins there are in their order and add new ones at the end, give the table another name, %s", orAnew)
			return // those that follow are moved likewise
		}
		if was.Field != is.Field {
			if i == len(old.Joins)-1 {
				c.allow(fmt.Sprintf("%s is now called %s", what, is.Field), "for all records that have yet to pass it")
			} else {
				c.refuse(fmt.Sprintf("%s is now called %s", what, is.Field), "records that have passed it, and wait in a later join, have it under the old name: keep the name, %s", orAnew)
			}
		}
		if !slices.Equal(was.Record, is.Record) {
			c.allow(fmt.Sprintf("%s joins by %s", what, strings.Join(is.Record, ", ")),
				"from here on; records that wait, and rows there are, keep the entity of %s", strings.Join(was.Record, ", "))
		}
		if was.WaitFor != is.WaitFor {
			c.allow(fmt.Sprintf("%s waits for %s", what, is.WaitFor), "records that come from here on; those that wait keep their time, of at most %s", was.WaitFor)
		}
		if was.CorrectFor != is.CorrectFor {
			c.allow(fmt.Sprintf("%s corrects for %s", what, is.CorrectFor), "records that come from here on; rows there are keep their time, of at most %s", was.CorrectFor)
		}
		if was.Else != is.Else {
			c.allow(fmt.Sprintf("%s, else %s", what, is.Else), "for all whose time to wait ends from here on; it was %s", was.Else)
		}
	}
	for _, j := range now.Joins[min(len(old.Joins), len(now.Joins)):] {
		c.allow(fmt.Sprintf("join %s.%s added", now.Name, j.Field), "records pass it from here on; rows there are go without its entity, also when they are corrected")
	}
}

func (c *comparer) columns(old, now TableDescription) {
	was, err := ParseAvro(old.Schema)
	if err != nil {
		c.refuse("table "+now.Name, "its old schema cannot be read: %v", err)
		return
	}
	is, err := ParseAvro(now.Schema)
	if err != nil {
		c.refuse("table "+now.Name, "its schema cannot be read: %v", err)
		return
	}
	for _, o := range was.Columns {
		what := "column " + now.Name + "." + o.Name
		i := slices.IndexFunc(is.Columns, func(n Column) bool { return n.Name == o.Name })
		if i < 0 {
			c.allow(what+" removed", "index and lake keep it, and it is null in rows from here on")
			continue
		}
		switch n := is.Columns[i]; {
		case o.Type != n.Type:
			c.refuse(fmt.Sprintf("%s became %s", what, n.Type), "it is a %s in index and lake: give the new one another name, %s", o.Type, orAnew)
		case o.Nullable && !n.Nullable:
			c.refuse(what+" became required", "there are rows without it: keep it nullable, %s", orAnew)
		case !o.Nullable && n.Nullable:
			c.allow(what+" became nullable", "in the lake too; the index has no required fields")
		}
	}
	for _, n := range is.Columns {
		if slices.ContainsFunc(was.Columns, func(o Column) bool { return o.Name == n.Name }) {
			continue
		}
		what := "column " + now.Name + "." + n.Name + " added"
		if n.Nullable {
			c.allow(what, "it is null in the rows there are; index and lake get it when the job starts")
		} else {
			c.refuse(what, "the rows there are have no value for it: make it nullable, %s", orAnew)
		}
	}
}

// counters are said when nothing else that changes explains them.
func (c *comparer) counters() {
	explained := func(name string) bool {
		table, ok := strings.CutPrefix(name, "table.")
		if !ok {
			return false
		}
		table, _, _ = strings.Cut(table, ".")
		_, was := c.was.Table(table)
		_, is := c.now.Table(table)
		return was != is
	}
	for _, name := range without(c.now.Counters, c.was.Counters) {
		if !explained(name) && !renamedTo(c.now.Renamed, name) {
			c.allow("counter "+name+" added", "it counts from here on")
		}
	}
	for _, name := range without(c.was.Counters, c.now.Counters) {
		if to, ok := c.now.Renamed[name]; ok && !explained(name) {
			c.allow(fmt.Sprintf("counter %s renamed to %s", name, to), "it goes on under the new name")
		} else if !explained(name) {
			c.allow("counter "+name+" removed", "it is not shown any more")
		}
	}
}

func renamedTo(renamed map[string]string, name string) bool {
	for _, to := range renamed {
		if to == name {
			return true
		}
	}
	return false
}

func keyedStages(d Description) (out []StageDescription) {
	for _, s := range d.Stages {
		if s.Keyed {
			out = append(out, s)
		}
	}
	return out
}

// without returns what of a is not in b.
func without(a, b []string) (out []string) {
	for _, s := range a {
		if !slices.Contains(b, s) {
			out = append(out, s)
		}
	}
	return out
}

func orUnknown(s string) string {
	if s == "" {
		return "what it did not say"
	}
	return s
}
