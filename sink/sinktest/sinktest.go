// Package sinktest is the suite that every sink passes. It speaks to the sink through sink.Sink, as a runner does, and looks
// at the outcome through the Harness, as a reader of the target does.
//
// The one idea to hold: only the target counts. Each test publishes batches, some of them twice, and then compares the rows
// that a reader sees with what the rows' ids and revisions say.
package sinktest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/plan"
	"millrace/sink"
)

// Features are what a sink has beyond what all have. The zero value is a sink with none.
type Features struct {
	// StaleRevisions: a revision that comes in a later epoch than a higher one does not replace it. Sinks without it rely on
	// the runner, which publishes the revisions of an id in rising order.
	StaleRevisions bool

	// Rejects makes a row of TableQuiz that the target will never take. Nil: there is no such row.
	Rejects func(id string) plan.Row

	// RefusesForeign: a lineage without ancestors cannot begin on rows of another one. Sinks without it take them back.
	RefusesForeign bool

	// AppendOnly: the sink takes tables that are append-only (TableRaw). Others leave their rows out.
	AppendOnly bool
}

// Harness is one target with the tables of Plan, empty at first.
type Harness interface {
	// Open opens the sink on the target, as a new process would. The suite closes it.
	Open(t testing.TB) sink.Sink

	// Rows reads all rows of a table back, by id. Columns that are null may be left out. Values are string, bool, int64,
	// float64, time.Time, []byte or []string, as the column's type says; meta columns have the names of plan.MetaColumns.
	Rows(t testing.TB, table string) map[string]map[string]any
}

// Indices into Plan().Tables.
const (
	TableQuiz  = iota // one column of each type
	TableVisit        // a string
	TableRaw          // append-only
)

// Lineage is that of the suite's batches, as long as a test does not go back.
const Lineage = "L1"

// First is the lineage called Lineage.
func First() sink.Lineage { return sink.Lineage{ID: Lineage, Token: 1} }

// Plan is what the suite publishes rows of.
func Plan() *plan.Plan {
	return &plan.Plan{
		App: "sinktest-job", Version: "1.0.0",
		Tables: []plan.Table{
			{Name: "quiz", Schema: plan.Schema{Name: "Quiz", Columns: []plan.Column{
				{Name: "student", Type: plan.String},
				{Name: "score", Type: plan.Double},
				{Name: "attempts", Type: plan.Long},
				{Name: "late", Type: plan.Bool},
				{Name: "graded", Type: plan.Timestamp},
				{Name: "answer", Type: plan.Bytes},
				{Name: "tags", Type: plan.Strings},
				{Name: "role", Type: plan.String, Nullable: true},
			}}},
			{Name: "visit", Schema: plan.Schema{Name: "Visit", Columns: []plan.Column{
				{Name: "page", Type: plan.String},
			}}},
			{Name: "raw", AppendOnly: true, Schema: plan.Schema{Name: "Raw", Columns: []plan.Column{
				{Name: "_id", Type: plan.String}, // the suite finds rows by it
				{Name: "bytes", Type: plan.Bytes},
			}}},
		},
	}
}

// noon is the event time of the suite's rows.
var noon = time.Date(2018, 8, 27, 12, 0, 0, 123456000, time.UTC)

// Quiz is a row of TableQuiz; its score is its revision. First is set for revision 1.
func Quiz(t testing.TB, id string, rev, epoch uint64) plan.Row {
	t.Helper()
	r := plan.Row{
		Table: TableQuiz, ID: id, Rev: rev, First: rev == 1, EventTime: noon.UnixMicro(), Account: "acme", Env: "prod", Epoch: epoch,
		Sources: []string{"event " + id + " ingest-prime/0/1", "entity e ingest-prime/1/2"},
	}
	role := plan.Cell{Null: true}
	if rev > 1 {
		role = plan.Cell{Bytes: []byte("Learner")}
	}
	r.Value = encode(t, TableQuiz,
		plan.Cell{Bytes: []byte("student " + id + " ü€𝄞 \"\\\n")},
		plan.Cell{Float: float64(rev)},
		plan.Cell{Int: -1 << 53},
		plan.Cell{Bool: true},
		plan.Cell{Int: noon.UnixMicro()},
		plan.Cell{Bytes: []byte{0, 1, 0xff}},
		plan.Cell{List: [][]byte{[]byte("x"), []byte("")}},
		role)
	return r
}

// Visit is the first revision of a row of TableVisit.
func Visit(t testing.TB, id string, epoch uint64) plan.Row {
	t.Helper()
	return plan.Row{
		Table: TableVisit, ID: id, Rev: 1, First: true, EventTime: noon.UnixMicro(), Account: "acme", Env: "prod", Epoch: epoch,
		Value: encode(t, TableVisit, plan.Cell{Bytes: []byte("page " + id)}),
	}
}

