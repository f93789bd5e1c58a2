package ingest_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"millrace/ingest"
	"millrace/lake"
	"millrace/plan"
	"millrace/record"
)

// BenchmarkRawLake writes and commits 100,000 events of 1.4 kB a time to raw.events, spread over four days.
func BenchmarkRawLake(b *testing.B) {
	ctx := context.Background()
	const n = 100_000
	p := ingest.Plan("1.0.0")
	items := make([]record.Item, n)
	var bytes int64
	for i := range items {
		at := time.Date(2020, 2, 3+i%4, i%24, i%60, i%59, 0, time.UTC)
		items[i] = item(record.Event, int64(i), event(i, at))
		bytes += int64(len(items[i].Bytes))
	}
	out := plan.NewOutput(p)
	start := time.Now()
	p.Read(items, out)
	b.Logf("read %d items of %d bytes in %v", n, bytes/n, time.Since(start))

	l, err := lake.Open(ctx, lake.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	tbl, err := l.Table(ctx, ingest.Namespace, p.Tables[ingest.Events])
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(bytes)
	b.ReportAllocs()
	epoch, stored := uint64(0), int64(0)
	for b.Loop() {
		epoch++
		pending, err := tbl.Write(ctx, out.Rows, "L", "1.0.0")
		if err != nil {
			b.Fatal(err)
		}
		if err := tbl.Commit(ctx, pending, lake.Position{Lineage: "L", FromEpoch: epoch, ToEpoch: epoch}); err != nil {
			b.Fatal(err)
		}
		stored = pending.Bytes
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(stored)/n, "stored-B/row")
}

// event is a view of one of many pages by one of many students, padded to 1.4 kB by what sensors repeat in each event.
func event(i int, at time.Time) string {
	s := fmt.Sprintf(`{"@context":"http://purl.imsglobal.org/ctx/caliper/v1p1","id":"urn:uuid:%08x-%04x-4000-8000-%012x","type":"ViewEvent","action":"Viewed","eventTime":%q,`+
		`"actor":{"id":"https://example.edu/users/%d","type":"Person","name":"Student %d"},"object":{"id":"https://example.edu/courses/%d/pages/%d","type":"Page"},`,
		uint32(i)*2654435761, i&0xffff, uint64(i)*6364136223846793005&0xffffffffffff, at.Format(time.RFC3339), i*7919%5000, i*7919%5000, i%40, i*31%900)
	pad := strings.Repeat(`"http://purl.imsglobal.org/vocab/caliper/v1/role#Learner",`, 20)
	return (s + `"roles":[` + pad)[:1390] + `x"]}`
}
