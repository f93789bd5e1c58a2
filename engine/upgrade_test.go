package engine_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"millrace/caliper"
	"millrace/engine"
	"millrace/etl"
	"millrace/plan"
	"millrace/plan/plantest"
	"millrace/record"
	"millrace/sink"
)

// toy returns Toy as a later version that change has changed.
func toy(change func(p *plan.Plan)) *plan.Plan {
	p := plantest.Toy()
	p.Version = "2.0.0"
	change(p)
	return p
}

// fingerprint is what a directory holds: the hash of each file.
func fingerprint(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		files[path] = fmt.Sprintf("%d %x", len(b), sha256.Sum256(b))
		return err
	}))
	return files
}

func TestRefusedPlanChangesNothing(t *testing.T) {
	t.Parallel()
	m := &memory{name: "index", block: make(chan struct{})}
	c := config(t, newLog(), m)
	c.FS, c.Dir, c.DrainTimeout = vfs.Default, filepath.Join(t.TempDir(), "job"), time.Millisecond
	j := start(t, c)
	j.log.append(0, append(pairs(3), plantest.Event("b", "waits"))...)
	j.wait("all to be read", func(p engine.Progress) bool { return p.Read == 5 })
	saved := filepath.Join(filepath.Dir(c.Dir), "saved")
	require.NoError(t, j.e.Savepoint(t.Context(), saved))
	j.stop()
	before := fingerprint(t, filepath.Dir(c.Dir))

	for want, p := range map[string]*plan.Plan{
		"stage join removed: its state would be lost":                        toy(func(p *plan.Plan) { p.Stages[0].Name = "join2" }),
		"stage join: its state is kept by":                                   toy(func(p *plan.Plan) { p.Stages[0].Key = "something else" }),
		`stage join: its state has the format "" and this version reads "2"`: toy(func(p *plan.Plan) { p.Stages[0].Format = "2" }),
		"table late removed":                                                 toy(func(p *plan.Plan) { p.Tables[1].Name = "later" }),
		"column joined.value became long": toy(func(p *plan.Plan) {
			p.Tables[0].Schema.Columns = []plan.Column{{Name: "value", Type: plan.Long}}
		}),
		"column joined.more added: the rows there are have no value for it": toy(func(p *plan.Plan) {
			p.Tables[0].Schema.Columns = append(slices.Clone(p.Tables[0].Schema.Columns), plan.Column{Name: "more", Type: plan.Long})
		}),
		"table joined removed: 3 rows of it are not published yet: run version 1.0.0 until they are": toy(func(p *plan.Plan) {
			p.Tables[0].Name, p.Removed = "joined2", []string{"joined"}
		}),
	} {
		c := c
		c.Plan = p
		_, err := engine.Open(t.Context(), c)
		require.ErrorContains(t, err, want)
		require.Equal(t, before, fingerprint(t, filepath.Dir(c.Dir)), "after %s", want)

		changes, err := engine.ComparePlan(c.FS, c.Dir, p)
		require.NoError(t, err)
		require.ErrorContains(t, changes.Err(), want)
		if !strings.Contains(want, "published") { // which a savepoint's manifest does not say
			changes, err = engine.ComparePlan(c.FS, saved, p)
			require.NoError(t, err)
			require.ErrorContains(t, changes.Err(), want)
		}
		require.Equal(t, before, fingerprint(t, filepath.Dir(c.Dir)), "after comparing %s", want)
	}
	_, err := engine.ComparePlan(c.FS, filepath.Dir(c.Dir), c.Plan)
	require.ErrorContains(t, err, "is neither a job's directory nor a savepoint")

	j = start(t, c)
	require.EqualValues(t, 5, j.e.Progress().Read)
}

