package lake_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/duckdb/duckdb-go/v2" // an engine that knows nothing of this package
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"millrace/lake"
	"millrace/lake/laketest"
	"millrace/plan"
)

// change returns quizzes with other columns.
func change(f func([]plan.Column) []plan.Column) plan.Table {
	t := quizzes
	t.Schema.Columns = f(slices.Clone(t.Schema.Columns))
	return t
}

func TestSchemaEvolves(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	l := openLake(t, lake.Config{})
	publish(t, openTable(t, l), 1, 1, quiz("a", 1, 1, 0))
	wider := change(func(c []plan.Column) []plan.Column {
		return append(c, plan.Column{Name: "role", Type: plan.String, Nullable: true}, plan.Column{Name: "marks", Type: plan.Strings, Nullable: true})
	})
	tbl, err := l.Table(ctx, "v1", wider)
	require.NoError(t, err)
	value := append(quiz("b", 1, 2, 0).Value, 2, 2, 'x', 2, 2, 2, 'y', 0) // "x", ["y"]
	publish(t, tbl, 2, 2, plan.Row{ID: "b", Rev: 1, First: true, Value: value, Epoch: 2})
	got := map[string][]any{}
	for row, err := range tbl.Scan(ctx, lake.ScanOptions{}) {
		require.NoError(t, err)
		got[row["_id"].(string)] = []any{row["role"], row["marks"], row["student"]}
	}
	require.Equal(t, map[string][]any{"a": {nil, nil, "student-a"}, "b": {"x", []string{"y"}, "student-b"}}, got)

	// A column that was required may become nullable.
	wider.Schema.Columns = slices.Clone(wider.Schema.Columns)
	wider.Schema.Columns[0].Nullable = true
	tbl, err = l.Table(ctx, "v1", wider)
	require.NoError(t, err)
	cells := make([]plan.Cell, len(wider.Schema.Columns))
	for i := range cells {
		cells[i].Null = wider.Schema.Columns[i].Nullable
	}
	value, err = wider.Schema.Append(nil, cells)
	require.NoError(t, err)
	publish(t, tbl, 3, 3, plan.Row{ID: "c", Rev: 1, First: true, Value: value, Epoch: 3})
	students := map[string]any{}
	for row, err := range tbl.Scan(ctx, lake.ScanOptions{}) {
		require.NoError(t, err)
		students[row["_id"].(string)] = row["student"]
	}
	require.Equal(t, map[string]any{"a": "student-a", "b": "student-b", "c": nil}, students)

	// An older version goes on beside columns that it does not know.
	older := change(func(c []plan.Column) []plan.Column { return append(c[:1:1], c[2:6]...) })
	tbl, err = l.Table(ctx, "v1", older)
	require.NoError(t, err)
	value, err = older.Schema.Append(nil, []plan.Cell{{Bytes: []byte("d")}, {Int: 7}, {}, {Null: true}, {}})
	require.NoError(t, err)
	publish(t, tbl, 4, 4, plan.Row{ID: "d", Rev: 1, First: true, Value: value, Epoch: 4})
	seen := map[string][]any{}
	for row, err := range tbl.Scan(ctx, lake.ScanOptions{}) {
		require.NoError(t, err)
		seen[row["_id"].(string)] = []any{row["attempts"], row["tags"], row["role"]}
	}
	require.Equal(t, []any{int64(7), nil, nil}, seen["d"])
	require.Equal(t, []any{int64(2), []string{"a", "üb"}, "x"}, seen["b"])
	_, err = l.Table(ctx, "v1", wider)
	require.NoError(t, err, "opening it again changes nothing")
}

