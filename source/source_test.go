package source_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/eventlog"
	"millrace/eventlog/broker"
	"millrace/eventlog/eventlogtest"
	"millrace/ingest"
	"millrace/lake"
	"millrace/plan"
	"millrace/record"
	"millrace/sink"
	"millrace/sink/iceberg"
	"millrace/source"
)

// place is a log and the lake that keeps what it had.
type place struct {
	t    *testing.T
	cfg  eventlog.Config
	log  *eventlog.Log
	dir  string // of the lake
	lake *lake.Lake
	raw  *plan.Plan
	sink *iceberg.Sink

	epoch uint64
	kept  plan.Offsets // of the log, that the lake holds
	sent  []record.Item
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{t: t, dir: t.TempDir(), raw: ingest.Plan("1.0.0"), kept: plan.Offsets{}}
	b, err := broker.Open(broker.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	p.cfg = eventlog.Config{Brokers: []string{b.Addr()}, Partitions: 2}
	p.log = eventlogtest.Open(t, p.cfg)
	p.lake, err = lake.Open(t.Context(), lake.Config{Dir: p.dir, KeepSnapshots: 1, KeepFor: time.Nanosecond})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.lake.Close()) })
	p.sink, err = iceberg.Open(t.Context(), iceberg.Config{Lake: p.lake, Namespace: ingest.Namespace, Plan: p.raw})
	require.NoError(t, err)
	require.NoError(t, p.sink.Begin(t.Context(), sink.Lineage{ID: "L1", Token: 1}, nil))
	return p
}

// day is an instant that many days after the first of September.
func day(n int) time.Time { return time.Date(2018, 9, 1+n, 8, 0, 0, 0, time.UTC) }

func event(n int, env string, at time.Time) record.Item {
	return record.Item{
		Kind: record.Event, ID: fmt.Sprintf("urn:e%d", n), Account: "acme", Env: env, SourceType: "LMS", Sensor: "s", ReceivedAt: at, SendTime: at,
		Bytes: fmt.Appendf(nil, `{"id":"urn:e%d","type":"NavigationEvent","eventTime":%q}`, n, at.Format(time.RFC3339)),
	}
}

func entity(n int, env string, at time.Time) record.Item {
	return record.Item{
		Kind: record.Entity, ID: fmt.Sprintf("urn:p%d", n), Account: "acme", Env: env, SourceType: "LMS", ReceivedAt: at,
		Bytes: fmt.Appendf(nil, `{"id":"urn:p%d","type":"Person"}`, n),
	}
}

// send appends items to the log.
func (p *place) send(items ...record.Item) {
	p.t.Helper()
	require.NoError(p.t, p.log.Append(p.t.Context(), items))
	p.sent = append(p.sent, items...)
}

// keep takes what the log has to the lake, as one epoch.
func (p *place) keep() {
	p.t.Helper()
	ends, err := p.log.Ends(p.t.Context())
	require.NoError(p.t, err)
	n := 0
	for partition, end := range ends {
		n += int(end - p.kept[partition])
	}
	if n == 0 {
		return
	}
	out := plan.NewOutput(p.raw)
	p.raw.Read(eventlogtest.Read(p.t, p.log, p.kept, n), out)
	p.epoch++
	for i := range out.Rows {
		out.Rows[i].Epoch = p.epoch
	}
	refused, err := p.sink.Publish(p.t.Context(), sink.Batch{
		Lineage: "L1", FromEpoch: p.epoch, ToEpoch: p.epoch, Rows: out.Rows, FromOffsets: p.kept, ToOffsets: ends,
	})
	require.NoError(p.t, err)
	require.Empty(p.t, refused)
	p.kept = ends
}

func (p *place) source(seed *plan.SeedRange) *source.Source {
	p.t.Helper()
	s, err := source.New(source.Config{Log: p.log, Lake: p.lake, Namespace: ingest.Namespace, Instance: "job", Seed: seed})
	require.NoError(p.t, err)
	return s
}

// step is a batch with the position that it leads to.
type step struct {
	items []record.Item
	at    plan.Position
}

