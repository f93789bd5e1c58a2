package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"millrace/plan"
	"millrace/sink"
)

// tickEvery is how often the loop looks for timers that are due while nothing else happens.
const tickEvery = 100 * time.Millisecond

// Engine is one job: a plan with its state in a directory that it alone uses.
type Engine struct {
	c       Config
	s       *state
	prog    *program
	timers  *timers
	outbox  *outbox
	sinks   []*publisher
	metrics *metrics

	history   sink.Lineage
	archive   *publisher    // of the sink that can tell what it held; nil when there is none
	advances  chan *advance // from publishers, with rows that were refused
	requests  chan *request // from Savepoint and Copy
	started   atomic.Bool   // Run was called
	beginning sync.Mutex    // held while Run begins, or the state is copied before it
	stopped   chan struct{} // closed when the loop ends
	ended     chan struct{} // closed when Run has ended, with endedBy
	closed    atomic.Bool   // Close was called
	endedBy   error

	// The loop's own:
	last         map[int32]heard
	leftover     bool      // timers were due and too many for one epoch
	checkpointed time.Time // by Config.Now
	checkpointAt uint64    // epoch of the newest checkpoint
	sums         checksums

	mu       sync.Mutex // guards what Progress shows
	rec      epochRecord
	counters map[string]int64
	live     live
}

// Open opens or makes the job's directory and checks that it fits the plan, the instance and the sinks.
func Open(ctx context.Context, c Config) (*Engine, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := finishRewind(c.FS, c.Dir); err != nil {
		return nil, err
	}
	if err := makeDir(c.FS, c.Dir); err != nil {
		return nil, err
	}
	s, err := openState(c)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		c: c, s: s,
		advances: make(chan *advance),
		requests: make(chan *request),
		stopped:  make(chan struct{}),
		ended:    make(chan struct{}),
		last:     map[int32]heard{},
		sums:     checksums{},

		checkpointed: c.Now(),
	}
	if err := s.guard(c.Dir, e.restore); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	c.Logger.Info("opened", "dir", c.Dir, "lineage", e.rec.Lineage, "epoch", e.rec.Epoch, "app_version", c.Plan.Version)
	return e, nil
}

// restore reads what the last commit left.
func (e *Engine) restore() error {
	found, err := e.s.getJSON(keyEpoch, &e.rec)
	if err != nil {
		return err
	}
	if !found {
		now := e.c.Now()
		token := newToken(now, 0)
		e.rec = epochRecord{Lineage: newLineage(token), Token: token}
	}
	e.history, e.checkpointAt = e.rec.history(), e.rec.Epoch
	e.rec.Version = e.c.Plan.Version
	if e.rec.Offsets == nil {
		e.rec.Offsets = plan.Offsets{}
	}
	if e.rec.Newest == nil {
		e.rec.Newest = map[int32]int64{}
	}
	e.rec.Sizes = sizesOf(e.s.id.Stages, e.rec.Sizes)
	e.s.sizes = e.rec.Sizes
	if e.rec.Rejected == nil {
		e.rec.Rejected = map[string]int64{}
	}
	if e.counters, err = e.s.counters(); err != nil {
		return err
	}
	e.prog = newProgram(e.c.Plan, e.s.id.Stages, e.c.KeyGroups, e.c.Workers)
	if e.s.buckets, err = openBuckets(e.s); err != nil {
		return err
	}
	if e.s.packer, err = openPacker(e.s); err != nil {
		return err
	}
	if e.timers, err = openTimers(e.s, e.prog.stageIDs); err != nil {
		return err
	}
	e.live.nextTimer = e.timers.next(plan.ProcessingTime)
	if e.sinks, err = openPublishers(e); err != nil {
		return err
	}
	for _, p := range e.sinks {
		if _, ok := p.sink.(sink.Archive); ok && e.archive == nil {
			e.archive = p
		}
	}
	if e.outbox, err = openOutbox(e.c.FS, e.c.Dir, e.s, e.published()); err != nil {
		return err
	}
	e.metrics, err = newMetrics(e)
	return err
}

