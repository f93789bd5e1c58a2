package engine

import (
	"context"
	"maps"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace/plan"
	"millrace/record"
)

const (
	// parseChunk is how many records one call of Plan.Read gets. It is fixed so that the order of what Read emits does
	// not depend on the number of workers.
	parseChunk = 256

	// quiet is how long the source may bring nothing before the epoch that is gathering is closed.
	quiet = 5 * time.Millisecond
)

// input is what the source contributes to one epoch.
type input struct {
	records int
	bytes   int
	skipped int64
	seeding *plan.Seeding   // after the last record of the lake; nil when none was read
	read    []*plan.Output  // of Plan.Read, by chunk, in order
	offsets plan.Offsets    // by partition, after the last record
	newest  map[int32]int64 // by partition, the newest event time that Read emitted, µs
	last    map[int32]int64 // by partition, when the last record was received, µs
}

func newInput() *input {
	return &input{offsets: plan.Offsets{}, newest: map[int32]int64{}, last: map[int32]int64{}}
}

// feed polls the source and parses what it brings into the input of the next epoch, while the last one is processed.
type feed struct {
	c     Config
	types map[string]bool // source types read; nil for all
	out   chan *input
	room  func() (bytes int64, changed <-chan struct{}) // of the outbox
}

func newFeed(c Config, room func() (int64, <-chan struct{})) *feed {
	f := &feed{c: c, out: make(chan *input), room: room}
	if len(c.Plan.SourceTypes) > 0 {
		f.types = map[string]bool{}
		for _, t := range c.Plan.SourceTypes {
			f.types[t] = true
		}
	}
	return f
}

// run reads from the given offsets, which it hands over, until ctx ends, which is not an error.
func (f *feed) run(ctx context.Context, from plan.Position) error {
	reader, err := f.c.Source.Read(ctx, from)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer reader.Close()
	polled := make(chan plan.Batch)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.poll(gctx, reader, polled) })
	g.Go(func() error { return f.gather(gctx, polled) })
	if err := g.Wait(); ctx.Err() == nil {
		return err
	}
	return nil
}

func (f *feed) poll(ctx context.Context, r Reader, polled chan<- plan.Batch) error {
	// A quarter of an epoch at a time, so that parsing starts before the epoch is all there.
	records, size := max(f.c.MaxEpochRecords/4, 1), max(f.c.MaxEpochBytes/4, 1)
	for {
		for {
			waiting, changed := f.room()
			if waiting <= f.c.OutboxLimit {
				break
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return nil
			}
		}
		b, err := r.Poll(ctx, records, size)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if len(b.Items) == 0 && b.Seeding == nil && b.From == nil {
			continue
		}
		select {
		case polled <- b:
		case <-ctx.Done():
			return nil
		}
	}
}

// gather parses records into an input and offers it once it is closed: when the source is quiet, or MaxEpoch has
// passed, or it is full. A closed input that is not full still takes what comes until the engine takes it.
func (f *feed) gather(ctx context.Context, polled <-chan plan.Batch) error {
	var (
		in       *input
		deadline = time.NewTimer(time.Hour)
		idle     = time.NewTimer(time.Hour)
		closed   bool
	)
	defer deadline.Stop()
	defer idle.Stop()
	for {
		from, out := polled, f.out
		if in != nil && (in.records >= f.c.MaxEpochRecords || in.bytes >= f.c.MaxEpochBytes) {
			from, closed = nil, true
		}
		if !closed {
			out = nil
		}
		select {
		case b := <-from:
			if in == nil {
				in, closed = newInput(), false
				deadline.Reset(f.c.MaxEpoch)
			}
			idle.Reset(min(quiet, f.c.MaxEpoch))
			if err := f.parse(in, b); err != nil {
				return err
			}
		case out <- in:
			in, closed = nil, false
		case <-idle.C:
			closed = in != nil
		case <-deadline.C:
			closed = in != nil
		case <-ctx.Done():
			return nil
		}
	}
}

// parse adds a batch to in. Chunks are of one partition, so that the newest event time of each partition is known.
//
// Records of the lake come in the order of its files: they say nothing of how far the log is read, nor of how old the next record will be.
func (f *feed) parse(in *input, b plan.Batch) error {
	items := b.Items
	in.records += len(items)
	maps.Copy(in.offsets, b.From)
	if b.Seeding != nil {
		in.seeding = b.Seeding
	}
	count := make(map[int32]int)
	var order []int32 // partitions, as they come
	for i := range items {
		it := &items[i]
		in.bytes += len(it.Bytes)
		p := it.Position.Partition
		if b.Seeding == nil {
			in.offsets[p] = it.Position.Offset + 1
			in.last[p] = it.ReceivedAt.UnixMicro()
		}
		if !f.reads(it) {
			in.skipped++
			continue
		}
		if count[p]++; count[p] == 1 {
			order = append(order, p)
		}
	}
	kept := make(map[int32][]record.Item, len(order))
	for _, p := range order {
		kept[p] = make([]record.Item, 0, count[p])
	}
	for i := range items {
		if p := items[i].Position.Partition; f.reads(&items[i]) {
			kept[p] = append(kept[p], items[i])
		}
	}
	type chunk struct {
		partition int32
		items     []record.Item
	}
	var chunks []chunk
	for _, p := range order {
		for rest := kept[p]; len(rest) > 0; {
			n := min(len(rest), parseChunk)
			chunks = append(chunks, chunk{p, rest[:n]})
			rest = rest[n:]
		}
	}
	outs := make([]*plan.Output, len(chunks))
	newest := make([]int64, len(chunks))
	err := parallel(len(chunks), f.c.Workers, func(i int) error {
		outs[i] = plan.NewOutput(f.c.Plan)
		f.c.Plan.Read(chunks[i].items, outs[i])
		for _, sent := range outs[i].Sent {
			for j := range sent {
				newest[i] = max(newest[i], sent[j].Time)
			}
		}
		for j := range outs[i].Rows {
			newest[i] = max(newest[i], outs[i].Rows[j].EventTime)
		}
		return nil
	})
	if err != nil {
		return err
	}
	in.read = append(in.read, outs...)
	for i, c := range chunks {
		if newest[i] != 0 && b.Seeding == nil {
			in.newest[c.partition] = max(in.newest[c.partition], newest[i])
		}
	}
	return nil
}

func (f *feed) reads(it *record.Item) bool { return f.types == nil || f.types[it.SourceType] }