func TestRenamedStateFollows(t *testing.T) {
	t.Parallel()
	clock, m := plantest.NewClock(), &memory{name: "index"}
	c := config(t, newLog(), m)
	c.Now = clock.Now
	items := append(pairs(3), plantest.Event("b", "waits"), plantest.Event("c", "late"))
	j := start(t, c)
	j.log.append(0, items...)
	j.settle()
	j.stop()

	c.Plan = toy(func(p *plan.Plan) {
		p.Stages[0].Name, p.Stages[1].Name = "match", "initial"
		p.Counters = []string{"clicks", "entities", "late"}
		p.Renamed = map[string]string{"join": "match", "letter": "initial", "events": "clicks"}
	})
	j = start(t, c)
	require.EqualValues(t, 5, j.e.Progress().Counters["clicks"])
	items = append(items, plantest.Entity("b"), plantest.Event("a", "more"))
	j.log.append(0, items[6:]...)
	j.settle()
	require.EqualValues(t, 6, j.e.Progress().Counters["clicks"])
	require.NotContains(t, j.e.Progress().Counters, "events")
	clock.Move(2 * plantest.Wait) // timers follow too
	j.wait("timers", func(p engine.Progress) bool { return p.Fired > 0 })
	j.settle()
	j.stop()
	requireTables(t, items, m)

	j = start(t, c) // the mapping may stay
	j.stop()
	c.Plan.Renamed = nil // or go
	j = start(t, c)
	j.log.append(0, plantest.Event("b", "again"))
	j.settle()
	requireTables(t, append(items, plantest.Event("b", "again")), m)
}

func TestRemovedStateIsDeleted(t *testing.T) {
	t.Parallel()
	m := &memory{name: "index"}
	c := config(t, newLog(), m)
	j := start(t, c)
	var items []record.Item
	for i := range 2000 {
		items = append(items, plantest.Event(fmt.Sprintf("w%d", i), strings.Repeat(fmt.Sprint(i), 500)))
	}
	j.log.append(0, append(items, pairs(3)...)...)
	j.settle()
	j.stop()
	before := stateBytes(t, c)

	c.Plan = toy(func(p *plan.Plan) { p.Stages[0].Name, p.Removed = "join2", []string{"join"} })
	j = start(t, c)
	// Neither waiting records nor entities are known any more; the other stages' state is.
	j.log.append(0, plantest.Entity("w7"), plantest.Event("a", "waits"), plantest.Entity("d"), plantest.Event("d", "d1"))
	j.settle()
	j.stop()
	got, err := plantest.Tables(c.Plan, m.published())
	require.NoError(t, err)
	require.Equal(t, map[string]string{
		"joined/e0": "a", "joined/e1": "a", "joined/e2": "a", "joined/d1": "d", "letters/a": "3", "letters/d": "1", "totals/all": "4 4",
	}, got)
	require.Less(t, stateBytes(t, c), before/4, "the space is freed")

	// A stage of the old name begins anew.
	c.Plan = toy(func(p *plan.Plan) { p.Version, p.Removed = "3.0.0", []string{"join2"} })
	j = start(t, c)
	rows := len(m.published())
	j.log.append(0, plantest.Entity("a"))
	j.settle()
	require.Len(t, m.published(), rows, "the event that waited is gone too")
}

// stateBytes are the bytes of the files of the state.
func stateBytes(t *testing.T, c engine.Config) (n int64) {
	t.Helper()
	p, err := engine.ReadProgress(c.FS, c.Dir)
	require.NoError(t, err)
	require.Positive(t, p.StateBytes)
	return p.StateBytes
}

