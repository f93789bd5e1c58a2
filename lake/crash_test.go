package lake_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/lake"
	"millrace/lake/laketest"
	"millrace/plan"
)

var errCrashed = errors.New("the machine is off")

// machine loses its power before the change with the given number: that change and all later ones fail. What was not synced
// by then is lost.
type machine struct {
	mu       sync.Mutex
	left     int
	crashed  bool
	unsynced map[string]bool // files without durable content
	unnamed  map[string]bool // files and folders without a durable name
}

func newMachine(changes int) *machine {
	return &machine{left: changes, unsynced: map[string]bool{}, unnamed: map[string]bool{}}
}

func (m *machine) fault(op, path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left == 0 {
		m.crashed = true
		return errCrashed
	}
	m.left--
	switch op {
	case "create":
		m.unsynced[path], m.unnamed[path] = true, true
	case "sync":
		delete(m.unsynced, path)
	case "syncdir":
		for name := range m.unnamed {
			if filepath.Dir(name) == path {
				delete(m.unnamed, name)
			}
		}
	case "remove":
		delete(m.unsynced, path)
		delete(m.unnamed, path)
	}
	return nil
}

// lose makes the disk what it is after the power cut.
func (m *machine) lose(t *testing.T) {
	for path := range m.unsynced {
		if _, err := os.Stat(path); err == nil {
			require.NoError(t, os.Truncate(path, 0))
		}
	}
	for path := range m.unnamed {
		if err := os.Remove(path); err != nil {
			require.ErrorIs(t, err, fs.ErrNotExist)
		}
	}
}

// batches are what the crash tests publish, by epoch: new rows, corrections that move, and a withdrawal.
func batches() [][]plan.Row {
	return [][]plan.Row{
		{quiz("a", 1, 1, 0), quiz("b", 1, 1, day), quiz("c", 1, 1, 0)},
		{quiz("a", 2, 2, 3*day), quiz("d", 1, 2, 0)},
		{{ID: "b", Rev: 2, Deleted: true, Epoch: 3}, quiz("d", 2, 3, 0), quiz("e", 1, 3, day)},
	}
}

var afterBatches = map[string]float64{"a": 2, "c": 1, "d": 2, "e": 1}

// publishAll publishes the batches that the table does not have yet, as a sink does that has forgotten how far it was.
func publishAll(ctx context.Context, l *lake.Lake) error {
	tbl, err := l.Table(ctx, "v1", quizzes)
	if err != nil {
		return err
	}
	if _, err := tbl.Sweep(ctx, 0); err != nil {
		return err
	}
	for i, rows := range batches() {
		p, err := tbl.Write(ctx, rows, "L1", "1.0.0")
		if err != nil {
			return err
		}
		if err := tbl.Commit(ctx, p, lake.Position{Lineage: "L1", FromEpoch: uint64(i + 1), ToEpoch: uint64(i + 1)}); err != nil {
			return err
		}
	}
	return nil
}

// files counts the files of a lake by what they are.
func files(t *testing.T, dir string) map[string]int {
	n := map[string]int{}
	for _, name := range laketest.Files(t, dir) {
		n[filepath.Ext(name)]++
	}
	return n
}

// The power fails at each change of the disk; on S3, which forgets nothing that it has answered, at every third.
func TestPowerCutAtEachChange(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	step := 1
	if laketest.OnS3() {
		step = 3
	}
	for changes := 0; ; changes += step {
		dir := t.TempDir()
		m := newMachine(changes)
		l, err := lake.OpenWithFaults(ctx, laketest.In(dir), m.fault)
		if err == nil {
			err = publishAll(ctx, l)
			require.NoError(t, l.Close())
		}
		if !m.crashed {
			require.NoError(t, err)
			require.Greater(t, changes, 30, "too few changes to have crashed in each step")
			return
		}
		require.ErrorIs(t, err, errCrashed, "after %d changes", changes)
		m.lose(t)

		l, err = lake.Open(ctx, laketest.In(dir))
		require.NoError(t, err, "after %d changes", changes)
		require.NoError(t, publishAll(ctx, l), "after %d changes", changes)
		tbl, err := l.Table(ctx, "v1", quizzes)
		require.NoError(t, err)
		require.Equal(t, afterBatches, scores(t, tbl), "after %d changes", changes)

		_, err = tbl.Sweep(ctx, 0)
		require.NoError(t, err)
		listed, err := tbl.Files(ctx)
		require.NoError(t, err)
		const deletes = 2
		require.Equal(t, len(listed)+deletes, files(t, dir)[".parquet"], "parquet files after %d changes and a sweep", changes)
		require.Equal(t, afterBatches, scores(t, tbl), "swept after %d changes", changes)
		require.NoError(t, l.Close())
	}
}

const killDir = "MILLRACE_TEST_KILL_DIR"

// TestMain lets the test binary be the process that TestKill kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		if err := publishUntilKilled(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const killEpochs = 40

// publishUntilKilled corrects one row and adds another in each epoch, and says so when the epoch begins to be published.
func publishUntilKilled(dir string) error {
	ctx := context.Background()
	l, err := lake.Open(ctx, laketest.In(dir))
	if err != nil {
		return err
	}
	tbl, err := l.Table(ctx, "v1", quizzes)
	if err != nil {
		return err
	}
	if _, err := tbl.Sweep(ctx, 0); err != nil {
		return err
	}
	last, _, err := tbl.Published(ctx)
	if err != nil {
		return err
	}
	// One epoch back: the process may have died between publishing and noting it.
	for e := max(last.ToEpoch, 1); e <= killEpochs; e++ {
		fmt.Println(e)
		rows := []plan.Row{quiz("hot", e, e, int64(e%2)*day), quiz(fmt.Sprint(e), 1, e, 0)}
		p, err := tbl.Write(ctx, rows, "L1", "1.0.0")
		if err != nil {
			return err
		}
		if err := tbl.Commit(ctx, p, lake.Position{Lineage: "L1", FromEpoch: e, ToEpoch: e}); err != nil {
			return err
		}
		if e%10 == 0 {
			if _, err := tbl.Compact(ctx); err != nil {
				return err
			}
		}
	}
	return l.Close()
}

func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kills := 0
	for {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), killDir+"="+dir)
		var stderr strings.Builder
		child.Stderr = &stderr
		out, err := child.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, child.Start())
		lines := bufio.NewScanner(out)
		for n := 0; n < 4+kills%3 && lines.Scan(); n++ {
			// reads until the child is at work on its last line
		}
		if lines.Scan() {
			// The child goes on while this is read; how far it gets is up to the machine.
			require.NoError(t, child.Process.Kill())
			kills++
		}
		for lines.Scan() {
		}
		if err := child.Wait(); err == nil {
			break
		}
		require.Empty(t, stderr.String())
		require.Less(t, kills, 100, "no progress")
	}
	require.GreaterOrEqual(t, kills, 5)

	tbl := openTable(t, openLake(t, lake.Config{Dir: dir}))
	want := map[string]float64{"hot": killEpochs}
	for e := range killEpochs {
		want[fmt.Sprint(e+1)] = 1
	}
	require.Equal(t, want, scores(t, tbl))
}
