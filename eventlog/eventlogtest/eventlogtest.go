// Package eventlogtest is the suite that every broker must pass under eventlog: the embedded one and Apache Kafka.
package eventlogtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/eventlog"
	"millrace/plan"
	"millrace/record"
)

// patience bounds every wait of the suite: longer than a busy machine needs, shorter than a test may hang.
const patience = time.Minute

// Run runs the suite. setup returns the configuration of a log whose topic does not exist yet; it is called once a test.
func Run(t *testing.T, setup func(t *testing.T) eventlog.Config) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, cfg eventlog.Config)
	}{
		{"an item comes back as it went in", roundTrip},
		{"any bytes are kept", anyBytes},
		{"a partition keeps its order", order},
		{"one id stays in one partition", onePartition},
		{"reading resumes at exact offsets", resume},
		{"starts and ends", startsAndEnds},
		{"a read waits for the next item", waits},
		{"offsets that are gone are an error", gap},
		{"offsets that are not there yet are an error", beyondTheEnd},
		{"offsets that vanish under a reader are an error", gapUnderReader},
		{"what is before a cut can be deleted", cut},
		{"big items", bigItems},
		{"a poll is bounded", bounded},
		{"many appends at once", concurrent},
		{"records of others are rejects", foreign},
		{"open transactions are not read", transactions},
		{"bad appends", badAppends},
		{"an existing topic is used as it is", existingTopic},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, setup(t))
		})
	}
}

// Open opens the log and closes it when the test ends.
func Open(t *testing.T, cfg eventlog.Config) *eventlog.Log {
	t.Helper()
	log, err := eventlog.Open(Context(t), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, log.Close()) })
	return log
}

// Context returns a context that ends before the test hangs.
func Context(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// Read reads n items from the given offsets on.
func Read(t *testing.T, log *eventlog.Log, from plan.Offsets, n int) []record.Item {
	t.Helper()
	r, err := log.Read(Context(t), from)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	var items []record.Item
	for len(items) < n {
		more, err := r.Poll(Context(t), 1000, 1<<20)
		require.NoError(t, err, "after %d of %d items", len(items), n)
		require.NotEmpty(t, more)
		items = append(items, more...)
	}
	require.Len(t, items, n)
	return items
}

var received = time.Date(2018, 8, 16, 15, 27, 59, 123456789, time.UTC)

// Event returns an item with a given id and bytes.
func Event(id, value string) record.Item {
	return record.Item{
		Account: "deepthought", Env: "deepthought3", SourceType: "EDGENUITY_LMS", Sensor: "https://example.edu/sensors/1",
		Kind: record.Event, ID: id, DataVersion: "http://purl.imsglobal.org/ctx/caliper/v1p1",
		SendTime: received.Add(-time.Second), ReceivedAt: received, Bytes: []byte(value),
	}
}

// events returns items with the ids <prefix>0, <prefix>1 and so on, and their ids as bytes.
func events(prefix string, n int) []record.Item {
	items := make([]record.Item, n)
	for i := range items {
		id := fmt.Sprint(prefix, i)
		items[i] = Event(id, id)
	}
	return items
}

// unplaced returns items without their positions, in the order of their bytes.
func unplaced(items []record.Item) []record.Item {
	out := slices.Clone(items)
	for i := range out {
		out[i].Position = record.Position{}
	}
	slices.SortFunc(out, func(a, b record.Item) int { return bytes.Compare(a.Bytes, b.Bytes) })
	return out
}

// noise returns bytes of every value, which do not compress.
func noise(seed uint64, size int) []byte {
	rng := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, 0, size+8)
	for len(b) < size {
		b = binary.LittleEndian.AppendUint64(b, rng.Uint64())
	}
	return b[:size]
}

func roundTrip(t *testing.T, cfg eventlog.Config) {
	log := Open(t, cfg)
	full := Event("urn:uuid:1", `{"a":"full"}`)
	entity := Event("https://example.edu/terms/201801/courses/7", `{"b":"entity of 1.0"}`)
	entity.Kind, entity.DataVersion, entity.SendTime = record.Entity, "", time.Time{}
	reject := Event("", `{"c`)
	reject.Kind, reject.Sensor, reject.Reason = record.Reject, "", "unexpected end of JSON: „grüße“\n\x00"
	ancient := Event("x", "d")
	ancient.SendTime = time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC)
	in := []record.Item{full, entity, reject, ancient}
	require.NoError(t, log.Append(Context(t), in))

	out := Read(t, log, nil, len(in))
	require.Equal(t, unplaced(in), unplaced(out))
	for _, item := range out {
		require.Equal(t, log.Topic(), item.Position.Topic)
		require.GreaterOrEqual(t, item.Position.Offset, int64(0))
	}
}

