package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace/control"
	"millrace/control/api"
	"millrace/forget"
	"millrace/ingest"
	"millrace/lake"
	"millrace/plan"
)

// forgetting is what the data directory remembers of a run of forget until it has ended, to clean up after one that was interrupted.
type forgetting struct {
	App string `json:"app"`
	Old string `json:"old"` // data version that is to go
	New string `json:"new"` // data version that is made in its place

	Made bool `json:"made,omitempty"` // Old does not serve, and New holds what it does

	// Of a singleton Old and New are the same: the one goes before the other is made, with these.
	Version string          `json:"version,omitempty"`
	Seed    *plan.SeedRange `json:"seed,omitempty"`
}

const forgettingFile = "forgetting.json"

// forget removes all records of people, and serves meanwhile. Each step may be done again; an interrupted run is begun anew.
func (s *stack) forget(ctx context.Context, people *forget.People, c *certificate, line *progressLine) error {
	defer line.done()
	if err := s.roomFor(nil, s.cfg.resources(control.Resources{})); err != nil {
		return err
	}
	s.forgets = true
	serving, stop := context.WithCancel(ctx)
	defer stop()
	g, serving := errgroup.WithContext(serving)
	g.Go(func() error {
		defer stop() // Run ends early only when something is wrong
		return s.Run(serving)
	})
	g.Go(func() error {
		defer stop()
		return s.forgetServing(serving, people, c, line)
	})
	return g.Wait()
}

func (s *stack) forgetServing(ctx context.Context, people *forget.People, c *certificate, line *progressLine) error {
	say := func(format string, args ...any) { line.show("millrace: "+format, args...) }
	if err := until(ctx, func() (bool, error) { return s.plane.Runs(), nil }); err != nil {
		return err
	}
	if err := s.endForgetting(ctx, c.ask()); err != nil {
		return err
	}
	old, err := s.onlyVersions()
	if err != nil {
		return err
	}
	say("looking for records")
	if err := c.look(ctx, s.log, s.lake, people, false); err != nil {
		return err
	}
	at, err := s.log.Cut(ctx)
	if err != nil {
		return err
	}
	say("waiting until the raw lake holds what is in the log")
	if err := until(ctx, func() (bool, error) { return s.rawHolds(ctx, at) }); err != nil {
		return err
	}
	say("writing the raw lake anew")
	var held plan.Offsets
	if c.Erased, held, err = s.eraseRaw(ctx, people); err != nil {
		return err
	}
	for partition := range at { // what was not published yet, the lake does not hold
		at[partition] = min(at[partition], held[partition])
	}
	if err := s.log.DeleteBefore(ctx, at); err != nil {
		return err
	}
	c.LogFrom = at
	for _, j := range old {
		made, err := s.makeAnew(ctx, j, c, say)
		if err != nil {
			return err
		}
		c.Replaced = append(c.Replaced, replacedVersion{App: j.instance.Program, DataVersion: j.instance.DataVersion, By: made})
	}
	s.rewriteIndex = true
	say("looking for records that are left")
	return c.look(ctx, s.log, s.lake, people, true)
}

// makeAnew makes a data version of the lake in the place of one, which is then deleted.
func (s *stack) makeAnew(ctx context.Context, old *stackJob, c *certificate, say func(format string, args ...any)) (made string, err error) {
	app, serves := old.instance.Program, s.serves(old)
	seed := plan.SeedRange{SourceTypes: old.program().plan.SourceTypes}
	if old.seed != nil {
		seed = *old.seed
	}
	f := forgetting{App: app, Old: old.instance.DataVersion, Version: old.program().plan.Version, Seed: &seed}
	leastLag := func() int64 { return old.Progress().Lag }
	if old.instance.Singleton {
		f.New, leastLag = f.Old, func() int64 { return s.raw.Progress().Lag }
	} else {
		f.New = s.newDataVersion(time.Now())
	}
	made = f.New
	if err := writeJSON(s.cfg.dir.join(forgettingFile), f); err != nil {
		return made, err
	}
	if old.instance.Singleton {
		if _, err := s.act(ctx, control.Delete, app, f.Old, c.ask()); err != nil {
			return made, err
		}
	}
	if err := s.startAnew(ctx, f, c.ask()); err != nil {
		return made, err
	}
	caughtUp := uint64(0) // the epoch in which it had read what the old one has
	err = until(ctx, func() (bool, error) {
		j, err := s.find(app, made)
		if err != nil {
			return false, err
		}
		p := j.Progress()
		if x := p.Seeding; x != nil {
			say("making data version %s of %s: %d of %d rows of the lake read", made, app, x.Read, x.Rows)
		}
		if err := j.failure(); err != nil {
			return false, fmt.Errorf("data version %s of %s, made without the records: %w", made, app, err)
		}
		if caughtUp == 0 && p.Ends != nil && p.Seeding != nil && p.Seeding.Done && p.Lag <= leastLag() {
			caughtUp = p.Epoch
		}
		return caughtUp > 0 && published(p) >= caughtUp, nil
	})
	if err != nil {
		return made, err
	}
	switch {
	case old.instance.Singleton:
	case serves:
		_, err = s.act(ctx, control.Promote, app, made, c.ask())
	default:
		f.Made = true
		err = writeJSON(s.cfg.dir.join(forgettingFile), f)
	}
	if err != nil {
		return made, err
	}
	return made, s.endForgetting(ctx, c.ask())
}

