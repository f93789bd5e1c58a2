package elastic

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"millrace/internal/retry"
	"millrace/plan"
	"millrace/sink"
)

// statusError is an answer of the target that is not a success.
type statusError struct {
	status int
	typ    string // of the error in its body
	reason string
}

func (e *statusError) Error() string {
	text := fmt.Sprintf("status %d", e.status)
	if e.typ != "" {
		text += " " + e.typ
	}
	if e.reason != "" {
		text += ": " + e.reason
	}
	return text
}

// passes reports a status that may be another one later.
func passes(status int) bool { return status == http.StatusTooManyRequests || status >= 500 }

// failure is the error in a response's body or in a bulk item.
type failure struct {
	Type   string `json:"type"`
	Reason string `json:"reason"`
	Cause  *struct {
		Type   string `json:"type"`
		Reason string `json:"reason"`
	} `json:"caused_by"`
}

func (f *failure) String() string {
	text := f.Type + ": " + f.Reason
	if f.Cause != nil && f.Cause.Reason != "" {
		text += ": " + f.Cause.Reason
	}
	return text
}

// policy is the configured one, which also counts and logs.
func (s *Sink) policy(what string) retry.Policy {
	p := s.config.Retry
	given := p.OnRetry
	p.OnRetry = func(attempt int, err error, wait time.Duration) {
		s.retries.Inc()
		s.config.Logger.Warn("retry", "what", what, "attempt", attempt, "wait", wait, "error", err)
		if given != nil {
			given(attempt, err, wait)
		}
	}
	return p
}

// call does one request and decodes the answer into out. A statusError is permanent unless it passes.
func (s *Sink) call(ctx context.Context, method, path, contentType string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, path, bytes.NewReader(body))
	if err != nil {
		return retry.Permanent(err)
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := s.client.Perform(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if res.StatusCode >= 300 {
		e := &statusError{status: res.StatusCode}
		var b struct {
			Error json.RawMessage `json:"error"`
		}
		var f failure
		if json.Unmarshal(answer, &b) == nil && json.Unmarshal(b.Error, &f) == nil {
			e.typ, e.reason = f.Type, f.Reason
		} else {
			e.reason = strings.TrimSpace(string(answer[:min(len(answer), 200)]))
		}
		if passes(res.StatusCode) {
			return e
		}
		return retry.Permanent(e)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%s %s was not answered by Elasticsearch or OpenSearch: %w", method, path, err)
	}
	return nil
}

// do is call, repeated while it may help.
func (s *Sink) do(ctx context.Context, method, path string, body, out any) error {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return err
		}
	}
	return retry.Do(ctx, s.policy(method+" "+path), func(ctx context.Context) error {
		return s.call(ctx, method, path, "application/json", b, out)
	})
}

// prepare makes an index with its mapping and names, or brings one that is there up to the table, and claims it.
func (s *Sink) prepare(ctx context.Context, t *table, index string) error {
	fresh := s.newClaim(index, 0)
	version := VersionAlias(t.Name, s.config.Suffix)
	aliases := map[string]any{version: map[string]any{}, fresh.alias: map[string]any{}}
	if !s.restoring {
		fresh.settled = true
		aliases[fresh.settledAlias()] = map[string]any{}
	}
	err := s.do(ctx, http.MethodPut, "/"+index, map[string]any{
		// How long the target remembers the versions of deleted documents, against late duplicates; its default is a minute.
		"settings": map[string]any{"index": map[string]any{"gc_deletes": "1h"}},
		"mappings": t.mapping,
		"aliases":  aliases,
	}, nil)
	switch {
	case err == nil:
		s.claims[index] = fresh
		// A later lineage that began meanwhile did not see the index.
		if err := s.stillFirst(ctx); err != nil {
			return errors.Join(err, s.do(ctx, http.MethodDelete, "/"+index, nil, nil))
		}
	case is(err, "resource_already_exists_exception"):
		if err = s.do(ctx, http.MethodPut, "/"+index+"/_mapping", t.mapping, nil); err == nil {
			err = s.do(ctx, http.MethodPost, "/_aliases", map[string]any{"actions": []any{addAlias(index, version)}}, nil)
		}
		if _, claimed := s.claims[index]; err == nil && !claimed {
			err = s.adopt(ctx, index)
		}
	}
	if err == nil {
		err = s.nameServing(ctx, t, index)
	}
	if err != nil {
		return fmt.Errorf("prepare index %s for table %s: %w", index, t.Name, err)
	}
	s.ready[index] = true
	return nil
}

