package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"millrace/artifact"
	"millrace/control/api"
	"millrace/eventlog"
	"millrace/forget"
	"millrace/lake"
	"millrace/plan"
)

var errNotForgotten = errors.New("records of the person are left, or have come since: run it again, once the log has newer ones")

func forgetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "forget ID...",
		Short: "Remove all records of a person, for good, and certify it",
		Long: `Remove all records of a person, for good, and certify it. IDs are what records call the person: the id of the Person entity, and any other that
stands for the same one, such as a membership's. A record is the person's when one of its JSON strings is such an id, or one below it, such as
https://example.edu/users/554433/notes/1: their own events, their description, and events of others that name them. --dry-run shows where such records are.

The raw lake is written anew without the records, and its earlier snapshots go. The log gives up everything until then, which the lake holds. From the
lake a new data version is made, which serves in place of the old one; the old one is deleted with its state, checkpoints, savepoints, tables,
indices and topics, as are checkpoints and savepoints of the job that fills the raw lake. Rows of others are made as if the records had never come.

It runs on a data directory that no process uses, with the flags that 'serve' was given, and serves while it works: sensors and readers go on. It needs
--yes and --reason, time to read the lake, and room for another data version. Interrupted, it is given once more. What comes later of the person is
kept again.

It does not reach backups, nor what others have copied: readers of the tables' topics, files that were exported.`,
	}
	cfg := stackFlags(cmd)
	output := outputFlag(cmd, "text", "json")
	f := cmd.Flags()
	dryRun := f.Bool("dry-run", false, "show where records of the person are, and change nothing")
	yes := f.Bool("yes", false, "it is meant: what is removed cannot be had back")
	reason := reasonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		people, err := forget.New(ids...)
		if err != nil {
			return usageError{err}
		}
		dir, err := readDataDir(dataDirFlag(cmd))
		if err != nil {
			return err
		}
		r, inUse := dir.running()
		c := certificate{IDs: ids, DryRun: *dryRun, Who: whoAmI(), Reason: *reason, Began: time.Now().UTC(), Limits: forgetLimits}
		switch {
		case *dryRun && inUse:
			err = withLake(cmd, func(ctx context.Context, l *lake.Lake) error { return c.lookRunning(ctx, r, l, people) })
		case *dryRun:
			err = withStack(cmd, *cfg, slog.LevelWarn, func(ctx context.Context, s *stack) error {
				return c.look(ctx, s.log, s.lake, people, false)
			})
		case !*yes || strings.TrimSpace(*reason) == "":
			return usagef("this removes records for good: look with --dry-run, and give --yes and --reason if it is meant")
		case inUse:
			return fmt.Errorf("process %d uses data directory %s: stop it first; this serves in its place while it works", r.PID, dir.path)
		default:
			cfg.flush = min(cfg.flush, forgetFlush)
			err = withStack(cmd, *cfg, slog.LevelWarn, func(ctx context.Context, s *stack) error {
				return s.forget(ctx, people, &c, newProgressLine(cmd.ErrOrStderr()))
			})
		}
		if err != nil {
			return err
		}
		if c.Ended = time.Now().UTC(); format == "json" {
			err = printJSON(cmd, c)
		} else {
			err = c.print(cmd.OutOrStdout())
		}
		if err == nil && !c.DryRun && c.left() > 0 {
			err = errNotForgotten
		}
		return err
	}
	return cmd
}

// forgetFlush is how long rows gather for the lake while a person is forgotten.
const forgetFlush = 5 * time.Second

// forgetLimits are what a certificate does not cover.
var forgetLimits = []string{
	"texts that mention the person in between",
	"backups, and copies that others have made: readers of table topics, exported files",
	"what Kafka and Elasticsearch clusters, and versions of objects in S3, keep of deleted data: they remove it by themselves, or as they are configured",
}

// certificate says what was removed of a person, or for a dry run what would be.
type certificate struct {
	IDs      []string          `json:"ids"`
	DryRun   bool              `json:"dry_run,omitempty"`
	Who      string            `json:"who"`
	Reason   string            `json:"reason,omitempty"`
	Began    time.Time         `json:"began"`
	Ended    time.Time         `json:"ended"`
	Places   []forgetPlace     `json:"places"`
	Erased   int64             `json:"erased,omitempty"`   // records of the raw lake
	Replaced []replacedVersion `json:"replaced,omitempty"` // data versions that are gone
	LogFrom  plan.Offsets      `json:"log_from,omitempty"` // of each partition, the first offset that the log still has
	Limits   []string          `json:"limits,omitempty"`   // what this does not cover
	Rebuilds []string          `json:"rebuilds,omitempty"` // of a dry run: what is made anew whatever it holds
}

