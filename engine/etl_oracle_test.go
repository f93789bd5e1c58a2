package engine_test

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/etl/etltest/oracletest"
	"millrace/plan"
	"millrace/plan/plantest"
	"millrace/record"
)

// TestOrderDoesNotMatter is etl's test of that name on the engine, which cuts epochs as it likes, shares keys between workers and is
// restarted now and then. MILLRACE_SCHEDULES says how many schedules (default 12); MILLRACE_SEED runs one.
func TestOrderDoesNotMatter(t *testing.T) {
	t.Parallel()
	first, n := uint64(0), uint64(12)
	for name, v := range map[string]*uint64{"MILLRACE_SCHEDULES": &n, "MILLRACE_SEED": &first} {
		if s := os.Getenv(name); s != "" {
			var err error
			*v, err = strconv.ParseUint(s, 10, 64)
			require.NoError(t, err, name)
		}
	}
	if os.Getenv("MILLRACE_SEED") != "" {
		n = 1
	}
	for seed := first; seed < first+n; seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			run := func(c *oracletest.Case) error {
				return c.Run(func(p *plan.Plan) oracletest.Runner { return startOracle(t, p, seed) })
			}
			// In the largest, an epoch may have enough keys for several workers.
			if c := oracletest.New(seed, []int{24, 60, 600}[seed%3]); run(c) != nil {
				small := c.Minimise(func(c *oracletest.Case) bool { return run(c) != nil })
				require.NoError(t, run(small), "replay: MILLRACE_SEED=%d go test ./engine -run TestOrderDoesNotMatter\n%s", seed, small)
			}
		})
	}
}

// oracleJob fits an engine to the oracle.
type oracleJob struct {
	*runner
	clock *plantest.Clock
	rng   *rand.Rand
}

func startOracle(t *testing.T, p *plan.Plan, seed uint64) *oracleJob {
	t.Helper()
	j := &oracleJob{clock: plantest.NewClock(), rng: rand.New(rand.NewPCG(seed, 2))}
	m := &memory{name: "memory"}
	c := config(t, newLog(), m)
	c.Plan, c.Now = p, j.clock.Now
	c.Workers, c.KeyGroups, c.CacheBytes, c.MemTableBytes = 1+j.rng.IntN(8), 1+j.rng.IntN(200), 1<<10, 16<<10
	j.runner = &runner{job: start(t, c), memory: m}
	return j
}

// Feed spreads the items over partitions and polls.
func (j *oracleJob) Feed(later time.Duration, items ...record.Item) bool {
	j.clock.Move(later)
	for len(items) > 0 {
		n := 1 + j.rng.IntN(len(items))
		j.log.append(j.rng.Int32N(3), items[:n]...)
		items = items[n:]
	}
	j.settle()
	return false
}

func (j *oracleJob) Advance(d time.Duration) {
	j.clock.Move(d)
	j.settle()
}

func (j *oracleJob) Listed() int { return 0 }

func (j *oracleJob) Restart(p *plan.Plan) {
	j.stop()
	j.c.Plan = p
	j.c.Workers = 1 + j.rng.IntN(8)
	e, err := engine.Open(j.t.Context(), j.c)
	require.NoError(j.t, err)
	require.NoError(j.t, e.Close())
	j.job = start(j.t, j.c)
}