// Rows that were not published when the plan changed become rows of the tables there are now.
func TestRowsInTheOutboxFollow(t *testing.T) {
	t.Parallel()
	m := &memory{name: "index", block: make(chan struct{})}
	c := config(t, newLog(), m)
	c.DrainTimeout = time.Millisecond
	run := func(p *plan.Plan, items ...record.Item) {
		c.Plan = p
		j := start(t, c)
		read := j.e.Progress().Read + int64(len(items))
		j.log.append(0, items...)
		j.wait("the items to be read", func(p engine.Progress) bool { return p.Read == read })
		j.stop()
	}
	more := plan.Column{Name: "more", Type: plan.Long, Nullable: true}
	wider := func(p *plan.Plan) {
		p.Tables[0].Schema.Columns = []plan.Column{more, {Name: "value", Type: plan.String, Nullable: true}}
	}
	run(plantest.Toy(), pairs(1)...)
	run(toy(func(p *plan.Plan) {
		p.Tables[0].Name, p.Renamed = "matched", map[string]string{"joined": "matched"}
	}), plantest.Event("a", "second"))
	c.Plan = toy(func(p *plan.Plan) {
		p.Version = "3.0.0"
		p.Tables[0].Name, p.Renamed = "matched", map[string]string{"joined": "matched"}
		wider(p)
	})
	close(m.block)
	j := start(t, c)
	j.settle()
	j.stop()
	got := map[string][]plan.Cell{}
	for _, r := range m.published() {
		if r.Table != 0 {
			continue
		}
		cells := make([]plan.Cell, 2)
		require.NoError(t, c.Plan.Tables[0].Schema.Decode(r.Value, cells))
		got[r.ID] = cells
	}
	a := []plan.Cell{{Null: true}, {Bytes: []byte("a")}}
	require.Equal(t, map[string][]plan.Cell{"e0": a, "second": a}, got)
}

// The app of the tests below: posts, the thread that they are in, the forum that the thread is in.
type post struct {
	Message string  `avro:"message"`
	Thread  *string `avro:"thread"`
	Forum   *string `avro:"forum"`
}

type person struct {
	Name *string `avro:"name"`
}

func forumApp(change func(a *etl.App, posts *etl.Table[post])) etl.App {
	posts := etl.Table[post]{
		Name: "post", From: etl.Events(caliper.MessageEvent),
		Joins: []etl.Join{
			etl.JoinEntity(caliper.Thread).ToField("thread").On("entity.@id").Eq("event.object.isPartOf.id"),
			etl.JoinEntity(caliper.Forum).ToField("forum").On("entity.@id").Eq("thread.isPartOf.id"),
		},
		Map: func(r *etl.Reader) (post, error) {
			return post{r.String("event.object.id"), etl.Opt[string](r, "thread.name"), etl.Opt[string](r, "forum.name")}, nil
		},
	}
	a := etl.App{Name: "forum-job", Version: "1"}
	if change != nil {
		a.Version = "2"
		change(&a, &posts)
	}
	a.Tables = append(a.Tables, posts)
	return a
}

func forumEvent(id, thread, at string) record.Item {
	return record.Item{Account: "acme", Env: "test", Kind: record.Event, Bytes: fmt.Appendf(nil,
		`{"type":"MessageEvent","id":"urn:%s","action":"Posted","actor":"https://x.edu/u","object":{"id":"%[1]s","type":"Message","isPartOf":{"id":"https://x.edu/%s","type":"Thread"}},"eventTime":"2026-03-02T%s:00.000Z"}`,
		id, thread, at)}
}

func forumEntity(typ, id, in, at string) record.Item {
	return record.Item{Account: "acme", Env: "test", Kind: record.Entity, Bytes: fmt.Appendf(nil,
		`{"type":%q,"id":"https://x.edu/%s","name":"%[2]s at %[4]s","isPartOf":{"id":"https://x.edu/%[3]s","type":"Forum"},"dateModified":"2026-03-02T%s:00.000Z"}`,
		typ, id, in, at)}
}

