package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"millrace"
	"millrace/engine"
	"millrace/etl"
	"millrace/ingest"
	"millrace/internal/spill"
	"millrace/lake"
	"millrace/plan"
	"millrace/sim"
)

// ledger is the bookkeeping of a data directory at rest: what was sent, where it is now, and whether that adds up.
type ledger struct {
	Sent      int64         `json:"sent"` // items, redeliveries and broken payloads included: as the simulator counts them, else as the log does
	Lake      int64         `json:"lake"` // events and entities in the raw lake
	Rejects   int64         `json:"rejects"`
	Replayed  int64         `json:"replayed"`            // records of the log that are there once more, for dead letters, or that say nothing
	Forgotten int64         `json:"forgotten,omitempty"` // records that 'millrace forget' has removed
	made                    // by the data version that serves
	Balanced  bool          `json:"balanced"`
	Checks    []ledgerCheck `json:"checks"`
	Unchecked []string      `json:"unchecked,omitempty"` // data versions that are not at rest because they are suspended or have failed
}

// made is what a data version has made of the records that it read.
type made struct {
	Duplicates  int64            `json:"duplicates"` // items that it had seen before
	Rows        map[string]int64 `json:"rows"`
	Waiting     int64            `json:"waiting"`
	DeadLetters int64            `json:"dead_letters"`
}

// ledgerCheck is one equation. Each side is counted in another place than the other.
type ledgerCheck struct {
	Name   string `json:"name"`
	Want   int64  `json:"want"`
	Most   int64  `json:"most,omitempty"` // when more than Want is right too
	Got    int64  `json:"got"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"` // of one that does not hold: where to look
}

func (l *ledger) equal(name string, want, got int64) {
	l.Checks = append(l.Checks, ledgerCheck{Name: name, Want: want, Got: got, OK: want == got})
}

// within is an equation of which one side is known to be between two numbers.
func (l *ledger) within(name string, least, most, got int64) {
	if least == most {
		l.equal(name, least, got)
		return
	}
	l.Checks = append(l.Checks, ledgerCheck{Name: name, Want: least, Most: most, Got: got, OK: least <= got && got <= most})
}

// auditor recomputes the ledger of a stack whose jobs do not run. What it has to remember of every row it sorts on disk: its memory does
// not grow with the lake, but for a bit or less for each record of the log.
type auditor struct {
	s    *stack
	l    ledger
	raw  engine.Progress
	sets []*spill.Set // to close

	sim    *sim.State // nil when the directory is not a demo's
	items  *spill.Set // hashes of the items in the raw lake that belong to the simulator's tenant
	tenant int64      // how many there are

	// Of the data version that is being checked:
	etl     *stackJob
	job     engine.Progress
	letters map[string]int64      // dead letters of records that became no row, by table
	refused map[string]*spill.Set // rows that a sink has refused, by table: id, and which sink
	records map[string]int64      // by table: those that were found somewhere

	whole []wholeVersion // data versions that have read all records
}

// wholeVersion is a data version that has read all records, with what was found of each table.
type wholeVersion struct {
	label   string
	records map[string]int64
}

// audit counts everything again from what is stored: the log, every row of the raw lake and of the tables, the index and the jobs'
// committed counters.
func audit(ctx context.Context, s *stack) (l ledger, err error) {
	a := &auditor{s: s, l: ledger{Balanced: true}, raw: s.raw.Progress()}
	defer func() { err = errors.Join(err, a.close()) }()
	for _, step := range []func(context.Context) error{a.atRest, a.readSimulator, a.rawLake, a.versions, a.simulator} {
		if err := step(ctx); err != nil {
			return a.l, fmt.Errorf("recompute the ledger: %w", err)
		}
	}
	for _, c := range a.l.Checks {
		a.l.Balanced = a.l.Balanced && c.OK
	}
	return a.l, nil
}

