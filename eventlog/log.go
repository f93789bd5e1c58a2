package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/internal/retry"
	"millrace/plan"
)

// MaxRecordBytes is the largest record, headers included, that a topic made by Open takes: a collector's largest request
// and what it is wrapped in. A topic made by someone else may have a lower limit, see Log.MaxItemBytes.
const MaxRecordBytes = 16 << 20

// recordOverhead is what a record batch of one record and the names of all headers add to a record's own bytes, rounded up.
const recordOverhead = 512

// connectTimeout bounds how long Open waits for a broker that accepts connections and then says nothing.
const connectTimeout = 15 * time.Second

// Config says where the log is. Brokers is required.
type Config struct {
	Brokers    []string // addresses, host:port, of one or more brokers of the cluster
	Security   Security // how they want to be talked to; default: in plain text
	Topic      string   // default: ingest-prime
	Partitions int32    // of the topic when Open makes it; an existing one keeps its own; default 4

	// FetchBytes is what a reader asks for ahead of its caller, compressed; of a partition it asks for half. Unpacked, and while it
	// comes, it takes several times as much. The broker exceeds it by one batch rather than send nothing. Default 8 MiB.
	FetchBytes int32

	Logger     *slog.Logger          // default: discard
	Registerer prometheus.Registerer // default: none
}

func (c Config) withDefaults() Config {
	if c.Topic == "" {
		c.Topic = "ingest-prime"
	}
	if c.Partitions == 0 {
		c.Partitions = 4
	}
	if c.FetchBytes == 0 {
		c.FetchBytes = 8 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	if len(c.Brokers) == 0 {
		return errors.New("log has no broker address; give one")
	}
	if c.Partitions < 1 {
		return fmt.Errorf("log topic %s cannot have %d partitions; give 1 or more", c.Topic, c.Partitions)
	}
	if c.FetchBytes < 2 {
		return fmt.Errorf("log topic %s cannot be read by %d bytes at a time; give more", c.Topic, c.FetchBytes)
	}
	return nil
}

// Log is one topic of a Kafka cluster. It is safe for concurrent use.
type Log struct {
	cfg        Config
	security   []kgo.Opt // of every client
	client     *kgo.Client
	admin      *kadm.Client
	partitions []int32
	maxRecord  int
	metrics    *metrics
}

// Open connects to the log and makes its topic when there is none: unlimited retention, and the cluster's own replication
// factor. Close the log after use.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	security, err := cfg.Security.options()
	if err != nil {
		return nil, fmt.Errorf("log at %s: %w", strings.Join(cfg.Brokers, ", "), err)
	}
	l := &Log{cfg: cfg, security: security, metrics: newMetrics(cfg.Registerer)}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := l.prepare(ctx); err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(append(l.clientOptions(),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(compression),
		kgo.ProducerBatchMaxBytes(int32(l.maxRecord)),
		kgo.ProducerLinger(linger),
		kgo.MaxBufferedRecords(maxBufferedRecords),
		kgo.MaxBufferedBytes(maxBufferedBytes),
	)...)
	if err != nil {
		return nil, fmt.Errorf("log at %s: %w", l.address(), err)
	}
	l.client, l.admin = client, kadm.NewClient(client)
	return l, nil
}

// prepare sees that the cluster answers and that the topic is there, and learns the topic's partitions and limits.
// It uses a client of its own, because the producer's batch size follows from what it learns.
func (l *Log) prepare(ctx context.Context) error {
	first, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(l.cfg.Brokers...), kgo.ClientID("millrace")}, l.security...)...) // its error says what the broker may want
	if err != nil {
		return fmt.Errorf("log at %s: %w; give another address", l.address(), err)
	}
	err = first.Ping(ctx)
	first.Close()
	if err != nil {
		return fmt.Errorf("log at %s: %w; is the broker running%s? if it is elsewhere, give another address", l.address(), err, l.cfg.Security.question())
	}
	client, err := kgo.NewClient(append(l.clientOptions(), kgo.WithLogger(nil))...) // what it would warn of is in the error
	if err != nil {
		return fmt.Errorf("log at %s: %w; give another address", l.address(), err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)

	if l.partitions, err = l.topic(ctx, admin, l.cfg.Topic, l.cfg.Partitions); err != nil {
		return err
	}
	l.maxRecord = l.topicLimit(ctx, admin, l.cfg.Topic)
	return nil
}

