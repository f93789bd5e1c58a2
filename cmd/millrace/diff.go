package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"millrace"
	"millrace/control"
	"millrace/control/api"
	"millrace/delivery"
	"millrace/lake"
)

var errDiffer = errors.New("the data versions differ")

func diffCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Compare the tables of two data versions, row by row; exit 1 when they differ",
		Long: `Compare the tables of two data versions, row by row and value by value: read it before a version is promoted. A and B are data versions
such as 20180827174235, unversioned, or serving for the one of the app that readers see. Exit 1 when they differ.

Rows are the same ones that have the same id: the same event gives the same id in every version. _rev, _epoch, _lineage and
_app_version differ by nature and are not compared. A row with the same values that was made from other records, as _sources says, has other
evidence: that is counted apart, and the versions are not different for it.

Each table is read from one snapshot, whether or not a stack writes it. Rows are sorted in the system's temporary directory (TMPDIR), which
needs as much space as they have: memory does not grow with them.

--from and --to choose a range of event time, --to excluded: a day such as 2018-11-30, which is its first instant in UTC, or an instant such
as 2018-11-30T12:00:00Z. A row is compared if its time is in the range in either version.`,
		Args: exactArgs("two data versions; 'millrace app list' lists them", "a second data version"),
	}
	output := outputFlag(cmd, "text", "json")
	var ask api.DiffQuery
	f := cmd.Flags()
	f.StringArrayVar(&ask.Tables, "table", nil, "table to compare, may be repeated; all when left out")
	f.StringVar(&ask.Account, "account", "", "account; all when left out")
	f.StringVar(&ask.Env, "env", "", "env; all when left out")
	f.StringVar(&ask.From, "from", "", "day or instant of the first event time; from the beginning when left out")
	f.StringVar(&ask.To, "to", "", "day or instant that event times are before; to the end when left out")
	f.IntVar(&ask.Examples, "examples", 3, "examples of each table and kind of difference; each column is a kind")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		if args[0] == args[1] {
			return usagef("%s is compared with itself: name two data versions", args[0])
		}
		if ask.Examples < 0 {
			return usagef("--examples %d: want a number of rows, or 0 for none", ask.Examples)
		}
		if _, err := selection(ask.LakeQuery, "--from", "--to"); err != nil {
			return usageError{err}
		}
		ask.A, ask.B = args[0], args[1]
		var c *delivery.Comparison
		err = withRows(cmd, func(ctx context.Context, l *lake.Lake) (err error) {
			c, err = diffVersions(ctx, l, func(ctx context.Context, other string) (string, error) {
				dir, err := readDataDir(dataDirFlag(cmd))
				if err != nil {
					return "", err
				}
				return servingBeside(ctx, dir, other)
			}, 0, ask)
			return err
		}, func(ctx context.Context, from client) (err error) {
			c, err = from.compare(ctx, ask)
			return err
		})
		if err != nil {
			return err
		}
		if format == "json" {
			err = printJSON(cmd, c)
		} else {
			err = printComparison(cmd.OutOrStdout(), c)
		}
		if err == nil && !c.Same {
			err = fmt.Errorf("%s and %s: %w", c.A, c.B, errDiffer)
		}
		return err
	}
	return cmd
}

// compare asks for a comparison.
func (c client) compare(ctx context.Context, ask api.DiffQuery) (*delivery.Comparison, error) {
	query := url.Values{"a": {ask.A}, "b": {ask.B}, "table": ask.Tables, "examples": {strconv.Itoa(ask.Examples)}}
	for name, text := range map[string]string{"account": ask.Account, "env": ask.Env, "from": ask.From, "to": ask.To} {
		if text != "" {
			query.Set(name, text)
		}
	}
	var text json.RawMessage
	if err := c.do(ctx, http.MethodGet, api.DiffPath+"?"+query.Encode(), nil, &text); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // values are shown as they are
	var out delivery.Comparison
	if err := d.Decode(&out); err != nil {
		return nil, c.away(fmt.Errorf("read the answer to %s: %w", api.DiffPath, err))
	}
	return &out, nil
}

// servingBeside is the data version that serves of the app that has another one: no two apps have one of the same name.
func servingBeside(ctx context.Context, dir *dataDir, other string) (string, error) {
	all, err := control.ReadVersions(ctx, dir.join("keys.db"))
	if err != nil {
		return "", err
	}
	of := etlLine
	for _, v := range all {
		if v.DataVersion == other && other != millrace.Unversioned {
			of = v.Line
		}
	}
	return servingVersion(ctx, dir, of)
}

// shownDays is how many days of a table are printed: those with the most differences.
const shownDays = 10

// printComparison prints a comparison for people.
func printComparison(out io.Writer, c *delivery.Comparison) error {
	var b strings.Builder
	fmt.Fprintf(&b, "A is %s, B is %s\n\n", c.A, c.B)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TABLE\tROWS IN A\tROWS IN B\tSAME\tOTHER EVIDENCE\tDIFFER\tONLY IN A\tONLY IN B\tSNAPSHOT OF A\tSNAPSHOT OF B")
	for _, t := range c.Tables {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", t.Table, countsText(t.RowCounts), cmp.Or(t.SnapshotA, "none"), cmp.Or(t.SnapshotB, "none"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for i := range c.Tables {
		if err := printTableComparison(&b, c, &c.Tables[i]); err != nil {
			return err
		}
	}
	fmt.Fprintf(&b, "\n%s\n", c.Verdict)
	_, err := io.WriteString(out, b.String())
	return err
}

