package lake_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/lake"
	"millrace/lake/laketest"
	"millrace/plan"
	"millrace/sink"
)

// claim is a lineage's claim to the table quizzes.
func claim(l sink.Lineage) lake.Claim {
	c := lake.Claim{Owner: "app", Lineage: l.ID, Token: l.Token, Holds: func(m lake.Mark) bool { return l.Holds(sink.Point(m)) }}
	if start, forked := l.Start(); forked {
		c.Start = lake.Mark(start)
	}
	return c
}

var first = sink.Lineage{ID: "L1", Token: 1}

// commit publishes one epoch of a lineage.
func commit(tbl *lake.Table, lineage string, epoch uint64, rows ...plan.Row) error {
	ctx := context.Background()
	p, err := tbl.Write(ctx, rows, lineage, "1.0.0")
	if err != nil {
		return err
	}
	return tbl.Commit(ctx, p, lake.Position{Lineage: lineage, FromEpoch: epoch, ToEpoch: epoch})
}

// hot publishes epochs that each correct one row and add another.
func hot(t *testing.T, tbl *lake.Table, lineage string, from, to uint64) {
	t.Helper()
	for e := from; e <= to; e++ {
		require.NoError(t, commit(tbl, lineage, e, quiz("hot", e, e, day*int64(e%3)), quiz(fmt.Sprint(e), 1, e, 0)))
	}
}

// upTo is what the table holds after epochs of hot.
func upTo(epoch uint64) map[string]float64 {
	want := map[string]float64{}
	for e := uint64(1); e <= epoch; e++ {
		want["hot"], want[fmt.Sprint(e)] = float64(e), 1
	}
	return want
}

func TestGoingBackOverCompaction(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tbl := openTable(t, openLake(t, lake.Config{}))
	require.NoError(t, tbl.Claim(ctx, claim(first)))
	hot(t, tbl, "L1", 1, 30)
	_, err := tbl.Compact(ctx) // has the position of epoch 30
	require.NoError(t, err)
	hot(t, tbl, "L1", 31, 66)
	_, err = tbl.Compact(ctx) // applies corrections of after 30
	require.NoError(t, err)
	second := first.Fork(30, "L2", 2)
	require.NoError(t, tbl.Claim(ctx, claim(second)))
	require.Equal(t, upTo(30), scores(t, tbl))
	last, ok, err := tbl.Published(ctx)
	require.NoError(t, err)
	require.True(t, ok)
	require.EqualValues(t, 30, last.ToEpoch)
	hot(t, tbl, "L2", 31, 35)
	_, err = tbl.Compact(ctx)
	require.NoError(t, err)
	require.Equal(t, upTo(35), scores(t, tbl))
	require.NoError(t, tbl.Claim(ctx, claim(second)), "again")
	require.Equal(t, upTo(35), scores(t, tbl))
}

func TestGoingBackNeedsASnapshot(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tbl := openTable(t, openLake(t, lake.Config{KeepSnapshots: 3, KeepFor: time.Nanosecond}))
	require.NoError(t, tbl.Claim(ctx, claim(first)))
	hot(t, tbl, "L1", 1, 8)
	require.NoError(t, tbl.Keep(ctx, []lake.Mark{{Lineage: "L1", Epoch: 8}, {Lineage: "L1", Epoch: 1}}), "of 1 nothing is left")
	hot(t, tbl, "L1", 9, 24)

	require.ErrorIs(t, tbl.Claim(ctx, claim(first.Fork(12, "L2", 2))), lake.ErrExpired)
	require.ErrorIs(t, tbl.Claim(ctx, claim(first.Fork(1, "L2", 2))), lake.ErrExpired)
	require.Equal(t, upTo(24), scores(t, tbl), "nothing has changed")
	hot(t, tbl, "L1", 25, 25)

	second := first.Fork(8, "L2", 2)
	require.NoError(t, tbl.Claim(ctx, claim(second)))
	require.Equal(t, upTo(8), scores(t, tbl))
	hot(t, tbl, "L2", 9, 24)

	// The archive's past is what it was, however much has come since.
	past := map[string]float64{}
	for row, err := range tbl.Base(ctx) {
		require.NoError(t, err)
		past[row["_id"].(string)] = row["score"].(float64)
	}
	require.Equal(t, upTo(8), past)

	// Forgotten, it goes.
	require.NoError(t, tbl.Keep(ctx, nil))
	hot(t, tbl, "L2", 25, 36)
	require.ErrorIs(t, tbl.Claim(ctx, claim(second.Fork(8, "L3", 3))), lake.ErrExpired)
	require.Equal(t, upTo(36), scores(t, tbl))
}

func TestGoingBackToAnEmptyTable(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tbl := openTable(t, openLake(t, lake.Config{KeepSnapshots: 3, KeepFor: time.Nanosecond}))
	require.NoError(t, tbl.Claim(ctx, claim(first)))
	for e := uint64(11); e <= 24; e++ { // its first epochs had no rows for the table, and the snapshots of the next expire
		require.NoError(t, commit(tbl, "L1", e, quiz("a", e, e, 0)))
	}
	require.NoError(t, tbl.Claim(ctx, claim(first.Fork(10, "L2", 2))))
	require.Empty(t, scores(t, tbl))
	require.NoError(t, commit(tbl, "L2", 12, quiz("a", 1, 12, 0)))
	require.Equal(t, map[string]float64{"a": 1}, scores(t, tbl))
}

