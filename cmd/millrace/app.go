package main

import (
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
	"go.yaml.in/yaml/v3"

	"millrace/control"
	"millrace/control/api"
)

func appCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "app",
		Short: "Apps and their data versions: start, suspend, resume, recover, promote, delete",
		Long: `Apps and their data versions. A data version is a namespace of an app's output, named by the time at which it was made: it has its own state, tables and
index. It may be seeded: it reads a part of the raw lake, and then the log from exactly where that ends. Readers of a table's name see one of them,
the one that serves, until another one is promoted.`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(appListCommand(), appStartCommand(), appHistoryCommand(), appOperationCommand(), appJobsCommand(), appRollbackCommand())
	for _, a := range []struct {
		action      control.Action
		short, long string
	}{
		{control.Suspend, "Stop a data version with a savepoint", "Stop a data version after its last commit, once that is published, with a savepoint of it. It stays so, also over a restart, until it is resumed."},
		{control.Resume, "Let a suspended data version go on", "Let a suspended data version go on from the savepoint that it was suspended with."},
		{control.Recover, "Let a data version go on that failed, was canceled or suspended", `Let a data version go on that failed, was canceled or suspended, from its last commit; when its state is damaged, from the newest good savepoint or checkpoint.
With --savepoint it goes back to that one: what it published since is taken back. 'millrace savepoint list' shows those that there are.`},
		{control.Upgrade, "Go on with the version of the app that is deployed", `Go on with the version of the app that is deployed: with a savepoint, and back to it and to the version before if the new one fails within a moment.`},
		{control.TakeSavepoint, "Keep the state of a data version while it runs", "Keep the state of a data version while it runs, and print the savepoint's name."},
		{control.Promote, "Make a data version the one that readers see", `Make a data version the one that readers see: the names of all its tables in the index, in SQL and in the catalogue's namespace "serving".
Readers of a name see the rows of the old version or of the new one. It is refused while the version is seeding, or behind the one that serves.`},
		{control.Cancel, "Stop a data version without a savepoint, or take back what is being done with it", `Stop a data version after its last commit, without a savepoint. While it is being started, suspended or upgraded, or a savepoint of it is made, that is taken
back instead.`},
		{control.Force, "End what is being done with a data version and does not come to its end", "End what is being done with a data version, and its job with it. What it has committed stays: it can be recovered. It needs --reason."},
		{control.Delete, "Delete a data version for good", "Delete a data version for good: its state, savepoints, tables in the lake, indices and topics. One that serves is refused. It needs --yes and --reason."},
	} {
		cmd.AddCommand(appActCommand(a.action, a.short, a.long))
	}
	return cmd
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

// resourceFlags adds what a job gets, to commands that start one.
func resourceFlags(cmd *cobra.Command, ask *api.Ask) {
	cmd.Flags().IntVar(&ask.Parallelism, "parallelism", 0, "threads that share the job's records, from now on; no result depends on it; default: what it had, for a new one as many as processors")
	cmd.Flags().Int64Var(&ask.Memory, "job-memory", 0, "MB of memory of the job's process, from now on; default: what it had, for a new one that of 'millrace serve'")
}

const dataVersionArg = "a data version; 'millrace app list' lists them"

func appListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List apps and their data versions", Args: exactArgs()}
	output := outputFlag(cmd, "table", "json", "yaml")
	cmd.RunE = shows(output, func([]string) string { return api.Path }, func(out io.Writer, apps []api.App) error {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "APP\tDATA VERSION\tSTATE\tREAD\tROWS\tTO READ\tSERVING")
		for _, a := range apps {
			if len(a.Instances) == 0 {
				fmt.Fprintf(w, "%s\tnone\n", a.Name)
			}
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
	})
	return cmd
}

// shows asks for something and prints it: as it came when the format is json, else as text.
func shows[T any](output func() (string, error), path func(args []string) string, text func(out io.Writer, got T) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		c, err := newClient(cmd)
		if err != nil {
			return err
		}
		var got T
		if err := c.do(cmd.Context(), http.MethodGet, path(args), nil, &got); err != nil {
			return err
		}
		switch format {
		case "json":
			return printJSON(cmd, got)
		case "yaml":
			return printYAML(cmd, got)
		}
		return text(cmd.OutOrStdout(), got)
	}
}

// printYAML prints what printJSON would, as YAML.
func printYAML(cmd *cobra.Command, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var node yaml.Node // of YAML, which JSON is: names stay in their order
	if err := yaml.Unmarshal(text, &node); err != nil {
		return err
	}
	inBlocks(&node)
	e := yaml.NewEncoder(cmd.OutOrStdout())
	e.SetIndent(2)
	return errors.Join(e.Encode(&node), e.Close())
}

// inBlocks takes the braces and quotes of JSON from a node.
func inBlocks(n *yaml.Node) {
	n.Style = 0
	for _, below := range n.Content {
		inBlocks(below)
	}
}

