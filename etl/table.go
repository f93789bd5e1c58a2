package etl

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"
	"unsafe"

	"millrace/plan"
	"millrace/record"
)

// Table is one typed table of an app: what it reads, what it joins, and how a record becomes a row. Row is a struct whose fields
// are the columns.
//
// FlatMap and Map are pure: no clock, no I/O, no package variables written. Replays depend on it.
type Table[Row any] struct {
	Name string // quiz_submission
	Doc  string
	From Source

	// FlatMap filters what From cannot say, and unwinds: it emits one record for each row. Nil emits the record as it is.
	// Events only.
	FlatMap func(in Record, emit func(Record)) error

	Joins []Join // in order: a join may use what those before it found
	Map   func(r *Reader) (Row, error)
}

// Transformer is a Table of some row type.
type Transformer interface {
	transformer() (*transformer, error)
}

// transformer is a table without its row type.
type transformer struct {
	name    string
	doc     string
	source  Source
	joins   []Join
	flatMap func(in Record, emit func(Record)) error
	columns *columns

	// encode runs Map and appends the row as Avro.
	encode func(r *Reader, dst []byte, cells []plan.Cell) ([]byte, error)
	asked  []Path // the paths that Map was seen to ask for, in order

	index      int // in the plan's tables
	layout     *layout
	trail      []resolvedPath   // of asked
	known      map[Path]int     // where in trail a path is
	conditions [][]resolvedPath // of each join, the record's side
	late       *sync.Map        // other paths, when they are asked for: Path → resolvedPath
	joinStages []int            // the stage of each join
	counters   tableCounters

	correctFor   time.Duration // the longest of its joins
	compared     []compared    // what light records carry
	comparedHash []uint32      // by number of joins: of the paths by which that many first ones join
}

// resolvedPath is a path ready for look-ups.
type resolvedPath struct {
	path         Path
	alternatives []resolved
}

// resolved is one alternative of a path, ready for look-ups.
type resolved struct {
	doc      string
	layout   *layout
	slot     int           // in the layout; -1: not in it
	late     *record.Paths // finds the path where the layout does not
	compared int           // 1 + its place among what light records carry; 0 when it is not there
}

func (t Table[Row]) transformer() (*transformer, error) {
	out := &transformer{name: t.Name, doc: t.Doc, source: t.From, joins: t.Joins, flatMap: t.FlatMap, late: &sync.Map{}}
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("table "+t.Name+": "+format, args...))
	}
	var err error
	if out.columns, err = columnsOf(reflect.TypeFor[Row]()); err != nil {
		bad("%w", err)
	}
	if len(t.From.types) == 0 {
		bad("From names no type; use etl.Events or etl.Entities")
	}
	if t.From.kind == record.Entity && t.FlatMap != nil {
		bad("FlatMap reads events; a table of entities has one row an entity")
	}
	if t.From.kind == record.Entity && len(t.From.actions) > 0 {
		bad("Actions filters events; entities have none")
	}
	docs := []string{t.From.base()}
	for _, j := range t.Joins {
		if t.FlatMap == nil { // FlatMap attaches documents of its own
			if err := j.check(docs); err != nil {
				bad("%w", err)
			}
		}
		docs = append(docs, j.field)
	}
	if n := out.steps(); n > maxSteps {
		bad("%d joins; at most %d", len(t.Joins), maxSteps-(n-len(t.Joins)))
	}
	if t.Map == nil {
		bad("Map is missing")
		return nil, errors.Join(errs...)
	}
	out.encode = func(r *Reader, dst []byte, cells []plan.Cell) ([]byte, error) {
		row, err := t.Map(r)
		if err != nil {
			r.problems = append(r.problems, Problem{Reason: err.Error()})
		}
		if len(r.problems) > 0 {
			return dst, errProblems
		}
		return out.columns.append(dst, unsafe.Pointer(&row), cells)
	}
	probe(&Reader{t: out, flow: &flow{}, asked: &out.asked}, func(r *Reader) { _, _ = t.Map(r) })
	for _, p := range out.asked {
		if _, err := p.parse(); err != nil {
			bad("%w", err)
		}
	}
	return out, errors.Join(errs...)
}

// probe runs a Map on a record without values, to learn which paths it asks for. What it finds is only used to look them up
// faster, so a Map that cannot run on nothing may fail here.
func probe(r *Reader, run func(*Reader)) {
	defer func() { _ = recover() }()
	run(r)
}

// steps is how many steps can correct a row of the table.
func (t *transformer) steps() int {
	n := len(t.joins)
	if t.source.kind == record.Entity {
		n++
	}
	return n
}

// step is the number of the join that f comes to next.
func (t *transformer) step(f *flow) int {
	if t.source.kind == record.Entity {
		return len(f.revs) - 1
	}
	return len(f.revs)
}

// correctable is how long after f came to its next join an earlier step may still correct it: an entity's next version may come
// at any time.
func (t *transformer) correctable(f *flow) (d time.Duration, ever bool) {
	for _, j := range t.joins[:t.step(f)] {
		d = max(d, j.correctFor)
	}
	return d, t.source.kind == record.Entity
}

// paths are the document paths, without document, that the table is known to ask for.
func (t *transformer) paths() (out []string, err error) {
	add := func(p Path) {
		alts, e := p.parse()
		err = errors.Join(err, e)
		for _, a := range alts {
			out = append(out, a.path)
		}
	}
	for _, p := range t.asked {
		add(p)
	}
	for _, j := range t.joins {
		for _, c := range j.conditions {
			add(c.entity)
			add(c.record)
		}
	}
	return out, err
}

// resolveKnown prepares the paths that the table is known to ask for.
func (t *transformer) resolveKnown() error {
	t.known = map[Path]int{}
	for _, p := range t.asked {
		if _, again := t.known[p]; again {
			continue
		}
		r, err := t.resolve(p)
		if err != nil {
			return err
		}
		t.known[p] = len(t.trail)
		t.trail = append(t.trail, r)
	}
	for _, j := range t.joins {
		var conditions []resolvedPath
		for _, c := range j.conditions {
			r, err := t.resolve(c.record)
			if err != nil {
				return err
			}
			conditions = append(conditions, r)
		}
		t.conditions = append(t.conditions, conditions)
	}
	t.findCompared()
	return nil
}

// resolve prepares a path for look-ups, once.
func (t *transformer) resolve(p Path) (resolvedPath, error) {
	if r, ok := t.late.Load(p); ok {
		return r.(resolvedPath), nil
	}
	alts, err := p.parse()
	if err != nil {
		return resolvedPath{}, err
	}
	out := resolvedPath{p, make([]resolved, len(alts))}
	for i, a := range alts {
		slot, ok := t.layout.index[a.path]
		out.alternatives[i] = resolved{doc: a.doc, layout: t.layout, slot: slot}
		if !ok {
			out.alternatives[i].slot = -1
			if out.alternatives[i].late, err = record.Compile(a.path); err != nil {
				return resolvedPath{}, err
			}
		}
	}
	t.late.Store(p, out)
	return out, nil
}

var errProblems = errors.New("record has problems")
