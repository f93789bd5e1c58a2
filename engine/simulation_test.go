package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/plan"
	"millrace/plan/plantest"
	"millrace/record"
	"millrace/sink"
)

// TestSimulation runs the toy plan in a world where everything may go wrong: at any write of any kind of file the disk may fail or be
// full, at any sync the machine may crash, with what was not synced there, torn or lost, sinks fail before, within and after a
// batch, refuse rows and panic, jobs are stopped, killed and rewound, and bits of what is stored turn around. One seed is one run,
// step by step and always the same. MILLRACE_SCHEDULES says how many (default 48); MILLRACE_SEED runs one.
func TestSimulation(t *testing.T) {
	t.Parallel()
	first, n := environ(t, "MILLRACE_SEED", 0), environ(t, "MILLRACE_SCHEDULES", 48)
	if os.Getenv("MILLRACE_SEED") != "" {
		n = 1
	}
	const lanes = 8
	for lane := range uint64(lanes) {
		t.Run(fmt.Sprint("lane ", lane), func(t *testing.T) {
			t.Parallel()
			for seed := first + lane; seed < first+n; seed += lanes {
				s := newSimulation(seed)
				err := s.run()
				if err != nil {
					require.NoError(t, err, "replay: MILLRACE_SEED=%d go test ./engine -run 'TestSimulation$'\n%s", seed, strings.Join(s.said, "\n"))
				}
			}
		})
	}
}

// A seed is the same run again: the same steps, faults and rows.
func TestSimulationRepeats(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			a, b := newSimulation(seed), newSimulation(seed)
			require.NoError(t, a.run())
			require.NoError(t, b.run())
			require.Equal(t, a.steps(), b.steps())
			for i := range a.sinks {
				require.Equal(t, a.sinks[i].rows, b.sinks[i].rows)
			}
		})
	}
}

func environ(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	v, err := strconv.ParseUint(s, 10, 64)
	require.NoError(t, err, name)
	return v
}

// simulation is one run.
type simulation struct {
	rng   *rand.Rand
	plan  *plan.Plan
	clock *plantest.Clock
	said  []string // what happened, a line each

	log    map[int32][]record.Item // what the source holds
	moved  time.Duration           // by the clock, in this phase
	saved  []string                // savepoints and checkpoints of this phase
	made   int                     // directories
	memory uint64

	// What survives a life:
	mem   *vfs.MemFS
	dir   string
	sinks []*target
	rest  int // lives that find the disk full still
}

func newSimulation(seed uint64) *simulation {
	s := &simulation{
		rng: rand.New(rand.NewPCG(seed, 0)), plan: deadLetters(), clock: plantest.NewClock(),
		log: map[int32][]record.Item{}, mem: vfs.NewCrashableMem(), dir: "job0",
		sinks: []*target{{name: "a", refuse: refuse}, {name: "b"}},
	}
	return s
}

func (s *simulation) say(format string, args ...any) {
	s.said = append(s.said, fmt.Sprintf(format, args...))
}

// steps is what was said but for the damage that was tried aside: which files there are to damage depends on when Pebble removes those
// that it needs no more.
func (s *simulation) steps() []string {
	return slices.DeleteFunc(slices.Clone(s.said), func(line string) bool {
		return strings.HasPrefix(line, "turn bit") || strings.HasPrefix(line, "noticed")
	})
}

func (s *simulation) chance(percent int) bool { return s.rng.IntN(100) < percent }

func (s *simulation) run() error {
	for phase := range 1 + s.rng.IntN(2) {
		s.records(phase)
		s.moved, s.saved = 0, nil
		for lives := 0; !s.done() && lives < 10; lives++ {
			if err := s.life(); err != nil {
				return fmt.Errorf("life %d of phase %d: %w", lives, phase, err)
			}
			if s.chance(25) {
				if err := s.damaged(); err != nil {
					return fmt.Errorf("after life %d of phase %d: %w", lives, phase, err)
				}
			}
		}
		if err := s.finish(); err != nil {
			return fmt.Errorf("end of phase %d: %w", phase, err)
		}
	}
	return nil
}

