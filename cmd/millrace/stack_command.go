package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"millrace/control"
	"millrace/control/api"
	"millrace/lake"
)

// takeName gives the stack the name that it was started with.
func (s *stack) takeName(ctx context.Context) error {
	is, named, err := s.store.Stack(ctx, s.cfg.name)
	s.name = is.Name
	if err != nil || !named {
		return err
	}
	return s.store.Audit.Add(ctx, control.Entry{Who: whoAmI(), Role: control.Admin.String(), Action: "name stack", Subject: is.Name, Outcome: "done"})
}

// Stack implements api.Service.
func (s *stack) Stack(ctx context.Context) (out api.Stack, err error) {
	places, err := lake.ReadPlaces(ctx, s.cfg.dir.join("lake"))
	if err != nil {
		return out, err
	}
	out = api.Stack{
		Engine: string(embedded), Version: version, Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Parts: api.Parts{
			Log: string(s.cfg.dir.head.Log), Index: string(s.cfg.dir.head.Index),
			Lake: string(placeOf(places.Files == "")), Catalog: string(placeOf(places.Catalog == "")),
		},
		Processors: runtime.GOMAXPROCS(0), Memory: s.cfg.memory, Apps: []api.StackApp{}, Blockers: []control.Blocker{},
	}
	is, _, err := s.store.Stack(ctx, "")
	if err != nil {
		return out, err
	}
	out.ID, out.Name, out.Created = is.ID, is.Name, is.Created
	out.Jobs, out.JobsMemory = s.openMemory(nil)
	artifacts, err := s.store.Deploys.Artifacts(ctx)
	if err != nil {
		return out, err
	}
	for _, a := range s.allApps() {
		app := api.StackApp{Name: a.line.Program, Pushed: []string{}, Instances: []api.StackInstance{}}
		if app.Version, err = s.store.Deploys.Deployed(ctx, app.Name, a.version); err != nil {
			return out, err
		}
		for _, pushed := range artifacts {
			if pushed.App == app.Name {
				app.Pushed = append(app.Pushed, pushed.Version)
			}
		}
		for _, j := range s.jobs() {
			if j.line() == a.line {
				app.Instances = append(app.Instances, api.StackInstance{
					DataVersion: j.instance.DataVersion, Version: j.program().plan.Version, State: string(j.state()), Serving: s.serves(j),
				})
			}
		}
		out.Apps = append(out.Apps, app)
	}
	blockers, err := s.store.Deploys.Blockers(ctx)
	for _, b := range blockers {
		if b.Holds(time.Now()) {
			out.Blockers = append(out.Blockers, b)
		}
	}
	return out, err
}

func stackCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stack",
		Short: "The environment that apps are deployed to, and how it differs from others",
		Long: `The environment that apps are deployed to: what uses a data directory, or a context. It is called as 'millrace serve --stack' has said, such as master-prod1; the history of deploys
has that name.`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(stackShowCommand(), stackListCommand())
	return cmd
}

func stackShowCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "show", Short: "What the stack is made of, which versions of apps are there, and what keeps others away", Args: exactArgs()}
	output := outputFlag(cmd, "text", "json", "yaml")
	cmd.RunE = shows(output, func([]string) string { return api.StackPath }, printStack)
	return cmd
}

