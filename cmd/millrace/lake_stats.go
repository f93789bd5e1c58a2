package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"millrace/control/api"
	"millrace/ingest"
	"millrace/lake"
	"millrace/record"
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
	var q api.LakeQuery
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
		if _, err := selection(q, "--from", "--to"); err != nil {
			return usageError{err}
		}
		return withLakeStats(cmd, func(ask lakeAsker) error {
			stats, err := ask(cmd.Context(), q)
			if err != nil {
				return err
			}
			if format == "json" {
				return printJSON(cmd, stats)
			}
			if stats.Total.Most == 0 {
				q.From, q.To = "", ""
				if stats, err = ask(cmd.Context(), q); err != nil {
					return err
				}
				return printNoRecords(cmd.OutOrStdout(), stats)
			}
			return printLakeStats(cmd.OutOrStdout(), stats)
		})
	}
	return cmd
}

// lakeAsker answers what the raw lake holds.
type lakeAsker func(ctx context.Context, q api.LakeQuery) (api.LakeStats, error)

// withLakeStats gives fn the raw lake of what is asked: that of the data directory is read also when nothing uses it.
func withLakeStats(cmd *cobra.Command, fn func(lakeAsker) error) error {
	t, err := askedBy(cmd)
	if err != nil {
		return err
	}
	if !t.isRemote() {
		return withLake(cmd, func(_ context.Context, l *lake.Lake) error {
			return fn(func(ctx context.Context, q api.LakeQuery) (api.LakeStats, error) {
				sel, err := selection(q, "--from", "--to")
				if err != nil {
					return api.LakeStats{}, usageError{err}
				}
				stats, err := lakeStats(ctx, l, sel)
				if unknown := (*lake.UnknownError)(nil); errors.As(err, &unknown) {
					err = notFoundError{err}
				}
				return stats, err
			})
		})
	}
	c, err := remoteClient(t)
	if err != nil {
		return err
	}
	return fn(func(ctx context.Context, q api.LakeQuery) (stats api.LakeStats, err error) {
		query := url.Values{}
		for name, text := range map[string]string{"source_type": q.SourceType, "account": q.Account, "env": q.Env, "from": q.From, "to": q.To} {
			if text != "" {
				query.Set(name, text)
			}
		}
		err = c.do(ctx, http.MethodGet, api.LakeStatsPath+"?"+query.Encode(), nil, &stats)
		return stats, err
	})
}

// LakeStats implements api.Service.
func (s *stack) LakeStats(ctx context.Context, account string, q api.LakeQuery) (api.LakeStats, error) {
	sel, err := selection(q, "from", "to")
	if err != nil {
		return api.LakeStats{}, fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	if account != "" {
		stats, err := lakeStatsOf(ctx, s.lake, account, sel)
		if !errors.Is(err, api.ErrNotFound) {
			err = s.errOfAccount(account, err)
		}
		return stats, err
	}
	stats, err := lakeStats(ctx, s.lake, sel)
	if unknown := (*lake.UnknownError)(nil); errors.As(err, &unknown) {
		err = fmt.Errorf("%w: %w", api.ErrNotFound, err)
	}
	return stats, err
}

// lakeStatsOf are those of an account, for who is bound to it. There is no other one for them, and what it has not is not there, whoever else has it.
func lakeStatsOf(ctx context.Context, l *lake.Lake, account string, sel lake.Selection) (api.LakeStats, error) {
	named := sel
	if sel.Account = account; named.Account == "" || named.Account == account {
		stats, err := lakeStats(ctx, l, sel)
		var unknown *lake.UnknownError
		if !errors.As(err, &unknown) {
			return stats, err
		}
		if named == (lake.Selection{From: sel.From, To: sel.To}) { // it has sent nothing yet
			return api.LakeStats{From: sel.From.UTC(), To: sel.To.UTC(), Total: api.LakeAmount{Exact: true}}, nil
		}
	}
	return api.LakeStats{}, fmt.Errorf("%w: account %s has no records of that source type, account and env in the lake", api.ErrNotFound, account)
}

// selection reads a query. The names of from and to are for messages.
func selection(q api.LakeQuery, from, to string) (lake.Selection, error) {
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

func lakeStats(ctx context.Context, l *lake.Lake, sel lake.Selection) (api.LakeStats, error) {
	all, err := l.Contents(ctx, ingest.Namespace, sel)
	if err != nil {
		return api.LakeStats{}, err
	}
	stats := api.LakeStats{From: sel.From.UTC(), To: sel.To.UTC(), Snapshots: map[string]string{}, Total: api.LakeAmount{Exact: true}, Shares: []api.LakeShare{}}
	for _, c := range all {
		if c.Snapshot != 0 {
			stats.Snapshots[c.Table.Table] = strconv.FormatInt(c.Snapshot, 10)
		}
		kind := record.Event + record.Kind(slices.Index(rawTables, c.Table.Table)) //nolint:gosec // the raw tables are these
		for _, s := range c.Shares {
			share := api.LakeShare{SourceType: s.SourceType, Account: s.Account, Env: s.Env, Month: s.Month.Format("2006-01"), Kind: kind.String(), LakeAmount: api.LakeAmount{
				Records: s.Records.Estimate, Exact: s.Records.Exact(), Least: s.Records.Least, Most: s.Records.Most,
				Bytes: s.Bytes, Files: s.Files, Oldest: s.Oldest, Newest: s.Newest,
			}}
			stats.Shares = append(stats.Shares, share)
			add(&stats.Total, share.LakeAmount)
		}
	}
	slices.SortStableFunc(stats.Shares, func(a, b api.LakeShare) int { // within a month the kinds stay in the order of their tables
		return cmp.Or(cmp.Compare(a.SourceType, b.SourceType), cmp.Compare(a.Account, b.Account), cmp.Compare(a.Env, b.Env), cmp.Compare(a.Month, b.Month))
	})
	return stats, nil
}

func add(to *api.LakeAmount, a api.LakeAmount) {
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
	return printNoRecords(out, stats)
}

// printNoRecords says that there are none of a time, and what there is.
func printNoRecords(out io.Writer, ofAllTimes api.LakeStats) (err error) {
	total := ofAllTimes.Total
	if total.Most == 0 {
		_, err = fmt.Fprintln(out, "the raw lake has no records yet")
		return err
	}
	_, err = fmt.Fprintf(out, "no records of that time; there are %d, from %s to %s\n", total.Records, instant(total.Oldest), instant(total.Newest))
	return err
}

func printLakeStats(out io.Writer, stats api.LakeStats) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SOURCE TYPE\tACCOUNT\tENV\tMONTH\tKIND\tRECORDS\tBOUNDS\tBYTES\tFILES\tOLDEST\tNEWEST")
	line := func(name []string, a api.LakeAmount) {
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
