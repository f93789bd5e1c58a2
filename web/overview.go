package web

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	// overviewRows and overviewDead are how many rows and dead letters the overview shows.
	overviewRows = 8
	overviewDead = 8
	// slowSource and slowSink are the seconds behind from which a job needs attention. A sink gathers up to a minute of
	// rows before it publishes, so that is not late.
	slowSource = 30
	slowSink   = 150
)

// overviewParts are the elements of the overview that change, by id and template name.
var overviewParts = []string{"attention", "flow", "chart", "minutes", "ledger", "jobs", "tables", "newest", "dead"}

// layout is what every page's frame needs.
type layout struct {
	Title   string
	Stack   string // empty: it is not said
	Version string
	Events  string // address of the page's stream; empty for a page that does not live

	Accounts bool   // people sign in
	Who      string // is signed in; empty: nobody
}

// overviewPage is the page at /: is anything wrong, is it moving, how fresh is the data.
type overviewPage struct {
	layout
	reading
	Known     bool // there is a status to show, perhaps an old one
	Fresh     bool // nothing was collected yet: the first steps are shown instead
	Attention []notice
	Steps     []step
	Chart     chart
	Jobs      []jobLine
	Tables    []tableLine
	Table     string // whose newest rows are shown
	Rows      rowsView
	Dead      []DeadLetter
	DeadErr   error
}

// notice is one thing to look at, worst first.
type notice struct {
	Class string // ok, warn, bad, idle
	Word  string // the state in a word, beside the shape and colour
	Text  string
	Link  string
}

// step is one station of a record's way.
type step struct {
	Name   string
	Value  *int64
	Note   string
	Detail []step
	Spark  spark
	Class  string
}

type jobLine struct {
	Job
	Class string
	Spark spark
}

type tableLine struct {
	Table
	Spark spark
}

// When and the following are for the templates.
func (r reading) When(t time.Time) moment { return formatTime(t, r.Now) }

// Uptime is how long the process has run, in seconds.
func (r reading) Uptime() *float64 {
	if r.Status.StartedAt.IsZero() {
		return nil
	}
	return new(r.Now.Sub(r.Status.StartedAt).Seconds())
}

func (s *Server) serveOverview(w http.ResponseWriter, r *http.Request) error {
	page := s.overview(r.Context(), accountOf(r), r.URL.Query().Get("table"))
	page.Events = "/events?topics=" + url.QueryEscape("overview:"+page.Table)
	s.signs(r, &page.layout)
	site, err := s.site()
	if err != nil {
		return err
	}
	body, err := site.render("overview", "page", page)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if !page.Known {
		status = http.StatusServiceUnavailable
	}
	writePage(w, status, body)
	return nil
}

// overview gathers the page's values. What cannot be read is said in its own place; the rest of the page stays.
func (s *Server) overview(ctx context.Context, account, table string) overviewPage {
	now := s.samples.of(account).sample(ctx)
	st := now.Status
	p := overviewPage{
		layout:  layout{Title: "Overview", Version: st.Version},
		reading: now,
		Known:   len(now.History) > 0,
	}
	if !p.Known {
		return p
	}
	rows := total(st, func(t Table) *int64 { return t.Rows })
	p.Fresh = st.Collected.Items != nil && *st.Collected.Items == 0 && (rows == nil || *rows == 0) && len(st.Problems) == 0
	p.Attention = attention(now)
	p.steps()

	end := st.At
	for _, j := range st.Jobs {
		read := levels(now.History, end, func(s Status) *int64 {
			k := slices.IndexFunc(s.Jobs, func(o Job) bool { return o.UniqueID == j.UniqueID })
			if k < 0 {
				return nil
			}
			return new(s.Jobs[k].Read)
		})
		p.Jobs = append(p.Jobs, jobLine{Job: j, Class: stateClass(j.State), Spark: newSpark(read.perSecond())})
	}
	for _, t := range st.Tables {
		count := levels(now.History, end, func(s Status) *int64 {
			k := slices.IndexFunc(s.Tables, func(o Table) bool { return o.Name == t.Name })
			if k < 0 {
				return nil
			}
			return s.Tables[k].Rows
		})
		p.Tables = append(p.Tables, tableLine{Table: t, Spark: newSpark(count.perSecond())})
	}
	p.Table = chooseTable(st.Tables, table)
	if p.Table != "" {
		p.Rows = s.rows(ctx, account, p.Table, overviewRows, now.Now)
		p.Rows.hideProof()
	}
	p.Dead, p.DeadErr = s.cfg.DeadLetters(ctx, account, overviewDead)
	return p
}

