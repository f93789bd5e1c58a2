package topic_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/eventlog"
	"millrace/eventlog/broker"
	"millrace/plan"
	"millrace/sink"
	"millrace/sink/sinktest"
	"millrace/sink/topic"
)

// harness is a namespace of its own on a broker.
type harness struct {
	brokers    []string
	namespace  string
	partitions int32
}

var namespaces atomic.Int64

func newHarness(brokers ...string) *harness {
	return &harness{brokers, fmt.Sprintf("t%d-%d", time.Now().UnixNano(), namespaces.Add(1)), 3}
}

// embedded is a broker in this process, of its own directory.
func embedded(t testing.TB) *harness {
	t.Helper()
	b, err := broker.Open(broker.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return newHarness(b.Addr())
}

func (h *harness) log(t testing.TB) *eventlog.Log {
	t.Helper()
	log, err := eventlog.Open(t.Context(), eventlog.Config{Brokers: h.brokers, Topic: "log-" + h.namespace})
	require.NoError(t, err)
	return log
}

func (h *harness) config(log *eventlog.Log) topic.Config {
	return topic.Config{Log: log, Namespace: h.namespace, Instance: "job-" + h.namespace, Plan: sinktest.Plan(), Partitions: h.partitions}
}

// closing closes the log with its sink.
type closing struct {
	sink.Sink
	log *eventlog.Log
}

func (c closing) Close() error {
	if err := c.Sink.Close(); err != nil {
		return err
	}
	return c.log.Close()
}

// Open opens the sink with a client of its own, as a new process would.
func (h *harness) Open(t testing.TB) sink.Sink {
	log := h.log(t)
	s, err := topic.Open(t.Context(), h.config(log))
	require.NoError(t, err)
	return closing{s, log}
}

// begin opens the sink for the first lineage.
func (h *harness) begin(t testing.TB) sink.Sink {
	s := h.Open(t)
	require.NoError(t, s.Begin(t.Context(), sinktest.First(), nil))
	return s
}

// messages are the committed messages of a topic, in order within each partition.
func (h *harness) messages(t testing.TB, name string) (all []*kgo.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(h.brokers...), kgo.ConsumeTopics(name), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepControlRecords(), kgo.FetchMaxWait(50*time.Millisecond))
	require.NoError(t, err)
	defer client.Close()
	listed, err := kadm.NewClient(client).ListCommittedOffsets(ctx, name)
	require.NoError(t, err)
	left := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset - 1
		}
	})
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		require.NoError(t, fetches.Err())
		fetches.EachRecord(func(rec *kgo.Record) {
			if !rec.Attrs.IsControl() {
				all = append(all, rec)
			}
			if rec.Offset == left[rec.Partition] {
				delete(left, rec.Partition)
			}
		})
	}
	return all
}

// Rows folds a table's topic as a downstream job does: of each key the last message counts.
func (h *harness) Rows(t testing.TB, table string) map[string]map[string]any {
	t.Helper()
	schemas := map[string]*avro.Schema{}
	for _, m := range h.messages(t, topic.ControlTopic(h.namespace)) {
		if fingerprint, ok := strings.CutPrefix(string(m.Key), "schema "); ok {
			var err error
			schemas[fingerprint], err = avro.Parse(string(m.Value))
			require.NoError(t, err)
		}
	}
	rows := map[string]map[string]any{}
	for _, m := range h.messages(t, topic.Topic(h.namespace, table)) {
		if m.Value == nil {
			delete(rows, string(m.Key))
			continue
		}
		schema := schemas[hex.EncodeToString(m.Value[2:10])]
		require.NotNil(t, schema, "schema of %x", m.Value[:10])
		row := map[string]any{}
		rest, err := schema.DecodeSingleObject(m.Value, &row)
		require.NoError(t, err)
		require.Empty(t, rest)
		for name, v := range row {
			switch v := v.(type) {
			case time.Time:
				row[name] = v.UTC()
			case []any:
				list := []string{}
				for _, e := range v {
					list = append(list, e.(string))
				}
				row[name] = list
			}
		}
		row["_id"] = string(m.Key)
		for _, header := range m.Headers {
			value := string(header.Value)
			switch header.Key {
			case "rev", "epoch":
				row["_"+header.Key], err = strconv.ParseInt(value, 10, 64)
				require.NoError(t, err)
			case "lineage", "app_version":
				row["_"+header.Key] = value
			case "account", "env":
				row[header.Key+"_id"] = value
			case "event_time":
				row["_event_time"], err = time.Parse(time.RFC3339Nano, value)
				require.NoError(t, err)
			case "source":
				sources, _ := row["_sources"].([]string)
				row["_sources"] = append(sources, value)
			}
		}
		rows[string(m.Key)] = row
	}
	return rows
}

