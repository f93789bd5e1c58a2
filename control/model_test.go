package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// world is what operations act on, as simple as it can be: which jobs run, what they have done, and their savepoints. It fails at random while it
// is told to, and a process that uses it may be killed in the middle of each step, before or after it was done.
type world struct {
	mu        sync.Mutex
	rnd       *rand.Rand
	fails     bool
	dies      bool // steps may end the process, so to speak: the plane is stopped
	die       context.CancelFunc
	instances map[string]*thing
	served    string
	faults    []string // what must never happen
}

// thing is an instance in the world.
type thing struct {
	running    string // version; empty: it does not run
	work       int    // what its state holds
	savepoints map[string]int
}

func (w *world) of(i Instance) *thing {
	x := w.instances[i.DataVersion]
	if x == nil {
		x = &thing{savepoints: map[string]int{}}
		w.instances[i.DataVersion] = x
	}
	return x
}

var errChance = errors.New("bad luck")

// step does something to an instance, unless it fails, or the process dies around it.
func (w *world) step(ctx context.Context, i Instance, do func(*thing) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range w.instances {
		if x.running != "" {
			x.work++
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	switch n := w.rnd.IntN(20); {
	case w.dies && n == 0:
		w.die()
		return ctx.Err()
	case w.fails && n == 1:
		return errChance
	case w.dies && n == 2:
		defer w.die()
	case w.fails && n == 3:
		if err := do(w.of(i)); err != nil {
			return err
		}
		return errChance
	}
	return do(w.of(i))
}

func (w *world) fault(format string, args ...any) {
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

func (w *world) Check(ctx context.Context, i Instance, _ string) error {
	return w.step(ctx, i, func(*thing) error { return nil })
}

func (w *world) Run(ctx context.Context, i Instance) (string, error) {
	return i.Version, w.step(ctx, i, func(x *thing) error {
		if x.running != "" && x.running != i.Version {
			w.fault("%s runs %s and is to run %s too", i.DataVersion, x.running, i.Version)
		}
		x.running = i.Version
		return nil
	})
}

func (w *world) Stop(ctx context.Context, i Instance) error {
	return w.step(ctx, i, func(x *thing) error {
		x.running = ""
		return nil
	})
}

func (w *world) Suspend(ctx context.Context, i Instance, savepoint string) error {
	return w.step(ctx, i, func(x *thing) error {
		if _, done := x.savepoints[savepoint]; done && x.running == "" {
			return nil
		}
		x.savepoints[savepoint], x.running = x.work, ""
		return nil
	})
}

func (w *world) Savepoint(ctx context.Context, i Instance, name string) error {
	return w.step(ctx, i, func(x *thing) error {
		x.savepoints[name] = x.work
		return nil
	})
}

func (w *world) Restore(ctx context.Context, i Instance, name string) (string, error) {
	return "", w.step(ctx, i, func(x *thing) error {
		if x.running != "" {
			w.fault("the state of %s is restored while it runs", i.DataVersion)
		}
		if at, there := x.savepoints[name]; name != "" && !there {
			w.fault("%s is to go back to savepoint %s, which it has not", i.DataVersion, name)
		} else if name != "" {
			x.work = max(x.work, at)
		}
		return nil
	})
}

func (w *world) Rewind(ctx context.Context, i Instance, name string) error {
	return w.step(ctx, i, func(x *thing) error {
		at, there := x.savepoints[name]
		if x.running != "" || !there {
			w.fault("%s goes back to %s (there: %v) while it runs %q", i.DataVersion, name, there, x.running)
		}
		x.work = at
		return nil
	})
}

func (w *world) Watch(ctx context.Context, i Instance) error {
	return w.step(ctx, i, func(x *thing) error {
		if x.running != i.Version {
			return fmt.Errorf("it runs %q", x.running)
		}
		return nil
	})
}

func (w *world) Serve(ctx context.Context, i Instance) error {
	return w.step(ctx, i, func(*thing) error {
		w.served = i.DataVersion
		return nil
	})
}

func (w *world) Remove(ctx context.Context, i Instance) error {
	return w.step(ctx, i, func(x *thing) error {
		if x.running != "" {
			w.fault("%s is removed while it runs", i.DataVersion)
		}
		delete(w.instances, i.DataVersion)
		return nil
	})
}

func (w *world) Kill(i Instance) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if x, there := w.instances[i.DataVersion]; there { // it may have been deleted meanwhile
		x.running = ""
	}
}

// Operators who know nothing of one another ask for anything, in any state, while steps fail and the process is killed in their midst and begun
// again. Whatever happened: when it is quiet, no instance is stuck, each is as its state says, and nothing that was kept is lost.
func TestLifecycleModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(25) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			liveModel(t, seed)
		})
	}
}

