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
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/internal/retry"
)

// ErrFenced is matched by the error of a Writer that another one with the same name has taken the place of, or whose
// transaction took longer than its timeout.
var ErrFenced = errors.New("the broker has given the writer's place to a newer one, or its transaction took too long")

// transactionTimeout is how long a transaction of a writer that has died keeps committed readers from what comes after it,
// unless a new writer takes its place before.
const transactionTimeout = time.Minute

// Message is a record of any topic: what a Writer writes, and reads back.
type Message struct {
	Topic     string
	Partition int32
	Offset    int64 // set when it was read
	Key       []byte
	Value     []byte // nil: a tombstone
	Headers   []Header
}

// Header is one header of a message. Several may have one key.
type Header struct {
	Key   string
	Value []byte
}

// Header returns the value of the first header with a key, "" when there is none.
func (m *Message) Header(key string) string {
	for _, h := range m.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

func (m *Message) size() int {
	n := len(m.Key) + len(m.Value)
	for _, h := range m.Headers {
		n += len(h.Key) + len(h.Value) + 4
	}
	return n
}

// Writer writes to topics in transactions: committed readers see all messages of a Commit or none of them, in each partition
// at one moment.
//
// Its name is what fences it. Take makes it the only writer of its name: the transaction that an earlier one had open is
// settled, aborted or committed as a whole, and that writer cannot commit any more. What the log has then is certain, and Last
// says how far it goes. After an error of Commit it is not known whether the messages are there: Take again, and look.
//
//	Take ─▶ Last ─▶ Commit ─▶ Commit ─▶ … error ─▶ Take ─▶ Last ─▶ …
//
// A Writer is not safe for concurrent use.
type Writer struct {
	log    *Log
	name   string
	topics map[string]*topic
	client *kgo.Client // nil until Take, and after an error
}

type topic struct {
	partitions []int32
	maxRecord  int
}

// Writer returns a writer to the log's cluster. Its name is the transactional id. Close it after use.
func (l *Log) Writer(name string) *Writer {
	return &Writer{log: l, name: name, topics: map[string]*topic{}}
}

// Topic makes a topic when there is none, with unlimited retention and that many partitions, and lets the writer write to it.
// One that is compacted or expires is refused: it forgets.
func (w *Writer) Topic(ctx context.Context, name string, partitions int32) error {
	admin := w.log.admin
	numbers, err := w.log.topic(ctx, admin, name, partitions)
	if err != nil {
		return err
	}
	resources, err := admin.DescribeTopicConfigs(ctx, name)
	if err == nil && len(resources) == 1 && resources[0].Err == nil { // who may not ask takes the operator's word
		has := map[string]string{}
		for _, c := range resources[0].Configs {
			has[c.Key] = c.MaybeValue()
		}
		for _, want := range [][2]string{{"cleanup.policy", "delete"}, {"retention.ms", "-1"}, {"retention.bytes", "-1"}} {
			if v, ok := has[want[0]]; ok && v != want[1] {
				return fmt.Errorf("topic %s of the log at %s has %s=%s and forgets what a rewind must bring back; set it to %s",
					name, w.log.address(), want[0], v, want[1])
			}
		}
	}
	w.topics[name] = &topic{numbers, w.log.topicLimit(ctx, admin, name)}
	return nil
}

// Partitions returns how many partitions a topic has that was given to Topic.
func (w *Writer) Partitions(topic string) int32 { return int32(len(w.topics[topic].partitions)) } //nolint:gosec // Kafka counts them so

// Fits reports whether a message is small enough for its topic.
func (w *Writer) Fits(m *Message) bool { return m.size() <= w.topics[m.Topic].maxRecord-recordOverhead }

// Take makes this the only writer of its name. It returns once no transaction of the name is open.
func (w *Writer) Take(ctx context.Context) error {
	w.drop()
	client, err := w.producer(ctx)
	if err != nil {
		return err
	}
	torn := map[string][]int32{}
	bounds, err := w.log.bounds(ctx, slices.Sorted(maps.Keys(w.topics))...)
	if err == nil {
		torn, err = w.log.torn(ctx, bounds)
	}
	if err == nil && len(torn) == 0 {
		w.client = client
		return nil
	}
	if err == nil {
		err = w.abort(ctx, client, torn)
	}
	client.Close()
	if err != nil {
		return err
	}
	// The broker may have moved the epoch on, which the client does not know.
	w.client, err = w.producer(ctx)
	return err
}

// producer returns a client that has the newest epoch of the writer's name.
func (w *Writer) producer(ctx context.Context) (*kgo.Client, error) {
	client, err := kgo.NewClient(append(w.log.clientOptions(),
		kgo.TransactionalID(w.name),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(compression),
		kgo.ProducerBatchMaxBytes(MaxRecordBytes),
		kgo.ProducerLinger(linger),
		kgo.MaxBufferedRecords(maxBufferedRecords),
		kgo.MaxBufferedBytes(maxBufferedBytes),
	)...)
	if err != nil {
		return nil, fmt.Errorf("write to the log at %s as %s: %w", w.log.address(), w.name, err)
	}
	if _, _, err := client.ProducerID(ctx); err != nil {
		client.Close()
		return nil, fmt.Errorf("take the place of %s in the log at %s: %w", w.name, w.log.address(), err)
	}
	return client, nil
}

// abort writes the marker of an aborted transaction to the given partitions.
//
// The embedded broker, when it was killed, knows by itself that open transactions were aborted, but leaves no marker behind
// their records: a client would take later records of the same producer for aborted ones too, or, after another start, the
// aborted for committed.
func (w *Writer) abort(ctx context.Context, client *kgo.Client, torn map[string][]int32) error {
	fail := func(err error) error {
		return fmt.Errorf("settle what %s had begun in the log at %s: %w", w.name, w.log.address(), err)
	}
	id, epoch, err := client.ProducerID(ctx)
	if err != nil {
		return fail(err)
	}
	add := kmsg.NewPtrAddPartitionsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch = w.name, id, epoch
	for name, partitions := range torn {
		t := kmsg.NewAddPartitionsToTxnRequestTopic()
		t.Topic, t.Partitions = name, partitions
		add.Topics = append(add.Topics, t)
	}
	added, err := add.RequestWith(ctx, client)
	if err != nil {
		return fail(err)
	}
	for _, t := range added.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fail(err)
			}
		}
	}
	end := kmsg.NewPtrEndTxnRequest()
	end.TransactionalID, end.ProducerID, end.ProducerEpoch = w.name, id, epoch
	ended, err := end.RequestWith(ctx, client)
	if err == nil {
		err = kerr.ErrorForCode(ended.ErrorCode)
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// Commit writes the messages in one transaction, in order within each partition, and returns once committed readers see them.
// It blocks while the broker is away, until ctx ends. After any error the messages are there as a whole or not at all, and only Take and Last tell which; an error that
// matches ErrFenced says that there may be another writer in this one's place, which Take would push aside.
func (w *Writer) Commit(ctx context.Context, messages []Message) (err error) {
	if w.client == nil {
		return fmt.Errorf("write to the log as %s: the writer has not taken its place", w.name)
	}
	if len(messages) == 0 {
		return nil
	}
	defer func() {
		if err == nil {
			return
		}
		w.drop()
		if errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch) || errors.Is(err, kerr.InvalidProducerIDMapping) {
			err = fmt.Errorf("%w: %w", ErrFenced, err)
		}
		err = fmt.Errorf("write %d messages to the log at %s as %s: %w", len(messages), w.log.address(), w.name, err)
	}()
	if err := w.client.BeginTransaction(); err != nil {
		return err
	}
	// The promises outlive this call when ctx ends first, so what they touch is their own.
	a := &appending{done: make(chan struct{})}
	a.waiting.Store(int64(len(messages)))
	records := make([]kgo.Record, len(messages))
	for i := range messages {
		m, rec := &messages[i], &records[i]
		rec.Topic, rec.Partition, rec.Key, rec.Value = m.Topic, m.Partition, m.Key, m.Value
		rec.Headers = make([]kgo.RecordHeader, len(m.Headers))
		for j, h := range m.Headers {
			rec.Headers[j] = kgo.RecordHeader{Key: h.Key, Value: h.Value}
		}
		w.client.Produce(ctx, rec, func(_ *kgo.Record, err error) { a.finish(i, err) })
	}
	select {
	case <-a.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if f := a.failed.Load(); f != nil {
		return f.err
	}
	if err := w.client.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return err
	}
	written := map[place]int64{}
	for i := range records {
		at := place{records[i].Topic, records[i].Partition}
		written[at] = max(written[at], records[i].Offset)
	}
	return w.log.awaitCommitted(ctx, written)
}

