// Package topic publishes a plan's rows to topics of the log, one per table of the plan: what downstream jobs read.
//
// The one idea to hold: a topic's partition says by itself how far it goes. Every message names the lineage and epoch that made
// it, and the messages of a batch come in one transaction. So the last committed message of a partition is its position, and
// Publish leaves out what a partition has: after a crash, after an answer that was lost, and after a broker that was killed between
// two partitions. A transactional id of the instance's own keeps a second writer out.
//
// Of a row's messages the last one is the truth. What a lineage that was left has written stays in the topic, and is followed by
// what was true where the new lineage began: the row's message of that time again, or a tombstone. docs/formats/topic.md has
// the bytes. Append-only tables have no topic: their records come from one.
package topic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/zeebo/xxh3"

	"millrace/eventlog"
	"millrace/internal/retry"
	"millrace/plan"
	"millrace/sink"
)

// ErrSuperseded means that another process publishes the same lineage of the instance.
var ErrSuperseded = errors.New("another process publishes the same lineage of this instance; end one of the two")

// Config says what is published where. Log, Namespace, Instance and Plan are required.
type Config struct {
	Log       *eventlog.Log // the cluster; not closed by the sink
	Namespace string        // of the topics: v<dataVersion> or unversioned
	Instance  string        // unique id of the instance: its rows have one writer
	Plan      *plan.Plan

	Partitions int32         // of a topic when it is made; an existing one keeps its own, which must never change; default 1
	Flush      time.Duration // how long rows gather for one transaction; default 1 s

	Logger     *slog.Logger          // default: discards
	Registerer prometheus.Registerer // default: no metrics
}

func (c Config) withDefaults() Config {
	if c.Partitions == 0 {
		c.Partitions = 1
	}
	if c.Flush <= 0 {
		c.Flush = time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Log == nil:
		return errors.New("topic sink: no log given")
	case c.Plan == nil:
		return errors.New("topic sink: no plan given")
	case c.Namespace == "" || c.Instance == "":
		return errors.New("topic sink: no namespace or instance given")
	case c.Partitions < 0:
		return fmt.Errorf("topic sink: topics cannot have %d partitions; give 1 or more", c.Partitions)
	}
	return nil
}

// Topic is the name of a table's topic.
func Topic(namespace, table string) string { return "table." + namespace + "." + table }

// ControlTopic is the name of the topic that holds the schemas of a namespace's tables and who writes them.
func ControlTopic(namespace string) string { return "tables." + namespace }

// Delete removes the topics of a namespace's tables, with all their messages. Nobody may publish to them any more.
func Delete(ctx context.Context, log *eventlog.Log, namespace string) error {
	err := log.DeleteTopics(ctx, func(name string) bool {
		return name == ControlTopic(namespace) || strings.HasPrefix(name, Topic(namespace, ""))
	})
	if err != nil {
		return fmt.Errorf("delete the table topics of namespace %s: %w", namespace, err)
	}
	return nil
}

// gatherBytes is how many bytes of rows make a transaction that is worth its cost.
const gatherBytes = 4 << 20

// Sink implements sink.Sink.
//
// Of two revisions of a row the one that is published later is the truth: within a batch that is the higher one, and of one revision the
// later row; across batches the sink relies on the runner publishing the revisions of an id in rising order.
type Sink struct {
	cfg    Config
	writer *eventlog.Writer
	tables []*table // by index into Plan.Tables; nil for append-only ones
	topics []string // of the tables that have one

	lineage sink.Lineage
	taken   bool   // the writer has its place and the tables' tails are known
	nonce   string // of the newest taking of the place
	metrics
}

// table is one topic.
type table struct {
	topic  string
	schema schema
	tails  map[int32]sink.Point // by partition: where its last message brings it, in the history of the sink's lineage
}

var _ sink.Sink = (*Sink)(nil)

// Open makes the topics of the plan's tables where they are missing. Close the sink after use.
func Open(ctx context.Context, cfg Config) (*Sink, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Sink{cfg: cfg, writer: cfg.Log.Writer("millrace-" + cfg.Instance), metrics: newMetrics(cfg.Registerer)}
	if err := s.writer.Topic(ctx, ControlTopic(cfg.Namespace), 1); err != nil {
		return nil, err
	}
	for _, t := range cfg.Plan.Tables {
		if t.AppendOnly {
			s.tables = append(s.tables, nil)
			continue
		}
		schema, err := newSchema(t)
		if err != nil {
			return nil, err
		}
		name := Topic(cfg.Namespace, t.Name)
		if err := s.writer.Topic(ctx, name, cfg.Partitions); err != nil {
			return nil, err
		}
		s.tables = append(s.tables, &table{topic: name, schema: schema})
		s.topics = append(s.topics, name)
	}
	return s, nil
}

// Name returns topic.
func (s *Sink) Name() string { return "topic" }

// Gather returns 4 MiB and Config.Flush.
func (s *Sink) Gather() (bytes int64, every time.Duration) { return gatherBytes, s.cfg.Flush }

// Begin takes the place of the instance's writer and takes back what the topics hold of other histories. It needs no archive: a
// topic holds all that it ever held. A topic whose beginning was deleted cannot do that, and is an error.
func (s *Sink) Begin(ctx context.Context, l sink.Lineage, _ sink.Past) error {
	s.lineage, s.taken = l, false
	return retry.Do(ctx, s.policy(), s.take)
}