func TestAnotherHistoryIsNotTakenAway(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	l := openLake(t, lake.Config{})
	tbl := openTable(t, l)
	require.NoError(t, tbl.Claim(ctx, claim(first)))
	hot(t, tbl, "L1", 1, 3)
	other := openTable(t, l)
	require.ErrorIs(t, other.Claim(ctx, claim(sink.Lineage{ID: "X", Token: 9})), lake.ErrForeign)
	foreign := claim(first.Fork(2, "L2", 2))
	foreign.Owner = "another"
	require.ErrorContains(t, other.Claim(ctx, foreign), "it belongs to app, not to another")
	hot(t, tbl, "L1", 4, 4)
	require.Equal(t, upTo(4), scores(t, tbl))
}

// An old writer that has written its files, and looked at the table, is refused when it commits.
func TestOldWriterIsRefusedHalfWay(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	var zombie *lake.Table
	claimed := false
	at := laketest.In(dir)
	l := openLake(t, lake.Config{Dir: dir})
	slow, err := lake.OpenWithFaults(ctx, at, func(op, path string) error {
		if op == "create" && zombie != nil && !claimed { // the first file of its commit
			claimed = true
			return openTable(t, l).Claim(ctx, claim(first.Fork(2, "L2", 2)))
		}
		return nil
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, slow.Close()) })
	tbl := openTable(t, slow)
	require.NoError(t, tbl.Claim(ctx, claim(first)))
	hot(t, tbl, "L1", 1, 2)
	p, err := tbl.Write(ctx, []plan.Row{quiz("z", 1, 3, 0)}, "L1", "1.0.0")
	require.NoError(t, err)
	zombie = tbl
	err = tbl.Commit(ctx, p, lake.Position{Lineage: "L1", FromEpoch: 3, ToEpoch: 3})
	require.True(t, claimed)
	require.ErrorIs(t, err, lake.ErrFenced)
	_, err = tbl.Compact(ctx)
	require.NoError(t, err, "nothing to do")
	require.ErrorIs(t, tbl.Keep(ctx, nil), lake.ErrFenced)
	require.Equal(t, upTo(2), scores(t, openTable(t, l)))
}

// An old writer whose files a new one has swept is told that it is not the writer any more, not to write them again.
func TestOldWriterWhoseFilesAreGone(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	zombie := openTable(t, openLake(t, lake.Config{Dir: dir}))
	require.NoError(t, zombie.Claim(ctx, claim(first)))
	hot(t, zombie, "L1", 1, 2)
	write := func(tbl *lake.Table) *lake.Pending {
		p, err := tbl.Write(ctx, []plan.Row{quiz("z", 1, 3, 0)}, "L1", "1.0.0")
		require.NoError(t, err)
		return p
	}
	p, pos := write(zombie), lake.Position{Lineage: "L1", FromEpoch: 3, ToEpoch: 3}

	tbl := openTable(t, openLake(t, lake.Config{Dir: dir}))
	swept := func() {
		n, err := tbl.Sweep(ctx, 0)
		require.NoError(t, err)
		require.Equal(t, 1, n)
	}
	swept()
	require.ErrorContains(t, zombie.Commit(ctx, p, pos), "a file of the batch is gone, write the batch again")

	p = write(zombie)
	require.NoError(t, tbl.Claim(ctx, claim(first.Fork(2, "L2", 2))))
	swept()
	require.ErrorIs(t, zombie.Commit(ctx, p, pos), lake.ErrFenced)
	require.Equal(t, upTo(2), scores(t, tbl))
}

func TestPowerCutAtEachChangeOfGoingBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	back := 0
	for changes := 0; ; changes++ {
		dir := t.TempDir()
		l, err := lake.Open(ctx, laketest.In(dir))
		require.NoError(t, err)
		tbl := openTable(t, l)
		require.NoError(t, tbl.Claim(ctx, claim(first)))
		hot(t, tbl, "L1", 1, 4)
		require.NoError(t, l.Close())

		second := first.Fork(2, "L2", 2)
		m := newMachine(changes)
		l, err = lake.OpenWithFaults(ctx, laketest.In(dir), m.fault)
		if err == nil {
			if tbl, err = l.Table(ctx, "v1", quizzes); err == nil {
				err = tbl.Claim(ctx, claim(second))
			}
			require.NoError(t, l.Close())
		}
		if !m.crashed {
			require.NoError(t, err)
			require.Positive(t, changes)
			require.Less(t, back, changes)
			return
		}
		m.lose(t)
		l, err = lake.Open(ctx, laketest.In(dir))
		require.NoError(t, err)
		tbl = openTable(t, l)
		if got := scores(t, tbl); len(got) == len(upTo(2)) {
			back++
			require.Equal(t, upTo(2), got)
		} else {
			require.Equal(t, upTo(4), got)
		}
		require.NoError(t, tbl.Claim(ctx, claim(second)))
		require.Equal(t, upTo(2), scores(t, tbl))
		hot(t, tbl, "L2", 3, 3)
		require.Equal(t, upTo(3), scores(t, tbl))
		require.NoError(t, l.Close())
	}
}