func anyBytes(t *testing.T, cfg eventlog.Config) {
	log := Open(t, cfg)
	var in []record.Item
	for n := range 300 {
		in = append(in, Event(fmt.Sprint(n), string(noise(uint64(n), 1+n*n/10))))
	}
	require.NoError(t, log.Append(Context(t), in))
	require.Equal(t, unplaced(in), unplaced(Read(t, log, nil, len(in))))
}

func order(t *testing.T, cfg eventlog.Config) {
	log := Open(t, cfg)
	next := make(map[string]int)
	for i := range 20 {
		var items []record.Item
		for k := range 50 {
			item := Event(fmt.Sprint("key ", k), "")
			item.Bytes = fmt.Appendf(nil, "%d", i)
			items = append(items, item)
		}
		require.NoError(t, log.Append(Context(t), items))
	}
	offsets := make(plan.Offsets)
	for _, item := range Read(t, log, nil, 20*50) {
		require.Equal(t, fmt.Sprint(next[item.ID]), string(item.Bytes), "item %s", item.ID)
		next[item.ID]++
		require.Equal(t, offsets[item.Position.Partition], item.Position.Offset)
		offsets[item.Position.Partition]++
	}
	partitions, err := log.Partitions(Context(t))
	require.NoError(t, err)
	require.Len(t, offsets, len(partitions), "items went to %v only", offsets)
}

func onePartition(t *testing.T, cfg eventlog.Config) {
	log := Open(t, cfg)
	var in []record.Item
	for i := range 40 {
		a := Event("the same", fmt.Sprint("a", i))
		b := Event("", "the same bytes without an id")
		in = append(in, a, b)
	}
	require.NoError(t, log.Append(Context(t), in))
	partitions := make(map[string]int32)
	for _, item := range Read(t, log, nil, len(in)) {
		if p, ok := partitions[item.ID]; ok {
			require.Equal(t, p, item.Position.Partition)
		}
		partitions[item.ID] = item.Position.Partition
	}
	require.Len(t, partitions, 2)
}

func resume(t *testing.T, cfg eventlog.Config) {
	log := Open(t, cfg)
	in := events("e", 400)
	require.NoError(t, log.Append(Context(t), in))
	all := Read(t, log, nil, len(in))

	for _, cut := range []int{1, 57, 399} {
		from := make(plan.Offsets)
		for _, item := range all[:cut] {
			from[item.Position.Partition] = item.Position.Offset + 1
		}
		// The first part ended between two polls, so the second is exactly what it did not have.
		require.Equal(t, unplaced(all[cut:]), unplaced(Read(t, log, from, len(in)-cut)), "cut after %d", cut)
	}
}

func startsAndEnds(t *testing.T, cfg eventlog.Config) {
	log := Open(t, cfg)
	partitions, err := log.Partitions(Context(t))
	require.NoError(t, err)
	require.True(t, slices.IsSorted(partitions))
	require.Len(t, partitions, 4)
	zero := plan.Offsets{0: 0, 1: 0, 2: 0, 3: 0}
	starts, err := log.Starts(Context(t))
	require.NoError(t, err)
	require.Equal(t, zero, starts)
	ends, err := log.Ends(Context(t))
	require.NoError(t, err)
	require.Equal(t, zero, ends)

	require.NoError(t, log.Append(Context(t), events("e", 100)))
	want := make(plan.Offsets)
	for _, item := range Read(t, log, nil, 100) {
		want[item.Position.Partition] = max(want[item.Position.Partition], item.Position.Offset+1)
	}
	ends, err = log.Ends(Context(t))
	require.NoError(t, err)
	require.Equal(t, want, ends)
}

func waits(t *testing.T, cfg eventlog.Config) {
	log := Open(t, cfg)
	r, err := log.Read(Context(t), nil)
	require.NoError(t, err)
	defer r.Close()

	short, cancel := context.WithTimeout(Context(t), 50*time.Millisecond)
	defer cancel()
	_, err = r.Poll(short, 10, 0)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	got := make(chan []record.Item)
	go func() {
		items, err := r.Poll(Context(t), 10, 0)
		if err != nil {
			t.Error(err)
		}
		got <- items
	}()
	require.NoError(t, log.Append(Context(t), events("e", 1)))
	require.Len(t, <-got, 1)

	closed := make(chan error)
	go func() {
		_, err := r.Poll(Context(t), 10, 0)
		closed <- err
	}()
	require.NoError(t, r.Close())
	require.Error(t, <-closed)
}

