// Package sink is where rows go: the interface that the index, the lake and the table topic implement.
//
// A runner appends the rows of each epoch to its outbox before it commits the epoch, and publishes them from there, to each
// sink at the sink's own pace. Publishing is idempotent: after a crash a runner publishes the same epochs again.
//
// Rewinding an instance to a savepoint begins a new lineage (Lineage). A sink is told about it by Begin, before the first
// Publish of every run: it claims its target for the lineage, so that writers of older ones are refused with ErrFenced, and
// brings the target back to the point where the lineage began.
package sink

import (
	"context"
	"time"

	"millrace/plan"
)

// Batch is the rows of a run of consecutive committed epochs of one instance.
type Batch struct {
	Lineage   string // that made the epochs: the sink's, or one of its ancestors. All epochs of a batch are of one
	FromEpoch uint64 // first epoch in the batch; the one after the last batch's ToEpoch
	ToEpoch   uint64 // last epoch in the batch
	Rows      []plan.Row

	// The batch holds all rows made from the log's records in [FromOffsets, ToOffsets), by topic partition.
	FromOffsets, ToOffsets plan.Offsets
}

// Tended is a sink whose target has to be kept in shape, also while nothing is published.
type Tended interface {
	Sink

	// Tend keeps the target in shape, and returns after how long it should be called again. It is called after Begin, between two calls of
	// Publish. What fails is logged, and tried again the next time.
	Tend(ctx context.Context) (again time.Duration)
}

// Rejected is a row that the sink's target will never take: a mapping conflict, a document too large.
type Rejected struct {
	Row    plan.Row
	Reason string
}

// Sink publishes rows to one target.
//
// The runner calls Begin once, with success, before the first Publish of a run, and Publish from one goroutine at a time, in
// epoch order, with no epoch left out. Publish returns when the rows are durable and visible in the target. Both may block and
// retry what is worth retrying (a refused connection, 429, 5xx) until ctx ends; an error that they return stops the job.
// Publishing a batch again, whole or as a part of a larger one, changes nothing.
type Sink interface {
	Name() string // elastic, iceberg, topic: the name of the sink's position

	// Gather says how many bytes of rows, or how much time, a runner should gather before it calls Publish.
	Gather() (bytes int64, every time.Duration)

	// Begin claims the target for the lineage: a writer whose lineage has a smaller token is refused from now on. It takes
	// back what lineages published that are not in the lineage's history, and restores from past what those rows had
	// replaced. Then the target holds what the history holds, up to some epoch between past's and the lineage's start; the
	// runner publishes what comes after past's again.
	//
	// Begin is repeated at every start and does only what is left to do. It returns an error that matches ErrFenced when
	// the target was claimed with a higher token. past is nil for a lineage without ancestors, for an Archive, and when no
	// sink of the job is one.
	Begin(ctx context.Context, l Lineage, past Past) error

	// Publish returns an error that matches ErrFenced when the target was claimed with a higher token after Begin: then
	// nothing of the batch is in the target, or nothing that the other claim has not taken back.
	Publish(ctx context.Context, b Batch) ([]Rejected, error)
	Close() error
}