// set is a new set on the disk of the data directory.
func (a *auditor) set() *spill.Set {
	s := spill.New(a.s.cfg.dir.path, 0)
	a.sets = append(a.sets, s)
	return s
}

// close frees the sets.
func (a *auditor) close() error {
	var errs []error
	for _, s := range a.sets {
		errs = append(errs, s.Close())
	}
	a.sets = nil
	return errors.Join(errs...)
}

// atRest checks that nothing is on its way: every record of the log is processed, every row published.
func (a *auditor) atRest(ctx context.Context) error {
	ends, err := a.s.log.Ends(ctx)
	if err != nil {
		return err
	}
	a.l.Sent = total(ends)
	for _, j := range a.s.jobs() {
		if !j.works() {
			a.l.Unchecked = append(a.l.Unchecked, fmt.Sprintf("%s is %s", a.s.nameOf(j), j.state()))
			continue
		}
		p := j.Progress()
		a.l.equal(a.s.nameOf(j)+" has read the log", total(ends), total(p.Offsets))
		if x := p.Seeding; x != nil {
			a.l.equal(a.s.nameOf(j)+" has read its rows of the lake", x.Rows, x.Read)
		}
		for _, s := range p.Sinks {
			a.l.equal(a.s.nameOf(j)+": rows that "+s.Name+" has yet to publish", 0, s.PendingRows)
		}
	}
	return nil
}

// versions checks the tables of each data version by themselves.
func (a *auditor) versions(ctx context.Context) error {
	var served made
	for _, j := range a.s.versions() {
		if !j.works() {
			continue
		}
		a.etl, a.job = j, j.Progress()
		a.letters, a.refused, a.records, a.l.made = map[string]int64{}, map[string]*spill.Set{}, map[string]int64{}, made{Rows: map[string]int64{}}
		label, from := "", len(a.l.Checks)
		if j.line() != etlLine || j.instance.DataVersion != millrace.Unversioned {
			label = j.instance.DataVersion + ": "
		}
		if j.instance.Singleton {
			label = j.instance.Program + ": "
		}
		if err := a.tables(ctx); err != nil {
			return err
		}
		for i := range a.l.Checks[from:] {
			a.l.Checks[from+i].Name = label + a.l.Checks[from+i].Name
		}
		if j.line() != etlLine {
			continue // the simulator knows nothing of it
		}
		if a.s.serves(j) {
			served = a.l.made
		}
		if r := j.seed; r == nil || r.From.IsZero() && r.To.IsZero() && len(r.Envs) == 0 && len(r.SourceTypes) == len(j.program().plan.SourceTypes) {
			a.whole = append(a.whole, wholeVersion{label, a.records})
		}
	}
	a.l.made = served
	return nil
}

// rawLake checks that the lake holds each record of the log once.
func (a *auditor) rawLake(ctx context.Context) error {
	columns := []string{"account", "partition", "offset"}
	if a.sim != nil {
		a.items = a.set()
		columns = append(columns, "bytes")
	}
	positions, distinct := map[int64]*roaring64.Bitmap{}, int64(0)
	var counts [3]int64
	for i, t := range a.s.raw.program().plan.Tables {
		table, err := a.verified(ctx, ingest.Namespace, t)
		if err != nil {
			return err
		}
		upkeep, err := table.Upkeep(ctx)
		if err != nil {
			return err
		}
		a.l.Forgotten += upkeep.Erased
		for row, err := range table.Scan(ctx, lake.ScanOptions{Columns: columns}) {
			if err != nil {
				return err
			}
			counts[i]++
			partition := row["partition"].(int64)
			if positions[partition] == nil {
				positions[partition] = roaring64.New()
			}
			if positions[partition].CheckedAdd(uint64(row["offset"].(int64))) { //nolint:gosec // only whether it is another one
				distinct++
			}
			if row["account"] != demoAccount {
				continue
			}
			a.tenant++
			if a.items != nil {
				if err := a.items.Add(hashOf(row["bytes"].([]byte)), spill.Hash{}); err != nil {
					return err
				}
			}
		}
	}
	a.l.Lake, a.l.Rejects = counts[ingest.Events]+counts[ingest.Entities], counts[ingest.Rejects]
	a.l.Replayed = a.raw.Counters["replayed"]
	a.l.equal("records of the log = lake + rejects + replayed + forgotten", a.l.Sent, a.l.Lake+a.l.Rejects+a.l.Replayed+a.l.Forgotten)
	a.l.equal("log positions in the lake, each once", a.l.Lake+a.l.Rejects, distinct)
	return nil
}

