// Package delivery reads what sinks wrote: the index, for pages and for the ledger, and the lake, for SQL.
//
// The one idea: what a reader sees is asked from the very things that the sinks wrote. The index is asked through Elasticsearch's API, so
// that it is the same answer from the embedded index, Elasticsearch and OpenSearch; of the lake an embedded DuckDB reads the Parquet
// files that a snapshot names. The package writes nothing there.
package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/elastic/elastic-transport-go/v8/elastictransport"
)

// ErrNotFound means that an index does not exist: no row of the table was published yet.
var ErrNotFound = errors.New("not found")

// Index asks an index.
type Index struct {
	transport elastictransport.Interface
}

// NewIndex returns an Index at a URL.
func NewIndex(address string) (*Index, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("index url %q: %w", address, err)
	}
	t, err := elastictransport.NewClient(elastictransport.WithURLs(u))
	if err != nil {
		return nil, fmt.Errorf("index at %s: %w", address, err)
	}
	return &Index{t}, nil
}

// Row is a document of a table's index: its source.
type Row map[string]any

// Totals are sums over all rows of a table, by which two stores of one table are compared.
type Totals struct {
	Rows   int64
	RevSum int64 // of _rev
	Newest time.Time
}

// Totals sums up a table's rows.
func (x *Index) Totals(ctx context.Context, table string) (Totals, error) {
	var answer struct {
		Hits struct {
			Total struct {
				Value int64 `json:"value"`
			} `json:"total"`
		} `json:"hits"`
		Aggregations struct {
			Rev struct {
				Value *float64 `json:"value"`
			} `json:"rev"`
			Newest struct {
				Value *float64 `json:"value"` // milliseconds since 1970
			} `json:"newest"`
		} `json:"aggregations"`
	}
	err := x.search(ctx, table, map[string]any{
		"size": 0, "track_total_hits": true,
		"aggs": map[string]any{
			"rev":    map[string]any{"sum": map[string]any{"field": "_rev"}},
			"newest": map[string]any{"max": map[string]any{"field": "_event_time"}},
		},
	}, &answer)
	if err != nil {
		return Totals{}, err
	}
	t := Totals{Rows: answer.Hits.Total.Value}
	if v := answer.Aggregations.Rev.Value; v != nil {
		t.RevSum = int64(*v)
	}
	if v := answer.Aggregations.Newest.Value; v != nil && t.Rows > 0 {
		t.Newest = time.UnixMilli(int64(*v)).UTC()
	}
	return t, nil
}

// Newest returns the n rows of a table that were made last, newest first.
func (x *Index) Newest(ctx context.Context, table string, n int) ([]Row, error) {
	var answer struct {
		Hits struct {
			Hits []struct {
				ID     string `json:"_id"`
				Source Row    `json:"_source"`
			} `json:"hits"`
		} `json:"hits"`
	}
	err := x.search(ctx, table, map[string]any{
		"size": n,
		"sort": []any{map[string]any{"_epoch": "desc"}, map[string]any{"_event_time": "desc"}},
	}, &answer)
	if err != nil {
		return nil, err
	}
	rows := make([]Row, len(answer.Hits.Hits))
	for i, h := range answer.Hits.Hits {
		rows[i] = h.Source
		rows[i]["_id"] = h.ID
	}
	return rows, nil
}

// Count is how many rows a group has.
type Count struct {
	Key   string
	Count int64
}

// Without are rows that are not counted: those that have one of the values in a keyword column.
type Without struct {
	Column string
	Values []string
}

// CountBy counts a table's rows by a keyword column: the most frequent values first, at most 1,000 of them.
func (x *Index) CountBy(ctx context.Context, table, column string, without Without) ([]Count, error) {
	var answer struct {
		Aggregations struct {
			By struct {
				Buckets []struct {
					Key   string `json:"key"`
					Count int64  `json:"doc_count"`
				} `json:"buckets"`
			} `json:"by"`
		} `json:"aggregations"`
	}
	search := map[string]any{
		"size": 0, "aggs": map[string]any{"by": map[string]any{"terms": map[string]any{"field": column, "size": 1000}}},
	}
	if without.Column != "" {
		search["query"] = map[string]any{"bool": map[string]any{"must_not": map[string]any{"terms": map[string]any{without.Column: without.Values}}}}
	}
	err := x.search(ctx, table, search, &answer)
	if err != nil {
		return nil, err
	}
	var out []Count
	for _, b := range answer.Aggregations.By.Buckets {
		out = append(out, Count{b.Key, b.Count})
	}
	return out, nil
}

// search asks for all shards or an error: a count without some of them would be taken for the truth.
func (x *Index) search(ctx context.Context, table string, body any, answer any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("search %s: %w", table, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "/"+url.PathEscape(table)+"/_search?allow_partial_search_results=false", bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("search %s: %w", table, err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := x.transport.Perform(req)
	if err != nil {
		return fmt.Errorf("search %s: %w", table, err)
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return fmt.Errorf("search %s: %w", table, ErrNotFound)
	default:
		text, _ := io.ReadAll(io.LimitReader(res.Body, 1000)) // what can be read of it says enough
		return fmt.Errorf("search %s: the index answered %s: %s", table, res.Status, text)
	}
	if err := json.NewDecoder(res.Body).Decode(answer); err != nil {
		return fmt.Errorf("search %s: %w", table, err)
	}
	return nil
}