// records appends the records of a phase to the log. Phases share no key, as the clock moves past all timers between them.
func (s *simulation) records(phase int) {
	partitions := int32(1 + phase + s.rng.IntN(3)) // more with time
	keys := 1 + s.rng.IntN(12)
	for range 10 + s.rng.IntN(70) {
		key := fmt.Sprintf("%c-%d-%d", 'a'+s.rng.IntN(3), phase, s.rng.IntN(keys))
		s.made++
		it := plantest.Event(key, fmt.Sprintf("e%s-%d", strings.Repeat("x", s.rng.IntN(2)*s.rng.IntN(700)), s.made))
		if s.chance(20) && !strings.HasSuffix(key, "3") {
			it = plantest.Entity(key)
		}
		p := s.rng.Int32N(partitions)
		it.Position = record.Position{Topic: "toy", Partition: p, Offset: int64(len(s.log[p]))}
		s.log[p] = append(s.log[p], it)
	}
	s.say("phase %d: %d records so far in %d partitions", phase, len(s.items()), len(s.log))
}

func (s *simulation) items() (all []record.Item) {
	for p := range int32(len(s.log) + 10) {
		all = append(all, s.log[p]...)
	}
	return all
}

// done reports whether the sinks have all rows that do not depend on the clock: nothing is left to try.
func (s *simulation) done() bool {
	for _, m := range s.sinks {
		if m.records < len(s.items()) {
			return false
		}
	}
	return true
}

// config is of the next life.
func (s *simulation) config(fs vfs.FS) engine.Config {
	var sinks []sink.Sink
	for _, m := range s.sinks {
		sinks = append(sinks, m)
	}
	return engine.Config{
		Dir: s.dir, FS: fs, Plan: s.plan, Instance: "toy", Job: "sim", Source: newLog(), Sinks: sinks, Workers: 1 + s.rng.IntN(4),
		Now: s.clock.Now, CheckpointEvery: 3 * time.Minute, CheckpointsKept: 2, CacheBytes: 1 << 16, MemTableBytes: int64(s.memory),
	}
}

var files = []string{"sst", "blob", "log", "log", "rows", "rows", "manifest", "checkpoint", "other"}

// life is the time from one start of the engine to its end, by whatever cause.
func (s *simulation) life() error {
	s.memory = 16 << 10
	d := newDisk(s.mem)
	var crashed []*target
	switch what := s.rng.IntN(10); {
	case s.rest > 0: // the disk is full still
		s.rest--
		d.full, d.failed = true, true
		s.say("full disk")
	case what < 3:
		doing := []string{"sync", "sync", "sync", "rename"}[s.rng.IntN(4)]
		d.crashAt = fmt.Sprint(files[s.rng.IntN(len(files))], " ", doing, " ", 1+s.few(20))
		d.onCrash = func() {
			crashed = clones(s.sinks)
		}
		s.say("crash at %s", d.crashAt)
	case what < 7:
		kind := files[s.rng.IntN(len(files))]
		doing := []string{"write", "write", "sync", "sync", "create", "rename", "link", "read"}[s.rng.IntN(8)]
		if doing == "read" && (kind == "sst" || kind == "blob") {
			kind = "manifest" // what is read of the others depends on caches
		}
		d.failAt = fmt.Sprint(kind, " ", doing, " ", 1+s.few(20))
		d.full = doing != "read" && s.chance(30)
		s.say("disk fails at %s, full from there %t", d.failAt, d.full)
	}
	// The disk as it is when the machine crashes is taken at once; what goes on meanwhile does not count.
	var left *vfs.MemFS
	if crash := d.onCrash; crash != nil {
		d.onCrash = func() {
			crash()
			left = s.crash(d)
		}
	}
	err := s.live(d)
	switch {
	case left != nil:
		s.say("crashed")
		s.mem, s.sinks = left, crashed
		return nil
	case err != nil && !d.failed && !s.provoked():
		return fmt.Errorf("unprovoked: %w", err)
	case err != nil:
		s.say("ended: %s", firstLine(err))
		if d.full {
			s.rest = s.rng.IntN(2)
		}
	}
	for _, m := range s.sinks {
		m.will = ""
	}
	s.mem = d.end(err != nil && s.chance(50), s.rng.Uint64())
	return nil
}

