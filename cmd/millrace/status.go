package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"millrace"
	"millrace/delivery"
	"millrace/engine"
	"millrace/etl"
	"millrace/ingest"
	"millrace/lake"
	"millrace/plan"
	"millrace/web"
)

// status reads the state of the stack for the console. A part that cannot be read is unknown, and the rest is still shown.
func (s *stack) status(ctx context.Context) (web.Status, error) {
	st := web.Status{
		StartedAt: s.started, Version: version, DataDir: s.cfg.dir.path, CollectorURL: s.collectorURL(),
	}
	problem := func(what string, err error) {
		st.Problems = append(st.Problems, fmt.Sprintf("%s could not be read: %s", what, err))
	}
	ends, err := s.log.Ends(ctx)
	if err != nil {
		problem("The log", err)
	}
	st.Collected.Items = total(ends)

	serving := s.serving()
	raw, etlProgress := meanwhile{before: s.raw.Progress()}, meanwhile{before: serving.Progress()}
	if st.Lake, err = s.rawLake(ctx); err != nil {
		problem("The lake", err)
	}
	letters, err := s.deadLettersByTable(ctx)
	if err != nil {
		problem("Dead letters", err)
	}
	for _, t := range serving.plan.Tables {
		row := web.Table{Name: t.Name}
		totals, err := s.index.Totals(ctx, t.Name)
		switch {
		case errors.Is(err, delivery.ErrNotFound):
			row.Rows = new(int64)
		case err != nil:
			problem("Table "+t.Name, err)
		default:
			row.Rows, row.NewestEvent = &totals.Rows, totals.Newest
		}
		if t.Name != etl.DeadLetterTable {
			if letters != nil {
				n := letters[t.Name]
				row.DeadLetters = &n
			}
		}
		st.Tables = append(st.Tables, row)
	}
	raw.after, etlProgress.after = s.raw.Progress(), serving.Progress()
	for _, j := range s.jobs() {
		job := webJob(j, j.Progress())
		job.Serving = j == serving
		st.Jobs = append(st.Jobs, job)
	}
	for i, t := range st.Tables {
		if t.Name != etl.DeadLetterTable {
			st.Tables[i].Waiting = new(etlProgress.after.Counters["table."+t.Name+".waiting"])
		}
	}
	st.Ledger = liveLedger(st, raw, etlProgress)
	return st, nil
}

// ready says why the stack cannot do all of its work: a job has failed.
func (s *stack) ready(context.Context) error {
	for _, j := range s.jobs() {
		if err := j.failure(); err != nil {
			return fmt.Errorf("job %s has failed: %w", j.instance.UniqueID(), err)
		}
	}
	return nil
}

// meanwhile is a job's progress before and after something was counted in the targets of its sinks.
type meanwhile struct{ before, after engine.Progress }

// moving is how many rows a sink may have published while its target was counted, those that it has yet to publish included. So many, and
// no more, may the count differ from what the job has made. Not known: the sink has not begun the job's lineage yet, and its target may
// still hold what is to be taken back.
func (m meanwhile) moving(sink string) (rows int64, known bool) {
	for i, s := range m.before.Sinks {
		if s.Name == sink {
			return s.PendingRows + m.after.Rows - m.before.Rows, s.Begun && m.after.Sinks[i].Begun
		}
	}
	return 0, true
}

// refused is how many rows a sink has refused for good.
func (m meanwhile) refused(sink string) int64 {
	for _, s := range m.after.Sinks {
		if s.Name == sink {
			return s.Rejected
		}
	}
	return 0
}