// Raw is a row of TableRaw.
func Raw(t testing.TB, id string, epoch uint64) plan.Row {
	t.Helper()
	return plan.Row{
		Table: TableRaw, ID: id, Rev: 1, First: true, EventTime: noon.UnixMicro(), Account: "acme", Env: "prod", Epoch: epoch,
		Value: encode(t, TableRaw, plan.Cell{Bytes: []byte(id)}, plan.Cell{Bytes: []byte("bytes of " + id)}),
	}
}

func encode(t testing.TB, table int, cells ...plan.Cell) []byte {
	t.Helper()
	value, err := Plan().Tables[table].Schema.Append(nil, cells)
	require.NoError(t, err)
	return value
}

// batch is the batch of epochs from to to; rows of other epochs are left out.
func batch(from, to uint64, rows ...plan.Row) sink.Batch {
	b := sink.Batch{
		Lineage: Lineage, FromEpoch: from, ToEpoch: to,
		FromOffsets: plan.Offsets{0: int64(from-1) * 10}, ToOffsets: plan.Offsets{0: int64(to) * 10},
	}
	for _, r := range rows {
		if from <= r.Epoch && r.Epoch <= to {
			b.Rows = append(b.Rows, r)
		}
	}
	return b
}

// open opens the harness's sink for the time of the test.
func open(t *testing.T, h Harness) sink.Sink {
	t.Helper()
	s := begun(t, h)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// begun opens the harness's sink for the first lineage.
func begun(t *testing.T, h Harness) sink.Sink {
	t.Helper()
	s := h.Open(t)
	require.NoError(t, s.Begin(context.Background(), First(), nil))
	return s
}

func publish(t *testing.T, s sink.Sink, b sink.Batch) {
	t.Helper()
	rejected, err := s.Publish(context.Background(), b)
	require.NoError(t, err)
	require.Empty(t, rejected)
}

// scores are the scores of TableQuiz by id, which are the revisions.
func scores(t *testing.T, h Harness) map[string]float64 {
	t.Helper()
	got := map[string]float64{}
	for id, row := range h.Rows(t, "quiz") {
		score, ok := row["score"].(float64)
		require.True(t, ok, "score of %s is %T", id, row["score"])
		got[id] = score
	}
	return got
}

// Run runs the suite. newHarness makes a target for each test; tests run in parallel.
func Run(t *testing.T, features Features, newHarness func(t testing.TB) Harness) {
	t.Helper()
	type test struct {
		name string
		run  func(t *testing.T, f Features, h Harness)
	}
	tests := []test{
		{"name and gathering", testGather},
		{"rows are visible when Publish returns", testVisible},
		{"null columns", testNull},
		{"the same batch again", testAgain},
		{"a larger batch with what was published", testLarger},
		{"corrections replace", testCorrections},
		{"several revisions in one batch", testRevisionsInBatch},
		{"deleted rows go", testDeletes},
		{"an empty batch", testEmpty},
		{"tables are apart", testTables},
		{"append-only tables", testAppendOnly},
		{"reopened in between", testReopen},
		{"crash between publishing and remembering it", testCrash},
		{"publishing ends with its context", testCancelled},
		{"many rows", testMany},
		{"going back", testRewind},
		{"going back again, and to before that", testRewindChain},
		{"going back from where nothing was published", testRewindNothing},
		{"the archive is behind", testArchiveBehind},
		{"crash while going back", testRewindCrash},
		{"a writer of an older lineage", testZombie},
		{"a late start of an older lineage", testLateZombie},
		{"a history that knows nothing of the rows", testForeign},
	}
	if features.StaleRevisions {
		tests = append(tests, test{"a stale revision in a later epoch", testStale})
	}
	if features.Rejects != nil {
		tests = append(tests, test{"rejected rows do not hold up the rest", testRejects})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, features, newHarness(t))
		})
	}
}

func testGather(t *testing.T, _ Features, h Harness) {
	s := open(t, h)
	require.NotEmpty(t, s.Name())
	bytes, every := s.Gather()
	require.Positive(t, bytes)
	require.Positive(t, every)
}

func testVisible(t *testing.T, _ Features, h Harness) {
	publish(t, open(t, h), batch(1, 1, Quiz(t, "a", 1, 1)))
	rows := h.Rows(t, "quiz")
	require.Len(t, rows, 1)
	for column, want := range map[string]any{
		"student": "student a ü€𝄞 \"\\\n", "score": 1.0, "attempts": int64(-1 << 53), "late": true, "graded": noon,
		"answer": []byte{0, 1, 0xff}, "tags": []string{"x", ""},
		"_id": "a", "_rev": int64(1), "_epoch": int64(1), "_lineage": Lineage, "_app_version": "1.0.0",
		"_sources":    []string{"event a ingest-prime/0/1", "entity e ingest-prime/1/2"},
		"_event_time": noon, "account_id": "acme", "env_id": "prod",
	} {
		require.Equal(t, want, rows["a"][column], "column %s", column)
	}
}