// pathOf is the API's path of an app, and of what is below it.
func pathOf(app string, below ...string) string {
	path := api.Path + "/" + url.PathEscape(app)
	for _, b := range below {
		path += "/" + url.PathEscape(b)
	}
	return path
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
	key := keyFlag(cmd)
	var start api.Ask
	resourceFlags(cmd, &start)
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
		start.Who, start.Reason, start.Key = whoAmI(), *reason, *key
		if *seeded {
			start.Seed = &seed
		}
		op, err := c.ask(cmd.Context(), pathOf(args[0], "instances"), start)
		if err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), op.DataVersion)
		if _, err := c.untilEnded(cmd.Context(), op, 0); err != nil || !*wait {
			return err
		}
		return c.untilCaughtUp(cmd, args[0], op.DataVersion)
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

func appActCommand(action control.Action, short, long string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   string(action) + " APP DATA-VERSION",
		Short: short,
		Long:  long,
		Args:  exactArgs("the name of an app; 'millrace app list' lists them", dataVersionArg),
	}
	ask := askFlags(cmd)
	ask.Action = action
	yes := new(bool)
	switch action {
	case control.Promote:
		forceFlag(cmd, ask)
	case control.Delete:
		yes = cmd.Flags().Bool("yes", false, "it is meant: what is deleted cannot be had back")
	case control.Suspend, control.TakeSavepoint, control.Upgrade:
		cmd.Flags().StringVar(&ask.Savepoint, "savepoint", "", "name of the savepoint that is made; default: the time, and for what")
	case control.Recover:
		cmd.Flags().StringVar(&ask.Savepoint, "savepoint", "", "name of the savepoint or checkpoint to go back to; default: the last commit")
	}
	switch action {
	case control.Resume, control.Recover, control.Upgrade:
		resourceFlags(cmd, ask)
	}
	timeout := waitFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if action == control.Delete && !*yes {
			return usagef("this deletes state, savepoints, tables, indices and topics of %s for good: give --yes, and --reason, if it is meant", args[1])
		}
		return actOn(cmd, args[0], pathOf(args[0], "instances", args[1], string(action)), *ask, timeout)
	}
	return cmd
}

// askFlags adds what every action can be asked with.
func askFlags(cmd *cobra.Command) *api.Ask {
	ask := &api.Ask{Who: whoAmI()}
	cmd.Flags().StringVar(&ask.Reason, "reason", "", "why, for the history")
	cmd.Flags().StringVar(&ask.Key, "key", "", "of the request: asked again with it, it is the same operation")
	return ask
}

func keyFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("key", "", "of the request: asked again with it, it is the same operation")
}

// waitFlags adds whether to wait for the end of an operation. What it returns is how long: below 0 not at all, 0 for ever.
func waitFlags(cmd *cobra.Command) func() time.Duration {
	wait := cmd.Flags().Bool("wait", true, "wait until it is done")
	timeout := cmd.Flags().Duration("timeout", 0, "wait no longer than this, and exit with code 6; it goes on all the same")
	return func() time.Duration {
		if !*wait {
			return -1
		}
		return *timeout
	}
}

func forceFlag(cmd *cobra.Command, ask *api.Ask) {
	cmd.Flags().BoolVar(&ask.Force, "force", false, "also when the version is seeding or behind; needs --reason")
}

func appRollbackCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollback APP",
		Short: "Make the data version serve again that did before the last promotion",
		Args:  exactArgs("the name of an app; 'millrace app list' lists them"),
	}
	ask := askFlags(cmd)
	forceFlag(cmd, ask)
	timeout := waitFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ask.Action = control.Rollback
		return actOn(cmd, args[0], pathOf(args[0], "rollback"), *ask, timeout)
	}
	return cmd
}

// ask begins an operation.
func (c client) ask(ctx context.Context, path string, ask api.Ask) (control.Operation, error) {
	return c.askIf(ctx, path, nil, ask)
}

// askIf begins an operation if what it was decided by has one of the ETags still; nil are all.
func (c client) askIf(ctx context.Context, path string, tags []string, ask api.Ask) (op control.Operation, err error) {
	_, err = c.doWith(ctx, http.MethodPost, path, http.Header{"Idempotency-Key": {ask.Key}, "If-Match": tags}, ask, &op)
	return op, err
}

// errTimedOut is for who has waited as long as was said.
var errTimedOut = errors.New("it is not done yet, and goes on; 'millrace app history' shows how it ends")

// untilEnded waits until an operation has ended, and returns an error unless it succeeded. A timeout of 0 is none.
func (c client) untilEnded(ctx context.Context, op control.Operation, timeout time.Duration) (control.Operation, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, errTimedOut)
		defer cancel()
	}
	for op.Ended.IsZero() {
		if err := c.do(ctx, http.MethodGet, fmt.Sprintf("%s/%d?wait=20s", api.OperationsPath, op.ID), nil, &op); err != nil {
			if errors.Is(context.Cause(ctx), errTimedOut) {
				err = errTimedOut
			}
			return op, err
		}
	}
	switch op.State {
	case control.Succeeded:
		return op, nil
	case control.TakenBack:
		return op, fmt.Errorf("%s %s: it was taken back", op.Action, op.DataVersion)
	}
	return op, fmt.Errorf("%s %s: %s", op.Action, op.DataVersion, op.Error)
}