// forumRows are the rows that readers of a table see: message → what the row says.
func forumRows(t *testing.T, p *plan.Plan, table string, rows []plan.Row) map[string]string {
	t.Helper()
	i, ok := p.Table(table)
	require.True(t, ok)
	newest := map[string]plan.Row{}
	for _, r := range rows {
		if old, seen := newest[r.ID]; r.Table == i && (!seen || r.Rev >= old.Rev) {
			newest[r.ID] = r
		}
	}
	out := map[string]string{}
	for _, r := range newest {
		if r.Deleted {
			continue
		}
		cells := make([]plan.Cell, len(p.Tables[i].Schema.Columns))
		require.NoError(t, p.Tables[i].Schema.Decode(r.Value, cells))
		var words []string
		for _, c := range cells {
			words = append(words, string(c.Bytes))
		}
		out[words[0]] = strings.Join(words[1:], ", ")
	}
	return out
}

// What waits and what is corrected goes on right under a plan that numbers its stages otherwise, and calls them otherwise.
func TestJoinsGoOnUnderAnotherPlan(t *testing.T) {
	t.Parallel()
	people := etl.Table[person]{
		Name: "person", From: etl.Entities(caliper.Person),
		Map: func(r *etl.Reader) (person, error) { return person{etl.Opt[string](r, "entity.name")}, nil },
	}
	visits := etl.Table[person]{
		Name: "visit", From: etl.Events(caliper.NavigationEvent),
		Joins: []etl.Join{etl.JoinEntity(caliper.Person).ToField("who").On("entity.id").Eq("event.actor.id")},
		Map:   func(r *etl.Reader) (person, error) { return person{etl.Opt[string](r, "who.name")}, nil },
	}
	for name, change := range map[string]struct {
		table string
		to    func(a *etl.App, posts *etl.Table[post])
	}{
		"the same plan": {"post", func(*etl.App, *etl.Table[post]) {}},
		"more tables":   {"post", func(a *etl.App, _ *etl.Table[post]) { a.Tables = []etl.Transformer{people, visits} }},
		"a join more": {"post", func(_ *etl.App, posts *etl.Table[post]) {
			posts.Joins = append(slices.Clone(posts.Joins), etl.JoinEntity(caliper.Person).ToField("who").On("entity.id").Eq("event.object.nobody.id"))
		}},
		"other spellings, other names": {"message", func(a *etl.App, posts *etl.Table[post]) {
			posts.Name = "message"
			posts.Joins = []etl.Join{
				etl.JoinEntity(caliper.Thread).ToField("thread").On("entity.id").Eq("event.object.isPartOf.@id"),
				etl.JoinEntity(caliper.Forum).ToField("forum").On("entity.id").Eq("thread.isPartOf.@id"),
			}
			a.Tables = []etl.Transformer{visits}
			a.Renamed = map[string]string{"post": "message", "join/Thread/@id": "join/Thread/id", "join/Forum/@id": "join/Forum/id"}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := []record.Item{
				forumEntity("Thread", "t1", "f1", "08:00"),
				forumEvent("m1", "t1", "10:00"), // joined with t1 at 8, waits for f1
				forumEvent("m2", "t2", "10:00"), // waits for t2
				forumEntity("Thread", "t3", "f3", "08:00"), forumEntity("Forum", "f3", "x", "08:00"),
				forumEvent("m3", "t3", "10:00"), // a row
			}
			second := []record.Item{
				forumEntity("Thread", "t1", "f2", "09:00"), // m1 belongs to f2
				forumEntity("Forum", "f1", "x", "08:00"),
				forumEntity("Forum", "f2", "x", "08:00"),
				forumEntity("Thread", "t2", "f1", "08:00"),
				forumEntity("Thread", "t3", "f2", "09:00"), // corrects m3
				forumEvent("m4", "t3", "10:00"),
			}
			m := &memory{name: "index"}
			c := config(t, newLog(), m)
			var err error
			c.Plan, err = forumApp(nil).Plan()
			require.NoError(t, err)
			j := start(t, c)
			j.log.append(0, first...)
			j.settle()
			require.EqualValues(t, 2, j.e.Progress().Counters["table.post.waiting"])
			j.stop()
			require.Equal(t, map[string]string{"m3": "t3 at 08:00, f3 at 08:00"}, forumRows(t, c.Plan, "post", m.published()))

			c.Plan, err = forumApp(change.to).Plan()
			require.NoError(t, err)
			j = start(t, c)
			for _, it := range second {
				j.log.append(0, it)
				j.settle()
			}
			j.stop()
			require.Equal(t, map[string]string{
				"m1": "t1 at 09:00, f2 at 08:00", "m2": "t2 at 08:00, f1 at 08:00",
				"m3": "t3 at 09:00, f2 at 08:00", "m4": "t3 at 09:00, f2 at 08:00",
			}, forumRows(t, c.Plan, change.table, m.published()))
			counters := j.e.Progress().Counters
			require.EqualValues(t, 0, counters["table."+change.table+".waiting"])
			require.EqualValues(t, 4, counters["table."+change.table+".in"])
		})
	}
}