func TestSchemaChangesThatAreRefused(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	l := openLake(t, lake.Config{})
	openTable(t, l)
	for want, table := range map[string]plan.Table{
		"column role of table v1.quiz is new and not nullable": change(func(c []plan.Column) []plan.Column {
			return append(c, plan.Column{Name: "role", Type: plan.String})
		}),
		"column score of table v1.quiz changed its type from double to long": change(func(c []plan.Column) []plan.Column {
			c[1].Type = plan.Long
			return c
		}),
		"table v1.quiz is not partitioned by identity(student) as the plan asks": func() plan.Table {
			t := quizzes
			t.Partition = []plan.PartitionField{{Column: "student", Transform: plan.Identity}}
			return t
		}(),
		"table quiz is partitioned by column none, which it does not have": func() plan.Table {
			t := quizzes
			t.Partition = []plan.PartitionField{{Column: "none", Transform: plan.Day}}
			return t
		}(),
		"only identity of a string and day of a timestamp": func() plan.Table {
			t := quizzes
			t.Partition = []plan.PartitionField{{Column: "attempts", Transform: plan.Identity}}
			return t
		}(),
	} {
		_, err := l.Table(ctx, "v1", table)
		if strings.Contains(want, "not partitioned") {
			// It is checked once there is data under the old partitioning.
			publish(t, openTable(t, l), 1, 1, quiz("a", 1, 1, 0))
			_, err = l.Table(ctx, "v1", table)
		}
		require.ErrorContains(t, err, want)
	}
}

func TestCommitIsRecognised(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	registry := prometheus.NewRegistry()
	l := openLake(t, lake.Config{Registerer: registry})
	tbl := openTable(t, l)
	pos := lake.Position{Lineage: "L1", FromEpoch: 1, ToEpoch: 3}
	for range 2 { // the second as after an unknown outcome
		p, err := tbl.Write(ctx, []plan.Row{quiz("a", 1, 1, 0)}, "L1", "1")
		require.NoError(t, err)
		require.NoError(t, tbl.Commit(ctx, p, pos))
		require.NoError(t, tbl.Commit(ctx, p, pos))
	}
	require.Equal(t, map[string]float64{"a": 1}, scores(t, tbl))

	p, err := tbl.Write(ctx, []plan.Row{quiz("b", 1, 4, 0)}, "L1", "1")
	require.NoError(t, err)
	err = tbl.Commit(ctx, p, lake.Position{Lineage: "L1", FromEpoch: 2, ToEpoch: 4})
	require.ErrorContains(t, err, "epochs 2 to 4 are partly in the table, which ends with 3")
	require.ErrorContains(t, tbl.Commit(ctx, p, lake.Position{FromEpoch: 2, ToEpoch: 4}), "is no position")
	require.NoError(t, tbl.Commit(ctx, p, lake.Position{Lineage: "L2", FromEpoch: 2, ToEpoch: 4}), "another lineage")

	n, err := tbl.Sweep(ctx, 0)
	require.NoError(t, err)
	require.Equal(t, 1, n, "the file of the second try")
	require.Len(t, scores(t, tbl), 2)
}

// The catalogue commits, and the writer is told that it failed: the snapshot's summary says that it is there.
func TestUnknownOutcome(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	registry := prometheus.NewRegistry()
	l := openLake(t, lake.Config{Dir: dir, Registerer: registry})
	tbl := openTable(t, l)
	lost := 0
	l.Interrupt(func() error {
		if lost++; lost%2 == 1 {
			return errors.New("connection reset by peer")
		}
		return nil
	})
	want := map[string]float64{}
	for epoch := uint64(1); epoch <= 6; epoch++ {
		id := fmt.Sprint("row", epoch)
		p, err := tbl.Write(ctx, []plan.Row{quiz(id, 1, epoch, 0), quiz("hot", epoch, epoch, 0)}, "L1", "1")
		require.NoError(t, err)
		require.NoError(t, tbl.Commit(ctx, p, lake.Position{Lineage: "L1", FromEpoch: epoch, ToEpoch: epoch}))
		want[id], want["hot"] = 1, float64(epoch)
		require.Equal(t, want, scores(t, tbl), "epoch %d", epoch)
		last, _, err := tbl.Published(ctx)
		require.NoError(t, err)
		require.Equal(t, epoch, last.ToEpoch)
	}
	require.Greater(t, lost, 3)
	_, err := tbl.Sweep(ctx, 0)
	require.NoError(t, err)
	require.Equal(t, want, scores(t, tbl), "the files of commits whose answer was lost are no orphans")
}