func testNull(t *testing.T, _ Features, h Harness) {
	publish(t, open(t, h), batch(1, 1, Quiz(t, "a", 1, 1), Quiz(t, "b", 2, 1)))
	rows := h.Rows(t, "quiz")
	require.Nil(t, rows["a"]["role"])
	require.Equal(t, "Learner", rows["b"]["role"])
}

func testAgain(t *testing.T, _ Features, h Harness) {
	s := open(t, h)
	b := batch(1, 2, Quiz(t, "a", 1, 1), Quiz(t, "b", 1, 2), Visit(t, "v", 2))
	for range 3 {
		publish(t, s, b)
		require.Equal(t, map[string]float64{"a": 1, "b": 1}, scores(t, h))
		require.Len(t, h.Rows(t, "visit"), 1)
	}
}

func testLarger(t *testing.T, _ Features, h Harness) {
	s := open(t, h)
	all := []plan.Row{Quiz(t, "a", 1, 1), Quiz(t, "b", 1, 2), Quiz(t, "a", 2, 3), Visit(t, "v", 3), Quiz(t, "c", 1, 4)}
	publish(t, s, batch(1, 1, all...))
	publish(t, s, batch(1, 3, all...))
	require.Equal(t, map[string]float64{"a": 2, "b": 1}, scores(t, h))
	publish(t, s, batch(2, 4, all...))
	require.Equal(t, map[string]float64{"a": 2, "b": 1, "c": 1}, scores(t, h))
	publish(t, s, batch(1, 2, all...)) // long done
	require.Equal(t, map[string]float64{"a": 2, "b": 1, "c": 1}, scores(t, h))
	require.Len(t, h.Rows(t, "visit"), 1)
}

func testCorrections(t *testing.T, _ Features, h Harness) {
	s := open(t, h)
	publish(t, s, batch(1, 1, Quiz(t, "a", 1, 1), Quiz(t, "b", 1, 1)))
	publish(t, s, batch(2, 2, Quiz(t, "a", 2, 2)))
	require.Equal(t, map[string]float64{"a": 2, "b": 1}, scores(t, h))

	moved := Quiz(t, "a", 3, 3) // to another day
	moved.EventTime += 3 * (24 * time.Hour).Microseconds()
	publish(t, s, batch(3, 3, moved))
	require.Equal(t, map[string]float64{"a": 3, "b": 1}, scores(t, h))
}

func testRevisionsInBatch(t *testing.T, _ Features, h Harness) {
	s := open(t, h)
	publish(t, s, batch(1, 3, Quiz(t, "a", 1, 1), Quiz(t, "b", 4, 1), Quiz(t, "a", 3, 2), Quiz(t, "b", 2, 2), Quiz(t, "a", 2, 3)))
	require.Equal(t, map[string]float64{"a": 3, "b": 4}, scores(t, h))
	// Of one revision the later epoch is the truth: a dead letter that is withdrawn by a replay and made anew by its failure.
	publish(t, s, batch(4, 5, gone("a", 4, 4), Quiz(t, "b", 5, 4), Quiz(t, "a", 4, 5), gone("b", 5, 5)))
	require.Equal(t, map[string]float64{"a": 4}, scores(t, h))
}

func testStale(t *testing.T, _ Features, h Harness) {
	s := open(t, h)
	publish(t, s, batch(1, 1, Quiz(t, "a", 5, 1)))
	publish(t, s, batch(2, 2, Quiz(t, "a", 3, 2)))
	require.Equal(t, map[string]float64{"a": 5}, scores(t, h))
}

func testDeletes(t *testing.T, _ Features, h Harness) {
	s := open(t, h)
	publish(t, s, batch(1, 1, Quiz(t, "a", 1, 1), Quiz(t, "b", 1, 1), Quiz(t, "c", 1, 1), gone("c", 2, 1)))
	require.Equal(t, map[string]float64{"a": 1, "b": 1}, scores(t, h))
	publish(t, s, batch(2, 2, gone("a", 2, 2), gone("never", 1, 2)))
	require.Equal(t, map[string]float64{"b": 1}, scores(t, h))
	publish(t, s, batch(3, 3, Quiz(t, "a", 3, 3))) // and back
	require.Equal(t, map[string]float64{"a": 3, "b": 1}, scores(t, h))
}

