package eventlog

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/record"
)

// near is how many records between two that are wanted are read rather than skipped.
const near = 1000

// Items returns the items at the given positions, in order of partition and offset; one that is given twice is returned once. A position
// that the log does not have, or not any more, is a *GapError.
func (l *Log) Items(ctx context.Context, positions []record.Position) (items []record.Item, err error) {
	for _, p := range positions {
		if p.Topic != l.cfg.Topic {
			return nil, fmt.Errorf("read record %d of partition %d of %s: the log's topic is %s", p.Offset, p.Partition, p.Topic, l.cfg.Topic)
		}
	}
	positions = slices.Clone(positions)
	slices.SortFunc(positions, func(a, b record.Position) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	positions = slices.Compact(positions)
	bounds, err := l.bounds(ctx, l.cfg.Topic)
	if err != nil {
		return nil, err
	}
	var d decoder
	for len(positions) > 0 {
		first := positions[0]
		n := 1
		for n < len(positions) && positions[n].Partition == first.Partition && positions[n].Offset-positions[n-1].Offset <= near {
			n++
		}
		last := positions[n-1]
		at := place{first.Topic, first.Partition}
		if b := bounds[at]; first.Offset < b.start || last.Offset >= b.end {
			return nil, &GapError{Topic: first.Topic, Partition: first.Partition, Want: first.Offset, Start: b.start, End: b.end}
		}
		run := positions[:n]
		err := l.scan(ctx, kgo.ReadCommitted(), map[place]bound{at: {first.Offset, last.Offset + 1}}, func(rec *kgo.Record) error {
			if len(run) > 0 && rec.Offset == run[0].Offset {
				items = append(items, d.item(rec))
				run = run[1:]
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		positions = positions[n:]
	}
	return items, nil
}