// DeleteBefore makes the log forget the records of a partition before an offset, as retention does.
func DeleteBefore(t *testing.T, cfg eventlog.Config, log *eventlog.Log, partition int32, offset int64) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...))
	require.NoError(t, err)
	defer client.Close()
	offsets := make(kadm.Offsets)
	offsets.AddOffset(log.Topic(), partition, offset, -1)
	deleted, err := kadm.NewClient(client).DeleteRecords(Context(t), offsets)
	require.NoError(t, err)
	require.NoError(t, deleted.Error())
}

func gap(t *testing.T, cfg eventlog.Config) {
	cfg.Partitions = 1
	log := Open(t, cfg)
	require.NoError(t, log.Append(Context(t), events("e", 50)))
	DeleteBefore(t, cfg, log, 0, 42)
	starts, err := log.Starts(Context(t))
	require.NoError(t, err)
	require.Equal(t, plan.Offsets{0: 42}, starts)

	_, err = log.Read(Context(t), plan.Offsets{0: 17})
	var gap *eventlog.GapError
	require.ErrorAs(t, err, &gap)
	require.Equal(t, eventlog.GapError{Topic: log.Topic(), Partition: 0, Want: 17, Start: 42, End: 50}, *gap)
	require.Equal(t, "offsets 17 to 41 of partition 0 of "+log.Topic()+
		" are gone: the log starts at offset 42; read what is missing from the lake, or start afresh", err.Error())

	items := Read(t, log, nil, 8)
	require.Equal(t, "e42", string(items[0].Bytes), "without an offset a partition is read from its start")
	_, err = log.Read(Context(t), plan.Offsets{7: 0})
	require.ErrorContains(t, err, "no partition 7")
}

// cut: nothing but what is before the cut goes, no app sees the cut, and offsets go on.
func cut(t *testing.T, cfg eventlog.Config) {
	log := Open(t, cfg)
	client, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...))
	require.NoError(t, err)
	defer client.Close()
	admin := kadm.NewClient(client)
	_, err = admin.AlterTopicConfigs(Context(t), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "segment.ms", Value: kadm.StringPtr("1")}}, log.Topic())
	require.NoError(t, err, "as a cut that was interrupted leaves it")
	require.NoError(t, log.Append(Context(t), events("old", 40)))
	ends, err := log.Ends(Context(t))
	require.NoError(t, err)
	at, err := log.Cut(Context(t))
	require.NoError(t, err)
	require.Equal(t, ends, at)
	require.NoError(t, log.Append(Context(t), events("new", 40)))
	for range 2 { // again does nothing
		require.NoError(t, log.DeleteBefore(Context(t), at))
		starts, err := log.Starts(Context(t))
		require.NoError(t, err)
		require.Equal(t, at, starts)
	}
	marks := 0
	for _, item := range Read(t, log, at, 40+len(at)) {
		if item.Replay != nil {
			marks++
			require.Equal(t, "cut", item.Replay.App)
			require.Equal(t, record.Event, item.Kind, item.Reason)
			require.Equal(t, at[item.Position.Partition], item.Position.Offset)
			continue
		}
		require.Contains(t, string(item.Bytes), "new")
	}
	require.Len(t, at, marks)
	var gap *eventlog.GapError
	_, err = log.Read(Context(t), plan.Offsets{0: 0})
	require.ErrorAs(t, err, &gap)

	configs, err := admin.DescribeTopicConfigs(Context(t), log.Topic())
	require.NoError(t, err)
	for _, c := range configs[0].Configs {
		require.False(t, strings.HasPrefix(c.Key, "segment.") && c.MaybeValue() == "1", c.Key)
	}
}

func beyondTheEnd(t *testing.T, cfg eventlog.Config) {
	cfg.Partitions = 1
	log := Open(t, cfg)
	require.NoError(t, log.Append(Context(t), events("e", 5)))
	_, err := log.Read(Context(t), plan.Offsets{0: 6})
	var gap *eventlog.GapError
	require.ErrorAs(t, err, &gap)
	require.EqualValues(t, 6, gap.Want)
	require.ErrorContains(t, err, "was cut or replaced")
}

