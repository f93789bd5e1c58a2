package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace/engine"
	"millrace/record"
)

// Stack is everything that serve runs: collector, log, jobs, lake and index.
type Stack interface {
	CollectorURL() string
	IndexURL() string
	NewKey(ctx context.Context, account, env, sourceType string) (string, error)
	Jobs() []engine.Progress
	Run(ctx context.Context) error // until ctx ends, which is no error
	Close() error                  // after Run
}

const (
	// latencyRate is how many records a second the stack gets while latency is measured.
	latencyRate = 5000

	// sampled is how many envelopes there are to one whose first event's row is waited for.
	sampled = 5

	// searchEvery is how often rows are looked for, and how much too long a row may seem to have taken. Searching more often takes
	// a third of the processors.
	searchEvery = 20 * time.Millisecond

	// described is how many entities are described before.
	described = 20_000
)

// latency measures how long it takes from the moment that a sensor should send an event until a search finds its row. The stack has
// all its jobs, and the sensors and searches share its processors.
func (c Config) latency(ctx context.Context) (out []Measure, err error) {
	w, err := newWindow(newLoad(described), int(latencyRate*c.Turn.Seconds())*(c.Rounds+1), described)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	err = c.withStack(ctx, filepath.Join(c.Dir, "latency"), func(ctx context.Context, s Stack, key string) error {
		var half, most []float64
		var taken profiles
		each := w.len() / (c.Rounds + 1)
		for round := range c.Rounds + 1 {
			var took []time.Duration
			err := taken.take(func() (err error) {
				took, err = latencies(ctx, s, key, w, round*each, (round+1)*each)
				return err
			})
			if err != nil {
				return err
			}
			slices.Sort(took)
			p50, p99 := quantile(took, 0.5), quantile(took, 0.99)
			c.Logger.Info("latency", "round", round, "rows", len(took), "p50", p50, "p99", p99)
			if round > 0 {
				half, most = append(half, p50.Seconds()*1e3), append(most, p99.Seconds()*1e3)
			}
		}
		out = []Measure{
			{What: searchable("median"), Unit: "ms", Figure: newFigure(half)},
			{What: searchable("99 of 100"), Unit: "ms", Figure: newFigure(most)},
		}
		merged, err := taken.merge(partLatency)
		c.profile.list = append(c.profile.list, merged)
		return err
	})
	return out, err
}

func searchable(of string) string {
	return fmt.Sprintf("event to searchable row at %d records/s, %s", latencyRate, of)
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(int(math.Ceil(q*float64(len(sorted)))), len(sorted))-1]
}