func printStack(out io.Writer, s api.Stack) error {
	fmt.Fprintf(out, "%s, made %s: engine %s, millrace %s, %s\n", s.Name, s.Created.Format(time.RFC3339), s.Engine, s.Version, s.Platform)
	fmt.Fprintf(out, "log %s, index %s, lake %s, catalogue %s\n", s.Parts.Log, s.Parts.Index, s.Parts.Lake, s.Parts.Catalog)
	fmt.Fprintf(out, "%d jobs with %d of %d MB, %d processors\n\n", s.Jobs, s.JobsMemory, s.Memory, s.Processors)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "APP\tDEPLOYED\tPUSHED\tDATA VERSION\tRUNS\tSTATE\tSERVING")
	for _, a := range s.Apps {
		first := fmt.Sprintf("%s\t%s\t%s", a.Name, cmp.Or(a.Version, "none"), cmp.Or(strings.Join(a.Pushed, ", "), "none"))
		if len(a.Instances) == 0 {
			fmt.Fprintf(w, "%s\tnone\n", first)
		}
		for _, i := range a.Instances {
			serving := ""
			if i.Serving {
				serving = "serving"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", first, i.DataVersion, i.Version, i.State, serving)
			first = "\t\t"
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, b := range s.Blockers {
		fmt.Fprintf(out, "\nblocker %d of %s keeps versions of %s from being deployed: %s\n", b.ID, b.Who, cmp.Or(b.App, "all apps"), b.Reason)
	}
	return nil
}

// listedStack is a stack as the list of them has it.
type listedStack struct {
	Context string     `json:"context"`
	Stack   *api.Stack `json:"stack,omitempty"` // absent when it did not answer
	Error   string     `json:"error,omitempty"`
}

// errStacksAway means that the list is not whole.
var errStacksAway = errors.New("not all stacks have answered")

func stackListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Which version of each app is on which stack, of all contexts",
		Long: `Which version of each app is deployed on which stack: the one that uses the data directory, if one does, and those of all contexts. A version that instances run and that is not the deployed one
is named too. Exit 1 when a stack does not answer; the others are shown.`,
		Args: exactArgs(),
	}
	output := outputFlag(cmd, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		all, err := listStacks(cmd)
		if err != nil {
			return err
		}
		if format == "json" {
			err = printJSON(cmd, all)
		} else {
			err = printStacks(cmd.OutOrStdout(), all)
		}
		for _, s := range all {
			if s.Stack == nil {
				err = errors.Join(err, errors.New(s.Error)) // which names it
			}
		}
		if slices.ContainsFunc(all, func(s listedStack) bool { return s.Stack == nil }) {
			err = errors.Join(err, errStacksAway)
		}
		return err
	}
	return cmd
}

// stackPatience is how long one stack of several may take to answer.
const stackPatience = 10 * time.Second

// listStacks asks all stacks that this user knows.
func listStacks(cmd *cobra.Command) (all []listedStack, err error) {
	known, err := readContexts()
	if err != nil {
		return nil, err
	}
	if dir, err := readDataDir(dataDirFlag(cmd)); err == nil {
		if r, ok := dir.running(); ok {
			all = append(all, askStack(cmd.Context(), localContext, localClient(r)))
		}
	}
	for _, r := range known.Contexts {
		c, err := remoteClient(asked{remote: r})
		if err != nil {
			all = append(all, listedStack{Context: r.Name, Error: err.Error()})
			continue
		}
		all = append(all, askStack(cmd.Context(), r.Name, c))
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no process uses data directory %s, and there are no contexts: 'millrace context add' adds one", dataDirFlag(cmd))
	}
	return all, nil
}

func askStack(ctx context.Context, name string, c client) listedStack {
	ctx, cancel := context.WithTimeoutCause(ctx, stackPatience, fmt.Errorf("it has not answered for %s", stackPatience))
	defer cancel()
	out := listedStack{Context: name}
	var s api.Stack
	if err := c.do(ctx, http.MethodGet, api.StackPath, nil, &s); err != nil {
		out.Error = err.Error()
		return out
	}
	out.Stack = &s
	return out
}

// printStacks prints a matrix: a row for each app, a column for each stack.
func printStacks(out io.Writer, all []listedStack) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	head := []string{"APP"}
	var apps []string
	for _, s := range all {
		if s.Stack == nil {
			continue
		}
		name := s.Stack.Name
		if name != s.Context {
			name += " (" + s.Context + ")"
		}
		head = append(head, name)
		for _, a := range s.Stack.Apps {
			if !slices.Contains(apps, a.Name) {
				apps = append(apps, a.Name)
			}
		}
	}
	fmt.Fprintln(w, strings.Join(head, "\t"))
	slices.Sort(apps)
	for _, app := range apps {
		row := []string{app}
		for _, s := range all {
			if s.Stack != nil {
				row = append(row, versionOn(s.Stack, app))
			}
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// versionOn is the version of an app on a stack, and what runs there beside it.
func versionOn(s *api.Stack, app string) string {
	i := slices.IndexFunc(s.Apps, func(a api.StackApp) bool { return a.Name == app })
	if i < 0 {
		return "–"
	}
	a := s.Apps[i]
	var runs []string
	for _, in := range a.Instances {
		if in.Version != a.Version && !slices.Contains(runs, in.Version) {
			runs = append(runs, in.Version)
		}
	}
	text := cmp.Or(a.Version, "none")
	if len(runs) > 0 {
		text += ", runs " + strings.Join(runs, " and ")
	}
	return text
}
