package eventlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/plan"
	"millrace/record"
)

// cutMark is what a cut appends to each partition: an item replayed for a dead letter that no app has made, so none takes it up.
var cutMark = record.Item{
	Account: "system", Env: "system", SourceType: "system", Kind: record.Event, Replay: &record.Replay{App: "cut"}, Bytes: []byte("{}"),
}

// segmentConfigs make a topic begin another file with the next record, in the embedded broker by its size, in Kafka by the time.
var segmentConfigs = map[string]string{"segment.bytes": "1", "segment.ms": "1"}

// Cut makes a place in every partition before which DeleteBefore removes all bytes from the broker's disk: it has the broker begin another
// file there. Brokers remove whole files, and never the one that they write. It returns the offset of each place, which an item has that
// nobody makes anything of.
//
// A cluster that does not let its topic's configuration be changed is cut all the same: its bytes go once it begins another file by itself.
func (l *Log) Cut(ctx context.Context) (at plan.Offsets, err error) {
	restore, err := l.shortSegments(ctx)
	if err != nil {
		l.cfg.Logger.Warn("the log's topic keeps its files as they are; deleted records stay on the broker's disk until it begins another file",
			"topic", l.cfg.Topic, "error", err)
	}
	defer func() { err = errors.Join(err, restore(context.WithoutCancel(ctx))) }()
	at = plan.Offsets{}
	for _, p := range l.partitions {
		mark := cutMark
		mark.ReceivedAt = time.Now()
		rec := &kgo.Record{Partition: p, Value: mark.Bytes}
		rec.Headers, _ = encodeHeaders(&mark)
		if err := l.client.ProduceSync(ctx, rec).FirstErr(); err != nil {
			return nil, fmt.Errorf("append to partition %d of %s at %s: %w", p, l.cfg.Topic, l.address(), err)
		}
		at[p] = rec.Offset
	}
	return at, nil
}

// shortSegments makes every record begin a file, until restore is called.
func (l *Log) shortSegments(ctx context.Context) (restore func(context.Context) error, err error) {
	var changes, back []kadm.AlterConfig
	restore = func(ctx context.Context) error {
		if err := l.alter(ctx, back...); err != nil {
			return fmt.Errorf("topic %s of the log at %s has to have its configuration back, segment.bytes and segment.ms: %w", l.cfg.Topic, l.address(), err)
		}
		return nil
	}
	was, err := l.admin.DescribeTopicConfigs(ctx, l.cfg.Topic)
	if err != nil {
		return restore, err
	}
	for _, r := range was {
		if r.Err != nil {
			return restore, r.Err
		}
		for _, c := range r.Configs {
			value, ok := segmentConfigs[c.Key]
			if !ok {
				continue
			}
			changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: c.Key, Value: &value})
			undo := kadm.AlterConfig{Op: kadm.DeleteConfig, Name: c.Key}
			if c.Source.String() == "DYNAMIC_TOPIC_CONFIG" && c.MaybeValue() != value { // else a cut that was interrupted has left it
				undo = kadm.AlterConfig{Op: kadm.SetConfig, Name: c.Key, Value: c.Value}
			}
			back = append(back, undo)
		}
	}
	for _, c := range changes { // one after the other: Kafka 4 takes no such small size
		if e := l.alter(ctx, c); e != nil && !errors.Is(e, kerr.InvalidConfig) {
			err = errors.Join(err, e)
		}
	}
	return restore, err
}

func (l *Log) alter(ctx context.Context, changes ...kadm.AlterConfig) error {
	if len(changes) == 0 {
		return nil
	}
	answers, err := l.admin.AlterTopicConfigs(ctx, changes, l.cfg.Topic)
	if err != nil {
		return err
	}
	for _, a := range answers {
		err = errors.Join(err, a.Err)
	}
	return err
}

// DeleteBefore makes the log forget the records of each partition before an offset. That they are gone already is no error.
func (l *Log) DeleteBefore(ctx context.Context, before plan.Offsets) error {
	starts, err := l.Starts(ctx)
	if err != nil {
		return err
	}
	offsets := kadm.Offsets{}
	for _, p := range l.partitions {
		if o, ok := before[p]; ok && o > starts[p] {
			offsets.AddOffset(l.cfg.Topic, p, o, -1)
		}
	}
	if len(offsets) == 0 {
		return nil
	}
	deleted, err := l.admin.DeleteRecords(ctx, offsets)
	if err == nil {
		err = deleted.Error()
	}
	if err != nil {
		return fmt.Errorf("delete records of %s at %s: %w", l.cfg.Topic, l.address(), err)
	}
	return nil
}