func gapUnderReader(t *testing.T, cfg eventlog.Config) {
	cfg.Partitions = 1
	log := Open(t, cfg)
	const n = 8
	for i := range uint64(n) { // more than a reader fetches ahead
		require.NoError(t, log.Append(Context(t), []record.Item{Event("big", string(noise(i, 3<<20)))}))
	}
	r, err := log.Read(Context(t), nil)
	require.NoError(t, err)
	defer r.Close()
	// Before the first poll the reader may have fetched the beginning and nothing behind it.
	DeleteBefore(t, cfg, log, 0, n)
	next := int64(0)
	for {
		items, err := r.Poll(Context(t), 1, 0)
		if err != nil {
			var gap *eventlog.GapError
			require.ErrorAs(t, err, &gap)
			require.Equal(t, eventlog.GapError{Topic: log.Topic(), Partition: 0, Want: next, Start: n, End: n}, *gap)
			_, again := r.Poll(Context(t), 1, 0)
			require.Equal(t, err, again)
			return
		}
		require.Equal(t, next, items[0].Position.Offset, "skipped without a word")
		next++
		require.Less(t, next, int64(n), "everything was fetched before it was deleted: nothing was tested")
	}
}

func bigItems(t *testing.T, cfg eventlog.Config) {
	log := Open(t, cfg)
	var in []record.Item
	for i, size := range []int{900_000, 900_001, 5 << 20, 11 << 20} {
		in = append(in, Event(fmt.Sprint(i), string(noise(uint64(i), size))))
	}
	require.NoError(t, log.Append(Context(t), in))
	require.True(t, slices.EqualFunc(unplaced(in), unplaced(Read(t, log, nil, len(in))), func(a, b record.Item) bool {
		return a.ID == b.ID && bytes.Equal(a.Bytes, b.Bytes)
	}), "the bytes differ")
}

func bounded(t *testing.T, cfg eventlog.Config) {
	log := Open(t, cfg)
	var in []record.Item
	for i := range 100 {
		in = append(in, Event(fmt.Sprint(i), strings.Repeat("x", 1000)))
	}
	require.NoError(t, log.Append(Context(t), in))
	r, err := log.Read(Context(t), nil)
	require.NoError(t, err)
	defer r.Close()
	total := 0
	for total < len(in) {
		items, err := r.Poll(Context(t), 7, 0)
		require.NoError(t, err)
		require.LessOrEqual(t, len(items), 7)
		total += len(items)
		if total == len(in) {
			break
		}
		items, err = r.Poll(Context(t), 0, 2500)
		require.NoError(t, err)
		require.LessOrEqual(t, len(items), 3)
		total += len(items)
	}
	require.Equal(t, len(in), total)
}

