package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"millrace/control"
	"millrace/sim"
)

// The tenant of the simulated district.
const (
	demoAccount    = "deepthought"
	demoEnv        = "deepthought3"
	demoSourceType = "EDGENUITY_LMS"
)

// demoConfig is what decides the simulator's sequence. It is kept in the data directory: a second run goes on with the same district.
type demoConfig struct {
	Seed     uint64 `json:"seed"`
	Students int    `json:"students"`
}

func (c demoConfig) district() sim.Config { return sim.Config{Seed: c.Seed, Students: c.Students} }

func demoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run everything on one machine, with a simulated school district",
		Long: `Run collector, log, jobs, index, lake and console on this machine, and a simulated school district that posts to the collector.
A second run goes on from the data directory. Ctrl-C stops cleanly; with --for, before its time is over, there is no ledger then, and the
exit code is 130.`,
		Args: exactArgs(),
	}
	cfg := stackFlags(cmd)
	d := demo{}
	f := cmd.Flags()
	f.DurationVar(&d.duration, "for", 0, "stop after this time, once everything sent has settled, and print the ledger")
	f.Float64Var(&d.rate, "rate", 300, "items per second that the district sends")
	f.Uint64Var(&d.config.Seed, "seed", 1, "seed of the district; the one of the first run stays")
	f.IntVar(&d.config.Students, "students", 2000, "students of the district; those of the first run stay")
	cmd.Flag("flush").DefValue = "5s"
	cfg.flush = 5 * time.Second
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		if d.format, err = output(); err != nil {
			return err
		}
		switch {
		case d.duration < 0:
			return usagef("--for %s: want a positive duration such as 60s", d.duration)
		case math.IsNaN(d.rate) || math.IsInf(d.rate, 0) || d.rate <= 0:
			return usagef("--rate %v: want items per second, more than 0", d.rate)
		case d.config.Students < 1:
			return usagef("--students %d: want 1 or more", d.config.Students)
		}
		d.cmd = cmd
		return withStack(cmd, *cfg, slog.LevelWarn, d.run)
	}
	return cmd
}

type demo struct {
	cmd      *cobra.Command
	config   demoConfig
	duration time.Duration
	rate     float64
	format   string
}

func (d *demo) run(ctx context.Context, s *stack) error {
	key, err := demoKey(ctx, s)
	if err != nil {
		return err
	}
	config, err := d.keptConfig(s.cfg.dir)
	if err != nil {
		return err
	}
	sender, err := sim.NewSender(sim.SenderConfig{
		District: config.district(), URL: "http://" + s.local.Addr().String() + s.cfg.prefix, Key: key, Rate: d.rate,
		StateFile: s.cfg.dir.join("demo.json"), Logger: s.cfg.logger, Registerer: s.registry,
	})
	if err != nil {
		return err
	}
	s.beside = sender.Hold
	errOut := d.cmd.ErrOrStderr()
	fmt.Fprintf(errOut, "millrace: open %s\n", s.url())
	if err := d.runUntilSettled(ctx, s, sender); err != nil {
		return err
	}
	switch {
	case d.duration == 0:
		fmt.Fprintln(errOut, "millrace: stopped; run it again to go on")
		return nil
	case ctx.Err() != nil:
		fmt.Fprintln(errOut, "millrace: stopped before --for was over, so there is no ledger; run it again to go on, or 'millrace check' for the ledger")
		return ctx.Err()
	}
	l, err := audit(ctx, s)
	if err != nil {
		return err
	}
	if d.format == "json" {
		err = printJSON(d.cmd, l)
	} else {
		err = l.print(d.cmd.OutOrStdout())
	}
	if err == nil && !l.Balanced {
		err = errUnbalanced
	}
	return err
}

// runUntilSettled runs the stack and the simulator: until ctx ends, or until the demo's time is over and the jobs have read all
// that was sent. When it returns the jobs have stopped and published what they had.
func (d *demo) runUntilSettled(ctx context.Context, s *stack, sender *sim.Sender) error {
	running, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(running)
	ended := make(chan struct{})
	g.Go(func() error {
		defer close(ended)
		return s.Run(ctx)
	})
	p := newPace(d.rate, sent(sender), time.Now())
	g.Go(func() error {
		if d.duration > 0 {
			timer := time.AfterFunc(d.duration, sender.Finish)
			defer timer.Stop()
		}
		if err := sender.Run(ctx); err != nil {
			return err
		}
		p.end(sent(sender), time.Now())
		if ctx.Err() != nil {
			return nil
		}
		if err := s.untilPublished(ctx); err != nil {
			return err
		}
		stop()
		return nil
	})
	g.Go(func() error {
		d.show(ctx, s, sender, p)
		s.sayStopping(d.cmd.ErrOrStderr(), ended)
		return nil
	})
	err := g.Wait()
	if text := p.behind(); text != "" {
		fmt.Fprintln(d.cmd.ErrOrStderr(), "millrace: "+text)
	}
	for _, j := range s.jobs() {
		if failed := j.failure(); failed != nil {
			err = errors.Join(err, fmt.Errorf("job %s failed: %w", j.instance.UniqueID(), failed))
		}
	}
	if errors.Is(err, context.Canceled) {
		err = nil // it was asked for
	}
	return err
}