// actOn begins an operation, waits for its end if that is wanted, and says how the instance is then.
func actOn(cmd *cobra.Command, app, path string, ask api.Ask, timeout func() time.Duration) error {
	c, err := newClient(cmd)
	if err != nil {
		return err
	}
	var tags []string
	if ask.Action == control.Promote || ask.Action == control.Rollback { // of two who do so at once the second is told what serves: it would go back twice
		read, err := c.doWith(cmd.Context(), http.MethodGet, pathOf(app, "serving"), nil, nil, &api.Serving{})
		if err != nil {
			return err
		}
		tags = read.Values("ETag")
	}
	op, err := c.askIf(cmd.Context(), path, tags, ask)
	if err != nil {
		return err
	}
	wait := timeout()
	if wait < 0 {
		fmt.Fprintf(cmd.OutOrStdout(), "operation %d: %s %s\n", op.ID, op.Action, op.DataVersion)
		return nil
	}
	if op, err = c.untilEnded(cmd.Context(), op, wait); err != nil {
		return err
	}
	text := ""
	switch op.Action {
	case control.Promote, control.Rollback:
		text = "serving"
	case control.Delete:
		text = "deleted"
	case control.TakeSavepoint:
		fmt.Fprintln(cmd.OutOrStdout(), op.Savepoint)
		return nil
	default:
		i, err := c.instance(cmd.Context(), op.Program, op.DataVersion)
		if err != nil {
			return err
		}
		text = i.State
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s is %s\n", op.DataVersion, text)
	return nil
}

func appHistoryCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "history APP",
		Short: "List who decided what about an app's data versions, the newest first",
		Args:  exactArgs("the name of an app; 'millrace app list' lists them"),
	}
	output := outputFlag(cmd, "table", "json", "yaml")
	before := cmd.Flags().Int64("before", 0, "list those before this operation; default: the newest")
	path := func(args []string) string {
		path := pathOf(args[0], "history")
		if *before != 0 {
			path += fmt.Sprintf("?before=%d", *before)
		}
		return path
	}
	cmd.RunE = shows(output, path, func(out io.Writer, all []control.Operation) error {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "ID\tTIME\tACTION\tDATA VERSION\tWHO\tRESULT\tREASON")
		for _, op := range all {
			result := string(op.State)
			if op.Error != "" {
				line, _, _ := strings.Cut(op.Error, "\n")
				result += ": " + line
			}
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", op.ID, op.Began.Format(time.RFC3339), op.Action, op.DataVersion, op.Who, result, op.Reason)
		}
		return w.Flush()
	})
	return cmd
}

func appOperationCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "operation ID",
		Short: "Show one operation, with its steps and how long each took",
		Args:  exactArgs("the id of an operation; 'millrace app history' lists them"),
	}
	output := outputFlag(cmd, "text", "json", "yaml")
	path := func(args []string) string { return api.OperationsPath + "/" + url.PathEscape(args[0]) }
	cmd.RunE = shows(output, path, func(out io.Writer, op control.Operation) error {
		fmt.Fprintf(out, "%s %s of %s, by %s at %s: %s\n", op.Action, op.DataVersion, op.Line, op.Who, op.Began.Format(time.RFC3339), op.State)
		if op.Reason != "" {
			fmt.Fprintf(out, "reason: %s\n", op.Reason)
		}
		if op.Error != "" {
			fmt.Fprintf(out, "error: %s\n", op.Error)
		}
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, s := range op.Done {
			result := "done"
			if s.Error != "" {
				result = s.Error
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", s.Step, s.Ended.Sub(s.Began).Round(time.Millisecond), result)
		}
		return w.Flush()
	})
	return cmd
}

func appJobsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "jobs APP DATA-VERSION",
		Short: "List the runs of a data version, the newest first: what each began from, and of what it ended",
		Args:  exactArgs("the name of an app; 'millrace app list' lists them", dataVersionArg),
	}
	output := outputFlag(cmd, "table", "json", "yaml")
	path := func(args []string) string { return pathOf(args[0], "instances", args[1], "jobs") }
	cmd.RunE = shows(output, path, func(out io.Writer, all []control.Job) error {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "BEGAN\tENDED\tVERSION\tFROM\tENDED BY")
		for _, j := range all {
			ended := "–"
			if !j.Ended.IsZero() {
				ended = j.Ended.Format(time.RFC3339)
			}
			line, _, _ := strings.Cut(j.Cause, "\n")
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", j.Began.Format(time.RFC3339), ended, j.Version, j.Origin, line)
		}
		return w.Flush()
	})
	return cmd
}
