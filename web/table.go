package web

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const tableRows = 50

var tableParts = []string{"facts", "rows"}

// tablePage is the page of one table: its newest rows, with the columns that prove them.
type tablePage struct {
	layout
	reading
	Table Table
	Spark spark
	Rows  rowsView
}

// rowsView is rows as a page shows them.
type rowsView struct {
	Columns []string
	Rows    [][]cell
	Err     error
}

// cell is one value. An instant is shown relative, with itself in the title.
type cell struct {
	Text  string
	Title string
	Class string // time, null
}

// tableURL is the address of a table's page.
func tableURL(name string) string { return "/tables/" + url.PathEscape(name) }

func (s *Server) serveTable(w http.ResponseWriter, r *http.Request) error {
	page, err := s.table(r.Context(), accountOf(r), r.PathValue("table"), tableRows)
	if err != nil {
		return err
	}
	page.Events = "/events?topics=" + url.QueryEscape("table:"+page.Table.Name)
	s.signs(r, &page.layout)
	site, err := s.site()
	if err != nil {
		return err
	}
	body, err := site.render("table", "page", page)
	if err != nil {
		return err
	}
	writePage(w, http.StatusOK, body)
	return nil
}

// table gathers the page of a table and its newest n rows; n 0 reads none.
func (s *Server) table(ctx context.Context, account, name string, n int) (tablePage, error) {
	now := s.samples.of(account).sample(ctx)
	if len(now.History) == 0 {
		return tablePage{}, fmt.Errorf("read the status: %w", now.Err)
	}
	k := slices.IndexFunc(now.Status.Tables, func(t Table) bool { return t.Name == name })
	if k < 0 {
		return tablePage{}, fmt.Errorf("%w: table %s", ErrNotFound, name)
	}
	p := tablePage{
		layout:  layout{Title: name, Version: now.Status.Version},
		reading: now,
		Table:   now.Status.Tables[k],
	}
	count := levels(now.History, now.Status.At, func(st Status) *int64 {
		if i := slices.IndexFunc(st.Tables, func(t Table) bool { return t.Name == name }); i >= 0 {
			return st.Tables[i].Rows
		}
		return nil
	})
	p.Spark = newSpark(count.perSecond())
	if n > 0 {
		p.Rows = s.rows(ctx, account, name, n, now.Now)
	}
	return p, nil
}

// rows reads the newest rows of a table. An error is shown in their place.
func (s *Server) rows(ctx context.Context, account, table string, n int, now time.Time) rowsView {
	columns, rows, err := s.cfg.Rows(ctx, account, table, n)
	v := rowsView{Columns: columns, Err: err}
	if err != nil {
		return v
	}
	for _, row := range rows {
		line := make([]cell, len(columns))
		for i := range line {
			line[i] = cell{Text: unknown, Class: "null"}
			if i < len(row) && row[i] != "" {
				line[i] = newCell(row[i], now)
			}
		}
		v.Rows = append(v.Rows, line)
	}
	return v
}

func newCell(value string, now time.Time) cell {
	if len(value) >= len("2006-01-02T15:04:05Z") && value[4] == '-' && value[10] == 'T' {
		if t, err := time.Parse(time.RFC3339Nano, value); err == nil {
			m := formatTime(t, now)
			return cell{Text: m.Text, Title: m.Exact, Class: "time"}
		}
	}
	return cell{Text: shorten(value), Title: value}
}

// shorten keeps the end of a long id, which is what tells one from another: the path of an address, the tail of a URN.
// The whole is in the title.
func shorten(value string) string {
	const most = 24
	if utf8.RuneCountInString(value) <= most || strings.ContainsAny(value, " \t") {
		return value
	}
	tail := value
	if _, rest, ok := strings.Cut(value, "://"); ok {
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			tail = rest[i:]
		}
	} else if !strings.HasPrefix(value, "urn:") {
		return value
	}
	if runes := []rune(tail); len(runes) > most {
		tail = string(runes[len(runes)-most:])
	}
	return "…" + tail
}

// hideProof leaves out the columns that every table has, but for the event time, which comes first.
func (v *rowsView) hideProof() {
	var keep []int
	for i, c := range v.Columns {
		switch {
		case c == "_event_time":
			keep = slices.Insert(keep, 0, i)
		case !strings.HasPrefix(c, "_") && c != "account_id" && c != "env_id":
			keep = append(keep, i)
		}
	}
	columns := make([]string, len(keep))
	for to, from := range keep {
		columns[to] = v.Columns[from]
	}
	for i, row := range v.Rows {
		line := make([]cell, len(keep))
		for to, from := range keep {
			line[to] = row[from]
		}
		v.Rows[i] = line
	}
	v.Columns = columns
}

// version is shown in the frame of pages that have no status.
func (s *Server) version() string {
	all := s.samples.of("")
	all.mu.Lock()
	defer all.mu.Unlock()
	if n := len(all.history); n > 0 {
		return all.history[n-1].Version
	}
	return ""
}
