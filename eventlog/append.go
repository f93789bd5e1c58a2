package eventlog

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/zeebo/xxh3"

	"millrace/record"
)

// ErrTooLarge is matched by the error of Append for an item that is larger than Log.MaxItemBytes.
var ErrTooLarge = errors.New("item is larger than the log takes")

const (
	// linger is how long a batch waits for the items of other requests. The embedded broker syncs once a batch, so it is
	// what lets many requests share a sync; it is also the least that an Append takes.
	linger = 2 * time.Millisecond

	// What may be under way at once; further appends wait. It bounds memory when the broker is slow or gone.
	maxBufferedRecords = 1 << 17
	maxBufferedBytes   = 32 << 20
)

// Snappy costs the least CPU, even less than not compressing, as there are fewer bytes to copy, check and sync. Measured on
// the official fixtures repeated, 1.8 kB an item, client and embedded broker together, µs of CPU to append and to read an
// item: snappy 3.2 and 1.9, lz4 4.6 and 3.0, zstd 6.6 and 2.4, none 8.2 and 3.3. zstd takes a quarter less of the disk.
var compression = kgo.SnappyCompression()

// Append adds the items to the log and returns nil only when every one of them is durable there.
//
// It refuses all items when one is too large (ErrTooLarge) or has no kind. After any other error some of the items may be
// in the log already, and some may still get there: whoever appends them again makes duplicates, which jobs recognise by
// the items' ids. It waits for the broker as long as ctx lasts, so give it a deadline.
func (l *Log) Append(ctx context.Context, items []record.Item) error {
	if len(items) == 0 {
		return nil
	}
	start := time.Now()
	size := 0
	records := make([]kgo.Record, len(items))
	for i := range items {
		item, rec := &items[i], &records[i]
		if item.Kind < record.Event || item.Kind > record.Reject {
			return fmt.Errorf("append %d items to %s: item %d has kind %d", len(items), l.cfg.Topic, i, item.Kind)
		}
		var n int
		rec.Headers, n = encodeHeaders(item)
		n += len(item.Bytes)
		if n > l.MaxItemBytes() {
			return fmt.Errorf("append %d items to %s: item %d has %d bytes, the limit is %d: %w",
				len(items), l.cfg.Topic, i, n, l.MaxItemBytes(), ErrTooLarge)
		}
		size += n
		rec.Value = item.Bytes
		rec.Partition = l.partitions[partitionHash(item)%uint64(len(l.partitions))]
	}

	// The promises outlive this call when ctx ends first, so what they touch is their own.
	a := &appending{done: make(chan struct{})}
	a.waiting.Store(int64(len(items)))
	for i := range records {
		l.client.Produce(ctx, &records[i], func(_ *kgo.Record, err error) { a.finish(i, err) })
	}
	select {
	case <-a.done:
	case <-ctx.Done():
		a.failed.CompareAndSwap(nil, &failure{-1, context.Cause(ctx)})
	}
	if f := a.failed.Load(); f != nil {
		l.metrics.appendErrors.Inc()
		if errors.Is(f.err, kerr.MessageTooLarge) {
			f.err = fmt.Errorf("%w: %w", ErrTooLarge, f.err)
		}
		if f.item < 0 {
			return fmt.Errorf("append %d items to %s at %s: the log has not confirmed them: %w", len(items), l.cfg.Topic, l.address(), f.err)
		}
		return fmt.Errorf("append %d items to %s at %s: item %d: %w", len(items), l.cfg.Topic, l.address(), f.item, f.err)
	}
	l.metrics.appendSeconds.Observe(time.Since(start).Seconds())
	l.metrics.appendedItems.Add(float64(len(items)))
	l.metrics.appendedBytes.Add(float64(size))
	return nil
}

// appending is one call of Append: how many of its items are still under way, and the first that failed.
type appending struct {
	waiting atomic.Int64
	failed  atomic.Pointer[failure]
	done    chan struct{}
}

type failure struct {
	item int // index; -1 when it is not one item's
	err  error
}

func (a *appending) finish(item int, err error) {
	if err != nil {
		a.failed.CompareAndSwap(nil, &failure{item, err})
	}
	if a.waiting.Add(-1) == 0 {
		close(a.done)
	}
}

// partitionHash chooses an item's partition. It must never change: the order of an item's versions hangs on it.
func partitionHash(item *record.Item) uint64 {
	h := xxh3.HashString(item.Account)
	h = xxh3.HashStringSeed(item.Env, h)
	if item.ID == "" {
		return xxh3.HashSeed(item.Bytes, h)
	}
	return xxh3.HashStringSeed(item.ID, h)
}
