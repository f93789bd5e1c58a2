package bench_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"github.com/stretchr/testify/require"

	"millrace/bench"
)

// noStack is for what needs none.
func noStack(context.Context, string) (bench.Stack, error) {
	return nil, errors.New("no stack here")
}

func TestJob(t *testing.T) { //nolint:paralleltest // it changes GOMAXPROCS, and there is one CPU profile a process
	var cpu bytes.Buffer
	r, err := bench.Run(t.Context(), bench.Config{
		Dir: t.TempDir(), Keys: []int{1000}, Only: []string{"job", "app"}, Records: 3000, Rounds: 1, Stack: noStack, CPUProfile: &cpu,
	})
	require.NoError(t, err)
	require.Len(t, r.Jobs, 6, "an app with and without corrections, and the shipped one with, on one and two workers")
	for _, j := range r.Jobs {
		require.Equal(t, 1000, j.Keys)
		require.Positive(t, j.CPU.Median)
		require.Positive(t, j.Floor.Median)
		require.Greater(t, j.Times.Median, 1.0, "a job that is cheaper than its floor did not do its work: %+v", j)
		require.InDelta(t, 1500, j.BytesPerRecord, 200)
		sum := 0.0
		for _, s := range j.Stages {
			sum += s.Part
		}
		require.InDelta(t, 1, sum, 1e-6, "%v", j.Stages)
	}
	p, err := profile.ParseData(cpu.Bytes())
	require.NoError(t, err)
	require.NotEmpty(t, p.Sample)
	require.Contains(t, p.Sample[0].Label["setting"][0], "keys=1000")

	var text bytes.Buffer
	require.NoError(t, r.Print(&text))
	require.Contains(t, text.String(), "two joins  1000  never      1")
	require.Contains(t, text.String(), "Where its processor time goes")
	require.Contains(t, text.String(), "first savepoint of 1000 keys")
}

func TestPartsAlone(t *testing.T) { //nolint:paralleltest // it measures the process's time
	r, err := bench.Run(t.Context(), bench.Config{
		Dir: t.TempDir(), Keys: []int{1000}, Only: []string{"steps", "collector"}, Records: 3000, Rounds: 1, Turn: 50 * time.Millisecond, Stack: noStack,
	})
	require.NoError(t, err)
	require.Empty(t, r.Jobs)
	what := map[string]float64{}
	for _, m := range r.Measures {
		what[m.What] = m.Median
	}
	require.Positive(t, what["map and Avro"])
	require.Positive(t, what["index publish, with the embedded index"])
	require.Positive(t, what["collector, 20 events an envelope"])
	require.Len(t, r.Goals, 1)
	require.Equal(t, r.Goals[0].Got >= 30_000, r.Goals[0].Met)
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]bench.Config{
		"no stack":           {},
		`no part "speed"`:    {Only: []string{"speed"}, Stack: noStack},
		"999 keys":           {Keys: []int{999}, Stack: noStack},
		"no stack here":      {Only: []string{"latency"}, Stack: noStack, Dir: t.TempDir(), Turn: time.Millisecond},
		"make a directory":   {Only: []string{"job"}, Stack: noStack, Dir: t.TempDir() + "/absent"},
		"want a multiple of": {Keys: []int{1500}, Stack: noStack},
	} {
		_, err := bench.Run(t.Context(), c)
		require.ErrorContains(t, err, want)
	}
	_, err := bench.Soak(t.Context(), bench.Config{Stack: noStack}, time.Millisecond)
	require.ErrorContains(t, err, "too short")
}
