package eventlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/plan"
	"millrace/record"
)

// GapError says that a reader was to continue at an offset that the log does not have.
type GapError struct {
	Topic     string
	Partition int32
	Want      int64 // the offset to read next
	Start     int64 // the oldest offset that the partition has
	End       int64 // the offset that its next record will get; Want is below Start or above End
}

func (e *GapError) Error() string {
	if e.Want > e.End {
		return fmt.Sprintf("partition %d of %s ends before offset %d, which was read up to: its next offset is %d; the log was cut or replaced",
			e.Partition, e.Topic, e.Want, e.End)
	}
	return fmt.Sprintf("offsets %d to %d of partition %d of %s are gone: the log starts at offset %d; read what is missing from the lake, or start afresh",
		e.Want, e.Start-1, e.Partition, e.Topic, e.Start)
}

// Reader reads all partitions of a log. It is not safe for concurrent use, but for Close.
type Reader struct {
	log     *Log
	client  *kgo.Client
	decoder decoder
	next    plan.Offsets  // of each partition, the offset after the last item in pending
	pending []record.Item // fetched and not yet returned
	err     error         // why the reader cannot go on, once it cannot
}

// Read starts reading at the given offsets. A partition that is not in from starts at the oldest record it has. An offset
// that a partition does not have any more, or not yet but for the next one, is a *GapError. Close the reader after use.
func (l *Log) Read(ctx context.Context, from plan.Offsets) (*Reader, error) {
	starts, err := l.Starts(ctx)
	if err != nil {
		return nil, err
	}
	ends, err := l.Ends(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range slices.Sorted(maps.Keys(from)) {
		if _, ok := starts[p]; !ok {
			return nil, fmt.Errorf("read %s at %s: it has %d partitions and no partition %d", l.cfg.Topic, l.address(), len(l.partitions), p)
		}
	}
	next := make(plan.Offsets, len(starts))
	positions := make(map[int32]kgo.Offset, len(starts))
	for _, p := range l.partitions {
		want, ok := from[p]
		if !ok {
			want = starts[p]
		}
		if want < starts[p] || want > ends[p] {
			return nil, &GapError{Topic: l.cfg.Topic, Partition: p, Want: want, Start: starts[p], End: ends[p]}
		}
		next[p] = want
		positions[p] = kgo.NewOffset().At(want)
	}
	client, err := kgo.NewClient(append(l.clientOptions(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{l.cfg.Topic: positions}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(l.cfg.FetchBytes),
		kgo.FetchMaxPartitionBytes(l.cfg.FetchBytes/2),
		kgo.FetchMaxWait(500*time.Millisecond),
	)...)
	if err != nil {
		return nil, fmt.Errorf("read %s at %s: %w", l.cfg.Topic, l.address(), err)
	}
	return &Reader{log: l, client: client, next: next}, nil
}

// Poll returns the next items: at least one, at most maxRecords, and no further one once they have maxBytes bytes or more
// (a bound of 0 or less is none). Items of a partition come in order of their offsets, none left out. Poll waits for the
// first item until ctx ends, also while the broker is away; the error then is the context's.
//
// A record that Millrace did not write, or that was changed, comes as an item of kind Reject with the reason. The items and
// their bytes are the caller's. After a *GapError the reader cannot go on.
func (r *Reader) Poll(ctx context.Context, maxRecords, maxBytes int) ([]record.Item, error) {
	for len(r.pending) == 0 {
		if r.err != nil {
			return nil, r.err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := r.fetch(ctx, maxRecords); err != nil {
			return nil, err
		}
	}
	n, size := 0, 0
	for n < len(r.pending) && (maxRecords <= 0 || n < maxRecords) && (maxBytes <= 0 || size < maxBytes) {
		size += len(r.pending[n].Bytes)
		n++
	}
	out := r.pending[:n:n]
	r.pending = r.pending[n:]
	r.log.metrics.readItems.Add(float64(n))
	r.log.metrics.readBytes.Add(float64(size))
	return out, nil
}

// fetch waits for records and makes them pending. It may return with none.
func (r *Reader) fetch(ctx context.Context, maxRecords int) error {
	fetches := r.client.PollRecords(ctx, maxRecords)
	if fetches.IsClientClosed() {
		r.err = fmt.Errorf("read %s: the reader is closed", r.log.cfg.Topic)
		return r.err
	}
	r.pending = make([]record.Item, 0, fetches.NumRecords())
	fetches.EachRecord(func(rec *kgo.Record) {
		r.pending = append(r.pending, r.decoder.item(rec))
		r.next[rec.Partition] = rec.Offset + 1
	})
	for _, failed := range fetches.Errors() {
		if ctx.Err() != nil && errors.Is(failed.Err, ctx.Err()) {
			continue
		}
		// The client goes on with the other partitions, we must not: what was fetched is returned, then the error.
		r.err = r.failure(ctx, failed)
		return nil
	}
	return nil
}

// failure says why a partition cannot be read on.
func (r *Reader) failure(ctx context.Context, failed kgo.FetchError) error {
	cause := fmt.Errorf("read partition %d of %s at %s: %w", failed.Partition, r.log.cfg.Topic, r.log.address(), failed.Err)
	var lost *kgo.ErrDataLoss
	if !errors.Is(failed.Err, kerr.OffsetOutOfRange) && !errors.As(failed.Err, &lost) {
		return cause
	}
	starts, err := r.log.Starts(ctx)
	if err != nil {
		return errors.Join(cause, err)
	}
	ends, err := r.log.Ends(ctx)
	if err != nil {
		return errors.Join(cause, err)
	}
	p := failed.Partition
	gap := &GapError{Topic: r.log.cfg.Topic, Partition: p, Want: r.next[p], Start: starts[p], End: ends[p]}
	if lost != nil || (gap.Want >= gap.Start && gap.Want <= gap.End) {
		return cause // another history of the same offsets: saying that they are gone would be wrong
	}
	return gap
}

// Close ends the reading; a Poll under way returns an error.
func (r *Reader) Close() error {
	r.client.Close()
	return nil
}
