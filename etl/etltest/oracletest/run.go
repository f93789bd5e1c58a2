package oracletest

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"millrace/etl"
	"millrace/etl/etltest"
	"millrace/plan"
	"millrace/record"
)

// Runner is a job under test.
type Runner interface {
	// Feed moves the clock and runs one epoch with the items and the timers that are then due, or, where the runner cuts epochs
	// by itself, brings both together. It returns when all of it is done, and whether it was one epoch.
	Feed(later time.Duration, items ...record.Item) (oneEpoch bool)

	Advance(d time.Duration) // moves the clock; returns when what is due is done
	Restart(p *plan.Plan)    // with the next version of the app, which makes the same tables
	Rows() []plan.Row        // all rows published so far, in order, with the number of their epoch
	Counters() map[string]int64

	// Listed returns how many records the state still holds for changes of theirs; 0 from a runner that cannot tell.
	Listed() int
}

// Run runs the case and returns the first way in which the job is not as the model says.
func (c *Case) Run(start func(*plan.Plan) Runner) error {
	version := 0
	p, err := c.app.plan(version)
	if err != nil {
		return err
	}
	j := start(p)
	clear(c.IDs)
	var came []arrival
	phase, exact := 0, c.family != chaos
	for i, s := range c.steps {
		switch {
		case s.restart:
			version++
			if p, err = c.app.plan(version); err != nil {
				return err
			}
			j.Restart(p)
			continue
		case s.feed == nil && s.advance > 0:
			j.Advance(s.advance)
		case s.settle:
			for range 2 * (maxJoins + 1) { // each join may first wait and then be corrected
				j.Advance(far)
			}
			phase++
		case s.feed != nil:
			items := make([]record.Item, len(s.feed))
			for k, d := range s.feed {
				items[k] = c.item(d)
				came = append(came, arrival{items[k], phase})
			}
			if !j.Feed(s.advance, items...) && c.family.epochal() {
				exact = false
			}
			if c.family.epochal() {
				phase++
			}
		}
		if s.feed != nil || s.advance > 0 {
			if !exact {
				if err := c.invariants(p, j, false); err != nil {
					return fmt.Errorf("after step %d: %w", i+1, err)
				}
			}
			continue
		}
		err := c.invariants(p, j, s.settle)
		if err == nil && exact {
			err = c.compare(p, j, model(c.app, came, s.settle, c.family.epochal()))
		}
		if err != nil {
			return fmt.Errorf("after step %d: %w", i+1, err)
		}
	}
	return nil
}

const maxJoins = 3

type rowKey struct {
	table int
	id    string
}

// live folds the revisions of rows, and checks that they rise and that none comes before its first.
func live(rows []plan.Row) (map[rowKey]plan.Row, error) {
	out := map[rowKey]plan.Row{}
	epoch := map[rowKey][]plan.Row{}
	for _, r := range rows {
		k := rowKey{r.Table, r.ID}
		epoch[k] = append(epoch[k], r)
	}
	for k, rs := range epoch {
		var have *plan.Row
		for len(rs) > 0 {
			n := 1
			top, first := rs[0], rs[0].First
			for n < len(rs) && rs[n].Epoch == rs[0].Epoch {
				first = first || rs[n].First
				if rs[n].Rev >= top.Rev {
					top = rs[n]
				}
				n++
			}
			rs = rs[n:]
			switch {
			case have == nil:
			case top.Epoch < have.Epoch, top.Epoch == have.Epoch && top.Rev == have.Rev:
				continue // published again after a restart
			case first:
				return nil, fmt.Errorf("row %s of table %d: revision %d of epoch %d calls itself the first; there was revision %d in epoch %d",
					k.id, k.table, top.Rev, top.Epoch, have.Rev, have.Epoch)
			case top.Rev <= have.Rev:
				return nil, fmt.Errorf("row %s of table %d: revision %d in epoch %d, after revision %d in epoch %d",
					k.id, k.table, top.Rev, top.Epoch, have.Rev, have.Epoch)
			}
			have = &top
		}
		if !have.Deleted {
			out[k] = *have
		}
	}
	return out, nil
}

