package broker_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/eventlog"
	"millrace/eventlog/broker"
	"millrace/eventlog/eventlogtest"
	"millrace/record"
)

func open(t *testing.T, cfg broker.Config) *broker.Broker {
	t.Helper()
	b, err := broker.Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

func events(prefix string, n int) []record.Item {
	items := make([]record.Item, n)
	for i := range items {
		id := fmt.Sprint(prefix, i)
		items[i] = eventlogtest.Event(id, "value of "+id)
	}
	return items
}

func ids(items []record.Item) map[string]int {
	out := make(map[string]int)
	for _, item := range items {
		out[item.ID]++
	}
	return out
}

// A log and its readers live on when the broker comes back at the same address with what it had.
func TestRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, broker.Config{Dir: dir})
	addr := b.Addr()
	log := eventlogtest.Open(t, eventlog.Config{Brokers: []string{addr}})
	r, err := log.Read(eventlogtest.Context(t), nil)
	require.NoError(t, err)
	defer r.Close()

	want := make(map[string]int)
	got := make(map[string]int)
	for round := range 3 {
		items := events(fmt.Sprint("round ", round, " item "), 100)
		require.NoError(t, log.Append(eventlogtest.Context(t), items))
		for _, item := range items {
			want[item.ID]++
		}
		for len(got) < len(want) {
			items, err := r.Poll(eventlogtest.Context(t), 1000, 0)
			require.NoError(t, err)
			for _, item := range items {
				got[item.ID]++
			}
		}
		require.Equal(t, want, got)
		require.NoError(t, b.Close())
		b = open(t, broker.Config{Dir: dir, Listen: addr})
		require.Equal(t, addr, b.Addr())
	}
	require.Equal(t, want, ids(eventlogtest.Read(t, log, nil, len(want))))
}

// TestMain is also the program that TestKilled kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("MILLRACE_TEST_APPEND_TO"); dir != "" {
		if err := appendForever(dir, os.Getenv("MILLRACE_TEST_RUN")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// appendForever runs a broker and appends to it from several goroutines, and prints the id of each item once it is
// acknowledged.
func appendForever(dir, run string) error {
	b, err := broker.Open(broker.Config{Dir: dir})
	if err != nil {
		return err
	}
	ctx := context.Background()
	log, err := eventlog.Open(ctx, eventlog.Config{Brokers: []string{b.Addr()}})
	if err != nil {
		return err
	}
	errs := make(chan error)
	var mu sync.Mutex
	for c := range 8 {
		go func() {
			for n := 0; ; n++ {
				items := events(fmt.Sprintf("run %s caller %d append %d item ", run, c, n), 5)
				items[0].Bytes = bytes.Repeat(items[0].Bytes, 5000)
				if err := log.Append(ctx, items); err != nil {
					errs <- err
					return
				}
				var out strings.Builder
				for _, item := range items {
					fmt.Fprintln(&out, item.ID)
				}
				mu.Lock()
				_, err := os.Stdout.WriteString(out.String()) // one write, so that a line is whole or absent
				mu.Unlock()
				if err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	return <-errs
}

// Every item that was acknowledged before a kill -9 is there after it, in the same directory, again and again.
func TestKilled(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("kills processes for some seconds; left out by -short")
	}
	dir := t.TempDir()
	acknowledged := make(map[string]bool)
	for run := range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "MILLRACE_TEST_APPEND_TO="+dir, fmt.Sprint("MILLRACE_TEST_RUN=", run))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := bufio.NewScanner(out)
		seen := 0
		for lines.Scan() {
			acknowledged[lines.Text()] = true
			if seen++; seen == 200+run*177 {
				require.NoError(t, cmd.Process.Kill())
			}
		}
		_ = cmd.Wait() // it was killed
		require.GreaterOrEqual(t, seen, 200, "the program ended by itself: %s", stderr.String())

		if run == 2 { // the next program finds once what was closed, else what was killed
			require.NoError(t, open(t, broker.Config{Dir: dir}).Close())
		}
		b := open(t, broker.Config{Dir: copyDir(t, dir)})
		log := eventlogtest.Open(t, eventlog.Config{Brokers: []string{b.Addr()}})
		found := ids(eventlogtest.Read(t, log, nil, total(t, log)))
		for id := range acknowledged {
			require.Equal(t, 1, found[id], "%s was acknowledged and is there %d times", id, found[id])
		}
	}
}

func total(t *testing.T, log *eventlog.Log) int {
	t.Helper()
	ends, err := log.Ends(eventlogtest.Context(t))
	require.NoError(t, err)
	n := 0
	for _, end := range ends {
		n += int(end)
	}
	return n
}

// copyDir copies a broker's directory as it is on disk at this moment.
func copyDir(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.CopyFS(to, os.DirFS(dir)))
	return to
}

