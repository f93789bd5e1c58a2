package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/user"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"millrace/control"
	"millrace/control/api"
)

func appCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "app",
		Short: "Apps and their data versions: start, suspend, resume, promote, delete",
		Long: `Apps and their data versions. A data version is a namespace of an app's output, named by the time at which it was made: it has its own state, tables and
index. It may be seeded: it reads a part of the raw lake, and then the log from exactly where that ends. Readers of a table's name see one of them,
the one that serves, until another one is promoted.`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(appListCommand(), appStartCommand(), appHistoryCommand(), appRollbackCommand())
	for _, a := range []struct{ action, short, long string }{
		{"suspend", "Stop a data version after its last commit", "Stop a data version after its last commit, once that is published. Its state stays, also over a restart, until it is resumed."},
		{"resume", "Let a suspended or failed data version go on", "Let a suspended or failed data version go on from its last commit."},
		{"promote", "Make a data version the one that readers see", `Make a data version the one that readers see: the names of all its tables in the index, in SQL and in the catalogue's namespace "serving".
Readers of a name see the rows of the old version or of the new one. It is refused while the version is seeding, or behind the one that serves.`},
		{"delete", "Delete a data version for good", "Delete a data version for good: its state, savepoints, tables in the lake, indices and topics. One that serves is refused. It needs --yes and --reason."},
	} {
		cmd.AddCommand(appActCommand(a.action, a.short, a.long))
	}
	return cmd
}

// client asks the process that uses the data directory.
type client struct{ running }

func newClient(cmd *cobra.Command) (client, error) {
	dir, err := readDataDir(dataDirFlag(cmd))
	if err != nil {
		return client{}, err
	}
	r, ok := dir.running()
	if !ok {
		return client{}, fmt.Errorf("no process uses data directory %s: start 'millrace serve' on it first", dir.path)
	}
	return client{r}, nil
}

// do asks and decodes the answer. A problem that is answered is an error in its own words.
func (c client) do(ctx context.Context, method, path string, body, into any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.Listen+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.Token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask process %d, which uses the data directory: %w", c.PID, err)
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("ask process %d, which uses the data directory: %w", c.PID, err)
	}
	if res.StatusCode == http.StatusOK {
		return json.Unmarshal(answer, into)
	}
	var p api.Problem
	if json.Unmarshal(answer, &p) != nil || p.Detail == "" {
		return fmt.Errorf("process %d answers %s with %s", c.PID, path, res.Status)
	}
	return problemError{p}
}

// problemError is what the process that serves has answered.
type problemError struct{ api.Problem }

func (p problemError) Error() string {
	text := p.Detail
	for _, prefix := range []string{api.ErrInvalid.Error() + ": ", api.ErrNotFound.Error() + ": ", control.ErrRefused.Error() + ": "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return text
}

// exitCode is the command's exit code for it.
func (p problemError) exitCode() int {
	switch p.Status {
	case http.StatusBadRequest:
		return exitUsage
	case http.StatusNotFound:
		return exitNotFound
	case http.StatusUnauthorized:
		return exitNotAllowed
	case http.StatusConflict:
		return exitConflict
	}
	return exitFailed
}

// whoAmI names the person at this terminal, for the history.
func whoAmI() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "somebody"
}

func reasonFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("reason", "", "why, for the history")
}

const dataVersionArg = "a data version; 'millrace app list' lists them"

func appListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List apps and their data versions", Args: exactArgs()}
	output := outputFlag(cmd, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		c, err := newClient(cmd)
		if err != nil {
			return err
		}
		var apps []api.App
		if err := c.do(cmd.Context(), http.MethodGet, api.Path, nil, &apps); err != nil {
			return err
		}
		if format == "json" {
			return printJSON(cmd, apps)
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "APP\tDATA VERSION\tSTATE\tREAD\tROWS\tTO READ\tSERVING")
		for _, a := range apps {
			for _, i := range a.Instances {
				serving := ""
				switch i.DataVersion {
				case a.Serving:
					serving = "serving"
				case a.Promoting:
					serving = "being promoted"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%s\n", a.Name, i.DataVersion, stateText(i), i.Read, i.Rows, i.LagRecords, serving)
			}
		}
		return w.Flush()
	}
	return cmd
}

// stateText is an instance's state, with how far its seeding is.
func stateText(i api.Instance) string {
	text := i.State
	if s := i.Seeding; s != nil && !s.Done {
		text += fmt.Sprintf(" %d of %d", s.Read, s.Rows)
		if s.SecondsLeft > 0 {
			text += fmt.Sprintf(", %s left", (time.Duration(s.SecondsLeft) * time.Second).String())
		}
	}
	if i.Error != "" {
		line, _, _ := strings.Cut(i.Error, "\n")
		text += ": " + line
	}
	return text
}

func appStartCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "start APP",
		Short: "Start a new data version of an app and print its name",
		Long: `Start a new data version of an app and print its name. With --seed it begins with the records of the raw lake, all of them unless flags restrict them,
and goes on with the log from exactly where the lake ends. Without, it begins with the oldest record of the log.

--from and --to choose events by their time, --to excluded: a day such as 2018-11-30, which is its first instant in UTC, or an instant such as
2018-11-30T12:00:00Z. Entities are read whenever they were sent: an event may need one that was described before the range, or after it.`,
		Args: exactArgs("the name of an app; 'millrace app list' lists them"),
	}
	f := cmd.Flags()
	seeded := f.Bool("seed", false, "begin with records of the raw lake")
	var seed api.Seed
	f.StringVar(&seed.SourceType, "source-type", "", "seed with records of this source type; default: those that the app reads")
	f.StringVar(&seed.From, "from", "", "seed with events from this day or instant on; from the beginning when left out")
	f.StringVar(&seed.To, "to", "", "seed with events before this day or instant; to the end when left out")
	f.StringSliceVar(&seed.Envs, "env", nil, "seed with records of this account:env; may be repeated; all when left out")
	f.BoolVar(&seed.EntitiesFirst, "entities-first", false, "read all entities before the first event: less waits, and the first row comes later")
	wait := f.Bool("wait", false, "wait until it has read the lake, caught up with the log, and published what that made")
	reason := reasonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, name := range []string{"source-type", "from", "to", "env", "entities-first"} {
			if cmd.Flag(name).Changed && !*seeded {
				return usagef("--%s says what to seed with: give --seed too", name)
			}
		}
		c, err := newClient(cmd)
		if err != nil {
			return err
		}
		start := api.Start{Who: whoAmI(), Reason: *reason}
		if *seeded {
			start.Seed = &seed
		}
		var i api.Instance
		if err := c.do(cmd.Context(), http.MethodPost, api.Path+"/"+url.PathEscape(args[0])+"/instances", start, &i); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), i.DataVersion)
		if !*wait {
			return nil
		}
		return c.untilCaughtUp(cmd, args[0], i.DataVersion)
	}
	return cmd
}

// untilCaughtUp waits until a data version has read the lake and the log and has published what that made, and shows how far it is.
func (c client) untilCaughtUp(cmd *cobra.Command, app, dataVersion string) error {
	line := newProgressLine(cmd.ErrOrStderr())
	defer line.done()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	caughtUp := uint64(0) // the epoch in which it had
	for {
		i, err := c.instance(cmd.Context(), app, dataVersion)
		if err == nil && caughtUp == 0 && i.State == "RUNNING" && i.LagRecords == 0 && i.Read > 0 {
			caughtUp = i.Epoch
		}
		switch {
		case err != nil:
			return err
		case caughtUp > 0 && i.Published >= caughtUp:
			return nil
		case i.State != "RUNNING" && i.State != "SEEDING":
			return fmt.Errorf("%s is %s", dataVersion, stateText(i))
		}
		line.show("%s %s: %d records read, %d rows, %d to read", dataVersion, stateText(i), i.Read, i.Rows, i.LagRecords)
		select {
		case <-cmd.Context().Done():
			return cmd.Context().Err()
		case <-tick.C:
		}
	}
}

func (c client) instance(ctx context.Context, app, dataVersion string) (api.Instance, error) {
	var apps []api.App
	if err := c.do(ctx, http.MethodGet, api.Path, nil, &apps); err != nil {
		return api.Instance{}, err
	}
	for _, a := range apps {
		for _, i := range a.Instances {
			if a.Name == app && i.DataVersion == dataVersion {
				return i, nil
			}
		}
	}
	return api.Instance{}, errors.New(app + " has no data version " + dataVersion + " any more")
}

func appActCommand(action, short, long string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   action + " APP DATA-VERSION",
		Short: short,
		Long:  long,
		Args:  exactArgs("the name of an app; 'millrace app list' lists them", dataVersionArg),
	}
	act := api.Act{Who: whoAmI()}
	reason := reasonFlag(cmd)
	yes := new(bool)
	switch action {
	case "promote":
		forceFlag(cmd, &act)
	case "delete":
		yes = cmd.Flags().Bool("yes", false, "it is meant: what is deleted cannot be had back")
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		act.Reason = *reason
		if action == "delete" && !*yes {
			return usagef("this deletes state, savepoints, tables, indices and topics of %s for good: give --yes, and --reason, if it is meant", args[1])
		}
		return actOn(cmd, api.Path+"/"+url.PathEscape(args[0])+"/instances/"+url.PathEscape(args[1])+"/"+action, act, action)
	}
	return cmd
}

func forceFlag(cmd *cobra.Command, act *api.Act) {
	cmd.Flags().BoolVar(&act.Force, "force", false, "also when the version is seeding or behind; needs --reason")
}

func appRollbackCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollback APP",
		Short: "Make the data version serve again that did before the last promotion",
		Args:  exactArgs("the name of an app; 'millrace app list' lists them"),
	}
	act := api.Act{Who: whoAmI()}
	reason := reasonFlag(cmd)
	forceFlag(cmd, &act)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		act.Reason = *reason
		return actOn(cmd, api.Path+"/"+url.PathEscape(args[0])+"/rollback", act, "rollback")
	}
	return cmd
}

func actOn(cmd *cobra.Command, path string, act api.Act, action string) error {
	c, err := newClient(cmd)
	if err != nil {
		return err
	}
	var i api.Instance
	if err := c.do(cmd.Context(), http.MethodPost, path, act, &i); err != nil {
		return err
	}
	text := i.State
	if action == "promote" || action == "rollback" {
		text = "serving"
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s is %s\n", i.DataVersion, text)
	return nil
}

func appHistoryCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "history APP",
		Short: "List who decided what about an app's data versions, the newest first",
		Args:  exactArgs("the name of an app; 'millrace app list' lists them"),
	}
	output := outputFlag(cmd, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		c, err := newClient(cmd)
		if err != nil {
			return err
		}
		changes := []control.Change{}
		if err := c.do(cmd.Context(), http.MethodGet, api.Path+"/"+url.PathEscape(args[0])+"/history", nil, &changes); err != nil {
			return err
		}
		if format == "json" {
			return printJSON(cmd, changes)
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "TIME\tACTION\tDATA VERSION\tWHO\tREASON")
		for _, ch := range changes {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", ch.At.Format(time.RFC3339), ch.Action, ch.DataVersion, ch.Who, ch.Reason)
		}
		return w.Flush()
	}
	return cmd
}