// invariants checks what holds at any time: each record is a row, a dead letter, waiting, dropped or deleted.
func (c *Case) invariants(p *plan.Plan, j Runner, settled bool) error {
	rows, err := live(j.Rows())
	if err != nil {
		return err
	}
	n := map[string]int64{}
	for k, r := range rows {
		n[tableOf(p, k.table, r)]++
	}
	counters := j.Counters()
	for _, t := range c.app.tables {
		get := func(name string) int64 { return counters["table."+t.name+"."+name] }
		in, waiting, dropped, deleted := get("in"), get("waiting"), get("dropped"), get("deleted")
		if in != n[t.name]+waiting+dropped+deleted || min(waiting, dropped, deleted) < 0 || settled && waiting != 0 {
			return fmt.Errorf("table %s: in %d is not rows and dead letters %d + waiting %d + dropped %d + deleted %d (settled %t)",
				t.name, in, n[t.name], waiting, dropped, deleted, settled)
		}
	}
	entities := slices.ContainsFunc(c.app.tables, func(t table) bool { return t.entity }) // their next version may always come
	if n := j.Listed(); settled && !entities && n > 0 {
		return fmt.Errorf("%d records are still listed, long after the last of them could change", n)
	}
	return nil
}

// tableOf names the table that a row or a dead letter belongs to.
func tableOf(p *plan.Plan, table int, r plan.Row) string {
	if name := p.Tables[table].Name; name != etl.DeadLetterTable {
		return name
	}
	return etltest.Values(p.Tables[table].Schema, r.Value)["table_name"].(string)
}

// compare compares a job with the model.
func (c *Case) compare(p *plan.Plan, j Runner, want result) error {
	rows, err := live(j.Rows())
	if err != nil {
		return err
	}
	var got result
	for k, r := range rows {
		v := etltest.Values(p.Tables[k.table].Schema, r.Value)
		if p.Tables[k.table].Name == etl.DeadLetterTable {
			record := string(spell(parse(v["record"].([]byte)), 0))
			got.letters = append(got.letters, fmt.Sprintln(v["table_name"], v["stage"], v["kind"], record, v["reasons"]))
			continue
		}
		if v["uid"] != nil {
			c.IDs[fmt.Sprintln(p.Tables[k.table].Name, r.Account, v["uid"], v["n"])] = r.ID
		}
		got.rows = append(got.rows, fmt.Sprintln(p.Tables[k.table].Name, r.Account, r.EventTime, v["uid"], v["n"], v["c0"], v["c1"], v["c2"], v["required"]))
	}
	sort.Strings(got.rows)
	sort.Strings(got.letters)
	counters := j.Counters()
	for _, t := range c.app.tables {
		get := func(name string) int64 { return counters["table."+t.name+"."+name] }
		got.counts = append(got.counts, fmt.Sprintf("%s in %d waiting %d dropped %d deleted %d", t.name, get("in"), get("waiting"), get("dropped"), get("deleted")))
	}
	for _, d := range []string{differ("rows", want.rows, got.rows), differ("dead letters", want.letters, got.letters), differ("counts", want.counts, got.counts)} {
		if d != "" {
			return fmt.Errorf("%s", d)
		}
	}
	return nil
}

// differ lists the lines that only one of two sorted lists has.
func differ(what string, want, got []string) string {
	var b strings.Builder
	for i, k := 0, 0; i < len(want) || k < len(got); {
		switch {
		case k == len(got) || i < len(want) && want[i] < got[k]:
			fmt.Fprintf(&b, "\n  want %s", strings.TrimSuffix(want[i], "\n"))
			i++
		case i == len(want) || got[k] < want[i]:
			fmt.Fprintf(&b, "\n  have %s", strings.TrimSuffix(got[k], "\n"))
			k++
		default:
			i, k = i+1, k+1
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return what + " differ:" + b.String()
}