// is reports an answer with an error of the type.
func is(err error, typ string) bool {
	var status *statusError
	return errors.As(err, &status) && status.typ == typ
}

// refresh makes what was written visible.
func (s *Sink) refresh(ctx context.Context, indices map[string]bool) error {
	names := slices.Sorted(maps.Keys(indices))
	for some := range slices.Chunk(names, 20) { // a URL has at most 4 KB
		if err := s.do(ctx, http.MethodPost, "/"+strings.Join(some, ",")+"/_refresh", nil, nil); err != nil {
			return fmt.Errorf("refresh index %s: %w", strings.Join(some, ","), err)
		}
	}
	return nil
}

// send does a bulk request until each of its documents is taken or refused, and returns those refused.
func (s *Sink) send(ctx context.Context, q request) (rejected []sink.Rejected, err error) {
	if len(q.rows) == 0 {
		return nil, nil
	}
	err = retry.Do(ctx, s.policy("bulk"), func(ctx context.Context) error {
		refused, again, err := s.attempt(ctx, &q)
		if err != nil {
			return err
		}
		rejected = append(rejected, refused...)
		if len(again.rows) > 0 {
			first := again.first
			q = again.request
			return first
		}
		return nil
	})
	var status *statusError
	if !errors.As(err, &status) || status.status != http.StatusRequestEntityTooLarge {
		if err != nil {
			err = fmt.Errorf("publish %d rows: %w", len(q.rows), err)
		}
		return rejected, err
	}
	if len(q.rows) == 1 {
		return append(rejected, s.reject(q.rows[0], fmt.Sprintf("the row's document of %d bytes is larger than the target takes: %s", len(q.body), status))), nil
	}
	// The target takes less than MaxBulkBytes.
	half := len(q.rows) / 2
	for _, part := range [][2]int{{0, half}, {half, len(q.rows)}} {
		var rows []int
		for i := part[0]; i < part[1]; i++ {
			rows = append(rows, i)
		}
		refused, err := s.send(ctx, q.pick(rows))
		rejected = append(rejected, refused...)
		if err != nil {
			return rejected, err
		}
	}
	return rejected, nil
}

// remainder is what of a request has to be sent again, and why.
type remainder struct {
	request
	first error
}

// attempt does one bulk request.
func (s *Sink) attempt(ctx context.Context, q *request) (rejected []sink.Rejected, again remainder, err error) {
	start := s.config.Now()
	var answer struct {
		Items []map[string]struct {
			Status int      `json:"status"`
			Error  *failure `json:"error"`
		} `json:"items"`
	}
	s.bytes.Add(float64(len(q.body)))
	if err := s.call(ctx, http.MethodPost, "/_bulk?require_alias=true", "application/x-ndjson", q.body, &answer); err != nil {
		return nil, again, err
	}
	s.seconds.Observe(s.config.Now().Sub(start).Seconds())
	if len(answer.Items) != len(q.rows) {
		return nil, again, retry.Permanent(fmt.Errorf("the target answered for %d of %d documents: it is not Elasticsearch or OpenSearch", len(answer.Items), len(q.rows)))
	}
	var retried []int
	for i, item := range answer.Items {
		for _, r := range item { // the one action
			switch {
			case r.Error == nil || r.Status == http.StatusConflict:
				s.documents.WithLabelValues(outcome(q.rows[i], r.Status)).Inc()
			case r.Error.Type == "index_not_found_exception":
				return nil, again, retry.Permanent(s.lost(ctx, r.Error))
			case passes(r.Status):
				if retried = append(retried, i); again.first == nil {
					again.first = fmt.Errorf("document %s: status %d %s", q.rows[i].ID, r.Status, r.Error)
				}
			default:
				rejected = append(rejected, s.reject(q.rows[i], r.Error.String()))
			}
		}
	}
	again.request = q.pick(retried)
	return rejected, again, nil
}

func outcome(r plan.Row, status int) string {
	switch {
	case status == http.StatusConflict:
		return "stale"
	case r.Deleted:
		return "deleted"
	}
	return "written"
}
