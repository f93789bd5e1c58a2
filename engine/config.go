package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"millrace/plan"
	"millrace/sink"
)

// Source is what a job reads: a log, or a part of the lake and then the log.
type Source interface {
	// Ends returns, for every partition, the offset that the next record appended to it will have. Called about once a
	// second, concurrently with reading.
	Ends(ctx context.Context) (plan.Offsets, error)

	// Read starts reading at from, which is zero for a job that has committed nothing.
	Read(ctx context.Context, from plan.Position) (Reader, error)
}

// Reader reads records in order of offset within each partition. It is used from one goroutine.
type Reader interface {
	// Poll blocks until there is at least one record, or a change of the seeding or of where the log is read from, or ctx ends, and returns what is there: at most
	// maxRecords, and not much more than maxBytes of Item.Bytes. It retries what is worth retrying; an error stops the job. What it
	// returns once ctx has ended is ignored.
	Poll(ctx context.Context, maxRecords, maxBytes int) (plan.Batch, error)
	Close()
}

// Config says what to run and within which bounds. Dir, Plan, Instance and Source are required.
type Config struct {
	Dir      string     // the job's directory; made when it does not exist
	FS       vfs.FS     // where Dir is; default: the operating system's file system
	Plan     *plan.Plan // what to run
	Instance string     // whose state Dir holds; a directory of another instance is refused
	Job      string     // name of this run, for logs
	Source   Source
	Sinks    []sink.Sink // names must differ; the caller closes them after Run

	Workers   int // goroutines that share a stage's keys; default GOMAXPROCS; changes no result
	KeyGroups int // how many groups keys are hashed to; default 128; fixed once Dir exists

	// An epoch gathers records until the source has no more for a few milliseconds, or MaxEpoch has passed (default
	// 20 ms), or it holds MaxEpochBytes of Item.Bytes (default 16 MiB) or MaxEpochRecords (default 65536). While the
	// epoch before it is being processed it keeps growing within the latter two bounds.
	MaxEpoch        time.Duration
	MaxEpochBytes   int
	MaxEpochRecords int

	// OutboxLimit is how many bytes of unpublished rows make the engine stop reading until sinks catch up. Default 1 GiB.
	OutboxLimit int64

	// ExpiringLimit is how many bytes of list items that expire the state holds, in the stages' own encoding, before compression. Beyond
	// it the oldest go before their time (see plan.Expiring): for etl, records whose rows are then no longer corrected. What one epoch
	// appends may be on top of it. Default 16 GiB. A state of a format before 4 has no such limit.
	ExpiringLimit int64

	// DrainTimeout is how long a clean stop lets sinks publish what is committed. What is left is published at the next
	// start. Default 10 s.
	DrainTimeout time.Duration

	// The event-time watermark is the oldest, over the partitions, of the newest event time seen there, less Disorder
	// (default 10 min). A partition that has brought nothing for IdleAfter (default 1 min) is left out.
	Disorder  time.Duration
	IdleAfter time.Duration

	// CheckpointEvery is the time between two checkpoints, default 5 min, negative for none. The newest CheckpointsKept
	// (default 3) are kept in the directory checkpoints of Dir.
	CheckpointEvery time.Duration
	CheckpointsKept int

	// Savepoints is a directory whose entries are savepoints of the instance, of any lineage. Archives among the sinks are
	// asked to keep what going back to them takes, as they are for the checkpoints. Default: none.
	Savepoints string

	CacheBytes int64 // block cache of the state; default 32 MiB

	// MemTableBytes is the size of a memtable of the state; default 32 MiB; two to four are in memory. An epoch that commits more than half of
	// it is flushed by itself, and small flushes are what compactions copy again and again.
	MemTableBytes int64

	Now        func() time.Time      // the processing clock; default time.Now
	Logger     *slog.Logger          // default: discard
	Registerer prometheus.Registerer // one engine's; wrapped with a label where several share one; default: no metrics
	Tracer     trace.Tracer          // makes spans of epochs, publications and checkpoints; default: none
	OnEpoch    func(Progress)        // called after every commit from the engine's loop, which waits for it; default: nothing
}

func (c Config) withDefaults() Config {
	setDefault(&c.Workers, runtime.GOMAXPROCS(0))
	setDefault(&c.KeyGroups, 128)
	setDefault(&c.MaxEpoch, 20*time.Millisecond)
	setDefault(&c.MaxEpochBytes, 16<<20)
	setDefault(&c.MaxEpochRecords, 1<<16)
	setDefault(&c.OutboxLimit, 1<<30)
	setDefault(&c.ExpiringLimit, 16<<30)
	setDefault(&c.DrainTimeout, 10*time.Second)
	setDefault(&c.Disorder, 10*time.Minute)
	setDefault(&c.IdleAfter, time.Minute)
	setDefault(&c.CheckpointEvery, 5*time.Minute)
	setDefault(&c.CheckpointsKept, 3)
	setDefault(&c.CacheBytes, 32<<20)
	setDefault(&c.MemTableBytes, 32<<20)
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Tracer == nil {
		c.Tracer = noop.NewTracerProvider().Tracer("")
	}
	c.Logger = c.Logger.With("instance", c.Instance, "job", c.Job)
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Dir == "" {
		bad("no directory given for the job's state")
	}
	if c.Instance == "" {
		bad("no instance named")
	}
	if c.Source == nil {
		bad("no source given")
	}
	if c.Plan == nil {
		bad("no plan given")
	} else if err := c.Plan.Check(); err != nil {
		errs = append(errs, err)
	}
	if c.Workers < 1 {
		bad("%d workers: want 1 or more", c.Workers)
	}
	if c.KeyGroups < 1 || c.KeyGroups > 1<<15 {
		bad("%d key groups: want 1 to 32768", c.KeyGroups)
	}
	if c.MaxEpoch < 0 || c.MaxEpochBytes < 1 || c.MaxEpochRecords < 1 || c.OutboxLimit < 1 || c.ExpiringLimit < 1 {
		bad("the bounds of an epoch, of the outbox and of what expires must be positive")
	}
	names := map[string]bool{}
	for _, s := range c.Sinks {
		if s.Name() == "" || names[s.Name()] {
			bad("sink name %q is empty or taken", s.Name())
		}
		names[s.Name()] = true
	}
	return errors.Join(errs...)
}
