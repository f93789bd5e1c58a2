package engine_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/plan/plantest"
)

// savepoints makes three savepoints, saved/1 to 3, of a job.
func savepoints(t *testing.T) (*job, *plantest.Clock) {
	t.Helper()
	clock := plantest.NewClock()
	c := config(t, newLog(), &memory{name: "index"})
	c.Now = clock.Now
	j := start(t, c)
	for _, dir := range []string{"saved/1", "saved/2", "saved/3"} {
		j.log.append(0, pairs(5)...)
		j.settle()
		clock.Move(time.Minute)
		require.NoError(t, j.e.Savepoint(t.Context(), dir))
	}
	j.stop()
	return j, clock
}

func read(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	require.NoError(t, err)
	b, err := io.ReadAll(f)
	require.NoError(t, errors.Join(err, f.Close()))
	return b
}

// replace gives a file other content, and not what is linked to it.
func replace(t *testing.T, fs vfs.FS, name string, content []byte) {
	t.Helper()
	require.NoError(t, fs.Remove(name))
	create(t, fs, name, content)
}

func create(t *testing.T, fs vfs.FS, name string, content []byte) {
	t.Helper()
	f, err := fs.Create(name, "test")
	require.NoError(t, err)
	_, err = f.Write(slices.Clone(content)) // under the race detector Pebble's file system changes what it was given
	require.NoError(t, errors.Join(err, f.Close()))
}

func TestEveryDamagedFileOfASavepointIsFound(t *testing.T) {
	t.Parallel()
	j, clock := savepoints(t)
	fs := j.c.FS
	m, err := engine.Verify(fs, "saved/3")
	require.NoError(t, err)
	require.Greater(t, len(m.Files), 4)
	names := []string{"checkpoint.json"}
	for _, f := range m.Files {
		if f.Bytes > 0 {
			names = append(names, f.Name)
		}
	}
	for _, name := range names {
		name = "saved/3/" + name
		good := read(t, fs, name)
		size := len(good)
		for _, f := range m.Files {
			if "saved/3/"+f.Name == name {
				size = int(f.Bytes) // an outbox segment may go on
			}
		}
		flipped := append([]byte{}, good...)
		flipped[size/2] ^= 1
		for what, bad := range map[string][]byte{"a bit": flipped, "the last byte": good[:size-1], "all": {}} {
			replace(t, fs, name, bad)
			_, err := engine.Verify(fs, "saved/3")
			require.ErrorIs(t, err, engine.ErrDamaged, "%s of %s", what, name)
			require.ErrorContains(t, err, name+" is damaged")
			require.ErrorContains(t, err, "the next older one that is good is saved/2 (epoch 2, ")
			require.ErrorIs(t, engine.Restore(fs, "saved/3", "again", clock.Now()), engine.ErrDamaged)
			err = engine.Rewind(fs, "saved/3", j.c.Dir, clock.Now())
			require.ErrorIs(t, err, engine.ErrDamaged)
			require.ErrorContains(t, err, "saved/2")
		}
		require.NoError(t, fs.Remove(name))
		_, err := engine.Verify(fs, "saved/3")
		require.ErrorContains(t, err, name)
		create(t, fs, name, good)
	}
	_, err = engine.Verify(fs, "saved/3")
	require.NoError(t, err)
	_, err = fs.Stat("again")
	require.Error(t, err)
	p, err := engine.ReadProgress(fs, j.c.Dir)
	require.NoError(t, err)
	require.EqualValues(t, 3, p.Epoch, "the job is as it was")
}

func TestEveryByteOfAManifestCounts(t *testing.T) {
	t.Parallel()
	j, _ := savepoints(t)
	good := read(t, j.c.FS, "saved/1/checkpoint.json")
	for i := range good {
		bad := append([]byte{}, good...)
		bad[i] ^= 0x20
		replace(t, j.c.FS, "saved/1/checkpoint.json", bad)
		_, err := engine.ReadManifest(j.c.FS, "saved/1")
		require.ErrorIs(t, err, engine.ErrDamaged, "byte %d", i)
	}
}

func TestListCheckpoints(t *testing.T) {
	t.Parallel()
	j, _ := savepoints(t)
	fs := j.c.FS
	replace(t, fs, "saved/2/checkpoint.json", []byte("{}"))
	require.NoError(t, fs.MkdirAll("saved/tmp-4", 0o755))
	require.NoError(t, fs.MkdirAll("saved/5", 0o755))
	all, err := engine.ListCheckpoints(fs, "saved")
	require.NoError(t, err)
	var got []string
	for _, l := range all {
		text := l.Dir
		if l.Err != nil {
			text += " " + l.Err.Error()
		}
		got = append(got, text)
	}
	require.Equal(t, []string{
		"saved/3", "saved/1", "saved/2 saved/2/checkpoint.json is damaged: its last line is missing",
		"saved/5 saved/5 is not a checkpoint: open saved/5/checkpoint.json: file does not exist",
	}, got)
	require.EqualValues(t, 3, all[0].Manifest.Epoch)
	all, err = engine.ListCheckpoints(fs, "nowhere")
	require.NoError(t, err)
	require.Empty(t, all)

	// The next older good one is not just the next older one.
	replace(t, fs, "saved/3/checkpoint.json", []byte(strings.Repeat("x", 100)))
	_, err = engine.Verify(fs, "saved/3")
	require.ErrorContains(t, err, "the next older one that is good is saved/1 (epoch 1, ")
	replace(t, fs, "saved/1/checkpoint.json", nil)
	_, err = engine.Verify(fs, "saved/3")
	require.ErrorContains(t, err, "there is no older one beside it that is good")
}

func TestRewindRefusesAnotherInstancesSavepoint(t *testing.T) {
	t.Parallel()
	j, clock := savepoints(t)
	c := j.c
	c.Dir, c.Instance = "other", "other"
	e, err := engine.Open(t.Context(), c)
	require.NoError(t, err)
	require.NoError(t, e.Close())
	require.EqualError(t, engine.Rewind(c.FS, "saved/1", "other", clock.Now()),
		"take other back to saved/1: the savepoint is of instance toy and the job of other")
}
