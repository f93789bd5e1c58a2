package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
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

Of a directory that is in use, the process that uses it is asked: it knows what is on its way, but does not read every row. Its
answer has accounts in place of checks; "balanced" is in both.
A directory whose process was killed is not at rest: start it once more, stop it, and check then. A directory that was used with
--brokers or --index-url is checked with them.`,
		Args: exactArgs(),
	}
	output := outputFlag(cmd, "text", "json")
	cfg := stackConfig{listen: "127.0.0.1:0", prefix: defaultPrefix, logListen: "127.0.0.1:0", indexListen: "127.0.0.1:0", flush: time.Minute, memory: defaultMemory}
	serverFlags(cmd, &cfg)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		dir, err := readDataDir(dataDirFlag(cmd))
		if err != nil {
			return err
		}
		if r, ok := dir.running(); ok {
			return checkRunning(cmd, r, format)
		}
		var l ledger
		err = withStack(cmd, cfg, slog.LevelWarn, func(ctx context.Context, s *stack) (err error) {
			l, err = audit(ctx, s)
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
		}
		return err
	}
	return cmd
}

func printJSON(cmd *cobra.Command, v any) error {
	e := json.NewEncoder(cmd.OutOrStdout())
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// checkRunning asks the process that uses the directory.
func checkRunning(cmd *cobra.Command, r running, format string) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
	defer cancel()
	url := "http://" + r.Listen + "/api/v1/status"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask process %d, which uses the data directory: %w", r.PID, err)
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	var st web.Status
	if err := json.NewDecoder(res.Body).Decode(&st); err != nil || res.StatusCode != http.StatusOK {
		return errors.Join(fmt.Errorf("process %d answers %s with %s", r.PID, url, res.Status), err)
	}
	if format == "json" {
		if err := printJSON(cmd, st.Ledger); err != nil {
			return err
		}
	} else {
		for _, a := range st.Ledger.Accounts {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d %s =", a.Name, a.Total.Count, a.Total.Name)
			for i, p := range a.Parts {
				if i > 0 {
					fmt.Fprint(cmd.OutOrStdout(), " +")
				}
				fmt.Fprintf(cmd.OutOrStdout(), " %d %s", p.Count, p.Name)
			}
			fmt.Fprintln(cmd.OutOrStdout())
		}
	}
	if !st.Ledger.Balanced() {
		return errUnbalanced
	}
	if format == "text" {
		fmt.Fprintln(cmd.OutOrStdout(), "the ledger balances")
	}
	return nil
}
