package millrace_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/apps/lms"
	"millrace/engine"
	"millrace/etl"
	"millrace/lake"
	"millrace/plan"
	"millrace/record"
	"millrace/sink"
	"millrace/sink/iceberg"
)

// BenchmarkJob runs the shipped ETL app over records in memory: scan, filter, two keyed joins, Avro, outbox, synced commits and
// Iceberg tables. It reports CPU microseconds per record, and how many times that is the CPU of validating the same bytes, which
// is measured in the same run, before and after.
//
// The records are official-shaped 1.4 kB OutcomeEvents, 100,000 of them, over 20,000 students in 1,000 sections; 2 % of the records
// are changed entities, and 5 % of the entities come after the first event that needs them. With correct=1h, which is the default
// of a join, every joined record is kept for an hour in both joins; with correct=0s none is.
func BenchmarkJob(b *testing.B) {
	for _, bench := range []struct {
		workers int
		correct time.Duration
	}{{1, 0}, {1, time.Hour}, {2, 0}, {2, time.Hour}} {
		b.Run(fmt.Sprintf("workers=%d/correct=%s", bench.workers, bench.correct), func(b *testing.B) {
			items, bytes := benchItems(100_000)
			app := benchApp(b, bench.correct)
			var job, floor time.Duration
			for b.Loop() {
				floor += cpu(func() { validate(b, items) })
				job += cpu(func() { runJob(b, app, items, bench.workers) })
				floor += cpu(func() { validate(b, items) })
			}
			floor /= 2
			n := float64(len(items) * b.N)
			b.ReportMetric(float64(job.Microseconds())/n, "cpu-µs/record")
			b.ReportMetric(float64(floor.Microseconds())/n, "floor-µs/record")
			b.ReportMetric(float64(job)/float64(floor), "×floor")
			b.ReportMetric(float64(bytes)/float64(len(items)), "B/record")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// cpu returns the processor time that the whole process used meanwhile.
func cpu(fn func()) time.Duration {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			panic(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	fn()
	return used() - before
}

func validate(b *testing.B, items []record.Item) {
	for i := range items {
		require.NoError(b, record.Validate(items[i].Bytes))
	}
}

// benchApp is the shipped app, with joins that are corrected for as long as told.
func benchApp(b *testing.B, correct time.Duration) etl.App {
	app := lms.App
	app.Tables = slices.Clone(app.Tables)
	for i := range app.Tables {
		if t, ok := app.Tables[i].(etl.Table[lms.QuizSubmission]); ok {
			t.Joins = slices.Clone(t.Joins)
			for j := range t.Joins {
				t.Joins[j] = t.Joins[j].CorrectFor(correct)
			}
			app.Tables[i] = t
			return app
		}
	}
	b.Fatal("the app has no table of quiz submissions")
	return app
}

func runJob(b *testing.B, app etl.App, items []record.Item, workers int) {
	p, err := app.Plan()
	require.NoError(b, err)
	dir := b.TempDir()
	l, err := lake.Open(b.Context(), lake.Config{Dir: dir + "/lake"})
	require.NoError(b, err)
	toLake, err := iceberg.Open(b.Context(), iceberg.Config{Lake: l, Namespace: "bench", Plan: p})
	require.NoError(b, err)
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	e, err := engine.Open(ctx, engine.Config{
		Dir: dir + "/job", Plan: p, Instance: "bench", Job: "bench", Source: memorySource{items}, Workers: workers,
		Sinks: []sink.Sink{toLake}, CacheBytes: 64 << 20,
		OnEpoch: func(p engine.Progress) {
			if p.Read == int64(len(items)) {
				stop()
			}
		},
	})
	require.NoError(b, err)
	require.NoError(b, e.Run(ctx)) // a clean stop publishes all
	require.NoError(b, e.Close())
	t, err := l.Lookup(b.Context(), lake.Name{Namespace: "bench", Table: "quiz_submission"})
	require.NoError(b, err)
	rows, err := t.Count(b.Context())
	require.NoError(b, err)
	events := 0
	for i := range items {
		if items[i].Kind == record.Event {
			events++
		}
	}
	require.EqualValues(b, events, rows)
	require.NoError(b, l.Close())
}

// memorySource is a log that lies in memory: one partition, all of it there.
type memorySource struct{ items []record.Item }

func (s memorySource) Ends(context.Context) (plan.Offsets, error) {
	return plan.Offsets{0: int64(len(s.items))}, nil
}

func (s memorySource) Read(_ context.Context, from plan.Offsets) (engine.Reader, error) {
	return &memoryReader{s.items[from[0]:]}, nil
}

type memoryReader struct{ rest []record.Item }

func (r *memoryReader) Poll(ctx context.Context, maxRecords, maxBytes int) ([]record.Item, error) {
	if len(r.rest) == 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	n, size := 0, 0
	for n < len(r.rest) && n < maxRecords && size < maxBytes {
		size += len(r.rest[n].Bytes)
		n++
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out, nil
}

func (r *memoryReader) Close() {}

// benchItems makes n records from a fixed seed.
func benchItems(n int) (items []record.Item, bytes int) {
	const students, sections = 20_000, 1_000
	rnd := rand.New(rand.NewPCG(1, 2))
	start := time.Date(2026, 9, 14, 8, 0, 0, 0, time.UTC)
	var late []record.Item
	add := func(kind record.Kind, id, body string, delay bool) {
		it := record.Item{
			Account: "deepthought", Env: "deepthought3", SourceType: "EDGENUITY_LMS", Sensor: "https://lms.example.edu/sensor",
			Kind: kind, ID: id, SendTime: start, ReceivedAt: start, Bytes: []byte(body),
		}
		if delay {
			late = append(late, it)
			return
		}
		items = append(items, it)
	}
	for s := range sections {
		id, body := benchAssignment(s, 0)
		add(record.Entity, id, body, rnd.IntN(100) < 5)
	}
	for s := range students {
		id, body := benchMembership(s, s%sections, 0)
		add(record.Entity, id, body, rnd.IntN(100) < 5)
	}
	for i := 0; len(items)+len(late) < n; i++ {
		switch rnd.IntN(100) {
		case 0:
			id, body := benchAssignment(rnd.IntN(sections), i)
			add(record.Entity, id, body, false)
		case 1:
			s := rnd.IntN(students)
			id, body := benchMembership(s, s%sections, i)
			add(record.Entity, id, body, false)
		default:
			id, body := benchOutcome(i, rnd.IntN(students), sections, start.Add(time.Duration(i)*time.Millisecond))
			add(record.Event, id, body, false)
		}
		if len(late) > 0 && i%40 == 0 && i > n/10 {
			items, late = append(items, late[0]), late[1:]
		}
	}
	items = append(items, late...)
	for i := range items {
		items[i].Position = record.Position{Topic: "ingest-prime", Offset: int64(i)}
		bytes += len(items[i].Bytes)
	}
	return items, bytes
}

func benchAssignment(section, revision int) (id, body string) {
	id = fmt.Sprintf("https://example.edu/terms/202609/courses/%d/sections/%d/assign/1", section/10, section)
	return id, fmt.Sprintf(`{"@context":"http://purl.imsglobal.org/ctx/caliper/v1/Context","@id":%q,"@type":"http://purl.imsglobal.org/caliper/v1/AssignableDigitalResource","name":"Quiz %d, revision %d","description":null,"extensions":{"moduleType":"quiz","courseSection":{"@id":"https://example.edu/terms/202609/courses/%d/sections/%d","@type":"http://purl.imsglobal.org/caliper/v1/lis/CourseSection","subOrganizationOf":{"@id":"https://example.edu/terms/202609/courses/%d","@type":"http://purl.imsglobal.org/caliper/v1/lis/CourseOffering"}}},"dateCreated":"2026-08-01T06:00:00.000Z","dateModified":%q,"maxAttempts":2,"maxScore":100.0}`,
		id, section, revision, section/10, section, section/10, time.Date(2026, 9, 1, 0, 0, revision, 0, time.UTC).Format(time.RFC3339))
}

func benchMembership(student, section, revision int) (id, body string) {
	id = fmt.Sprintf("https://example.edu/terms/202609/sections/%d/rosters/%d", section, student)
	return id, fmt.Sprintf(`{"@context":"http://purl.imsglobal.org/ctx/caliper/v1/Context","@id":%q,"@type":"http://purl.imsglobal.org/caliper/v1/lis/Membership","name":"Roster entry, revision %d","member":{"@id":"https://example.edu/users/%d","@type":"http://purl.imsglobal.org/caliper/v1/lis/Person"},"organization":{"@id":"https://example.edu/terms/202609/courses/%d/sections/%d","@type":"http://purl.imsglobal.org/caliper/v1/lis/CourseSection"},"roles":["http://purl.imsglobal.org/vocab/lis/v2/membership#Learner"],"status":"http://purl.imsglobal.org/vocab/lis/v2/status#Active","dateModified":%q}`,
		id, revision, student, section/10, section, time.Date(2026, 9, 1, 0, 0, revision, 0, time.UTC).Format(time.RFC3339))
}

func benchOutcome(i, student, sections int, at time.Time) (id, body string) {
	section := student % sections
	assignment := fmt.Sprintf("https://example.edu/terms/202609/courses/%d/sections/%d/assign/1", section/10, section)
	id = fmt.Sprintf("urn:uuid:7b6c2f1e-0000-4000-8000-%012x", i)
	when := at.Format(time.RFC3339Nano)
	return id, fmt.Sprintf(`{"@context":"http://purl.imsglobal.org/ctx/caliper/v1/Context","@id":%q,"@type":"http://purl.imsglobal.org/caliper/v1/OutcomeEvent","actor":{"@id":"https://example.edu/autograder","@type":"http://purl.imsglobal.org/caliper/v1/SoftwareApplication","name":"Auto grader","description":null,"extensions":{},"dateCreated":"2026-08-01T06:00:00.000Z","dateModified":"2026-08-02T11:30:00.000Z"},"action":"http://purl.imsglobal.org/vocab/caliper/v1/action#Graded","object":{"@id":"%s/users/%d/attempts/%d","@type":"http://purl.imsglobal.org/caliper/v1/Attempt","name":null,"description":null,"extensions":{},"assignable":{"@id":%q,"@type":"http://purl.imsglobal.org/caliper/v1/Assessment"},"actor":"https://example.edu/users/%d","count":1,"startedAtTime":%q,"endedAtTime":null,"duration":null},"target":null,"generated":{"@id":"%s/users/%d/attempts/%d/result","@type":"http://purl.imsglobal.org/caliper/v1/Result","extensions":{},"actor":{"@id":"https://example.edu/users/%d","@type":"http://purl.imsglobal.org/caliper/v1/lis/Person"},"normalScore":%d.0,"penaltyScore":0.0,"extraCreditScore":0.0,"totalScore":%d.0,"curvedTotalScore":%d.0,"curveFactor":0.0,"comment":"Well done."},"eventTime":%q,"edApp":{"@id":"https://example.edu","@type":"http://purl.imsglobal.org/caliper/v1/SoftwareApplication"}}`,
		id, assignment, student, i, assignment, student, when, assignment, student, i, student, i%100, i%100, i%100, when)
}