func TestWritersDoNotLoseEachOthersRows(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	var wg sync.WaitGroup
	errs := make(chan error, 100)
	for w := range 3 {
		tbl := openTable(t, openLake(t, lake.Config{Dir: dir}))
		wg.Add(1)
		go func() {
			defer wg.Done()
			lineage := fmt.Sprint("L", w)
			for e := uint64(1); e <= 8; e++ {
				rows := []plan.Row{quiz(fmt.Sprintf("%d-%d", w, e), 1, e, 0), quiz(fmt.Sprintf("hot-%d", w), e, e, 0)}
				p, err := tbl.Write(ctx, rows, lineage, "1")
				if err == nil {
					err = tbl.Commit(ctx, p, lake.Position{Lineage: lineage, FromEpoch: e, ToEpoch: e})
				}
				if err != nil {
					errs <- err
				}
			}
		}()
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	got := scores(t, openTable(t, openLake(t, lake.Config{Dir: dir})))
	require.Len(t, got, 3*8+3)
	for w := range 3 {
		require.EqualValues(t, 8, got[fmt.Sprintf("hot-%d", w)])
	}
}

func TestSweepSparesWhatIsPending(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	now := time.Now()
	dir := t.TempDir()
	cfg := laketest.In(dir)
	cfg.Now = func() time.Time { return now }
	l, err := lake.Open(ctx, cfg)
	require.NoError(t, err)
	tbl := openTable(t, l)
	pending, err := tbl.Write(ctx, []plan.Row{quiz("a", 1, 1, 0)}, "L1", "1")
	require.NoError(t, err)
	now = now.Add(time.Hour)
	n, err := tbl.Sweep(ctx, time.Minute)
	require.NoError(t, err)
	require.Zero(t, n)
	require.NoError(t, tbl.Commit(ctx, pending, lake.Position{Lineage: "L1", FromEpoch: 1, ToEpoch: 1}))
	require.Equal(t, map[string]float64{"a": 1}, scores(t, tbl))

	_, err = tbl.Write(ctx, []plan.Row{quiz("b", 1, 2, 0), quiz("c", 2, 2, day)}, "L1", "1") // and dies
	require.NoError(t, err)
	require.NoError(t, l.Close())
	tbl = openTable(t, openLake(t, lake.Config{Dir: dir, Now: func() time.Time { return now }}))
	n, err = tbl.Sweep(ctx, 2*time.Hour)
	require.NoError(t, err)
	require.Zero(t, n, "too young")
	n, err = tbl.Sweep(ctx, 0)
	require.NoError(t, err)
	require.Equal(t, 3, n, "two data files and a delete file")
	require.Equal(t, map[string]float64{"a": 1}, scores(t, tbl))
}

// Two may sweep at once, and the writer of an older lineage gives up its files when it is refused.
func TestSweepOfFilesThatGo(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	l, err := lake.Open(ctx, laketest.In(dir))
	require.NoError(t, err)
	tbl := openTable(t, l)
	publish(t, tbl, 1, 1, quiz("a", 1, 1, 0))
	_, err = tbl.Write(ctx, []plan.Row{quiz("b", 1, 2, 0), quiz("c", 2, 2, day)}, "L1", "1") // and dies
	require.NoError(t, err)
	require.NoError(t, l.Close())

	other := openTable(t, openLake(t, lake.Config{Dir: dir}))
	swept := 0
	first := func(op, path string) error {
		if op == "remove" && strings.HasSuffix(path, ".parquet") && swept == 0 {
			var err error
			swept, err = other.Sweep(ctx, 0)
			return err
		}
		return nil
	}
	l, err = lake.OpenWithFaults(ctx, laketest.In(dir), first)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	tbl = openTable(t, l)
	_, err = tbl.Sweep(ctx, 0)
	require.NoError(t, err)
	require.Equal(t, 3, swept)
	require.Equal(t, map[string]float64{"a": 1}, scores(t, tbl))
}

// A process pins a snapshot while the table's writer starts and sweeps: what the pin has written and not committed looks like what a crash left.
func TestSweepBesideAPin(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	writer, err := lake.Open(ctx, lake.Config{Dir: dir})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, writer.Close()) })
	tbl, err := writer.Table(ctx, "v1", quizzes)
	require.NoError(t, err)
	publish(t, tbl, 1, 1, quiz("a", 1, 1, 0))

	swept := -1
	written := func(op, path string) error {
		if op == "syncdir" && strings.HasSuffix(path, "/quiz/metadata") && swept < 0 { // the last before it is the table's
			swept = 0 // the sweep syncs too
			var err error
			swept, err = tbl.Sweep(ctx, 0)
			return err
		}
		return nil
	}
	reader, err := lake.OpenWithFaults(ctx, lake.Config{Dir: dir}, written)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reader.Close()) })
	pinned, err := reader.Lookup(ctx, tbl.Name())
	require.NoError(t, err)
	_, err = pinned.Pin(ctx, "reader")
	require.NoError(t, err)
	require.Equal(t, 1, swept, "the metadata of the pin that was then made again")
	again, err := lake.Open(ctx, lake.Config{Dir: dir, ReadOnly: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, again.Close()) })
	after, err := again.Lookup(ctx, tbl.Name())
	require.NoError(t, err)
	require.Equal(t, map[string]float64{"a": 1}, scores(t, after))
}

