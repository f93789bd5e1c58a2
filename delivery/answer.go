package delivery

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
)

// Answer is the result of a query. It is on this machine, apart from the lake, until it is closed.
type Answer struct {
	Columns []string
	Rows    int64
	More    bool // there would be more rows than SQLConfig.Rows

	query *query
}

// Text yields the rows as text, as DuckDB writes the values; null is not valid.
func (a *Answer) Text(ctx context.Context) iter.Seq2[[]sql.NullString, error] {
	return a.rows(ctx, "%s::VARCHAR")
}

// JSON yields the rows as JSON values. What JSON has no value for is a string: bytes, times, a number that is not finite.
func (a *Answer) JSON(ctx context.Context) iter.Seq2[[]json.RawMessage, error] {
	return func(yield func([]json.RawMessage, error) bool) {
		for row, err := range a.rows(ctx, "to_json(%s)::VARCHAR") {
			if err != nil {
				yield(nil, err)
				return
			}
			values := make([]json.RawMessage, len(row))
			for i, cell := range row {
				values[i] = json.RawMessage("null")
				switch {
				case cell.Valid && json.Valid([]byte(cell.String)):
					values[i] = json.RawMessage(cell.String)
				case cell.Valid:
					quoted, err := json.Marshal(cell.String)
					if err != nil {
						panic(err) // a string
					}
					values[i] = quoted
				}
			}
			if !yield(values, nil) {
				return
			}
		}
	}
}

const (
	partRows  = 128     // rows that are read at once, at first
	partBytes = 1 << 20 // and how large that should be
)

// rows reads the result in parts, each about as large as the others whatever is in the columns.
func (a *Answer) rows(ctx context.Context, form string) iter.Seq2[[]sql.NullString, error] {
	cells := make([]string, len(a.Columns))
	for i := range cells {
		cells[i] = fmt.Sprintf(form, cellName(i))
	}
	text := "SELECT " + strings.Join(cells, ", ") + " FROM " + resultTable + " WHERE rowid >= ? AND rowid < ? ORDER BY rowid"
	return func(yield func([]sql.NullString, error) bool) {
		n := int64(partRows)
		for from := int64(0); from < a.Rows; {
			to := min(from+n, a.Rows)
			size, more, err := a.part(ctx, text, from, to, yield)
			if err != nil {
				yield(nil, a.query.fault(ctx, err))
				return
			}
			if !more {
				return
			}
			switch from = to; {
			case size < partBytes/2:
				n *= 2
			case size > partBytes*2:
				n = max(n/2, 1)
			}
		}
	}
}

func (a *Answer) part(ctx context.Context, text string, from, to int64, yield func([]sql.NullString, error) bool) (size int, more bool, err error) {
	rows, err := a.query.conn.QueryContext(ctx, text, from, to)
	if err != nil {
		return 0, false, err
	}
	defer rows.Close()
	at := make([]any, len(a.Columns))
	for rows.Next() {
		row := make([]sql.NullString, len(a.Columns))
		for i := range row {
			at[i] = &row[i]
		}
		if err := rows.Scan(at...); err != nil {
			return size, false, err
		}
		for i := range row {
			size += len(row[i].String)
		}
		if !yield(row, nil) {
			return size, false, nil
		}
	}
	return size, true, rows.Err()
}

// WriteParquet writes the rows as one Parquet file.
func (a *Answer) WriteParquet(ctx context.Context, w io.Writer) error {
	columns := make([]string, len(a.Columns))
	for i, name := range a.Columns {
		columns[i] = cellName(i) + " AS " + identifier(name)
	}
	path := filepath.Join(a.query.outDir(), "result.parquet")
	text := fmt.Sprintf("COPY (SELECT %s FROM %s LIMIT %d) TO %s (FORMAT parquet, COMPRESSION zstd)", strings.Join(columns, ", "), resultTable, a.Rows, literal(path))
	if _, err := a.query.conn.ExecContext(ctx, text); err != nil {
		return a.query.fault(ctx, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return errors.Join(err, f.Close())
}

// Close gives back what the answer holds.
func (a *Answer) Close() error { return a.query.close() }

func cellName(i int) string { return fmt.Sprintf("c%d", i) }
