// Package sink is where rows go: the interface that the index, the lake and the table topic implement.
//
// A runner appends the rows of each epoch to its outbox before it commits the epoch, and publishes them from there, to each
// sink at the sink's own pace. Publishing is idempotent: after a crash a runner publishes the same epochs again.
package sink

import (
	"context"
	"time"

	"millrace/plan"
)

// Batch is the rows of a run of consecutive committed epochs of one instance.
type Batch struct {
	Lineage   string // of the instance
	FromEpoch uint64 // first epoch in the batch; the one after the last batch's ToEpoch
	ToEpoch   uint64 // last epoch in the batch
	Rows      []plan.Row

	// The batch holds all rows made from the log's records in [FromOffsets, ToOffsets), by topic partition.
	FromOffsets, ToOffsets plan.Offsets
}

// Rejected is a row that the sink's target will never take: a mapping conflict, a document too large.
type Rejected struct {
	Row    plan.Row
	Reason string
}

// Sink publishes rows to one target.
//
// The runner calls Publish from one goroutine at a time, in epoch order, with no epoch left out. Publish returns when the
// rows are durable and visible in the target. It may block and retries what is worth retrying (a refused connection, 429,
// 5xx) until ctx ends; an error that it returns stops the job. Publishing a batch again, whole or as a part of a
// larger one, changes nothing.
type Sink interface {
	Name() string // elastic, iceberg, topic: the name of the sink's position

	// Gather says how many bytes of rows, or how much time, a runner should gather before it calls Publish.
	Gather() (bytes int64, every time.Duration)

	Publish(ctx context.Context, b Batch) ([]Rejected, error)
	Close() error
}
