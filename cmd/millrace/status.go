package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"millrace"
	"millrace/control"
	"millrace/delivery"
	"millrace/engine"
	"millrace/etl"
	"millrace/ingest"
	"millrace/lake"
	"millrace/plan"
	"millrace/sink/elastic"
	"millrace/web"
)

// status reads the state of the stack for the console, or what there is of it for one account. A part that cannot be read is unknown, and the rest is still
// shown.
func (s *stack) status(ctx context.Context, account string) (web.Status, error) {
	if account != "" {
		return s.statusOf(ctx, account)
	}
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
	st.Collected.Items = new(total(ends))

	raw := meanwhile{before: s.raw.Progress()}
	if st.Lake, err = s.rawLake(ctx, ""); err != nil {
		problem("The lake", err)
	}
	raw.after = s.raw.Progress()
	st.Ledger = web.Ledger{At: time.Now()}
	if a, ok := lakeAccount(st.Lake, raw); ok {
		st.Ledger.Accounts = append(st.Ledger.Accounts, a)
	}
	for _, j := range s.serving() {
		moved := meanwhile{before: j.Progress()}
		tables := s.tablesOf(ctx, s.index, j, servingName, problem)
		moved.after = j.Progress()
		setWaiting(tables, moved.after)
		items := itemsAccount(moved.after)
		if j.line() != etlLine {
			items.Name += " of " + j.instance.Program
		}
		st.Ledger.Accounts = append(append(st.Ledger.Accounts, items), tableAccounts(tables, moved)...)
		st.Tables = addTables(st.Tables, tables)
	}
	for _, j := range s.jobs() {
		job := webJob(j, j.Progress())
		job.Serving = s.serves(j)
		st.Jobs = append(st.Jobs, job)
	}
	return st, nil
}

// servingName is what readers call the indices of a table.
func servingName(table string) string { return table }

// addTables adds the tables of another app. What it calls dead letters is the same table, which the index has counted for all.
func addTables(all, others []web.Table) []web.Table {
	for _, t := range others {
		if !slices.ContainsFunc(all, func(o web.Table) bool { return o.Name == t.Name }) {
			all = append(all, t)
		}
	}
	return all
}

// statusOf is what there is for an account. What is counted for all of them together is left out: what the log holds and what waits, the upkeep of the
// lake, and the ledger.
func (s *stack) statusOf(ctx context.Context, account string) (web.Status, error) {
	st := web.Status{Account: account, StartedAt: s.started, Version: version, CollectorURL: s.collectorURL()}
	problem := func(what string, err error) {
		s.cfg.logger.Warn("a part of an account's status could not be read", "account", account, "part", what, "error", err)
		st.Problems = append(st.Problems, what+" could not be read") // why may be of others
	}
	var err error
	if st.Lake, err = s.rawLake(ctx, account); err != nil {
		problem("The lake", err)
	}
	for _, j := range s.serving() {
		st.Tables = addTables(st.Tables, s.tablesOf(ctx, s.index.Of(account), j, servingName, problem))
	}
	for _, j := range s.jobs() {
		if j.instance.Account == account {
			job := webJob(j, j.Progress())
			job.Serving = s.serves(j)
			st.Jobs = append(st.Jobs, job)
		}
	}
	return st, nil
}

// errOfAccount is what who is bound to an account is told of an error that is not about what they asked: names of files and answers of servers may be of others.
func (s *stack) errOfAccount(account string, err error) error {
	if account == "" || err == nil || errors.Is(err, web.ErrNotFound) || errors.Is(err, web.ErrInvalid) || errors.Is(err, context.Canceled) {
		return err
	}
	s.cfg.logger.Error("what is of an account could not be read", "account", account, "error", err)
	return errors.New("it could not be read; the log says why")
}

