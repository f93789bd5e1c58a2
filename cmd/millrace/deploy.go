package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"millrace/control"
	"millrace/control/api"
)

func buildPushCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "push FILE",
		Short: "Hand an artifact over, so that it can be deployed",
		Long: `Hand an artifact over to the process that uses the data directory, so that it can be deployed. It is asked what app it holds. A version that was pushed stays what it is: another
executable needs another version.`,
		Args: exactArgs("the file that 'millrace build' made"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := newClient(cmd)
			if err != nil {
				return err
			}
			f, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("push %s: %w", args[0], cause(err))
			}
			defer f.Close()
			var a control.Artifact
			if err := c.send(cmd.Context(), api.ArtifactsPath+"?"+url.Values{"who": {whoAmI()}}.Encode(), f, &a); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", a.App, a.Version)
			return nil
		},
	}
}

// send posts bytes.
func (c client) send(ctx context.Context, path string, from io.Reader, into any) error {
	req, err := c.request(ctx, http.MethodPost, path, from)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	_, err = c.answer(req, into)
	return err
}

func buildListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the artifacts that were pushed, the newest first", Args: exactArgs()}
	output := outputFlag(cmd, "table", "json", "yaml")
	cmd.RunE = shows(output, func([]string) string { return api.ArtifactsPath }, func(out io.Writer, all []control.Artifact) error {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "APP\tVERSION\tCOMMIT\tBUILT\tPUSHED\tBY\tSIZE\tSHA256")
		for _, a := range all {
			commit := a.Commit[:min(12, len(a.Commit))]
			if a.Modified {
				commit += " and changes"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%.1f MB\t%.12s\n", a.App, a.Version, commit, a.Built.Format(time.RFC3339), a.Pushed.Format(time.RFC3339), a.PushedBy, float64(a.Bytes)/1e6, a.SHA256)
		}
		return w.Flush()
	})
	return cmd
}

func buildDeleteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete APP VERSION",
		Short: "Delete an artifact that was pushed, which nothing needs any more",
		Long: `Delete an artifact that was pushed, with its files. It is refused while the version is deployed, a data version is of it or may return to it, or a savepoint is of it. The version
stays what it was: it can be pushed again, another executable cannot have its name. It needs --yes and --reason.`,
		Args: exactArgs(appArg, "a version; 'millrace build list' lists them"),
	}
	ask := api.DeleteAsk{Who: whoAmI()}
	cmd.Flags().StringVar(&ask.Reason, "reason", "", "why, for the audit log")
	yes := cmd.Flags().Bool("yes", false, "it is meant")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !*yes {
			return usagef("this deletes version %s of %s with its files: give --yes, and --reason, if it is meant", args[1], args[0])
		}
		c, err := newClient(cmd)
		if err != nil {
			return err
		}
		var a control.Artifact
		if err := c.do(cmd.Context(), http.MethodPost, api.ArtifactsPath+"/"+url.PathEscape(args[0])+"/"+url.PathEscape(args[1])+"/delete", ask, &a); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s %s is deleted, %.1f MB\n", a.App, a.Version, float64(a.Bytes)/1e6)
		return nil
	}
	return cmd
}

const appArg = "the name of an app; 'millrace app list' lists them"

func deployCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "deploy",
		Short: "Which version of an app is deployed: what is started or upgraded is that one",
		Long: `Which version of an app is deployed. What is started or upgraded from then on is that version; what runs goes on as it does until 'millrace app upgrade'. At first it is the version that
this program has, or none of an app that it does not have. 'millrace build push' hands over others.`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(deployNewCommand(), deployDiffCommand(), deployListCommand(), deployRollbackCommand())
	return cmd
}

// deployFlags adds what a deploy can be asked with.
func deployFlags(cmd *cobra.Command) (ask *api.DeployAsk, upgrade *bool) {
	ask = &api.DeployAsk{Who: whoAmI()}
	cmd.Flags().StringVar(&ask.Reason, "reason", "", "why, for the history")
	cmd.Flags().BoolVar(&ask.Force, "force", false, "also when a blocker is against it; needs --reason, and an admin")
	return ask, cmd.Flags().Bool("upgrade", false, "upgrade the data versions that run, one after another")
}

