package broker_test

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"millrace/eventlog"
	"millrace/eventlog/broker"
	"millrace/eventlog/eventlogtest"
)

// copyParts makes a broker's directory of a snapshot.
func copyParts(t *testing.T, parts []broker.Part, from string) string {
	t.Helper()
	dir := t.TempDir()
	for _, p := range parts {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, p.Name)), 0o755))
		in, err := os.Open(filepath.Join(from, p.Name))
		require.NoError(t, err)
		out, err := os.Create(filepath.Join(dir, p.Name))
		require.NoError(t, err)
		_, err = io.CopyN(out, in, p.Bytes)
		require.NoError(t, err, p.Name)
		require.NoError(t, in.Close())
		require.NoError(t, out.Close())
	}
	return dir
}

// Snapshots of a log that is written to have every record that was acknowledged before, once, and logs made of them go on.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := eventlogtest.Open(t, eventlog.Config{Brokers: []string{open(t, broker.Config{Dir: dir}).Addr()}})
	var mu sync.Mutex
	acknowledged := map[string]int{}
	stop := make(chan struct{})
	g, ctx := errgroup.WithContext(eventlogtest.Context(t))
	for c := range 8 {
		g.Go(func() error {
			for n := 0; ; n++ {
				items := events(fmt.Sprintf("caller %d append %d item ", c, n), 5)
				if err := log.Append(ctx, items); err != nil {
					return err
				}
				mu.Lock()
				maps.Copy(acknowledged, ids(items))
				mu.Unlock()
				select {
				case <-stop:
					return nil
				default:
				}
			}
		})
	}
	for round := range 5 {
		for want := (round + 1) * 100; ; {
			mu.Lock()
			n := len(acknowledged)
			mu.Unlock()
			if n >= want || ctx.Err() != nil {
				break
			}
			require.NoError(t, log.Append(ctx, events(fmt.Sprint("round ", round, " with ", n, " item "), 1)))
		}
		mu.Lock()
		before := maps.Clone(acknowledged)
		mu.Unlock()
		links := filepath.Join(t.TempDir(), "links")
		parts, err := broker.Snapshot(dir, links)
		require.NoError(t, err)
		made := copyParts(t, parts, links)
		for range 2 { // as it was copied, and after a clean stop
			b := open(t, broker.Config{Dir: made})
			again := eventlogtest.Open(t, eventlog.Config{Brokers: []string{b.Addr()}})
			found := ids(eventlogtest.Read(t, again, nil, total(t, again)))
			for id := range before {
				require.Equal(t, 1, found[id], "%s was acknowledged before and is there %d times", id, found[id])
			}
			require.NoError(t, again.Append(eventlogtest.Context(t), events("later ", 1)))
			require.Equal(t, found["later 0"]+1, ids(eventlogtest.Read(t, again, nil, total(t, again)))["later 0"])
			require.NoError(t, b.Close())
		}
	}
	close(stop)
	require.NoError(t, g.Wait())
}

// transaction has a transaction of two records, and others that were committed before; finish commits it.
func transaction(t *testing.T, addr string) (finish func()) {
	t.Helper()
	ctx := eventlogtest.Context(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.TransactionalID("job"), kgo.DefaultProduceTopic("rows"))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	_, err = kadm.NewClient(client).CreateTopic(ctx, 1, 1, nil, "rows")
	require.NoError(t, err)
	produce := func(values ...string) {
		require.NoError(t, client.BeginTransaction())
		for _, v := range values {
			require.NoError(t, client.ProduceSync(ctx, kgo.StringRecord(v)).FirstErr())
		}
	}
	produce("a", "b")
	require.NoError(t, client.EndTransaction(ctx, kgo.TryCommit))
	produce("c", "d")
	return func() { require.NoError(t, client.EndTransaction(ctx, kgo.TryCommit)) }
}

// committed are the first n records of a topic that readers of what is committed see.
func committed(t *testing.T, addr string, n int) (values []string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics("rows"), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	require.NoError(t, err)
	defer client.Close()
	for len(values) < n {
		fetched := client.PollFetches(eventlogtest.Context(t))
		require.NoError(t, fetched.Err())
		fetched.EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	return values
}

// add commits a record.
func add(t *testing.T, addr, value string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic("rows"))
	require.NoError(t, err)
	defer client.Close()
	require.NoError(t, client.ProduceSync(eventlogtest.Context(t), kgo.StringRecord(value)).FirstErr())
}

// Of a transaction that was open at the moment nobody sees anything, whatever becomes of it afterwards.
func TestSnapshotInATransaction(t *testing.T) {
	t.Parallel()
	dir, links := t.TempDir(), filepath.Join(t.TempDir(), "links")
	finish := transaction(t, open(t, broker.Config{Dir: dir}).Addr())
	parts, err := broker.Snapshot(dir, links)
	require.NoError(t, err)
	finish()
	addr := open(t, broker.Config{Dir: copyParts(t, parts, links)}).Addr()
	add(t, addr, "e")
	require.Equal(t, []string{"a", "b", "e"}, committed(t, addr, 3))
}

// A broker that was killed between a batch and its index entry still knows that the batch is of a transaction, and of which batch later entries are.
func TestMissingIndexEntries(t *testing.T) {
	t.Parallel()
	for name, left := range map[string]int64{"the last": 4, "a part of the last": 4*15 + 7, "all": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			transaction(t, open(t, broker.Config{Dir: dir}).Addr())
			dir = copyDir(t, dir)
			index := filepath.Join(dir, "partitions", "rows-0", "0.idx")
			info, err := os.Stat(index)
			require.NoError(t, err)
			require.EqualValues(t, 5*15, info.Size(), "a, b, their end, c and d")
			require.NoError(t, os.Truncate(index, left))
			b := open(t, broker.Config{Dir: dir})
			add(t, b.Addr(), "e")
			require.Equal(t, []string{"a", "b", "e"}, committed(t, b.Addr(), 3))
			dir = copyDir(t, dir)
			addr := open(t, broker.Config{Dir: dir}).Addr()
			add(t, addr, "f")
			require.Equal(t, []string{"a", "b", "e", "f"}, committed(t, addr, 4))
		})
	}
}