func webJob(j *stackJob, p engine.Progress) web.Job {
	out := web.Job{
		Name: j.instance.Program, UniqueID: j.instance.UniqueID(), State: jobState(j, p), Epoch: p.Epoch, Read: p.Read,
		ReadPerSecond: &p.ReadRate, LagRecords: &p.Lag, OutboxBytes: p.OutboxBytes,
	}
	if j.instance.DataVersion != millrace.Unversioned {
		out.DataVersion = j.instance.DataVersion
	}
	if seconds, ok := p.LagSeconds(time.Now()); ok {
		out.LagSeconds = &seconds
	}
	if err := j.trouble(); err != nil {
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
	state := string(j.stateOf(p))
	if state == string(control.Seeding) && p.Seeding.Rows > 0 {
		state += fmt.Sprintf(" %d %%", 100*p.Seeding.Read/p.Seeding.Rows)
	}
	return state
}

// rawLake is what the raw tables hold and the state of their maintenance, or what they hold of one account. They are append-only: their manifests know.
func (s *stack) rawLake(ctx context.Context, account string) (web.Lake, error) {
	var out web.Lake
	counts := map[string]**int64{rawTables[0]: &out.Events, rawTables[1]: &out.Entities, rawTables[2]: &out.Rejects}
	for _, name := range rawTables {
		t, err := s.lake.Lookup(ctx, lake.Name{Namespace: ingest.Namespace, Table: name})
		if err != nil {
			return web.Lake{}, err
		}
		c, err := t.Contents(ctx, lake.Selection{Account: account})
		if err != nil {
			return web.Lake{}, err
		}
		rows := int64(0)
		table := web.LakeTable{Name: name}
		if account == "" {
			u, err := t.Upkeep(ctx)
			if err != nil {
				return web.Lake{}, err
			}
			table.Snapshots, table.Compacted = u.Snapshots, u.Compacted
			out.Forgotten += u.Erased
		}
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

// tablesOf counts the rows and dead letters of a job's tables in an index, where named says what they are called. What cannot be counted is
// unknown, and a problem.
func (s *stack) tablesOf(ctx context.Context, x *delivery.Index, j *stackJob, named func(table string) string, problem func(what string, err error)) (tables []web.Table) {
	letters, err := deadLettersByTable(ctx, x, named(etl.DeadLetterTable))
	if err != nil {
		problem("Dead letters", err)
	}
	for _, t := range j.program().plan.Tables {
		row := web.Table{Name: t.Name}
		totals, err := x.Totals(ctx, named(t.Name))
		switch {
		case errors.Is(err, delivery.ErrNotFound):
			row.Rows = new(int64)
		case err != nil:
			problem("Table "+t.Name, err)
		default:
			row.Rows, row.NewestEvent = &totals.Rows, totals.Newest
		}
		if t.Name != etl.DeadLetterTable && letters != nil {
			row.DeadLetters = new(letters[t.Name])
		}
		tables = append(tables, row)
	}
	return tables
}

// setWaiting says how many records of each table wait.
func setWaiting(tables []web.Table, p engine.Progress) {
	for i, t := range tables {
		if t.Name != etl.DeadLetterTable {
			tables[i].Waiting = new(p.Counters["table."+t.Name+".waiting"])
		}
	}
}

// deadLettersByTable counts the records of each table that have no row in the index: those of which another sink refused the row have one.
func deadLettersByTable(ctx context.Context, x *delivery.Index, index string) (map[string]int64, error) {
	counts, err := x.CountBy(ctx, index, "table_name", delivery.Without{Column: "stage", Values: []string{"sink/iceberg", "sink/topic"}})
	if err != nil && !errors.Is(err, delivery.ErrNotFound) {
		return nil, err
	}
	out := map[string]int64{}
	for _, c := range counts {
		out[c.Key] = c.Count
	}
	return out, nil
}

// newestRows are the rows of a table that were made last, of an account or of all, as text.
func (s *stack) newestRows(ctx context.Context, account, table string, n int) ([]string, [][]string, error) {
	t, ok := s.servingTable(table)
	if !ok {
		return nil, nil, fmt.Errorf("table %s: %w", table, web.ErrNotFound)
	}
	columns := columnNames(t)
	rows, err := s.index.Of(account).Newest(ctx, table, n)
	if errors.Is(err, delivery.ErrNotFound) {
		return columns, nil, nil
	}
	if err != nil {
		return nil, nil, s.errOfAccount(account, err)
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

// servingTable finds a table among those that readers see.
func (s *stack) servingTable(name string) (plan.Table, bool) {
	for _, j := range s.serving() {
		p := j.program().plan
		if i, ok := p.Table(name); ok {
			return p.Tables[i], true
		}
	}
	return plan.Table{}, false
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

// deadLetters are the newest dead letters of the data versions that readers see, of an account or of all.
func (s *stack) deadLetters(ctx context.Context, account string, n int) (all []web.DeadLetter, err error) {
	for _, j := range s.serving() {
		rows, err := s.index.Of(account).Newest(ctx, elastic.VersionAlias(etl.DeadLetterTable, j.instance.Suffix()), n)
		if errors.Is(err, delivery.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, s.errOfAccount(account, err)
		}
		for _, r := range rows {
			all = append(all, deadLetter(j.instance.Program, r))
		}
	}
	slices.SortStableFunc(all, func(a, b web.DeadLetter) int { return b.At.Compare(a.At) })
	return all[:min(n, len(all))], nil
}

// deadLetter is one as its row in the index says.
func deadLetter(app string, r delivery.Row) web.DeadLetter {
	d := web.DeadLetter{App: app, Stage: cellText(r["stage"]), Record: cellText(first(r["_sources"]))}
	if table := cellText(r["table_name"]); table != "" {
		d.Stage = table + ": " + d.Stage
	}
	d.At, _ = time.Parse(time.RFC3339Nano, cellText(r["_event_time"])) // the sink wrote it; unknown stays unknown
	reasons, ok := r["reasons"].([]any)
	if !ok {
		d.Reasons = []string{cellText(r["reasons"])}
	}
	for _, reason := range reasons {
		d.Reasons = append(d.Reasons, cellText(reason))
	}
	return d
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
