package engine_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/plan"
	"millrace/plan/plantest"
	"millrace/record"
	"millrace/sink"
)

// joins is a plan like an ETL app's with two joins, without the parsing: each event is joined with one of 20 thousand
// students and one of a thousand courses, and becomes a row.
func joins() *plan.Plan {
	p := plantest.Toy()
	const tagEvent, tagEntity = 1, 2
	const courseKey = len("urn:account:env:course:00000000")
	keyOf := func(dst []byte, kind string, n uint32) []byte {
		return fmt.Appendf(dst, "urn:account:env:%s:%08d", kind, n)
	}
	join := func(emit func(*plan.Output, []byte)) func(plan.Clock, []*plan.Key, *plan.Output) {
		return func(_ plan.Clock, keys []*plan.Key, out *plan.Output) {
			for _, k := range keys {
				for _, in := range k.Inputs {
					switch {
					case in.Tag == tagEntity:
						k.SetValue = in.Payload
						for _, waiting := range k.List {
							emit(out, waiting)
						}
						k.ReplaceList = k.List != nil
					case k.Value == nil && k.SetValue == nil:
						k.Append = append(k.Append, in.Payload)
					default:
						emit(out, in.Payload)
					}
				}
			}
		}
	}
	toCourse := func(out *plan.Output, payload []byte) {
		out.Send(1, plan.Element{Key: payload[:courseKey], Tag: tagEvent, Payload: payload})
	}
	toRow := func(out *plan.Output, payload []byte) {
		out.Row(plan.Row{ID: string(payload[courseKey:]), Rev: 1, First: true, Account: "a", Env: "e", Value: payload})
	}
	p.Read = func(items []record.Item, out *plan.Output) {
		for i := range items {
			b := items[i].Bytes
			student, course := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
			if items[i].Kind == record.Entity {
				if student != noStudent {
					out.Send(0, plan.Element{Key: keyOf(nil, "student", student), Tag: tagEntity, Payload: b})
				} else {
					out.Send(1, plan.Element{Key: keyOf(nil, "course", course), Tag: tagEntity, Payload: b})
				}
				continue
			}
			payload := append(keyOf(make([]byte, 0, 160), "course", course), items[i].ID...)
			out.Send(0, plan.Element{Key: keyOf(make([]byte, 0, 32), "student", student), Tag: tagEvent, Payload: payload[:len(payload):len(payload)]})
		}
	}
	p.Stages = []plan.Stage{
		{Name: "student", To: []int{1}, Keyed: join(toCourse), ListTags: []uint8{tagEntity}},
		{Name: "course", Keyed: join(toRow), ListTags: []uint8{tagEntity}},
	}
	p.ReadTo, p.Counters = []int{0, 1}, nil
	return p
}

// noStudent marks a course's entity.
const noStudent = 1 << 31

func joinItems(n int) []record.Item {
	items := make([]record.Item, n)
	for i := range items {
		b := make([]byte, 400)
		id := fmt.Sprintf("e%015d", i)
		kind := record.Event
		student, course := uint32(i*7919%20000), uint32(i*104729%1000)
		switch {
		case i%5 == 0 && i/5 < 20000:
			kind, student = record.Entity, uint32(i/5)
		case i%5 == 1 && i/5 < 1000:
			kind, student, course = record.Entity, noStudent, uint32(i/5)
		}
		binary.LittleEndian.PutUint32(b, student)
		binary.LittleEndian.PutUint32(b[4:], course)
		items[i] = record.Item{Kind: kind, SourceType: "TOY", ID: id, Bytes: b}
	}
	return items
}

// BenchmarkEngine runs a two-join plan over 100 thousand records on a real disk, from the source to a sink.
func BenchmarkEngine(b *testing.B) {
	const n = 100_000
	l := newLog()
	for chunk := joinItems(n); len(chunk) > 0; chunk = chunk[2000:] {
		l.append(0, chunk[:2000]...)
	}
	var used time.Duration
	for b.Loop() {
		began := cpu(b)
		e, err := engine.Open(b.Context(), engine.Config{
			Dir: b.TempDir(), Plan: joins(), Instance: "bench", Source: l, Sinks: []sink.Sink{forgetful{}},
		})
		require.NoError(b, err)
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error)
		go func() { done <- e.Run(ctx) }()
		for tick := time.NewTicker(time.Millisecond); e.Progress().Read < n; {
			select {
			case <-tick.C:
			case err := <-done:
				b.Fatal(err)
			}
		}
		cancel()
		require.NoError(b, <-done)
		require.NoError(b, e.Close())
		used += cpu(b) - began
		b.ReportMetric(float64(e.Progress().Epoch), "epochs")
		b.ReportMetric(float64(e.Progress().Rows), "rows")
	}
	b.ReportMetric(float64(used.Nanoseconds())/float64(b.N*n), "cpu-ns/record")
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "records/s")
}

// forgetful takes rows and keeps none.
type forgetful struct{}

func (forgetful) Name() string                                         { return "forgetful" }
func (forgetful) Gather() (int64, time.Duration)                       { return 8 << 20, 100 * time.Millisecond }
func (forgetful) Begin(context.Context, sink.Lineage, sink.Past) error { return nil }
func (forgetful) Close() error                                         { return nil }

func (forgetful) Publish(context.Context, sink.Batch) ([]sink.Rejected, error) { return nil, nil }

// cpu returns the processor time that this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