// filled returns a directory with 30 items in one partition, as a killed broker leaves it, and its segment file.
func filled(t *testing.T) (dir, segment string) {
	t.Helper()
	dir = t.TempDir()
	b := open(t, broker.Config{Dir: dir})
	log := eventlogtest.Open(t, eventlog.Config{Brokers: []string{b.Addr()}, Partitions: 1})
	for i := range 3 {
		require.NoError(t, log.Append(eventlogtest.Context(t), events(fmt.Sprint("append ", i, " item "), 10)))
	}
	dir = copyDir(t, dir)
	return dir, filepath.Join(dir, "partitions", "ingest-prime-0", "0.dat")
}

func edit(t *testing.T, path string, change func(b []byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, change(b), 0o644))
}

// What a process that was killed had begun to write is cut off, and the log goes on behind what was whole.
func TestTornTail(t *testing.T) {
	t.Parallel()
	for name, tail := range map[string]func(whole []byte) []byte{
		"a few bytes":          func([]byte) []byte { return []byte{0, 0, 0} },
		"half a batch":         func(whole []byte) []byte { return whole[:len(whole)/3/2] },
		"a batch but one byte": func(whole []byte) []byte { return whole[:batchSize(whole)-1] },
		"zeros":                func([]byte) []byte { return make([]byte, 4096) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, segment := filled(t)
			edit(t, segment, func(b []byte) []byte { return append(b, tail(b)...) })
			b := open(t, broker.Config{Dir: dir})
			log := eventlogtest.Open(t, eventlog.Config{Brokers: []string{b.Addr()}})
			require.NoError(t, log.Append(eventlogtest.Context(t), events("later ", 1)))
			items := eventlogtest.Read(t, log, nil, 31)
			require.Equal(t, "later 0", items[30].ID)
			require.EqualValues(t, 30, items[30].Position.Offset)
		})
	}
}

func batchSize(b []byte) int { return 12 + int(binary.BigEndian.Uint32(b[8:])) }

// A damaged place that is not the end of what was being written would cost acknowledged items: it is refused.
func TestDamaged(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		damage func(t *testing.T, dir, segment string)
		want   string
	}{
		"a byte of the first batch": {func(t *testing.T, _, segment string) {
			edit(t, segment, func(b []byte) []byte { b[100] ^= 1; return b })
		}, "partition 0 of ingest-prime of the embedded log is damaged: in SEGMENT at byte 0 the checksum is wrong, so records from offset 0 on cannot be trusted; " +
			"restore the directory from a backup, or give those records up: cut the file to 0 bytes and delete the .idx file beside it"},
		"a byte of the last batch": {func(t *testing.T, _, segment string) {
			edit(t, segment, func(b []byte) []byte { b[len(b)-1] ^= 1; return b })
		}, "the checksum is wrong, so records from offset "},
		"the length of a batch": {func(t *testing.T, _, segment string) {
			edit(t, segment, func(b []byte) []byte { b[8] ^= 0x20; return b })
		}, "at byte 0 a batch is not whole"},
		"the last batch is gone": {func(t *testing.T, _, segment string) {
			edit(t, segment, func(b []byte) []byte { return b[:batchSize(b)] })
		}, "the file ends after 1 batches where"},
		"the segment is gone": {func(t *testing.T, _, segment string) {
			require.NoError(t, os.Remove(segment))
		}, "file 0.dat is missing"},
		"meta.json is gone": {func(t *testing.T, dir, _ string) {
			require.NoError(t, os.Remove(filepath.Join(dir, "meta.json")))
		}, "no meta.json"},
		"topics.json is gone": {func(t *testing.T, dir, _ string) {
			require.NoError(t, os.Remove(filepath.Join(dir, "topics.json")))
		}, "topics.json is missing"},
		"topics.json is not JSON": {func(t *testing.T, dir, _ string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "topics.json"), []byte("{"), 0o644))
		}, "topics.json"},
		"a newer version": {func(t *testing.T, dir, _ string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "meta.json"), []byte(`{"version":99}`), 0o644))
		}, "version 99"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, segment := filled(t)
			test.damage(t, dir, segment)
			_, err := broker.Open(broker.Config{Dir: dir})
			require.ErrorContains(t, err, strings.ReplaceAll(test.want, "SEGMENT", segment))
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

