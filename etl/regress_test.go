package etl_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/caliper"
	"millrace/etl"
	"millrace/etl/etltest"
	"millrace/record"
)

// What TestOrderDoesNotMatter once found, each as small as it goes.

type link struct {
	Ref *string `avro:"ref"`
}

// chain is a table whose joins follow ref from entity to entity.
func chain(from etl.Source, joins ...etl.Join) etl.Table[link] {
	return etl.Table[link]{Name: "links", From: from, Joins: joins, Map: func(r *etl.Reader) (link, error) {
		return link{etl.Opt[string](r, etl.Path(fmt.Sprintf("f%d.val", len(joins)-1)))}, nil
	}}
}

func follow(n int, from etl.Path) etl.Join {
	return etl.JoinEntity(caliper.Person).ToField(fmt.Sprintf("f%d", n)).On("entity.id").Eq(from)
}

func person(id, ref, val string, hour int) record.Item {
	return entity(fmt.Sprintf(`{"type":"Person","id":%q,"ref":%q,"val":%q,"dateModified":"2018-08-01T%02d:00:00Z"}`, id, ref, val, hour))
}

const linkEvent = `{"type":"OutcomeEvent","eventTime":"2018-08-20T00:00:00Z","ref":"urn:a"}`

func TestWaitForNothing(t *testing.T) {
	t.Parallel()
	j := job(t, chain(etl.Events(caliper.OutcomeEvent), follow(0, "event.ref").WaitFor(0)))
	j.Feed(event(linkEvent))
	j.Advance(0)
	require.Len(t, j.Rows("links"), 1)
	require.Equal(t, int64(0), j.Counters["table.links.waiting"])
}

// One record's time is not up because another's is.
func TestEachWaitsItsOwnTime(t *testing.T) {
	t.Parallel()
	j := job(t, chain(etl.Events(caliper.OutcomeEvent), follow(0, "event.ref").WaitFor(time.Hour)))
	j.Feed(event(linkEvent))
	j.Advance(40 * time.Minute)
	j.Feed(event(`{"type":"OutcomeEvent","ref":"urn:a"}`))
	j.Advance(30 * time.Minute)
	require.Len(t, j.Rows("links"), 1)
	require.Equal(t, int64(1), j.Counters["table.links.waiting"])
	j.Advance(40 * time.Minute)
	require.Len(t, j.Rows("links"), 2)
}

// An update and a deletion at one instant: the entity is gone, whichever came first.
func TestEndAtTheInstantOfAnUpdate(t *testing.T) {
	t.Parallel()
	p, err := etl.App{
		Name: "test-job", Version: "1.0.0", Harvest: []etl.Path{"event.object"},
		Tables: []etl.Transformer{chain(etl.Events(caliper.OutcomeEvent), follow(0, "event.ref"))},
	}.Plan()
	require.NoError(t, err)
	for _, content := range []string{"same", "other", "third"} {
		permute([]record.Item{
			event(linkEvent), person("urn:a", "", "same", 9),
			event(`{"type":"Event","action":"Deleted","eventTime":"2018-08-01T09:00:00Z","object":` + string(person("urn:a", "", content, 9).Bytes) + `}`),
		}, func(items []record.Item) {
			j := etltest.New(p)
			for _, it := range items {
				j.Feed(it)
			}
			require.Empty(t, j.Rows("links"))
			require.Equal(t, int64(1), j.Counters["table.links.waiting"])
		})
	}
}

// dedup takes 7 and 7.0 for one content, so joins must take them for one key: which one passes dedup depends on arrival.
func TestNumbersJoinHoweverSpelled(t *testing.T) {
	t.Parallel()
	for _, spelling := range [][2]string{{"7", "7.0"}, {"70e-1", "7"}, {"-0", "0"}, {"0.50", "5E-1"}, {"-0.0", "0"}} {
		j := job(t, chain(etl.Events(caliper.OutcomeEvent), follow(0, "event.ref")))
		j.Feed(event(`{"type":"OutcomeEvent","ref":`+spelling[0]+`}`), entity(`{"type":"Person","id":`+spelling[1]+`,"val":"found"}`))
		require.Equal(t, "found", *ptr(only(t, j.Rows("links"))["ref"]), "%v", spelling)
	}
}