// untilPublished waits until all jobs have committed every record that is in the log now, and all rows are in their sinks: a stop
// waits for them too, but not for long.
func (s *stack) untilPublished(ctx context.Context) error {
	if err := s.untilRead(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		pending := false
		for _, j := range s.jobs() {
			if j.failure() != nil {
				return nil // Run's caller says so
			}
			if !j.works() {
				continue
			}
			for _, sink := range j.Progress().Sinks {
				pending = pending || sink.PendingEpochs > 0
			}
		}
		if !pending {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// untilRead waits until all jobs have committed every record that is in the log now.
func (s *stack) untilRead(ctx context.Context) error {
	ends, err := s.log.Ends(ctx)
	if err != nil {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		behind := false
		for _, j := range s.jobs() {
			if j.failure() != nil {
				return nil // Run's caller says so
			}
			if !j.works() {
				continue
			}
			p := j.Progress()
			behind = behind || p.Seeds()
			for partition, end := range ends {
				behind = behind || p.Offsets[partition] < end
			}
		}
		if !behind {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// show keeps a line on the terminal up to date.
func (d *demo) show(ctx context.Context, s *stack, sender *sim.Sender, p *pace) {
	line := newProgressLine(d.cmd.ErrOrStderr())
	defer line.done()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			p.add(sent(sender), now)
		}
		state, virtual := sender.Snapshot()
		serving := s.servingOf(etlLine)
		raw, job := s.raw.Progress(), serving.Progress()
		waiting := int64(0)
		for _, t := range serving.program().plan.Tables {
			waiting += job.Counters["table."+t.Name+".waiting"]
		}
		line.show("%s in the district: %d items sent, %s, %d in the lake, %d rows, %d waiting, %d to read",
			virtual.Format("Mon 15:04"), state.Ledger.Items, p, raw.Rows, job.Rows, waiting, job.Lag)
	}
}

// sent is what the simulator's rate counts.
func sent(sender *sim.Sender) int64 {
	state, _ := sender.Snapshot()
	return state.Ledger.Items + state.Ledger.BadItems + state.Ledger.BrokenPayloads
}

// demoKey returns the simulator's key, and makes it the first time.
func demoKey(ctx context.Context, s *stack) (string, error) {
	name := s.cfg.dir.join("demo.key")
	b, err := os.ReadFile(name)
	if err == nil {
		if _, err = s.store.Keys.Lookup(ctx, string(b)); errors.Is(err, control.ErrUnknownKey) {
			err = fmt.Errorf("%s holds no sensor key of this data directory: it was damaged, or the key was revoked; remove the file, and the next demo makes a new key", name)
		}
		return string(b), err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the simulator's key %s: %w", name, cause(err))
	}
	key, err := s.store.Keys.Add(ctx, control.Key{Account: demoAccount, Env: demoEnv, SourceType: demoSourceType})
	if err != nil {
		return "", err
	}
	return key, writeFile(name, []byte(key))
}

// keptConfig returns the district that the directory's first demo had, or makes it this one.
func (d *demo) keptConfig(dir *dataDir) (demoConfig, error) {
	kept, err := readDemoConfig(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return d.config, writeJSON(dir.join("demo-district.json"), d.config)
	}
	if err != nil {
		return kept, err
	}
	for _, f := range []struct {
		name    string
		differs bool
	}{{"seed", kept.Seed != d.config.Seed}, {"students", kept.Students != d.config.Students}} {
		if d.cmd.Flag(f.name).Changed && f.differs {
			return kept, usagef("this data directory has a district with seed %d and %d students; leave --%s out to go on with it, or take another --data-dir", kept.Seed, kept.Students, f.name)
		}
	}
	return kept, nil
}

func readDemoConfig(dir *dataDir) (c demoConfig, err error) {
	name := dir.join("demo-district.json")
	b, err := os.ReadFile(name)
	if err != nil {
		return c, fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("%s is damaged (%w); restore it from a backup, or write what the first demo was given: {\"seed\": 1, \"students\": 2000}", name, err)
	}
	return c, nil
}
