package oracletest

import (
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"millrace/record"
)

// family is what a schedule may do with time.
type family int

const (
	within family = iota // everything arrives within every WaitFor and CorrectFor
	phases               // phases lie further apart than those; inside one, WaitFor may pass, CorrectFor not
	once                 // as within, but nothing is ever corrected: a join is made when it first can be, and each epoch is a phase
	short                // as once, with joins that would correct, but nothing is kept for that from one epoch to the next
	chaos                // anything goes: only the invariants are looked at, not the tables
)

func (f family) String() string { return [...]string{"within", "phases", "once", "short", "chaos"}[f] }

// epochal reports whether each epoch is a phase, in which joins are made once for all.
func (f family) epochal() bool { return f == once || f == short }

// Case is one universe of records, an app, and one schedule in which the records arrive.
type Case struct {
	Seed   uint64
	family family
	app    app
	items  []record.Item
	steps  []step

	IDs map[string]string // ids of the rows that the last Run ended with, by what they are rows of
}

// step is one thing that happens to the job.
type step struct {
	feed    []delivery    // one epoch
	advance time.Duration // of the clock; with a feed: in the epoch that also lets timers fire
	settle  bool          // so much time that nothing waits and nothing is corrected any more
	restart bool
}

type delivery struct{ item, style int }

// far is longer than all that a record can wait, and be corrected after, at one join.
const far = 20_000 * time.Hour

// New makes the case of a seed, with about size records. Three seeds in a row, the first a multiple of three, share an app and its
// records.
func New(seed uint64, size int) *Case {
	c := &Case{Seed: seed, IDs: map[string]string{}}
	r := rand.New(rand.NewPCG(seed/3, uint64(size)))
	c.family = pick(r, within, within, phases, phases, phases, once, short, chaos)
	c.app = randomApp(r, c.family)
	c.items = randomItems(r, size)
	c.schedule(rand.New(rand.NewPCG(seed, 1)))
	return c
}

// Timeless reports whether everything arrives within every WaitFor and CorrectFor, so that the final tables depend on the records alone.
func (c *Case) Timeless() bool { return c.family == within }

// Drop returns until when a runner is to let items that expire go before their time, before an epoch at the given instant; 0 for none.
func (c *Case) Drop(now time.Time, r *rand.Rand) int64 {
	switch c.family {
	case short:
		return math.MaxInt64
	case chaos:
		if r.IntN(3) == 0 {
			return now.Add(pick(r, time.Minute, time.Hour, 2*time.Hour, 20*time.Hour, 1000*time.Hour, far)).UnixMicro()
		}
	}
	return 0
}

// Drops reports whether a runner may let items that expire go before their time: the tables are not compared then.
func (c *Case) Drops() bool { return c.family == short || c.family == chaos }

func (c *Case) schedule(r *rand.Rand) {
	count := 1
	if c.family == phases || c.family == chaos {
		count = 1 + r.IntN(3)
	}
	feeds := make([][]delivery, count)
	for i := range c.items {
		for range 1 + max(0, r.IntN(5)-2) {
			p := r.IntN(count)
			feeds[p] = append(feeds[p], delivery{i, max(0, r.IntN(4)-2)})
		}
	}
	for _, all := range feeds {
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		longest := max(pick(r, 1, 1, 3, 10, len(all)+1), len(all)/30)
		var jump time.Duration
		for left := 6; len(all) > 0; {
			n := min(len(all), 1+r.IntN(longest))
			c.steps = append(c.steps, step{feed: all[:n], advance: jump})
			all, jump = all[n:], 0
			switch {
			case r.IntN(len(c.items)) < 2:
				c.steps = append(c.steps, step{restart: true})
			case c.family == chaos && r.IntN(8) == 0:
				jump = pick(r, time.Minute, 20*time.Minute, 70*time.Minute, 4*time.Hour, 30*time.Hour, far)
			case c.family == phases && left > 0 && r.IntN(8) == 0:
				left-- // all of them together stay within CorrectFor
				jump = pick(r, time.Minute, 40*time.Minute, 4*time.Hour)
			}
			if jump > 0 && r.IntN(2) == 0 {
				c.steps = append(c.steps, step{advance: jump})
				jump = 0
			}
		}
		if c.family == within || c.family.epochal() {
			c.steps = append(c.steps, step{}) // an empty step: look at what is there
		}
		c.steps = append(c.steps, step{settle: true})
	}
}

func (c *Case) item(d delivery) record.Item {
	it := c.items[d.item]
	if d.style > 0 {
		it.Bytes = respell(it.Bytes, d.style)
	}
	return it
}

// Minimise returns the smallest case it finds that still fails, by leaving out tables, steps and deliveries one by one.
func (c *Case) Minimise(fails func(*Case) bool) *Case {
	best := c
	for smaller := best; smaller != nil; {
		smaller = nil
		for next := range best.smaller() {
			if fails(next) {
				best, smaller = next, next
				break
			}
		}
	}
	return best
}

// smaller yields the cases with one thing less, the largest things first.
func (c *Case) smaller() iter.Seq[*Case] {
	without := func(change func(*Case)) *Case {
		next := *c
		next.app.tables, next.steps, next.IDs = slices.Clone(c.app.tables), slices.Clone(c.steps), map[string]string{}
		change(&next)
		return &next
	}
	return func(yield func(*Case) bool) {
		for i := range c.app.tables {
			if len(c.app.tables) > 1 && !yield(without(func(n *Case) { n.app.tables = slices.Delete(n.app.tables, i, i+1) })) {
				return
			}
		}
		for i, s := range c.steps {
			if s.settle && c.family != chaos {
				continue // it tells phases apart
			}
			if !yield(without(func(n *Case) { n.steps = slices.Delete(n.steps, i, i+1) })) {
				return
			}
		}
		for i, s := range c.steps {
			for k := range s.feed {
				if len(s.feed) > 1 && !yield(without(func(n *Case) { n.steps[i].feed = slices.Delete(slices.Clone(s.feed), k, k+1) })) {
					return
				}
			}
		}
	}
}

// String writes the case for a person.
func (c *Case) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, family %s, harvest %t\n", c.Seed, c.family, c.app.harvest)
	for _, t := range c.app.tables {
		fmt.Fprintln(&b, t)
	}
	for _, s := range c.steps {
		switch {
		case s.settle:
			b.WriteString("settle\n")
		case s.restart:
			b.WriteString("restart\n")
		case s.feed == nil && s.advance > 0:
			fmt.Fprintf(&b, "advance %s\n", s.advance)
		case s.feed == nil:
			b.WriteString("look\n")
		default:
			fmt.Fprintf(&b, "epoch %s later\n", s.advance)
			for _, d := range s.feed {
				it := c.item(d)
				fmt.Fprintf(&b, "    %d %s %s sent %s %s\n", d.item, it.Account, it.Kind, it.SendTime.Format(time.RFC3339), it.Bytes)
			}
		}
	}
	return b.String()
}
