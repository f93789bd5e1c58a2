package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/zeebo/xxh3"

	"millrace/delivery"
	"millrace/engine"
	"millrace/etl"
	"millrace/ingest"
	"millrace/lake"
	"millrace/plan"
	"millrace/sim"
	"millrace/sink/topic"
)

// ledger is the bookkeeping of a data directory at rest: what was sent, where it is now, and whether that adds up.
type ledger struct {
	Sent        int64            `json:"sent"` // items, redeliveries and broken payloads included: as the simulator counts them, else as the log does
	Lake        int64            `json:"lake"` // events and entities in the raw lake
	Rejects     int64            `json:"rejects"`
	Replayed    int64            `json:"replayed"`   // records of the log that are there once more, for dead letters
	Duplicates  int64            `json:"duplicates"` // items that the ETL job had seen before
	Rows        map[string]int64 `json:"rows"`
	Waiting     int64            `json:"waiting"`
	DeadLetters int64            `json:"dead_letters"`
	Balanced    bool             `json:"balanced"`
	Checks      []ledgerCheck    `json:"checks"`
}

// ledgerCheck is one equation. Each side is counted in another place than the other.
type ledgerCheck struct {
	Name string `json:"name"`
	Want int64  `json:"want"`
	Got  int64  `json:"got"`
	OK   bool   `json:"ok"`
}

func (l *ledger) equal(name string, want, got int64) {
	l.Checks = append(l.Checks, ledgerCheck{name, want, got, want == got})
}

// auditor recomputes the ledger of a stack whose jobs do not run.
type auditor struct {
	s        *stack
	l        ledger
	job, raw engine.Progress

	hashes map[xxh3.Uint128]struct{} // of the items in the raw lake
	tenant int64                     // rows of the raw lake that belong to the simulator's tenant

	records map[string]int64 // by table: those that were found somewhere
}

// audit counts everything again from what is stored: the log, every row of the raw lake and of the tables, the index and the jobs'
// committed counters.
func audit(ctx context.Context, s *stack) (ledger, error) {
	a := &auditor{
		s: s, l: ledger{Rows: map[string]int64{}, Balanced: true},
		hashes: map[xxh3.Uint128]struct{}{}, records: map[string]int64{},
		job: s.etl.Progress(), raw: s.raw.Progress(),
	}
	for _, step := range []func(context.Context) error{a.atRest, a.rawLake, a.tables, a.simulator} {
		if err := step(ctx); err != nil {
			return a.l, fmt.Errorf("recompute the ledger: %w", err)
		}
	}
	for _, c := range a.l.Checks {
		a.l.Balanced = a.l.Balanced && c.OK
	}
	return a.l, nil
}

// atRest checks that nothing is on its way: every record of the log is processed, every row published.
func (a *auditor) atRest(ctx context.Context) error {
	ends, err := a.s.log.Ends(ctx)
	if err != nil {
		return err
	}
	a.l.Sent = total(ends)
	for _, j := range []struct {
		*stackJob
		p engine.Progress
	}{{a.s.raw, a.raw}, {a.s.etl, a.job}} {
		a.l.equal(j.instance.Program+" has read the log", total(ends), total(j.p.Offsets))
		for _, s := range j.p.Sinks {
			a.l.equal(j.instance.Program+": rows that "+s.Name+" has yet to publish", 0, s.PendingRows)
		}
	}
	return nil
}

