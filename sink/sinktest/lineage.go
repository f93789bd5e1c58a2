package sinktest

import (
	"context"
	"iter"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/plan"
	"millrace/sink"
)

// past is what an archive beside the sink held: the newest rows of each id.
type past map[string]sink.PastRow // by table and id

// pastOf plays rows, each of the lineage that made its epoch, up to an epoch.
func pastOf(l sink.Lineage, epoch uint64, rows ...plan.Row) past {
	p := past{}
	for _, r := range rows {
		switch key := string(rune('0'+r.Table)) + r.ID; {
		case r.Epoch > epoch || r.Table == TableRaw:
		case r.Deleted:
			delete(p, key)
		default:
			p[key] = sink.PastRow{Row: r, Lineage: l.Of(r.Epoch), AppVersion: "1.0.0"}
		}
	}
	return p
}

func (past) Tables() []plan.Table { return Plan().Tables[:TableRaw] }

func (p past) Rows(_ context.Context, table int) iter.Seq2[sink.PastRow, error] {
	return func(yield func(sink.PastRow, error) bool) {
		for _, r := range p {
			if r.Table == table && !yield(r, nil) {
				return
			}
		}
	}
}

func gone(id string, rev, epoch uint64) plan.Row {
	return plan.Row{Table: TableQuiz, ID: id, Rev: rev, Deleted: true, Account: "acme", Env: "prod", EventTime: noon.UnixMicro(), Epoch: epoch}
}

// begin opens the sink for a lineage for the time of the test. An archive knows its own past.
func begin(t *testing.T, h Harness, l sink.Lineage, p sink.Past) sink.Sink {
	t.Helper()
	s := h.Open(t)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.NoError(t, s.Begin(context.Background(), l, p))
	return s
}

func batchOf(lineage string, from, to uint64, rows ...plan.Row) sink.Batch {
	b := batch(from, to, rows...)
	b.Lineage = lineage
	return b
}

// lineages are those of the rows of TableQuiz by id.
func lineages(t *testing.T, h Harness) map[string]string {
	t.Helper()
	got := map[string]string{}
	for id, row := range h.Rows(t, "quiz") {
		got[id], _ = row["_lineage"].(string)
	}
	return got
}

// story is what the first lineage of the tests below makes in epochs 1 and 2, and then in 3 and 4.
func story(t *testing.T) []plan.Row {
	return []plan.Row{
		Quiz(t, "a", 1, 1), Quiz(t, "b", 1, 1), Quiz(t, "c", 1, 1), Visit(t, "v", 1), Raw(t, "r1", 1),
		Quiz(t, "a", 2, 2), Raw(t, "r2", 2),
		Quiz(t, "a", 5, 3), Quiz(t, "d", 1, 3), gone("b", 4, 3), Visit(t, "w", 3), Raw(t, "r3", 3),
		Quiz(t, "d", 2, 4), gone("c", 2, 4), Quiz(t, "c", 3, 4), Quiz(t, "x", 1, 4), gone("x", 2, 4),
	}
}

func ids[V any](rows map[string]V) []string {
	var out []string
	for id := range rows {
		out = append(out, id)
	}
	return out
}

func testRewind(t *testing.T, f Features, h Harness) {
	rows := story(t)
	s := open(t, h)
	publish(t, s, batch(1, 2, rows...))
	publish(t, s, batch(3, 3, rows...))
	publish(t, s, batch(4, 4, rows...))
	require.Equal(t, map[string]float64{"a": 5, "c": 3, "d": 2}, scores(t, h))

	second := First().Fork(2, "L2", 2)
	s = begin(t, h, second, pastOf(second, 2, rows...))
	require.Equal(t, map[string]float64{"a": 2, "b": 1, "c": 1}, scores(t, h))
	require.Equal(t, map[string]string{"a": "L1", "b": "L1", "c": "L1"}, lineages(t, h))
	require.ElementsMatch(t, []string{"v"}, ids(h.Rows(t, "visit")))
	if f.AppendOnly {
		require.ElementsMatch(t, []string{"r1", "r2"}, ids(h.Rows(t, "raw")))
	}

	// The new lineage comes by the same rows with lower revisions than the old one had given them, and never by others.
	publish(t, s, batchOf("L2", 3, 3, Quiz(t, "a", 3, 3), Quiz(t, "e", 1, 3), Quiz(t, "d", 1, 3), Raw(t, "r4", 3)))
	publish(t, s, batchOf("L2", 4, 4, gone("b", 2, 4), Quiz(t, "e", 2, 4), Quiz(t, "x", 1, 4)))
	want := map[string]float64{"a": 3, "c": 1, "d": 1, "e": 2, "x": 1}
	require.Equal(t, want, scores(t, h))
	require.Equal(t, map[string]string{"a": "L2", "c": "L1", "d": "L2", "e": "L2", "x": "L2"}, lineages(t, h))
	if f.AppendOnly {
		require.ElementsMatch(t, []string{"r1", "r2", "r4"}, ids(h.Rows(t, "raw")))
	}

	// The next start of the lineage finds nothing to do.
	s = begin(t, h, second, pastOf(second, 2, rows...))
	require.Equal(t, want, scores(t, h))
	publish(t, s, batchOf("L2", 5, 5, Quiz(t, "c", 2, 5)))
	want["c"] = 2
	require.Equal(t, want, scores(t, h))
}

