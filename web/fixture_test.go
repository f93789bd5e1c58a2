package web_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/web"
)

var update = flag.Bool("update", false, "write the golden pages")

// noon is the fixed clock of the golden pages.
var noon = time.Date(2026, 9, 14, 12, 0, 0, 0, time.UTC)

// pipeline is a fixed world that the console looks at. Its numbers are a function of how long it has run.
type pipeline struct {
	mu      sync.Mutex
	now     func() time.Time
	started time.Time
	broken  error // Status fails with it
	unread  error // Rows and DeadLetters fail with it
	hold    bool  // nothing moves
	tweak   func(*web.Status)
}

func newPipeline(now func() time.Time) *pipeline { return &pipeline{now: now, started: now()} }

func (p *pipeline) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken = err
}

func (p *pipeline) status(_ context.Context, account string) (web.Status, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != nil {
		return web.Status{}, p.broken
	}
	now := p.now()
	s := int64(now.Sub(p.started).Seconds())
	if p.hold {
		s = 0
	}
	wave := (s % 60) * (60 - s%60) / 4 // the rate is not a flat line
	items := 1_204_551 + 412*s + wave
	events, entities, rejects := items*7/10, items*3/10-57, int64(42)
	names := []string{"activity_view", "annotation", "enrollment", "item_response", "quiz_submission", "session_event"}
	st := web.Status{
		StartedAt: now.Add(-12*time.Minute - 5*time.Second),
		Version:   "1.0.0",
		DataDir:   "/var/lib/millrace",
		Collected: web.Collected{Items: new(items)},
		Lake: web.Lake{Events: new(events), Entities: new(entities), Rejects: new(rejects), Tables: []web.LakeTable{
			{Name: "events", Files: 1_210, Bytes: 41_000_000_000, Snapshots: 131, Compacted: noon.Add(-17 * time.Minute)},
			{Name: "entities", Files: 37, Bytes: 902_000_000, Snapshots: 104, Compacted: noon.Add(-3 * time.Hour)},
			{Name: "rejects", Files: 1, Bytes: 18_000, Snapshots: 1},
		}},
		Jobs: []web.Job{
			{
				Name: "crusher-prime-job", UniqueID: "crusher-prime-all-all--unversioned", State: "RUNNING", Epoch: uint64(18_204 + s), Read: items,
				LagRecords: new(int64(0)), LagSeconds: new(0.0),
				Sinks: []web.Sink{{Name: "lake", BehindEpochs: 21, BehindSeconds: new(8.4)}},
			},
			{
				Name: "ingest-etl-edgenuity-lms-job", UniqueID: "ingest-etl-edgenuity-lms-demo-demo1--20260914113000", State: "RUNNING",
				DataVersion: "20260914113000", Serving: true,
				Epoch: uint64(17_930 + s), Read: items - 731, LagRecords: new(int64(731)), LagSeconds: new(1.4), OutboxBytes: 2_410_000,
				Sinks: []web.Sink{{Name: "elastic", BehindEpochs: 2, BehindSeconds: new(0.4)}, {Name: "iceberg", BehindEpochs: 31, BehindSeconds: new(29.0)}},
			},
			{
				Name: "ingest-etl-edgenuity-lms-job", UniqueID: "ingest-etl-edgenuity-lms-demo-demo1--20260914120112", State: "SEEDING 62 %",
				DataVersion: "20260914120112", Epoch: uint64(311 + s), Read: items * 62 / 100, LagRecords: new(items * 38 / 100), OutboxBytes: 9_120_000,
				Sinks: []web.Sink{{Name: "elastic", BehindEpochs: 3, BehindSeconds: new(1.1)}, {Name: "iceberg", BehindEpochs: 12, BehindSeconds: new(21.0)}},
			},
		},
		CollectorURL: "http://127.0.0.1:8080/caliper",
	}
	share := []int64{41, 3, 9, 22, 5, 12}
	for i, name := range names {
		t := web.Table{
			Name: name, Rows: new(events * share[i] / 100), Waiting: new(int64(0)), DeadLetters: new(int64(0)),
			NewestEvent: now.Add(-time.Duration(i+1) * 1300 * time.Millisecond),
		}
		if name == "quiz_submission" {
			t.Waiting, t.DeadLetters = new(118+s%40), new(int64(2))
		}
		if name == "annotation" {
			t.NewestEvent = now.Add(-31 * time.Hour)
		}
		st.Tables = append(st.Tables, t)
	}
	st.Tables = append(st.Tables, web.Table{Name: "dead_letter", Rows: new(int64(2)), NewestEvent: now.Add(-42 * time.Second)})
	st.Ledger = web.Ledger{
		At: now.Add(-2 * time.Second),
		Accounts: []web.Account{
			{
				Name: "collector to lake", Total: web.Amount{Name: "collected", Count: items},
				Parts: []web.Amount{{Name: "events", Count: events}, {Name: "entities", Count: entities}, {Name: "rejects", Count: rejects}, {Name: "on their way", Count: items - events - entities - rejects}},
			},
			{
				Name: "ingest-etl-edgenuity-lms-job", Total: web.Amount{Name: "read", Count: items - 731},
				Parts: []web.Amount{{Name: "in rows", Count: items - 731 - 400_000 - 120}, {Name: "of no table", Count: 400_000}, {Name: "waiting", Count: 118}, {Name: "dead letters", Count: 2}},
			},
		},
	}
	for i, name := range names {
		rows := *st.Tables[i].Rows
		a := web.Account{Name: "records of " + name, Total: web.Amount{Name: "records", Count: rows}, Parts: []web.Amount{
			{Name: "rows", Count: rows}, {Name: "dead letters", Count: *st.Tables[i].DeadLetters}, {Name: "waiting", Count: *st.Tables[i].Waiting}, {Name: "dropped"}, {Name: "on their way"},
		}}
		a.Total.Count -= a.Difference()
		st.Ledger.Accounts = append(st.Ledger.Accounts, a)
	}
	if p.tweak != nil {
		p.tweak(&st)
	}
	return st, nil
}