// What is before a cut goes from the disk, and offsets go on, also after a crash.
func TestCutIsGoneFromDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, broker.Config{Dir: dir})
	log := eventlogtest.Open(t, eventlog.Config{Brokers: []string{b.Addr()}})
	require.NoError(t, log.Append(t.Context(), events("old", 100)))
	segments := func() map[string][]byte {
		files := map[string][]byte{}
		names, err := filepath.Glob(filepath.Join(dir, "partitions", "ingest-prime-*", "*.dat"))
		require.NoError(t, err)
		for _, name := range names {
			files[name], err = os.ReadFile(name)
			require.NoError(t, err)
		}
		return files
	}
	before := segments()
	require.NotEmpty(t, before)
	at, err := log.Cut(t.Context())
	require.NoError(t, err)
	require.NoError(t, log.DeleteBefore(t.Context(), at))
	for name, content := range segments() {
		require.NotContains(t, before, name)
		require.Less(t, len(content), 1000, "more than the mark is left")
	}
	for range 2 {
		crashed := copyDir(t, dir) // as it is on the disk while the broker runs
		again := eventlogtest.Open(t, eventlog.Config{Brokers: []string{open(t, broker.Config{Dir: crashed}).Addr()}})
		starts, err := again.Starts(t.Context())
		require.NoError(t, err)
		require.Equal(t, at, starts)
		require.NoError(t, again.Append(t.Context(), events("new", 10)))
		require.Len(t, eventlogtest.Read(t, again, at, 10+len(at)), 10+len(at))
		require.NoError(t, b.Close()) // the second time after a clean stop
	}
}

// A broker that is killed while it deletes what is before a cut has removed a file, and not yet the index beside it.
func TestCutIsInterrupted(t *testing.T) {
	t.Parallel()
	dir, segment := filled(t)
	name := strings.TrimSuffix(segment, "dat") + "idx"
	index, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NotEmpty(t, index)
	b := open(t, broker.Config{Dir: dir})
	log := eventlogtest.Open(t, eventlog.Config{Brokers: []string{b.Addr()}})
	at, err := log.Cut(t.Context())
	require.NoError(t, err)
	require.NoError(t, log.DeleteBefore(t.Context(), at))
	require.NoError(t, b.Close())
	require.NoFileExists(t, segment)
	require.NoError(t, os.WriteFile(name, index, 0o600))
	b = open(t, broker.Config{Dir: dir})
	again := eventlogtest.Open(t, eventlog.Config{Brokers: []string{b.Addr()}})
	require.Len(t, eventlogtest.Read(t, again, at, len(at)), len(at))
	require.NoFileExists(t, name)
}

// The way out that the refusal names works.
func TestDamagedGivenUp(t *testing.T) {
	t.Parallel()
	dir, segment := filled(t)
	var first int
	edit(t, segment, func(b []byte) []byte {
		first = batchSize(b)
		b[first+80] ^= 1
		return b
	})
	_, err := broker.Open(broker.Config{Dir: dir})
	require.ErrorContains(t, err, "cut the file to "+strconv.Itoa(first)+" bytes")
	require.NoError(t, os.Truncate(segment, int64(first)))
	require.NoError(t, os.Remove(strings.TrimSuffix(segment, "dat")+"idx"))
	b := open(t, broker.Config{Dir: dir})
	log := eventlogtest.Open(t, eventlog.Config{Brokers: []string{b.Addr()}})
	left := total(t, log)
	require.Less(t, left, 30)
	require.Len(t, eventlogtest.Read(t, log, nil, left), left)
}

func TestRefused(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	inUse := t.TempDir()
	open(t, broker.Config{Dir: inUse})
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	foreign := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(foreign, "holiday.jpg"), nil, 0o644))

	for name, test := range map[string]struct {
		cfg  broker.Config
		want string
	}{
		"no directory":     {broker.Config{}, "embedded log has no directory"},
		"port taken":       {broker.Config{Dir: t.TempDir(), Listen: taken.Addr().String()}, "embedded log cannot listen on " + taken.Addr().String() + ": the port is taken"},
		"no such address":  {broker.Config{Dir: t.TempDir(), Listen: "192.0.2.1:0"}, "embedded log cannot listen: "},
		"every address":    {broker.Config{Dir: t.TempDir(), Listen: "0.0.0.0:9092"}, "clients are told this address"},
		"no host":          {broker.Config{Dir: t.TempDir(), Listen: ":9092"}, "clients are told this address"},
		"no port":          {broker.Config{Dir: t.TempDir(), Listen: "localhost"}, "missing port"},
		"in use":           {broker.Config{Dir: inUse}, "embedded log in " + inUse + " is in use by another process"},
		"a file":           {broker.Config{Dir: file}, "embedded log cannot have its directory: mkdir " + file},
		"something else's": {broker.Config{Dir: foreign}, foreign + " holds holiday.jpg but no meta.json"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := broker.Open(test.cfg)
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestReadOnlyDirectory(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root may write to a read-only directory; run the tests as another user")
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o555))
	_, err := broker.Open(broker.Config{Dir: dir})
	require.ErrorContains(t, err, "embedded log cannot write to its directory: open "+dir)
}

