package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"millrace/bench"
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
	f := cmd.Flags()
	f.BoolVar(&quick, "quick", false, "less than a minute: 100000 keys and short turns")
	f.IntSliceVar(&c.Keys, "keys", nil, "numbers of entities in the state (default 100000,1000000,10000000)")
	f.StringSliceVar(&c.Only, "only", nil, fmt.Sprintf("what to measure, of %v (default all)", bench.Parts))
	f.StringVar(&c.Dir, "dir", "", "where state and tables are written, and removed again (default: the system's temporary directory)")
	f.StringVar(&profile, "cpuprofile", "", "write a CPU profile of the measured jobs to this file")
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		format, err := output()
		if err != nil {
			return err
		}
		if quick {
			c.Records = 30_000
			if c.Keys == nil {
				c.Keys = []int{100_000}
			}
		}
		if profile != "" {
			file, err := os.Create(profile)
			if err != nil {
				return fmt.Errorf("create the profile: %w", err)
			}
			defer func() { err = errors.Join(err, file.Close()) }()
			c.CPUProfile = file
		}
		c.Logger = newLogger(cmd.ErrOrStderr(), slog.LevelInfo)
		report, err := bench.Run(cmd.Context(), c)
		switch {
		case err != nil:
			return err
		case format == "json":
			return printJSON(cmd, report)
		}
		return report.Print(cmd.OutOrStdout())
	}
	return cmd
}
