package etl

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"millrace/plan"
	"millrace/record"
)

// App is a program that turns the items of its source types into tables.
type App struct {
	Name        string // ingest-etl-edgenuity-lms-job
	Version     string // 1.0.0
	Description string
	SourceTypes []string // which items it reads; empty means all
	Tables      []Transformer

	// Harvest are paths into events at which whole entities lie, which then count as described: "event.membership". Their
	// version is the event's time unless they have a dateModified; an event with the action Deleted ends them.
	Harvest []Path

	// Extract is Harvest for what paths cannot say: it emits the entities that lie in an event, as values of the event. It is pure,
	// and sees every event of the source types. Nil extracts none. An event that it fails on is a dead letter.
	Extract func(in Record, emit func(Value)) error

	// Retention is how long, in processing time, a version of an entity is kept once a newer one has come, for records that come late:
	// DefaultRetention unless set, for ever when negative. A record that comes later than that takes the earliest version that is kept.
	// Versions that waiting or corrected records may need are kept longer.
	Retention time.Duration

	// Renamed says what a table, or a join's state as describe names it, was called in an earlier version: old name → new name.
	// Records that wait for it follow. The rows of a renamed table that are published stay where they are, under the old name.
	Renamed map[string]string

	// Removed names tables and joins' states of earlier versions that are given up, with the records that wait for them. A version
	// that lacks one without saying so is refused where it has state.
	Removed []string
}

// DeadLetterTable is the table that every app has beside its own: one row for each record that became no row.
const DeadLetterTable = "dead_letter"

// Plan checks the app and turns it into a plan. The error holds every fault.
//
//	items ─▶ Read ─▶ dedup ─┬───────────────▶ join/A ─▶ join/B ─┬─────────▶ map ─▶ rows, dead letters
//	                        └─▶ latest/<table of entities> ─▶ … └─▶ base ─▶
//
// Read filters, unwinds and finds keys. dedup lets each event and entity version through once. Joins wait for entities, correct
// what they joined too early, and hand the record on. base gives corrected records back their events. map runs the app's Map.
func (a App) Plan() (*plan.Plan, error) {
	p := &program{app: a, retention: a.Retention, byName: map[string]*transformer{}, counterIndex: map[string]int{}}
	if p.retention == 0 {
		p.retention = DefaultRetention
	}
	var errs []error
	for _, t := range a.Tables {
		tr, err := t.transformer()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if tr.name == DeadLetterTable {
			errs = append(errs, fmt.Errorf("table %s: the name belongs to the framework", tr.name))
		}
		tr.index = len(p.tables)
		p.tables = append(p.tables, tr)
		p.byName[tr.name] = tr
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("app %s: %w", a.Name, err)
	}
	if err := p.compile(); err != nil {
		return nil, fmt.Errorf("app %s: %w", a.Name, err)
	}
	out := p.plan()
	if err := errors.Join(p.identify(out), out.Check()); err != nil {
		return nil, fmt.Errorf("app %s: %w", a.Name, err)
	}
	return out, nil
}

// program is an app ready to run.
type program struct {
	app       App
	retention time.Duration
	tables    []*transformer
	byName    map[string]*transformer
	layout    *layout
	head      headSlots
	harvest   []int // slots

	extractor *transformer // resolves the paths that Extract asks for

	joins  []*joinState // in topological order
	latest []*latestState

	// Indices into the plan's stages, and into its counters.
	dedupStage, baseStage, mapStage int
	stageIDs                        []uint32 // by stage
	stageByID                       map[uint32]int
	counterNames                    []string
	counterIndex                    map[string]int
	counts                          itemCounters
}

// headSlots are the slots of what Read needs of every item.
type headSlots struct{ id, typ, eventTime, action, dateModified int }

type itemCounters struct {
	read, rejects, unreadable, filtered, duplicates, conflicts, events, entities, harvested, replayed, versionsDropped int
}

type tableCounters struct {
	in, waiting, dropped, deleted, rows, corrections, deadLetters int
}

func (p *program) counter(name string) int {
	i, ok := p.counterIndex[name]
	if !ok {
		i = len(p.counterNames)
		p.counterNames = append(p.counterNames, name)
		p.counterIndex[name] = i
	}
	return i
}

func (p *program) compile() error {
	paths := []string{"id", "type", "eventTime", "action", "dateModified"}
	var harvest []string
	for _, h := range p.app.Harvest {
		alts, err := h.parse()
		if err != nil {
			return err
		}
		for _, a := range alts {
			if a.doc != "event" || a.path == "" {
				return fmt.Errorf("harvest path %q does not lead into an event; start it with \"event.\"", h)
			}
			harvest = append(harvest, a.path)
		}
	}
	paths = append(paths, harvest...)
	for _, t := range p.tables {
		ps, err := t.paths()
		if err != nil {
			return err
		}
		paths = append(paths, ps...)
	}
	var err error
	if p.layout, err = newLayout(paths); err != nil {
		return err
	}
	slot := p.layout.index
	p.extractor = &transformer{layout: p.layout, late: &sync.Map{}}
	p.head = headSlots{slot["id"], slot["type"], slot["eventTime"], slot["action"], slot["dateModified"]}
	for _, h := range harvest {
		p.harvest = append(p.harvest, slot[h])
	}
	p.counts = itemCounters{
		read: p.counter("read"), rejects: p.counter("rejects"), unreadable: p.counter("unreadable"),
		filtered: p.counter("filtered"), duplicates: p.counter("duplicates"), conflicts: p.counter("conflicts"),
		events: p.counter("events"), entities: p.counter("entities"), harvested: p.counter("harvested"),
		replayed: p.counter("replayed"), versionsDropped: p.counter("versions_dropped"),
	}
	for _, t := range p.tables {
		t.layout = p.layout
		if err := t.resolveKnown(); err != nil {
			return err
		}
		prefix := "table." + t.name + "."
		t.counters = tableCounters{
			in: p.counter(prefix + "in"), waiting: p.counter(prefix + "waiting"), dropped: p.counter(prefix + "dropped"),
			deleted: p.counter(prefix + "deleted"), rows: p.counter(prefix + "rows"),
			corrections: p.counter(prefix + "corrections"), deadLetters: p.counter(prefix + "dead_letters"),
		}
		if t.source.kind == record.Entity {
			p.latest = append(p.latest, &latestState{p: p, t: t})
		}
	}
	return p.registerJoins()
}

