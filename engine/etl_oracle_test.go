package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/etl/etltest/oracletest"
	"millrace/plan"
	"millrace/plan/plantest"
	"millrace/record"
	"millrace/sink"
)

// TestOrderDoesNotMatter is etl's test of that name on the engine, which cuts epochs as it likes, shares keys between workers and is
// restarted, killed, and taken back to savepoints now and then. MILLRACE_SCHEDULES says how many schedules (default 12); MILLRACE_SEED runs one.
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
				var j *oracleJob
				err := c.Run(func(p *plan.Plan) oracletest.Runner {
					j = startOracle(t, p, seed, c.Drops())
					return j
				})
				return errors.Join(err, j.end())
			}
			// In the largest, an epoch may have enough keys for several workers.
			c := oracletest.New(seed, []int{24, 60, 600}[seed%3])
			if err := run(c); err != nil {
				// A failure that comes by chance gets no smaller, only less likely.
				until := time.Now().Add(time.Minute)
				small := c.Minimise(func(c *oracletest.Case) bool { return time.Now().Before(until) && run(c) != nil })
				require.NoError(t, err, "replay: MILLRACE_SEED=%d go test ./engine -run TestOrderDoesNotMatter\n%s", seed, small)
			}
		})
	}
}

// oracleJob fits an engine to the oracle.
type oracleJob struct {
	*runner
	clock *plantest.Clock
	rng   *rand.Rand
	fs    *vfs.MemFS
	sink  *rewindable
	made  int // savepoints
}

// rewindable is a sink in memory that takes back what is not in the lineage's history.
type rewindable struct {
	*memory
	from []string // lineages of the rows
}

func (m *rewindable) Begin(_ context.Context, l sink.Lineage, _ sink.Past) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for i, r := range m.rows {
		if l.Holds(sink.Point{Lineage: m.from[i], Epoch: r.Epoch}) {
			m.rows[n], m.from[n] = r, m.from[i]
			n++
		}
	}
	m.rows, m.from = m.rows[:n], m.from[:n]
	return nil
}

func (m *rewindable) Publish(_ context.Context, b sink.Batch) ([]sink.Rejected, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range b.Rows {
		m.rows, m.from = append(m.rows, r), append(m.from, b.Lineage)
	}
	return nil, nil
}

func startOracle(t *testing.T, p *plan.Plan, seed uint64, drops bool) *oracleJob {
	t.Helper()
	j := &oracleJob{clock: plantest.NewClock(), rng: rand.New(rand.NewPCG(seed, 2))}
	j.sink = &rewindable{memory: &memory{name: "memory"}}
	j.fs = vfs.NewCrashableMem()
	c := config(t, newLog(), j.sink)
	c.Plan, c.Now, c.FS = p, j.clock.Now, j.fs
	c.Workers, c.KeyGroups, c.CacheBytes, c.MemTableBytes = 1+j.rng.IntN(8), 1+j.rng.IntN(200), 1<<10, 16<<10
	if drops {
		c.ExpiringLimit = 1 + j.rng.Int64N(20<<10)
	}
	j.runner = &runner{job: start(t, c), memory: j.sink.memory}
	return j
}

// Feed spreads the items over partitions and polls. Sometimes the process is killed in the midst of it, or what it made of them is
// taken back, and it begins again from a savepoint or, resumed, goes on from one.
func (j *oracleJob) Feed(later time.Duration, items ...record.Item) bool {
	j.clock.Move(later)
	what := j.rng.IntN(20)
	save := ""
	if what < 2 {
		save = j.savepoint()
	}
	for len(items) > 0 {
		n := 1 + j.rng.IntN(len(items))
		j.log.append(j.rng.Int32N(3), items[:n]...)
		items = items[n:]
	}
	if what == 0 {
		j.settle() // and publish what is taken back
	}
	switch what {
	case 0, 1:
		j.rewind(save)
	case 2:
		j.crash()
	case 3:
		j.rewind(j.savepoint())
	}
	j.settle()
	return false
}

func (j *oracleJob) savepoint() string {
	j.made++
	dir := fmt.Sprint("save", j.made)
	require.NoError(j.t, j.e.Savepoint(j.t.Context(), dir))
	return dir
}

// rewind goes on from a savepoint.
func (j *oracleJob) rewind(save string) {
	j.stop()
	j.c.Dir = "from-" + save
	require.NoError(j.t, engine.Restore(j.fs, save, j.c.Dir, j.clock.Now()))
	j.c.Workers = 1 + j.rng.IntN(8)
	j.job = start(j.t, j.c)
}

// crash goes on from what a crash of the machine leaves at this moment. Nothing is published while that is copied.
func (j *oracleJob) crash() {
	old := j.sink
	old.mu.Lock()
	j.fs = j.fs.CrashClone(vfs.CrashCloneCfg{})
	j.sink = &rewindable{memory: &memory{name: "memory", rows: slices.Clone(old.rows)}, from: slices.Clone(old.from)}
	old.mu.Unlock()
	j.stop()
	j.c.FS, j.c.Sinks, j.memory = j.fs, []sink.Sink{j.sink}, j.sink.memory
	j.job = start(j.t, j.c)
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
