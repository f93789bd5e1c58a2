package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"millrace"
	"millrace/control"
	"millrace/control/api"
	"millrace/delivery"
	"millrace/lake"
)

// sqlMargin is how much of the time that a snapshot's files are kept is left for what comes before and after a query.
const sqlMargin = time.Minute

func sqlCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sql [QUERY]",
		Short: "Ask the tables of the lake with SQL",
		Long: `Ask the tables of the lake with SQL: one SELECT in DuckDB's dialect, as an argument, from a file (-f) or from standard input. Corrections are
applied: a row is there in its newest revision, once. The lake is read, never changed, whether or not a stack writes it.

  quiz_submission                   the version of the table that serves
  quiz_submission@20180827174235    that of a data version
  raw.events                        a table with its namespace

A query sees one snapshot of each table. Times are in UTC. Bytes of raw.events are bytes: decode(bytes) is text.

A context is asked over its API, which answers with the first 10,000 rows, 8 MB of them at most, and not in Parquet.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("sql takes one query; quote it: millrace sql 'SELECT …'")
			}
			return nil
		},
	}
	output := outputFlag(cmd, "table", "csv", "json", "jsonl", "parquet")
	file := cmd.Flags().StringP("file", "f", "", "file with the query; - is standard input")
	timeout := cmd.Flags().Duration("timeout", 5*time.Minute, "how long the query may take")
	memory := cmd.Flags().String("memory", "512MB", "how much memory the query may use; what does not fit there goes to disk, eight times as much at most")
	limit := cmd.Flags().Int64("limit", 0, "rows at most; 0 for all")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		format, err := output()
		if err != nil {
			return err
		}
		bytes, err := parseSize(*memory)
		if err != nil {
			return usagef("--memory %w", err)
		}
		if *limit < 0 {
			return usagef("--limit %d: want a number of rows, or 0 for all", *limit)
		}
		if most := lake.DefaultKeepFor - sqlMargin; *timeout <= 0 || *timeout > most {
			return usagef("--timeout %s: want a duration up to %s: for that long the files that a query reads are kept", *timeout, most)
		}
		query, err := readQuery(cmd, args, *file)
		if err != nil {
			return err
		}
		if format == "parquet" && isTerminal(cmd.OutOrStdout()) {
			return usagef("-o parquet writes bytes: send them to a file with > NAME.parquet")
		}
		t, err := askedBy(cmd)
		if err != nil {
			return err
		}
		if t.isRemote() {
			if format == "parquet" || cmd.Flags().Changed("memory") {
				return usagef("-o parquet and --memory are for a lake on this machine: %s answers with the first rows", t.remote)
			}
			return sqlElsewhere(cmd, t, query, format, *timeout, *limit)
		}
		return withLake(cmd, func(ctx context.Context, l *lake.Lake) (err error) {
			serving := func(ctx context.Context) ([]string, error) {
				dir, err := readDataDir(dataDirFlag(cmd))
				if err != nil {
					return nil, err
				}
				return servingNamespaces(ctx, dir)
			}
			ctx, cancel := context.WithTimeoutCause(ctx, *timeout, fmt.Errorf("the query took longer than %s: ask for less, or give it more time with --timeout", *timeout))
			defer cancel()
			s, err := delivery.NewSQL(delivery.SQLConfig{Lake: l, Serving: serving, Memory: bytes, Spill: 8 * bytes, Rows: *limit})
			if err != nil {
				return err
			}
			a, err := s.Query(ctx, query)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, a.Close()) }()
			if format != "parquet" {
				return printAnswer(ctx, cmd, answer{a.Columns, a.Text, a.JSON, a.Rows, a.More}, format)
			}
			out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
			return errors.Join(a.WriteParquet(ctx, out), out.Flush(), sayMore(cmd, a.Rows, a.More))
		})
	}
	return cmd
}

// sqlElsewhere asks another Millrace.
func sqlElsewhere(cmd *cobra.Command, t asked, query, format string, timeout time.Duration, limit int64) error {
	c, err := remoteClient(t)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(cmd.Context(), timeout, fmt.Errorf("%s has not answered for %s: ask for less, or give it more time with --timeout", t.remote, timeout))
	defer cancel()
	var got struct { // an api.Rows
		Columns []string            `json:"columns"`
		Rows    [][]json.RawMessage `json:"rows"`
		More    bool                `json:"more"`
	}
	if err := c.do(ctx, http.MethodPost, api.SQLPath, api.QueryAsk{Query: query}, &got); err != nil {
		return err
	}
	if limit > 0 && int64(len(got.Rows)) > limit {
		got.Rows, got.More = got.Rows[:limit], true
	}
	a := answer{columns: got.Columns, n: int64(len(got.Rows)), more: got.More}
	a.json = func(context.Context) iter.Seq2[[]json.RawMessage, error] {
		return func(yield func([]json.RawMessage, error) bool) {
			for _, row := range got.Rows {
				if !yield(row, nil) {
					return
				}
			}
		}
	}
	a.text = func(context.Context) iter.Seq2[[]sql.NullString, error] {
		return func(yield func([]sql.NullString, error) bool) {
			for _, row := range got.Rows {
				cells := make([]sql.NullString, len(row))
				for i, v := range row {
					cells[i] = textOf(v)
				}
				if !yield(cells, nil) {
					return
				}
			}
		}
	}
	return printAnswer(ctx, cmd, a, format)
}

// textOf is a value of JSON as text: what a string says, null as nothing, and others as they are written.
func textOf(v json.RawMessage) sql.NullString {
	var s *string
	switch err := json.Unmarshal(v, &s); {
	case err != nil:
		return sql.NullString{String: string(v), Valid: true}
	case s == nil:
		return sql.NullString{}
	default:
		return sql.NullString{String: *s, Valid: true}
	}
}

// servingVersion is the data version of an app that readers see, whether or not a process uses the data directory.
func servingVersion(ctx context.Context, dir *dataDir, l control.Line) (string, error) {
	all, err := servingVersions(ctx, dir)
	for _, v := range all {
		if v.Line == l {
			return v.DataVersion, nil
		}
	}
	if err == nil {
		err = notFoundError{fmt.Errorf("no data version of %s serves; 'millrace app list' lists those there are", l.Program)}
	}
	return "", err
}

// servingVersions are the data versions that readers see, of this program's own app first. Before the first start it is to serve.
func servingVersions(ctx context.Context, dir *dataDir) ([]control.Version, error) {
	all, err := control.ReadVersions(ctx, dir.join("keys.db"))
	if err != nil {
		return nil, err
	}
	serving := []control.Version{{Line: etlLine, DataVersion: millrace.Unversioned, Serving: true}}
	for _, v := range all {
		switch {
		case !v.Serving || v.Line == rawLine:
		case v.Line == etlLine:
			serving[0] = v
		default:
			serving = append(serving, v)
		}
	}
	return serving, nil
}

// servingNamespaces are their namespaces in the lake.
func servingNamespaces(ctx context.Context, dir *dataDir) (all []string, err error) {
	versions, err := servingVersions(ctx, dir)
	for _, v := range versions {
		all = append(all, instanceOf(v.Line, v.DataVersion).Namespace())
	}
	return all, err
}

func readQuery(cmd *cobra.Command, args []string, file string) (string, error) {
	if len(args) == 1 && file != "" {
		return "", usagef("sql takes a query or -f FILE, not both")
	}
	if len(args) == 1 {
		return args[0], nil
	}
	if file == "" && isTerminal(cmd.InOrStdin()) {
		return "", usagef("sql needs a query: millrace sql 'SELECT count(*) FROM raw.events'")
	}
	in := cmd.InOrStdin()
	if file != "" && file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("read query %s: %w", file, cause(err))
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(in)
	if err != nil {
		return "", fmt.Errorf("read the query: %w", cause(err))
	}
	return string(b), nil
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

var size = regexp.MustCompile(`^([0-9]{1,9})(MB|GB)$`)

// parseSize reads a size such as 512MB.
func parseSize(s string) (int64, error) {
	m := size.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%q is no size: want one such as 512MB or 2GB", s)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0, err
	}
	if n <<= 20; m[2] == "GB" {
		n <<= 10
	}
	if n < 32<<20 {
		return 0, fmt.Errorf("%s is too little: want 32MB or more", s)
	}
	return n, nil
}

// answer is what a query is answered with, here or elsewhere.
type answer struct {
	columns []string
	text    func(context.Context) iter.Seq2[[]sql.NullString, error]
	json    func(context.Context) iter.Seq2[[]json.RawMessage, error]
	n       int64 // rows
	more    bool  // there are more than these
}

func printAnswer(ctx context.Context, cmd *cobra.Command, a answer, format string) error {
	write := printTable
	switch format {
	case "json", "jsonl":
		write = func(ctx context.Context, w io.Writer, a answer) error {
			return printJSONRows(ctx, w, a, format == "json")
		}
	case "csv":
		write = printCSV
	}
	out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
	return errors.Join(write(ctx, out, a), out.Flush(), sayMore(cmd, a.n, a.more))
}

// sayMore says that there are more rows than those that were printed.
func sayMore(cmd *cobra.Command, rows int64, more bool) error {
	if !more {
		return nil
	}
	_, err := fmt.Fprintf(cmd.ErrOrStderr(), "millrace: the first %d rows; there are more\n", rows)
	return err
}

// printJSONRows prints objects with their members in the order of the columns: one a line, and as one array if asked.
func printJSONRows(ctx context.Context, w io.Writer, a answer, array bool) error {
	names := make([][]byte, len(a.columns))
	for i, c := range a.columns {
		var err error
		if names[i], err = marshal(c); err != nil {
			return err
		}
	}
	open, between, end := "", "\n", "\n"
	if array {
		open, between, end = "[", ",\n ", "]\n"
	}
	fmt.Fprint(w, open)
	n := 0
	for row, err := range a.json(ctx) {
		if err != nil {
			return err
		}
		if n++; n > 1 {
			fmt.Fprint(w, between)
		}
		if err := printObject(w, names, row); err != nil {
			return err
		}
	}
	if n > 0 || array {
		fmt.Fprint(w, end)
	}
	return nil
}

func printObject(w io.Writer, names [][]byte, values []json.RawMessage) error {
	line := []byte{'{'}
	for i, v := range values {
		if i > 0 {
			line = append(line, ',')
		}
		line = append(append(append(line, names[i]...), ':'), v...)
	}
	_, err := w.Write(append(line, '}'))
	return err
}

// printCSV prints RFC 4180 with a header. Null and empty text are both nothing.
func printCSV(ctx context.Context, w io.Writer, a answer) error {
	c := csv.NewWriter(w)
	if err := c.Write(a.columns); err != nil {
		return err
	}
	record := make([]string, len(a.columns))
	for row, err := range a.text(ctx) {
		if err != nil {
			return err
		}
		for i, cell := range row {
			record[i] = cell.String
		}
		if err := c.Write(record); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}

const (
	tableRows  = 1000 // whose widths decide those of the columns
	tableWidth = 60   // characters of a cell that are shown
)

// printTable prints columns for people. It looks at the first rows for the widths; what does not fit is cut, at a sign that says so.
func printTable(ctx context.Context, w io.Writer, a answer) error {
	widths := make([]int, len(a.columns))
	var head [][]string
	add := func(row []string) {
		for i, c := range row {
			widths[i] = min(max(widths[i], utf8.RuneCountInString(c)), tableWidth)
		}
		head = append(head, row)
	}
	flush := func() error {
		for _, row := range head {
			if err := printCells(w, row, widths); err != nil {
				return err
			}
		}
		head = head[:0]
		return nil
	}
	add(a.columns)
	n := 0
	for row, err := range a.text(ctx) {
		if err != nil {
			return errors.Join(flush(), err)
		}
		if n++; n <= tableRows {
			add(shown(row))
			continue
		}
		head = append(head, shown(row))
		if err := flush(); err != nil {
			return err
		}
	}
	return flush()
}

var unprintable = strings.NewReplacer("\n", "␤", "\r", "␍", "\t", "␉", "\x1b", "␛")

func shown(row []sql.NullString) []string {
	cells := make([]string, len(row))
	for i, c := range row {
		switch {
		case !c.Valid:
			cells[i] = "NULL"
		default:
			cells[i] = unprintable.Replace(c.String)
		}
	}
	return cells
}

func printCells(w io.Writer, cells []string, widths []int) error {
	var line strings.Builder
	for i, c := range cells {
		if i > 0 {
			line.WriteString("  ")
		}
		n := utf8.RuneCountInString(c)
		if n > widths[i] {
			c, n = string([]rune(c)[:max(widths[i]-1, 0)])+"…", widths[i]
		}
		line.WriteString(c)
		line.WriteString(strings.Repeat(" ", max(widths[i]-n, 0)))
	}
	_, err := fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	return err
}
