// Package iceberg publishes a plan's rows to Iceberg tables of a lake, one per table of the plan.
//
// The one idea to hold: each table remembers by itself, in its newest snapshot, the lineage and epoch up to which it holds
// rows, and Publish leaves out what a table already has. So a batch may be published again, alone or in a larger one, after
// any crash, and a table that a batch has no rows for is not touched.
//
// It is the archive of its job (sink.Archive): Begin claims each of the app's tables in the namespace and takes it back to its
// snapshot of the point where the lineage began, in one commit of the table. Snapshots for points to come are held by tags.
//
// As the only writer of its tables it also keeps them in shape: it sweeps what an earlier process left when a lineage begins,
// compacts a table after its first commit and every 32 further ones, and drops snapshots of tables that are not written any more.
package iceberg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"millrace/internal/retry"
	"millrace/lake"
	"millrace/plan"
	"millrace/sink"
)

// compactEvery is how many commits of a table go between two looks at whether its files should be joined.
const compactEvery = 32

// tendEvery is how often tables that are not written any more are looked at.
const tendEvery = lake.DefaultKeepFor

// Config says what is published where. Lake, Namespace and Plan are required.
type Config struct {
	Lake      *lake.Lake // not closed by the sink
	Namespace string     // of the tables: raw, v<dataVersion> or unversioned
	Plan      *plan.Plan // its tables, append-only ones included, are made or evolved when the sink opens

	Flush      time.Duration // how long rows should be gathered for one snapshot; default 60 s
	FlushBytes int64         // or how many bytes of them; default 128 MiB

	Logger     *slog.Logger          // default: discards
	Registerer prometheus.Registerer // default: no metrics
}

func (c Config) withDefaults() Config {
	if c.Flush <= 0 {
		c.Flush = time.Minute
	}
	if c.FlushBytes <= 0 {
		c.FlushBytes = 128 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Lake == nil:
		return errors.New("iceberg: Config.Lake is nil")
	case c.Plan == nil:
		return errors.New("iceberg: Config.Plan is nil")
	}
	return lake.ValidNamespace(c.Namespace)
}

// Sink implements sink.Sink.
//
// Of two revisions of a row the one that is published later wins: within a batch that is the higher one, across batches
// the sink relies on the runner publishing the revisions of an id in rising order.
type Sink struct {
	cfg     Config
	lineage sink.Lineage
	tables  []*lake.Table // by index into Plan.Tables
	others  []*lake.Table // of the app, that the plan does not have any more
	commits []int         // of each table until it is compacted again
	rows    *prometheus.CounterVec
	skipped prometheus.Counter
	retries prometheus.Counter
}

var (
	_ sink.Archive = (*Sink)(nil)
	_ sink.Tended  = (*Sink)(nil)
)

// Open makes the plan's tables in the lake where they are missing and adds the nullable columns that are new. It fails if a
// table has changed in any other way. Another process that writes to the tables is fenced off by Begin.
func Open(ctx context.Context, cfg Config) (*Sink, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Sink{
		cfg: cfg,
		rows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_iceberg_rows_total", Help: "Rows published, by table.",
		}, []string{"table"}),
		skipped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "millrace_iceberg_skipped_rows_total", Help: "Rows left out because an earlier try had published them.",
		}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "millrace_iceberg_retries_total", Help: "Steps of a publication that were repeated because the lake's server was not available.",
		}),
	}
	for _, t := range cfg.Plan.Tables {
		table, err := cfg.Lake.Table(ctx, cfg.Namespace, t)
		if err != nil {
			return nil, err
		}
		s.tables = append(s.tables, table)
	}
	s.commits = slices.Repeat([]int{1}, len(s.tables)) // processes that live for fewer commits must not put it off for ever
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(s.rows, s.skipped, s.retries)
	}
	return s, nil
}

// Name returns iceberg.
func (s *Sink) Name() string { return "iceberg" }

// Gather returns Config.FlushBytes and Config.Flush.
func (s *Sink) Gather() (bytes int64, every time.Duration) { return s.cfg.FlushBytes, s.cfg.Flush }

// Publish commits the batch's rows to their tables, one snapshot for each table that has any. Rejected are rows with text
// that is not valid UTF-8, which Parquet cannot hold. For a lake's server that is away it waits until ctx ends. After an error some tables may have their rows and others not;
// publishing again completes them.
func (s *Sink) Publish(ctx context.Context, b sink.Batch) ([]sink.Rejected, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if s.lineage.ID == "" {
		return nil, errors.New("iceberg: Publish before Begin")
	}
	byTable, err := s.byTable(b.Rows)
	if err != nil {
		return nil, err
	}
	var rejected []sink.Rejected
	last := len(byTable) - 1
	for last >= 0 && len(byTable[last]) == 0 {
		last--
	}
	for i, rows := range byTable {
		if len(rows) == 0 {
			continue
		}
		held := b.FromOffsets
		if i == last {
			held = b.ToOffsets
		}
		refused, err := s.publish(ctx, s.tables[i], rows, b, held)
		if err != nil {
			return nil, err
		}
		rejected = append(rejected, refused...)
		s.commits[i]--
	}
	s.compact(ctx)
	return rejected, nil
}