func countsText(r delivery.RowCounts) string {
	return fmt.Sprintf("%d\t%d\t%d\t%d\t%d\t%d\t%d", r.RowsA, r.RowsB, r.Same, r.OtherEvidence, r.Differ, r.OnlyA, r.OnlyB)
}

// printTableComparison prints what is not the same in a table; nothing when all is.
func printTableComparison(b *strings.Builder, c *delivery.Comparison, t *delivery.TableComparison) error {
	if t.Same && t.OtherEvidence == 0 {
		return nil
	}
	fmt.Fprintf(b, "\n%s\n", t.Table)
	if t.OnlyIn != "" {
		fmt.Fprintf(b, "  the table is only in %s; its rows: %d\n", t.OnlyIn, t.OnlyA+t.OnlyB)
	}
	for _, column := range t.Columns {
		switch {
		case column.TypeA == "":
			fmt.Fprintf(b, "  column %s is only in %s, and not compared\n", column.Column, c.B)
		case column.TypeB == "":
			fmt.Fprintf(b, "  column %s is only in %s, and not compared\n", column.Column, c.A)
		case column.TypeA != column.TypeB:
			fmt.Fprintf(b, "  column %s is %s in A and %s in B, and differs in %d of %d rows\n", column.Column, column.TypeA, column.TypeB, column.Differ, t.RowsA-t.OnlyA)
		default:
			fmt.Fprintf(b, "  column %s differs in %d of %d rows\n", column.Column, column.Differ, t.RowsA-t.OnlyA)
		}
	}
	if len(t.Days) > 0 {
		b.WriteByte('\n')
	}
	w := tabwriter.NewWriter(b, 2, 0, 2, ' ', 0)
	if len(t.Days) > 0 {
		fmt.Fprintln(w, "  DAY\tROWS IN A\tROWS IN B\tSAME\tOTHER EVIDENCE\tDIFFER\tONLY IN A\tONLY IN B\tMOVED AWAY\tMOVED HERE")
	}
	days, more := worstDays(t.Days)
	for _, d := range days {
		fmt.Fprintf(w, "  %s\t%s\t%d\t%d\n", d.Day, countsText(d.RowCounts), d.MovedAway, d.MovedHere)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if more > 0 {
		fmt.Fprintf(b, "  and %d more, none with more differences than these; -o json has all\n", more)
	}
	for _, e := range t.Examples {
		printExample(b, e)
	}
	return nil
}

// worstDays are the days with the most differences, in order of time, and how many are left out.
func worstDays(days []delivery.DayComparison) (worst []delivery.DayComparison, more int) {
	if len(days) <= shownDays {
		return days, 0
	}
	differences := func(d delivery.DayComparison) int64 { return d.Differ + d.OnlyA + d.OnlyB }
	worst = slices.Clone(days)
	slices.SortStableFunc(worst, func(a, b delivery.DayComparison) int {
		return cmp.Or(cmp.Compare(differences(b), differences(a)), cmp.Compare(b.OtherEvidence+b.MovedHere, a.OtherEvidence+a.MovedHere))
	})
	worst = worst[:shownDays]
	slices.SortFunc(worst, func(a, b delivery.DayComparison) int { return slices.Index(days, a) - slices.Index(days, b) })
	return worst, len(days) - shownDays
}

var exampleKinds = map[string]string{
	delivery.Differs: "differs", delivery.OnlyInA: "only in A", delivery.OnlyInB: "only in B", delivery.OtherEvidence: "other evidence",
}

func printExample(b *strings.Builder, e delivery.Example) {
	day := cmp.Or(e.DayA, e.DayB)
	if e.DayA != "" && e.DayB != "" && e.DayA != e.DayB {
		day = e.DayA + " → " + e.DayB
	}
	fmt.Fprintf(b, "\n  %s: %s  %s  %s:%s\n", exampleKinds[e.Kind], e.ID, day, e.Account, e.Env)
	for _, v := range e.Values {
		switch e.Kind {
		case delivery.OnlyInA:
			fmt.Fprintf(b, "    %s: %s\n", v.Column, cut(valueText(v.A), 0))
		case delivery.OnlyInB:
			fmt.Fprintf(b, "    %s: %s\n", v.Column, cut(valueText(v.B), 0))
		default:
			x, y := valueText(v.A), valueText(v.B)
			from := firstDifference(x, y)
			fmt.Fprintf(b, "    %s: %s → %s\n", v.Column, cut(x, from), cut(y, from))
		}
	}
	for _, of := range []struct {
		name    string
		sources []string
	}{{"A", e.SourcesA}, {"B", e.SourcesB}} {
		for _, s := range of.sources {
			fmt.Fprintf(b, "    %s from %s\n", of.name, unprintable.Replace(s))
		}
	}
}

// valueText is a value as JSON: so text is in quotes, and has nothing that a terminal would act on.
func valueText(v any) string {
	text, err := marshal(v)
	if err != nil {
		panic(err) // delivery gives what JSON can have
	}
	return string(text)
}

// firstDifference is how many characters two texts have in common at their beginning.
func firstDifference(x, y string) int {
	n := 0
	for x != "" && y != "" {
		r, size := utf8.DecodeRuneInString(x)
		if other, _ := utf8.DecodeRuneInString(y); other != r {
			break
		}
		x, y, n = x[size:], y[size:], n+1
	}
	return n
}

// cut shortens a text around the place that matters.
func cut(text string, from int) string {
	const width, before = 100, 20
	runes := []rune(text)
	if len(runes) <= width {
		return text
	}
	begin := min(max(from-before, 0), len(runes)-width)
	out := string(runes[begin:min(begin+width, len(runes))])
	if begin > 0 {
		out = "…" + out
	}
	if begin+width < len(runes) {
		out += "…"
	}
	return out
}
