package millrace_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/etl/etltest/oracletest"
	"millrace/eventlog"
	"millrace/eventlog/broker"
	"millrace/eventlog/eventlogtest"
	"millrace/ingest"
	"millrace/lake"
	"millrace/plan"
	"millrace/plan/plantest"
	"millrace/record"
	"millrace/sink"
	"millrace/sink/iceberg"
	"millrace/source"
)

// TestSeedingDoesNotMatter is etl's TestOrderDoesNotMatter for a job that begins late: what came before it reads from the lake, while more
// comes, the lake is compacted, the log forgets what the lake has, and the job is killed, stopped and taken back to savepoints. The
// final tables are those of the model, which knows of none of this. MILLRACE_SCHEDULES says how many cases (default 6);
// MILLRACE_SEED runs one.
func TestSeedingDoesNotMatter(t *testing.T) {
	t.Parallel()
	first, n := uint64(0), uint64(6)
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
	for seed, ran := first, uint64(0); ran < n; seed++ {
		c := oracletest.New(seed, 60)
		if !c.Timeless() && os.Getenv("MILLRACE_SEED") == "" {
			continue
		}
		ran++
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			var w *world
			err := c.Run(func(p *plan.Plan) oracletest.Runner {
				w = newWorld(t, p, seed)
				return w
			})
			require.NoError(t, err, "replay: MILLRACE_SEED=%d go test . -run TestSeedingDoesNotMatter\n%v\n%s", seed, w.said, c)
			require.NotNil(t, w.job)
			p := w.job.Progress()
			require.NotNil(t, p.Seeding, "the job was not seeded")
			require.EqualValues(t, w.appended, p.Read, "each record was read once, there or there\n%v", w.said)
			ends, err := w.log.Ends(t.Context())
			require.NoError(t, err)
			require.Equal(t, ends, p.Offsets)
		})
	}
}

// world is a log, the job that keeps it in the lake, and a job that is seeded from there.
type world struct {
	t     *testing.T
	rng   *rand.Rand
	clock *plantest.Clock
	plan  *plan.Plan
	said  []string

	cfg  eventlog.Config
	log  *eventlog.Log
	lake *lake.Lake
	raw  *job

	fs   *vfs.MemFS
	dir  string
	sink *kept
	job  *job // nil before it begins
	made int  // savepoints

	appended int // records, to the log
}

func (w *world) say(format string, args ...any) {
	w.said = append(w.said, fmt.Sprintf(format, args...))
}

// job is an engine that runs.
type job struct {
	*engine.Engine
	cancel context.CancelFunc
	done   chan error
}

func (j *job) stop(t *testing.T) {
	t.Helper()
	j.cancel()
	require.NoError(t, <-j.done)
	require.NoError(t, j.Close())
}

func newWorld(t *testing.T, p *plan.Plan, seed uint64) *world {
	t.Helper()
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 3)), clock: plantest.NewClock(), plan: p,
		fs: vfs.NewCrashableMem(), dir: "job", sink: &kept{},
	}
	dir := t.TempDir()
	b, err := broker.Open(broker.Config{Dir: dir + "/log"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	w.cfg = eventlog.Config{Brokers: []string{b.Addr()}, Topic: "ingest-prime", Partitions: 3}
	w.log = eventlogtest.Open(t, w.cfg)
	w.lake, err = lake.Open(t.Context(), lake.Config{Dir: dir + "/lake", KeepSnapshots: 2, KeepFor: time.Nanosecond})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.lake.Close()) })
	raw := ingest.Plan("1.0.0")
	toLake, err := iceberg.Open(t.Context(), iceberg.Config{Lake: w.lake, Namespace: ingest.Namespace, Plan: raw, Flush: time.Millisecond})
	require.NoError(t, err)
	w.raw = w.start(engine.Config{
		Dir: "raw", FS: vfs.NewMem(), Plan: raw, Instance: "raw", Sinks: []sink.Sink{toLake}, Source: w.source(source.Config{Instance: "raw"}),
	})
	t.Cleanup(func() { w.raw.stop(t) })
	return w
}