func concurrent(t *testing.T, cfg eventlog.Config) {
	log := Open(t, cfg)
	const callers, each = 100, 100
	var group sync.WaitGroup
	for c := range callers {
		group.Go(func() {
			for _, item := range events(fmt.Sprint("c", c, "-"), each) {
				if err := log.Append(Context(t), []record.Item{item}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	seen := make(map[string]bool)
	for _, item := range Read(t, log, nil, callers*each) {
		require.False(t, seen[item.ID], "%s twice", item.ID)
		require.Equal(t, item.ID, string(item.Bytes))
		seen[item.ID] = true
	}
}

func foreign(t *testing.T, cfg eventlog.Config) {
	cfg.Partitions = 1
	log := Open(t, cfg)
	client, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...), kgo.DefaultProduceTopic(log.Topic()))
	require.NoError(t, err)
	defer client.Close()
	header := func(pairs ...string) (h []kgo.RecordHeader) {
		for i := 0; i < len(pairs); i += 2 {
			h = append(h, kgo.RecordHeader{Key: pairs[i], Value: []byte(pairs[i+1])})
		}
		return h
	}
	good := []string{"account", "a", "env", "e", "source_type", "S", "kind", "event", "received_at", "2018-08-16T15:27:59Z"}
	tests := []struct {
		headers []kgo.RecordHeader
		reason  string
	}{
		{nil, "header account is missing"},
		{header(good[:8]...), "header received_at is missing"},
		{header(append(good[:8:8], "received_at", "yesterday")...), `header received_at is "yesterday", not a time as RFC 3339 writes it`},
		{header(append(good[:10:10], "kind", "fact")...), `header kind is "fact"; it is event, entity or reject`},
		{header(append(good[:10:10], "account", "")...), "header account is missing"},
		{header(append(good[:10:10], "send_time", "")...), `header send_time is "", not a time as RFC 3339 writes it`},
	}
	for _, test := range tests {
		require.NoError(t, client.ProduceSync(Context(t), &kgo.Record{Value: []byte("v"), Headers: test.headers}).FirstErr())
	}
	require.NoError(t, client.ProduceSync(Context(t), &kgo.Record{Headers: header(good...)}).FirstErr())

	items := Read(t, log, nil, len(tests)+1)
	for i, test := range tests {
		require.Equal(t, record.Reject, items[i].Kind)
		require.Equal(t, "not a record that Millrace wrote: "+test.reason, items[i].Reason)
		require.Equal(t, "v", string(items[i].Bytes))
		require.False(t, items[i].ReceivedAt.IsZero())
	}
	require.Equal(t, record.Event, items[len(tests)].Kind, "unknown headers do no harm: %s", items[len(tests)].Reason)
}

func transactions(t *testing.T, cfg eventlog.Config) {
	cfg.Partitions = 1
	log := Open(t, cfg)
	client, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...), kgo.DefaultProduceTopic(log.Topic()), kgo.TransactionalID(log.Topic()))
	require.NoError(t, err)
	defer client.Close()
	produce := func(value string) {
		require.NoError(t, client.ProduceSync(Context(t), &kgo.Record{Value: []byte(value)}).FirstErr())
	}
	require.NoError(t, client.BeginTransaction())
	produce("aborted")
	require.NoError(t, client.EndTransaction(Context(t), kgo.TryAbort))
	require.NoError(t, client.BeginTransaction())
	produce("committed")
	require.NoError(t, client.EndTransaction(Context(t), kgo.TryCommit))
	whole := plan.Offsets{0: 4} // with a marker after each record, which Apache Kafka writes when it has answered
	require.Eventually(t, func() bool {
		ends, err := log.Ends(Context(t))
		return err == nil && maps.Equal(ends, whole)
	}, 30*time.Second, 10*time.Millisecond)
	require.NoError(t, client.BeginTransaction())
	produce("open")
	ends, err := log.Ends(Context(t))
	require.NoError(t, err)
	require.Equal(t, whole, ends)

	require.Equal(t, "committed", string(Read(t, log, nil, 1)[0].Bytes))
	require.NoError(t, client.EndTransaction(Context(t), kgo.TryAbort))
}

func badAppends(t *testing.T, cfg eventlog.Config) {
	log := Open(t, cfg)
	require.NoError(t, log.Append(Context(t), nil))
	none := Event("b", "b")
	none.Kind = 0
	require.ErrorContains(t, log.Append(Context(t), []record.Item{Event("a", "a"), none}), "item 1 has kind 0")

	large := Event("b", strings.Repeat("x", log.MaxItemBytes()+1))
	err := log.Append(Context(t), []record.Item{Event("a", "a"), large})
	require.ErrorIs(t, err, eventlog.ErrTooLarge)
	require.ErrorContains(t, err, "append 2 items to "+log.Topic()+": item 1 has ")
	ends, err := log.Ends(Context(t))
	require.NoError(t, err)
	for p, end := range ends {
		require.Zero(t, end, "partition %d has something of a refused append", p)
	}

	large.Bytes = large.Bytes[:log.MaxItemBytes()-500]
	require.NoError(t, log.Append(Context(t), []record.Item{large}), "the limit that the log names is one it takes")

	ended, cancel := context.WithCancel(Context(t))
	cancel()
	require.ErrorIs(t, log.Append(ended, events("e", 3)), context.Canceled)
}

func existingTopic(t *testing.T, cfg eventlog.Config) {
	cfg.Topic += "-small"
	client, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...))
	require.NoError(t, err)
	defer client.Close()
	_, err = kadm.NewClient(client).CreateTopic(Context(t), 2, -1, map[string]*string{"max.message.bytes": kadm.StringPtr("20000")}, cfg.Topic)
	require.NoError(t, err)

	log := Open(t, cfg)
	partitions, err := log.Partitions(Context(t))
	require.NoError(t, err)
	require.Equal(t, []int32{0, 1}, partitions)
	require.Less(t, log.MaxItemBytes(), 20000)
	require.ErrorIs(t, log.Append(Context(t), []record.Item{Event("a", strings.Repeat("x", 20000))}), eventlog.ErrTooLarge)
	in := events("e", 3000)
	require.NoError(t, log.Append(Context(t), in), "many items together may be larger than one may be")
	require.Len(t, Read(t, log, nil, len(in)), len(in))
}
