package ingest_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/ingest"
	"millrace/lake"
	"millrace/plan"
	"millrace/record"
	"millrace/sink"
	"millrace/sink/iceberg"
)

var received = time.Date(2020, 2, 3, 4, 5, 6, 789000, time.UTC)

func item(kind record.Kind, offset int64, bytes string) record.Item {
	return record.Item{
		Account: "acme", Env: "prod", SourceType: "EDGENUITY_LMS", Sensor: "https://example.edu/sensor", Kind: kind,
		ReceivedAt: received, Position: record.Position{Topic: "ingest-prime", Partition: 3, Offset: offset}, Bytes: []byte(bytes),
	}
}

// run takes items through the plan, the sink and the lake, and returns the rows of the lake's tables by offset.
func run(t *testing.T, items ...record.Item) map[string]map[int64]lake.Row {
	t.Helper()
	ctx := context.Background()
	p := ingest.Plan("1.0.0")
	out := plan.NewOutput(p)
	p.Read(items, out)
	require.EqualValues(t, len(items), out.Counts[0], "items read")
	require.EqualValues(t, len(items), out.Counts[1]+out.Counts[2]+out.Counts[3], "items read and rows made")
	for i := range out.Rows {
		out.Rows[i].Epoch = 1
	}
	l, err := lake.Open(ctx, lake.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	s, err := iceberg.Open(ctx, iceberg.Config{Lake: l, Namespace: ingest.Namespace, Plan: p})
	require.NoError(t, err)
	require.NoError(t, s.Begin(ctx, sink.Lineage{ID: "L", Token: 1}, nil))
	rejected, err := s.Publish(ctx, sink.Batch{Lineage: "L", FromEpoch: 1, ToEpoch: 1, Rows: out.Rows, ToOffsets: plan.Offsets{3: 9}})
	require.NoError(t, err)
	require.Empty(t, rejected)
	rows := map[string]map[int64]lake.Row{}
	for _, table := range p.Tables {
		tbl, err := l.Lookup(ctx, lake.Name{Namespace: ingest.Namespace, Table: table.Name})
		require.NoError(t, err)
		rows[table.Name] = map[int64]lake.Row{}
		for row, err := range tbl.Scan(ctx, lake.ScanOptions{}) {
			require.NoError(t, err)
			rows[table.Name][row["offset"].(int64)] = row
		}
	}
	return rows
}

func TestPlanIsSound(t *testing.T) {
	t.Parallel()
	p := ingest.Plan("1.0.0")
	require.NoError(t, p.Check())
	require.Equal(t, "events", p.Tables[ingest.Events].Name)
	require.Equal(t, "entities", p.Tables[ingest.Entities].Name)
	require.Equal(t, "rejects", p.Tables[ingest.Rejects].Name)
	for _, table := range p.Tables {
		require.True(t, table.AppendOnly)
	}
}

func TestColumns(t *testing.T) {
	t.Parallel()
	event := item(record.Event, 1, ` {"@context":"http://purl.imsglobal.org/ctx/caliper/v1p1", "id":"urn:uuid:1","type":"ViewEvent","eventTime":"2018-11-15T10:15:00.000Z","actor":{}} `)
	event.SendTime = received.Add(-time.Second)
	event.DataVersion = "http://purl.imsglobal.org/ctx/caliper/v1p1"
	rows := run(t, event)
	require.Equal(t, map[int64]lake.Row{1: {
		"account": "acme", "env": "prod", "source_type": "EDGENUITY_LMS", "kind": "event", "type": "ViewEvent", "id": "urn:uuid:1",
		"event_time": time.Date(2018, 11, 15, 10, 15, 0, 0, time.UTC), "received_at": received.Truncate(time.Microsecond),
		"send_time": received.Add(-time.Second).Truncate(time.Microsecond), "sensor": "https://example.edu/sensor",
		"data_version": "http://purl.imsglobal.org/ctx/caliper/v1p1", "topic": "ingest-prime", "partition": int64(3), "offset": int64(1),
		"reason": nil, "bytes": event.Bytes,
	}}, rows["events"])
	require.Empty(t, rows["entities"])
	require.Empty(t, rows["rejects"])
}

func TestWhereItemsGo(t *testing.T) {
	t.Parallel()
	reject := item(record.Reject, 4, "\x00\xff not JSON")
	reject.Reason = "not JSON \xff"
	noTime := item(record.Event, 5, `{"type":"ViewEvent"}`)
	noTime.SendTime = received.Add(-time.Hour)
	rows := run(t,
		item(record.Event, 1, `{"type":"ViewEvent","eventTime":"2018-11-15T10:15:00Z"}`),
		item(record.Entity, 2, `{"type":"Person","id":"https://example.edu/1","dateModified":"1999-01-01T00:00:00Z"}`),
		item(record.Event, 3, `{"type":"ViewEvent",`), // nobody checked it
		reject,
		noTime,
	)
	require.Len(t, rows["events"], 2)
	require.Equal(t, received.Add(-time.Hour).Truncate(time.Microsecond), rows["events"][5]["event_time"], "without an eventTime")
	require.Len(t, rows["entities"], 1)
	require.Equal(t, "Person", rows["entities"][2]["type"])
	require.Equal(t, "https://example.edu/1", rows["entities"][2]["id"])
	require.Equal(t, received.Truncate(time.Microsecond), rows["entities"][2]["event_time"], "an entity's")
	require.Len(t, rows["rejects"], 2)
	require.Equal(t, "event", rows["rejects"][3]["kind"])
	require.NotEmpty(t, rows["rejects"][3]["reason"])
	require.Equal(t, []byte(`{"type":"ViewEvent",`), rows["rejects"][3]["bytes"])
	require.Equal(t, "not JSON \uFFFD", rows["rejects"][4]["reason"])
	require.Equal(t, []byte("\x00\xff not JSON"), rows["rejects"][4]["bytes"])
}

// A file is of one tenant and one day, so the manifests alone say how many records each has, and late data lands in its day.
func TestPartitions(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	l, err := lake.Open(ctx, lake.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	p := ingest.Plan("1.0.0")
	s, err := iceberg.Open(ctx, iceberg.Config{Lake: l, Namespace: ingest.Namespace, Plan: p})
	require.NoError(t, err)
	require.NoError(t, s.Begin(ctx, sink.Lineage{ID: "L", Token: 1}, nil))
	epoch := uint64(0)
	publish := func(items ...record.Item) {
		t.Helper()
		epoch++
		out := plan.NewOutput(p)
		p.Read(items, out)
		for i := range out.Rows {
			out.Rows[i].Epoch = epoch
		}
		_, err := s.Publish(ctx, sink.Batch{Lineage: "L", FromEpoch: epoch, ToEpoch: epoch, Rows: out.Rows})
		require.NoError(t, err)
	}
	event := func(offset int64, account, env, at string) record.Item {
		i := item(record.Event, offset, `{"type":"ViewEvent","eventTime":"`+at+`"}`)
		i.Account, i.Env = account, env
		return i
	}
	publish(
		event(1, "acme", "prod", "2020-02-03T00:00:00Z"),
		event(2, "acme", "prod", "2020-02-03T23:59:59.999999Z"),
		event(3, "acme", "test", "2020-02-03T00:00:00Z"),
		event(4, "other", "prod", "2020-02-03T00:00:00Z"),
		event(5, "acme", "prod", "2020-02-04T00:00:00Z"),
	)
	publish(event(6, "acme", "prod", "2020-02-03T12:00:00Z")) // a day late
	records := func(sel lake.Selection) (n int64) {
		all, err := l.Contents(ctx, ingest.Namespace, sel)
		require.NoError(t, err)
		for _, table := range all {
			for _, s := range table.Shares {
				require.True(t, s.Records.Exact(), "a file has records of one day alone")
				n += s.Records.Estimate
			}
		}
		return n
	}
	require.EqualValues(t, 6, records(lake.Selection{}))
	require.EqualValues(t, 1, records(lake.Selection{Account: "other"}))
	day := time.Date(2020, 2, 3, 0, 0, 0, 0, time.UTC)
	acme := lake.Selection{SourceType: "EDGENUITY_LMS", Account: "acme", Env: "prod", From: day, To: day.AddDate(0, 0, 1)}
	require.EqualValues(t, 3, records(acme), "the late one included")
	acme.From, acme.To = acme.To, time.Time{}
	require.EqualValues(t, 1, records(acme))
	tbl, err := l.Lookup(ctx, lake.Name{Namespace: ingest.Namespace, Table: "events"})
	require.NoError(t, err)
	files, err := tbl.Files(ctx)
	require.NoError(t, err)
	require.Len(t, files, 4+1, "one for each tenant and day of a batch")
}

func TestAnotherPartitioningIsRefused(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	l, err := lake.Open(ctx, lake.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	older := ingest.Plan("1.0.0").Tables[ingest.Events]
	older.Partition = []plan.PartitionField{{Column: "source_type", Transform: plan.Identity}, {Column: "event_time", Transform: plan.Day}}
	_, err = l.Table(ctx, ingest.Namespace, older)
	require.NoError(t, err)
	_, err = iceberg.Open(ctx, iceberg.Config{Lake: l, Namespace: ingest.Namespace, Plan: ingest.Plan("1.0.0")})
	require.ErrorContains(t, err, "table raw.events is not partitioned by identity(source_type), identity(account), identity(env), day(event_time) as the plan asks: "+
		"keep its partitioning, or write to a new data version")
}

func TestFixturesSurviveByteForByte(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("MILLRACE_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared")
	}
	files, err := filepath.Glob(filepath.Join(dir, "caliper", "fixtures", "*", "*.json"))
	require.NoError(t, err)
	if len(files) == 0 {
		t.Skipf("the official Caliper fixtures are not in %s", dir)
	}
	var items []record.Item
	for i, file := range files {
		bytes, err := os.ReadFile(file)
		require.NoError(t, err)
		kind := record.Entity
		if strings.Contains(filepath.Base(file), "Event") {
			kind = record.Event
		}
		items = append(items, item(kind, int64(i), string(bytes)))
	}
	found := 0
	for _, rows := range run(t, items...) {
		for offset, row := range rows {
			require.Equal(t, string(items[offset].Bytes), string(row["bytes"].([]byte)), files[offset])
			found++
		}
	}
	require.Equal(t, len(files), found)
}