// An entity that was dropped, long ago, comes with a new version that is joined: it is dropped no more.
func TestDroppedEntityComesAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []time.Duration{0, time.Hour} {
		j := job(t, chain(etl.Entities(caliper.Person), follow(0, "entity.ref").WaitFor(time.Hour).CorrectFor(c).Else(etl.Drop)))
		j.Feed(person("urn:a", "urn:nobody", "", 1))
		j.Advance(10 * time.Hour)
		require.Equal(t, int64(1), j.Counters["table.links.dropped"])
		j.Feed(person("urn:a", "urn:a", "", 2))
		require.Len(t, j.Rows("links"), 1)
		require.Equal(t, int64(0), j.Counters["table.links.dropped"])
	}
}

// A record that the first join moves is fetched back from the third, also when the second remembers nothing for corrections of its
// own.
func TestRecordIsFetchedBackThroughAJoinWithoutCorrections(t *testing.T) {
	t.Parallel()
	j := job(t, chain(etl.Events(caliper.OutcomeEvent),
		follow(0, "event.ref"), follow(1, "f0.ref").CorrectFor(0), follow(2, "f1.ref").WaitFor(time.Hour)))
	j.Feed(event(linkEvent), person("urn:a", "urn:b", "", 1), person("urn:b", "urn:nobody", "", 1))
	require.Equal(t, int64(1), j.Counters["table.links.waiting"])

	j.Feed(person("urn:a", "urn:c", "", 2), person("urn:c", "urn:d", "", 1), person("urn:d", "", "right", 1))
	require.Equal(t, int64(0), j.Counters["table.links.waiting"])
	j.Advance(10 * time.Hour)
	require.Equal(t, "right", *ptr(only(t, j.Rows("links"))["ref"]))
	require.Equal(t, int64(0), j.Counters["table.links.rows"], "its first revision went back before it was a row")
	require.Equal(t, int64(1), j.Counters["table.links.corrections"])
}

// A corrected record that waits for another entity in vain, is dropped late, and is corrected after all: its event is still there.
func TestCorrectedAfterALateDrop(t *testing.T) {
	t.Parallel()
	j := job(t, chain(etl.Events(caliper.OutcomeEvent), follow(0, "event.ref"), follow(1, "f0.ref").WaitFor(30*time.Minute).Else(etl.Drop)))
	j.Feed(person("urn:a", "urn:b1", "", 8), person("urn:b1", "", "first", 8))
	j.Feed(event(linkEvent))
	j.Feed(person("urn:a", "urn:b2", "", 9)) // a better one, which leads to nobody
	require.Empty(t, j.Rows("links"))
	j.Now = j.Now.Add(3 * time.Hour) // nobody was there to drop it in time
	j.Feed()
	require.EqualValues(t, 1, j.Counters["table.links.dropped"])
	j.Now = j.Now.Add(10 * time.Minute)
	j.Feed(person("urn:b2", "", "second", 8))
	require.Len(t, j.Rows("links"), 1)
	require.Zero(t, j.Counters["table.links.dropped"])
}

// What is given up early for lack of space takes nothing with it that a waiting record needs.
func TestWaitingOutlivesAnEarlyDrop(t *testing.T) {
	t.Parallel()
	j := job(t, chain(etl.Events(caliper.OutcomeEvent), follow(0, "event.ref"), follow(1, "f0.ref").WaitFor(30*time.Minute)))
	j.Feed(person("urn:a", "urn:b1", "", 8), person("urn:b1", "", "first", 8))
	j.Feed(event(linkEvent))
	j.Feed(person("urn:a", "urn:b2", "", 9)) // a better one, which leads to nobody yet
	require.Empty(t, j.Rows("links"))
	j.Drop = func() int64 { return math.MaxInt64 }
	j.Feed(person("urn:b2", "", "second", 8))
	require.Len(t, j.Rows("links"), 1)
	j.Feed(person("urn:a", "urn:b1", "", 10)) // the best, but the record is not listed any more
	for _, row := range j.Rows("links") {
		require.Equal(t, "second", row["ref"])
	}
}