func testRewindChain(t *testing.T, _ Features, h Harness) {
	rows := story(t)
	publish(t, open(t, h), batch(1, 1, rows...))
	s := open(t, h)
	publish(t, s, batch(2, 2, rows...))
	publish(t, s, batch(3, 4, rows...))

	second := First().Fork(2, "L2", 2)
	s = begin(t, h, second, pastOf(second, 2, rows...))
	made := []plan.Row{Quiz(t, "a", 3, 3), Quiz(t, "p", 1, 3), Quiz(t, "a", 4, 4), Quiz(t, "q", 1, 4)}
	publish(t, s, batchOf("L2", 3, 3, made...))
	publish(t, s, batchOf("L2", 4, 4, made...))

	// Back to epoch 3 of the second.
	third := second.Fork(3, "L3", 3)
	history := append(append([]plan.Row{}, rows[:7]...), made...)
	s = begin(t, h, third, pastOf(third, 3, history...))
	require.Equal(t, map[string]float64{"a": 3, "b": 1, "c": 1, "p": 1}, scores(t, h))
	publish(t, s, batchOf("L3", 4, 4, Quiz(t, "a", 9, 4), gone("p", 2, 4), Quiz(t, "q", 1, 4)))
	require.Equal(t, map[string]string{"a": "L3", "b": "L1", "c": "L1", "q": "L3"}, lineages(t, h))

	// Back to epoch 1, before all of that.
	fourth := third.Fork(1, "L4", 4)
	s = begin(t, h, fourth, pastOf(fourth, 1, rows...))
	require.Equal(t, map[string]float64{"a": 1, "b": 1, "c": 1}, scores(t, h))
	publish(t, s, batchOf("L4", 2, 2, Quiz(t, "a", 2, 2), Quiz(t, "p", 1, 2), Quiz(t, "b", 2, 2)))
	require.Equal(t, map[string]float64{"a": 2, "b": 2, "c": 1, "p": 1}, scores(t, h))
}

func testRewindNothing(t *testing.T, _ Features, h Harness) {
	rows := story(t)
	publish(t, open(t, h), batch(1, 2, rows...))
	second := First().Fork(2, "L2", 2)
	s := begin(t, h, second, pastOf(second, 2, rows...))
	third := second.Fork(2, "L3", 3) // of a lineage that never published
	s2 := begin(t, h, third, pastOf(third, 2, rows...))
	require.Equal(t, map[string]float64{"a": 2, "b": 1, "c": 1}, scores(t, h))
	_, err := s.Publish(context.Background(), batchOf("L2", 3, 3, Quiz(t, "z", 1, 3)))
	require.ErrorIs(t, err, sink.ErrFenced)
	publish(t, s2, batchOf("L3", 3, 3, Quiz(t, "a", 3, 3)))
	require.Equal(t, map[string]float64{"a": 3, "b": 1, "c": 1}, scores(t, h))
}

// What the archive had not published when the savepoint was made comes again, under the lineage that made it.
func testArchiveBehind(t *testing.T, _ Features, h Harness) {
	rows := story(t)
	s := open(t, h)
	for epoch := uint64(1); epoch <= 4; epoch++ {
		publish(t, s, batch(epoch, epoch, rows...))
	}
	second := First().Fork(3, "L2", 2)
	s = begin(t, h, second, pastOf(second, 1, rows...))
	publish(t, s, batchOf("L1", 2, 3, rows...))
	require.Equal(t, map[string]float64{"a": 5, "c": 1, "d": 1}, scores(t, h))
	require.Equal(t, map[string]string{"a": "L1", "c": "L1", "d": "L1"}, lineages(t, h))
	publish(t, s, batchOf("L2", 4, 4, Quiz(t, "c", 2, 4), Quiz(t, "b", 5, 4)))
	require.Equal(t, map[string]float64{"a": 5, "b": 5, "c": 2, "d": 1}, scores(t, h))
}

// cut is a past that breaks off, as a process that dies while it reads it.
type cut struct {
	past
	after int
}