// doDeploy deploys, and upgrades the data versions that run when it is asked to.
func doDeploy(cmd *cobra.Command, app, path string, ask *api.DeployAsk, upgrade bool) error {
	c, err := newClient(cmd)
	if err != nil {
		return err
	}
	var before []control.Deploy // what is said below must be true of what was: of two who deploy at once the second is told of the first
	read, err := c.doWith(cmd.Context(), http.MethodGet, pathOf(app, "deploys"), nil, nil, &before)
	if err != nil {
		return err
	}
	var d control.Deploy
	if _, err := c.doWith(cmd.Context(), http.MethodPost, path, http.Header{"If-Match": read.Values("ETag")}, ask, &d); err != nil {
		return err
	}
	where := ""
	if d.Before != "" {
		where = ", where " + d.Before + " was"
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s %s is deployed%s\n", d.App, d.Version, where)
	if d.Starts != 0 {
		op, err := c.untilEnded(cmd.Context(), control.Operation{ID: d.Starts}, 0)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s is %s\n", op.DataVersion, control.Running)
		return nil
	}
	if upgrade {
		return c.upgradeAll(cmd, d, ask.Reason)
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "millrace: what runs goes on as it does; 'millrace app upgrade' moves it")
	return nil
}

// upgradeAll upgrades the data versions of an app that run, one after another, and stops at the first that cannot be.
func (c client) upgradeAll(cmd *cobra.Command, d control.Deploy, reason string) error {
	var apps []api.App
	if err := c.do(cmd.Context(), http.MethodGet, api.Path, nil, &apps); err != nil {
		return err
	}
	for _, a := range apps {
		for _, i := range a.Instances {
			if a.Name != d.App || i.Version == d.Version || i.State != string(control.Running) && i.State != string(control.Seeding) {
				continue
			}
			var op control.Operation
			_, err := c.doWith(cmd.Context(), http.MethodPost, pathOf(a.Name, "instances", i.DataVersion, string(control.Upgrade)),
				http.Header{"If-Match": {api.Tag(i.Revision)}}, api.Ask{Who: whoAmI(), Reason: reason}, &op)
			if err == nil {
				_, err = c.untilEnded(cmd.Context(), op, 0)
			}
			if err != nil {
				return fmt.Errorf("upgrade %s: %w; data versions after it were not upgraded", i.DataVersion, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s runs %s\n", i.DataVersion, d.Version)
		}
	}
	return nil
}

func deployNewCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "new APP VERSION",
		Short: "Deploy a version of an app",
		Long: `Deploy a version of an app: what is started or upgraded from then on is that one. 'millrace deploy diff' says beforehand what that changes. With --upgrade the data versions that run
are moved to it, one after another, each with a savepoint, and back when it fails; the first that cannot be ends that.`,
		Args: exactArgs(appArg, "a version; 'millrace build list' lists them"),
	}
	ask, upgrade := deployFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ask.Version = args[1]
		return doDeploy(cmd, args[0], pathOf(args[0], "deploys"), ask, *upgrade)
	}
	return cmd
}

func deployRollbackCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollback APP",
		Short: "Deploy the version that was deployed before",
		Args:  exactArgs(appArg),
	}
	ask, upgrade := deployFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return doDeploy(cmd, args[0], pathOf(args[0], "deploys", "rollback"), ask, *upgrade)
	}
	return cmd
}

func deployListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list APP", Short: "List which versions of an app were deployed, the newest first", Args: exactArgs(appArg)}
	output := outputFlag(cmd, "table", "json", "yaml")
	cmd.RunE = shows(output, func(args []string) string { return pathOf(args[0], "deploys") }, func(out io.Writer, all []control.Deploy) error {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "ID\tTIME\tVERSION\tBEFORE\tWHO\tWHAT\tREASON")
		for _, d := range all {
			what := "deploy"
			if d.Rollback {
				what = "rollback"
			}
			if len(d.Past) > 0 {
				what += " past blockers"
			}
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", d.ID, d.At.Format(time.RFC3339), d.Version, d.Before, d.Who, what, d.Reason)
		}
		return w.Flush()
	})
	return cmd
}

func deployDiffCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diff APP VERSION",
		Short: "Say what deploying a version would change, and which data versions could go on as it",
		Long: `Say what deploying a version would change: descriptor, tables, joins; and which data versions could be upgraded to it in place. The exit code is 1 when
one could not.`,
		Args: exactArgs(appArg, "a version; 'millrace build list' lists them"),
	}
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		c, err := newClient(cmd)
		if err != nil {
			return err
		}
		var d api.Diff
		if err := c.do(cmd.Context(), http.MethodGet, pathOf(args[0], "deploys", "diff")+"?"+url.Values{"version": {args[1]}}.Encode(), nil, &d); err != nil {
			return err
		}
		if format == "json" {
			err = printJSON(cmd, d)
		} else {
			_, err = io.WriteString(cmd.OutOrStdout(), deployDiffText(d))
		}
		n := 0
		for _, v := range d.Instances {
			if len(v.Refused) > 0 {
				n++
			}
		}
		if err == nil && n > 0 {
			err = fmt.Errorf("%d of %d data versions cannot go on as %s: start a new one, with seeding", n, len(d.Instances), d.To)
		}
		return err
	}
	return cmd
}

func deployDiffText(d api.Diff) string {
	var b strings.Builder
	b.WriteString(comparisonText(d.Plan))
	for _, c := range d.Descriptor {
		was, _ := json.Marshal(c.Was) // it came as JSON
		is, _ := json.Marshal(c.Is)
		fmt.Fprintf(&b, "\ndescriptor  %s: %s ─▶ %s\n", c.Field, was, is)
	}
	for _, v := range d.Instances {
		verdict := "in place: yes"
		if len(v.Refused) > 0 {
			verdict = "in place: no: " + strings.Join(v.Refused, "; ")
		}
		fmt.Fprintf(&b, "\n%s, which runs %s, %s: upgrade %s\n", v.DataVersion, v.Version, v.State, verdict)
	}
	return b.String()
}

func blockerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "blocker",
		Short: "What keeps versions from being deployed for a time",
		Args:  unknownCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(blockerAddCommand(), blockerLiftCommand(), blockerListCommand())
	return cmd
}

func blockerAddCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "add", Short: "Keep versions from being deployed, and print the blocker's number", Args: exactArgs()}
	ask := api.BlockAsk{Who: whoAmI()}
	cmd.Flags().StringVar(&ask.App, "app", "", "only those of this app; default: all")
	cmd.Flags().StringVar(&ask.Reason, "reason", "", "why, which is shown to whoever it stops")
	lasts := cmd.Flags().Duration("for", 0, "end by itself after this time, such as 72h; default: when it is lifted")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *lasts < 0 {
			return usagef("--for %s: want a positive duration such as 72h", *lasts)
		}
		if *lasts > 0 {
			ask.Until = time.Now().Add(*lasts).UTC().Truncate(time.Second)
		}
		c, err := newClient(cmd)
		if err != nil {
			return err
		}
		var b control.Blocker
		if err := c.do(cmd.Context(), http.MethodPost, api.BlockersPath, ask, &b); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), b.ID)
		return nil
	}
	return cmd
}

func blockerLiftCommand() *cobra.Command {
	return &cobra.Command{
		Use: "lift NUMBER", Short: "End a blocker", Args: exactArgs("the number of a blocker; 'millrace blocker list' lists them"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := newClient(cmd)
			if err != nil {
				return err
			}
			var b control.Blocker
			if err := c.do(cmd.Context(), http.MethodPost, api.BlockersPath+"/"+url.PathEscape(args[0])+"/lift", api.LiftAsk{Who: whoAmI()}, &b); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "blocker %d is lifted\n", b.ID)
			return nil
		},
	}
}

func blockerListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List blockers, the newest first", Args: exactArgs()}
	output := outputFlag(cmd, "table", "json", "yaml")
	cmd.RunE = shows(output, func([]string) string { return api.BlockersPath }, func(out io.Writer, all []control.Blocker) error {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "NUMBER\tAPP\tFROM\tUNTIL\tWHO\tREASON")
		for _, b := range all {
			app, until := b.App, "it is lifted"
			if app == "" {
				app = "all"
			}
			if !b.Until.IsZero() {
				until = b.Until.Format(time.RFC3339)
			}
			if !b.Lifted.IsZero() {
				until = b.Lifted.Format(time.RFC3339) + ", lifted by " + b.LiftedBy
			}
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", b.ID, app, b.From.Format(time.RFC3339), until, b.Who, b.Reason)
		}
		return w.Flush()
	})
	return cmd
}
