package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"millrace/ingest"
	"millrace/lake"
	"millrace/record"
	"millrace/web"
)

func lakeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "lake", Short: "The raw lake", Args: unknownCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(lakeStatsCommand())
	return cmd
}

func lakeStatsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Print how many records the raw lake holds, by source type, account, env, month and kind",
		Long: `Print how many records the raw lake holds, by source type, account, env, month of event time (UTC) and kind, with the bytes of their
files and their first and last event time. No data file is opened, so it takes a moment whatever the lake holds.

--from and --to choose a range of event time, --to excluded: a day such as 2018-11-30, which is its first instant in UTC, or an instant such
as 2018-11-30T12:00:00Z. A file holds records of one day, so days count exactly. A range that begins or ends within the time of a
file cuts it: then the count is an estimate, marked with ~, and has bounds.`,
		Args: exactArgs(),
	}
	output := outputFlag(cmd, "table", "json")
	var q web.LakeQuery
	f := cmd.Flags()
	f.StringVar(&q.SourceType, "source-type", "", "source type; all when left out")
	f.StringVar(&q.Account, "account", "", "account; all when left out")
	f.StringVar(&q.Env, "env", "", "env; all when left out")
	f.StringVar(&q.From, "from", "", "day or instant of the first event time; from the beginning when left out")
	f.StringVar(&q.To, "to", "", "day or instant that event times are before; to the end when left out")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		sel, err := selection(q, "--from", "--to")
		if err != nil {
			return usageError{err}
		}
		return withLake(cmd, func(ctx context.Context, l *lake.Lake) error {
			stats, err := lakeStats(ctx, l, sel)
			if err != nil {
				return err
			}
			if format == "json" {
				return printJSON(cmd, stats)
			}
			if stats.Total.Most == 0 {
				return noRecords(ctx, cmd.OutOrStdout(), l, sel)
			}
			return printLakeStats(cmd.OutOrStdout(), stats)
		})
	}
	return cmd
}

// lakeStats answers the console what the raw lake holds, of an account or of all.
func (s *stack) lakeStats(ctx context.Context, account string, q web.LakeQuery) (web.LakeStats, error) {
	sel, err := selection(q, "from", "to")
	if err != nil {
		return web.LakeStats{}, fmt.Errorf("%w: %w", web.ErrInvalid, err)
	}
	if account != "" {
		stats, err := lakeStatsOf(ctx, s.lake, account, sel)
		return stats, s.errOfAccount(account, err)
	}
	stats, err := lakeStats(ctx, s.lake, sel)
	var unknown *lake.UnknownError
	if errors.As(err, &unknown) {
		err = fmt.Errorf("%w: %w", web.ErrNotFound, err)
	}
	return stats, err
}

// lakeStatsOf are those of an account, for who is bound to it. There is no other one for them, and what it has not is not there, whoever else has it.
func lakeStatsOf(ctx context.Context, l *lake.Lake, account string, sel lake.Selection) (web.LakeStats, error) {
	named := sel
	if sel.Account = account; named.Account == "" || named.Account == account {
		stats, err := lakeStats(ctx, l, sel)
		var unknown *lake.UnknownError
		if !errors.As(err, &unknown) {
			return stats, err
		}
		if named == (lake.Selection{From: sel.From, To: sel.To}) { // it has sent nothing yet
			return web.LakeStats{From: sel.From.UTC(), To: sel.To.UTC(), Total: web.LakeAmount{Exact: true}}, nil
		}
	}
	return web.LakeStats{}, fmt.Errorf("%w: account %s has no records of that source type, account and env in the lake", web.ErrNotFound, account)
}

// selection reads a query. The names of from and to are for messages.
func selection(q web.LakeQuery, from, to string) (lake.Selection, error) {
	sel := lake.Selection{SourceType: q.SourceType, Account: q.Account, Env: q.Env}
	for _, bound := range []struct {
		name, text string
		at         *time.Time
	}{{from, q.From, &sel.From}, {to, q.To, &sel.To}} {
		if bound.text == "" {
			continue
		}
		var err error
		if *bound.at, err = time.Parse(time.DateOnly, bound.text); err != nil {
			*bound.at, err = time.Parse(time.RFC3339, bound.text)
		}
		if err != nil {
			return sel, fmt.Errorf("%s %q is no day or instant: want one such as 2018-11-30 or 2018-11-30T12:00:00Z", bound.name, bound.text)
		}
	}
	return sel, sel.Check()
}

