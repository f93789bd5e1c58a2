package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"millrace/artifact"
	"millrace/control/api"
	"millrace/lake"
	"millrace/plan"
	"millrace/record"
)

// withLake opens the lake of the command's data directory for reading, whether or not a stack writes it.
func withLake(cmd *cobra.Command, fn func(context.Context, *lake.Lake) error) (err error) {
	dir, err := readDataDir(dataDirFlag(cmd))
	if err != nil {
		return err
	}
	l, err := lake.Open(cmd.Context(), lake.Config{Dir: dir.join("lake"), Catalog: artifact.WithSecrets(lake.REST{}), ReadOnly: true})
	if errors.Is(err, lake.ErrNotFound) {
		return fmt.Errorf("data directory %s has no lake yet; start 'millrace serve' on it", dir.path)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	return fn(cmd.Context(), l)
}

func tablesCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "tables", Short: "List the tables of the lake", Args: exactArgs()}
	output := outputFlag(cmd, "table", "jsonl")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		var all []api.LakeTable
		err = withRows(cmd, func(ctx context.Context, l *lake.Lake) (err error) {
			all, err = lakeTables(ctx, l)
			return err
		}, func(ctx context.Context, c client) error { return c.do(ctx, http.MethodGet, api.TablesPath, nil, &all) })
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		if format == "table" {
			fmt.Fprintln(w, "NAMESPACE\tTABLE\tROWS\tFILES\tBYTES\tSNAPSHOTS\tCOMPACTED")
		}
		for _, t := range all {
			if format == "jsonl" {
				if err := json.NewEncoder(cmd.OutOrStdout()).Encode(t); err != nil {
					return err
				}
				continue
			}
			compacted := "never"
			if !t.Compacted.IsZero() {
				compacted = instant(t.Compacted)
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%s\n", t.Namespace, t.Table, t.Rows, t.Files, t.Bytes, t.Snapshots, compacted)
		}
		return w.Flush()
	}
	return cmd
}

// withRows asks the lake: that of the data directory here, whether or not something uses it, or a context.
func withRows(cmd *cobra.Command, here func(context.Context, *lake.Lake) error, elsewhere func(context.Context, client) error) error {
	t, err := askedBy(cmd)
	if err != nil {
		return err
	}
	if t.isRemote() {
		c, err := remoteClient(t)
		if err != nil {
			return err
		}
		return elsewhere(cmd.Context(), c)
	}
	err = withLake(cmd, here)
	switch {
	case errors.Is(err, api.ErrNotFound):
		err = notFoundError{plainError{err}}
	case errors.Is(err, api.ErrInvalid):
		err = usageError{plainError{err}}
	}
	return err
}

// plainError says what is wrong without the kind that it is of.
type plainError struct{ error }

func (p plainError) Error() string { return problemError{api.Problem{Detail: p.error.Error()}}.Error() }
func (p plainError) Unwrap() error { return p.error }

func rowsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rows TABLE",
		Short: "Print the rows of a table, as the lake holds them",
		Long: `Print the rows of a table, as the lake holds them. TABLE is namespace.name, or a name: of one that several data versions have, the rows of those that serve. All apps
have dead_letter.`,
		Args: exactArgs("the name of a table; 'millrace tables' lists them"),
	}
	output := outputFlag(cmd, "jsonl")
	limit := cmd.Flags().Int("limit", 0, "rows at most; 0 for all")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := output(); err != nil {
			return err
		}
		return printRows(cmd, api.TablesPath+"/"+url.PathEscape(args[0])+"/rows", url.Values{}, api.RowsQuery{Table: args[0], Limit: *limit})
	}
	return cmd
}

// rawTables are the tables of the raw lake by the kind of their items, from record.Event on.
var rawTables = []string{"events", "entities", "rejects"}

func rawCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "raw",
		Short: "Print what the raw lake keeps, with the exact bytes",
		Long: `Print what the raw lake keeps, one JSON object a line. Its member "bytes" is a string that holds exactly the bytes that were
sent; where they are not UTF-8 it is "bytes_base64" instead.`,
		Args: exactArgs(),
	}
	output := outputFlag(cmd, "jsonl")
	kind := cmd.Flags().String("kind", "", "event, entity or reject; all when left out")
	limit := cmd.Flags().Int("limit", 0, "rows of a kind at most; 0 for all")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if _, err := output(); err != nil {
			return err
		}
		if _, ok := record.ParseKind(*kind); !ok && *kind != "" {
			return usagef("--kind %q: want event, entity or reject", *kind)
		}
		query := url.Values{}
		if *kind != "" {
			query.Set("kind", *kind)
		}
		return printRows(cmd, api.RawPath, query, api.RowsQuery{Kind: *kind, Limit: *limit})
	}
	return cmd
}

// printRows prints rows of what is asked: of an address, or of a data directory.
func printRows(cmd *cobra.Command, path string, query url.Values, q api.RowsQuery) (err error) {
	if q.Limit < 0 {
		return usagef("--limit %d: want a number of rows, or 0 for all", q.Limit)
	}
	w := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
	defer func() { err = errors.Join(err, w.Flush()) }()
	return withRows(cmd, func(ctx context.Context, l *lake.Lake) error {
		rows, err := rowsOf(ctx, l, func(ctx context.Context) ([]string, error) {
			dir, err := readDataDir(dataDirFlag(cmd))
			if err != nil {
				return nil, err
			}
			return servingNamespaces(ctx, dir)
		}, "", q)
		if err != nil {
			return err
		}
		return printLines(w, rows)
	}, func(ctx context.Context, c client) error {
		query.Set("limit", strconv.Itoa(q.Limit))
		req, err := c.request(ctx, http.MethodGet, path+"?"+query.Encode(), http.NoBody)
		if err != nil {
			return err
		}
		req.Header.Set("Accept", api.JSONL)
		res, err := c.roundTrip(req)
		if err != nil {
			return err
		}
		defer func() { _ = res.Body.Close() }() // it was only read
		if _, err := io.Copy(w, res.Body); err != nil {
			return fmt.Errorf("what is printed is not all: %w", c.away(err))
		}
		return nil
	})
}

// appendRow appends a row as a JSON object with its members in the order of the columns.
func appendRow(dst []byte, columns []plan.Column, row lake.Row) ([]byte, error) {
	dst = append(dst, '{')
	for i, c := range columns {
		if i > 0 {
			dst = append(dst, ',')
		}
		name, v := c.Name, row[c.Name]
		switch value := v.(type) {
		case []byte:
			if utf8.Valid(value) {
				v = string(value)
			} else {
				name, v = name+"_base64", base64.StdEncoding.EncodeToString(value)
			}
		case time.Time:
			v = value.Format(time.RFC3339Nano)
		}
		b, err := marshal(v)
		if err != nil {
			return dst, fmt.Errorf("column %s: %w", c.Name, err)
		}
		dst = append(append(append(dst, '"'), name...), '"', ':')
		dst = append(dst, b...)
	}
	return append(dst, '}'), nil
}

// marshal is json.Marshal that leaves <, > and & as they are.
func marshal(v any) ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return slices.Clip([]byte(strings.TrimSuffix(b.String(), "\n"))), err
}
