package index

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

var catColumns = []string{"health", "status", "index", "uuid", "pri", "rep", "docs.count", "docs.deleted", "store.size", "pri.store.size"}

// catIndices lists the indices, as text or JSON.
func (s *Server) catIndices(r *request) (reply, error) {
	columns := catColumns
	if h := r.query.Get("h"); h != "" {
		columns = nil
		for name := range strings.SplitSeq(h, ",") {
			full, ok := map[string]string{"i": "index", "idx": "index", "dc": "docs.count", "docsCount": "docs.count", "s": "status", "h": "health", "id": "uuid"}[name]
			if !ok {
				full = name
			}
			if !slices.Contains(catColumns, full) {
				return reply{}, illegal("[h] has the unsupported column [%s]", name)
			}
			columns = append(columns, full)
		}
	}
	by, order, _ := strings.Cut(r.query.Get("s"), ":")
	if by == "" {
		by = "index"
	}
	if !slices.Contains(catColumns, by) || order != "" && order != "asc" && order != "desc" {
		return reply{}, illegal("Unable to sort by unknown sort key `%s`", r.query.Get("s"))
	}
	rows, err := s.catRows(r)
	if err != nil {
		return reply{}, err
	}
	slices.SortStableFunc(rows, func(a, b map[string]string) int {
		c := strings.Compare(a[by], b[by])
		if strings.HasPrefix(by, "docs") {
			x, _ := strconv.Atoi(a[by])
			y, _ := strconv.Atoi(b[by])
			c = x - y
		}
		if order == "desc" {
			c = -c
		}
		return c
	})
	switch f := r.query.Get("format"); f {
	case "json":
		out := make([]map[string]string, len(rows))
		for i, row := range rows {
			out[i] = map[string]string{}
			for _, c := range columns {
				out[i][c] = row[c]
			}
		}
		return reply{body: out}, nil
	case "", "text":
	default:
		return reply{}, illegal("[format] is text or json, not [%s]", f)
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 1, 1, ' ', 0)
	if r.flag("v") {
		fmt.Fprintln(w, strings.Join(columns, "\t"))
	}
	for _, row := range rows {
		for i, c := range columns {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, row[c])
		}
		fmt.Fprintln(w)
	}
	err = w.Flush()
	return reply{text: b.String()}, err
}

func (s *Server) catRows(r *request) (rows []map[string]string, err error) {
	err = s.read(r.Context(), func(snap snapshot) error {
		xs, err := snap.resolve(r.vars["index"], r.lenience())
		if err != nil {
			return err
		}
		for _, x := range xs {
			var live, deleted, bytes int64
			q := fmt.Sprintf("SELECT count(*) FILTER (NOT deleted), count(*) FILTER (deleted), coalesce(sum(strlen(source)), 0)::BIGINT FROM %s", x.table())
			if err := snap.tx.QueryRowContext(r.Context(), q).Scan(&live, &deleted, &bytes); err != nil {
				return err
			}
			size := humanBytes(bytes)
			if r.query.Get("bytes") == "b" {
				size = strconv.FormatInt(bytes, 10)
			}
			rows = append(rows, map[string]string{
				"health": "green", "status": "open", "index": x.Name, "uuid": x.UUID, "pri": "1", "rep": "0",
				"docs.count": strconv.FormatInt(live, 10), "docs.deleted": strconv.FormatInt(deleted, 10),
				"store.size": size, "pri.store.size": size, // of the documents, before compression
			})
		}
		return nil
	})
	return rows, err
}

func humanBytes(n int64) string {
	f, units := float64(n), []string{"b", "kb", "mb", "gb", "tb"}
	i := 0
	for ; f >= 1024 && i < len(units)-1; i++ {
		f /= 1024
	}
	if i == 0 {
		return strconv.FormatInt(n, 10) + "b"
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + units[i]
}
