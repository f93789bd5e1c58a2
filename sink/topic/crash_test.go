package topic_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/eventlog/broker"
	"millrace/plan"
	"millrace/sink"
	"millrace/sink/sinktest"
	"millrace/sink/topic"
)

// each runs a test on the embedded broker and, where there is one, on Apache Kafka.
func each(t *testing.T, run func(t *testing.T, h *harness)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		run(t, embedded(t))
	})
	t.Run("kafka", func(t *testing.T) {
		t.Parallel()
		run(t, kafka(t))
	})
}

func visits(t *testing.T, epoch uint64, ids ...string) (rows []plan.Row) {
	for _, id := range ids {
		rows = append(rows, sinktest.Visit(t, id, epoch))
	}
	return rows
}

func batch(lineage string, from, to uint64, rows ...plan.Row) sink.Batch {
	return sink.Batch{Lineage: lineage, FromEpoch: from, ToEpoch: to, Rows: rows}
}

func publish(t *testing.T, s sink.Sink, b sink.Batch) {
	t.Helper()
	rejected, err := s.Publish(t.Context(), b)
	require.NoError(t, err)
	require.Empty(t, rejected)
}

// told are the committed messages of table visit: key, epoch and lineage of each, with - for a tombstone.
func (h *harness) told(t *testing.T) (out []string) {
	t.Helper()
	for _, m := range h.messages(t, topic.Topic(h.namespace, "visit")) {
		line := string(m.Key)
		if m.Value == nil {
			line = "-" + line
		}
		for _, name := range []string{"epoch", "lineage", "rewind"} {
			for _, header := range m.Headers {
				if header.Key == name {
					line += " " + string(header.Value)
				}
			}
		}
		out = append(out, line)
	}
	return out
}

// producer is the client of a writer that dies: it has the sink's transactional id, and leaves a transaction open.
func (h *harness) producer(t *testing.T) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(h.brokers...), kgo.TransactionalID("millrace-job-"+h.namespace),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

func (h *harness) produce(t *testing.T, client *kgo.Client, ids ...string) {
	t.Helper()
	require.NoError(t, client.BeginTransaction())
	for i, id := range ids {
		require.NoError(t, client.ProduceSync(t.Context(), &kgo.Record{
			Topic: topic.Topic(h.namespace, "visit"), Partition: int32(i) % h.partitions, Key: []byte(id), Value: []byte("half"),
			Headers: []kgo.RecordHeader{{Key: "lineage", Value: []byte("L1")}, {Key: "epoch", Value: []byte("99")}},
		}).FirstErr())
	}
}

// A process that dies between producing and committing has published nothing, and the next one goes on at once.
func TestKilledBeforeTheCommit(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, h *harness) {
		s := h.begin(t)
		publish(t, s, batch("L1", 1, 1, visits(t, 1, "a", "b")...))
		require.NoError(t, s.Close())

		h.produce(t, h.producer(t), "x", "y", "z") // and no more is heard of it
		require.Len(t, h.told(t), 2, "what is not committed is not seen")

		s = h.begin(t)
		publish(t, s, batch("L1", 1, 2, append(visits(t, 1, "a", "b"), visits(t, 2, "c")...)...))
		require.NoError(t, s.Close())
		require.ElementsMatch(t, []string{"a 1 L1", "b 1 L1", "c 2 L1"}, h.told(t), "each epoch once, what was aborted never")
	})
}

// The answer to a commit does not come, and the process gives up: whether it was done shows in the topic.
func TestUnknownOutcome(t *testing.T) {
	t.Parallel()
	const endTxn = 26
	for name, answer := range map[string]bool{"committed": true, "not committed": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			network, h := newLossy(t)
			s := h.begin(t)
			publish(t, s, batch("L1", 1, 1, visits(t, 1, "a")...))

			ctx, cancel := context.WithCancel(t.Context())
			lost := network.lose(endTxn, answer)
			go func() { <-lost; cancel() }()
			b := batch("L1", 2, 2, visits(t, 2, "b", "c", "d", "e")...)
			_, err := s.Publish(ctx, b)
			require.ErrorIs(t, err, context.Canceled)

			publish(t, s, b)
			publish(t, s, batch("L1", 2, 3, append(b.Rows, visits(t, 3, "f")...)...))
			require.NoError(t, s.Close())
			require.ElementsMatch(t, []string{"a 1 L1", "b 2 L1", "c 2 L1", "d 2 L1", "e 2 L1", "f 3 L1"}, h.told(t))
		})
	}
}

// Of two processes with one lineage the one that began later is the writer; the other says so and stops.
func TestZombieIsRefused(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, h *harness) {
		old := h.begin(t)
		publish(t, old, batch("L1", 1, 1, visits(t, 1, "a")...))
		s := h.begin(t)
		_, err := old.Publish(t.Context(), batch("L1", 2, 2, visits(t, 2, "zombie")...))
		require.ErrorIs(t, err, topic.ErrSuperseded)
		publish(t, s, batch("L1", 2, 2, visits(t, 2, "b")...))
		require.NoError(t, errors.Join(s.Close(), old.Close()))
		require.ElementsMatch(t, []string{"a 1 L1", "b 2 L1"}, h.told(t))
	})
}