func (s *simulation) crash(d *disk) *vfs.MemFS {
	all := d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(0, 0))})
	return d.torn(d.mem.CrashClone(vfs.CrashCloneCfg{}), all, s.rng.Uint64())
}

// few is mostly a small number below n.
func (s *simulation) few(n int) int { return min(s.rng.IntN(n), s.rng.IntN(n)) }

func (s *simulation) provoked() bool {
	return slices.ContainsFunc(s.sinks, func(m *target) bool { return m.will != "" && m.will != "refuse" })
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// live opens the engine and does things with it until one of them ends it.
func (s *simulation) live(d *disk) error {
	if s.chance(15) && len(s.saved) > 0 {
		if err := s.rewind(d); err != nil {
			return err
		}
	}
	e, err := engine.Open(context.Background(), s.config(d.fs()))
	if err != nil {
		return err
	}
	j := e.Stepper()
	for err == nil {
		goOn := false
		err = calm(j, d, func() (err error) {
			goOn, err = s.step(e, j, d)
			return err
		})
		if d.ended() || !goOn {
			break
		}
	}
	return errors.Join(err, j.End())
}

// calm calls f while Pebble does nothing by itself, and then waits until it has done what follows.
func calm(j *engine.Stepper, d *disk, f func() error) error {
	d.hold(true)
	err := f()
	if j.Fault() == nil { // else it is as if the process had ended there
		d.hold(false)
	}
	rest(j)
	return errors.Join(err, j.Fault())
}

// rest waits until Pebble does nothing in the background. It gives no signal of that, so it is asked.
func rest(j *engine.Stepper) {
	for !j.Quiet() {
		<-time.After(50 * time.Microsecond)
	}
}

// beginManifest has the flush before a first checkpoint done, and what follows from it, so that the checkpoint does not race with that.
func beginManifest(j *engine.Stepper, d *disk) error {
	d.hold(false)
	err := j.BeginManifest()
	rest(j)
	if err == nil {
		err = j.Fault()
	}
	d.hold(true)
	return err
}

// step does one thing. Not to go on is to stop the job, or to kill it.
func (s *simulation) step(e *engine.Engine, j *engine.Stepper, d *disk) (goOn bool, err error) {
	switch what := s.rng.IntN(100); {
	case what < 45:
		items := s.poll(e.Progress().Offsets)
		if len(items) == 0 {
			return !s.done(), nil
		}
		s.say("epoch of %d records", len(items))
		return true, j.Epoch(items)
	case what < 75:
		i, n := s.rng.IntN(len(s.sinks)), 1+s.few(6)
		if s.chance(15) {
			s.sinks[i].will = []string{"fail", "fail half way", "fail when done", "panic", "hang"}[s.rng.IntN(5)]
		}
		return true, s.publish(j, i, n)
	case what < 85:
		if by := time.Duration(1+s.rng.IntN(200)) * time.Second; s.moved+by < plantest.Wait/2 {
			s.moved += by
			s.clock.Move(by)
		}
		s.say("tick at %s", s.clock.Now().Format(time.TimeOnly))
		before := e.Progress().Epoch
		if err := beginManifest(j, d); err != nil {
			return true, err
		}
		if err := j.Tick(); err != nil {
			return true, err
		}
		s.findCheckpoints(d, before)
		return true, nil
	case what < 90:
		s.made++
		dir := fmt.Sprintf("save%d", s.made)
		s.say("savepoint %s", dir)
		if err := beginManifest(j, d); err != nil {
			return true, err
		}
		if err := j.Savepoint(dir); err != nil {
			return true, err
		}
		s.saved = append(s.saved, dir)
		return true, nil
	}
	s.say("stop")
	return false, nil
}

func (s *simulation) publish(j *engine.Stepper, i, n int) error {
	m := s.sinks[i]
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	m.hung = cancel
	some, err := j.Publish(ctx, i, n)
	if some {
		s.say("sink %s has %d rows %s", m.name, len(m.rows), m.will)
	}
	if m.will == "hang" && err == nil {
		m.will = ""
	}
	return err
}

// findCheckpoints notes a checkpoint that a tick has made.
func (s *simulation) findCheckpoints(d *disk, epoch uint64) {
	dir := fmt.Sprintf("%s/checkpoints/%016d", s.dir, epoch)
	if _, err := d.mem.Stat(dir); err == nil && !slices.Contains(s.saved, dir) {
		s.saved = append(s.saved, dir)
	}
}

// poll brings some of the records that were not read: of one or several partitions, each in order.
func (s *simulation) poll(offsets plan.Offsets) (items []record.Item) {
	for _, p := range s.rng.Perm(len(s.log) + 10) {
		unread := s.log[int32(p)][offsets[int32(p)]:]
		if len(unread) > 0 && len(items) < 20 && s.chance(60) {
			items = append(items, unread[:1+s.few(len(unread))]...)
		}
	}
	return items
}

// rewind goes on with what a savepoint or checkpoint holds.
func (s *simulation) rewind(d *disk) error {
	n := s.rng.IntN(len(s.saved))
	from := s.saved[n]
	if _, err := d.mem.Stat(from); err != nil {
		return nil // an old checkpoint that is gone, or a savepoint that a crash took
	}
	s.made++
	dir := fmt.Sprintf("job%d", s.made)
	s.clock.Move(time.Millisecond) // lineages are named after it
	s.say("rewind to %s in %s", from, dir)
	if err := engine.Restore(d.fs(), from, dir, s.clock.Now()); err != nil {
		return err
	}
	if d.ended() {
		return nil // crashed before it was known that it is there
	}
	s.dir = dir
	s.saved = s.saved[:n+1] // the others are not in this history
	return nil
}

// finish runs all that is left on a healthy disk, lets every timer fire, and compares.
func (s *simulation) finish() error {
	s.say("finish")
	s.rest = 0
	if err := s.complete(newDisk(s.mem), s.clock); err != nil {
		return err
	}
	return s.compare()
}

func (s *simulation) complete(d *disk, clock *plantest.Clock) error {
	for _, m := range s.sinks {
		m.will = ""
	}
	c := s.config(d.fs())
	c.Now = clock.Now
	e, err := engine.Open(context.Background(), c)
	if err != nil {
		return err
	}
	j := e.Stepper()
	err = s.rush(e, j, d, clock)
	if err == nil {
		p := e.Progress()
		var read int64
		for _, o := range p.Offsets {
			read += o
		}
		if n := int64(len(s.items())); read != n || p.Read != n || p.Counters["events"]+p.Counters["entities"] != n || p.OutboxBytes != 0 {
			err = fmt.Errorf("%d records, and the job's bookkeeping says %+v", n, p)
		}
	}
	return errors.Join(err, j.End())
}

func (s *simulation) rush(e *engine.Engine, j *engine.Stepper, d *disk, clock *plantest.Clock) error {
	drain := func() error {
		for again := true; again; { // dead letters are rows too
			again = false
			for i := range s.sinks {
				var some bool
				err := calm(j, d, func() (err error) {
					some, err = j.Publish(context.Background(), i, 1000)
					return err
				})
				if err != nil {
					return err
				}
				again = again || some
			}
		}
		return nil
	}
	for left := s.unread(e); left > 0; left = s.unread(e) {
		if items := s.poll(e.Progress().Offsets); len(items) > 0 {
			if err := calm(j, d, func() error { return j.Epoch(items) }); err != nil {
				return err
			}
		}
	}
	if err := drain(); err != nil {
		return err
	}
	clock.Move(2 * plantest.Wait)
	if err := calm(j, d, func() error { return errors.Join(beginManifest(j, d), j.Tick()) }); err != nil {
		return err
	}
	return drain()
}

func (s *simulation) unread(e *engine.Engine) int {
	left := 0
	offsets := e.Progress().Offsets
	for p, items := range s.log {
		left += len(items) - int(offsets[p])
	}
	return left
}

func (s *simulation) compare() error {
	return agree(s.plan, s.items(), &memory{name: "a", rows: s.sinks[0].rows}, &memory{name: "b", rows: s.sinks[1].rows})
}

// damaged turns a bit of a file around and looks what becomes of it, in a world of its own: the job says that it is damaged, or
// nothing is wrong with what it makes.
func (s *simulation) damaged() error {
	world := *s
	world.mem = s.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(0, 0))})
	world.sinks = clones(s.sinks)
	world.rng = rand.New(rand.NewPCG(s.rng.Uint64(), 0))
	clock := plantest.NewClock()
	clock.Move(s.clock.Now().Sub(clock.Now()))
	paths := map[string]string{} // the newest of each kind: older ones may be obsolete
	for _, dir := range []string{s.dir + "/state", s.dir + "/outbox"} {
		names, err := world.mem.List(dir)
		if err != nil {
			return nil // not made yet
		}
		for _, n := range names {
			path := dir + "/" + n
			if info, err := world.mem.Stat(path); err == nil && info.Size() > 0 {
				paths[kindOf(path)] = max(paths[kindOf(path)], path)
			}
		}
	}
	path := paths[files[world.rng.IntN(len(files))]]
	if path == "" {
		return nil
	}
	b := content(world.mem, path)
	size := len(b)
	if strings.Contains(path, "MANIFEST") {
		// A last record that is damaged is like one that a crash has torn.
		if size = engine.LastRecord(b); size == 0 {
			return nil
		}
	}
	if strings.HasSuffix(path, ".log") {
		// So is the last commit.
		var log uint32
		if _, err := fmt.Sscanf(world.mem.PathBase(path), "%d.log", &log); err != nil {
			return err
		}
		if size = engine.SyncedLog(b, log); size == 0 {
			return nil
		}
	}
	at, bit := world.rng.IntN(size), byte(1)<<world.rng.IntN(8)
	b[at] ^= bit
	writeTo(world.mem, path, b)
	s.say("turn bit %x of byte %d of %d of %s around", bit, at, len(b), path)
	err := world.complete(newDisk(world.mem), clock)
	if err == nil {
		err = world.compare()
		if err != nil {
			return fmt.Errorf("damage went unnoticed: %w", err)
		}
		return nil
	}
	if !strings.Contains(err.Error(), "damaged") && !strings.Contains(err.Error(), "restore the data directory") &&
		!strings.Contains(err.Error(), "cannot read: pebble: comparer name") && !strings.Contains(err.Error(), "this version of the engine reads format") {
		return fmt.Errorf("damage is not called so: %w", err)
	}
	s.say("noticed: %s", firstLine(err))
	return nil
}

