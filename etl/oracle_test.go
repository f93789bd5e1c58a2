package etl_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/etl/etltest"
	"millrace/etl/etltest/oracletest"
	"millrace/plan"
	"millrace/record"
)

// TestOrderDoesNotMatter runs random apps over random records in random orders, and compares what they make with a model that
// knows no order. MILLRACE_SCHEDULES says how many schedules (default 200); MILLRACE_SEED runs one.
func TestOrderDoesNotMatter(t *testing.T) {
	t.Parallel()
	var ids map[string]string // of the universe's rows, in the schedules before
	for seed, last := seeds(t, 200); seed <= last; seed++ {
		c := oracletest.New(seed, []int{8, 24, 60}[seed/3%3])
		if run(c) != nil {
			small := c.Minimise(func(c *oracletest.Case) bool { return run(c) != nil })
			require.NoError(t, run(small), "replay: MILLRACE_SEED=%d go test ./etl -run TestOrderDoesNotMatter\n%s", seed, small)
		}
		if seed%3 == 0 {
			ids = map[string]string{}
		}
		for what, id := range c.IDs {
			if before, ok := ids[what]; ok {
				require.Equal(t, before, id, "seeds %d and before: the id of %s", seed, what)
			}
			ids[what] = id
		}
	}
}

// run runs a case. A panic is an error, so that it too comes with its seed and is made smaller.
func run(c *oracletest.Case) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	drops := rand.New(rand.NewPCG(c.Seed, 3))
	return c.Run(func(p *plan.Plan) oracletest.Runner {
		j := inMemory(p)
		j.Drop = func() int64 { return c.Drop(j.Now, drops) }
		return j
	})
}

// seeds returns the first and the last seed to run.
func seeds(t *testing.T, n uint64) (first, last uint64) {
	t.Helper()
	number := func(name string) (v uint64, set bool) {
		s := os.Getenv(name)
		if s == "" {
			return 0, false
		}
		v, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err, name)
		return v, true
	}
	if seed, ok := number("MILLRACE_SEED"); ok {
		return seed, seed
	}
	if v, ok := number("MILLRACE_SCHEDULES"); ok {
		n = v
	}
	return 0, max(n, 1) - 1
}

// memoryJob is an etltest.Job that remembers all revisions of its rows.
type memoryJob struct {
	*etltest.Job
	epoch uint64
	rows  []plan.Row
}

func inMemory(p *plan.Plan) *memoryJob {
	j := &memoryJob{}
	j.Job = etltest.New(j.watch(p))
	return j
}

func (j *memoryJob) watch(p *plan.Plan) *plan.Plan {
	watched := *p
	watched.Stages = slices.Clone(p.Stages)
	last := &watched.Stages[len(p.Stages)-1]
	last.Stateless = func(in []plan.Element, out *plan.Output) {
		j.epoch++
		before := len(out.Rows)
		p.Stages[len(p.Stages)-1].Stateless(in, out)
		for _, row := range out.Rows[before:] {
			row.Epoch = j.epoch
			j.rows = append(j.rows, row)
		}
	}
	return &watched
}

func (j *memoryJob) Feed(later time.Duration, items ...record.Item) bool {
	j.Now = j.Now.Add(later)
	j.Job.Feed(items...)
	return true
}

func (j *memoryJob) Rows() []plan.Row           { return j.rows }
func (j *memoryJob) Counters() map[string]int64 { return j.Job.Counters }
func (j *memoryJob) Restart(p *plan.Plan)       { j.Plan = j.watch(p) }