// steps fills the stations of a record's way, and the chart.
func (p *overviewPage) steps() {
	st, end := p.Status, p.Status.At
	level := func(f func(Status) *int64) series { return levels(p.History, end, f) }
	collected := level(func(s Status) *int64 { return s.Collected.Items }).perSecond()
	sum := func(f func(Table) *int64) func(Status) *int64 {
		return func(s Status) *int64 { return total(s, f) }
	}
	rowCount := sum(func(t Table) *int64 { return t.Rows })
	waiting := sum(func(t Table) *int64 { return t.Waiting })
	dead := sum(func(t Table) *int64 { return t.DeadLetters })
	rows := level(rowCount).perSecond()

	var rowsPerSecond *float64
	tables := int64(0)
	for _, t := range st.Tables {
		if t.ofDeadLetters() {
			continue
		}
		tables++
		switch {
		case t.PerSecond == nil:
			rowsPerSecond = nil
		case tables == 1:
			rowsPerSecond = new(*t.PerSecond)
		case rowsPerSecond != nil:
			*rowsPerSecond += *t.PerSecond
		}
	}
	p.Steps = []step{
		{
			Name: "Collected", Value: st.Collected.Items, Spark: newSpark(collected),
			Note: formatRate(st.Collected.PerSecond) + " items/s",
		},
		{
			Name: "Raw lake", Value: st.Lake.Rows(), Spark: newSpark(level(func(s Status) *int64 { return s.Lake.Rows() }).perSecond()),
			Note:   lakeNote(st.Lake.Tables, p.Now),
			Detail: []step{{Name: "events", Value: st.Lake.Events}, {Name: "entities", Value: st.Lake.Entities}, {Name: "rejects", Value: st.Lake.Rejects}},
		},
		{
			Name: "Waiting", Value: waiting(st), Spark: newSpark(level(waiting)),
			Note: "records for an entity",
		},
		{
			Name: "Rows", Value: rowCount(st), Spark: newSpark(rows),
			Note: fmt.Sprintf("%s rows/s in %d %s", formatRate(rowsPerSecond), tables, plural(tables, "table", "tables")),
		},
		{
			Name: "Dead letters", Value: dead(st), Spark: newSpark(level(dead)),
			Note: "made no row", Class: map[bool]string{true: "warn"}[dead(st) != nil && *dead(st) > 0],
		},
	}
	p.Chart = newChart(end, p.Now, []string{"items collected", "rows published"}, []string{"accent", "busy"}, []series{collected, rows})
}

// lakeNote says of how many files the lake's rows are, and when these were last compacted.
func lakeNote(tables []LakeTable, now time.Time) string {
	if len(tables) == 0 {
		return "rows committed"
	}
	files := int64(0)
	var compacted time.Time
	for _, t := range tables {
		files += int64(t.Files)
		if t.Compacted.After(compacted) {
			compacted = t.Compacted
		}
	}
	note := fmt.Sprintf("rows in %s %s", formatCount(files), plural(files, "file", "files"))
	if !compacted.IsZero() {
		note += fmt.Sprintf(", compacted %s ago", formatSeconds(new(max(now.Sub(compacted).Seconds(), 0))))
	}
	return note
}

