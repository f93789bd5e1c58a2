package bench

import (
	"context"
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"millrace/engine"
	"millrace/plan"
	"millrace/record"
)

// The tenant of all records.
const (
	account    = "deepthought"
	env        = "deepthought3"
	sourceType = "EDGENUITY_LMS"
	sensor     = "https://lms.district.example/sensor"
)

func item(bytes []byte, m meta, offset int64) record.Item {
	sent := time.UnixMicro(m.at).UTC().Add(time.Second)
	return record.Item{
		Account: account, Env: env, SourceType: sourceType, Sensor: sensor, Kind: m.kind, ID: string(bytes[len(head) : len(head)+m.id]),
		SendTime: sent, ReceivedAt: sent, Position: record.Position{Topic: "ingest-prime", Offset: offset}, Bytes: bytes,
	}
}

// window is records that were made before they are measured. Their bytes lie outside Go's heap: on it they would make the collector
// run less often than it does beside a log, which holds a batch at a time.
type window struct {
	from   int64 // offset of the first record
	memory []byte
	ends   []int // of the records in memory
	metas  []meta
	events int
}

// newWindow makes the next n records of l. Close frees them.
func newWindow(l *load, n int, from int64) (*window, error) {
	memory, err := syscall.Mmap(-1, 0, n*2048, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("get memory for %d records: %w", n, err)
	}
	w := &window{from: from, memory: memory, ends: make([]int, 0, n), metas: make([]meta, 0, n)}
	out := memory[:0]
	for range n {
		var m meta
		if out, m = l.next(out); m.kind == record.Event {
			w.events++
		}
		w.ends, w.metas = append(w.ends, len(out)), append(w.metas, m)
	}
	if unsafe.SliceData(out) != unsafe.SliceData(memory) {
		return nil, fmt.Errorf("%d records take more than %d bytes", n, len(memory))
	}
	return w, nil
}

func (w *window) close() error { return syscall.Munmap(w.memory) }

func (w *window) len() int { return len(w.ends) }

func (w *window) bytes(i int) []byte {
	begin := 0
	if i > 0 {
		begin = w.ends[i-1]
	}
	return w.memory[begin:w.ends[i]:w.ends[i]]
}

// items are the bytes of records i to j.
func (w *window) items(i, j int) [][]byte {
	out := make([][]byte, 0, j-i)
	for ; i < j; i++ {
		out = append(out, w.bytes(i))
	}
	return out
}

// Ends implements engine.Source.
func (w *window) Ends(context.Context) (plan.Offsets, error) {
	return plan.Offsets{0: w.from + int64(w.len())}, nil
}

// Read implements engine.Source.
func (w *window) Read(_ context.Context, from plan.Position) (engine.Reader, error) {
	return &windowReader{w, int(from.Offsets[0] - w.from)}, nil
}

type windowReader struct {
	w  *window
	at int
}

func (r *windowReader) Poll(ctx context.Context, maxRecords, maxBytes int) (plan.Batch, error) {
	n, size := 0, 0
	for r.at+n < r.w.len() && n < maxRecords && size < maxBytes {
		size += len(r.w.bytes(r.at + n))
		n++
	}
	if n == 0 {
		<-ctx.Done()
		return plan.Batch{}, ctx.Err()
	}
	items := make([]record.Item, n)
	for i := range items {
		items[i] = item(r.w.bytes(r.at), r.w.metas[r.at], r.w.from+int64(r.at))
		r.at++
	}
	return plan.Batch{Items: items}, nil
}

func (r *windowReader) Close() {}

// descriptions is the source of all entities of a load, made as they are read.
type descriptions struct{ *load }

// Ends implements engine.Source.
func (d descriptions) Ends(context.Context) (plan.Offsets, error) {
	return plan.Offsets{0: int64(d.keys)}, nil
}

// Read implements engine.Source.
func (d descriptions) Read(_ context.Context, from plan.Position) (engine.Reader, error) {
	return &descriptionReader{d.load, int(from.Offsets[0])}, nil
}

type descriptionReader struct {
	l  *load
	at int
}

func (r *descriptionReader) Poll(ctx context.Context, maxRecords, maxBytes int) (plan.Batch, error) {
	var items []record.Item
	for size := 0; r.at < r.l.keys && len(items) < maxRecords && size < maxBytes; r.at++ {
		b, m := r.l.describe(nil, r.at)
		items = append(items, item(b, m, int64(r.at)))
		size += len(b)
	}
	if len(items) == 0 {
		<-ctx.Done()
		return plan.Batch{}, ctx.Err()
	}
	return plan.Batch{Items: items}, nil
}

func (r *descriptionReader) Close() {}