// verified opens a table of the lake whose files are all what was written.
func (a *auditor) verified(ctx context.Context, namespace string, t plan.Table) (*lake.Table, error) {
	table, err := a.s.lake.Lookup(ctx, lake.Name{Namespace: namespace, Table: t.Name})
	if err != nil {
		return nil, err
	}
	return table, table.Verify(ctx)
}

// tables checks that every record of a table is one row, the same in lake, index and topic, or a dead letter, or waits, or is counted
// as gone.
func (a *auditor) tables(ctx context.Context) error {
	c := a.job.Counters
	a.l.Duplicates = c["duplicates"]
	a.l.equal("read = events + entities + filtered + rejects + unreadable + replayed",
		c["read"], c["events"]+c["entities"]+c["filtered"]+c["rejects"]+c["unreadable"]+c["replayed"])
	for _, t := range slices.Backward(a.etl.program().plan.Tables) { // dead letters are the last: the others are compared with them
		if _, err := a.verified(ctx, a.etl.instance.Namespace(), t); err != nil {
			return err
		}
		rows, lost, err := a.table(ctx, t)
		if err != nil {
			return err
		}
		if t.Name == etl.DeadLetterTable {
			a.l.DeadLetters = rows
			continue
		}
		a.l.Rows[t.Name] = rows
		prefix := "table." + t.Name + "."
		a.records[t.Name] = rows + lost + a.letters[t.Name] + c[prefix+"waiting"] + c[prefix+"dropped"] + c[prefix+"deleted"]
	}
	for _, name := range slices.Sorted(maps.Keys(a.l.Rows)) {
		prefix := "table." + name + "."
		a.l.Waiting += c[prefix+"waiting"]
		a.l.equal(name+": records = rows + dead letters + waiting + dropped + deleted", c[prefix+"in"], a.records[name])
	}
	return nil
}

// print writes the ledger for people: what adds up in a line each, what does not first.
func (l ledger) print(w io.Writer) error {
	var b strings.Builder
	for _, ok := range []bool{false, true} {
		for _, c := range l.Checks {
			if c.OK != ok {
				continue
			}
			mark := "ok  "
			if !ok {
				mark = "BAD "
			}
			fmt.Fprintf(&b, "%s%s: %d", mark, c.Name, c.Want)
			if c.Most > 0 {
				fmt.Fprintf(&b, " to %d", c.Most)
			}
			if c.Got != c.Want {
				fmt.Fprintf(&b, ", found %d", c.Got)
			}
			if c.Detail != "" {
				fmt.Fprintf(&b, "; %s", c.Detail)
			}
			b.WriteByte('\n')
		}
	}
	rows := int64(0)
	for _, n := range l.Rows {
		rows += n
	}
	fmt.Fprintf(&b, "sent %d, lake %d, rejects %d, replayed %d, duplicates %d, rows %d, waiting %d, dead letters %d\n",
		l.Sent, l.Lake, l.Rejects, l.Replayed, l.Duplicates, rows, l.Waiting, l.DeadLetters)
	for _, u := range l.Unchecked {
		fmt.Fprintf(&b, "not checked: %s\n", u)
	}
	if l.Balanced {
		b.WriteString("the ledger balances\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
