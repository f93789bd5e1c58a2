package millrace_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace"
	"millrace/engine"
	"millrace/eventlog"
	"millrace/eventlog/eventlogtest"
	"millrace/lake"
	"millrace/record"
)

// brokerErrors are what a healthy cluster answers now and then, by request. Those that come after the work was done are among them.
var brokerErrors = map[kmsg.Key][]*kerr.Error{
	kmsg.Produce: {
		kerr.NotLeaderForPartition, kerr.RequestTimedOut, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.KafkaStorageError,
		kerr.LeaderNotAvailable, kerr.UnknownTopicOrPartition,
	},
	kmsg.Fetch:              {kerr.NotLeaderForPartition, kerr.KafkaStorageError, kerr.UnknownLeaderEpoch, kerr.FencedLeaderEpoch, kerr.UnknownTopicOrPartition},
	kmsg.ListOffsets:        {kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.OffsetNotAvailable, kerr.KafkaStorageError},
	kmsg.Metadata:           {kerr.LeaderNotAvailable},
	kmsg.FindCoordinator:    {kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress},
	kmsg.InitProducerID:     {kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.ConcurrentTransactions},
	kmsg.AddPartitionsToTxn: {kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.ConcurrentTransactions},
	kmsg.EndTxn:             {kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.ConcurrentTransactions},
}

// TestJobWithBrokerFaults runs a whole job, from log to lake and table topic, on three brokers that answer any request with an error at random moments, also
// after they have done the work, and whose partitions and coordinators move and connections break: every item is a row in both, once.
// MILLRACE_SCHEDULES says how many runs (default 4); MILLRACE_SEED runs one.
func TestJobWithBrokerFaults(t *testing.T) {
	t.Parallel()
	first, n := uint64(0), uint64(4)
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
	n = min(n, 200) // a run takes seconds, most of them waiting
	for seed := first; seed < first+n; seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("replay: MILLRACE_SEED=%d go test -count=1 -run '^TestJobWithBrokerFaults$' .", seed)
				}
			})
			jobWithBrokerFaults(t, rand.New(rand.NewPCG(seed, 0)))
		})
	}
}

func jobWithBrokerFaults(t *testing.T, rng *rand.Rand) {
	t.Helper()
	net := eventlogtest.NewFlaky()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.ListenFn(net.Listen))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	s := &stage{dir: t.TempDir()}
	s.log, err = eventlog.Open(t.Context(), eventlog.Config{Brokers: cluster.ListenAddrs()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.log.Close()) })
	s.lake, err = lake.Open(t.Context(), lake.Config{Dir: filepath.Join(s.dir, "lake")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.lake.Close()) })

	keys := slices.Sorted(maps.Keys(brokerErrors))
	trouble := func() *kfake.FaultHandle {
		var faults []kfake.Fault
		for range 1 + rng.IntN(4) {
			key := keys[rng.IntN(len(keys))]
			answers := brokerErrors[key]
			faults = append(faults, kfake.Fault{Keys: []kmsg.Key{key}, Err: answers[rng.IntN(len(answers))], Count: 1 + rng.IntN(3), TopLevel: rng.IntN(4) == 0})
		}
		switch rng.IntN(6) {
		case 0:
			cluster.ShufflePartitionLeaders()
		case 1:
			cluster.RehashCoordinators()
		case 2, 3:
			net.Set(rng.IntN(12), 0) // an answer is lost, with its connection
		}
		return cluster.Fault(faults...)
	}
	begin := trouble() // from the job's first request on
	p := pages(t, 2)
	j, err := millrace.OpenJob(t.Context(), millrace.JobConfig{
		Instance: millrace.Instance{Program: p.App, Account: "system", Env: "system", DataVersion: millrace.Unversioned},
		Plan:     p, Dir: filepath.Join(s.dir, "job"), Log: s.log, Lake: s.lake, TableTopics: true, Flush: 20 * time.Millisecond,
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- j.Run(ctx) }()
	const batches, size = 20, 10
	var names []string
	handles := []*kfake.FaultHandle{begin}
	for b := range batches {
		handles = append(handles, trouble())
		var items []record.Item
		for i := range size {
			name := fmt.Sprintf("page %d-%d", b, i)
			names = append(names, name)
			items = append(items, visited(b*size+i, name))
		}
		require.NoError(t, s.log.Append(ctx, items), "batch %d", b)
	}
	net.Set(-1, 0)
	hits := 0
	for _, h := range handles {
		hits += h.Hits()
		h.Remove()
	}
	require.Positive(t, hits, "no request was refused")
	read := func(p engine.Progress) bool {
		for _, sink := range p.Sinks {
			if sink.PendingEpochs > 0 {
				return false
			}
		}
		return p.Read == batches*size
	}
	require.Eventually(t, func() bool { return read(j.Progress()) || len(ran) > 0 }, time.Minute, 10*time.Millisecond)
	stop()
	require.NoError(t, <-ran)
	require.NoError(t, j.Close())
	require.ElementsMatch(t, names, slices.Collect(maps.Keys(s.rows(t, "page", "name"))))
	require.Len(t, s.told(t, "page"), len(names))
}