// awaitCommitted waits until committed readers see the records at the given offsets. A cluster answers the end of a transaction once it
// has noted it, and only then tells the partitions, behind which readers stay until it has. They stay as well behind
// a transaction that another writer has open, which its timeout ends.
func (l *Log) awaitCommitted(ctx context.Context, offsets map[place]int64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*transactionTimeout,
		fmt.Errorf("the transaction is committed, and after %s readers do not see it yet", 2*transactionTimeout))
	defer cancel()
	topics := map[string]bool{}
	for at := range offsets {
		topics[at.topic] = true
	}
	names := slices.Sorted(maps.Keys(topics))
	return retry.Do(ctx, retry.Policy{Min: 4 * time.Millisecond, Max: 250 * time.Millisecond}, func(ctx context.Context) error {
		ends, err := l.admin.ListCommittedOffsets(ctx, names...)
		if err == nil {
			err = ends.Error()
		}
		if err != nil {
			return fmt.Errorf("ask for the committed offsets of %v: %w", names, err)
		}
		for at, offset := range offsets {
			end, ok := ends.Lookup(at.topic, at.partition)
			if !ok || end.Offset <= offset {
				return fmt.Errorf("partition %d of %s ends at %d for committed readers, and offset %d was written", at.partition, at.topic, end.Offset, offset)
			}
		}
		return nil
	})
}

// drop leaves the place without settling anything, as a crash would.
func (w *Writer) drop() {
	if w.client != nil {
		w.client.Close()
		w.client = nil
	}
}

// Close ends the writer. A transaction that it has open is left to the next writer of its name, or to its timeout.
func (w *Writer) Close() { w.drop() }
