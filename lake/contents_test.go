package lake_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/ingest"
	"millrace/lake"
	"millrace/lake/laketest"
	"millrace/plan"
)

const lms = "EDGENUITY_LMS"

func openRaw(t testing.TB, l *lake.Lake) *lake.Table {
	t.Helper()
	tbl, err := l.Table(context.Background(), ingest.Namespace, ingest.Plan("1.0.0").Tables[ingest.Events])
	require.NoError(t, err)
	return tbl
}

func at(t testing.TB, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, s)
	require.NoError(t, err)
	return v
}

func exactly(n int64) lake.Count { return lake.Count{Least: n, Most: n, Estimate: n} }

// estimate adds up what there is of a selection.
func estimate(t testing.TB, l *lake.Lake, sel lake.Selection) (c lake.Count) {
	t.Helper()
	all, err := l.Contents(context.Background(), ingest.Namespace, sel)
	require.NoError(t, err)
	for _, table := range all {
		for _, s := range table.Shares {
			c = c.Plus(s.Records)
		}
	}
	return c
}

// The figures of the Start form in the talk: account deepthought with three envs, of three school years.
func TestContentsOfTheTalk(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	l := openLake(t, lake.Config{})
	tbl := openRaw(t, l)
	envs := map[string]int64{"deepthought1": 51_001_588, "deepthought2": 256_558_876, "deepthought3": 70_631_567}
	const days = 900
	epoch := uint64(0)
	for env, records := range envs {
		var entries []lake.Entry
		for d := range int64(days) {
			morning := at(t, "2016-03-12T07:00:00Z").AddDate(0, 0, int(d))
			entries = append(entries, lake.Entry{
				SourceType: lms, Account: "deepthought", Env: env, Oldest: morning, Newest: morning.Add(10 * time.Hour),
				Records: records*(d+1)/days - records*d/days, Bytes: 1000,
			})
		}
		for _, half := range [][]lake.Entry{entries[:days/2], entries[days/2:]} {
			epoch++
			require.NoError(t, tbl.Enter(ctx, lake.Position{Lineage: "L", FromEpoch: epoch, ToEpoch: epoch}, half...))
		}
	}
	require.Equal(t, exactly(378_192_031), estimate(t, l, lake.Selection{}))
	for env, records := range envs {
		require.Equal(t, exactly(records), estimate(t, l, lake.Selection{SourceType: lms, Account: "deepthought", Env: env}))
	}
	// Days are never cut, so years, months and days count exactly.
	sum := lake.Count{}
	for from := at(t, "2016-01-01T00:00:00Z"); from.Year() < 2019; from = from.AddDate(0, 1, 0) {
		month := estimate(t, l, lake.Selection{From: from, To: from.AddDate(0, 1, 0)})
		require.True(t, month.Exact(), from)
		sum = sum.Plus(month)
	}
	require.Equal(t, exactly(378_192_031), sum)
	// At noon every file of the day is cut.
	noon := estimate(t, l, lake.Selection{To: at(t, "2017-01-01T12:00:00Z")})
	require.False(t, noon.Exact())
	before, after := estimate(t, l, lake.Selection{To: at(t, "2017-01-01T00:00:00Z")}), estimate(t, l, lake.Selection{To: at(t, "2017-01-02T00:00:00Z")})
	require.Equal(t, lake.Count{Least: before.Most + 3, Most: after.Most - 3, Estimate: noon.Estimate}, noon)
	require.InDelta(t, float64(before.Most+after.Most)/2, float64(noon.Estimate), 3, "half of the ten hours")
}

