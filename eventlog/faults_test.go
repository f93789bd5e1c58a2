package eventlog_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/eventlog"
	"millrace/eventlog/eventlogtest"
	"millrace/record"
)

// TestBrokerFaults appends to and reads from three brokers whose partitions change their leaders, whose connections break before and
// after an answer, and which answer late, at random moments: what was appended is there once, and read once, in order.
// MILLRACE_SCHEDULES says how many runs (default 3); MILLRACE_SEED runs one.
func TestBrokerFaults(t *testing.T) {
	t.Parallel()
	first, n := uint64(0), uint64(3)
	for name, v := range map[string]*uint64{"MILLRACE_SCHEDULES": &n, "MILLRACE_SEED": &first} {
		if s := os.Getenv(name); s != "" {
			var err error
			*v, err = strconv.ParseUint(s, 10, 64)
			require.NoError(t, err, name)
		}
	}
	if os.Getenv("MILLRACE_SEED") != "" {
		n = 1
	}
	n = min(n, 200) // a run takes a second, most of it waiting
	for seed := first; seed < first+n; seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("replay: MILLRACE_SEED=%d go test ./eventlog -run 'TestBrokerFaults$'", seed)
				}
			})
			brokerFaults(t, rand.New(rand.NewPCG(seed, 0)))
		})
	}
}

// A topic that is not there is made also when the cluster could not say so at first.
func TestTopicIsMadeAfterAFault(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster()
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	fault := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "ingest-prime", Err: kerr.LeaderNotAvailable})
	log, err := eventlog.Open(t.Context(), eventlog.Config{Brokers: cluster.ListenAddrs()})
	require.NoError(t, err)
	require.NoError(t, log.Close())
	require.Equal(t, 1, fault.Hits())
}

func brokerFaults(t *testing.T, rng *rand.Rand) {
	t.Helper()
	net := eventlogtest.NewFlaky()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.ListenFn(net.Listen))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	log, err := eventlog.Open(ctx, eventlog.Config{Brokers: cluster.ListenAddrs()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, log.Close()) })
	reader, err := log.Read(ctx, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reader.Close()) })

	const batches, size = 25, 8
	seen, next := map[string]int{}, map[int32]int64{}
	done := make(chan error, 1)
	go func() {
		for len(seen) < batches*size {
			items, err := reader.Poll(ctx, 100, 1<<20)
			if err != nil {
				done <- err
				return
			}
			for _, it := range items {
				if p := it.Position; p.Offset != next[p.Partition] {
					done <- fmt.Errorf("partition %d: offset %d comes after %d", p.Partition, p.Offset, next[p.Partition]-1)
					return
				}
				next[it.Position.Partition]++
				seen[it.ID]++
			}
		}
		done <- nil
	}()
	for b := range batches {
		switch rng.IntN(4) {
		case 0:
			cluster.ShufflePartitionLeaders()
		case 1:
			net.Set(rng.IntN(6), 0) // an answer is lost, or the connection before it
		case 2:
			net.Set(-1, time.Duration(rng.IntN(40))*time.Millisecond)
		}
		var items []record.Item
		for i := range size {
			items = append(items, record.Item{
				Account: "a", Env: "e", SourceType: "LMS", Kind: record.Event, ID: fmt.Sprintf("%d-%d", b, i), ReceivedAt: time.Unix(1, 0), Bytes: []byte("{}"),
			})
		}
		require.NoError(t, log.Append(ctx, items), "batch %d", b)
	}
	require.NoError(t, <-done)
	for id, n := range seen {
		require.Equal(t, 1, n, "item %s", id)
	}
	ends, err := log.Ends(ctx)
	require.NoError(t, err)
	total := int64(0)
	for _, end := range ends {
		total += end
	}
	require.EqualValues(t, batches*size, total)
}