// rawLake checks that the lake holds each record of the log once.
func (a *auditor) rawLake(ctx context.Context) error {
	positions := map[string]struct{}{}
	var counts [3]int64
	for i, t := range a.s.raw.plan.Tables {
		table, err := a.s.lake.Lookup(ctx, lake.Name{Namespace: ingest.Namespace, Table: t.Name})
		if err != nil {
			return err
		}
		if err := table.Verify(ctx); err != nil {
			return err
		}
		for row, err := range table.Scan(ctx, lake.ScanOptions{Columns: []string{"account", "partition", "offset", "bytes"}}) {
			if err != nil {
				return err
			}
			counts[i]++
			positions[fmt.Sprint(row["partition"], "/", row["offset"])] = struct{}{}
			a.hashes[xxh3.Hash128(row["bytes"].([]byte))] = struct{}{}
			if row["account"] == demoAccount {
				a.tenant++
			}
		}
	}
	a.l.Lake, a.l.Rejects = counts[ingest.Events]+counts[ingest.Entities], counts[ingest.Rejects]
	a.l.Replayed = a.raw.Counters["replayed"]
	a.l.equal("records of the log = lake + rejects + replayed", a.l.Sent, a.l.Lake+a.l.Rejects+a.l.Replayed)
	a.l.equal("log positions in the lake, each once", a.l.Lake+a.l.Rejects, int64(len(positions)))
	return nil
}

// tables checks that every record of a table is one row, in lake and index, or a dead letter, or waits, or is counted as gone.
func (a *auditor) tables(ctx context.Context) error {
	c := a.job.Counters
	a.l.Duplicates = c["duplicates"]
	a.l.equal("read = events + entities + filtered + rejects + unreadable + replayed",
		c["read"], c["events"]+c["entities"]+c["filtered"]+c["rejects"]+c["unreadable"]+c["replayed"])
	letters, refused := map[string]int64{}, map[string]map[string]int64{}
	for _, t := range slices.Backward(a.s.etl.plan.Tables) { // dead letters are the last: the others are compared with them
		ids, revs, err := a.lakeRows(ctx, t, letters, refused)
		if err != nil {
			return err
		}
		inIndex, err := a.s.index.Totals(ctx, t.Name)
		if err != nil && !errors.Is(err, delivery.ErrNotFound) {
			return err
		}
		a.same(t.Name, "index", ids, revs, inIndex.Rows, inIndex.RevSum, refused[t.Name]["iceberg"], refused[t.Name]["elastic"])
		if err := a.topic(ctx, t.Name, ids, revs, refused[t.Name]); err != nil {
			return err
		}
		if t.Name == etl.DeadLetterTable {
			a.l.DeadLetters = ids
			continue
		}
		a.l.Rows[t.Name] = ids
	}
	for _, name := range slices.Sorted(maps.Keys(a.l.Rows)) {
		prefix := "table." + name + "."
		a.l.Waiting += c[prefix+"waiting"]
		a.records[name] = a.l.Rows[name] + refused[name]["iceberg"] + letters[name] + c[prefix+"waiting"] + c[prefix+"dropped"] + c[prefix+"deleted"]
		a.l.equal(name+": records = rows + dead letters + waiting + dropped + deleted", c[prefix+"in"], a.records[name])
	}
	return nil
}

// same checks that another target holds the rows that the lake holds, but for those of which a dead letter says that one of the two has
// refused them.
func (a *auditor) same(table, target string, ids, revs, otherIDs, otherRevs, lakeRefused, otherRefused int64) {
	a.l.equal(table+": rows of the lake are in the "+target, ids+lakeRefused, otherIDs+otherRefused)
	if lakeRefused+otherRefused == 0 {
		a.l.equal(table+": sum of the revisions of the lake's rows is the "+target+"'s", revs, otherRevs)
	}
}

// topic checks that a table's topic holds what the lake holds, when the directory has table topics.
func (a *auditor) topic(ctx context.Context, table string, ids, revs int64, refused map[string]int64) error {
	if !a.s.cfg.dir.head.TableTopics {
		return nil
	}
	t, err := topic.Count(ctx, a.s.log, a.s.etl.instance.Namespace(), table)
	if err != nil {
		return err
	}
	a.same(table, "table topic", ids, revs, t.Rows, t.RevSum, refused["iceberg"], refused["topic"])
	a.l.equal(table+": messages of the table topic that are there twice", 0, t.Repeated)
	return nil
}