// Records that wait for a table that is given up are dropped; entities of a join that it shared stay.
func TestRemovedTable(t *testing.T) {
	t.Parallel()
	m := &memory{name: "index"}
	c := config(t, newLog(), m)
	var err error
	c.Plan, err = forumApp(nil).Plan()
	require.NoError(t, err)
	j := start(t, c)
	j.log.append(0, forumEntity("Thread", "t1", "f1", "08:00"), forumEvent("m1", "t1", "10:00"), forumEvent("m2", "t2", "10:00"))
	j.settle()
	j.stop()

	other := func(removed ...string) engine.Config {
		c := c
		c.Plan, err = forumApp(func(a *etl.App, posts *etl.Table[post]) { posts.Name, a.Removed = "note", removed }).Plan()
		require.NoError(t, err)
		return c
	}
	_, err = engine.Open(t.Context(), other())
	require.ErrorContains(t, err, `table post removed: records that wait to become rows of it would be lost; keep it, or name it in Removed: Removed: []string{"post"}`)
	c = other("post")
	j = start(t, c)
	j.log.append(0, forumEntity("Forum", "f1", "x", "08:00"), forumEntity("Thread", "t2", "f1", "08:00"), forumEvent("m3", "t1", "10:00"))
	j.settle()
	j.stop()
	require.Equal(t, map[string]string{"m3": "t1 at 08:00, f1 at 08:00"}, forumRows(t, c.Plan, "note", m.published()))
}

// A savepoint is restored under the plan that comes next, like a directory.
func TestRestoreUnderAnotherPlan(t *testing.T) {
	t.Parallel()
	c := config(t, newLog(), &memory{name: "index"})
	j := start(t, c)
	items := append(pairs(2), plantest.Event("b", "waits"))
	j.log.append(0, items...)
	j.settle()
	require.NoError(t, j.e.Savepoint(t.Context(), "saved"))
	j.stop()
	m, err := engine.ReadManifest(c.FS, "saved")
	require.NoError(t, err)
	require.Equal(t, "1.0.0", m.Plan.Version)
	require.Equal(t, c.Plan.Describe().Counters, m.Plan.Counters)

	require.NoError(t, engine.Restore(c.FS, "saved", "again", c.Now()))
	again := &memory{name: "index"}
	c.Dir, c.Sinks = "again", []sink.Sink{again}
	c.Plan = toy(func(p *plan.Plan) { p.Stages[0].Name, p.Renamed = "match", map[string]string{"join": "match"} })
	changes, err := engine.ComparePlan(c.FS, "saved", c.Plan)
	require.NoError(t, err)
	require.Equal(t, []plan.Change{{What: "stage join renamed to match", Meaning: "its state goes on under the new name"}}, changes.Changes)
	require.Equal(t, map[string]string{"join": "match"}, changes.RenamedStages)
	j = start(t, c)
	j.log.append(0, plantest.Entity("b"))
	j.settle()
	require.True(t, slices.ContainsFunc(again.published(), func(r plan.Row) bool { return r.ID == "waits" && r.Table == 0 }))
}
