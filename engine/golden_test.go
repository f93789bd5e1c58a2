package engine_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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

// goldenApp has every kind of state that etl keeps.
func goldenApp(t *testing.T) *plan.Plan {
	t.Helper()
	p, err := forumApp(func(a *etl.App, _ *etl.Table[post]) {
		a.Version = "1"
		who := etl.JoinEntity(caliper.Person).ToField("who").On("entity.id").Eq("event.actor.id")
		a.Tables = []etl.Transformer{
			etl.Table[post]{
				Name: "person", From: etl.Entities(caliper.Person),
				Joins: []etl.Join{etl.JoinEntity(caliper.Group).ToField("group").On("entity.id").Eq("entity.isPartOf.id")},
				Map: func(r *etl.Reader) (post, error) {
					return post{r.String("entity.name"), etl.Opt[string](r, "group.name"), nil}, nil
				},
			},
			etl.Table[post]{
				Name: "drop", From: etl.Events(caliper.MessageEvent), Joins: []etl.Join{who.WaitFor(30 * time.Minute).Else(etl.Drop)},
				Map: func(r *etl.Reader) (post, error) {
					return post{r.String("event.object.id"), etl.Opt[string](r, "who.name"), nil}, nil
				},
			},
			etl.Table[post]{
				Name: "letter", From: etl.Events(caliper.MessageEvent), Joins: []etl.Join{who.WaitFor(2 * time.Hour).Else(etl.DeadLetter)},
				Map: func(r *etl.Reader) (post, error) {
					return post{r.String("event.object.id"), etl.Opt[string](r, "who.name"), nil}, nil
				},
			},
		}
	}).Plan()
	require.NoError(t, err)
	return p
}

// TestGoldenState opens every testdata/state-*.tgz, a job's directory and a savepoint of it that an earlier version or this one wrote
// in the middle of its work, and goes on to the end from both. Files that a released version wrote are never changed.
//
//	go test ./engine -run TestGoldenState -rewrite       # writes that of the format there is now
func TestGoldenState(t *testing.T) {
	t.Parallel()
	if f := flag.Lookup("rewrite"); f != nil && f.Value.String() == "true" {
		writeGoldenState(t)
	}
	archives, err := filepath.Glob("testdata/state-*.tgz")
	require.NoError(t, err)
	require.NotEmpty(t, archives)
	for _, archive := range archives {
		t.Run(filepath.Base(archive), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			unpack(t, archive, dir)
			finishGolden(t, filepath.Join(dir, "job"))

			unpack(t, archive, dir)
			saved := filepath.Join(dir, "restored")
			require.NoError(t, engine.Restore(nil, filepath.Join(dir, "saved"), saved, plantest.NewClock().Now()))
			finishGolden(t, saved)
		})
	}
}

// goldenLog is a log that begins with what the golden state has read.
func goldenLog(then ...record.Item) *log {
	l := newLog()
	l.append(0,
		forumEntity("Person", "old", "g1", "08:00"), forumEntity("Person", "old", "g2", "09:00"), // the newest counts
		forumEntity("Thread", "t1", "f1", "08:00"), forumEntity("Thread", "t3", "f3", "08:00"), forumEntity("Forum", "f3", "x", "08:00"),
		forumEvent("m1", "t1", "10:00"), // joined with t1, waits for f1
		forumEvent("m2", "t2", "10:00"), // waits for t2
		forumEvent("m3", "t3", "10:00"), // a row, which a better version would correct
	)
	if len(then) > 0 {
		l.append(0, then...)
	}
	return l
}

