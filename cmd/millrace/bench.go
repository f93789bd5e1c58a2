package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"millrace/artifact"
	"millrace/bench"
	"millrace/control"
	"millrace/engine"
)

func benchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast this machine runs it",
		Long: `Measure what a job costs, as a multiple of validating the same bytes, with more and more entities in its state.
What the figures mean is in docs/benchmarks.md.`,
		Args: exactArgs(),
	}
	var c bench.Config
	var quick bool
	var profile string
	var soak time.Duration
	f := cmd.Flags()
	f.BoolVar(&quick, "quick", false, "less than a minute: 100000 keys and short turns")
	f.IntSliceVar(&c.Keys, "keys", nil, "numbers of entities in the state (default 100000,1000000,10000000)")
	f.StringSliceVar(&c.Only, "only", nil, fmt.Sprintf("what to measure, of %v (default all)", bench.Parts))
	f.StringVar(&c.Dir, "dir", "", "where state and tables are written, and removed again (default: the system's temporary directory)")
	f.StringVar(&profile, "cpuprofile", "", "write a CPU profile of the measured jobs to this file")
	f.DurationVar(&soak, "soak", 0, "instead, run everything at a steady rate for this time, and watch its memory")
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		format, err := output()
		if err != nil {
			return err
		}
		if quick {
			c.Records, c.Turn = 30_000, time.Second
			if c.Keys == nil {
				c.Keys = []int{100_000}
			}
		}
		c.Stack, c.Memory = openBenchStack, defaultMemory*1e6
		if err := c.Check(); err != nil {
			return usageError{err}
		}
		if soak < 0 {
			return usagef("--soak %s: want a positive duration such as 30m", soak)
		}
		if profile != "" {
			file, err := os.Create(profile)
			if err != nil {
				return fmt.Errorf("create the profile: %w", err)
			}
			defer func() { err = errors.Join(err, file.Close()) }()
			c.CPUProfile = file
		}
		c.Logger = artifact.NewLogger(cmd.ErrOrStderr(), slog.LevelInfo, "")
		show := func(report interface{ Print(io.Writer) error }) error {
			if format == "json" {
				return printJSON(cmd, report)
			}
			return report.Print(cmd.OutOrStdout())
		}
		if soak != 0 {
			report, err := bench.Soak(cmd.Context(), c, soak)
			if err != nil {
				return err
			}
			return errors.Join(show(report), report.Check())
		}
		report, err := bench.Run(cmd.Context(), c)
		if err != nil {
			return err
		}
		return show(report)
	}
	return cmd
}

// benchStack is a stack with the settings of serve.
type benchStack struct {
	*stack
	memory int64 // limit to restore
}

func openBenchStack(ctx context.Context, path string) (bench.Stack, error) {
	dir, err := openDataDir(path)
	if err != nil {
		return nil, err
	}
	s, err := openStack(ctx, stackConfig{
		dir: dir, listen: "127.0.0.1:0", prefix: defaultPrefix, logListen: "127.0.0.1:0", indexListen: "127.0.0.1:0", flush: time.Minute, memory: defaultMemory, jobMemory: jobMemoryFor(defaultMemory), corrections: defaultCorrections, restarts: defaultRestarts,
		logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return &benchStack{s, s.cfg.shares().apply()}, nil
}

func (s *benchStack) CollectorURL() string { return s.collectorURL() }
func (s *benchStack) IndexURL() string     { return s.indexAddr }

func (s *benchStack) NewKey(ctx context.Context, account, env, sourceType string) (string, error) {
	return s.store.Keys.Add(ctx, control.Key{Account: account, Env: env, SourceType: sourceType})
}

func (s *benchStack) Jobs() []engine.Progress {
	return []engine.Progress{s.raw.Progress(), s.servingOf(etlLine).Progress()}
}

func (s *benchStack) Run(ctx context.Context) error {
	if err := s.stack.Run(ctx); err != nil {
		return err
	}
	return errors.Join(s.raw.failure(), s.servingOf(etlLine).failure())
}

func (s *benchStack) Close() error {
	debug.SetMemoryLimit(s.memory)
	return errors.Join(s.stack.Close(), s.cfg.dir.Close())
}