// liveLedger is the bookkeeping while everything moves. What is on its way is a part of each account, and never more than a sink has yet to
// publish: a record that is missing beyond that is lost.
func liveLedger(st web.Status, raw, job meanwhile) web.Ledger {
	l := web.Ledger{At: time.Now()}
	if rows := st.Lake.Rows(); rows != nil {
		replayed := raw.after.Counters["replayed"]
		a := web.Account{
			Name: "log to lake", Total: web.Amount{Name: "read from the log", Count: raw.after.Read},
			Parts: []web.Amount{
				{Name: "events", Count: *st.Lake.Events},
				{Name: "entities", Count: *st.Lake.Entities},
				{Name: "rejects", Count: *st.Lake.Rejects},
				{Name: "replayed", Count: replayed},
			},
		}
		if n := raw.refused("iceberg"); n > 0 {
			a.Parts = append(a.Parts, web.Amount{Name: "refused by the lake", Count: n})
		}
		moving, known := raw.moving("iceberg")
		l.Accounts = append(l.Accounts, onTheirWay(a, moving, !known))
	}
	c := job.after.Counters
	l.Accounts = append(l.Accounts, web.Account{
		Name: "log to tables", Total: web.Amount{Name: "read from the log", Count: c["read"]},
		Parts: []web.Amount{
			{Name: "events for a table", Count: c["events"] - c["duplicates"]},
			{Name: "entities", Count: c["entities"]},
			{Name: "duplicates", Count: c["duplicates"]},
			{Name: "of no interest", Count: c["filtered"]},
			{Name: "rejects", Count: c["rejects"]},
			{Name: "unreadable", Count: c["unreadable"]},
			{Name: "replayed", Count: c["replayed"]},
		},
	})
	moving, known := job.moving("elastic")
	for _, t := range st.Tables {
		prefix := "table." + t.Name + "."
		if t.Waiting == nil || t.Rows == nil || t.DeadLetters == nil {
			continue
		}
		a := web.Account{
			Name: "records of " + t.Name, Total: web.Amount{Name: "records", Count: c[prefix+"in"]},
			Parts: []web.Amount{
				{Name: "rows", Count: *t.Rows},
				{Name: "dead letters", Count: *t.DeadLetters},
				{Name: "waiting", Count: c[prefix+"waiting"]},
				{Name: "dropped", Count: c[prefix+"dropped"]},
				{Name: "deleted", Count: c[prefix+"deleted"]},
			},
		}
		// Rows of a table also go, and change places with dead letters: what is over may be on its way too.
		over := -a.Difference()
		l.Accounts = append(l.Accounts, onTheirWay(a, moving, !known || over > 0 && over <= moving))
	}
	return l
}

// onTheirWay adds what an account lacks and a sink has yet to publish.
func onTheirWay(a web.Account, moving int64, uncertain bool) web.Account {
	a.Parts = append(a.Parts, web.Amount{Name: "on their way", Count: min(max(a.Difference(), 0), moving)})
	a.Uncertain = uncertain && a.Difference() != 0
	return a
}

func webJob(j *stackJob, p engine.Progress) web.Job {
	out := web.Job{
		Name: j.instance.Program, UniqueID: j.instance.UniqueID(), State: jobState(j, p), Epoch: p.Epoch, Read: p.Read,
		ReadPerSecond: &p.ReadRate, LagRecords: &p.Lag, OutboxBytes: p.OutboxBytes,
	}
	if j.instance.DataVersion != millrace.Unversioned {
		out.DataVersion = j.instance.DataVersion
	}
	if p.Lag == 0 {
		out.LagSeconds = new(float64)
	}
	if err := j.failure(); err != nil {
		out.Error = err.Error()
	}
	for _, s := range p.Sinks {
		behind := web.Sink{Name: s.Name, BehindEpochs: uint64(s.PendingEpochs)} //nolint:gosec // a length
		if s.Oldest > 0 {
			behind.BehindSeconds = new(max(time.Since(time.UnixMicro(s.Oldest)).Seconds(), 0))
		}
		out.Sinks = append(out.Sinks, behind)
	}
	return out
}

// jobState is a job's state in words.
func jobState(j *stackJob, p engine.Progress) string {
	state := j.state()
	if state == "SEEDING" && p.Seeding.Rows > 0 {
		state += fmt.Sprintf(" %d %%", 100*p.Seeding.Read/p.Seeding.Rows)
	}
	return state
}

