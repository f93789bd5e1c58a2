package local_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"millrace/control/local"
)

// TestMain runs the tests, or the process of a job of one of them.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "job" {
		if err := local.Serve(context.Background(), os.Args[2], open); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// script is a spec: what a job does.
type script struct {
	Name   string `json:"name"`
	Open   string `json:"open,omitempty"` // fail, refuse, panic
	Run    string `json:"run,omitempty"`  // fail, panic, ignore (the end)
	Dir    string `json:"dir,omitempty"`
	Closes string `json:"closes,omitempty"` // fail
}

type scripted struct {
	script
	runs atomic.Int64
}

func open(_ context.Context, spec json.RawMessage) (local.Job, prometheus.Gatherer, error) {
	j := &scripted{}
	if err := json.Unmarshal(spec, &j.script); err != nil {
		return nil, nil, err
	}
	fmt.Println("opens", j.Name)
	switch j.Open {
	case "fail":
		return nil, nil, errors.New("no disk")
	case "refuse":
		return nil, nil, local.Final(errors.New("no such app"))
	case "panic":
		panic("on opening")
	}
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "runs", ConstLabels: prometheus.Labels{"of": j.Name}}, func() float64 { return float64(j.runs.Load()) }))
	return j, metrics, nil
}

func (j *scripted) Run(ctx context.Context) error {
	j.runs.Add(1)
	switch j.script.Run {
	case "fail":
		return errors.New("no sink")
	case "panic":
		panic("in the middle")
	case "ignore":
		<-make(chan struct{})
	}
	<-ctx.Done()
	return nil
}

func (j *scripted) Savepoint(_ context.Context, dir string) error { return os.Mkdir(dir, 0o700) }

func (j *scripted) Copy(_ context.Context, dir string) error { return os.Mkdir(dir, 0o700) }

// Hold has a file for each sink that is held.
func (j *scripted) Hold(ctx context.Context, sinks ...string) (release func(), err error) {
	if len(sinks) == 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for _, name := range sinks {
		if err := os.WriteFile(filepath.Join(j.Dir, name), nil, 0o600); err != nil {
			return nil, err
		}
	}
	return func() {
		for _, name := range sinks {
			_ = os.Remove(filepath.Join(j.Dir, name)) // the test looks
		}
	}, nil
}

func (j *scripted) Progress() any { return map[string]int64{"runs": j.runs.Load()} }

func (j *scripted) Close() error {
	if j.Closes == "fail" {
		return errors.New("not closed")
	}
	return nil
}

func supervisor(t *testing.T, dir string, change func(*local.Config)) *local.Supervisor {
	t.Helper()
	cfg := local.Config{Dir: dir, Grace: 5 * time.Second}
	if change != nil {
		change(&cfg)
	}
	s := local.New(cfg)
	t.Cleanup(func() { require.NoError(t, s.Strays(func(string) bool { return false })) })
	return s
}

func command(t *testing.T) []string {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	return []string{self, "job"}
}

// A hold lasts until it is released. One that is given up meanwhile, or that fails, is none.
func TestHold(t *testing.T) {
	t.Parallel()
	s, held := supervisor(t, t.TempDir(), nil), t.TempDir()
	p, err := s.Start(t.Context(), "a", command(t), script{Name: "one", Dir: held})
	require.NoError(t, err)
	release, err := p.Hold(t.Context(), "lake", "index")
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(held, "lake"))
	require.FileExists(t, filepath.Join(held, "index"))
	require.NoError(t, p.Copy(t.Context(), filepath.Join(held, "copy")), "other requests are answered")
	release()
	require.Eventually(t, func() bool { // it ends a moment after the request
		_, lake := os.Stat(filepath.Join(held, "lake"))
		_, index := os.Stat(filepath.Join(held, "index"))
		return os.IsNotExist(lake) && os.IsNotExist(index)
	}, 10*time.Second, time.Millisecond)

	_, err = p.Hold(t.Context(), "no/folder")
	require.ErrorContains(t, err, "no such file")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = p.Hold(ctx)
	require.ErrorIs(t, err, context.Canceled)

	release, err = p.Hold(t.Context(), "lake")
	require.NoError(t, err)
	require.NoError(t, p.Close(), "a process that is held can be closed")
	release()
	_, err = p.Hold(t.Context(), "lake")
	require.ErrorContains(t, err, "the process of job a has ended")
}

