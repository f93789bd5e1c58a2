package eventlog_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/eventlog"
	"millrace/record"
)

// benchItems are n items of about a kilobyte that compress as events do.
func benchItems(n int) []record.Item {
	items := make([]record.Item, n)
	for i := range items {
		id := fmt.Sprintf("urn:uuid:3a648e68-f00d-4c08-aa59-%012d", i)
		value := fmt.Sprintf(`{"@context":"http://purl.imsglobal.org/ctx/caliper/v1p1","id":"%s","type":"NavigationEvent","actor":{"id":"https://example.edu/users/%d","type":"Person"},"action":"NavigatedTo","eventTime":"2016-11-15T10:15:%02d.000Z","object":{"id":"https://example.edu/terms/201601/courses/7/sections/1/pages/%d","type":"WebPage","extensions":{"p":"%s"}}}`,
			id, i*7919%100000, i%60, i%977, strings.Repeat(fmt.Sprint(i*31), 60))
		items[i] = record.Item{
			Account: "deepthought", Env: "deepthought3", SourceType: "EDGENUITY_LMS", Sensor: "https://example.edu/sensors/1",
			Kind: record.Event, ID: id, DataVersion: "http://purl.imsglobal.org/ctx/caliper/v1p1", Bytes: []byte(value),
		}
	}
	return items
}

// BenchmarkAppend appends to the embedded broker, which syncs every batch, from 64 callers: what a collector does.
func BenchmarkAppend(b *testing.B) {
	for _, each := range []int{1, 100} {
		b.Run(fmt.Sprintf("items=%d", each), func(b *testing.B) {
			log, err := eventlog.Open(b.Context(), embedded(b))
			require.NoError(b, err)
			defer log.Close()
			items := benchItems(each)
			b.SetBytes(int64(each * len(items[0].Bytes)))
			b.ReportAllocs()
			work := make(chan struct{}, b.N)
			for range b.N {
				work <- struct{}{}
			}
			close(work)
			b.ResetTimer()
			var group sync.WaitGroup
			for range 64 {
				group.Go(func() {
					for range work {
						if err := log.Append(b.Context(), items); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			group.Wait()
			b.ReportMetric(float64(b.N*each)/b.Elapsed().Seconds(), "items/s")
		})
	}
}

// BenchmarkRead reads a log through once an operation, in polls as large as an epoch.
func BenchmarkRead(b *testing.B) {
	const n = 100_000
	log, err := eventlog.Open(b.Context(), embedded(b))
	require.NoError(b, err)
	defer log.Close()
	items := benchItems(n)
	size := 0
	for from := 0; from < n; from += 5000 {
		require.NoError(b, log.Append(b.Context(), items[from:from+5000]))
		for i := range 5000 {
			size += len(items[from+i].Bytes)
		}
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		r, err := log.Read(b.Context(), nil)
		require.NoError(b, err)
		for got := 0; got < n; {
			items, err := r.Poll(b.Context(), 20_000, 16<<20)
			require.NoError(b, err)
			got += len(items)
		}
		require.NoError(b, r.Close())
	}
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "items/s")
}