func writeGoldenState(t *testing.T) {
	dir := t.TempDir()
	clock, m := plantest.NewClock(), &memory{name: "index", block: make(chan struct{})}
	c := config(t, goldenLog(), m)
	c.Plan, c.FS, c.Dir, c.Now, c.DrainTimeout = goldenApp(t), vfs.Default, filepath.Join(dir, "job"), clock.Now, time.Millisecond
	j := start(t, c)
	j.wait("all to be read", func(p engine.Progress) bool { return p.Read == 8 })
	j.stop()
	j = start(t, c)              // which writes the state to tables
	clock.Move(40 * time.Minute) // the table drop has given up, and rows may still be corrected
	j.wait("timers", func(p engine.Progress) bool { return p.Counters["table.drop.dropped"] == 3 })
	require.NoError(t, j.e.Savepoint(t.Context(), filepath.Join(dir, "saved")))
	j.stop()
	m2, err := engine.ReadManifest(nil, filepath.Join(dir, "saved"))
	require.NoError(t, err)
	pack(t, dir, fmt.Sprintf("testdata/state-%d.tgz", m2.Format))
}

// finishGolden goes on from the golden state: with what was in the outbox, duplicates, entities that were waited for, a correction,
// and timers.
func finishGolden(t *testing.T, dir string) {
	clock, m := plantest.NewClock(), &memory{name: "index"}
	clock.Move(40 * time.Minute)
	c := config(t, goldenLog(), m)
	c.Plan, c.FS, c.Dir, c.Now, c.Sinks = goldenApp(t), vfs.Default, dir, clock.Now, []sink.Sink{m}
	j := start(t, c)
	require.EqualValues(t, 8, j.e.Progress().Read)
	require.EqualValues(t, 2, j.e.Progress().Counters["table.post.waiting"])
	j.settle()
	require.Equal(t, map[string]string{"m3": "t3 at 08:00, f3 at 08:00"}, forumRows(t, c.Plan, "post", m.published()), "from the outbox")
	for _, it := range []record.Item{
		forumEvent("m3", "t3", "10:00"), forumEntity("Thread", "t3", "f3", "08:00"), // duplicates
		forumEntity("Thread", "t1", "f2", "09:00"), // m1 belongs to f2
		forumEntity("Forum", "f1", "x", "08:00"), forumEntity("Forum", "f2", "x", "08:00"),
		forumEntity("Thread", "t2", "f1", "08:00"),
		forumEntity("Thread", "t3", "f2", "09:00"),   // m3 is corrected
		forumEntity("Person", "old", "g3", "08:30"),  // older than the newest
		forumEntity("Group", "g2", "x", "08:00"),     // which waits for this
		forumEntity("Group", "g1", "wrong", "08:00"), // nobody does any more
	} {
		j.log.append(0, it)
		j.settle()
	}
	clock.Move(3 * time.Hour)
	j.wait("dead letters", func(p engine.Progress) bool { return p.Counters["table.letter.dead_letters"] == 3 })
	j.settle()
	j.stop()
	rows := m.published()
	require.Equal(t, map[string]string{
		"m1": "t1 at 09:00, f2 at 08:00", "m2": "t2 at 08:00, f1 at 08:00", "m3": "t3 at 09:00, f2 at 08:00",
	}, forumRows(t, c.Plan, "post", rows))
	require.Equal(t, map[string]string{"old at 09:00": "g2 at 08:00, "}, forumRows(t, c.Plan, "person", rows))
	require.Empty(t, forumRows(t, c.Plan, "drop", rows))
	counters := j.e.Progress().Counters
	for name, n := range map[string]int64{
		"duplicates": 2, "table.post.waiting": 0, "table.drop.dropped": 3, "table.drop.waiting": 0, "table.letter.waiting": 0,
	} {
		require.Equal(t, n, counters[name], name)
	}
}

func pack(t *testing.T, dir, archive string) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	require.NoError(t, err)
	w := tar.NewWriter(z)
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: filepath.ToSlash(name), Mode: 0o644, Size: int64(len(content))}); err != nil {
			return err
		}
		_, err = w.Write(content)
		return err
	}))
	require.NoError(t, errors.Join(w.Close(), z.Close()))
	require.Less(t, b.Len(), 100_000, "the archive is committed")
	require.NoError(t, os.WriteFile(archive, b.Bytes(), 0o600))
}

func unpack(t *testing.T, archive, dir string) {
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "job")))
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "saved")))
	f, err := os.Open(archive)
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	r := tar.NewReader(z)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		content, err := io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, content, 0o600))
	}
}