// read reads from a position until the log has no more.
func (p *place) read(s *source.Source, from plan.Position) (steps []step, err error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	r, err := s.Read(ctx, from)
	if err != nil {
		return nil, err
	}
	defer func() { require.NoError(p.t, r.Close()) }()
	ends, err := p.log.Ends(ctx)
	require.NoError(p.t, err)
	at := plan.Position{Offsets: plan.Offsets{}, Seeding: from.Seeding}
	for partition, o := range from.Offsets {
		at.Offsets[partition] = o
	}
	behind := func() bool {
		for partition, end := range ends {
			if at.Offsets[partition] < end {
				return true
			}
		}
		return at.Seeding != nil && !at.Seeding.Done
	}
	for behind() {
		b, err := r.Poll(ctx, 3, 1<<20)
		if err != nil {
			return steps, err
		}
		next := plan.Position{Offsets: plan.Offsets{}, Seeding: at.Seeding}
		for partition, o := range at.Offsets {
			next.Offsets[partition] = o
		}
		for partition, o := range b.From {
			next.Offsets[partition] = o
		}
		if b.Seeding != nil {
			next.Seeding = b.Seeding
		} else {
			for _, it := range b.Items {
				next.Offsets[it.Position.Partition] = it.Position.Offset + 1
			}
		}
		at = next
		steps = append(steps, step{b.Items, at})
	}
	return steps, nil
}

// names are what items are called, in order of names.
func names(steps ...step) []string {
	var out []string
	for _, s := range steps {
		for _, it := range s.items {
			out = append(out, it.ID)
		}
	}
	slices.Sort(out)
	return out
}

func (p *place) all() []string {
	return names(step{items: p.sent})
}

// fill makes a lake of several files a table, and a log that goes on after it.
func (p *place) fill() {
	n := 0
	for range 4 {
		for range 6 {
			n++
			p.send(event(n, "e1", day(n%3)), entity(n%5, "e1", day(n%3)), record.Item{
				Kind: record.Reject, ID: fmt.Sprint("r", n), Account: "acme", Env: "e1", SourceType: "LMS", ReceivedAt: day(0), Reason: "it is no Caliper", Bytes: []byte("x"),
			})
		}
		p.keep()
	}
	p.send(event(100, "e1", day(9)), entity(100, "e1", day(9)))
}

// A job may be killed after any batch: what it has committed and what it reads then are together each record once, in whatever way the
// lake and the log have changed meanwhile.
func TestEveryPositionCanBeGoneOnFrom(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.fill()
	seed := &plan.SeedRange{EntitiesFirst: true}
	steps, err := p.read(p.source(seed), plan.Position{})
	require.NoError(t, err)
	require.Equal(t, p.all(), names(steps...))
	require.Greater(t, len(steps), 20)

	events := false
	for _, s := range steps[:len(steps)-1] {
		for _, it := range s.items {
			events = events || it.Kind == record.Event
			require.False(t, events && it.Kind == record.Entity && !s.at.Seeding.Done, "an entity after an event")
		}
	}
	for i, s := range steps {
		if i == len(steps)/2 { // the lake goes on, and no other snapshot than the pinned one is left
			p.send(event(200, "e1", day(3)))
			p.keep()
			last := steps[len(steps)-1]
			for partition, start := range p.kept { // and the log keeps nothing but what the seeded job goes on with
				eventlogtest.DeleteBefore(t, p.cfg, p.log, partition, min(start, last.at.Seeding.Handoff[partition]))
			}
		}
		rest, err := p.read(p.source(seed), s.at)
		require.NoError(t, err, "after batch %d", i)
		require.Equal(t, p.all(), names(slices.Concat(steps[:i+1], rest)...), "after batch %d", i)
	}
}

func TestSeededItemsAreThoseOfTheLog(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.fill()
	p.keep()
	fromLog, err := p.read(p.source(nil), plan.Position{})
	require.NoError(t, err)
	fromLake, err := p.read(p.source(&plan.SeedRange{}), plan.Position{})
	require.NoError(t, err)
	items := func(steps []step) map[record.Position]record.Item {
		all := map[record.Position]record.Item{}
		for _, s := range steps {
			for _, it := range s.items {
				all[it.Position] = it
			}
		}
		return all
	}
	require.Equal(t, items(fromLog), items(fromLake))
	last := fromLake[len(fromLake)-1].at.Seeding
	require.True(t, last.Done)
	require.EqualValues(t, len(p.sent), last.Rows)
	require.Equal(t, []int64{last.Rows, last.Rows}, []int64{last.Read, last.Kept})
}

