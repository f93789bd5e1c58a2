package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"millrace/engine"
	"millrace/plan"
	"millrace/record"
	"millrace/sink"
)

// forgetful is a sink that takes rows and keeps none.
type forgetful struct{}

func (forgetful) Name() string                   { return "forgetful" }
func (forgetful) Gather() (int64, time.Duration) { return 8 << 20, time.Second }
func (forgetful) Close() error                   { return nil }

func (forgetful) Begin(context.Context, sink.Lineage, sink.Past) error { return nil }

func (forgetful) Publish(context.Context, sink.Batch) ([]sink.Rejected, error) { return nil, nil }

// runPlan runs a plan on one worker until it has read so many records in its life, and stops it cleanly.
func runPlan(ctx context.Context, dir string, p *plan.Plan, from engine.Source, until int, to sink.Sink) (usage, error) {
	running, stop := context.WithCancel(ctx)
	defer stop()
	var sinks []sink.Sink
	if to != nil {
		sinks = append(sinks, to)
	}
	return measure(func() error {
		e, err := engine.Open(ctx, engine.Config{
			Dir: dir, Plan: p, Instance: "bench", Source: from, Sinks: sinks, Workers: 1, DrainTimeout: time.Hour,
			OnEpoch: func(p engine.Progress) {
				if p.Read >= int64(until) {
					stop()
				}
			},
		})
		if err != nil {
			return err
		}
		return errors.Join(e.Run(running), e.Close(), ctx.Err())
	})
}

// stateParts measures look-ups, commits and the outbox by what a job takes that does no more than that, less the same job without.
func (c Config) stateParts(ctx context.Context, w *window) (out []Measure, err error) {
	keys := c.million()
	s := &keySource{keys: keys, n: w.len()}
	dir := filepath.Join(c.Dir, "state")
	if _, err := runPlan(ctx, dir, keyPlan(fillKeys), s.all(), keys, nil); err != nil {
		return nil, err
	}
	s.from = keys
	step := func(p *plan.Plan, to sink.Sink) func(int) (usage, error) {
		return func(int) (usage, error) {
			took, err := runPlan(ctx, dir, p, s, s.from+s.n, to)
			s.from += s.n
			return took, err
		}
	}
	var all []Measure
	for _, part := range []struct {
		what string
		run  func(int) (usage, error)
	}{
		{"nothing", step(keyPlan(nothing), nil)},
		{"look-ups", step(keyPlan(lookUp), nil)},
		{"changes", step(keyPlan(change), nil)},
		{"rows", step(keyPlan(makeRows), forgetful{})},
	} {
		m, err := c.perRecord(part.what, "record", w, part.run)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return []Measure{
		less(fmt.Sprintf("look-up of one of %d keys", keys), "key", all[1], all[0]),
		less("synced commit of a changed key", "key", all[2], all[1]),
		less("outbox: write, sync and read a row", "row", all[3], all[0]),
	}, nil
}

// less is the difference of the medians, and how far it can be off.
func less(what, unit string, a, b Measure) Measure {
	sub := func(a, b Figure) Figure {
		return Figure{Median: a.Median - b.Median, Low: a.Low - b.High, High: a.High - b.Low, Runs: a.Runs}
	}
	times := sub(*a.Times, *b.Times)
	return Measure{what, "CPU µs/" + unit, sub(a.Figure, b.Figure), &times}
}

// million is the number of keys nearest to a million, of those to be measured.
func (c Config) million() int {
	best := c.Keys[0]
	for _, k := range c.Keys {
		if max(k, 1_000_000)-min(k, 1_000_000) < max(best, 1_000_000)-min(best, 1_000_000) {
			best = k
		}
	}
	return best
}

// What the one stage of a key plan does.
const (
	nothing = iota
	fillKeys
	lookUp
	change
	makeRows
)

// keyPlan is a plan whose records are keys.
func keyPlan(does int) *plan.Plan {
	l := newLoad(1000)
	p := &plan.Plan{
		App: "keys", Version: "1", ReadTo: []int{0},
		Read: func(items []record.Item, out *plan.Output) {
			for i := range items {
				if does == makeRows {
					out.Row(plan.Row{ID: items[i].ID, Rev: 1, First: true, Account: account, Env: env, Value: items[i].Bytes})
				} else if does != nothing {
					out.Send(0, plan.Element{Key: items[i].Bytes, Tag: 1})
				}
			}
		},
		Stages: []plan.Stage{{Name: "keys", Keyed: func(_ plan.Clock, keys []*plan.Key, _ *plan.Output) {
			for i, k := range keys {
				switch {
				case does == fillKeys:
					k.SetValue, _ = l.describe(nil, i)
				case k.Value == nil:
					panic(fmt.Sprintf("key %x is not there", k.Key))
				case does == change:
					k.SetValue = append([]byte{k.Value[0] + 1}, k.Value[1:]...)
				}
			}
		}}},
		Tables: []plan.Table{{Name: "keys", Schema: plan.Schema{Name: "Key", Columns: []plan.Column{{Name: "key", Type: plan.String}}}, AppendOnly: true}},
	}
	return p
}

// keySource brings keys as records: first each of them once, then evenly drawn ones.
type keySource struct {
	keys, n int
	from    int // offset of the drawn ones' first
	every   bool
}

func (s *keySource) all() *keySource { return &keySource{keys: s.keys, n: s.keys, every: true} }

func (s *keySource) Ends(context.Context) (plan.Offsets, error) {
	return plan.Offsets{0: int64(s.from + s.n)}, nil
}

func (s *keySource) Read(_ context.Context, from plan.Position) (engine.Reader, error) {
	return &keyReader{s: s, at: int(from.Offsets[0]), rnd: rand.New(rand.NewPCG(1, uint64(from.Offsets[0])))}, nil
}

type keyReader struct {
	s   *keySource
	at  int
	rnd *rand.Rand
}

func (r *keyReader) Poll(ctx context.Context, maxRecords, _ int) (plan.Batch, error) {
	n := min(r.s.from+r.s.n-r.at, maxRecords)
	if n == 0 {
		<-ctx.Done()
		return plan.Batch{}, ctx.Err()
	}
	items := make([]record.Item, n)
	for i := range items {
		k := r.at
		if !r.s.every {
			k = r.rnd.IntN(r.s.keys)
		}
		items[i] = record.Item{
			Kind: record.Event, ID: fmt.Sprint(r.at), Bytes: fmt.Appendf(nil, "%032x", uint64(k)*0x9e3779b97f4a7c15),
			Position: record.Position{Offset: int64(r.at)},
		}
		r.at++
	}
	return plan.Batch{Items: items}, nil
}

func (r *keyReader) Close() {}
