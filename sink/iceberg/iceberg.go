// Package iceberg publishes a plan's rows to Iceberg tables of a lake, one per table of the plan.
//
// The one idea to hold: each table remembers by itself, in its newest snapshot, the lineage and epoch up to which it holds
// rows, and Publish leaves out what a table already has. So a batch may be published again, alone or in a larger one, after
// any crash, and a table that a batch has no rows for is not touched.
//
// As the only writer of its tables it also keeps them in shape: it sweeps what an earlier process left when it opens, and
// compacts a table after every 32 commits. It does not retract what another lineage has published, and refuses to publish beside it.
package iceberg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"millrace/lake"
	"millrace/plan"
	"millrace/sink"
)

// ErrLineage means that a table holds rows of another lineage of the instance.
var ErrLineage = errors.New("continue that lineage, or write to a new data version")

// compactEvery is how many commits of a table go between two looks at whether its files should be joined.
const compactEvery = 32

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
	tables  []*lake.Table // by index into Plan.Tables
	commits []int         // of each table since it was last compacted
	rows    *prometheus.CounterVec
	skipped prometheus.Counter
}

var _ sink.Sink = (*Sink)(nil)

// Open makes the plan's tables in the lake where they are missing, adds the nullable columns that are new, and removes files
// that an earlier process wrote and did not commit. It fails if a table has changed in any other way. No other process may
// write to the namespace.
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
	}
	for _, t := range cfg.Plan.Tables {
		table, err := cfg.Lake.Table(ctx, cfg.Namespace, t)
		if err != nil {
			return nil, err
		}
		if _, err := table.Sweep(ctx, 0); err != nil {
			return nil, err
		}
		s.tables = append(s.tables, table)
	}
	s.commits = make([]int, len(s.tables))
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(s.rows, s.skipped)
	}
	return s, nil
}

// Name returns iceberg.
func (s *Sink) Name() string { return "iceberg" }

// Gather returns Config.FlushBytes and Config.Flush.
func (s *Sink) Gather() (bytes int64, every time.Duration) { return s.cfg.FlushBytes, s.cfg.Flush }

// Publish commits the batch's rows to their tables, one snapshot for each table that has any. Rejected are rows with text
// that is not valid UTF-8, which Parquet cannot hold. After an error some tables may have their rows and others not;
// publishing again completes them. The error matches ErrLineage when a table holds rows of another lineage.
func (s *Sink) Publish(ctx context.Context, b sink.Batch) ([]sink.Rejected, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	byTable, err := s.byTable(b.Rows)
	if err != nil {
		return nil, err
	}
	var rejected []sink.Rejected
	for i, rows := range byTable {
		if len(rows) == 0 {
			continue
		}
		refused, err := s.publish(ctx, s.tables[i], rows, b)
		if err != nil {
			return nil, err
		}
		rejected = append(rejected, refused...)
		s.commits[i]++
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
		if s.commits[i] < compactEvery || ctx.Err() != nil {
			continue
		}
		s.commits[i] = 0
		if _, err := t.Compact(ctx); err != nil {
			s.cfg.Logger.Warn("table not compacted", "table", t.Name().String(), "error", err)
		}
	}
}

func (s *Sink) publish(ctx context.Context, t *lake.Table, rows []plan.Row, b sink.Batch) ([]sink.Rejected, error) {
	last, ok, err := t.Published(ctx)
	if err != nil {
		return nil, err
	}
	if ok && last.Lineage != b.Lineage {
		// Its rows would stand beside those of the same records that the other lineage published.
		return nil, fmt.Errorf("publish to table %s: it holds epochs up to %d of lineage %s and the job is of lineage %s: %w",
			t.Name(), last.ToEpoch, last.Lineage, b.Lineage, ErrLineage)
	}
	from := b.FromEpoch
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
	pending, err := t.Write(ctx, rows, b.Lineage, s.cfg.Plan.Version)
	if err != nil {
		return nil, err
	}
	pos := lake.Position{Lineage: b.Lineage, FromEpoch: from, ToEpoch: b.ToEpoch, Offsets: b.ToOffsets}
	if err := t.Commit(ctx, pending, pos); err != nil {
		return nil, err
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