// target is a sink that does what the simulation wants. What it has survives the engine.
type target struct {
	name    string
	refuse  func(plan.Row) string
	will    string // what the next batch does to it
	hung    func() // ends the context of a batch that hangs
	rows    []plan.Row
	from    []string // lineages of the rows
	records int      // of the log, that it has the rows of
}

func clones(all []*target) []*target {
	out := make([]*target, len(all))
	for i, m := range all {
		c := *m
		c.rows, c.from, c.will = slices.Clone(m.rows), slices.Clone(m.from), ""
		out[i] = &c
	}
	return out
}

func (m *target) Name() string                   { return m.name }
func (m *target) Gather() (int64, time.Duration) { return 0, 0 }
func (m *target) Close() error                   { return nil }

// Begin withdraws what is not in the lineage's history. A simulation rewinds to its ancestors only, so nothing comes back.
func (m *target) Begin(_ context.Context, l sink.Lineage, _ sink.Past) error {
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

func (m *target) Publish(ctx context.Context, b sink.Batch) ([]sink.Rejected, error) {
	switch m.will {
	case "fail":
		return nil, errors.New("down")
	case "panic":
		panic("out of range")
	case "hang":
		m.hung()
		<-ctx.Done()
		return nil, ctx.Err()
	case "fail half way":
		m.take(b, b.Rows[:len(b.Rows)/2])
		return nil, errors.New("half of it is there")
	}
	refused := m.take(b, b.Rows)
	if m.will != "" {
		return nil, errors.New("the answer is lost")
	}
	m.records = 0
	for _, o := range b.ToOffsets {
		m.records += int(o)
	}
	return refused, nil
}

func (m *target) take(b sink.Batch, rows []plan.Row) (refused []sink.Rejected) {
	for _, r := range rows {
		if m.refuse != nil {
			if reason := m.refuse(r); reason != "" {
				refused = append(refused, sink.Rejected{Row: r, Reason: reason})
				continue
			}
		}
		m.rows, m.from = append(m.rows, r), append(m.from, b.Lineage)
	}
	return refused
}
