package eventlog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Messages returns the committed messages of a partition, in order, from its beginning to its end as of now. It waits for
// transactions that are open, so a Writer calls it after Take. A partition that does not end in a transaction's end is an error:
// its writer was killed, and Take settles that.
func (l *Log) Messages(ctx context.Context, topic string, partition int32) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		bounds, err := l.bounds(ctx, topic)
		if err != nil {
			yield(Message{}, err)
			return
		}
		at := place{topic, partition}
		b := bounds[at]
		if b.start >= b.end {
			return
		}
		torn, err := l.torn(ctx, map[place]bound{at: b})
		if err == nil && len(torn) > 0 {
			err = fmt.Errorf("partition %d of %s at %s ends in the middle of a transaction; start its writer once, which settles that", partition, topic, l.address())
		}
		if err != nil {
			yield(Message{}, err)
			return
		}
		stopped := errors.New("stopped")
		err = l.scan(ctx, kgo.ReadCommitted(), map[place]bound{at: b}, func(rec *kgo.Record) error {
			if rec.Attrs.IsControl() || yield(message(rec), nil) {
				return nil
			}
			return stopped
		})
		if err != nil && !errors.Is(err, stopped) {
			yield(Message{}, err)
		}
	}
}

// Last returns, by partition, the last committed message of each partition of the topics that has any. Call it after Take.
func (w *Writer) Last(ctx context.Context, topics ...string) (map[string]map[int32]Message, error) {
	bounds, err := w.log.bounds(ctx, topics...)
	if err != nil {
		return nil, err
	}
	found := map[string]map[int32]Message{}
	for _, t := range topics {
		found[t] = map[int32]Message{}
	}
	maps.DeleteFunc(bounds, func(_ place, b bound) bool { return b.start >= b.end })
	// The end of a partition is markers and what was aborted: look back further until there is something.
	for back := int64(16); len(bounds) > 0; back *= 16 {
		tail := maps.Clone(bounds)
		for at, b := range tail {
			b.start = max(b.start, b.end-back)
			tail[at] = b
		}
		err := w.log.scan(ctx, kgo.ReadCommitted(), tail, func(rec *kgo.Record) error {
			if !rec.Attrs.IsControl() {
				found[rec.Topic][rec.Partition] = message(rec)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		maps.DeleteFunc(bounds, func(at place, b bound) bool {
			_, ok := found[at.topic][at.partition]
			return ok || b.end-back <= b.start
		})
	}
	return found, nil
}

// torn returns those of the partitions whose last record is not a marker: a broker that was killed has left a transaction there.
func (l *Log) torn(ctx context.Context, bounds map[place]bound) (map[string][]int32, error) {
	last := map[place]bound{}
	for at, b := range bounds {
		if b.start < b.end {
			last[at] = bound{b.end - 1, b.end}
		}
	}
	torn := map[string][]int32{}
	err := l.scan(ctx, kgo.ReadUncommitted(), last, func(rec *kgo.Record) error {
		if !rec.Attrs.IsControl() {
			torn[rec.Topic] = append(torn[rec.Topic], rec.Partition)
		}
		return nil
	})
	return torn, err
}

// place is a partition of a topic, and bound which of its offsets are read: from start up to but not including end.
type (
	place struct {
		topic     string
		partition int32
	}
	bound struct{ start, end int64 }
)

func (l *Log) bounds(ctx context.Context, topics ...string) (map[place]bound, error) {
	out := map[place]bound{}
	if len(topics) == 0 {
		return out, nil
	}
	starts, err := lister(l.admin.ListStartOffsets).ask(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("ask for the start offsets of %v at %s: %w", topics, l.address(), err)
	}
	ends, err := lister(l.admin.ListEndOffsets).ask(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("ask for the end offsets of %v at %s: %w", topics, l.address(), err)
	}
	for _, t := range topics {
		for p, s := range starts[t] {
			e, ok := ends.Lookup(t, p)
			if !ok {
				return nil, fmt.Errorf("the log at %s left partition %d out of the end offsets of %s", l.address(), p, t)
			}
			out[place{t, p}] = bound{s.Offset, e.Offset}
		}
	}
	return out, nil
}

// scan calls fn for the records of partitions within bounds, markers included, in order within each partition. Every partition
// must have one at the end of its bounds, which tells that nothing is to come.
func (l *Log) scan(ctx context.Context, level kgo.IsolationLevel, bounds map[place]bound, fn func(*kgo.Record) error) error {
	if len(bounds) == 0 {
		return nil
	}
	from := map[string]map[int32]kgo.Offset{}
	for at, b := range bounds {
		if from[at.topic] == nil {
			from[at.topic] = map[int32]kgo.Offset{}
		}
		from[at.topic][at.partition] = kgo.NewOffset().At(b.start)
	}
	client, err := kgo.NewClient(append(l.clientOptions(),
		kgo.ConsumePartitions(from),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(level),
		kgo.KeepControlRecords(),
		kgo.FetchMaxBytes(l.cfg.FetchBytes),
		kgo.FetchMaxPartitionBytes(l.cfg.FetchBytes/2),
		kgo.FetchMaxWait(100*time.Millisecond),
	)...)
	if err != nil {
		return fmt.Errorf("read the log at %s: %w", l.address(), err)
	}
	defer client.Close()
	left := len(bounds)
	for left > 0 {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for _, failed := range fetches.Errors() {
			return fmt.Errorf("read partition %d of %s at %s: %w", failed.Partition, failed.Topic, l.address(), failed.Err)
		}
		var stop error
		fetches.EachRecord(func(rec *kgo.Record) {
			b := bounds[place{rec.Topic, rec.Partition}]
			if stop != nil || rec.Offset >= b.end {
				return
			}
			stop = fn(rec)
			if rec.Offset == b.end-1 {
				left--
			}
		})
		if stop != nil {
			return stop
		}
	}
	return nil
}

func message(rec *kgo.Record) Message {
	m := Message{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Key: rec.Key, Value: rec.Value}
	for _, h := range rec.Headers {
		m.Headers = append(m.Headers, Header{h.Key, h.Value})
	}
	return m
}