func (p *pipeline) rows(_ context.Context, account, table string, n int) ([]string, [][]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unread != nil {
		return nil, nil, p.unread
	}
	columns := []string{"attemptId", "courseId", "dateAndTime", "role", "score", "studentId", "_id", "_rev", "_epoch", "_lineage", "_app_version", "_sources", "_event_time", "account_id", "env_id"}
	var rows [][]string
	now := p.now()
	for i := range n {
		k := int(now.Sub(p.started).Seconds()) - i + 5000
		role := "Learner"
		if i%4 == 2 {
			role = ""
		}
		at := now.Add(-time.Duration(i) * 700 * time.Millisecond).UTC().Format(time.RFC3339Nano)
		rows = append(rows, []string{
			fmt.Sprintf("https://demo1.example.edu/attempts/%d", k), fmt.Sprintf("https://demo1.example.edu/courses/%d", k%9), at, role,
			fmt.Sprintf("%.1f", float64(k*37%500)/5), fmt.Sprintf("urn:uuid:3f2a9c1d-0000-4000-8000-%012d", k%4000),
			fmt.Sprintf("%016x", k*2654435761), "1", fmt.Sprint(17_930 + k), "0198a6c2", "1.0.0",
			fmt.Sprintf("event urn:uuid:%08d ingest-prime/3/%d entity https://demo1.example.edu/memberships/%d ingest-prime/1/%d", k, k*3, k%4000, k), at, "demo", "demo1",
		})
	}
	return columns, rows, nil
}

func (p *pipeline) deadLetters(context.Context, string, int) ([]web.DeadLetter, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unread != nil {
		return nil, p.unread
	}
	return []web.DeadLetter{
		{
			At: p.now().Add(-42 * time.Second), App: "ingest-etl-edgenuity-lms-job", Stage: "quiz_submission",
			Record:  "event urn:uuid:7c0fc54b-cf0d-4f2b-9d4c-6b2f0c1e9a11 ingest-prime/3/40212",
			Reasons: []string{`event.generated.totalScore is the string "n/a", want a number`, "activity.extensions.courseSection.subOrganizationOf.@id is missing"},
		},
		{
			At: p.now().Add(-26 * time.Hour), App: "ingest-etl-edgenuity-lms-job", Stage: "elastic",
			Record:  "event urn:uuid:0b7e1c32-2f53-4a0b-8a5d-9f1c7a9d2e77 ingest-prime/0/118",
			Reasons: []string{"document is 104 MB, the index takes at most 100 MB"},
		},
	}, nil
}

func (p *pipeline) config() web.Config {
	return web.Config{Stack: "master-prod1", Status: p.status, Rows: p.rows, DeadLetters: p.deadLetters, Now: p.now}
}

func newServer(t testing.TB, cfg web.Config) *web.Server {
	t.Helper()
	s, err := web.New(cfg)
	require.NoError(t, err)
	return s
}

// get answers one GET as a browser's, or as a program's when accept is empty.
func get(h http.Handler, target, accept string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func page(h http.Handler, target string) *httptest.ResponseRecorder {
	return get(h, target, "text/html,application/xhtml+xml")
}

// golden compares got with a file of testdata, or writes it with -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, got, 0o644))
		return
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "run go test ./web -update")
	require.Equal(t, string(want), string(got), "%s differs; if it should, run go test ./web -update", path)
}

// errDisk is a cause that a page has to show.
var errDisk = errors.New("read /var/lib/millrace/control.db: input/output error")

func drain(t *testing.T, body io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(body)
	require.NoError(t, err)
	return string(b)
}

// steppedClock moves only when told.
type steppedClock struct {
	mu sync.Mutex
	at time.Time
}

func (c *steppedClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *steppedClock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// listenAgain takes an address that a server has just left.
func listenAgain(address string) (net.Listener, error) { return net.Listen("tcp", address) }