func TestProcess(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40)) // too long for a socket
	s := supervisor(t, dir, nil)
	p, err := s.Start(t.Context(), "a", command(t), script{Name: "one"})
	require.NoError(t, err)
	runs := func() (n int) {
		var progress map[string]int
		require.NoError(t, p.Progress(t.Context(), &progress))
		return progress["runs"]
	}
	require.Zero(t, runs())
	for range 2 { // the second time it runs already
		require.NoError(t, p.Run(t.Context()))
	}
	require.Eventually(t, func() bool { return runs() == 1 }, time.Minute, time.Millisecond)
	families, err := p.Gather(t.Context())
	require.NoError(t, err)
	require.Len(t, families, 1)
	require.Equal(t, "runs", families[0].GetName())
	require.InDelta(t, 1, families[0].GetMetric()[0].GetGauge().GetValue(), 0)
	save := filepath.Join(t.TempDir(), "a savepoint & more")
	require.NoError(t, p.Savepoint(t.Context(), save))
	require.DirExists(t, save)
	require.ErrorContains(t, p.Savepoint(t.Context(), save), "file exists")
	require.NoError(t, p.End(t.Context()))
	require.NoError(t, p.Savepoint(t.Context(), save+"2"), "its run has ended, and it is open")
	require.NoError(t, p.Close())
	require.NoError(t, p.Err())
	require.ErrorContains(t, p.Run(t.Context()), "has ended")
	families, err = p.Gather(t.Context())
	require.NoError(t, err)
	require.Empty(t, families)
	said, err := os.ReadFile(s.LogFile("a"))
	require.NoError(t, err)
	require.Equal(t, "opens one\n", string(said))

	// Its socket has a folder among temporary files, which goes with it, or with the next process when it was killed.
	for range 2 {
		p, err = s.Start(t.Context(), "a", command(t), script{})
		require.NoError(t, err)
		require.FileExists(t, p.Socket)
		require.Greater(t, len(dir), 100)
		before := p.Socket
		require.NoError(t, p.Kill())
		p, err = s.Start(t.Context(), "a", command(t), script{})
		require.NoError(t, err)
		require.NoDirExists(t, filepath.Dir(before))
		before = p.Socket
		require.NoError(t, p.Close())
		require.NoDirExists(t, filepath.Dir(before))
	}
}

func TestEnds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		script
		kill    bool
		onStart bool
		want    string
		final   bool
	}{
		"opening fails":     {script: script{Open: "fail"}, onStart: true, want: "^no disk$"},
		"opening is no use": {script: script{Open: "refuse"}, onStart: true, want: "^no such app$", final: true},
		"opening panics":    {script: script{Open: "panic"}, onStart: true, want: `process \d+ of the job ended: exit status 2: panic: on opening; its log is /`},
		"run fails":         {script: script{Run: "fail"}, want: "^no sink$"},
		"run panics":        {script: script{Run: "panic"}, want: `exit status 2: panic: in the middle; its log is /`},
		"killed":            {kill: true, want: `ended: signal: killed; its log is /`},
		"closing fails":     {script: script{Run: "fail", Closes: "fail"}, want: "^no sink\nnot closed$"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := supervisor(t, t.TempDir(), nil).Start(t.Context(), "a", command(t), test.script)
			if !test.onStart {
				require.NoError(t, err)
				if err := p.Run(t.Context()); err != nil { // it may end so fast
					require.ErrorIs(t, err, p.Err())
				}
				if test.kill {
					require.NoError(t, syscall.Kill(p.PID(), syscall.SIGKILL))
				}
				err = p.Err()
			}
			end := (*local.EndError)(nil)
			require.ErrorAs(t, err, &end)
			require.Regexp(t, test.want, end.Error())
			require.Equal(t, test.final, end.Final)
		})
	}
}

// A process that does not end when it is told to is killed.
func TestProcessThatIgnoresStop(t *testing.T) {
	t.Parallel()
	s := supervisor(t, t.TempDir(), func(c *local.Config) { c.Grace = 100 * time.Millisecond })
	p, err := s.Start(t.Context(), "a", command(t), script{Run: "ignore"})
	require.NoError(t, err)
	require.NoError(t, p.Run(t.Context()))
	require.ErrorContains(t, p.Close(), "did not end in 100ms, and was killed")
	require.ErrorContains(t, p.Err(), "it did not end when it was told to")
	again, err := s.Start(t.Context(), "a", command(t), script{})
	require.NoError(t, err, "nothing holds the job any more")
	require.NoError(t, again.Kill())
}

