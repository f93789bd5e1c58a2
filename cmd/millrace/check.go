package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"millrace/web"
)

var errUnbalanced = errors.New("the ledger does not balance")

func checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Recompute the ledger of a data directory; exit 1 when it does not balance",
		Long: `Recompute the ledger of a data directory from what is stored: log, raw lake, tables, index, and in a demo's directory what the
simulator has sent. Exit 1 when it does not balance.

Of a directory that is in use, the process that uses it is asked, as is a context: it knows what is on its way, but does not read every row. Its
answer has accounts in place of checks; "balanced" is in both.
A directory whose process was killed is not at rest: start it once more, stop it, and check then. A directory that was used with
--brokers or --index-url is checked with them.`,
		Args: exactArgs(),
	}
	output := outputFlag(cmd, "text", "json")
	cfg := stoppedConfig()
	serverFlags(cmd, &cfg)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		t, err := askedBy(cmd)
		if err != nil {
			return err
		}
		if t.isRemote() {
			c, err := remoteClient(t)
			if err != nil {
				return err
			}
			return checkRunning(cmd, c, format)
		}
		dir, err := readDataDir(dataDirFlag(cmd))
		if err != nil {
			return err
		}
		if r, ok := dir.running(); ok {
			return checkRunning(cmd, localClient(r), format)
		}
		killed := dir.killed()
		var l ledger
		err = withStack(cmd, cfg, slog.LevelWarn, func(ctx context.Context, s *stack) (err error) {
			if l, err = audit(ctx, s); err == nil && !killed {
				killed, err = s.unsettled(ctx)
			}
			return err
		})
		if err != nil {
			return err
		}
		if format == "json" {
			err = printJSON(cmd, l)
		} else {
			err = l.print(cmd.OutOrStdout())
		}
		if err == nil && !l.Balanced {
			err = fmt.Errorf("%s: %w", dir.path, errUnbalanced)
			if killed {
				err = fmt.Errorf("%w: the process that used it was killed, or stopped before it was at rest; start it once more ('millrace serve' or 'millrace demo'), stop it, and check again", err)
			}
		}
		return err
	}
	return cmd
}

// unsettled reports whether the jobs have left something to read or to publish.
func (s *stack) unsettled(ctx context.Context) (bool, error) {
	ends, err := s.log.Ends(ctx)
	if err != nil {
		return false, err
	}
	for _, j := range s.jobs() {
		if !j.works() {
			continue
		}
		p := j.Progress()
		for partition, end := range ends {
			if p.Offsets[partition] < end {
				return true, nil
			}
		}
		for _, sink := range p.Sinks {
			if sink.PendingRows > 0 {
				return true, nil
			}
		}
	}
	return false, nil
}

func printJSON(cmd *cobra.Command, v any) error {
	e := json.NewEncoder(cmd.OutOrStdout())
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// certainWithin is how long check asks again while the numbers of a running process are not certain.
const certainWithin = 10 * time.Second

// checkRunning asks what runs.
func checkRunning(cmd *cobra.Command, c client, format string) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
	defer cancel()
	st, err := c.status(ctx)
	tick := time.NewTicker(time.Second) // no faster than the process reads anew
	defer tick.Stop()
	for began := time.Now(); err == nil && !st.Ledger.Off() && !st.Ledger.Balanced() && time.Since(began) < certainWithin; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			st, err = c.status(ctx)
		}
	}
	if err != nil {
		return err
	}
	if format == "json" {
		if err := printJSON(cmd, st.Ledger); err != nil {
			return err
		}
	} else {
		for _, a := range st.Ledger.Accounts {
			fmt.Fprintln(cmd.OutOrStdout(), accountText(a))
		}
	}
	switch {
	case st.Ledger.Off():
		return errUnbalanced
	case !st.Ledger.Balanced():
		return errors.New("it is not certain yet whether the ledger balances: records are moving, being taken back, or could not be counted; check again, or stop the process and check then")
	case format == "text":
		fmt.Fprintln(cmd.OutOrStdout(), "the ledger balances")
	}
	return nil
}

// accountText is an account in a line, with its difference when there is one.
func accountText(a web.Account) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d %s =", a.Name, a.Total.Count, a.Total.Name)
	for i, p := range a.Parts {
		if i > 0 {
			b.WriteString(" +")
		}
		fmt.Fprintf(&b, " %d %s", p.Count, p.Name)
	}
	d := a.Difference()
	switch {
	case d == 0:
		return b.String()
	case a.Uncertain:
		fmt.Fprintf(&b, "; differs by %d, not certain yet", max(d, -d))
	case d > 0:
		fmt.Fprintf(&b, "; %d MISSING", d)
	default:
		fmt.Fprintf(&b, "; %d TOO MANY", -d)
	}
	return b.String()
}