func lakeStats(ctx context.Context, l *lake.Lake, sel lake.Selection) (web.LakeStats, error) {
	all, err := l.Contents(ctx, ingest.Namespace, sel)
	if err != nil {
		return web.LakeStats{}, err
	}
	stats := web.LakeStats{From: sel.From.UTC(), To: sel.To.UTC(), Snapshots: map[string]string{}, Total: web.LakeAmount{Exact: true}, Shares: []web.LakeShare{}}
	for _, c := range all {
		if c.Snapshot != 0 {
			stats.Snapshots[c.Table.Table] = strconv.FormatInt(c.Snapshot, 10)
		}
		kind := record.Event + record.Kind(slices.Index(rawTables, c.Table.Table)) //nolint:gosec // the raw tables are these
		for _, s := range c.Shares {
			share := web.LakeShare{SourceType: s.SourceType, Account: s.Account, Env: s.Env, Month: s.Month.Format("2006-01"), Kind: kind.String(), LakeAmount: web.LakeAmount{
				Records: s.Records.Estimate, Exact: s.Records.Exact(), Least: s.Records.Least, Most: s.Records.Most,
				Bytes: s.Bytes, Files: s.Files, Oldest: s.Oldest, Newest: s.Newest,
			}}
			stats.Shares = append(stats.Shares, share)
			add(&stats.Total, share.LakeAmount)
		}
	}
	slices.SortStableFunc(stats.Shares, func(a, b web.LakeShare) int { // within a month the kinds stay in the order of their tables
		return cmp.Or(cmp.Compare(a.SourceType, b.SourceType), cmp.Compare(a.Account, b.Account), cmp.Compare(a.Env, b.Env), cmp.Compare(a.Month, b.Month))
	})
	return stats, nil
}

func add(to *web.LakeAmount, a web.LakeAmount) {
	if to.Files == 0 || a.Oldest.Before(to.Oldest) {
		to.Oldest = a.Oldest
	}
	if a.Newest.After(to.Newest) {
		to.Newest = a.Newest
	}
	to.Records += a.Records
	to.Least += a.Least
	to.Most += a.Most
	to.Exact = to.Exact && a.Exact
	to.Bytes += a.Bytes
	to.Files += a.Files
}

// noRecords says that there are none of a selection, and what there is.
func noRecords(ctx context.Context, out io.Writer, l *lake.Lake, sel lake.Selection) error {
	sel.From, sel.To = time.Time{}, time.Time{}
	stats, err := lakeStats(ctx, l, sel)
	if err != nil {
		return err
	}
	if stats.Total.Most == 0 {
		_, err = fmt.Fprintln(out, "the raw lake has no records yet")
		return err
	}
	_, err = fmt.Fprintf(out, "no records of that time; there are %d, from %s to %s\n", stats.Total.Records, instant(stats.Total.Oldest), instant(stats.Total.Newest))
	return err
}

func printLakeStats(out io.Writer, stats web.LakeStats) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SOURCE TYPE\tACCOUNT\tENV\tMONTH\tKIND\tRECORDS\tBOUNDS\tBYTES\tFILES\tOLDEST\tNEWEST")
	line := func(name []string, a web.LakeAmount) {
		records, bounds := strconv.FormatInt(a.Records, 10), "exact"
		if !a.Exact {
			records, bounds = "~"+records, fmt.Sprintf("%d to %d", a.Least, a.Most)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%s\n", strings.Join(name, "\t"), records, bounds, a.Bytes, a.Files, instant(a.Oldest), instant(a.Newest))
	}
	for _, s := range stats.Shares {
		line([]string{s.SourceType, s.Account, s.Env, s.Month, s.Kind}, s.LakeAmount)
	}
	line([]string{"total", "", "", "", ""}, stats.Total)
	if err := w.Flush(); err != nil {
		return err
	}
	if !stats.Total.Exact {
		_, err := fmt.Fprintln(out, "\n~ is an estimate: the range cuts files, and what of their records is in it is known within the bounds only.")
		return err
	}
	return nil
}

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