func (w *world) source(c source.Config) engine.Source {
	c.Log = w.log
	s, err := source.New(c)
	require.NoError(w.t, err)
	return engineSource{s}
}

// engineSource is a source as the engine reads it.
type engineSource struct{ *source.Source }

func (s engineSource) Read(ctx context.Context, from plan.Position) (engine.Reader, error) {
	r, err := s.Source.Read(ctx, from)
	return engineReader{r}, err
}

type engineReader struct{ *source.Reader }

func (r engineReader) Close() { _ = r.Reader.Close() }

func (w *world) start(c engine.Config) *job {
	c.Now, c.MaxEpoch, c.CacheBytes, c.MemTableBytes = w.clock.Now, time.Millisecond, 1<<10, 64<<10
	e, err := engine.Open(w.t.Context(), c)
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	j := &job{Engine: e, cancel: cancel, done: make(chan error, 1)}
	go func() { j.done <- e.Run(ctx) }()
	return j
}

// begin starts the job, for the first time or again.
func (w *world) begin() {
	seed := &plan.SeedRange{EntitiesFirst: w.rng.IntN(2) == 0}
	w.job = w.start(engine.Config{
		Dir: w.dir, FS: w.fs, Plan: w.plan, Instance: "seeded", Sinks: []sink.Sink{w.sink},
		Workers: 1 + w.rng.IntN(4), KeyGroups: 16, MaxEpochRecords: 1 + w.rng.IntN(30), // many epochs while it is seeded
		Source: w.source(source.Config{Lake: w.lake, Namespace: ingest.Namespace, Instance: "seeded", Seed: seed, Files: 1 + w.rng.IntN(3)}),
	})
}

// until waits for something of a job that runs.
func (w *world) until(j *job, what string, ok func(engine.Progress) bool) {
	w.t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok(j.Progress()) {
		select {
		case <-tick.C:
		case err := <-j.done:
			require.FailNow(w.t, "the job ended", "waiting for %s: %v\n%v", what, err, w.said)
		case <-deadline.C:
			require.FailNow(w.t, "timeout", "waiting for %s: %+v\n%v", what, j.Progress(), w.said)
		}
	}
}

func (w *world) settled(j *job) {
	w.t.Helper()
	ends, err := w.log.Ends(w.t.Context())
	require.NoError(w.t, err)
	w.until(j, "all to be read and published", func(p engine.Progress) bool {
		for partition, end := range ends {
			if p.Offsets[partition] < end {
				return false
			}
		}
		p.Ends, p.Lag = ends, 0 // known better
		return p.Settled(w.clock.Now())
	})
}

// Feed appends the items to the log and lets things happen.
func (w *world) Feed(later time.Duration, items ...record.Item) bool {
	w.clock.Move(later)
	require.NoError(w.t, w.log.Append(w.t.Context(), items))
	w.appended += len(items)
	if w.rng.IntN(4) == 0 {
		w.settled(w.raw)
	}
	if w.job == nil {
		if w.rng.IntN(12) == 0 {
			w.say("begin")
			w.begin()
			w.trouble()
		}
		return false
	}
	if w.rng.IntN(3) == 0 {
		w.trouble()
	}
	return false
}