// topic makes a topic when there is none, and returns its partitions in order.
func (l *Log) topic(ctx context.Context, admin *kadm.Client, name string, partitions int32) (numbers []int32, err error) {
	create := func(ctx context.Context) error {
		configs := map[string]*string{
			"retention.ms":      kadm.StringPtr("-1"),
			"retention.bytes":   kadm.StringPtr("-1"),
			"max.message.bytes": kadm.StringPtr(strconv.Itoa(MaxRecordBytes)),
		}
		// The error is in the response as well; of the two the second is the more exact one.
		resp, err := admin.CreateTopic(ctx, partitions, -1, configs, name)
		if resp.Err != nil {
			err = resp.Err
		}
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("make it: %w", err)
		}
		return nil
	}

	// Asked first, an operator may have made the topic and given us no right to make one; and asked again: a cluster answers a creation
	// before every broker knows of it and before the partitions have leaders.
	policy := retry.Policy{Min: 20 * time.Millisecond, Max: 500 * time.Millisecond}
	err = retry.Do(ctx, policy, func(ctx context.Context) error {
		topics, err := admin.ListTopics(kadm.WithAuthorizedOps(ctx), name) // asks the cluster, not the client's memory of a moment ago
		if err == nil {
			err = topics.Error()
		}
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			if refused := create(ctx); refused != nil {
				err = refused
			}
		}
		if err != nil {
			if kerr.IsRetriable(err) {
				return err
			}
			return retry.Permanent(err)
		}
		details := topics[name].Partitions
		for _, p := range details {
			if p.Err != nil {
				return p.Err
			}
		}
		numbers = details.Numbers()
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find topic %s in the log at %s: %w", name, l.address(), err)
	}
	return numbers, nil
}

// topicLimit returns the largest record batch that the topic takes, in bytes, at most MaxRecordBytes.
// A cluster that does not let us ask is assumed to take our own; it answers a larger record with an error.
func (l *Log) topicLimit(ctx context.Context, admin *kadm.Client, name string) int {
	resources, err := admin.DescribeTopicConfigs(ctx, name)
	if err == nil && len(resources) == 1 && resources[0].Err == nil {
		for _, c := range resources[0].Configs {
			if c.Key != "max.message.bytes" {
				continue
			}
			if n, err := strconv.Atoi(c.MaybeValue()); err == nil && n > 0 && n < MaxRecordBytes {
				l.cfg.Logger.Warn("log topic takes smaller records than Millrace's own topics",
					"topic", name, "max_message_bytes", n, "own_max_message_bytes", MaxRecordBytes)
				return n
			}
		}
	}
	return MaxRecordBytes
}

func (l *Log) clientOptions() []kgo.Opt {
	return append([]kgo.Opt{
		kgo.SeedBrokers(l.cfg.Brokers...),
		kgo.ClientID("millrace"),
		kgo.WithLogger(clientLogger{l.cfg.Logger}),
		kgo.DefaultProduceTopic(l.cfg.Topic),
		kgo.MetadataMinAge(250 * time.Millisecond), // how soon a restarted broker is noticed
		kgo.AlwaysRetryEOF(),                       // a broker that starts or stops; that it wants TLS or SASL, Open's first request finds out
	}, l.security...)
}

func (l *Log) address() string { return strings.Join(l.cfg.Brokers, ", ") }

// Topic returns the name of the log's topic.
func (l *Log) Topic() string { return l.cfg.Topic }

// MaxItemBytes returns how large an item's bytes and its texts (ids, reason, sensor and so on) may be together.
// Append refuses a larger one with ErrTooLarge.
func (l *Log) MaxItemBytes() int { return l.maxRecord - recordOverhead }