// attention says what needs a person, worst first; when nothing does, whether anything moves.
func attention(now reading) []notice {
	var bad, warn []notice
	var off []string
	st := now.Status
	if now.Err != nil {
		bad = append(bad, notice{
			"bad", "Not updating",
			fmt.Sprintf("The status could not be read: %s. The values are those of %s.", now.Err, formatTime(st.At, now.Now).Exact), "/",
		})
	}
	for _, a := range st.Ledger.Accounts {
		if a.Off() {
			off = append(off, fmt.Sprintf("%s is %s", a.Name, offBy(a.Difference())))
		}
	}
	for _, p := range st.Problems {
		warn = append(warn, notice{"warn", "Unread", sentence(p), ""})
	}
	for _, j := range st.Jobs {
		name := j.Name
		switch stateClass(j.State) {
		case "bad":
			text := name + " has failed."
			if j.Error != "" {
				text = fmt.Sprintf("%s has failed: %s", name, j.Error)
			}
			bad = append(bad, notice{"bad", "Failed", text, "#jobs-title"})
		case "warn":
			warn = append(warn, notice{"warn", "Restarting", name + " is restarting.", "#jobs-title"})
		}
		if j.LagSeconds != nil && *j.LagSeconds >= slowSource {
			warn = append(warn, notice{"warn", "Behind", fmt.Sprintf("%s is %s behind the log (%s records).", name, formatSeconds(j.LagSeconds), formatNumber(j.LagRecords)), "#jobs-title"})
		}
		for _, k := range j.Sinks {
			if k.BehindSeconds != nil && *k.BehindSeconds >= slowSink {
				warn = append(warn, notice{"warn", "Behind", fmt.Sprintf("%s of %s is %s behind.", k.Name, name, formatSeconds(k.BehindSeconds)), "#jobs-title"})
			}
		}
	}
	if n := total(st, func(t Table) *int64 { return t.DeadLetters }); n != nil && *n > 0 {
		warn = append(warn, notice{"warn", "Dead letters", fmt.Sprintf("%s %s no row; each says why below.", formatCount(*n), plural(*n, "record made", "records made")), "#dead-title"})
	}
	if len(off) > 0 { // after the jobs: one that has failed is the cause that something can be done about
		bad = append(bad, notice{"bad", "Off", "The ledger does not balance: " + strings.Join(off, ", ") + ".", "#ledger-title"})
	}
	if all := append(bad, warn...); len(all) > 0 {
		return all
	}
	if st.Account != "" { // what comes in is counted for all accounts together
		return []notice{{"ok", "Fine", "Nothing needs attention.", ""}}
	}
	if st.Collected.PerSecond != nil && *st.Collected.PerSecond > 0 {
		return []notice{{"ok", "Moving", "Nothing needs attention.", ""}}
	}
	return []notice{{"idle", "Idle", "Nothing needs attention, and nothing is coming in.", ""}}
}

// offBy says what a ledger's difference means.
func offBy(d int64) string {
	if d > 0 {
		return formatCount(d) + " short"
	}
	return formatCount(-d) + " over"
}

// total sums a count over the tables; nil when it is unknown for one of them, or there are none.
func total(st Status, f func(Table) *int64) *int64 {
	var sum *int64
	for _, t := range st.Tables {
		if t.ofDeadLetters() {
			continue
		}
		n := f(t)
		if n == nil {
			return nil
		}
		if sum == nil {
			sum = new(int64(0))
		}
		*sum += *n
	}
	return sum
}

// chooseTable is the table asked for when there is such a one, else the first with rows, else the first.
func chooseTable(tables []Table, asked string) string {
	if slices.ContainsFunc(tables, func(t Table) bool { return t.Name == asked }) {
		return asked
	}
	for _, t := range tables {
		if t.Rows != nil && *t.Rows > 0 {
			return t.Name
		}
	}
	if len(tables) > 0 {
		return tables[0].Name
	}
	return ""
}

// stateClass is the badge of a job's state.
func stateClass(state string) string {
	word, _, _ := strings.Cut(state, " ")
	switch word {
	case "RUNNING":
		return "ok"
	case "STARTING", "SUSPENDING", "CANCELING", "UPGRADING", "DELETING", "SEEDING":
		return "busy"
	case "RESTARTING":
		return "warn"
	case "FAILED":
		return "bad"
	}
	return "idle"
}

// topic finds the renderer of a page's parts by the name that the page gave its stream.
func (s *Server) topic(ctx context.Context, account, name string) (func(context.Context) ([]part, error), error) {
	page, table, _ := strings.Cut(name, ":")
	switch page {
	case "overview":
		return func(ctx context.Context) ([]part, error) {
			return s.parts("overview", overviewParts, s.overview(ctx, account, table))
		}, nil
	case "table":
		if _, err := s.table(ctx, account, table, 0); err != nil {
			return nil, err
		}
		return func(ctx context.Context) ([]part, error) {
			p, err := s.table(ctx, account, table, tableRows)
			if err != nil {
				return nil, err
			}
			return s.parts("table", tableParts, p)
		}, nil
	}
	return nil, fmt.Errorf("%w: topic %q", ErrNotFound, name)
}

// parts renders the changing elements of a page.
func (s *Server) parts(page string, ids []string, data any) ([]part, error) {
	site, err := s.site()
	if err != nil {
		return nil, err
	}
	out := make([]part, len(ids))
	for i, id := range ids {
		html, err := site.render(page, id, data)
		if err != nil {
			return nil, err
		}
		out[i] = part{id, html}
	}
	return out, nil
}
