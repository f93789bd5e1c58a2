package index_test

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/index"
)

// rowBatch is a bulk request of 1,000 rows as the sink sends them.
func rowBatch(batch int) []byte {
	var b bytes.Buffer
	for i := range 1000 {
		n := batch*1000 + i
		at := time.Date(2026, 1, 1, 0, 0, n*37, 123456000, time.UTC).Format("2006-01-02T15:04:05.000000Z")
		fmt.Fprintf(&b, `{"index":{"_index":"rows","_id":"%032x","version":1,"version_type":"external_gte"}}
{"attemptId":"https://example.edu/attempts/%d","courseId":"https://example.edu/courses/%d","dateAndTime":"%s","role":"Learner","score":%d.5,"studentId":"https://example.edu/students/%d","row_id":"%032x","_rev":1,"_epoch":%d,"_lineage":"L1","_app_version":"1.0.34","account_id":"deepthought","env_id":"prod","_sources":["event urn:uuid:%032x ingest-prime/0/%d","entity https://example.edu/courses/%d ingest-prime/0/%d"],"_event_time":"%s"}
`, n*7919, n, n%40, at, n%100, n%3000, n*7919, batch, n, n, n%40, n%1000, at)
	}
	return b.Bytes()
}

const rowMapping = `{"mappings":{"dynamic":"strict","properties":{"attemptId":{"type":"keyword"},"courseId":{"type":"keyword"},"dateAndTime":{"type":"date"},"role":{"type":"keyword"},"score":{"type":"double"},"studentId":{"type":"keyword"},"row_id":{"type":"keyword"},"_rev":{"type":"long"},"_epoch":{"type":"long"},"_lineage":{"type":"keyword"},"_app_version":{"type":"keyword"},"account_id":{"type":"keyword"},"env_id":{"type":"keyword"},"_sources":{"type":"keyword"},"_event_time":{"type":"date"}}}}`

func benchServer(b *testing.B, batches int) func(method, path string, body []byte) {
	b.Helper()
	s, err := index.Open(index.Config{Path: filepath.Join(b.TempDir(), "index.db")})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, s.Close()) })
	call := func(method, path string, body []byte) {
		r := httptest.NewRequest(method, path, bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		require.Equal(b, 200, w.Code, w.Body)
		require.NotContains(b, w.Body.String(), `"errors":true`)
	}
	call("PUT", "/rows", []byte(rowMapping))
	for i := range batches {
		call("POST", "/_bulk", rowBatch(i))
	}
	return call
}

var highWater = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// reportMemory adds the process's largest resident size.
func reportMemory(b *testing.B) {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return // not Linux
	}
	if m := highWater.FindSubmatch(status); m != nil {
		kb, err := strconv.ParseFloat(string(m[1]), 64)
		require.NoError(b, err)
		b.ReportMetric(kb/1024, "peak-MB")
	}
}

func BenchmarkBulk(b *testing.B) {
	for _, present := range []int{0, 400} {
		b.Run(fmt.Sprintf("onto%dk", present), func(b *testing.B) {
			call := benchServer(b, present)
			batch := present
			for b.Loop() {
				body := rowBatch(batch)
				batch++
				call("POST", "/_bulk", body)
			}
			b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "docs/s")
			reportMemory(b)
		})
	}
}

func BenchmarkSearch(b *testing.B) {
	call := benchServer(b, 400)
	for name, body := range map[string]string{
		"day_by_course_sum": `{"size":0,"aggs":{"day":{"date_histogram":{"field":"_event_time","calendar_interval":"day"},"aggs":{"course":{"terms":{"field":"courseId","size":50},"aggs":{"sum":{"sum":{"field":"score"}}}}}}}}`,
		"course_by_day_sum": `{"size":0,"query":{"range":{"_event_time":{"gte":"2026-02-01"}}},"aggs":{"course":{"terms":{"field":"courseId","size":50},"aggs":{"day":{"date_histogram":{"field":"_event_time","calendar_interval":"day","time_zone":"America/New_York"},"aggs":{"sum":{"sum":{"field":"score"}}}}}}}}`,
		"newest_50":         `{"size":50,"sort":[{"_event_time":"desc"}]}`,
		"one_student":       `{"size":100,"query":{"term":{"studentId":"https://example.edu/students/77"}},"sort":[{"_event_time":"desc"}]}`,
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				call("POST", "/rows/_search", []byte(body))
			}
			reportMemory(b)
		})
	}
}
