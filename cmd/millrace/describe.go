package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"millrace/apps/lms"
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
		Short: "Print an app's plan and the Avro schemas of its tables",
		Args:  exactArgs("the name of an app"),
	}
	output := outputFlag(cmd, "text", "json")
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
		if format == "json" {
			e := json.NewEncoder(cmd.OutOrStdout())
			e.SetIndent("", "  ")
			return e.Encode(p.Describe())
		}
		return describe(cmd.OutOrStdout(), p.Describe())
	}
	return cmd
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