// withStack runs a stack that knows the described entities, and stops it after fn.
func (c Config) withStack(ctx context.Context, dir string, fn func(ctx context.Context, s Stack, key string) error) (err error) {
	s, err := c.Stack(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	key, err := s.NewKey(ctx, account, env, sourceType)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	g, running := errgroup.WithContext(running)
	g.Go(func() error { return s.Run(running) })
	g.Go(func() error {
		defer stop()
		if err := describeAll(running, s, key); err != nil {
			return err
		}
		return fn(running, s, key)
	})
	err = g.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// describeAll posts the descriptions and waits until the jobs have read them.
func describeAll(ctx context.Context, s Stack, key string) error {
	p, err := newPoster(ctx, s.CollectorURL(), key)
	if err != nil {
		return err
	}
	l := newLoad(described)
	for at := 0; at < described; at += 100 {
		var all [][]byte
		for i := range 100 {
			b, _ := l.describe(nil, at+i)
			all = append(all, b)
		}
		if err := p.post(all); err != nil {
			return errors.Join(err, p.close())
		}
	}
	if err := p.close(); err != nil {
		return err
	}
	return untilRead(ctx, s, described)
}

// untilRead waits until all jobs have read so many records.
func untilRead(ctx context.Context, s Stack, n int64) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		behind := false
		for _, p := range s.Jobs() {
			behind = behind || p.Read < n
		}
		if !behind {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// latencies posts records from to to of w at the rate, and returns how long the sampled rows took.
func latencies(ctx context.Context, s Stack, key string, w *window, from, to int) ([]time.Duration, error) {
	tracked := &tracker{sent: map[string]sighting{}, url: s.IndexURL() + "/quiz_submission/_search"}
	g, ctx := errgroup.WithContext(ctx)
	posted := make(chan struct{})
	g.Go(func() error {
		defer close(posted)
		n := 0
		return pace(ctx, s.CollectorURL(), key, w, from, to, latencyRate, func(first int, due time.Time) {
			if n++; n%sampled == 0 && w.metas[first].kind == record.Event && !w.metas[first].waits {
				tracked.add(attempt(w.bytes(first)), sighting{due, w.metas[first].at})
			}
		})
	})
	g.Go(func() error { return tracked.run(ctx, posted) })
	err := g.Wait()
	return tracked.took, err
}

// pace posts records in envelopes at a steady rate. It tells sending the first of each, and when that was due: what comes late
// because the collector was busy counts as slow.
func pace(ctx context.Context, url, key string, w *window, from, to int, rate float64, sending func(first int, due time.Time)) error {
	type job struct{ from, to int }
	jobs := make(chan job, (to-from)/envelope+1)
	g, ctx := errgroup.WithContext(ctx)
	for range connections {
		g.Go(func() error {
			p, err := newPoster(ctx, url, key)
			if err != nil {
				return err
			}
			for j := range jobs {
				if err = p.post(w.items(j.from, j.to)); err != nil || ctx.Err() != nil {
					break
				}
			}
			return errors.Join(err, p.close())
		})
	}
	g.Go(func() error {
		defer close(jobs)
		began := time.Now()
		timer := time.NewTimer(0)
		defer timer.Stop()
		for at := from; at < to; at += envelope {
			due := began.Add(time.Duration(float64(at-from) / rate * float64(time.Second)))
			if wait := time.Until(due); wait > 0 {
				timer.Reset(wait)
				select {
				case <-timer.C:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			sending(at, due)
			jobs <- job{at, min(at+envelope, to)}
		}
		return nil
	})
	return g.Wait()
}

// attempt is the id of an event's attempt, which its row has.
func attempt(event []byte) string {
	_, rest, _ := bytes.Cut(event, []byte(`"object":{"@id":"`))
	id, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(id)
}

// tracker searches for rows until all have been found.
type tracker struct {
	url  string
	took []time.Duration

	mu   sync.Mutex
	sent map[string]sighting // by attempt
}

// sighting is what is known of an event whose row is waited for.
type sighting struct {
	due  time.Time // when it should be sent
	time int64     // its eventTime, µs since 1970
}

func (t *tracker) add(attempt string, s sighting) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent[attempt] = s
}

// pending are up to 100 of the rows that are waited for, the oldest first, and the least time of their events.
func (t *tracker) pending() (attempts []string, since int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for a := range t.sent {
		attempts = append(attempts, a)
	}
	slices.SortFunc(attempts, func(a, b string) int { return t.sent[a].due.Compare(t.sent[b].due) })
	attempts = attempts[:min(len(attempts), 100)]
	for i, a := range attempts {
		if at := t.sent[a].time; i == 0 || at < since {
			since = at
		}
	}
	return attempts, since
}

func (t *tracker) run(ctx context.Context, posted <-chan struct{}) error {
	tick := time.NewTicker(searchEvery)
	defer tick.Stop()
	for {
		wanted, since := t.pending()
		if len(wanted) > 0 {
			found, err := search(ctx, t.url, wanted, since)
			if err != nil {
				return err
			}
			now := time.Now()
			t.mu.Lock()
			for _, a := range found {
				t.took = append(t.took, now.Sub(t.sent[a].due))
				delete(t.sent, a)
			}
			t.mu.Unlock()
		} else {
			select {
			case <-posted:
				return nil
			default:
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// search returns those of the attempts that have a row. It says since when, as who looks for new rows does: without, each search reads the
// whole table.
func search(ctx context.Context, url string, attempts []string, since int64) (found []string, err error) {
	query, err := json.Marshal(map[string]any{
		"size": len(attempts), "track_total_hits": false, "_source": []string{"attemptId"}, "query": map[string]any{"bool": map[string]any{"filter": []any{
			map[string]any{"range": map[string]any{"dateAndTime": map[string]any{"gte": time.UnixMicro(since).UTC().Format(stamp)}}},
			map[string]any{"terms": map[string]any{"attemptId": attempts}},
		}}},
	})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(query))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("search the index: %w", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("search the index: %w", err)
	}
	if resp.StatusCode == http.StatusNotFound {
		return nil, nil // no row yet
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("search the index: it answered %s: %.200s", resp.Status, body)
	}
	var answer struct {
		Hits struct {
			Hits []struct {
				Source struct {
					AttemptID string `json:"attemptId"`
				} `json:"_source"`
			} `json:"hits"`
		} `json:"hits"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("search the index: %w", err)
	}
	for _, h := range answer.Hits.Hits {
		found = append(found, h.Source.AttemptID)
	}
	return found, nil
}
