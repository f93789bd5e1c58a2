package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"millrace/artifact"
	"millrace/ingest"
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
		return withLake(cmd, func(ctx context.Context, l *lake.Lake) error {
			names, err := l.Tables(ctx)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			if format == "table" {
				fmt.Fprintln(w, "NAMESPACE\tTABLE\tROWS\tFILES\tBYTES\tSNAPSHOTS\tCOMPACTED")
			}
			for _, n := range names {
				row, err := tableSize(ctx, l, n)
				if err != nil {
					return err
				}
				if format == "jsonl" {
					if err := json.NewEncoder(cmd.OutOrStdout()).Encode(row); err != nil {
						return err
					}
					continue
				}
				compacted := "never"
				if !row.Compacted.IsZero() {
					compacted = instant(row.Compacted)
				}
				fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%s\n", row.Namespace, row.Table, row.Rows, row.Files, row.Bytes, row.Snapshots, compacted)
			}
			return w.Flush()
		})
	}
	return cmd
}

type sizeOfTable struct {
	Namespace string `json:"namespace"`
	Table     string `json:"table"`
	Rows      int64  `json:"rows"`
	Files     int    `json:"files"`
	Bytes     int64  `json:"bytes"`

	Snapshots int       `json:"snapshots"`          // that are kept
	Compacted time.Time `json:"compacted,omitzero"` // when files were last joined
}

func tableSize(ctx context.Context, l *lake.Lake, n lake.Name) (sizeOfTable, error) {
	out := sizeOfTable{Namespace: n.Namespace, Table: n.Table}
	t, err := l.Lookup(ctx, n)
	if err != nil {
		return out, err
	}
	if out.Rows, err = t.Count(ctx); err != nil {
		return out, err
	}
	files, err := t.Files(ctx)
	if err != nil {
		return out, err
	}
	for _, f := range files {
		out.Files++
		out.Bytes += f.Bytes
	}
	u, err := t.Upkeep(ctx)
	out.Snapshots, out.Compacted = u.Snapshots, u.Compacted
	return out, err
}

func rowsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rows TABLE",
		Short: "Print the rows of a table, as the lake holds them",
		Args:  exactArgs("the name of a table; 'millrace tables' lists them"),
	}
	output := outputFlag(cmd, "jsonl")
	limit := cmd.Flags().Int("limit", 0, "rows at most; 0 for all")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := output(); err != nil {
			return err
		}
		if *limit < 0 {
			return usagef("--limit %d: want a number of rows, or 0 for all", *limit)
		}
		return withLake(cmd, func(ctx context.Context, l *lake.Lake) error {
			t, err := findTable(ctx, dataDirFlag(cmd), l, args[0])
			if err != nil {
				return err
			}
			return printRows(ctx, cmd.OutOrStdout(), t, lake.ScanOptions{Limit: *limit})
		})
	}
	return cmd
}

// findTable finds a table by namespace.name, or by its name: then it is the one of the data version that serves, if there are several.
func findTable(ctx context.Context, dataDir string, l *lake.Lake, name string) (*lake.Table, error) {
	names, err := l.Tables(ctx)
	if err != nil {
		return nil, err
	}
	var found []lake.Name
	var all []string
	for _, n := range names {
		all = append(all, n.String())
		if n.String() == name || n.Table == name {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("there is no table %q; the lake has %s", name, strings.Join(all, ", "))
	case 1:
		return l.Lookup(ctx, found[0])
	}
	dir, err := readDataDir(dataDir)
	if err != nil {
		return nil, err
	}
	serving, err := servingNamespaces(ctx, dir)
	if err != nil {
		return nil, err
	}
	all = all[:0]
	var served []lake.Name
	for _, n := range found {
		if slices.Contains(serving, n.Namespace) {
			served = append(served, n)
		}
		all = append(all, n.String())
	}
	if len(served) == 1 {
		return l.Lookup(ctx, served[0])
	}
	return nil, fmt.Errorf("table %q is in several namespaces; name one: %s", name, strings.Join(all, ", "))
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
		if *limit < 0 {
			return usagef("--limit %d: want a number of rows, or 0 for all", *limit)
		}
		tables := rawTables
		if *kind != "" {
			k, ok := record.ParseKind(*kind)
			if !ok {
				return usagef("--kind %q: want event, entity or reject", *kind)
			}
			tables = tables[k-record.Event : k-record.Event+1]
		}
		return withLake(cmd, func(ctx context.Context, l *lake.Lake) error {
			for _, name := range tables {
				t, err := l.Lookup(ctx, lake.Name{Namespace: ingest.Namespace, Table: name})
				if errors.Is(err, lake.ErrNotFound) {
					continue
				}
				if err != nil {
					return err
				}
				if err := printRows(ctx, cmd.OutOrStdout(), t, lake.ScanOptions{Limit: *limit}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return cmd
}

func printRows(ctx context.Context, out io.Writer, t *lake.Table, opts lake.ScanOptions) error {
	w := bufio.NewWriterSize(out, 64<<10)
	columns := t.Columns()
	for row, err := range t.Scan(ctx, opts) {
		if err != nil {
			return errors.Join(err, w.Flush())
		}
		line, err := appendRow(nil, columns, row)
		if err != nil {
			return err
		}
		if _, err := w.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return w.Flush()
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
