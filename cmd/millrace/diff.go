package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"millrace"
	"millrace/control"
	"millrace/delivery/whatif"
	"millrace/lake"
)

// shownDays is how many days of a table are printed; -o json has all.
const shownDays = 10

func diffCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Compare the tables of two data versions, row by row",
		Long: `Compare the tables of two data versions, row by row: before one of them is promoted. A and B are data versions such as 20180827174235, unversioned, or
serving for the one that readers see. Rows are joined by their ids, which the same records have in every version.

For each table it prints how many rows are the same, only in one, or differ, in which columns and on which days, with examples and the records that they were made
from. Of rows that are the same with other evidence there is a count of their own. _rev, _epoch, _lineage and _app_version are not compared: they differ by
nature. Memory is bounded; what does not fit is sorted on the disk of the data directory.

It reads one snapshot of each table, up to three times. Of a lake that is written meanwhile the files of a snapshot are kept for ten minutes: a comparison that takes longer
says that it cannot go on, and is for a stopped data directory.`,
		Args: exactArgs("two data versions; 'millrace app list' lists them", "a second data version"),
	}
	output := outputFlag(cmd, "text", "json")
	tables := cmd.Flags().StringSlice("table", nil, "compare this table; may be repeated; all when left out")
	examples := cmd.Flags().Int("examples", 3, "rows to show of each table and kind of difference")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		if *examples < 1 {
			return usagef("--examples %d: want 1 or more", *examples)
		}
		dir, err := readDataDir(dataDirFlag(cmd))
		if err != nil {
			return err
		}
		cfg := whatif.Config{Tables: *tables, Examples: *examples}
		for i, side := range []*string{&cfg.A, &cfg.B} {
			if *side, err = namespaceOf(cmd.Context(), dir, args[i]); err != nil {
				return err
			}
		}
		return withLake(cmd, func(ctx context.Context, l *lake.Lake) error {
			cfg.Lake = l
			d, err := whatif.Compare(ctx, cfg)
			if err != nil {
				return err
			}
			if format == "json" {
				return printJSON(cmd, d)
			}
			return printDiff(cmd.OutOrStdout(), d)
		})
	}
	return cmd
}

// namespaceOf is the namespace of a data version in the lake.
func namespaceOf(ctx context.Context, dir *dataDir, version string) (string, error) {
	if version == "serving" {
		return servingNamespace(ctx, dir)
	}
	if err := control.CheckDataVersion(version); err != nil {
		return "", usageError{fmt.Errorf("%w, or serving", err)}
	}
	return millrace.Instance{DataVersion: version}.Namespace(), nil
}

func printDiff(out io.Writer, d *whatif.Diff) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "A is %s, B is %s\n\n", d.A, d.B)
	fmt.Fprintln(w, "TABLE\tROWS A\tROWS B\tSAME\tONLY A\tONLY B\tDIFFER\tOTHER EVIDENCE")
	for _, t := range d.Tables {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\n", t.Name, rowsText(t.A), rowsText(t.B), t.Same, t.OnlyA, t.OnlyB, t.Differ, t.OtherEvidence)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	var b strings.Builder
	for _, t := range d.Tables {
		describeTable(&b, t)
	}
	fmt.Fprintf(&b, "\n%s\n", verdict(d))
	_, err := io.WriteString(out, b.String())
	return err
}

func rowsText(s whatif.Side) string {
	if s.Missing {
		return "no table"
	}
	return fmt.Sprint(s.Rows)
}

// describeTable says of a table what a line of the overview does not.
func describeTable(b *strings.Builder, t whatif.Table) {
	for _, c := range []struct {
		what  string
		names []string
	}{{"columns only in A", t.ColumnsOnlyA}, {"columns only in B", t.ColumnsOnlyB}, {"columns of another type", t.OtherType}} {
		if len(c.names) > 0 {
			fmt.Fprintf(b, "\n%s: %s: %s\n", t.Name, c.what, strings.Join(c.names, ", "))
		}
	}
	if len(t.Columns) > 0 {
		fmt.Fprintf(b, "\n%s: rows that differ, by column\n", t.Name)
		for _, c := range t.Columns {
			fmt.Fprintf(b, "  %-20s %d\n", c.Column, c.Rows)
		}
	}
	if len(t.Days) > 0 {
		days := slices.Clone(t.Days)
		slices.SortStableFunc(days, func(x, y whatif.Day) int { return cmp.Compare(sum(y), sum(x)) })
		fmt.Fprintf(b, "\n%s: days that differ most\n", t.Name)
		for _, day := range days[:min(len(days), shownDays)] {
			fmt.Fprintf(b, "  %s  only A %d, only B %d, differ %d\n", day.Day, day.OnlyA, day.OnlyB, day.Differ)
		}
		if more := len(days) - shownDays; more > 0 {
			fmt.Fprintf(b, "  and %d more days; -o json has all\n", more)
		}
	}
	for _, e := range t.Examples {
		fmt.Fprintf(b, "\n%s: row %s of %s, %s\n", t.Name, e.ID, e.Day, map[string]string{whatif.OnlyA: "only in A", whatif.OnlyB: "only in B", whatif.Differ: "differs"}[e.Kind])
		for _, c := range e.Columns {
			switch e.Kind {
			case whatif.OnlyA:
				fmt.Fprintf(b, "  %-20s %s\n", c.Column, valueText(c.A))
			case whatif.OnlyB:
				fmt.Fprintf(b, "  %-20s %s\n", c.Column, valueText(c.B))
			case whatif.Differ:
				fmt.Fprintf(b, "  %-20s %s → %s\n", c.Column, valueText(c.A), valueText(c.B))
			}
		}
		for _, side := range []struct {
			name    string
			records []string
		}{{"A", e.Evidence.A}, {"B", e.Evidence.B}} {
			if len(side.records) > 0 {
				fmt.Fprintf(b, "  made in %s from %s\n", side.name, strings.Join(side.records, "; "))
			}
		}
	}
}

func sum(d whatif.Day) int64 { return d.OnlyA + d.OnlyB + d.Differ }

func valueText(v any) string {
	if v == nil {
		return "null"
	}
	if b, ok := v.([]byte); ok {
		return fmt.Sprintf("%q", b)
	}
	b, err := marshal(v)
	if err != nil {
		return fmt.Sprint(v) // a number that JSON has not
	}
	return string(b)
}

// verdict is the comparison in a sentence.
func verdict(d *whatif.Diff) string {
	if d.Same {
		return fmt.Sprintf("the %d tables of A and B have the same rows", len(d.Tables))
	}
	var parts []string
	same := 0
	for _, t := range d.Tables {
		switch {
		case !t.Differs():
			same++
		case t.A.Missing:
			parts = append(parts, fmt.Sprintf("%s is only in B", t.Name))
		case t.B.Missing:
			parts = append(parts, fmt.Sprintf("%s is only in A", t.Name))
		default:
			text := fmt.Sprintf("%s: of %d rows in A and %d in B, %d differ", t.Name, t.A.Rows, t.B.Rows, t.Differ)
			if len(t.Columns) > 0 {
				text += " (most in " + t.Columns[0].Column + ")"
			}
			parts = append(parts, text+fmt.Sprintf(", %d are only in A, %d only in B", t.OnlyA, t.OnlyB))
		}
	}
	return fmt.Sprintf("%d of %d tables have the same rows; %s", same, len(d.Tables), strings.Join(parts, "; "))
}