// Partitions returns the topic's partitions in order, as they were when the log was opened. Partitions added later are
// written and read after the next Open.
func (l *Log) Partitions(context.Context) ([]int32, error) { return slices.Clone(l.partitions), nil }

// PartitionsOf returns the partitions of any topic of the log's cluster, in order; none when there is no such topic.
func (l *Log) PartitionsOf(ctx context.Context, topic string) ([]int32, error) {
	topics, err := l.admin.ListTopics(kadm.WithAuthorizedOps(ctx), topic) // not the client's memory: it may have been deleted
	if err != nil {
		return nil, fmt.Errorf("find topic %s in the log at %s: %w", topic, l.address(), err)
	}
	return topics[topic].Partitions.Numbers(), nil
}

// Starts returns the offset of the oldest record that each partition still has.
func (l *Log) Starts(ctx context.Context) (plan.Offsets, error) {
	return l.offsets(ctx, "start", l.admin.ListStartOffsets)
}

// Ends returns for each partition the offset at which its next record will be, not counting records of transactions that
// are still open.
func (l *Log) Ends(ctx context.Context) (plan.Offsets, error) {
	return l.offsets(ctx, "end", l.admin.ListCommittedOffsets)
}

func (l *Log) offsets(ctx context.Context, which string, list lister) (plan.Offsets, error) {
	listed, err := list.ask(ctx, l.cfg.Topic)
	if err != nil {
		err = fmt.Errorf("ask for the %s offsets of %s at %s: %w", which, l.cfg.Topic, l.address(), err)
		if ctx.Err() == nil && passes(err) {
			err = errors.Join(ErrUnavailable, err)
		}
		return nil, err
	}
	offsets := make(plan.Offsets, len(l.partitions))
	for _, p := range l.partitions {
		o, ok := listed.Lookup(l.cfg.Topic, p)
		if !ok {
			return nil, fmt.Errorf("the log at %s left partition %d out of the %s offsets of %s", l.address(), p, which, l.cfg.Topic)
		}
		offsets[p] = o.Offset
	}
	return offsets, nil
}

// ErrUnavailable is matched by errors of a log that does not answer now, or not as it should for a while: asking again helps, sooner or later.
var ErrUnavailable = errors.New("the log is not available")

// passes reports an error that may not be there when the same is asked again.
func passes(err error) bool {
	var timeout net.Error
	return kerr.IsRetriable(err) || kgo.IsRetryableBrokerErr(err) || errors.As(err, &timeout) || errors.Is(err, context.DeadlineExceeded)
}

// lister asks for the offsets of topics.
type lister func(ctx context.Context, topics ...string) (kadm.ListedOffsets, error)

// ask asks again, for some seconds, while a partition is on its way to another leader: the client asks the one that it knows.
func (list lister) ask(ctx context.Context, topics ...string) (listed kadm.ListedOffsets, err error) {
	policy := retry.Policy{Min: 50 * time.Millisecond, Max: 500 * time.Millisecond, Attempts: 30}
	err = retry.Do(ctx, policy, func(ctx context.Context) error {
		listed, err = list(ctx, topics...)
		if err == nil {
			err = listed.Error()
		}
		if err != nil && !kerr.IsRetriable(err) {
			err = retry.Permanent(err)
		}
		return err
	})
	return listed, err
}

// Close ends the connection. Appends that are still running fail. It does not close readers.
func (l *Log) Close() error {
	l.client.Close()
	return nil
}

// clientLogger passes the Kafka client's warnings and errors on.
type clientLogger struct{ logger *slog.Logger }

func (clientLogger) Level() kgo.LogLevel { return kgo.LogLevelWarn }

func (c clientLogger) Log(level kgo.LogLevel, message string, keyvals ...any) {
	if level == kgo.LogLevelError {
		c.logger.Error("log client: "+message, keyvals...)
		return
	}
	c.logger.Warn("log client: "+message, keyvals...)
}