func TestOldSnapshotsGo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tbl := openTable(t, openLake(t, lake.Config{Dir: dir, KeepSnapshots: 5, KeepFor: time.Nanosecond}))
	want := map[string]float64{}
	for e := uint64(1); e <= 60; e++ {
		publish(t, tbl, e, e, quiz(fmt.Sprint(e), 1, e, 0))
		want[fmt.Sprint(e)] = 1
	}
	n := files(t, dir)
	require.Less(t, n[".json"], 30, "metadata files")
	require.Less(t, n[".avro"], 80, "manifests and their lists; without expiry more than 120")
	require.Equal(t, want, scores(t, tbl))
}

func TestInvalidTextIsRejected(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tbl := openTable(t, openLake(t, lake.Config{}))
	publish(t, tbl, 1, 1, quiz("a", 1, 1, 0))
	bad := quiz("a\xff", 1, 2, 0)
	worse := quiz("b", 1, 2, 0)
	worse.Account = "\xfe"
	p, err := tbl.Write(ctx, []plan.Row{bad, worse, quiz("c", 1, 2, 0)}, "L1", "1")
	require.NoError(t, err)
	require.Len(t, p.Rejected, 2)
	require.Contains(t, p.Rejected[0].Reason, "column student is not valid UTF-8")
	require.Contains(t, p.Rejected[1].Reason, "is not valid UTF-8")
	require.NoError(t, tbl.Commit(ctx, p, lake.Position{Lineage: "L1", FromEpoch: 2, ToEpoch: 2}))
	require.Equal(t, map[string]float64{"a": 1, "c": 1}, scores(t, tbl))

	_, err = tbl.Write(ctx, []plan.Row{{ID: "x", Value: []byte{1, 2, 3}}}, "L1", "1")
	require.ErrorContains(t, err, "row x", "a value that is no Avro of the schema")
}