func testEmpty(t *testing.T, _ Features, h Harness) {
	s := open(t, h)
	publish(t, s, batch(1, 1))
	require.Empty(t, h.Rows(t, "quiz"))
	publish(t, s, batch(2, 2, Quiz(t, "a", 1, 2)))
	publish(t, s, batch(3, 9))
	require.Equal(t, map[string]float64{"a": 1}, scores(t, h))
}

func testTables(t *testing.T, _ Features, h Harness) {
	s := open(t, h)
	publish(t, s, batch(1, 1, Quiz(t, "a", 1, 1), Visit(t, "a", 1), Visit(t, "b", 1)))
	publish(t, s, batch(2, 2, Visit(t, "c", 2)))
	publish(t, s, batch(1, 3, Quiz(t, "a", 1, 1), Visit(t, "a", 1), Visit(t, "b", 1), Visit(t, "c", 2), Quiz(t, "a", 2, 3)))
	require.Equal(t, map[string]float64{"a": 2}, scores(t, h))
	rows := h.Rows(t, "visit")
	require.Len(t, rows, 3)
	require.Equal(t, "page c", rows["c"]["page"])
}

func testAppendOnly(t *testing.T, f Features, h Harness) {
	s := open(t, h)
	publish(t, s, batch(1, 1, Raw(t, "a", 1), Visit(t, "v", 1)))
	publish(t, s, batch(1, 2, Raw(t, "a", 1), Visit(t, "v", 1), Raw(t, "b", 2)))
	require.Len(t, h.Rows(t, "visit"), 1)
	if !f.AppendOnly {
		return
	}
	rows := h.Rows(t, "raw")
	require.Len(t, rows, 2)
	require.Equal(t, []byte("bytes of b"), rows["b"]["bytes"])
	require.NotContains(t, rows["b"], "_rev", "an append-only table has its own columns alone")
}

func testRejects(t *testing.T, f Features, h Harness) {
	s := open(t, h)
	bad := f.Rejects("bad")
	bad.Epoch = 1
	rejected, err := s.Publish(context.Background(), batch(1, 1, Quiz(t, "a", 1, 1), bad, Quiz(t, "b", 1, 1)))
	require.NoError(t, err)
	require.Len(t, rejected, 1)
	require.Equal(t, "bad", rejected[0].Row.ID)
	require.NotEmpty(t, rejected[0].Reason)
	require.Equal(t, map[string]float64{"a": 1, "b": 1}, scores(t, h))
}

func testReopen(t *testing.T, _ Features, h Harness) {
	for i, r := range []plan.Row{Quiz(t, "a", 1, 1), Quiz(t, "b", 1, 2), Quiz(t, "a", 2, 3)} {
		s := begun(t, h)
		publish(t, s, batch(uint64(i+1), uint64(i+1), r))
		require.NoError(t, s.Close())
	}
	require.Equal(t, map[string]float64{"a": 2, "b": 1}, scores(t, h))
}

// A runner that dies between the sink's success and its own note of it publishes the batch again, and gathers more into it.
func testCrash(t *testing.T, _ Features, h Harness) {
	all := []plan.Row{Quiz(t, "a", 1, 1), Visit(t, "v", 1), Quiz(t, "b", 1, 2), Quiz(t, "a", 2, 2), Raw(t, "r", 2), Quiz(t, "b", 2, 3)}
	for to := uint64(1); to <= 3; to++ {
		s := begun(t, h)
		publish(t, s, batch(1, to, all...))
		require.NoError(t, s.Close())
		s = begun(t, h)
		publish(t, s, batch(1, to, all...))
		require.NoError(t, s.Close())
	}
	require.Equal(t, map[string]float64{"a": 2, "b": 2}, scores(t, h))
	require.Len(t, h.Rows(t, "visit"), 1)
}

func testCancelled(t *testing.T, _ Features, h Harness) {
	s := open(t, h)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := s.Publish(ctx, batch(1, 1, Quiz(t, "a", 1, 1)))
	require.ErrorIs(t, err, context.Canceled)
	publish(t, s, batch(1, 1, Quiz(t, "a", 1, 1)))
	require.Equal(t, map[string]float64{"a": 1}, scores(t, h))
}

func testMany(t *testing.T, _ Features, h Harness) {
	const n = 3000
	rows := make([]plan.Row, n)
	for i := range rows {
		rows[i] = Visit(t, fmt.Sprintf("visit-%05d", i), 1)
	}
	s := open(t, h)
	publish(t, s, batch(1, 1, rows...))
	publish(t, s, batch(1, 1, rows...))
	got := h.Rows(t, "visit")
	require.Len(t, got, n)
	require.Equal(t, "page visit-02999", got["visit-02999"]["page"])
}