// lakeRows reads a table from the lake. Of dead letters it counts those of records that became no row, by table, and those of rows that a
// sink refused, by table and sink. A row that is there twice counts as one, and makes a check fail.
func (a *auditor) lakeRows(ctx context.Context, t plan.Table, letters map[string]int64, refused map[string]map[string]int64) (ids, revs int64, err error) {
	table, err := a.s.lake.Lookup(ctx, lake.Name{Namespace: a.s.etl.instance.Namespace(), Table: t.Name})
	if err != nil {
		return 0, 0, err
	}
	if err := table.Verify(ctx); err != nil {
		return 0, 0, err
	}
	columns := []string{"_id", "_rev"}
	if t.Name == etl.DeadLetterTable {
		columns = append(columns, "table_name", "stage")
	}
	seen, rows := map[string]struct{}{}, int64(0)
	for row, err := range table.Scan(ctx, lake.ScanOptions{Columns: columns}) {
		if err != nil {
			return 0, 0, err
		}
		rows++
		seen[row["_id"].(string)] = struct{}{}
		revs += row["_rev"].(int64)
		name, ok := row["table_name"].(string)
		if !ok {
			continue
		}
		stage, _ := row["stage"].(string)
		if sink, ok := strings.CutPrefix(stage, "sink/"); !ok {
			letters[name]++
		} else if refused[name] == nil {
			refused[name] = map[string]int64{sink: 1}
		} else {
			refused[name][sink]++
		}
	}
	a.l.equal(t.Name+": rows of the lake, each once", int64(len(seen)), rows)
	return int64(len(seen)), revs, nil
}

// simulator checks what the simulator remembers of what it has sent, when the directory is a demo's.
func (a *auditor) simulator(ctx context.Context) error {
	state, err := sim.ReadState(a.s.cfg.dir.join("demo.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	sent := state.Ledger
	a.l.Sent = sent.Items + sent.BadItems + sent.BrokenPayloads
	// A post whose answer was lost, in a crash or a broken connection, was sent again: those items may be there once more.
	if again := state.Unsure > 0 || !state.Settled(); again {
		a.l.Checks = append(a.l.Checks, ledgerCheck{
			Name: "sent by the simulator <= lake + rejects of its tenant, as posts without an answer were sent again",
			Want: a.l.Sent, Got: a.tenant, OK: a.tenant >= a.l.Sent,
		})
	} else {
		a.l.equal("sent by the simulator = lake + rejects of its tenant", a.l.Sent, a.tenant)
	}
	missing, err := a.missing(ctx, state)
	if err != nil {
		return err
	}
	a.l.equal("items of the simulator that the raw lake lacks", 0, missing)
	for _, name := range slices.Sorted(maps.Keys(sent.Distinct.ByTable)) {
		a.l.equal(name+": records = what the simulator's items make", sent.Distinct.ByTable[name], a.records[name])
	}
	return nil
}

// missing makes again what the simulator has sent, and counts the items whose bytes are not in the raw lake.
func (a *auditor) missing(ctx context.Context, state sim.State) (missing int64, err error) {
	cfg, err := readDemoConfig(a.s.cfg.dir)
	if err != nil {
		return 0, err
	}
	posts, err := sim.Replay(cfg.district(), state.Cursor)
	if err != nil {
		return 0, err
	}
	for post := range posts {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if post.Broken {
			if _, ok := a.hashes[xxh3.Hash128(post.Body)]; !ok {
				missing++
			}
			continue
		}
		for _, it := range post.Items {
			if _, ok := a.hashes[xxh3.Hash128(post.Body[it.From:it.To])]; !ok {
				missing++
			}
		}
	}
	return missing, nil
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
			if c.Got != c.Want {
				fmt.Fprintf(&b, ", found %d", c.Got)
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
	if l.Balanced {
		b.WriteString("the ledger balances\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
