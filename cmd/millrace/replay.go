package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"millrace"
	"millrace/apps/lms"
	"millrace/artifact"
	"millrace/eventlog"
	"millrace/lake"
)

func replayCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "replay --all | ID...",
		Short: "Feed the records of dead letters to their app once more",
		Long: `Feed the records of dead letters to their app once more, after a version that does better was started, or before its start.

Each record keeps its id. When it becomes a row its dead letter goes; when it fails again the letter stays, with the new reasons. What else an event made
is not made again. The letters are those of the lake, so one that is younger than --flush of 'serve' may not be found yet; 'millrace rows dead_letter'
lists them. Replaying twice changes nothing.`,
	}
	cfg := stoppedConfig()
	serverFlags(cmd, &cfg)
	var which millrace.ReplayConfig
	cmd.Flags().StringVar(&which.App, "app", lms.App.Name, "app whose dead letters are replayed: those of its data version that serves")
	all := cmd.Flags().Bool("all", false, "replay all dead letters that --table and --stage leave")
	cmd.Flags().StringSliceVar(&which.Tables, "table", nil, "only records that were for this table; may be repeated")
	cmd.Flags().StringSliceVar(&which.Stages, "stage", nil, "only records that failed in this stage: read, flat_map, join, map, sink/elastic or another of the letters' column stage; may be repeated")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *all == (len(args) > 0) {
			return usagef("millrace replay: name dead letters by their _id, or give --all")
		}
		which.Letters = args
		dir, err := readDataDir(dataDirFlag(cmd))
		if err != nil {
			return err
		}
		serving, err := servingVersion(cmd.Context(), dir, lineOf(which.App))
		if err != nil {
			return err
		}
		which.Namespace = instanceOf(lineOf(which.App), serving).Namespace()
		var n int
		if r, ok := dir.running(); ok {
			err = withLake(cmd, func(ctx context.Context, l *lake.Lake) error {
				n, err = replayRunning(ctx, r, which, l)
				return err
			})
		} else {
			err = withStack(cmd, cfg, slog.LevelWarn, func(ctx context.Context, s *stack) error {
				which.Log, which.Lake = s.log, s.lake
				n, err = millrace.Replay(ctx, which)
				return err
			})
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "replayed %d dead letters\n", n)
		return err
	}
	return cmd
}

// replayRunning appends to the log of the process that uses the data directory.
func replayRunning(ctx context.Context, r running, which millrace.ReplayConfig, l *lake.Lake) (n int, err error) {
	log, err := eventlog.Open(ctx, eventlog.Config{Brokers: []string{r.Log}, Security: artifact.WithPassword(r.Security)})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	which.Log, which.Lake = log, l
	return millrace.Replay(ctx, which)
}