func TestFilters(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tbl := openTable(t, openLake(t, lake.Config{}))
	publish(t, tbl, 1, 1, quiz("a", 1, 1, 0), quiz("b", 1, 2, day), quiz("c", 2, 3, 2*day))
	publish(t, tbl, 2, 2, quiz("b", 2, 2, day))
	at := func(days int64) time.Time { return time.UnixMicro(days * day) }
	for name, test := range map[string]struct {
		opts lake.ScanOptions
		want []string
	}{
		"string":     {lake.ScanOptions{Where: map[string]any{"student": "student-b"}}, []string{"b"}},
		"long, bool": {lake.ScanOptions{Where: map[string]any{"attempts": int64(3), "late": true}}, []string{"c"}},
		"null":       {lake.ScanOptions{Where: map[string]any{"graded": nil}}, []string{"a", "b", "c"}},
		"time":       {lake.ScanOptions{TimeColumn: "_event_time", From: at(1), To: at(2)}, []string{"b"}},
		"newest":     {lake.ScanOptions{NewestBy: "_event_time", Limit: 2}, []string{"c", "b"}},
		"newest of":  {lake.ScanOptions{NewestBy: "_event_time", Limit: 9, Where: map[string]any{"late": false}}, []string{"a"}},
		"limit":      {lake.ScanOptions{Limit: 1, Where: map[string]any{"student": "student-a"}}, []string{"a"}},
		"none":       {lake.ScanOptions{Where: map[string]any{"student": "nobody"}}, nil},
	} {
		var got []string
		for row, err := range tbl.Scan(ctx, test.opts) {
			require.NoError(t, err, name)
			got = append(got, row["_id"].(string))
		}
		if test.opts.NewestBy == "" {
			slices.Sort(got)
		}
		require.Equal(t, test.want, got, name)
	}
	for want, opts := range map[string]lake.ScanOptions{
		"there is no column none":           {Columns: []string{"none"}},
		"there is no column other":          {Where: map[string]any{"other": 1}},
		"column student cannot be compared": {Where: map[string]any{"student": int64(1)}},
		"column student is no timestamp":    {TimeColumn: "student"},
		"by _event_time need a limit":       {NewestBy: "_event_time"},
		"column attempts is no timestamp":   {NewestBy: "attempts", Limit: 1},
	} {
		for _, err := range tbl.Scan(ctx, opts) {
			require.ErrorContains(t, err, want)
		}
	}
}

func TestOtherEnginesReadTheFiles(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tbl := openTable(t, openLake(t, lake.Config{}))
	publish(t, tbl, 1, 1, quiz("a", 1, 1, 0), quiz("b", 1, 2, 1234567))
	files, err := tbl.Files(ctx)
	require.NoError(t, err)
	require.Len(t, files, 1)
	require.EqualValues(t, 2, files[0].Rows)
	path := laketest.Local(t, files[0].Path)
	db, err := sql.Open("duckdb", "")
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()

	var types []string
	rows, err := db.Query("SELECT column_name || ' ' || column_type FROM (DESCRIBE SELECT * FROM read_parquet(?))", path)
	require.NoError(t, err)
	for rows.Next() {
		var s string
		require.NoError(t, rows.Scan(&s))
		types = append(types, s)
	}
	require.NoError(t, rows.Err())
	require.Equal(t, []string{
		"student VARCHAR", "score DOUBLE", "attempts BIGINT", "late BOOLEAN", "graded TIMESTAMP WITH TIME ZONE", "answer BLOB", "tags VARCHAR[]",
		"_id VARCHAR", "_rev BIGINT", "_epoch BIGINT", "_lineage VARCHAR", "_app_version VARCHAR", "_sources VARCHAR[]",
		"_event_time TIMESTAMP WITH TIME ZONE", "account_id VARCHAR", "env_id VARCHAR",
	}, types)

	var student, tag string
	var micros, nulls int64
	var answer []byte
	require.NoError(t, db.QueryRow("SELECT student, tags[2], epoch_us(_event_time), answer FROM read_parquet(?) WHERE _id = 'b'", path).
		Scan(&student, &tag, &micros, &answer))
	require.Equal(t, []any{"student-b", "üb", int64(1234567), []byte{0, 0xff, 1}}, []any{student, tag, micros, answer})
	require.NoError(t, db.QueryRow("SELECT count(*) FROM read_parquet(?) WHERE graded IS NULL", path).Scan(&nulls))
	require.EqualValues(t, 2, nulls)
	var ids int64
	require.NoError(t, db.QueryRow("SELECT count(DISTINCT field_id) FROM parquet_schema(?) WHERE field_id > 0", path).Scan(&ids))
	require.EqualValues(t, 16+2, ids, "each column and each list's element has an Iceberg field id")
}
