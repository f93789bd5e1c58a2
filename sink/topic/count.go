package topic

import (
	"context"

	"github.com/zeebo/xxh3"

	"millrace/eventlog"
)

// Totals are sums over a table's topic, as one who reads committed messages sees it.
type Totals struct {
	Rows   int64 // ids whose last message is no tombstone
	RevSum int64 // of their revisions

	// Repeated counts messages that say what an earlier one of the same row and epoch has said: it is 0 unless an epoch was
	// published twice.
	Repeated int64
}

// Count reads a table's topic through.
func Count(ctx context.Context, log *eventlog.Log, namespace, table string) (t Totals, err error) {
	name := Topic(namespace, table)
	partitions, err := log.PartitionsOf(ctx, name)
	if err != nil {
		return t, err
	}
	for _, p := range partitions {
		revs := map[xxh3.Uint128]int64{} // by key: of the last message
		seen := map[xxh3.Uint128]struct{}{}
		for m, err := range log.Messages(ctx, name, p) {
			if err != nil {
				return t, err
			}
			key := xxh3.Hash128(m.Key)
			told := xxh3.HashString128(string(m.Key) + " " + m.Header(headerLineage) + " " + m.Header(headerEpoch) + " " + m.Header(headerRewind))
			if _, ok := seen[told]; ok {
				t.Repeated++
			}
			seen[told] = struct{}{}
			if m.Value == nil {
				delete(revs, key)
				continue
			}
			revs[key] = revOf(&m)
		}
		t.Rows += int64(len(revs))
		for _, rev := range revs {
			t.RevSum += rev
		}
	}
	return t, nil
}
