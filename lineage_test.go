package millrace_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/index"
	"millrace/lake"
	"millrace/plan"
	"millrace/plan/plantest"
	"millrace/record"
	"millrace/sink"
	"millrace/sink/elastic"
	"millrace/sink/iceberg"
)

// toy is version v of the toy app. Each version but the first drops a third of the joined rows and a third of the revisions of letters,
// another third each, and writes the other joined rows otherwise. The last withdraws some letters.
func toy(v int) *plan.Plan {
	p := plantest.Toy()
	p.Version = fmt.Sprintf("%d.0.0", v+1)
	if v == 0 {
		return p
	}
	for i, change := range []func(*plan.Row){
		func(r *plan.Row) {
			var err error
			if r.Value, err = p.Tables[0].Schema.Append(nil, []plan.Cell{{Bytes: fmt.Appendf(nil, "%s by %d", r.ID, v)}}); err != nil {
				panic(err) // one cell for one column
			}
		},
		func(r *plan.Row) {
			if v == 2 && r.Rev%5 == 0 {
				r.Deleted, r.Value = true, nil
			}
		},
	} {
		stage := p.Stages[i].Keyed
		p.Stages[i].Keyed = func(clock plan.Clock, keys []*plan.Key, out *plan.Output) {
			made := plan.NewOutput(p)
			stage(clock, keys, made)
			for _, r := range made.Rows {
				if r.Table == []int{0, 2}[i] {
					if (int(r.ID[len(r.ID)-1])+v)%3 == 0 {
						continue
					}
					change(&r)
				}
				out.Row(r)
			}
			for to, sent := range made.Sent {
				out.Sent[to] = append(out.Sent[to], sent...)
			}
			for i, n := range made.Counts {
				out.Counts[i] += n
			}
		}
	}
	return p
}

// tape is a log of one partition in memory.
type tape struct {
	mu      sync.Mutex
	items   []record.Item
	changed chan struct{}
}

func newTape(items ...record.Item) *tape {
	t := &tape{changed: make(chan struct{})}
	t.append(items...)
	return t
}

func (l *tape) append(items ...record.Item) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, it := range items {
		it.Position = record.Position{Topic: "toy", Offset: int64(len(l.items))}
		l.items = append(l.items, it)
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *tape) len() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.items))
}

func (l *tape) Ends(context.Context) (plan.Offsets, error) { return plan.Offsets{0: l.len()}, nil }

func (l *tape) Read(_ context.Context, from plan.Position) (engine.Reader, error) {
	return &tapeReader{l, from.Offsets[0]}, nil
}

type tapeReader struct {
	l    *tape
	next int64
}

func (r *tapeReader) Poll(ctx context.Context, n, _ int) (plan.Batch, error) {
	for {
		r.l.mu.Lock()
		some, changed := r.l.items[r.next:], r.l.changed
		r.l.mu.Unlock()
		if len(some) > 0 {
			some = some[:min(len(some), n, 7)] // small epochs
			r.next += int64(len(some))
			return plan.Batch{Items: some}, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return plan.Batch{}, ctx.Err()
		}
	}
}

func (*tapeReader) Close() {}

// running is an engine that runs in the background of a test.
type running struct {
	*engine.Engine
	t     *testing.T
	log   *tape
	clock *plantest.Clock
	stop  func() error // returns what Run returned
	done  chan struct{}
}