// registerJoins is the join registry: it gives each join of each table the state of the joins like it.
//
// States stand in an order in which every table passes them forwards. A table that needs two in the other order, or one twice (a
// student and a teacher, both a Person by id), gets a second copy of the state, whose name says so.
func (p *program) registerJoins() error {
	for _, t := range p.tables {
		at := -1 // place in p.joins of the table's join before
		for _, j := range t.joins {
			name := j.stateName()
			next := slices.IndexFunc(p.joins[at+1:], func(s *joinState) bool { return s.kind == name })
			if next >= 0 {
				at += 1 + next
			} else {
				s, err := newJoinState(p, j, name)
				if err != nil {
					return fmt.Errorf("table %s: %w", t.name, err)
				}
				at = len(p.joins)
				p.joins = append(p.joins, s)
			}
			t.joinStages = append(t.joinStages, at)
		}
	}
	copies := map[string]int{}
	for _, s := range p.joins {
		copies[s.kind]++
		if n := copies[s.kind]; n > 1 {
			s.name = fmt.Sprintf("%s#%d", s.kind, n)
		}
	}
	return nil
}

func (p *program) plan() *plan.Plan {
	p.dedupStage = 0
	firstJoin := 1 + len(p.latest)
	p.baseStage = firstJoin + len(p.joins)
	p.mapStage = p.baseStage + 1
	to := func(from int) (out []int) {
		for i := from; i <= p.mapStage; i++ {
			out = append(out, i)
		}
		return out
	}
	out := &plan.Plan{
		App: p.app.Name, Version: p.app.Version, Doc: p.app.Description,
		SourceTypes: p.app.SourceTypes,
		Read:        p.read,
		ReadTo:      []int{p.dedupStage},
		Counters:    p.counterNames,
		DeadLetter:  p.refused,
	}
	out.Stages = append(out.Stages, plan.Stage{
		Name: "dedup", Doc: "lets each event and each entity version through once", To: to(1), Keyed: p.dedup,
		Key: "id", Format: "fingerprints 1",
	})
	for i, s := range p.latest {
		s.stage = 1 + i
		out.Stages = append(out.Stages, plan.Stage{
			Name: latestPrefix + s.t.name, Doc: "the newest version of each entity", To: to(firstJoin), Keyed: s.keyed,
			Key: "id", Format: fmt.Sprintf("latest %d", latestFormat),
		})
	}
	for i, s := range p.joins {
		s.stage = firstJoin + i
		out.Stages = append(out.Stages, plan.Stage{
			Name: s.name, To: to(s.stage + 1), Keyed: s.keyed,
			Key: s.key, Format: fmt.Sprintf("versions %d, waiting %d, record %d", versionsFormat, pendingFormat, flowFormat),
			ListTags: []uint8{tagAgain, tagRetract, tagEntity},
		})
	}
	for _, t := range p.tables {
		for i, j := range t.joinStages {
			t.joinStages[i] = firstJoin + j
		}
		pt := plan.Table{Name: t.name, Doc: t.doc, Schema: t.columns.schema, Reads: t.source.String()}
		for i, j := range t.joins {
			pt.Joins = append(pt.Joins, j.describe(t.joinStages[i]))
		}
		if t.source.kind == record.Entity {
			// The newest version's time moves, and with it the day: a correction could not find the row it replaces.
			pt.Partition = []plan.PartitionField{{Column: "account_id", Transform: plan.Identity}}
		}
		out.Tables = append(out.Tables, pt)
	}
	for _, s := range p.joins {
		out.Stages[s.stage].Doc = s.doc()
	}
	out.Stages = append(out.Stages, plan.Stage{
		Name: "base", Doc: "keeps the events of records that may be corrected", To: to(p.mapStage), Keyed: p.base,
		Key: "id", Format: fmt.Sprintf("documents %d", baseFormat),
		ListTags: []uint8{tagRecord, tagFailed, tagExtend, tagHold},
	})
	out.Stages = append(out.Stages, plan.Stage{Name: "map", Doc: "runs the app's Map", Stateless: p.mapRows})
	out.Tables = append(out.Tables, plan.Table{
		Name: DeadLetterTable, Doc: "records that became no row, with every reason", Schema: deadLetterSchema,
		Partition: []plan.PartitionField{{Column: "account_id", Transform: plan.Identity}},
	})
	return out
}

// Tags of the messages between stages.
const (
	tagRecord   uint8 = iota + 1 // a record that comes for the first time
	tagAgain                     // a record that came before, to this key or another, with an older revision
	tagRetract                   // a record that went elsewhere: forget what came before
	tagEntity                    // an entity's version
	tagFailed                    // a record that becomes a dead letter
	tagWithdraw                  // a dead letter that goes: its record is replayed
	tagKeep                      // the documents that a record began with
	tagExtend                    // they are needed longer
	tagHold                      // they are needed longer, whatever happens: the record waits
)