// trouble is one thing that may happen to a job at any moment.
func (w *world) trouble() {
	ctx := w.t.Context()
	for range w.rng.IntN(3) { // somewhere in the midst of it
		epoch := w.job.Progress().Epoch
		w.until(w.job, "an epoch", func(p engine.Progress) bool { return p.Epoch > epoch || p.Settled(w.clock.Now()) })
	}
	what := w.rng.IntN(6)
	w.say("%d in epoch %d, seeding %+v", what, w.job.Progress().Epoch, w.job.Progress().Seeding)
	switch what {
	case 0: // the machine crashes
		w.sink.mu.Lock()
		w.fs = w.fs.CrashClone(vfs.CrashCloneCfg{})
		left := &kept{rows: slices.Clone(w.sink.rows), from: slices.Clone(w.sink.from)}
		w.sink.mu.Unlock()
		w.job.stop(w.t)
		w.sink = left
		w.begin()
	case 1: // suspended and resumed
		w.job.stop(w.t)
		w.begin()
	case 2: // taken back to a savepoint
		w.made++
		save := fmt.Sprint("save", w.made)
		require.NoError(w.t, w.job.Savepoint(ctx, save))
		w.job.stop(w.t)
		w.dir = "from-" + save
		require.NoError(w.t, engine.Restore(w.fs, save, w.dir, w.clock.Now()))
		w.begin()
	case 3: // upkeep of the lake, with snapshots that expire
		w.settled(w.raw)
		for _, t := range w.tables() {
			app, token := t.Owner()
			if token == 0 {
				continue // no row yet
			}
			require.NoError(w.t, t.Claim(ctx, lake.Claim{
				Owner: app, Lineage: w.raw.Progress().Lineage, Token: token, Holds: func(lake.Mark) bool { return true },
			}))
			_, err := t.Compact(ctx)
			require.NoError(w.t, err)
		}
	case 4, 5: // the log forgets what the lake has
		w.settled(w.raw)
		held, err := w.lake.Held(ctx, w.tables()...)
		require.NoError(w.t, err)
		starts, err := w.log.Starts(ctx)
		require.NoError(w.t, err)
		stopped := what == 4
		if stopped {
			w.job.stop(w.t)
		}
		for p, o := range held {
			if o > starts[p] {
				eventlogtest.DeleteBefore(w.t, w.cfg, w.log, p, starts[p]+1+w.rng.Int64N(o-starts[p]))
			}
		}
		if stopped {
			w.begin()
		}
	}
}

func (w *world) tables() (all []*lake.Table) {
	for _, table := range ingest.Plan("1.0.0").Tables {
		t, err := w.lake.Table(w.t.Context(), ingest.Namespace, table)
		require.NoError(w.t, err)
		all = append(all, t)
	}
	return all
}

// caughtUp makes sure that the job has begun and has read all.
func (w *world) caughtUp() {
	if w.job == nil {
		w.settled(w.raw)
		w.say("begin at the end")
		w.begin()
	}
	w.settled(w.job)
}

func (w *world) Advance(d time.Duration) {
	w.caughtUp()
	w.clock.Move(d)
	w.settled(w.job)
}

func (w *world) Restart(p *plan.Plan) {
	w.plan = p
	if w.job != nil {
		w.say("restart")
		w.job.stop(w.t)
		w.begin()
	}
}

func (w *world) Rows() []plan.Row {
	w.caughtUp()
	w.sink.mu.Lock()
	defer w.sink.mu.Unlock()
	return slices.Clone(w.sink.rows)
}

func (w *world) Counters() map[string]int64 {
	w.caughtUp()
	return w.job.Progress().Counters
}

func (w *world) Listed() int { return 0 }

// kept is a sink in memory that takes back what is not in the lineage's history.
type kept struct {
	mu   sync.Mutex
	rows []plan.Row
	from []string // lineages of the rows
}

func (m *kept) Name() string                   { return "kept" }
func (m *kept) Gather() (int64, time.Duration) { return 0, 0 }
func (m *kept) Close() error                   { return nil }

func (m *kept) Begin(_ context.Context, l sink.Lineage, _ sink.Past) error {
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

func (m *kept) Publish(_ context.Context, b sink.Batch) ([]sink.Rejected, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range b.Rows {
		m.rows, m.from = append(m.rows, r), append(m.from, b.Lineage)
	}
	return nil, nil
}