// Read understands what it reads as a downstream job does, corrections, deletions and rewinds included.
func TestRead(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, h *harness) {
		s := h.begin(t)
		gone := plan.Row{Table: sinktest.TableQuiz, ID: "gone", Rev: 2, Deleted: true, Epoch: 2}
		publish(t, s, batch("L1", 1, 1, sinktest.Quiz(t, "a", 1, 1), sinktest.Quiz(t, "gone", 1, 1), sinktest.Visit(t, "v", 1)))
		publish(t, s, batch("L1", 2, 2, sinktest.Quiz(t, "a", 2, 2), gone, sinktest.Quiz(t, "b", plan.MaxRev, 2)))
		fold := func(table string) map[string]map[string]any {
			log := h.log(t)
			defer func() { require.NoError(t, log.Close()) }()
			rows, from := map[string]map[string]any{}, map[string]bool{}
			for m, err := range topic.Read(t.Context(), log, h.namespace, table) {
				require.NoError(t, err)
				require.NoError(t, m.Err)
				require.NotContains(t, from, m.ID+" "+m.From)
				from[m.ID+" "+m.From] = true
				delete(rows, m.ID)
				if !m.Deleted {
					rows[m.ID] = m.Row
				}
			}
			return rows
		}
		require.Equal(t, h.Rows(t, "quiz"), fold("quiz"))
		require.Len(t, fold("quiz"), 2)
		require.Len(t, fold("visit"), 1)
		require.Empty(t, fold("nothing"))

		require.NoError(t, s.Begin(t.Context(), sinktest.First().Fork(1, "L2", 2), nil))
		require.NoError(t, s.Close())
		require.Equal(t, h.Rows(t, "quiz"), fold("quiz"))
		require.Contains(t, fold("quiz"), "gone")

		client := h.producer(t)
		h.produce(t, client, "a") // not a row
		require.NoError(t, client.EndTransaction(t.Context(), kgo.TryCommit))
		log := h.log(t)
		defer func() { require.NoError(t, log.Close()) }()
		var bad []string
		for m, err := range topic.Read(t.Context(), log, h.namespace, "visit") {
			require.NoError(t, err)
			if m.Err != nil {
				bad = append(bad, m.ID+": "+m.Err.Error())
			}
		}
		require.Equal(t, []string{"a: its value is too short"}, bad)
	})
}

func rejects(t *testing.T) func(id string) plan.Row {
	return func(id string) plan.Row {
		r := sinktest.Visit(t, id, 1)
		value, err := sinktest.Plan().Tables[sinktest.TableVisit].Schema.Append(nil, []plan.Cell{{Bytes: make([]byte, eventlog.MaxRecordBytes)}})
		require.NoError(t, err)
		r.Value = value
		return r
	}
}

func TestSuite(t *testing.T) {
	t.Parallel()
	h := embedded(t)
	sinktest.Run(t, sinktest.Features{Rejects: rejects(t)}, func(testing.TB) sinktest.Harness { return newHarness(h.brokers...) })
}

func TestSuiteOnApacheKafka(t *testing.T) {
	t.Parallel()
	h := kafka(t)
	sinktest.Run(t, sinktest.Features{Rejects: rejects(t)}, func(testing.TB) sinktest.Harness { return newHarness(h.brokers...) })
}

func kafka(t testing.TB) *harness {
	t.Helper()
	address := os.Getenv("MILLRACE_KAFKA")
	if address == "" {
		t.Skip("MILLRACE_KAFKA is not set: give the address of a Kafka broker; scripts/servers/kafka.sh starts one")
	}
	return newHarness(strings.Split(address, ",")...)
}