// byTable divides rows by their tables. A row is large, so rows of one table alone are left where they are.
func (s *Sink) byTable(rows []plan.Row) ([][]plan.Row, error) {
	counts := make([]int, len(s.tables))
	for i := range rows {
		r := &rows[i]
		if r.Table < 0 || r.Table >= len(s.tables) {
			return nil, fmt.Errorf("publish row %s: there is no table %d in the plan of %s", r.ID, r.Table, s.cfg.Plan.App)
		}
		counts[r.Table]++
	}
	out := make([][]plan.Row, len(s.tables))
	for i, n := range counts {
		if n == len(rows) {
			out[i] = rows
			return out, nil
		}
		if n > 0 {
			out[i] = make([]plan.Row, 0, n)
		}
	}
	for i := range rows {
		t := rows[i].Table
		out[t] = append(out[t], rows[i])
	}
	return out, nil
}

// compact joins the files of tables that had many commits. The rows are published whether it works or not, so its errors
// are logged, and the next try comes after as many commits again.
func (s *Sink) compact(ctx context.Context) {
	for i, t := range s.tables {
		if s.commits[i] > 0 || ctx.Err() != nil {
			continue
		}
		s.commits[i] = compactEvery
		if _, err := t.Compact(ctx); err != nil {
			s.cfg.Logger.Warn("table not compacted", "table", t.Name().String(), "error", err)
		}
	}
}

// Tend drops the snapshots that nobody needs of tables that are not written any more; commits do it for the others.
func (s *Sink) Tend(ctx context.Context) time.Duration {
	for _, t := range s.all() {
		if ctx.Err() != nil {
			break
		}
		if err := t.Expire(ctx); err != nil {
			s.cfg.Logger.Warn("snapshots not expired", "table", t.Name().String(), "error", err)
		}
	}
	return tendEvery
}

// await does one step of a publication, again while the lake's server is not available. The steps are those of the lake, each of which
// may be repeated whatever became of it.
func (s *Sink) await(ctx context.Context, t *lake.Table, step func(context.Context) error) error {
	policy := retry.Policy{Max: 5 * time.Second, OnRetry: func(attempt int, err error, wait time.Duration) {
		s.retries.Inc()
		s.cfg.Logger.Warn("retry", "table", t.Name().String(), "attempt", attempt, "wait", wait, "error", err)
	}}
	return retry.Do(ctx, policy, func(ctx context.Context) error {
		err := step(ctx)
		if !errors.Is(err, lake.ErrUnavailable) {
			return retry.Permanent(err)
		}
		return err
	})
}

// publish commits the rows of one table; held is how far all tables hold everything then.
func (s *Sink) publish(ctx context.Context, t *lake.Table, rows []plan.Row, b sink.Batch, held plan.Offsets) ([]sink.Rejected, error) {
	var last lake.Position
	var ok bool
	err := s.await(ctx, t, func(ctx context.Context) (err error) {
		last, ok, err = t.Published(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	if ok && !s.lineage.Holds(sink.Point{Lineage: last.Lineage, Epoch: last.ToEpoch}) {
		// Since Begin: only the writer of a later claim can have taken the table there.
		return nil, fmt.Errorf("publish to table %s: it holds epoch %d of lineage %s: %w", t.Name(), last.ToEpoch, last.Lineage, sink.ErrFenced)
	}
	from := b.FromEpoch // epochs of one history: those of an ancestor come before the lineage's own
	if ok && last.ToEpoch >= from {
		if last.ToEpoch >= b.ToEpoch {
			s.skipped.Add(float64(len(rows)))
			return nil, nil
		}
		from = last.ToEpoch + 1
		all := len(rows)
		kept := make([]plan.Row, 0, all)
		for _, r := range rows {
			if r.Epoch >= from {
				kept = append(kept, r)
			}
		}
		rows = kept
		s.skipped.Add(float64(all - len(rows)))
		if len(rows) == 0 {
			return nil, nil
		}
	}
	var pending *lake.Pending
	err = s.await(ctx, t, func(ctx context.Context) (err error) {
		pending, err = t.Write(ctx, rows, b.Lineage, s.cfg.Plan.Version)
		return err
	})
	if err != nil {
		return nil, err
	}
	pos := lake.Position{Lineage: b.Lineage, FromEpoch: from, ToEpoch: b.ToEpoch, Offsets: b.ToOffsets, Held: held}
	if err := s.await(ctx, t, func(ctx context.Context) error { return t.Commit(ctx, pending, pos) }); err != nil {
		return nil, fenced(err)
	}
	s.rows.WithLabelValues(t.Name().Table).Add(float64(pending.Rows))
	s.cfg.Logger.Debug("table committed", "table", t.Name().String(), "rows", pending.Rows, "bytes", pending.Bytes, "epoch", b.ToEpoch)
	rejected := make([]sink.Rejected, len(pending.Rejected))
	for i, r := range pending.Rejected {
		rejected[i] = sink.Rejected{Row: r.Row, Reason: r.Reason}
	}
	return rejected, nil
}

// Close does nothing: the lake stays open.
func (s *Sink) Close() error { return nil }