func TestRangeOfASeeding(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.send(event(1, "e1", day(0)), event(2, "e1", day(1)), event(3, "e2", day(1)), event(4, "e1", day(2)), entity(1, "e1", day(7)), entity(2, "e2", day(1)))
	other := event(5, "e1", day(1))
	other.SourceType = "SIS"
	p.send(other)
	p.keep()
	p.send(event(6, "e2", day(0))) // the log is read whatever the range
	for name, test := range map[string]struct {
		of   plan.SeedRange
		want []string
	}{
		"all":           {plan.SeedRange{}, []string{"e1", "e2", "e3", "e4", "e5", "e6", "p1", "p2"}},
		"an env":        {plan.SeedRange{Envs: []plan.Env{{Account: "acme", Name: "e2"}}}, []string{"e3", "e6", "p2"}},
		"no such env":   {plan.SeedRange{Envs: []plan.Env{{Account: "other", Name: "e2"}}}, []string{"e6"}},
		"a source type": {plan.SeedRange{SourceTypes: []string{"SIS"}}, []string{"e5", "e6"}},
		"from":          {plan.SeedRange{From: day(1)}, []string{"e2", "e3", "e4", "e5", "e6", "p1", "p2"}},
		"to":            {plan.SeedRange{To: day(1)}, []string{"e1", "e6", "p1", "p2"}},
	} {
		t.Run(name, func(t *testing.T) {
			steps, err := p.read(p.source(&test.of), plan.Position{})
			require.NoError(t, err)
			got := names(steps...)
			for i := range got {
				got[i] = strings.TrimPrefix(got[i], "urn:")
			}
			require.Equal(t, test.want, got)
		})
	}
}

func TestLostRecordsComeFromTheLake(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.fill()
	p.keep()
	steps, err := p.read(p.source(nil), plan.Position{})
	require.NoError(t, err)
	ends := p.kept
	for partition, end := range ends {
		eventlogtest.DeleteBefore(t, p.cfg, p.log, partition, end-1)
	}
	for i, s := range steps[:len(steps)-1] {
		rest, err := p.read(p.source(nil), s.at)
		require.NoError(t, err, "after batch %d", i)
		require.Equal(t, p.all(), names(slices.Concat(steps[:i+1], rest)...), "after batch %d", i)
	}

	// What the lake does not have either is gone.
	p.send(event(300, "e1", day(0)), event(301, "e1", day(0)), event(302, "e1", day(0)), event(303, "e1", day(0)))
	now, err := p.log.Ends(t.Context())
	require.NoError(t, err)
	var lost int32
	for partition := range now {
		if now[partition] > ends[partition] {
			lost = partition
		}
	}
	eventlogtest.DeleteBefore(t, p.cfg, p.log, lost, now[lost])
	_, err = p.read(p.source(nil), steps[0].at)
	var gap *eventlog.GapError
	require.ErrorAs(t, err, &gap)
	require.ErrorContains(t, err, fmt.Sprintf("offsets %d to %d of partition %d of ingest-prime are neither in the log, which starts at offset %d, nor in the lake",
		ends[lost], now[lost]-1, lost, now[lost]))
}

func TestSeedingNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.fill()
	steps, err := p.read(p.source(&plan.SeedRange{}), plan.Position{})
	require.NoError(t, err)

	events, err := p.lake.Lookup(t.Context(), lake.Name{Namespace: ingest.Namespace, Table: "events"})
	require.NoError(t, err)
	files, err := events.Files(t.Context())
	require.NoError(t, err)
	whole, err := os.ReadFile(files[0].Path)
	require.NoError(t, err)
	for what, content := range map[string][]byte{"cut": whole[:len(whole)/2], "empty": {}, "gone": nil} {
		require.NoError(t, os.Remove(files[0].Path))
		if content != nil {
			require.NoError(t, os.WriteFile(files[0].Path, content, 0o600))
		}
		got, err := p.read(p.source(&plan.SeedRange{}), plan.Position{})
		require.ErrorContains(t, err, files[0].Path, what)
		require.Less(t, len(names(got...)), len(p.sent), what)
		if content == nil {
			require.NoError(t, os.WriteFile(files[0].Path, whole, 0o600))
		}
	}
	require.NoError(t, os.WriteFile(files[0].Path, whole, 0o600))

	// Its snapshots were let go.
	require.NoError(t, p.source(nil).Release(t.Context()))
	for range 3 {
		p.send(event(400, "e1", day(0)), entity(400, "e1", day(0)))
		p.keep()
	}
	_, err = p.read(p.source(nil), steps[2].at)
	require.ErrorIs(t, err, lake.ErrExpired)
	require.ErrorContains(t, err, "the job cannot go on with being seeded, start it afresh")

	_, err = source.New(source.Config{Log: p.log, Instance: "job", Seed: &plan.SeedRange{}})
	require.EqualError(t, err, "source: a range of the lake to begin with, and no lake")
	require.False(t, errors.Is(err, lake.ErrExpired))
}