func TestContents(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	l := openLake(t, lake.Config{})
	tbl := openRaw(t, l)
	c, err := tbl.Contents(ctx, lake.Selection{Env: "prod"})
	require.NoError(t, err)
	require.Equal(t, lake.Contents{Table: lake.Name{Namespace: "raw", Table: "events"}}, c, "nothing was committed")
	require.Zero(t, estimate(t, l, lake.Selection{Env: "prod"}), "nothing is unknown in an empty lake")

	file := func(account, env, oldest, newest string, records, bytes int64) lake.Entry {
		return lake.Entry{SourceType: lms, Account: account, Env: env, Oldest: at(t, oldest), Newest: at(t, newest), Records: records, Bytes: bytes}
	}
	require.NoError(t, tbl.Enter(ctx, lake.Position{Lineage: "L", FromEpoch: 1, ToEpoch: 1},
		file("b", "x", "1969-12-31T10:00:00Z", "1969-12-31T23:59:59Z", 5, 50),
		file("b", "x", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z", 7, 70),
		file("a", "x", "2018-11-30T08:00:00Z", "2018-11-30T16:00:00Z", 100, 1000),
		file("a", "x", "2018-11-01T08:00:00Z", "2018-11-01T09:00:00Z", 10, 100),
		file("a", "w", "2018-12-01T00:00:00Z", "2018-12-01T00:00:00Z", 1, 10),
	))
	require.NoError(t, tbl.Enter(ctx, lake.Position{Lineage: "L", FromEpoch: 2, ToEpoch: 2},
		file("a", "x", "2018-11-30T12:00:00Z", "2018-11-30T20:00:00Z", 200, 2000)))
	share := func(account, env, month, oldest, newest string, files int, records, bytes int64) lake.Share {
		return lake.Share{
			SourceType: lms, Account: account, Env: env, Month: at(t, month+"-01T00:00:00Z"), Files: files, Bytes: bytes,
			Records: exactly(records), Oldest: at(t, oldest), Newest: at(t, newest),
		}
	}
	c, err = tbl.Contents(ctx, lake.Selection{})
	require.NoError(t, err)
	require.NotZero(t, c.Snapshot)
	require.Equal(t, []lake.Share{
		share("a", "w", "2018-12", "2018-12-01T00:00:00Z", "2018-12-01T00:00:00Z", 1, 1, 10),
		share("a", "x", "2018-11", "2018-11-01T08:00:00Z", "2018-11-30T20:00:00Z", 3, 310, 3100),
		share("b", "x", "1969-12", "1969-12-31T10:00:00Z", "1969-12-31T23:59:59Z", 1, 5, 50),
		share("b", "x", "1970-01", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z", 1, 7, 70),
	}, c.Shares)

	for name, test := range map[string]struct {
		from, to string
		want     lake.Count
	}{
		"all":                     {"2018-11-30T08:00:00Z", "2018-11-30T20:00:01Z", exactly(300)},
		"from a file's last":      {"2018-11-30T16:00:00Z", "2018-12-01T00:00:00Z", lake.Count{Least: 2, Most: 99 + 199, Estimate: 1 + 100}},
		"to a file's first":       {"2018-11-30T00:00:00Z", "2018-11-30T12:00:00Z", lake.Count{Least: 1, Most: 99, Estimate: 50}},
		"inside of a file":        {"2018-11-30T09:00:00Z", "2018-11-30T11:00:00Z", lake.Count{Least: 0, Most: 98, Estimate: 25}},
		"before all of it":        {"2018-11-01T10:00:00Z", "2018-11-30T08:00:00Z", exactly(0)},
		"a microsecond too early": {"2018-11-30T00:00:00Z", "2018-11-30T08:00:00.0000001Z", lake.Count{Least: 1, Most: 99, Estimate: 1}},
	} {
		require.Equal(t, test.want, estimate(t, l, lake.Selection{Account: "a", From: at(t, test.from), To: at(t, test.to)}), name)
	}
	c, err = tbl.Contents(ctx, lake.Selection{From: at(t, "2018-11-30T14:00:00Z"), To: at(t, "2018-11-30T18:00:00Z")})
	require.NoError(t, err)
	require.Equal(t, []lake.Share{{
		SourceType: lms, Account: "a", Env: "x", Month: at(t, "2018-11-01T00:00:00Z"), Files: 2, Bytes: 250 + 1000,
		Records: lake.Count{Least: 1, Most: 99 + 198, Estimate: 25 + 100},
		Oldest:  at(t, "2018-11-30T14:00:00Z"), Newest: at(t, "2018-11-30T17:59:59.999999Z"),
	}}, c.Shares)
}

// Another engine may have written a manifest without bounds: then a file is somewhere in its day.
func TestContentsWithoutBounds(t *testing.T) {
	t.Parallel()
	l := openLake(t, lake.Config{})
	e := lake.Entry{SourceType: lms, Account: "a", Env: "x", Oldest: at(t, "2018-11-30T08:00:00Z"), Newest: at(t, "2018-11-30T08:00:00Z"), Records: 48, Unbounded: true}
	require.NoError(t, openRaw(t, l).Enter(context.Background(), lake.Position{Lineage: "L", FromEpoch: 1, ToEpoch: 1}, e))
	require.Equal(t, exactly(48), estimate(t, l, lake.Selection{From: at(t, "2018-11-30T00:00:00Z"), To: at(t, "2018-12-01T00:00:00Z")}))
	require.Equal(t, lake.Count{Least: 0, Most: 48, Estimate: 24}, estimate(t, l, lake.Selection{To: at(t, "2018-11-30T12:00:00Z")}))
}

func TestContentsRefuses(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	l := openLake(t, lake.Config{})
	tbl := openRaw(t, l)
	noon := at(t, "2018-11-30T12:00:00Z")
	var entries []lake.Entry
	for _, env := range []string{"a/x", "a/y", "b/z"} {
		account, env, _ := strings.Cut(env, "/")
		entries = append(entries, lake.Entry{SourceType: lms, Account: account, Env: env, Oldest: noon, Newest: noon, Records: 1})
	}
	require.NoError(t, tbl.Enter(ctx, lake.Position{Lineage: "L", FromEpoch: 1, ToEpoch: 1}, entries...))
	entities, err := l.Table(ctx, ingest.Namespace, ingest.Plan("1.0.0").Tables[ingest.Entities])
	require.NoError(t, err)
	require.NoError(t, entities.Enter(ctx, lake.Position{Lineage: "L", FromEpoch: 1, ToEpoch: 1},
		lake.Entry{SourceType: "OTHER", Account: "c", Env: "x", Oldest: noon, Newest: noon, Records: 1}))

	for want, sel := range map[string]lake.Selection{
		`the lake has no records of source type "LMS"; it has EDGENUITY_LMS, OTHER`:                                                               {SourceType: "LMS"},
		`the lake has no records of account "x"; it has a, b, c`:                                                                                  {Account: "x"},
		`the lake has no records of account "c"; it has a, b`:                                                                                     {SourceType: lms, Account: "c"},
		`the lake has no records of env "z"; it has x, y`:                                                                                         {Account: "a", Env: "z"},
		"empty range: from 2018-11-30T12:00:00Z to 2018-11-30T11:00:00Z it ends before it begins: exchange the two":                               {From: noon, To: noon.Add(-time.Hour)},
		"empty range: from 2018-11-30T12:00:00Z to 2018-11-30T12:00:00Z it ends where it begins, and its end is not part of it: name a later end": {From: noon, To: noon},
	} {
		_, err := l.Contents(ctx, ingest.Namespace, sel)
		require.EqualError(t, err, want)
	}
	require.Equal(t, exactly(1), estimate(t, l, lake.Selection{Account: "c"}), "one of the tables has it")
	require.Equal(t, exactly(1), estimate(t, l, lake.Selection{Env: "z"}))
	require.Zero(t, estimate(t, l, lake.Selection{Account: "c", To: noon}), "a name of another time is no mistake")
	_, err = l.Contents(ctx, ingest.Namespace, lake.Selection{To: noon, From: noon})
	require.ErrorIs(t, err, lake.ErrEmptyRange)

	openTable(t, l) // of an app
	_, err = l.Contents(ctx, "v1", lake.Selection{})
	require.ErrorContains(t, err, "table v1.quiz is not partitioned by source_type, account, env and day")
}

// rawEvents are n rows of raw.events over some days, accounts and envs.
func rawEvents(t testing.TB, rnd *rand.Rand, epoch uint64, n int) []plan.Row {
	t.Helper()
	schema := ingest.Plan("1.0.0").Tables[ingest.Events].Schema
	rows := make([]plan.Row, n)
	for i := range rows {
		cells := make([]plan.Cell, len(schema.Columns))
		micros := time.Date(2018, 11, 29, 0, 0, 0, 0, time.UTC).UnixMicro() + rnd.Int64N(4*day)
		account, env := fmt.Sprint("a", rnd.IntN(2)), fmt.Sprint("e", rnd.IntN(2))
		for c, column := range schema.Columns {
			switch {
			case column.Name == "account":
				cells[c].Bytes = []byte(account)
			case column.Name == "env":
				cells[c].Bytes = []byte(env)
			case column.Name == "source_type":
				cells[c].Bytes = []byte(lms)
			case column.Name == "event_time":
				cells[c].Int = micros
			case column.Nullable:
				cells[c].Null = true
			}
		}
		value, err := schema.Append(nil, cells)
		require.NoError(t, err)
		rows[i] = plan.Row{ID: fmt.Sprintf("%d-%d", epoch, i), Rev: 1, First: true, Account: account, Env: env, EventTime: micros, Value: value, Epoch: epoch}
	}
	return rows
}

// What the manifests say is what the files hold, whatever was committed, compacted or asked before.
func TestContentsAreWhatFilesHold(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	l := openLake(t, lake.Config{Dir: dir})
	tbl := openRaw(t, l)
	rnd := rand.New(rand.NewPCG(1, 2))
	type key struct {
		env, month string
	}
	model := map[key][]int64{}
	reader := openLake(t, lake.Config{Dir: dir, ReadOnly: true})
	check := func(sel lake.Selection) {
		t.Helper()
		want := map[key][]int64{}
		for k, times := range model {
			for _, at := range times {
				if (sel.From.IsZero() || at >= sel.From.UnixMicro()) && (sel.To.IsZero() || at < sel.To.UnixMicro()) {
					want[k] = append(want[k], at)
				}
			}
		}
		all, err := reader.Contents(ctx, ingest.Namespace, sel)
		require.NoError(t, err)
		for _, s := range all[0].Shares {
			k := key{s.Account + "/" + s.Env, s.Month.Format("2006-01")}
			n := int64(len(want[k]))
			require.LessOrEqual(t, s.Records.Least, n, k)
			require.GreaterOrEqual(t, s.Records.Most, n, k)
			require.LessOrEqual(t, s.Records.Least, s.Records.Estimate, k)
			require.GreaterOrEqual(t, s.Records.Most, s.Records.Estimate, k)
			for _, at := range want[k] {
				require.False(t, time.UnixMicro(at).Before(s.Oldest) || time.UnixMicro(at).After(s.Newest), k)
			}
			if sel == (lake.Selection{}) {
				require.Equal(t, exactly(n), s.Records, k)
			}
			delete(want, k)
		}
		require.Empty(t, want, "what has no share")
	}
	for epoch := uint64(1); epoch <= 24; epoch++ {
		rows := rawEvents(t, rnd, epoch, 1+rnd.IntN(40))
		publish(t, tbl, epoch, epoch, rows...)
		for _, r := range rows {
			k := key{r.Account + "/" + r.Env, time.UnixMicro(r.EventTime).UTC().Format("2006-01")}
			model[k] = append(model[k], r.EventTime)
		}
		if epoch%10 == 0 {
			done, err := tbl.Compact(ctx)
			require.NoError(t, err)
			require.NotZero(t, done)
		}
		check(lake.Selection{})
		from := time.Date(2018, 11, 29, 0, 0, 0, 0, time.UTC).Add(time.Duration(rnd.Int64N(int64(96 * time.Hour))))
		check(lake.Selection{From: from, To: from.Add(1 + time.Duration(rnd.Int64N(int64(24*time.Hour))))})
	}
}

func TestContentsOpensNoDataFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLake(t, lake.Config{Dir: dir})
	tbl := openRaw(t, l)
	publish(t, tbl, 1, 1, rawEvents(t, rand.New(rand.NewPCG(1, 2)), 1, 20)...)
	for _, name := range laketest.Files(t, dir) {
		if strings.Contains(name, "/data/") {
			laketest.Remove(t, dir, name)
		}
	}
	require.Equal(t, exactly(20), estimate(t, l, lake.Selection{}))
}

// A manifest that was cut is named, wherever that was, and nothing is counted of it.
func TestContentsOfACutManifest(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	l, err := lake.Open(ctx, lake.Config{Dir: dir}) // on the local disk, whatever the run says
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	publish(t, openRaw(t, l), 1, 1, rawEvents(t, rand.New(rand.NewPCG(1, 2)), 1, 20)...)
	require.Equal(t, exactly(20), estimate(t, l, lake.Selection{}))
	files, err := filepath.Glob(filepath.Join(dir, "warehouse", "raw", "events", "metadata", "*-m*.avro"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	whole, err := os.ReadFile(files[0])
	require.NoError(t, err)
	// What looks whole to a reader of Avro ends with the mark that each block ends with.
	lengths := []int{bytes.Index(whole, whole[len(whole)-16:]) + 16}
	require.Less(t, lengths[0], len(whole), "the mark of the header")
	for n := 0; n < len(whole); n += 61 {
		lengths = append(lengths, n)
	}
	for _, n := range lengths {
		require.NoError(t, os.WriteFile(files[0], whole[:n], 0o600))
		reader, err := lake.Open(ctx, lake.Config{Dir: dir, ReadOnly: true})
		require.NoError(t, err)
		_, err = reader.Contents(ctx, ingest.Namespace, lake.Selection{})
		require.ErrorContains(t, err, "read the manifests of table raw.events: manifest "+files[0], "%d of %d bytes", n, len(whole))
		require.ErrorContains(t, err, "are damaged, restore the lake from a backup")
		require.NoError(t, reader.Close())
	}
	require.Equal(t, exactly(20), estimate(t, l, lake.Selection{}), "what was read is not read again")
}