func liveModel(t *testing.T, seed uint64) {
	store, err := Open(filepath.Join(t.TempDir(), "keys.db"))
	require.NoError(t, err)
	defer store.Close()
	x, l := store.Instances, Line{Program: "app", Account: "system", Env: "system"}
	w := &world{rnd: rand.New(rand.NewPCG(seed, 1)), instances: map[string]*thing{}}
	versions := []string{"a", "b", "c"}
	kept := map[string]string{} // savepoints that were said to be made: instance by name
	var keptMu sync.Mutex

	// live runs a plane until it dies, or what to do has ended.
	live := func(do func(context.Context, *Plane)) {
		ctx, die := context.WithCancel(t.Context())
		w.mu.Lock()
		w.die = die
		w.mu.Unlock()
		p := NewPlane(PlaneConfig{Instances: x, Runner: w, Logger: slog.New(slog.DiscardHandler)})
		if err := p.StartJobs(ctx); err != nil && ctx.Err() == nil {
			require.NoError(t, err)
		}
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		do(ctx, p)
		die()
		require.NoError(t, <-ended)
	}
	operator := func(ctx context.Context, p *Plane, rnd *rand.Rand) {
		for range 12 {
			role := Operator
			if rnd.IntN(4) == 0 {
				role = Admin
			}
			r := Request{Line: l, DataVersion: versions[rnd.IntN(len(versions))], Action: Actions[rnd.IntN(len(Actions))], Role: role, By: By{Who: "o"}}
			r.Version = []string{"1", "2", "3"}[rnd.IntN(3)]
			op, err := p.Do(ctx, r)
			if err != nil {
				if ctx.Err() != nil {
					return
				}
				if !errors.Is(err, ErrRefused) && !errors.Is(err, ErrNotAllowed) && !errors.Is(err, ErrUnknownInstance) && !errors.Is(err, ErrInstanceExists) {
					t.Errorf("%s %s: %v", r.Action, r.DataVersion, err)
				}
				continue
			}
			if rnd.IntN(3) == 0 {
				continue // not waited for
			}
			if op, err = p.Wait(ctx, op.ID); err == nil && op.Action == TakeSavepoint && op.State == Succeeded {
				keptMu.Lock()
				kept[op.Savepoint] = op.DataVersion
				keptMu.Unlock()
			}
		}
	}
	for round := range 8 {
		w.mu.Lock()
		w.fails, w.dies = true, true
		w.mu.Unlock()
		live(func(ctx context.Context, p *Plane) {
			var operators sync.WaitGroup
			for o := range uint64(3) {
				operators.Go(func() { operator(ctx, p, rand.New(rand.NewPCG(seed, 100*uint64(round)+o))) })
			}
			operators.Wait()
		})
		w.mu.Lock()
		w.fails, w.dies = false, false
		w.mu.Unlock()
		live(func(ctx context.Context, p *Plane) {
			for {
				left, err := x.Working(ctx)
				require.NoError(t, err)
				if len(left) == 0 && p.Runs() {
					break
				}
				time.Sleep(time.Millisecond) // there is no signal
			}
			quiet(t, x, w, l, kept)
		})
	}
}

// quiet compares what is recorded with the world when no operation is at work.
func quiet(t *testing.T, x *Instances, w *world, l Line, kept map[string]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Empty(t, w.faults)
	all, err := x.List(t.Context())
	require.NoError(t, err)
	there := map[string]Instance{}
	for _, in := range all {
		there[in.DataVersion] = in
		thing := w.of(in)
		require.NotEmpty(t, Can(in.State, Operator), "%s is stuck in %s", in.DataVersion, in.State)
		require.False(t, in.State.Busy() && in.State != Deleting, "%s is %s and nothing is at work on it", in.DataVersion, in.State)
		if in.State == Running {
			require.Equal(t, in.Version, thing.running, "%s", in.DataVersion)
		} else {
			require.Empty(t, thing.running, "%s is %s", in.DataVersion, in.State)
		}
		if in.State == Suspended {
			require.Contains(t, thing.savepoints, in.Savepoint)
		}
		jobs, err := x.Jobs(t.Context(), l, in.DataVersion, 1000)
		require.NoError(t, err)
		open := slices.DeleteFunc(jobs, func(j Job) bool { return !j.Ended.IsZero() })
		if in.State == Running {
			require.Len(t, open, 1)
			require.Equal(t, in.Version, open[0].Version)
		} else {
			require.Empty(t, open, "%s is %s", in.DataVersion, in.State)
		}
	}
	for v := range w.instances {
		require.Contains(t, there, v, "what is deleted leaves nothing")
	}
	for name, v := range kept {
		in, still := there[v]
		if !still || in.State == Deleting || !slices.ContainsFunc(opsOf(t, x, l, v), func(o Operation) bool { return o.Savepoint == name && o.Action == TakeSavepoint }) {
			delete(kept, name) // deleted meanwhile, and perhaps made again
			continue
		}
		if in.Created.After(savedAt(t, name)) {
			delete(kept, name)
			continue
		}
		require.Contains(t, w.of(in).savepoints, name)
	}
	now, wanted, err := x.Serving(t.Context(), l)
	require.NoError(t, err)
	require.Equal(t, wanted, now)
	if now != "" {
		require.Equal(t, now, w.served)
		require.Contains(t, there, now)
	}
}

func opsOf(t *testing.T, x *Instances, l Line, dataVersion string) []Operation {
	all, err := x.History(t.Context(), l, 0, 1<<20)
	require.NoError(t, err)
	return slices.DeleteFunc(all, func(o Operation) bool { return o.DataVersion != dataVersion })
}

// savedAt is when a savepoint was asked for, by its name.
func savedAt(t *testing.T, name string) time.Time {
	at, err := time.Parse("20060102T150405.000Z-savepoint", name)
	require.NoError(t, err)
	return at
}