func run(t *testing.T, dir string, p *plan.Plan, log *tape, clock *plantest.Clock, workers int, sinks ...sink.Sink) *running {
	t.Helper()
	e, err := engine.Open(t.Context(), engine.Config{
		Dir: dir, Plan: p, Instance: "toy", Job: "toy", Source: log, Sinks: sinks, Workers: workers, Savepoints: filepath.Join(filepath.Dir(dir), "savepoints"),
		MaxEpoch: time.Millisecond, Now: clock.Now, CacheBytes: 1 << 20, MemTableBytes: 256 << 10,
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r := &running{Engine: e, t: t, log: log, clock: clock, done: make(chan struct{})}
	var ended error
	go func() {
		defer close(r.done)
		ended = e.Run(ctx)
	}()
	closing := sync.OnceValue(func() error {
		cancel()
		<-r.done
		errs := []error{ended, e.Close()}
		for _, s := range sinks {
			errs = append(errs, s.Close())
		}
		return errors.Join(errs...)
	})
	r.stop = closing
	t.Cleanup(func() { _ = closing() }) // who cares has looked at it
	return r
}

// settle waits until all that is in the log is read and published.
func (r *running) settle() {
	r.t.Helper()
	r.until(func(p engine.Progress) bool {
		p.Ends, p.Lag = plan.Offsets{}, 0 // known better
		return p.Offsets[0] >= r.log.len() && p.Settled(r.clock.Now())
	})
}

func (r *running) until(ok func(engine.Progress) bool) {
	r.t.Helper()
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok(r.Progress()) {
		select {
		case <-tick.C:
		case <-r.done:
			require.FailNow(r.t, "the engine ended", "%v", r.stop())
		case <-deadline.C:
			require.FailNow(r.t, "timeout", "%+v", r.Progress())
		}
	}
}

// targets are a lake and an index, of which each job has its own clients.
type targets struct {
	lake string
	url  string
}

func newTargets(t *testing.T) targets {
	t.Helper()
	s, err := index.Open(index.Config{Path: filepath.Join(t.TempDir(), "index.db")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return targets{t.TempDir(), server.URL}
}

func (g targets) sinks(t *testing.T, p *plan.Plan) []sink.Sink {
	t.Helper()
	l, err := lake.Open(t.Context(), lake.Config{Dir: g.lake})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	toLake, err := iceberg.Open(t.Context(), iceberg.Config{Lake: l, Namespace: "toy", Plan: p, Flush: 20 * time.Millisecond})
	require.NoError(t, err)
	toIndex, err := elastic.New(elastic.Config{URLs: []string{g.url}, Plan: p, Flush: 5 * time.Millisecond})
	require.NoError(t, err)
	return []sink.Sink{toIndex, toLake}
}

// held is what a target holds: table/id → revision and value.
type held map[string]string

func (g targets) inLake(t *testing.T) held {
	t.Helper()
	l, err := lake.Open(t.Context(), lake.Config{Dir: g.lake, ReadOnly: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	got := held{}
	for _, table := range plantest.Toy().Tables {
		tbl, err := l.Lookup(t.Context(), lake.Name{Namespace: "toy", Table: table.Name})
		require.NoError(t, err)
		for row, err := range tbl.Scan(t.Context(), lake.ScanOptions{}) {
			require.NoError(t, err)
			id := fmt.Sprintf("%s/%s", table.Name, row["_id"])
			require.NotContains(t, got, id, "twice")
			got[id] = fmt.Sprintf("%d %s", row["_rev"], row["value"])
		}
	}
	return got
}

func (g targets) inIndex(t *testing.T) held {
	t.Helper()
	got := held{}
	for _, table := range plantest.Toy().Tables {
		res, err := http.Post(g.url+"/"+table.Name+"/_search?ignore_unavailable=true", "application/json", strings.NewReader(`{"size":10000}`)) //nolint:noctx // of this test's server
		require.NoError(t, err)
		body, err := io.ReadAll(res.Body)
		require.NoError(t, errors.Join(err, res.Body.Close()))
		var found struct {
			Hits struct {
				Hits []struct {
					ID     string         `json:"_id"`
					Source map[string]any `json:"_source"`
				} `json:"hits"`
			} `json:"hits"`
		}
		d := json.NewDecoder(bytes.NewReader(body))
		d.UseNumber()
		require.NoError(t, d.Decode(&found), string(body))
		for _, hit := range found.Hits.Hits {
			got[table.Name+"/"+hit.ID] = fmt.Sprintf("%s %s", hit.Source["_rev"], hit.Source["value"])
		}
	}
	return got
}

// watch reads a table of the lake again and again, and fails when a snapshot has rows of two histories: of a lineage, and of one it
// was forked from, from after the fork. It ends, with how many lineages it has met, when the returned function is called.
func (g targets) watch(t *testing.T, forks *sync.Map) (stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	lineages, done := map[string]bool{}, make(chan error, 1)
	look := func(tbl *lake.Table) error {
		newest := map[string]int64{} // epoch by lineage
		for row, err := range tbl.Scan(ctx, lake.ScanOptions{Columns: []string{"_lineage", "_epoch"}}) {
			if err != nil {
				return err
			}
			l := row["_lineage"].(string)
			newest[l] = max(newest[l], row["_epoch"].(int64))
		}
		for l := range newest {
			lineages[l] = true
			v, _ := forks.Load(l)
			history, _ := v.(sink.Lineage)
			for other, epoch := range newest {
				if other != l && other < l && !history.Holds(sink.Point{Lineage: other, Epoch: uint64(epoch)}) {
					return fmt.Errorf("a snapshot has rows of %s and epoch %d of %s, which is not in its history %+v", l, epoch, other, history)
				}
			}
		}
		return nil
	}
	go func() {
		done <- func() error {
			l, err := lake.Open(ctx, lake.Config{Dir: g.lake, ReadOnly: true})
			if err != nil {
				return err
			}
			defer l.Close()
			tbl, err := l.Lookup(ctx, lake.Name{Namespace: "toy", Table: "joined"})
			for err == nil && ctx.Err() == nil {
				err = look(tbl)
			}
			if ctx.Err() != nil {
				return nil
			}
			return err
		}()
	}()
	return func() int {
		cancel()
		require.NoError(t, <-done)
		return len(lineages)
	}
}

// segment is a version of the app and the number of records up to which it is the one that runs.
type segment struct {
	version int
	upTo    int64
}

// want is what an instance holds that runs the segments one after the other, and never goes back.
func want(t *testing.T, items []record.Item, segments []segment) held {
	t.Helper()
	dir, log, clock := filepath.Join(t.TempDir(), "job"), newTape(), plantest.NewClock()
	m := &memory{}
	for i, s := range segments {
		r := run(t, dir, toy(s.version), log, clock, 2, m)
		log.append(items[log.len():s.upTo]...)
		r.settle()
		if i == len(segments)-1 {
			finish(r)
		}
		require.NoError(t, r.stop())
	}
	got, revs := held{}, map[string]uint64{}
	for _, row := range m.rows {
		id := plantest.Toy().Tables[row.Table].Name + "/" + row.ID
		if row.Rev < revs[id] {
			continue
		}
		revs[id] = row.Rev
		if delete(got, id); row.Deleted {
			continue
		}
		cells := make([]plan.Cell, 1)
		require.NoError(t, plantest.Toy().Tables[row.Table].Schema.Decode(row.Value, cells))
		got[id] = fmt.Sprintf("%d %s", row.Rev, cells[0].Bytes)
	}
	return got
}

// finish lets the time pass that records wait.
func finish(r *running) {
	r.clock.Move(2 * plantest.Wait)
	r.until(func(p engine.Progress) bool { return p.NextTimer > r.clock.Now().UnixMicro() })
	r.settle()
}

// memory keeps what it is given.
type memory struct{ rows []plan.Row }

func (*memory) Name() string                                         { return "memory" }
func (*memory) Gather() (int64, time.Duration)                       { return 0, 0 }
func (*memory) Begin(context.Context, sink.Lineage, sink.Past) error { return nil }
func (*memory) Close() error                                         { return nil }

func (m *memory) Publish(_ context.Context, b sink.Batch) ([]sink.Rejected, error) {
	m.rows = append(m.rows, b.Rows...)
	return nil, nil
}

// TestRewind runs a job, makes savepoints, rewinds it, to any of them and with other versions of the app, and leaves the old jobs
// running. Afterwards lake and index hold what an instance holds that never went back, no reader of the lake has seen a mix, and the
// old jobs have ended because they were refused. MILLRACE_REWINDS says how many random courses (default 1); MILLRACE_SEED runs one.
func TestRewind(t *testing.T) {
	t.Parallel()
	first, n := uint64(1), uint64(1)
	for name, v := range map[string]*uint64{"MILLRACE_REWINDS": &n, "MILLRACE_SEED": &first} {
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
			t.Logf("replay: MILLRACE_SEED=%d go test . -run TestRewind", seed)
			testRewind(t, rand.New(rand.NewPCG(seed, 4)))
		})
	}
}

func testRewind(t *testing.T, rng *rand.Rand) {
	items := plantest.ToyItems(600, rng.Int64())
	clock, log, g, base := plantest.NewClock(), newTape(), newTargets(t), t.TempDir()
	forks := &sync.Map{}
	type saved struct {
		dir      string
		segments []segment
	}
	var savepoints []saved
	var zombies []*running
	var segments []segment // before the one that runs
	version := 0
	dir := filepath.Join(base, "job-0")
	start := func() *running {
		clock.Move(time.Second) // lineages are named after the time
		r := run(t, dir, toy(version), log, clock, 1+rng.IntN(5), g.sinks(t, toy(version))...)
		return r
	}
	r := start()
	feed := func(n int) {
		have := int(log.len())
		log.append(items[have:min(have+n, len(items))]...)
	}
	feed(60)
	r.settle()
	stopWatching := g.watch(t, forks)
	save := func() {
		r.settle()
		s := saved{filepath.Join(base, "savepoints", fmt.Sprint(len(savepoints))), append(slices.Clone(segments), segment{version, log.len()})}
		require.NoError(t, r.Savepoint(t.Context(), s.dir))
		savepoints = append(savepoints, s)
	}
	save()
	rewinds := 0
	for range 12 {
		switch rng.IntN(6) {
		case 0, 1:
			feed(1 + rng.IntN(40))
			if rng.IntN(2) == 0 {
				r.settle()
			}
		case 2:
			save()
		case 3: // another version takes over
			r.settle()
			require.NoError(t, r.stop())
			segments = append(segments, segment{version, log.len()})
			version = rng.IntN(3)
			r = start()
		default:
			feed(1 + rng.IntN(30))
			r.settle()
			if rng.IntN(3) == 0 {
				require.NoError(t, r.stop())
			} else {
				zombies = append(zombies, r)
			}
			s := savepoints[rng.IntN(len(savepoints))]
			rewinds++
			dir = filepath.Join(base, fmt.Sprintf("job-%d", rewinds))
			clock.Move(time.Second)
			forks.Store(newLineageOf(t, s.dir, dir, clock))
			segments, version = slices.Clone(s.segments), rng.IntN(3)
			r = start()
		}
	}
	feed(len(items))
	r.settle()
	for _, z := range zombies {
		<-z.done
		require.ErrorIs(t, z.stop(), sink.ErrFenced)
	}
	finish(r)
	require.NoError(t, r.stop())
	seen := stopWatching()
	require.Positive(t, seen)
	expected := want(t, items, append(segments, segment{version, int64(len(items))}))
	require.Equal(t, format(expected), format(g.inLake(t)), "lake")
	require.Equal(t, format(expected), format(g.inIndex(t)), "index")
}

// newLineageOf restores a savepoint and returns the lineage that begins with it.
func newLineageOf(t *testing.T, from, dir string, clock *plantest.Clock) (id string, l sink.Lineage) {
	t.Helper()
	m, err := engine.ReadManifest(nil, from)
	require.NoError(t, err)
	require.NoError(t, engine.Restore(nil, from, dir, clock.Now()))
	p, err := engine.ReadProgress(nil, dir)
	require.NoError(t, err)
	require.Equal(t, m.Epoch, p.Epoch)
	return p.Lineage, sink.Lineage{ID: p.Lineage, Ancestors: m.History().Fork(m.Epoch, p.Lineage, 1).Ancestors}
}

func format(h held) string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(h)) {
		fmt.Fprintf(&b, "%s = %s\n", id, h[id])
	}
	return b.String()
}
