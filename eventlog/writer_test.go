package eventlog_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/eventlog"
	"millrace/record"
)

// clusters runs a test on the embedded broker and, where there is one, on Apache Kafka.
func clusters(t *testing.T, run func(t *testing.T, cfg eventlog.Config)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		run(t, embedded(t))
	})
	t.Run("kafka", func(t *testing.T) {
		t.Parallel()
		address := os.Getenv("MILLRACE_KAFKA")
		if address == "" {
			t.Skip("MILLRACE_KAFKA is not set: give the address of a Kafka broker; scripts/servers/kafka.sh starts one")
		}
		run(t, eventlog.Config{Brokers: strings.Split(address, ","), Topic: fmt.Sprintf("millrace-test-writer-%d", time.Now().UnixNano())})
	})
}

func message(topic string, partition int32, key string) eventlog.Message {
	return eventlog.Message{
		Topic: topic, Partition: partition, Key: []byte(key), Value: []byte("value of " + key),
		Headers: []eventlog.Header{{Key: "n", Value: []byte("1")}, {Key: "n", Value: []byte("2")}},
	}
}

func keys(t *testing.T, log *eventlog.Log, topic string, partition int32) (out []string) {
	t.Helper()
	for m, err := range log.Messages(t.Context(), topic, partition) {
		require.NoError(t, err)
		out = append(out, string(m.Key))
	}
	return out
}

func TestWriter(t *testing.T) {
	t.Parallel()
	clusters(t, func(t *testing.T, cfg eventlog.Config) {
		ctx := t.Context()
		log, err := eventlog.Open(ctx, cfg)
		require.NoError(t, err)
		defer log.Close()
		a, b := log.Topic()+".a", log.Topic()+".b"
		name := "writer-" + log.Topic()
		open := func() *eventlog.Writer {
			w := log.Writer(name)
			require.NoError(t, w.Topic(ctx, a, 2))
			require.NoError(t, w.Topic(ctx, b, 1))
			return w
		}
		w := open()
		defer w.Close()
		require.EqualValues(t, 2, w.Partitions(a))
		require.ErrorContains(t, w.Commit(ctx, []eventlog.Message{message(a, 0, "x")}), "has not taken its place")
		require.NoError(t, w.Take(ctx))
		require.NoError(t, w.Commit(ctx, []eventlog.Message{message(a, 0, "1"), message(a, 1, "2"), message(b, 0, "3"), message(a, 0, "4")}))
		tombstone := eventlog.Message{Topic: a, Partition: 1, Key: []byte("2")}
		require.NoError(t, w.Commit(ctx, []eventlog.Message{tombstone}))
		require.Equal(t, []string{"1", "4"}, keys(t, log, a, 0))
		require.Equal(t, []string{"2", "2"}, keys(t, log, a, 1))

		last, err := w.Last(ctx, a, b)
		require.NoError(t, err)
		require.Equal(t, "4", string(last[a][0].Key))
		require.Equal(t, "1", new(last[a][0]).Header("n"))
		require.Nil(t, last[a][1].Value)
		require.Equal(t, "value of 3", string(last[b][0].Value))

		// A newer one takes the place, and the older one is told.
		newer := open()
		defer newer.Close()
		require.NoError(t, newer.Take(ctx))
		require.ErrorIs(t, w.Commit(ctx, []eventlog.Message{message(a, 0, "zombie")}), eventlog.ErrFenced)
		require.NoError(t, newer.Commit(ctx, []eventlog.Message{message(a, 0, "5")}))
		require.Equal(t, []string{"1", "4", "5"}, keys(t, log, a, 0))

		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		require.ErrorIs(t, newer.Commit(cancelled, []eventlog.Message{message(b, 0, "6")}), context.Canceled)
		require.NoError(t, newer.Take(ctx))
		require.Equal(t, []string{"3"}, keys(t, log, b, 0))

		huge := message(a, 0, "huge")
		huge.Value = make([]byte, eventlog.MaxRecordBytes)
		require.False(t, newer.Fits(&huge))

		// What forgets is no place for what a rewind must bring back.
		client, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...))
		require.NoError(t, err)
		defer client.Close()
		compact := log.Topic() + ".compacted"
		_, err = kadm.NewClient(client).CreateTopic(ctx, 1, 1, map[string]*string{"cleanup.policy": kadm.StringPtr("compact")}, compact)
		require.NoError(t, err)
		require.ErrorContains(t, newer.Topic(ctx, compact, 1), "has cleanup.policy=compact and forgets what a rewind must bring back; set it to delete")
	})
}

func TestItems(t *testing.T) {
	t.Parallel()
	clusters(t, func(t *testing.T, cfg eventlog.Config) {
		ctx := t.Context()
		log, err := eventlog.Open(ctx, cfg)
		require.NoError(t, err)
		defer log.Close()
		var items []record.Item
		for i := range 3000 {
			items = append(items, record.Item{
				Account: "acme", Env: "prod", SourceType: "LMS", Kind: record.Event, ID: fmt.Sprint(i), ReceivedAt: time.Unix(1, 0).UTC(), Bytes: fmt.Appendf(nil, "{%d}", i),
			})
		}
		items[7].Replay = &record.Replay{App: "a-job", Letter: "l-elastic", Table: "t", Stage: "sink/elastic", Rev: 1 << 53}
		require.NoError(t, log.Append(ctx, items))
		r, err := log.Read(ctx, nil)
		require.NoError(t, err)
		defer r.Close()
		var all []record.Item
		for len(all) < len(items) {
			more, err := r.Poll(ctx, 0, 0)
			require.NoError(t, err)
			all = append(all, more...)
		}
		want := map[record.Position]record.Item{}
		var positions []record.Position
		for i, it := range all {
			if i%1499 == 0 || it.ID == "7" || it.ID == "8" {
				want[it.Position] = it
				positions = append(positions, it.Position, it.Position)
			}
			if it.ID == "7" {
				require.Equal(t, items[7].Replay, it.Replay)
			}
		}
		got, err := log.Items(ctx, positions)
		require.NoError(t, err)
		require.Len(t, got, len(want))
		for _, it := range got {
			require.Equal(t, want[it.Position], it)
		}
		var gap *eventlog.GapError
		_, err = log.Items(ctx, []record.Position{{Topic: log.Topic(), Partition: 0, Offset: 1 << 40}})
		require.True(t, errors.As(err, &gap), "%v", err)
	})
}