// A process that was stopped for longer than a transaction may take is fenced by the broker, finds that nobody has its place, and
// goes on.
func TestStoppedForLong(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, h *harness) {
		s := h.begin(t)
		publish(t, s, batch("L1", 1, 1, visits(t, 1, "a")...))
		_, _, err := h.producer(t).ProducerID(t.Context()) // moves the epoch on, as the broker's time-out does
		require.NoError(t, err)
		publish(t, s, batch("L1", 2, 2, visits(t, 2, "b")...))
		require.NoError(t, s.Close())
		require.ElementsMatch(t, []string{"a 1 L1", "b 2 L1"}, h.told(t))
	})
}

// The embedded broker is killed with a transaction open, again and again: what was aborted stays so, what was committed too.
func TestBrokerIsKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := newHarness("")
	var want []string
	for epoch := uint64(1); epoch <= 6; epoch++ {
		b, err := broker.Open(broker.Config{Dir: dir})
		require.NoError(t, err)
		h.brokers = []string{b.Addr()}
		s := h.begin(t)
		ids := []string{fmt.Sprint("a", epoch), fmt.Sprint("b", epoch), fmt.Sprint("c", epoch)}
		publish(t, s, batch("L1", epoch, epoch, visits(t, epoch, ids...)...))
		for _, id := range ids {
			want = append(want, fmt.Sprintf("%s %d L1", id, epoch))
		}
		require.ElementsMatch(t, want, h.told(t), "epoch %d", epoch)
		require.NoError(t, s.Close())

		h.produce(t, h.producer(t), "x", "y", "z")
		killed := filepath.Join(t.TempDir(), "log")
		require.NoError(t, os.CopyFS(killed, os.DirFS(dir))) // what a kill leaves: nothing is written at its end
		require.NoError(t, b.Close())
		dir = killed
	}
	b, err := broker.Open(broker.Config{Dir: dir})
	require.NoError(t, err)
	h.brokers = []string{b.Addr()}
	require.NoError(t, h.begin(t).Close())
	require.ElementsMatch(t, want, h.told(t))
	require.NoError(t, b.Close())
}

// After a rewind a topic ends in what was true where the new lineage began.
func TestRewind(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, h *harness) {
		ctx := context.Background()
		s := h.begin(t)
		publish(t, s, batch("L1", 1, 1, append(visits(t, 1, "kept"), sinktest.Quiz(t, "q", 1, 1), sinktest.Quiz(t, "gone", 1, 1))...))
		publish(t, s, batch("L1", 2, 2, append(visits(t, 2, "new"), sinktest.Quiz(t, "q", 2, 2), sinktest.Quiz(t, "late", 1, 2),
			plan.Row{Table: sinktest.TableQuiz, ID: "gone", Rev: 2, Deleted: true, Epoch: 2})...))

		second := sinktest.First().Fork(1, "L2", 2)
		require.NoError(t, s.Begin(ctx, second, nil))
		require.Equal(t, map[string]float64{"q": 1, "gone": 1}, scores(t, h))
		require.ElementsMatch(t, []string{"kept 1 L1", "new 2 L1", "-new 2 L1 L2 1"}, h.told(t))
		require.Equal(t, "L1", h.Rows(t, "quiz")["q"]["_lineage"])

		// Again, and what the runner publishes again: nothing.
		require.NoError(t, s.Begin(ctx, second, nil))
		publish(t, s, batch("L1", 1, 1, append(visits(t, 1, "kept"), sinktest.Quiz(t, "q", 1, 1))...))
		require.Len(t, h.told(t), 3)

		publish(t, s, batch("L2", 2, 2, append(visits(t, 2, "other"), sinktest.Quiz(t, "q", 3, 2))...))
		require.Equal(t, map[string]float64{"q": 3, "gone": 1}, scores(t, h))

		// A process of the old lineage is refused, however late it comes, and does no harm to the new one.
		old := h.log(t)
		zombie, err := topic.Open(ctx, h.config(old))
		require.NoError(t, err)
		require.ErrorIs(t, zombie.Begin(ctx, sinktest.First(), nil), sink.ErrFenced)
		publish(t, s, batch("L2", 3, 3, visits(t, 3, "more")...))

		// Back to where the first lineage was when the second began, with what the second had not known.
		require.NoError(t, s.Begin(ctx, sinktest.First().Fork(2, "L3", 3), nil))
		require.Equal(t, map[string]float64{"q": 2, "late": 1}, scores(t, h))
		require.Contains(t, h.Rows(t, "visit"), "new")
		require.NotContains(t, h.Rows(t, "visit"), "other")
		publish(t, s, batch("L3", 3, 3, sinktest.Quiz(t, "q", 9, 3)))

		// To the very beginning.
		require.NoError(t, s.Begin(ctx, sinktest.First().Fork(0, "L4", 4), nil))
		require.Empty(t, h.Rows(t, "quiz"))
		require.Empty(t, h.Rows(t, "visit"))
		require.NoError(t, errors.Join(zombie.Close(), old.Close(), s.Close()))
	})
}

func scores(t *testing.T, h *harness) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for id, row := range h.Rows(t, "quiz") {
		out[id], _ = row["score"].(float64)
	}
	return out
}