// A supervisor that comes after one that was killed takes over the process that runs what it would start, and ends the others.
func TestAdoption(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	before := supervisor(t, dir, nil)
	start := func(s *local.Supervisor, spec script) *local.Process {
		p, err := s.Start(t.Context(), "a", command(t), spec)
		require.NoError(t, err)
		require.NoError(t, p.Run(t.Context()))
		return p
	}
	first := start(before, script{Name: "one"})

	after := supervisor(t, dir, nil)
	same := start(after, script{Name: "one"})
	require.Equal(t, first.PID(), same.PID())
	require.True(t, same.Adopted() && !first.Adopted())
	other := start(after, script{Name: "two"})
	require.NotEqual(t, first.PID(), other.PID())
	<-first.Ended()
	require.NoError(t, same.Err())

	require.ErrorContains(t, local.AwaitEnd(t.Context(), dir, time.Millisecond), "a still runs")
	adopted := start(supervisor(t, dir, nil), script{Name: "two"})
	require.Equal(t, other.PID(), adopted.PID())
	require.NoError(t, syscall.Kill(adopted.PID(), syscall.SIGKILL))
	require.ErrorContains(t, adopted.Err(), "it was killed", "nobody tells how a process ended that is not a child")
	require.ErrorContains(t, other.Err(), "signal: killed")
	require.NoError(t, local.AwaitEnd(t.Context(), dir, time.Minute))
	require.NoError(t, local.AwaitEnd(t.Context(), filepath.Join(dir, "none"), time.Minute))

	stray := start(before, script{Name: "three"})
	require.NoError(t, after.Strays(func(id string) bool { return id == "a" }))
	require.NoError(t, stray.Run(t.Context()), "it is to run")
	require.NoError(t, after.Strays(func(string) bool { return false }))
	require.NoError(t, stray.Err())
	require.NoError(t, after.Forget("a"))
	require.NoDirExists(t, filepath.Join(dir, "a"))
}

// A supervisor that does not reach the process of before does not start a second one beside it.
func TestNoSecondProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, err := supervisor(t, dir, nil).Start(t.Context(), "a", command(t), script{})
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(p.PID(), syscall.SIGSTOP))
	require.Eventually(t, func() bool { // it does not answer any more
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		return p.Progress(ctx, new(any)) != nil
	}, time.Minute, time.Millisecond)
	again, err := supervisor(t, dir, func(c *local.Config) { c.Grace = 100 * time.Millisecond }).Start(t.Context(), "a", command(t), script{})
	require.NoError(t, err)
	require.NotEqual(t, p.PID(), again.PID())
	require.ErrorContains(t, p.Err(), "signal: killed")
	require.NoError(t, again.Kill())
}

func TestByHand(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	said, err := exec.Command(self, "job", t.TempDir()).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(said), "is run by 'millrace serve' and not by hand")
}

func TestBudget(t *testing.T) {
	t.Parallel()
	now := time.Date(2018, 8, 27, 17, 42, 35, 0, time.UTC)
	b := local.Budget{Restarts: 4, Within: 10 * time.Minute, Delay: time.Second, Longest: 5 * time.Second}
	next := func(after, want time.Duration) {
		t.Helper()
		now = now.Add(after)
		wait, ok := b.Next(now)
		require.Equal(t, want > 0, ok)
		require.Equal(t, want, wait)
	}
	next(0, time.Second)
	next(time.Minute, 2*time.Second)
	next(time.Minute, 4*time.Second)
	next(time.Minute, 5*time.Second)
	require.Equal(t, 4, b.Used())
	next(time.Minute, 0)
	next(6*time.Minute, 5*time.Second) // the first one is ten minutes ago
	next(time.Second, 0)
	next(time.Hour, time.Second)
	next(-time.Hour, time.Second) // the clock was set back: what is to come counts for nothing
	none := local.Budget{}
	_, ok := none.Next(now)
	require.False(t, ok)
}
