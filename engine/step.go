package engine

import (
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"millrace/plan"
)

// program is a plan made ready to be stepped.
type program struct {
	plan     *plan.Plan
	stageIDs []uint16 // by stage index; 0 for stateless ones
	listTags [][256]bool
	groups   int
	workers  int
}

func newProgram(p *plan.Plan, ids map[string]uint16, groups, workers int) *program {
	g := &program{plan: p, groups: groups, workers: workers}
	for _, s := range p.Stages {
		var tags [256]bool
		for _, t := range s.ListTags {
			tags[t] = true
		}
		g.stageIDs = append(g.stageIDs, ids[s.Name])
		g.listTags = append(g.listTags, tags)
	}
	return g
}

// view is the state as of the last commit. It is read concurrently for disjoint keys.
type view interface {
	// load fills Value, List and listEpochs of keys, which belong to one stage and are in order of their state keys.
	load(keys []keyed) error
}

// stepInput is all that an epoch's result depends on, besides the state.
type stepInput struct {
	clock plan.Clock
	read  []*plan.Output // of Plan.Read, in order
	fired [][]firedTimer // by stage, in the order of the timer index
	extra []plan.Row     // dead letters of rows that sinks refused
}

type firedTimer struct {
	key   []byte
	timer plan.Timer
}

// stepResult is all that an epoch changes.
type stepResult struct {
	keys      [][]keyed // by stage, in order of their state keys: the effects
	rows      []plan.Row
	counts    []int64
	collapsed int64   // rows left out because the epoch made a newer revision of the same row
	sent      []int64 // elements sent to each stage
}

// keyed is a key of a stage's batch with what is needed to load and store its state.
type keyed struct {
	plan.Key
	stateKey   []byte // of its value
	needList   bool
	listEpochs []uint64 // the list entries that were loaded

	expiring []expiringEntry // and those that expire
}

// step runs one epoch through all stages. It has no effects: same input and state, same result, however many workers.
func (g *program) step(in stepInput, v view) (*stepResult, error) {
	outs := slices.Clone(in.read)
	res := &stepResult{keys: make([][]keyed, len(g.plan.Stages))}
	if err := g.checkOutputs(-1, outs); err != nil {
		return nil, err
	}
	for i := range g.plan.Stages {
		var made []*plan.Output
		var err error
		if g.plan.Stages[i].Keyed == nil {
			made, err = g.stateless(i, outs)
		} else {
			var fired []firedTimer
			if in.fired != nil {
				fired = in.fired[i]
			}
			made, res.keys[i], err = g.keyed(i, in.clock, outs, fired, v)
		}
		if err == nil {
			err = g.checkOutputs(i, made)
		}
		if err != nil {
			return nil, fmt.Errorf("stage %s: %w", g.plan.Stages[i].Name, err)
		}
		outs = append(outs, made...)
	}
	res.counts, res.sent = make([]int64, len(g.plan.Counters)), make([]int64, len(g.plan.Stages))
	for _, o := range outs {
		for s := range o.Sent {
			res.sent[s] += int64(len(o.Sent[s]))
		}
		for c, n := range o.Counts {
			res.counts[c] += n
		}
	}
	res.rows, res.collapsed = g.collapse(outs, in.extra)
	return res, nil
}

// minChunk is how many elements or keys are worth a goroutine of their own.
const minChunk = 64

// stateless gives the elements sent to a stage to workers, in contiguous runs.
func (g *program) stateless(stage int, outs []*plan.Output) ([]*plan.Output, error) {
	var all []plan.Element
	for _, o := range outs {
		all = append(all, o.Sent[stage]...)
	}
	chunks := g.chunks(len(all))
	made := make([]*plan.Output, len(chunks))
	err := parallel(len(chunks), g.workers, func(i int) error {
		made[i] = plan.NewOutput(g.plan)
		g.plan.Stages[stage].Stateless(all[chunks[i].from:chunks[i].to], made[i])
		return nil
	})
	return made, err
}