func (c cut) Rows(ctx context.Context, table int) iter.Seq2[sink.PastRow, error] {
	return func(yield func(sink.PastRow, error) bool) {
		n := 0
		for r, err := range c.past.Rows(ctx, table) {
			if n++; n > c.after {
				yield(sink.PastRow{}, context.Canceled)
				return
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

func testRewindCrash(t *testing.T, _ Features, h Harness) {
	rows := story(t)
	s := open(t, h)
	publish(t, s, batch(1, 2, rows...))
	publish(t, s, batch(3, 4, rows...))
	second := First().Fork(2, "L2", 2)
	for n := range 3 {
		broken := h.Open(t)
		err := broken.Begin(context.Background(), second, cut{pastOf(second, 2, rows...), n})
		if _, archive := broken.(sink.Archive); !archive && err != nil {
			require.ErrorIs(t, err, context.Canceled)
		}
		require.NoError(t, broken.Close())
	}
	_, err := s.Publish(context.Background(), batch(5, 5, Quiz(t, "z", 1, 5)))
	require.ErrorIs(t, err, sink.ErrFenced)
	s = begin(t, h, second, pastOf(second, 2, rows...))
	require.Equal(t, map[string]float64{"a": 2, "b": 1, "c": 1}, scores(t, h))
	publish(t, s, batchOf("L2", 3, 3, Quiz(t, "a", 3, 3), Quiz(t, "d", 1, 3)))
	require.Equal(t, map[string]float64{"a": 3, "b": 1, "c": 1, "d": 1}, scores(t, h))
}

func testZombie(t *testing.T, f Features, h Harness) {
	rows := story(t)
	zombie := open(t, h)
	publish(t, zombie, batch(1, 2, rows...))
	second := First().Fork(2, "L2", 2)
	s := begin(t, h, second, pastOf(second, 2, rows...))
	for range 2 {
		// Rows that are there, rows that are not, rows of a tenant that has no index yet, and rows that are taken away.
		other := Quiz(t, "other", 1, 3)
		other.Account = "newcomer"
		for _, r := range []plan.Row{Quiz(t, "a", 9, 3), Quiz(t, "z", 1, 3), Visit(t, "z", 3), other, gone("b", 9, 3)} {
			_, err := zombie.Publish(context.Background(), batch(3, 3, r))
			require.ErrorIs(t, err, sink.ErrFenced, "row %s", r.ID)
		}
		if f.AppendOnly {
			_, err := zombie.Publish(context.Background(), batch(3, 3, Raw(t, "z", 3)))
			require.ErrorIs(t, err, sink.ErrFenced)
		}
		require.Equal(t, map[string]float64{"a": 2, "b": 1, "c": 1}, scores(t, h))
		require.ElementsMatch(t, []string{"v"}, ids(h.Rows(t, "visit")))
	}
	publish(t, s, batchOf("L2", 3, 3, Quiz(t, "z", 1, 3), other(t)))
	require.Equal(t, map[string]float64{"a": 2, "b": 1, "c": 1, "z": 1}, scores(t, h))
}

// other is a row of another tenant.
func other(t *testing.T) plan.Row {
	r := Visit(t, "other", 3)
	r.Account = "newcomer"
	return r
}

func testLateZombie(t *testing.T, _ Features, h Harness) {
	rows := story(t)
	publish(t, open(t, h), batch(1, 2, rows...))
	second := First().Fork(2, "L2", 2)
	s := begin(t, h, second, pastOf(second, 2, rows...))
	publish(t, s, batchOf("L2", 3, 3, Quiz(t, "a", 3, 3)))

	zombie := h.Open(t)
	t.Cleanup(func() { require.NoError(t, zombie.Close()) })
	require.ErrorIs(t, zombie.Begin(context.Background(), First(), nil), sink.ErrFenced)
	sibling := First().Fork(1, "L2b", 2) // of the same token
	require.ErrorIs(t, zombie.Begin(context.Background(), sibling, pastOf(sibling, 1, rows...)), sink.ErrFenced)
	require.Equal(t, map[string]float64{"a": 3, "b": 1, "c": 1}, scores(t, h))
	publish(t, s, batchOf("L2", 4, 4, Quiz(t, "a", 4, 4)))
	require.Equal(t, map[string]float64{"a": 4, "b": 1, "c": 1}, scores(t, h))
}

// A job that begins at the beginning, because its directory was lost, neither takes away what there is nor stops who writes it.
func testForeign(t *testing.T, f Features, h Harness) {
	if !f.RefusesForeign {
		return
	}
	rows := story(t)
	s := open(t, h)
	publish(t, s, batch(1, 2, rows...))
	stranger := h.Open(t)
	t.Cleanup(func() { require.NoError(t, stranger.Close()) })
	err := stranger.Begin(context.Background(), sink.Lineage{ID: "X", Token: 9}, nil)
	require.ErrorContains(t, err, "lineage")
	require.NotErrorIs(t, err, sink.ErrFenced)
	publish(t, s, batch(3, 3, Quiz(t, "z", 1, 3)))
	require.Equal(t, map[string]float64{"a": 2, "b": 1, "c": 1, "z": 1}, scores(t, h))
}