func (s *Sink) policy() retry.Policy {
	return retry.Policy{Min: 50 * time.Millisecond, Max: 5 * time.Second, OnRetry: func(attempt int, err error, wait time.Duration) {
		s.retries.Inc()
		s.cfg.Logger.Warn("table topics not written; trying again", "attempt", attempt, "wait", wait, "error", err)
	}}
}

// Publish writes the batch's rows in one transaction. Rejected are rows that are larger than their topic takes. It blocks while
// the broker is away, until ctx ends; the error matches sink.ErrFenced when a later lineage has claimed
// the topics, and ErrSuperseded when another process publishes this one.
func (s *Sink) Publish(ctx context.Context, b sink.Batch) (rejected []sink.Rejected, err error) {
	if s.lineage.ID == "" {
		return nil, errors.New("publish to the table topics: Begin was not called")
	}
	err = retry.Do(ctx, s.policy(), func(ctx context.Context) error {
		if !s.taken {
			if err := s.take(ctx); err != nil {
				return err
			}
		}
		var messages []eventlog.Message
		if messages, rejected, err = s.messages(b); err != nil {
			return retry.Permanent(err)
		}
		if err := s.commit(ctx, messages); err != nil {
			return err
		}
		s.rows.Add(float64(len(messages)))
		for _, m := range messages {
			s.table(m.Topic).tails[m.Partition] = placeOf(&m)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rejected, nil
}

// commit writes messages in one transaction. After an error the place has to be taken anew.
func (s *Sink) commit(ctx context.Context, messages []eventlog.Message) error {
	err := s.writer.Commit(ctx, messages)
	if err == nil {
		return nil
	}
	s.taken = false
	if !errors.Is(err, eventlog.ErrFenced) {
		return err
	}
	// Either another process has taken the place, or this one was stopped for longer than a transaction may take.
	_, last, readErr := s.control(ctx)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	if err := s.refused(last); err != nil {
		return err
	}
	if last.Nonce != s.nonce {
		return retry.Permanent(fmt.Errorf("publish to the table topics of %s as %s: %w", s.cfg.Namespace, s.cfg.Instance, ErrSuperseded))
	}
	return err
}

// refused is the error of a sink whose target was claimed by a later lineage.
func (s *Sink) refused(last writerRecord) error {
	if last.Token < s.lineage.Token || last.Token == s.lineage.Token && last.Lineage == s.lineage.ID {
		return nil
	}
	return retry.Permanent(fmt.Errorf("publish lineage %s to the table topics of %s, which lineage %s has claimed: %w",
		s.lineage.ID, s.cfg.Namespace, last.Lineage, sink.ErrFenced))
}

// messages returns the messages of those rows that their partitions do not have, and the rows that are too large.
func (s *Sink) messages(b sink.Batch) (messages []eventlog.Message, rejected []sink.Rejected, err error) {
	type row struct {
		table int
		id    string
	}
	revs := make(map[row]uint64, len(b.Rows))
	epoch := b.FromEpoch
	for _, r := range b.Rows {
		if r.Table < 0 || r.Table >= len(s.tables) {
			return nil, nil, fmt.Errorf("publish row %s: there is no table %d in the plan of %s", r.ID, r.Table, s.cfg.Plan.App)
		}
		t := s.tables[r.Table]
		if t == nil {
			continue
		}
		if r.Epoch < epoch {
			return nil, nil, fmt.Errorf("publish row %s: epoch %d comes after epoch %d", r.ID, r.Epoch, epoch)
		}
		epoch = r.Epoch
		partition := partitionOf(r.ID, s.writer.Partitions(t.topic))
		if r.Epoch <= t.tails[partition].Epoch {
			s.skipped.Inc()
			continue
		}
		if rev, ok := revs[row{r.Table, r.ID}]; ok && rev > r.Rev {
			continue
		}
		revs[row{r.Table, r.ID}] = r.Rev
		m := s.message(t, partition, &r, b.Lineage)
		if !s.writer.Fits(&m) {
			rejected = append(rejected, sink.Rejected{Row: r, Reason: fmt.Sprintf("the row has %d bytes, more than the topic %s takes", len(r.Value), t.topic)})
			continue
		}
		messages = append(messages, m)
	}
	return messages, rejected, nil
}

func (s *Sink) table(topic string) *table {
	for _, t := range s.tables {
		if t != nil && t.topic == topic {
			return t
		}
	}
	return nil
}

// partitionOf chooses a row's partition. It must never change: the order of a row's revisions hangs on it.
func partitionOf(id string, partitions int32) int32 {
	return int32(xxh3.HashString(id) % uint64(partitions)) //nolint:gosec // less than partitions
}

// Close ends the sink. A transaction that is open is settled by the next sink of the instance.
func (s *Sink) Close() error {
	s.writer.Close()
	return nil
}

type metrics struct{ rows, skipped, retries prometheus.Counter }

func newMetrics(r prometheus.Registerer) metrics {
	auto := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return auto.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return metrics{
		rows:    counter("millrace_topic_rows_total", "Rows written to table topics."),
		skipped: counter("millrace_topic_skipped_rows_total", "Rows left out because an earlier try had written them."),
		retries: counter("millrace_topic_retries_total", "Transactions that were tried again."),
	}
}

func formatUint(n uint64) []byte { return strconv.AppendUint(nil, n, 10) }