// replacedVersion is a data version that is gone, and the one that was made without the records.
type replacedVersion struct {
	App         string `json:"app"`
	DataVersion string `json:"data_version"`
	By          string `json:"by"`
}

// forgetPlace is somewhere that records are.
type forgetPlace struct {
	Place   string `json:"place"`
	Records int64  `json:"records"` // of the person, before
	Left    int64  `json:"left"`    // afterwards
}

func (c *certificate) ask() api.Ask { return api.Ask{Who: c.Who, Reason: c.Reason} }

func (c *certificate) left() (n int64) {
	for _, p := range c.Places {
		n += p.Left
	}
	return n
}

// lookRunning looks while a process uses the data directory.
func (c *certificate) lookRunning(ctx context.Context, r running, l *lake.Lake, people *forget.People) (err error) {
	log, err := eventlog.Open(ctx, eventlog.Config{Brokers: []string{r.Log}, Security: artifact.WithPassword(r.Security)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	return c.look(ctx, log, l, people, false)
}

// look counts the people's records in log and lake, the second time those that are left.
func (c *certificate) look(ctx context.Context, log *eventlog.Log, l *lake.Lake, people *forget.People, again bool) error {
	at := map[string]int{}
	for i, p := range c.Places {
		at[p.Place] = i
	}
	note := func(place string, n int64) {
		i, ok := at[place]
		if !ok {
			i, at[place] = len(c.Places), len(c.Places)
			c.Places = append(c.Places, forgetPlace{Place: place})
		}
		if again {
			c.Places[i].Left = n
		} else {
			c.Places[i].Records = n
		}
	}
	n, err := countLog(ctx, log, people)
	if err != nil {
		return err
	}
	note("log "+log.Topic(), n)
	names, err := l.Tables(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		n, err := countTable(ctx, l, name, people)
		if err != nil {
			return err
		}
		note("lake "+name.String(), n)
	}
	return nil
}

// countLog reads the log from its beginning to its end.
func countLog(ctx context.Context, log *eventlog.Log, people *forget.People) (n int64, err error) {
	ends, err := log.Ends(ctx)
	if err != nil {
		return 0, err
	}
	next, err := log.Starts(ctx)
	if err != nil {
		return 0, err
	}
	r, err := log.Read(ctx, next)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for before(next, ends) {
		items, err := r.Poll(ctx, 10_000, 16<<20)
		if err != nil {
			return 0, err
		}
		for _, it := range items {
			next[it.Position.Partition] = it.Position.Offset + 1
			if people.InRecord(it.Bytes) {
				n++
			}
		}
	}
	return n, nil
}

// before reports whether a partition is not read to its end.
func before(next, ends plan.Offsets) bool {
	for p, end := range ends {
		if next[p] < end {
			return true
		}
	}
	return false
}

func countTable(ctx context.Context, l *lake.Lake, name lake.Name, people *forget.People) (n int64, err error) {
	t, err := l.Lookup(ctx, name)
	if err != nil {
		return 0, err
	}
	columns := t.Columns()
	in, cells := people.InRow(columns), make([]plan.Cell, len(columns))
	for row, err := range t.Scan(ctx, lake.ScanOptions{}) {
		if err != nil {
			return 0, err
		}
		for i, c := range columns {
			if cells[i], err = lake.Cell(row[c.Name]); err != nil {
				return 0, err
			}
		}
		if in(cells) {
			n++
		}
	}
	return n, nil
}

func (c *certificate) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if c.DryRun {
		fmt.Fprintln(t, "PLACE\tRECORDS")
		for _, p := range c.Places {
			fmt.Fprintf(t, "%s\t%d\n", p.Place, p.Records)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		_, err := fmt.Fprintln(w, "The index has the rows of the serving version's tables. State, checkpoints and savepoints are not listed by person: they are made anew, or removed.")
		return err
	}
	fmt.Fprintf(w, "Records of %s were removed by %s, %s to %s: %s\n", strings.Join(c.IDs, ", "), c.Who, c.Began.Format(time.RFC3339), c.Ended.Format(time.RFC3339), c.Reason)
	fmt.Fprintln(t, "PLACE\tBEFORE\tLEFT")
	for _, p := range c.Places {
		fmt.Fprintf(t, "%s\t%d\t%d\n", p.Place, p.Records, p.Left)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "Erased from the raw lake: %d.\n", c.Erased)
	for _, r := range c.Replaced {
		fmt.Fprintf(w, "Data version %s of %s, its state, checkpoints, savepoints, tables, indices and topics are deleted; %s was made without the records and takes its place.\n", r.DataVersion, r.App, r.By)
	}
	fmt.Fprintln(w, "Not covered:")
	for _, l := range c.Limits {
		fmt.Fprintf(w, "- %s\n", l)
	}
	return nil
}