// startAnew starts the data version that is made in the place of one.
func (s *stack) startAnew(ctx context.Context, f forgetting, ask api.Ask) error {
	op, err := s.plane.Do(ctx, control.Request{
		Line: lineOf(f.App), DataVersion: f.New, Action: control.Start, By: ask.By(), Role: control.Admin, Seed: f.Seed, Version: f.Version, Serves: f.Old == f.New,
	})
	if err != nil {
		return err
	}
	return s.untilDone(ctx, op.ID)
}

// until waits until something is so.
func until(ctx context.Context, is func() (bool, error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := is(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// onlyVersions returns the job of the one data version that there is of each app. Others would hold the records too.
func (s *stack) onlyVersions() (all []*stackJob, err error) {
	for _, j := range s.jobs() {
		others := s.versionsOf(j.line())
		if serving := s.servingOf(j.line()); len(others) > 1 && j != serving {
			keep := cmp.Or(serving, others[len(others)-1])
			return nil, fmt.Errorf("%w: data version %s of %s holds records too, beside %s: delete it with 'millrace app delete', or promote it and delete the other",
				control.ErrRefused, j.instance.DataVersion, j.instance.Program, keep.instance.DataVersion)
		}
		if state := j.state(); state != control.Running {
			return nil, fmt.Errorf("%w: %s is %s: it has to run: %w", control.ErrRefused, j.instance.UniqueID(), state, errors.Join(j.failure(), errors.New("see 'millrace app list'")))
		}
		if j != s.raw {
			all = append(all, j)
		}
	}
	return all, nil
}

// endForgetting deletes what is not needed any more once the new data version serves, and what an interrupted run has left when it does not.
func (s *stack) endForgetting(ctx context.Context, ask api.Ask) error {
	name := s.cfg.dir.join(forgettingFile)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var f forgetting
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w; remove it if no 'millrace forget' was interrupted", name, err)
	}
	f.App = cmp.Or(f.App, etlLine.Program) // of a version that knew no others
	if f.Old == f.New {
		if err := s.settled(ctx, f.App, f.New); err != nil {
			return err
		}
		if _, err := s.find(f.App, f.New); errors.Is(err, control.ErrUnknownInstance) { // it was killed between the two
			if err := s.startAnew(ctx, f, ask); err != nil {
				return err
			}
		}
		return os.Remove(name)
	}
	gone := f.New
	if f.Made {
		gone = f.Old
	}
	_, wanted, err := s.store.Instances.Serving(ctx, lineOf(f.App))
	if err != nil {
		return err
	}
	if wanted == f.New { // it may have been killed while it made readers see it
		err := until(ctx, func() (bool, error) {
			now, _, err := s.store.Instances.Serving(ctx, lineOf(f.App))
			return now == f.New, err
		})
		if err != nil {
			return err
		}
		gone = f.Old
	}
	if err := s.settled(ctx, f.App, gone); err != nil {
		return err
	}
	_, err = s.act(ctx, control.Delete, f.App, gone, ask)
	if err != nil && !errors.Is(err, control.ErrUnknownInstance) {
		return err
	}
	return os.Remove(name)
}

// settled waits until no operation is at work on a data version: one of a run that was killed goes on by itself.
func (s *stack) settled(ctx context.Context, app, dataVersion string) error {
	left, err := s.store.Instances.Working(ctx)
	if err != nil {
		return err
	}
	for _, op := range left {
		if op.Program == app && op.DataVersion == dataVersion {
			if _, err := s.plane.Wait(ctx, op.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// rawHolds reports whether the raw lake holds the log up to some offsets.
func (s *stack) rawHolds(ctx context.Context, at plan.Offsets) (bool, error) {
	if err := s.raw.failure(); err != nil {
		return false, err
	}
	p := s.raw.Progress()
	for partition, o := range at {
		if p.Offsets[partition] <= o {
			return false, nil
		}
	}
	for _, sink := range p.Sinks {
		if sink.PendingRows > 0 {
			return false, nil
		}
	}
	return true, nil
}

// eraseRaw removes the people's records from the raw lake, whose job stands still meanwhile, and what that job has kept to go back to. It
// returns how many records the lake has lost, and how far in the log it holds the others.
func (s *stack) eraseRaw(ctx context.Context, people *forget.People) (n int64, held plan.Offsets, err error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	if s.working == nil {
		return 0, nil, errStopping
	}
	if err := s.raw.close(); err != nil {
		return 0, nil, err
	}
	defer func() {
		if err = errors.Join(err, s.raw.open(context.WithoutCancel(ctx))); err == nil {
			s.runJob(s.working, s.raw)
		}
	}()
	var tables []*lake.Table
	for _, t := range s.raw.program().plan.Tables {
		table, err := s.lake.Lookup(ctx, lake.Name{Namespace: ingest.Namespace, Table: t.Name})
		if err != nil {
			return n, nil, err
		}
		tables = append(tables, table)
		done, err := table.Erase(ctx, people.InRow(table.Columns()))
		if err != nil {
			return n, nil, err
		}
		n += done.Rows
	}
	if p := s.raw.Progress(); published(p) == p.Epoch { // also of what made no rows after the last that did
		if err := tables[0].Hold(ctx, p.Offsets); err != nil {
			return n, nil, err
		}
	}
	if held, err = s.lake.Held(ctx, tables...); err != nil {
		return n, nil, err
	}
	id := s.raw.instance.UniqueID()
	for _, dir := range []string{s.cfg.dir.join("jobs", id, "checkpoints"), s.cfg.dir.join("jobs", id+".old"), s.cfg.dir.join(savepointsDir, id)} {
		if err := os.RemoveAll(dir); err != nil {
			return n, nil, fmt.Errorf("remove %s: %w", dir, cause(err))
		}
	}
	return n, held, nil
}
