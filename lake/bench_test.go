package lake_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/lake"
	"millrace/plan"
)

// BenchmarkCommit commits small batches with a correction each, as a table with a short flush time does, and compares the
// last hundred with the first. Run it with -benchtime 300x or more.
func BenchmarkCommit(b *testing.B) {
	tbl := openTable(b, openLake(b, lake.Config{KeepFor: time.Second}))
	took := make([]time.Duration, 0, b.N)
	for b.Loop() {
		e := uint64(len(took) + 1)
		start := time.Now()
		publish(b, tbl, e, e, quiz(fmt.Sprint(e), 1, e, int64(e%3)*day), quiz("hot", e, e, 0))
		if e%32 == 0 {
			if _, err := tbl.Compact(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		took = append(took, time.Since(start))
	}
	mean := func(d []time.Duration) float64 {
		var sum time.Duration
		for _, v := range d {
			sum += v
		}
		return float64(sum.Microseconds()) / 1000 / float64(len(d))
	}
	n := min(100, len(took))
	b.ReportMetric(mean(took[:n]), "first100-ms/commit")
	b.ReportMetric(mean(took[len(took)-n:]), "last100-ms/commit")
}

// BenchmarkWrite writes rows like those of quiz_submission, in the order in which the engine's stages leave them, as one file. It
// reports what a row costs without the commit: microseconds of all processors, allocations and bytes on disk.
func BenchmarkWrite(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		b.Run(fmt.Sprintf("rows=%d", n), func(b *testing.B) {
			rows := submissionRows(n)
			tbl, err := openLake(b, lake.Config{}).Table(b.Context(), "v1", submissions)
			require.NoError(b, err)
			var used time.Duration
			var before, after runtime.MemStats
			var allocated, stored uint64
			epoch := uint64(0)
			for b.Loop() {
				epoch++
				runtime.ReadMemStats(&before)
				start := cpu(b)
				p, err := tbl.Write(b.Context(), rows, "0193e5a1", "1.0.34")
				used += cpu(b) - start
				runtime.ReadMemStats(&after)
				require.NoError(b, err)
				require.EqualValues(b, n, p.Rows)
				allocated += after.TotalAlloc - before.TotalAlloc
				stored += uint64(p.Bytes)
				require.NoError(b, tbl.Commit(b.Context(), p, lake.Position{Lineage: "L", FromEpoch: epoch, ToEpoch: epoch}))
			}
			total := float64(n) * float64(b.N)
			b.ReportMetric(float64(used.Nanoseconds())/1000/total, "cpu-µs/row")
			b.ReportMetric(float64(allocated)/total, "alloc-B/row")
			b.ReportMetric(float64(stored)/total, "stored-B/row")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// cpu is the processor time that the process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// submissions has the columns of quiz_submission.
var submissions = plan.Table{
	Name: "quiz_submission",
	Schema: plan.Schema{Name: "QuizSubmission", Columns: []plan.Column{
		{Name: "action", Type: plan.String, Nullable: true},
		{Name: "activityId", Type: plan.String},
		{Name: "activityType", Type: plan.String, Nullable: true},
		{Name: "attemptId", Type: plan.String, Nullable: true},
		{Name: "courseId", Type: plan.String, Nullable: true},
		{Name: "sectionId", Type: plan.String, Nullable: true},
		{Name: "dateAndTime", Type: plan.Timestamp},
		{Name: "role", Type: plan.String, Nullable: true},
		{Name: "score", Type: plan.Double},
		{Name: "maxScore", Type: plan.Double, Nullable: true},
		{Name: "studentId", Type: plan.String},
	}},
}

// submissionRows are n of one day, by 20,000 students in 1,000 sections. The stages sort each epoch's by a hash.
func submissionRows(n int) []plan.Row {
	rnd := rand.New(rand.NewPCG(1, 2))
	rows := make([]plan.Row, 0, n)
	text := func(format string, args ...any) plan.Cell { return plan.Cell{Bytes: fmt.Appendf(nil, format, args...)} }
	start := time.Date(2026, 9, 14, 8, 0, 0, 0, time.UTC).UnixMicro()
	const epoch = 20_000
	for len(rows) < n {
		from := len(rows)
		for _, i := range rnd.Perm(min(epoch, n-from)) {
			i += from
			student := rnd.IntN(20_000)
			section := student % 1_000
			course := fmt.Sprintf("https://example.edu/terms/202609/courses/%d", section/10)
			at := start + int64(i)*1000
			value, err := submissions.Schema.Append(nil, []plan.Cell{
				text("Graded"),
				text("%s/sections/%d/assign/1", course, section),
				text("quiz"),
				text("%s/sections/%d/assign/1/users/%d/attempts/%d", course, section, student, i),
				text("%s", course),
				text("%s/sections/%d", course, section),
				{Int: at},
				text("Learner"),
				{Float: float64(i % 100)},
				{Null: true},
				text("https://example.edu/users/%d", student),
			})
			if err != nil {
				panic(err)
			}
			rows = append(rows, plan.Row{
				ID: fmt.Sprintf("%016x%016x", rnd.Uint64(), rnd.Uint64()), First: true, EventTime: at,
				Account: strings.Clone("deepthought"), Env: strings.Clone("deepthought3"), Value: value, Epoch: uint64(1 + i/epoch),
				Sources: []string{
					fmt.Sprintf("event urn:uuid:7b6c2f1e-0000-4000-8000-%012x ingest-prime/0/%d", i, 21_000+i),
					fmt.Sprintf("entity %s/sections/%d/assign/1 ingest-prime/0/%d", course, section, section),
					fmt.Sprintf("entity https://example.edu/terms/202609/sections/%d/rosters/%d ingest-prime/0/%d", section, student, 1_000+student),
				},
			})
		}
	}
	return rows
}

// BenchmarkContents asks a lake of 10,000 raw files, of 20 envs and 500 days, for everything and for a range that cuts files: as the first
// question after the lake was opened, and as any later one.
func BenchmarkContents(b *testing.B) {
	ctx := b.Context()
	dir := b.TempDir()
	tbl := openRaw(b, openLake(b, lake.Config{Dir: dir}))
	for e := range uint64(50) {
		var entries []lake.Entry
		for i := range 200 {
			at := time.Date(2017, 8, 1, 7, 0, i, 0, time.UTC).AddDate(0, 0, int(e)*10+i/20)
			entries = append(entries, lake.Entry{
				SourceType: lms, Account: fmt.Sprint("district-", i%20/3), Env: fmt.Sprint("env-", i%20), Oldest: at, Newest: at.Add(10 * time.Hour), Records: 100_000, Bytes: 100 << 20,
			})
		}
		require.NoError(b, tbl.Enter(ctx, lake.Position{Lineage: "L", FromEpoch: e + 1, ToEpoch: e + 1}, entries...))
	}
	ranged := lake.Selection{From: time.Date(2017, 12, 1, 12, 0, 0, 0, time.UTC), To: time.Date(2018, 6, 1, 12, 0, 0, 0, time.UTC)}
	var used time.Duration
	ask := func(b *testing.B, l *lake.Lake, sel lake.Selection) {
		start := cpu(b)
		all, err := l.Contents(ctx, "raw", sel)
		used += cpu(b) - start
		require.NoError(b, err)
		files := 0
		for _, s := range all[0].Shares {
			files += s.Files
		}
		require.Equal(b, sel == (lake.Selection{}), files == 10_000)
	}
	report := func(b *testing.B) {
		b.ReportMetric(float64(used.Microseconds())/1000/float64(b.N), "cpu-ms/op") // of all processors
		used = 0
	}
	b.Run("first", func(b *testing.B) {
		defer report(b)
		for b.Loop() {
			b.StopTimer()
			l, err := lake.Open(ctx, lake.Config{Dir: dir, ReadOnly: true})
			require.NoError(b, err)
			b.StartTimer()
			ask(b, l, lake.Selection{})
			b.StopTimer()
			require.NoError(b, l.Close())
			b.StartTimer()
		}
	})
	l := openLake(b, lake.Config{Dir: dir, ReadOnly: true})
	for name, sel := range map[string]lake.Selection{"all": {}, "range": ranged} {
		b.Run(name, func(b *testing.B) {
			ask(b, l, sel)
			defer report(b)
			used = 0
			for b.Loop() {
				ask(b, l, sel)
			}
		})
	}
}

// BenchmarkScan reads a table of rows like those of quiz_submission, a hundredth of them corrected: all columns, two, and two of three of its
// rows. It reports what a row of the table costs: microseconds of all processors and allocated bytes.
func BenchmarkScan(b *testing.B) {
	const n = 100_000
	rows := submissionRows(n)
	tbl, err := openLake(b, lake.Config{}).Table(b.Context(), "v1", submissions)
	require.NoError(b, err)
	for epoch, batch := range [][]plan.Row{rows, rows[:n/100]} {
		for i := range batch {
			batch[i].Rev, batch[i].First = uint64(epoch+1), epoch == 0
		}
		publish(b, tbl, uint64(epoch+1), uint64(epoch+1), batch...)
	}
	for _, test := range []struct {
		name string
		opts lake.ScanOptions
		rows int
	}{
		{"all", lake.ScanOptions{}, n},
		{"columns=2", lake.ScanOptions{Columns: []string{"_id", "_rev"}}, n},
		{"where", lake.ScanOptions{Columns: []string{"_id", "_sources"}, Where: map[string]any{"studentId": "https://example.edu/users/5"}}, 3},
	} {
		b.Run(test.name, func(b *testing.B) {
			var used time.Duration
			var before, after runtime.MemStats
			var allocated uint64
			for b.Loop() {
				runtime.ReadMemStats(&before)
				start, found := cpu(b), 0
				for _, err := range tbl.Scan(b.Context(), test.opts) {
					require.NoError(b, err)
					found++
				}
				used += cpu(b) - start
				runtime.ReadMemStats(&after)
				allocated += after.TotalAlloc - before.TotalAlloc
				require.Equal(b, test.rows, found)
			}
			total := float64(n) * float64(b.N)
			b.ReportMetric(float64(used.Nanoseconds())/1000/total, "cpu-µs/row")
			b.ReportMetric(float64(allocated)/total, "alloc-B/row")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkCompact joins 16 files of rows like those of quiz_submission, once as they were appended and once with a hundredth of the rows corrected. It
// reports what a row costs: microseconds of all processors and allocated bytes.
func BenchmarkCompact(b *testing.B) {
	const files, each = 16, 6_000
	for _, corrected := range []int{0, each / 100} {
		b.Run(fmt.Sprintf("corrected=%d", corrected), func(b *testing.B) {
			rows := submissionRows(files * each)
			var used time.Duration
			var before, after runtime.MemStats
			var allocated uint64
			for b.Loop() {
				tbl, err := openLake(b, lake.Config{Dir: b.TempDir()}).Table(b.Context(), "v1", submissions)
				require.NoError(b, err)
				for i := range uint64(files) {
					batch := slices.Clone(rows[i*each : (i+1)*each])
					if i > 0 {
						for _, r := range rows[(i-1)*each:][:corrected] {
							r.Rev, r.First = i+1, false
							batch = append(batch, r)
						}
					}
					publish(b, tbl, i+1, i+1, batch...)
				}
				runtime.ReadMemStats(&before)
				start := cpu(b)
				done, err := tbl.Compact(b.Context())
				used += cpu(b) - start
				runtime.ReadMemStats(&after)
				require.NoError(b, err)
				require.Equal(b, files, done.Removed)
				require.Equal(b, 1, done.Added)
				allocated += after.TotalAlloc - before.TotalAlloc
			}
			total := float64(files*each) * float64(b.N)
			b.ReportMetric(float64(used.Nanoseconds())/1000/total, "cpu-µs/row")
			b.ReportMetric(float64(allocated)/total, "alloc-B/row")
			b.ReportMetric(0, "ns/op")
		})
	}
}