// A start that was killed before it had written anything leaves temporary files only.
func TestKilledAtFirstStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "meta.json.tmp"), []byte("{"), 0o644))
	open(t, broker.Config{Dir: dir})
}

// Producers from before a restart, plain and transactional, go on after it.
func TestProducersAfterRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, broker.Config{Dir: dir})
	addr := b.Addr()
	log := eventlogtest.Open(t, eventlog.Config{Brokers: []string{addr}, Partitions: 1})
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic(log.Topic()), kgo.TransactionalID("tx"))
	require.NoError(t, err)
	defer client.Close()
	ctx := eventlogtest.Context(t)
	transact := func(value string, end kgo.TransactionEndTry) {
		t.Helper()
		require.NoError(t, client.BeginTransaction())
		require.NoError(t, client.ProduceSync(ctx, &kgo.Record{Value: []byte(value)}).FirstErr())
		require.NoError(t, client.EndTransaction(ctx, end))
	}
	transact("before", kgo.TryCommit)
	require.NoError(t, log.Append(ctx, events("before ", 1)))
	require.NoError(t, b.Close())
	open(t, broker.Config{Dir: dir, Listen: addr})

	transact("aborted", kgo.TryAbort)
	transact("after", kgo.TryCommit)
	require.NoError(t, log.Append(ctx, events("after ", 1)))
	var values []string
	for _, item := range eventlogtest.Read(t, log, nil, 4) {
		values = append(values, string(item.Bytes))
	}
	require.Equal(t, []string{"before", "value of before 0", "after", "value of after 0"}, values)
}

// Nothing expires unless its topic says so, however old: here retention runs all the time instead of once an hour.
func TestNothingExpires(t *testing.T) {
	t.Parallel()
	b := open(t, broker.Config{Dir: t.TempDir()})
	ctx := eventlogtest.Context(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()))
	require.NoError(t, err)
	defer client.Close()
	admin := kadm.NewClient(client)
	altered, err := admin.AlterBrokerConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "log.cleaner.backoff.ms", Value: kadm.StringPtr("10")}})
	require.NoError(t, err)
	require.NoError(t, altered[0].Err)
	log := eventlogtest.Open(t, eventlog.Config{Brokers: []string{b.Addr()}, Partitions: 1})
	_, err = admin.CreateTopic(ctx, 1, -1, nil, "other")
	require.NoError(t, err)
	_, err = admin.CreateTopic(ctx, 1, -1, map[string]*string{"retention.ms": kadm.StringPtr("1000")}, "expiring")
	require.NoError(t, err)
	for _, topic := range []string{log.Topic(), "other", "expiring"} {
		ancient := &kgo.Record{Topic: topic, Timestamp: time.Date(2018, 8, 16, 0, 0, 0, 0, time.UTC), Value: []byte("ancient")}
		require.NoError(t, client.ProduceSync(ctx, ancient).FirstErr())
	}
	start := func(topic string) int64 {
		listed, err := admin.ListStartOffsets(ctx, topic)
		require.NoError(t, err)
		o, ok := listed.Lookup(topic, 0)
		require.True(t, ok)
		return o.Offset
	}
	require.Eventually(t, func() bool { return start("expiring") == 1 }, time.Minute, 10*time.Millisecond)
	require.Eventually(t, func() bool { // once more, so that a whole round over all topics lies behind us
		require.NoError(t, client.ProduceSync(ctx, &kgo.Record{Topic: "expiring", Timestamp: time.Unix(0, 0)}).FirstErr())
		return start("expiring") > 1
	}, time.Minute, 20*time.Millisecond)
	require.Zero(t, start(log.Topic()))
	require.Zero(t, start("other"))
}

// Java's admin client looks at the versions that the broker offers, and fails on those newer than Kafka 3.4's.
func TestOffersOldVersions(t *testing.T) {
	t.Parallel()
	b := open(t, broker.Config{Dir: t.TempDir()})
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()))
	require.NoError(t, err)
	defer client.Close()
	resp, err := kmsg.NewPtrApiVersionsRequest().RequestWith(eventlogtest.Context(t), client)
	require.NoError(t, err)
	require.NotEmpty(t, resp.ApiKeys)
	for _, key := range resp.ApiKeys {
		if key.ApiKey == int16(kmsg.DescribeCluster) {
			require.EqualValues(t, 0, key.MaxVersion)
		}
		require.LessOrEqual(t, key.ApiKey, int16(kmsg.AllocateProducerIDs), "an API that Kafka 3.4 does not have")
	}
}