// keyed groups what was sent to a stage by key, and gives workers contiguous runs of the sorted keys: each run is one
// sorted pass over the state and one call of the stage.
func (g *program) keyed(stage int, clock plan.Clock, outs []*plan.Output, fired []firedTimer, v view) ([]*plan.Output, []keyed, error) {
	keys := g.group(stage, outs, fired)
	chunks := g.chunks(len(keys))
	made := make([]*plan.Output, len(chunks))
	err := parallel(len(chunks), g.workers, func(i int) error {
		run := keys[chunks[i].from:chunks[i].to]
		if err := v.load(run); err != nil {
			return err
		}
		made[i] = plan.NewOutput(g.plan)
		batch := make([]*plan.Key, len(run))
		for j := range run {
			batch[j] = &run[j].Key
		}
		g.plan.Stages[stage].Keyed(clock, batch, made[i])
		for j := range run {
			if err := run[j].check(); err != nil {
				return err
			}
		}
		return nil
	})
	return made, keys, err
}

// check finds effects that cannot be applied.
func (k *keyed) check() error {
	if k.ReplaceList && !k.needList {
		return fmt.Errorf("it replaces the list of key %q, which it was not given", k.Key.Key)
	}
	for _, timers := range [...][]plan.Timer{k.SetTimers, k.ClearTimers} {
		for _, t := range timers {
			if t.Domain != plan.ProcessingTime && t.Domain != plan.EventTime {
				return fmt.Errorf("a timer of key %q has the time domain %d", k.Key.Key, t.Domain)
			}
		}
	}
	return nil
}

// collapse gathers the rows of all outputs in order, keeping of several revisions of a row the highest. A survivor is
// first if any of them was: nothing of that row has reached a sink.
func (g *program) collapse(outs []*plan.Output, extra []plan.Row) ([]plan.Row, int64) {
	n := len(extra)
	for _, o := range outs {
		n += len(o.Rows)
	}
	if n == 0 {
		return nil, 0
	}
	type rowKey struct {
		table int
		id    string
	}
	rows := make([]plan.Row, 0, n)
	at := make(map[rowKey]int, n)
	add := func(in []plan.Row) {
		for i := range in {
			r := &in[i]
			if g.plan.Tables[r.Table].AppendOnly {
				rows = append(rows, *r)
				continue
			}
			k := rowKey{r.Table, r.ID}
			j, seen := at[k]
			if !seen {
				at[k] = len(rows)
				rows = append(rows, *r)
				continue
			}
			first := r.First || rows[j].First
			if r.Rev >= rows[j].Rev {
				rows[j] = *r
			}
			rows[j].First = first
		}
	}
	for _, o := range outs {
		add(o.Rows)
	}
	add(extra)
	return rows, int64(n - len(rows))
}

// checkOutputs holds a plan to what it declares, so that nothing it emits is dropped in silence.
func (g *program) checkOutputs(stage int, outs []*plan.Output) error {
	to, name := g.plan.ReadTo, "Read"
	if stage >= 0 {
		to, name = g.plan.Stages[stage].To, g.plan.Stages[stage].Name
	}
	for _, o := range outs {
		for s, sent := range o.Sent {
			if len(sent) > 0 && !slices.Contains(to, s) {
				return fmt.Errorf("%s sends to stage %s without declaring it", name, g.plan.Stages[s].Name)
			}
		}
		for i := range o.Rows {
			if t := o.Rows[i].Table; t < 0 || t >= len(g.plan.Tables) {
				return fmt.Errorf("%s makes a row of table %d, and there are %d", name, t, len(g.plan.Tables))
			}
		}
	}
	return nil
}

type span struct{ from, to int }

// chunks cuts n things into one contiguous run per worker, fewer when there are few.
func (g *program) chunks(n int) []span {
	if n == 0 {
		return nil
	}
	parts := min(g.workers, (n+minChunk-1)/minChunk)
	spans := make([]span, parts)
	for i := range spans {
		spans[i] = span{n * i / parts, n * (i + 1) / parts}
	}
	return spans
}

// parallel calls f with 0 to n-1 on at most workers goroutines and returns the error of the lowest failing call. A panic
// in f, which runs the plan's functions, becomes an error with its stack: it ends the job, not the process.
func parallel(n, workers int, f func(int) error) error {
	errs := make([]error, n)
	call := func(i int) {
		defer func() {
			if p := recover(); p != nil {
				errs[i] = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		errs[i] = f(i)
	}
	if workers = min(workers, n); workers <= 1 {
		for i := range n {
			call(i)
		}
	} else {
		var next atomic.Int64
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
					call(i)
				}
			})
		}
		wg.Wait()
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