// rawLake is what the raw tables hold and the state of their maintenance. They are append-only: their manifests know.
func (s *stack) rawLake(ctx context.Context) (web.Lake, error) {
	var out web.Lake
	counts := map[string]**int64{rawTables[0]: &out.Events, rawTables[1]: &out.Entities, rawTables[2]: &out.Rejects}
	for _, name := range rawTables {
		t, err := s.lake.Lookup(ctx, lake.Name{Namespace: ingest.Namespace, Table: name})
		if err != nil {
			return web.Lake{}, err
		}
		c, err := t.Contents(ctx, lake.Selection{})
		if err != nil {
			return web.Lake{}, err
		}
		u, err := t.Upkeep(ctx)
		if err != nil {
			return web.Lake{}, err
		}
		rows := int64(0)
		table := web.LakeTable{Name: name, Snapshots: u.Snapshots, Compacted: u.Compacted}
		for _, share := range c.Shares {
			rows += share.Records.Estimate
			table.Files += share.Files
			table.Bytes += share.Bytes
		}
		*counts[name] = &rows
		out.Tables = append(out.Tables, table)
	}
	return out, nil
}

// deadLettersByTable counts the records of each table that have no row in the index: those of which another sink refused the row have one.
func (s *stack) deadLettersByTable(ctx context.Context) (map[string]int64, error) {
	counts, err := s.index.CountBy(ctx, etl.DeadLetterTable, "table_name", delivery.Without{Column: "stage", Values: []string{"sink/iceberg", "sink/topic"}})
	if err != nil && !errors.Is(err, delivery.ErrNotFound) {
		return nil, err
	}
	out := map[string]int64{}
	for _, c := range counts {
		out[c.Key] = c.Count
	}
	return out, nil
}

// newestRows are the rows of a table that were made last, as text.
func (s *stack) newestRows(ctx context.Context, table string, n int) ([]string, [][]string, error) {
	serving := s.serving()
	i, ok := serving.plan.Table(table)
	if !ok {
		return nil, nil, fmt.Errorf("table %s: %w", table, web.ErrNotFound)
	}
	t := serving.plan.Tables[i]
	columns := columnNames(t)
	rows, err := s.index.Newest(ctx, table, n)
	if errors.Is(err, delivery.ErrNotFound) {
		return columns, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	out := make([][]string, len(rows))
	for i, r := range rows {
		for n, c := range columns {
			text := cellText(r[c])
			if n < len(t.Schema.Columns) && t.Schema.Columns[n].Type == plan.Bytes {
				text = bytesText(text)
			}
			out[i] = append(out[i], text)
		}
	}
	return columns, out, nil
}

func columnNames(t plan.Table) (names []string) {
	for _, c := range t.Schema.Columns {
		names = append(names, c.Name)
	}
	if !t.AppendOnly {
		for _, c := range plan.MetaColumns {
			names = append(names, c.Name)
		}
	}
	return names
}

// cellText is a value of a document as a person reads it.
func cellText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			parts[i] = cellText(e)
		}
		return strings.Join(parts, ", ")
	default:
		b, _ := json.Marshal(v) // it was decoded from JSON
		return string(b)
	}
}

// bytesText is what a column of bytes holds, which a document has in base64: text where it is that.
func bytesText(encoded string) string {
	if b, err := base64.StdEncoding.DecodeString(encoded); err == nil && utf8.Valid(b) {
		return string(b)
	}
	return encoded
}

func (s *stack) deadLetters(ctx context.Context, n int) ([]web.DeadLetter, error) {
	rows, err := s.index.Newest(ctx, etl.DeadLetterTable, n)
	if errors.Is(err, delivery.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := make([]web.DeadLetter, len(rows))
	for i, r := range rows {
		out[i] = web.DeadLetter{App: etlLine.Program, Stage: cellText(r["stage"]), Record: cellText(first(r["_sources"]))}
		if table := cellText(r["table_name"]); table != "" {
			out[i].Stage = table + ": " + out[i].Stage
		}
		out[i].At, _ = time.Parse(time.RFC3339Nano, cellText(r["_event_time"])) // the sink wrote it; unknown stays unknown
		if reasons, ok := r["reasons"].([]any); ok {
			for _, reason := range reasons {
				out[i].Reasons = append(out[i].Reasons, cellText(reason))
			}
		} else {
			out[i].Reasons = []string{cellText(r["reasons"])}
		}
	}
	return out, nil
}

func first(v any) any {
	if list, ok := v.([]any); ok && len(list) > 0 {
		return list[0]
	}
	return v
}

func total(offsets plan.Offsets) (n int64) {
	for _, o := range offsets {
		n += o
	}
	return n
}