// Run executes the plan until ctx is cancelled, which is a clean stop and returns nil: the epoch in work is committed, and
// sinks get Config.DrainTimeout to publish what is committed. Any other end returns its cause; what is committed then is
// published at the next start. Run is called once.
func (e *Engine) Run(ctx context.Context) error {
	e.beginning.Lock()
	first := e.started.CompareAndSwap(false, true)
	e.beginning.Unlock()
	if !first {
		return errors.New("the engine was run before; open the directory again to go on")
	}
	faults := make(chan error, len(e.sinks)+1) // each goroutine below sends once at most

	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	feed := newFeed(e.c, e.outbox.size)
	from := plan.Position{Offsets: maps.Clone(e.rec.Offsets), Seeding: e.rec.Seeding}
	var readers sync.WaitGroup
	readers.Go(func() {
		if err := feed.run(reading, from); err != nil {
			faults <- fmt.Errorf("read the source: %w", err)
		}
	})
	readers.Go(func() { e.watchEnds(reading) })

	// Publishing outlives ctx: a clean stop lets sinks finish.
	publishing, stopPublishing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopPublishing()
	drain, published := make(chan struct{}), make(chan struct{})
	var publishers sync.WaitGroup
	for _, p := range e.sinks {
		publishers.Go(func() {
			if err := p.run(publishing, drain); err != nil {
				faults <- fmt.Errorf("sink %s: %w", p.sink.Name(), err)
			}
		})
	}

	err := e.run(ctx, feed.out, faults)
	close(e.stopped)
	stopReading()
	readers.Wait()
	close(drain)
	go func() { publishers.Wait(); close(published) }()
	if err == nil {
		err = e.drain(faults, published)
	}
	stopPublishing()
	<-published
	if corrupt(err) {
		err = damage(e.c.Dir, err)
	}
	err = errors.Join(err, e.outbox.closeSegment())
	if err == nil {
		e.c.Logger.Info("stopped", "epoch", e.rec.Epoch)
	}
	e.endedBy = err
	close(e.ended)
	return err
}

// atRest waits until Run, which has been stopped, has ended, and returns an error unless it did as it should.
func (e *Engine) atRest(ctx context.Context) error {
	select {
	case <-e.ended:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if e.closed.Load() {
		return errors.New("the job is closed")
	}
	if e.endedBy != nil {
		return fmt.Errorf("the job has failed: %w", e.endedBy)
	}
	return nil
}

// run is the engine's loop: the only place where epochs are made.
func (e *Engine) run(ctx context.Context, inputs <-chan *input, faults <-chan error) error {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	now := make(chan struct{})
	close(now)
	for {
		var more <-chan struct{} // ready when timers that were due have been left over
		if e.leftover {
			more = now
		}
		var err error
		select {
		case <-ctx.Done():
			return nil
		case err = <-faults:
		case <-e.s.fault.raised:
			err = e.s.fault.get()
		case in := <-inputs:
			err = e.epoch(in, nil)
		case a := <-e.advances:
			err = e.epoch(nil, a)
		case r := <-e.requests:
			r.done <- r.do()
		case <-more:
			err = e.epoch(nil, nil)
		case <-tick.C:
			err = e.tick()
		}
		if err != nil {
			return err
		}
	}
}

// tick does what is due by the clock.
func (e *Engine) tick() error {
	now := e.c.Now()
	e.observe(now)
	if err := e.epoch(nil, nil); err != nil {
		return err
	}
	return e.periodicCheckpoint(now)
}

// drain goes on committing refused rows until all publishers are done or their time is up.
func (e *Engine) drain(faults <-chan error, published <-chan struct{}) error {
	timeout := time.NewTimer(e.c.DrainTimeout)
	defer timeout.Stop()
	for {
		var err error
		select {
		case <-published:
			select {
			case err = <-faults:
				return err
			default:
				return nil
			}
		case <-timeout.C:
			if waiting, _ := e.outbox.size(); waiting > 0 {
				e.c.Logger.Warn("stopped with unpublished rows; they are published at the next start", "bytes", waiting)
			} else {
				e.c.Logger.Warn("stopped before every sink had answered; there is nothing that they have not published")
			}
			return nil
		case err = <-faults:
		case <-e.s.fault.raised:
			err = e.s.fault.get()
		case a := <-e.advances:
			err = e.epoch(nil, a)
		}
		if err != nil {
			return err
		}
	}
}

// watchEnds keeps the source's ends up to date for lag and watermark. A source that does not answer keeps the old ones.
func (e *Engine) watchEnds(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		at := e.c.Now().UnixMicro()
		asked, cancel := context.WithTimeout(ctx, 5*time.Second)
		ends, err := e.c.Source.Ends(asked)
		cancel()
		if err != nil {
			e.metrics.endsFailures.Inc()
		} else {
			e.mu.Lock()
			e.live.ends, e.live.endsAt = ends, at
			e.live.caughtUpWith(e.rec.Offsets)
			e.mu.Unlock()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Close closes the directory, after Run has returned. It does not close the sinks. Closing twice is closing once.
func (e *Engine) Close() error {
	e.closed.Store(true)
	if e.metrics != nil {
		e.metrics.unregister()
	}
	return e.s.close()
}
