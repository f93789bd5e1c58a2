package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"millrace/apps/lms"
	"millrace/engine"
	"millrace/ingest"
	"millrace/plan"
)

// plans makes the plans of the apps that this program holds, by name.
func plans() (map[string]*plan.Plan, []string, error) {
	etlPlan, err := lms.App.Plan()
	if err != nil {
		return nil, nil, err
	}
	raw := ingest.Plan(version)
	return map[string]*plan.Plan{raw.App: raw, etlPlan.App: etlPlan}, []string{raw.App, etlPlan.App}, nil
}

func describeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "describe APP",
		Short: "Print an app's plan and the Avro schemas of its tables, or what it means for a job to go on as this plan",
		Long: `Print an app's plan and the Avro schemas of its tables.

With --diff it prints instead what it would mean for a job that runs another version of the app to go on as this one: what is
allowed, with what becomes of state and rows, and what is refused, with what to do. The exit code is 1 when something is refused.
The other version is that of a stopped job's directory, of a savepoint or checkpoint, or of a file that describe -o json wrote.`,
		Args: exactArgs("the name of an app"),
	}
	output := outputFlag(cmd, "text", "json")
	diff := cmd.Flags().String("diff", "", "a job's directory, a savepoint, or a file that describe -o json wrote")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		byName, names, err := plans()
		if err != nil {
			return err
		}
		p := byName[args[0]]
		if p == nil {
			return fmt.Errorf("there is no app %q; this program holds %s", args[0], strings.Join(names, " and "))
		}
		if *diff != "" {
			return compare(cmd.OutOrStdout(), p, *diff, format)
		}
		if format == "json" {
			e := json.NewEncoder(cmd.OutOrStdout())
			e.SetIndent("", "  ")
			return e.Encode(p.Describe())
		}
		return describe(cmd.OutOrStdout(), p.Describe())
	}
	return cmd
}

// compare prints what it means for the job, or the plan, at path to go on as p.
func compare(w io.Writer, p *plan.Plan, path, format string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("compare with %s: %w", path, err)
	}
	var c plan.Comparison
	if info.IsDir() {
		if c, err = engine.ComparePlan(nil, path, p); err != nil {
			return err
		}
	} else {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var old plan.Description
		if err := json.Unmarshal(text, &old); err != nil || old.App == "" {
			return fmt.Errorf("%s is not what describe -o json writes", path)
		}
		c = plan.Compare(old, p.Describe(), nil)
	}
	if format == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		if err := e.Encode(c); err != nil {
			return err
		}
	} else if _, err := io.WriteString(w, comparisonText(c)); err != nil {
		return err
	}
	if n := refused(c); n > 0 {
		return fmt.Errorf("%s %s cannot go on from %s: %d of %d changes are refused", c.App, c.To, path, n, len(c.Changes))
	}
	return nil
}

func refused(c plan.Comparison) (n int) {
	for _, ch := range c.Changes {
		if ch.Refused {
			n++
		}
	}
	return n
}

func comparisonText(c plan.Comparison) string {
	var b strings.Builder
	if c.From == "" {
		fmt.Fprintf(&b, "%s %s, of which no version is deployed\n", c.App, c.To)
	} else {
		fmt.Fprintf(&b, "%s %s ─▶ %s\n", c.App, c.From, c.To)
	}
	if len(c.Changes) == 0 {
		b.WriteString("state and tables go on as they are\n")
	}
	for _, ch := range c.Changes {
		verdict := "allowed"
		if ch.Refused {
			verdict = "REFUSED"
		}
		fmt.Fprintf(&b, "\n%s  %s\n         %s\n", verdict, ch.What, ch.Meaning)
	}
	return b.String()
}

func describe(w io.Writer, d plan.Description) error {
	var b strings.Builder
	sources := "all source types"
	if len(d.SourceTypes) > 0 {
		sources = strings.Join(d.SourceTypes, ", ")
	}
	fmt.Fprintf(&b, "%s %s\n%s\n\nreads %s\n\n", d.App, d.Version, d.Description, sources)
	if len(d.Stages) > 0 {
		fmt.Fprintf(&b, "stages\n  read ─▶ %s\n", strings.Join(d.ReadTo, ", "))
	}
	for _, s := range d.Stages {
		keyed := "stateless"
		if s.Keyed {
			keyed = "keyed"
		}
		to := ""
		if len(s.To) > 0 {
			to = " ─▶ " + strings.Join(s.To, ", ")
		}
		fmt.Fprintf(&b, "  %s (%s) %s%s\n", s.Name, keyed, s.Doc, to)
	}
	for _, t := range d.Tables {
		fmt.Fprintf(&b, "\ntable %s: %s\npartitioned by %s\n%s\n", t.Name, t.Doc, strings.Join(t.Partition, ", "), t.Schema)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
