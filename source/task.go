package source

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace/ingest"
	"millrace/lake"
	"millrace/plan"
	"millrace/record"
)

// The raw tables in the order in which they are read.
var (
	first = []string{"entities"}
	then  = []string{"events", "rejects"} // also while entities are read, unless the range says otherwise
)

// task is one file of a pinned snapshot.
type task struct {
	table *lake.Table
	name  string // the table's
	file  lake.File
}

// tasks are the files that a seeding reads, in its order: a function of what is committed with it.
func (s *Source) tasks(ctx context.Context, seeding *plan.Seeding) ([]task, error) {
	tables, err := s.tables(ctx)
	if err != nil {
		return nil, err
	}
	var out []task
	for _, name := range append(append([]string{}, first...), then...) {
		snapshot := seeding.Snapshots[name]
		if snapshot == 0 {
			continue // it had no rows
		}
		t := tables[name]
		if t == nil {
			return nil, fmt.Errorf("table %s.%s, which the job is seeded from, is gone: restore the lake from a backup", s.cfg.Namespace, name)
		}
		var files []lake.File
		err := s.patiently(ctx, func(ctx context.Context) (err error) {
			files, err = t.SnapshotFiles(ctx, snapshot, fileFilter(name, seeding))
			return err
		})
		if errors.Is(err, lake.ErrExpired) {
			err = fmt.Errorf("the job cannot go on with being seeded, start it afresh: %w", err)
		}
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			out = append(out, task{t, name, f})
		}
	}
	return out, nil
}

func fileFilter(table string, s *plan.Seeding) lake.FileFilter {
	f := lake.FileFilter{In: map[string][]string{}, TimeColumn: "event_time"}
	if len(s.Of.SourceTypes) > 0 {
		f.In["source_type"] = s.Of.SourceTypes
	}
	for _, e := range s.Of.Envs {
		f.In["account"], f.In["env"] = append(f.In["account"], e.Account), append(f.In["env"], e.Name)
	}
	if table == "events" {
		f.From, f.To = micros(s.Of.From), micros(s.Of.To)
	}
	if len(s.Since) > 0 {
		least := int64(1<<63 - 1)
		for _, o := range s.Since {
			least = min(least, o)
		}
		f.Least = map[string]int64{"offset": least}
	}
	return f
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// wants reports whether a row of a chunk belongs to the seeding.
func wants(s *plan.Seeding, table string, cells [][]plan.Cell, row int) bool {
	p := int32(cells[ingest.ColumnPartition][row].Int) //nolint:gosec // as Kafka has it
	o := cells[ingest.ColumnOffset][row].Int
	if end, ok := s.Handoff[p]; !ok || o >= end || o < s.Since[p] {
		return false
	}
	text := func(column int) string { return string(cells[column][row].Bytes) }
	if len(s.Of.SourceTypes) > 0 && !s.Of.KeepsSource(text(ingest.ColumnSourceType)) {
		return false
	}
	if len(s.Of.Envs) > 0 && !s.Of.Keeps(text(ingest.ColumnAccount), text(ingest.ColumnEnv)) {
		return false
	}
	if table == "events" {
		t := cells[ingest.ColumnEventTime][row].Int
		return (s.Of.From.IsZero() || t >= s.Of.From.UnixMicro()) && (s.Of.To.IsZero() || t < s.Of.To.UnixMicro())
	}
	return true
}

// piece is what a file brings at once.
type piece struct {
	task  int
	items []record.Item
	rows  []int64 // of each item, how many rows of the file are read with it
	end   int64   // how many are read with the piece
	last  bool    // of the file
}

// lakeReader reads the files of a seeding, several at a time, each from one goroutine.
type lakeReader struct {
	pieces chan piece
	cancel context.CancelFunc
	done   chan struct{} // closed when nothing reads any more
	err    error         // why, once done is closed; nil at the end
}

// open reads what the seeding says is left.
func (s *Source) open(ctx context.Context, seeding *plan.Seeding) (*lakeReader, error) {
	tasks, err := s.tasks(ctx, seeding)
	if err != nil {
		return nil, err
	}
	if len(tasks) != seeding.Tasks {
		return nil, fmt.Errorf("the snapshots that the job is seeded from have %d files and had %d: restore the lake from a backup", len(tasks), seeding.Tasks)
	}
	var phases [][]int
	for i, t := range tasks {
		if _, doing := seeding.Doing[i]; i < seeding.Begun && !doing {
			continue
		}
		phase := 0
		if seeding.Of.EntitiesFirst && t.name != first[0] {
			phase = 1
		}
		for len(phases) <= phase {
			phases = append(phases, nil)
		}
		phases[phase] = append(phases[phase], i)
	}
	reading, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &lakeReader{pieces: make(chan piece, s.cfg.Files), cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		for _, phase := range phases {
			g, ctx := errgroup.WithContext(reading)
			g.SetLimit(s.cfg.Files)
			for _, i := range phase {
				g.Go(func() error { return s.read(ctx, i, tasks[i], seeding, r.pieces) })
			}
			if r.err = g.Wait(); r.err != nil {
				return
			}
		}
	}()
	return r, nil
}

func (r *lakeReader) close() {
	r.cancel()
	<-r.done
}

// read sends a file's items from where the seeding left it.
func (s *Source) read(ctx context.Context, number int, t task, seeding *plan.Seeding, out chan<- piece) error {
	var made ingest.Items
	at := seeding.Doing[number]
	send := func(p piece) error {
		select {
		case out <- p:
			at = p.end
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if at == t.file.Rows {
		return send(piece{task: number, end: at, last: true})
	}
	return s.patiently(ctx, func(ctx context.Context) error {
		for c, err := range t.table.ReadFile(ctx, t.file, ingest.Columns, at) {
			if err != nil {
				return err
			}
			p := piece{task: number, end: c.Row + int64(c.Rows)}
			p.last = p.end == t.file.Rows
			for i := range c.Rows {
				if wants(seeding, t.name, c.Cells, i) {
					p.items = append(p.items, made.Item(c.Cells, i))
					p.rows = append(p.rows, c.Row+int64(i)+1)
				}
			}
			if err := send(p); err != nil {
				return err
			}
		}
		return nil
	})
}
