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
	"iter"
	"net/http"
	"net/url"
	"time"

	"github.com/elastic/elastic-transport-go/v8/elastictransport"
)

// ErrNotFound means that an index does not exist: no row of the table was published yet.
var ErrNotFound = errors.New("not found")

// ErrForeign means that an index holds documents that no sink of this program writes.
var ErrForeign = errors.New("it was not written by this program; restore the index from a backup")

// Index asks an index.
type Index struct {
	transport elastictransport.Interface
	account   string // of the documents that there are for it; empty: all
}

// Of is the index as if it held the documents of one account alone, or for an empty one those of all.
func (x *Index) Of(account string) *Index { return &Index{x.transport, account} }

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
	return &Index{transport: t}, nil
}

// Ping returns an error unless the index answers.
func (x *Index) Ping(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/", http.NoBody)
	if err != nil {
		return err
	}
	res, err := x.transport.Perform(req)
	if err != nil {
		return fmt.Errorf("it does not answer: %w", err)
	}
	defer func() { _ = res.Body.Close() }() // it was only asked
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("it answered %s", res.Status)
	}
	return nil
}

// Row is a document of a table's index: its source.
type Row map[string]any

// Totals are what there is to say of all rows of a table.
type Totals struct {
	Rows   int64
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
			Newest struct {
				Value *float64 `json:"value"` // milliseconds since 1970
			} `json:"newest"`
		} `json:"aggregations"`
	}
	err := x.search(ctx, table, map[string]any{
		"size": 0, "track_total_hits": true,
		"aggs": map[string]any{
			"newest": map[string]any{"max": map[string]any{"field": "_event_time"}},
		},
	}, &answer)
	if err != nil {
		return Totals{}, err
	}
	t := Totals{Rows: answer.Hits.Total.Value}
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

// Document is a document as the index holds it.
type Document struct {
	ID      string
	Version uint64
	Source  json.RawMessage
}

// pageSize is how many documents are asked for at once.
const pageSize = 2000

// Documents yields all documents of a table, in the order of a keyword field of which each has a value of its own, such as row_id of
// the documents that sink/elastic writes. A document that has none, or another one's, is an error that matches ErrForeign: documents
// may have been left out. After an error it ends.
func (x *Index) Documents(ctx context.Context, table, by string) iter.Seq2[Document, error] {
	return func(yield func(Document, error) bool) {
		var read, total int64
		last := ""
		for {
			hits, counted, err := x.page(ctx, table, by, read > 0, last)
			if err != nil {
				yield(Document{}, err)
				return
			}
			if read == 0 {
				total = counted
			}
			for _, h := range hits {
				var key string
				if len(h.Sort) != 1 || json.Unmarshal(h.Sort[0], &key) != nil || string(h.Sort[0]) == "null" || read > 0 && key <= last {
					yield(Document{}, fmt.Errorf("read all of %s: document %s has no %s of its own: %w", table, h.ID, by, ErrForeign))
					return
				}
				read, last = read+1, key
				if !yield(Document{h.ID, h.Version, h.Source}, nil) {
					return
				}
			}
			if len(hits) == pageSize {
				continue
			}
			if read != total {
				yield(Document{}, fmt.Errorf("read all of %s: it has %d documents, of which only %d have a %s of their own: %w", table, total, read, by, ErrForeign))
			}
			return
		}
	}
}

// hit is a document of an answer.
type hit struct {
	ID      string            `json:"_id"`
	Version uint64            `json:"_version"`
	Source  json.RawMessage   `json:"_source"`
	Sort    []json.RawMessage `json:"sort"`
}

// page asks for the first documents, and how many there are in all, or for those that come after one.
func (x *Index) page(ctx context.Context, table, by string, more bool, after string) (hits []hit, total int64, err error) {
	var answer struct {
		Hits struct {
			Total struct {
				Value int64 `json:"value"`
			} `json:"total"`
			Hits []hit `json:"hits"`
		} `json:"hits"`
	}
	body := map[string]any{"size": pageSize, "sort": []any{map[string]any{by: "asc"}}, "version": true, "track_total_hits": !more}
	if more {
		body["search_after"] = []any{after}
	}
	err = x.search(ctx, table, body, &answer)
	return answer.Hits.Hits, answer.Hits.Total.Value, err
}

// search asks for all shards or an error: a count without some of them would be taken for the truth. Whatever is asked for is asked of the documents of the
// account: every search goes this way.
func (x *Index) search(ctx context.Context, table string, body map[string]any, answer any) error {
	if x.account != "" {
		only := map[string]any{"filter": map[string]any{"term": map[string]any{"account_id": x.account}}}
		if query, ok := body["query"]; ok {
			only["must"] = query
		}
		body["query"] = map[string]any{"bool": only}
	}
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
