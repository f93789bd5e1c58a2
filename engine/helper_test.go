package engine_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
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

// log is a source in memory. It survives what the engine does not, like the real one.
type log struct {
	mu      sync.Mutex
	batches []batch // one a poll
	ends    plan.Offsets
	changed chan struct{}
	fail    error // of the next poll
	polls   int
}

type batch []record.Item

func newLog() *log { return &log{ends: plan.Offsets{}, changed: make(chan struct{})} }

// append adds items to a partition; a reader that keeps up gets them in one poll.
func (l *log) append(partition int32, items ...record.Item) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := slices.Clone(items)
	for i := range b {
		b[i].Position = record.Position{Topic: "toy", Partition: partition, Offset: l.ends[partition]}
		l.ends[partition]++
	}
	l.batches = append(l.batches, b)
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *log) Ends(context.Context) (plan.Offsets, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.ends), nil
}

func (l *log) Read(_ context.Context, from plan.Position) (engine.Reader, error) {
	return &reader{l: l, from: from.Offsets}, nil
}

type reader struct {
	l    *log
	from plan.Offsets
	next int
}

func (r *reader) Poll(ctx context.Context, maxRecords, _ int) (plan.Batch, error) {
	for {
		r.l.mu.Lock()
		if err := r.l.fail; err != nil {
			r.l.mu.Unlock()
			return plan.Batch{}, err
		}
		for r.next < len(r.l.batches) {
			var items []record.Item
			for _, it := range r.l.batches[r.next] {
				if it.Position.Offset >= r.from[it.Position.Partition] && len(items) < maxRecords {
					items = append(items, it)
				}
			}
			if len(items) > 0 {
				last := items[len(items)-1].Position
				r.from[last.Partition] = last.Offset + 1
				r.l.polls++
				r.l.mu.Unlock()
				return plan.Batch{Items: items}, nil
			}
			r.next++
		}
		changed := r.l.changed
		r.l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return plan.Batch{}, ctx.Err()
		}
	}
}

func (r *reader) Close() {}

// memory is an idempotent sink: it keeps what it was given, and can be made to refuse, to fail and to block.
type memory struct {
	name   string
	bytes  int64
	every  time.Duration
	reject func(plan.Row) string // reason, or empty

	mu      sync.Mutex
	rows    []plan.Row
	batches []sink.Batch
	fail    error
	block   chan struct{}
}

func (m *memory) Name() string                   { return m.name }
func (m *memory) Gather() (int64, time.Duration) { return m.bytes, m.every }
func (m *memory) Close() error                   { return nil }

func (m *memory) Begin(context.Context, sink.Lineage, sink.Past) error { return nil }

func (m *memory) Publish(ctx context.Context, b sink.Batch) ([]sink.Rejected, error) {
	m.mu.Lock()
	block := m.block
	m.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return nil, m.fail
	}
	var rejected []sink.Rejected
	for _, r := range b.Rows {
		if m.reject != nil {
			if reason := m.reject(r); reason != "" {
				rejected = append(rejected, sink.Rejected{Row: r, Reason: reason})
				continue
			}
		}
		m.rows = append(m.rows, r)
	}
	m.batches = append(m.batches, b)
	return rejected, nil
}

func (m *memory) published() []plan.Row {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.rows)
}

// job is an engine that runs in the background of a test.
type job struct {
	t      *testing.T
	c      engine.Config
	log    *log
	e      *engine.Engine
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// config returns a config for quick tests: a file system in memory, the toy plan and one sink.
func config(t *testing.T, l *log, sinks ...sink.Sink) engine.Config {
	t.Helper()
	return engine.Config{
		Dir: "job", FS: vfs.NewMem(), Plan: plantest.Toy(), Instance: "toy", Job: t.Name(), Source: l, Sinks: sinks,
		MaxEpoch: time.Millisecond, Now: plantest.NewClock().Now, CacheBytes: 1 << 20, MemTableBytes: 256 << 10,
	}
}

// start opens and runs an engine until the test or stop ends it.
func start(t *testing.T, c engine.Config) *job {
	t.Helper()
	e, err := engine.Open(t.Context(), c)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	j := &job{t: t, c: c, e: e, cancel: cancel, done: make(chan struct{})}
	j.log, _ = c.Source.(*log)
	go func() {
		defer close(j.done)
		j.err = e.Run(ctx)
	}()
	t.Cleanup(func() { _ = j.end() }) // a test that cares has looked at it
	return j
}

// end stops the engine and returns what Run returned.
func (j *job) end() error {
	j.cancel()
	<-j.done
	return errors.Join(j.err, j.e.Close())
}

func (j *job) stop() {
	j.t.Helper()
	require.NoError(j.t, j.end())
}

// wait polls for a condition, with a deadline, and fails early when the engine ends.
func (j *job) wait(what string, ok func(engine.Progress) bool) {
	j.t.Helper()
	deadline := time.NewTimer(3 * time.Minute) // a million records that wait are released in one epoch (MILLRACE_WAITING)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok(j.e.Progress()) {
		select {
		case <-tick.C:
		case <-j.done:
			require.FailNow(j.t, "the engine ended", "waiting for %s: %v", what, j.err)
		case <-deadline.C:
			require.FailNow(j.t, "timeout", "waiting for %s: %s", what, fmt.Sprintf("%+v", j.e.Progress()))
		}
	}
}

// settle waits until the engine has nothing left to do.
func (j *job) settle() {
	j.t.Helper()
	ends, err := j.log.Ends(j.t.Context())
	require.NoError(j.t, err)
	j.wait("everything to be read and published", func(p engine.Progress) bool {
		for partition, end := range ends {
			if p.Offsets[partition] < end {
				return false
			}
		}
		p.Lag = 0 // known better
		return p.Settled(j.c.Now())
	})
}
