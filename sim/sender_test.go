package sim_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"millrace/caliper"
	"millrace/sim"
)

const key = "mr_secret"

// collector keeps what it is sent, as the real one does, and misbehaves on request.
type collector struct {
	// fault is asked before each request, with its number from 0: drop closes the connection without an answer, and
	// store says whether the body is kept all the same; a status other than 0 is answered instead of 200.
	fault func(n int) (status int, drop, store bool)

	mu       sync.Mutex
	requests int
	items    map[string]int // deliveries of good items, by bytes
	rejects  map[string]int // of quarantined items and refused payloads
	bearer   int
	raw      int
	gzipped  int
	problem  string // what a sensor would not do
	inflight map[string]bool
}

func newCollector() *collector {
	return &collector{items: map[string]int{}, rejects: map[string]int{}, inflight: map[string]bool{}}
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	in := io.Reader(r.Body)
	zipped := r.Header.Get("Content-Encoding") == "gzip"
	if zipped {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		in = z
	}
	body, err := io.ReadAll(in)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	n := c.requests
	c.requests++
	c.mu.Unlock()
	status, drop, store := 0, false, true
	if c.fault != nil {
		status, drop, store = c.fault(n)
	}
	env, err := caliper.ReadEnvelope(body)
	c.mu.Lock()
	switch auth := r.Header.Get("Authorization"); auth {
	case "Bearer " + key:
		c.bearer++
	case key:
		c.raw++
	default:
		c.problem = "Authorization is " + auth
	}
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") || r.Header.Get("User-Agent") == "" {
		c.problem = "headers are " + strings.Join([]string{r.Header.Get("Content-Type"), r.Header.Get("User-Agent")}, ", ")
	}
	if zipped {
		c.gzipped++
	}
	if store && err != nil {
		c.rejects[string(body)]++
	}
	if store && err == nil {
		for _, it := range env.Items {
			if it.Err != nil {
				c.rejects[string(it.Raw)]++
			} else {
				c.items[string(it.Raw)]++
			}
		}
	}
	c.mu.Unlock()
	switch {
	case drop:
		panic(http.ErrAbortHandler)
	case status != 0:
		http.Error(w, "not now", status)
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

func sum(m map[string]int) (n int64) {
	for _, v := range m {
		n += int64(v)
	}
	return n
}

// holds checks that the collector has exactly what the state's ledger says, and returns how many deliveries are more.
func (c *collector) holds(t *testing.T, cfg sim.Config, st sim.State) (extra int64) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	require.Empty(t, c.problem)
	require.True(t, st.Settled(), "%+v", st)
	deliveries, err := st.Deliveries(cfg)
	require.NoError(t, err)
	items, rejects := map[string]int{}, map[string]int{}
	var replayed []sim.Post
	for p := range deliveries {
		replayed = append(replayed, p.Post)
		if p.Broken {
			rejects[string(p.Body)]++
		}
		for _, e := range p.Items {
			raw := string(p.Body[e.From:e.To])
			if e.Kind.String() == "reject" {
				rejects[raw]++
			} else {
				items[raw]++
			}
		}
	}
	require.Equal(t, sim.Count(replayed), st.Ledger)
	require.Len(t, replayed, int(st.Cursor.Position))
	require.Equal(t, keys(items), keys(c.items))
	require.Equal(t, keys(rejects), keys(c.rejects))
	require.Equal(t, sum(items), st.Ledger.Items)
	require.Equal(t, sum(rejects), st.Ledger.Rejects())
	require.Equal(t, int64(len(c.items)), st.Ledger.Distinct.Events+st.Ledger.Distinct.Entities)
	c.within(t, cfg, st)
	return sum(c.items) + sum(c.rejects) - st.Ledger.Items - st.Ledger.Rejects()
}

// within checks that the collector has each item as often as the state says. c.mu is held.
func (c *collector) within(t *testing.T, cfg sim.Config, st sim.State) {
	t.Helper()
	deliveries, err := st.Deliveries(cfg)
	require.NoError(t, err)
	least, most := map[string]int64{}, map[string]int64{}
	for d := range deliveries {
		bodies := []string{}
		if d.Broken {
			bodies = append(bodies, string(d.Body))
		}
		for _, e := range d.Items {
			bodies = append(bodies, string(d.Body[e.From:e.To]))
		}
		for _, b := range bodies {
			least[b] += d.Least
			most[b] += d.Most
		}
	}
	for _, has := range []map[string]int{c.items, c.rejects} {
		for body, n := range has {
			require.GreaterOrEqual(t, int64(n), least[body], body)
			require.LessOrEqual(t, int64(n), most[body], body)
			delete(least, body)
		}
	}
	for body, n := range least {
		require.Zero(t, n, "the collector has no %s", body)
	}
}

func keys(m map[string]int) map[string]bool {
	out := make(map[string]bool, len(m))
	for k := range m {
		out[k] = true
	}
	return out
}

func sender(t *testing.T, url string, change func(*sim.SenderConfig)) *sim.Sender {
	t.Helper()
	cfg := sim.SenderConfig{District: small(23), URL: url, Key: key, Rate: 1e9, StateFile: filepath.Join(t.TempDir(), "sim.json")}
	if change != nil {
		change(&cfg)
	}
	s, err := sim.NewSender(cfg)
	require.NoError(t, err)
	return s
}

// finishAfter returns a fault function that calls finish at the n-th request, and otherwise asks next.
func finishAfter(n int, finish func(), next func(int) (int, bool, bool)) func(int) (int, bool, bool) {
	return func(i int) (int, bool, bool) {
		if i == n {
			finish()
		}
		if next == nil {
			return 0, false, true
		}
		return next(i)
	}
}

func TestLedgerIsWhatTheCollectorHas(t *testing.T) {
	t.Parallel()
	c := newCollector()
	srv := httptest.NewServer(c)
	defer srv.Close()
	s := sender(t, srv.URL, nil)
	c.fault = finishAfter(400, s.Finish, nil)
	require.NoError(t, s.Run(t.Context()))
	st, _ := s.Snapshot()
	require.Zero(t, c.holds(t, small(23), st))
	require.Empty(t, st.Unsure)
	require.Positive(t, c.bearer)
	require.Positive(t, c.raw)
	require.Positive(t, c.gzipped)
}

// Posts that are not answered, or answered with a failure, are sent again: nothing is missing then, and what may be there
// more than once is known, post by post. One that was certainly not kept is not among it.
func TestFaultsAreRetried(t *testing.T) {
	t.Parallel()
	c := newCollector()
	srv := httptest.NewServer(c)
	defer srv.Close()
	metrics := prometheus.NewRegistry()
	s := sender(t, srv.URL, func(cfg *sim.SenderConfig) { cfg.Registerer = metrics })
	var lost atomic.Int64
	c.fault = finishAfter(300, s.Finish, func(n int) (int, bool, bool) {
		switch n % 31 {
		case 3:
			lost.Add(1)
			return http.StatusServiceUnavailable, false, false
		case 11:
			lost.Add(1)
			return 0, true, false // lost on the way
		case 19:
			lost.Add(1)
			return 0, true, true // its answer is lost
		case 27:
			return http.StatusTooManyRequests, false, false
		}
		return 0, false, true
	})
	require.NoError(t, s.Run(t.Context()))
	st, _ := s.Snapshot()
	extra := c.holds(t, small(23), st)
	require.Positive(t, extra)
	unsure := int64(0)
	for _, r := range st.Unsure {
		require.Equal(t, r.From+1, r.To)
		unsure += r.Times
	}
	require.EqualValues(t, lost.Load(), unsure, "answers that did not come, or were 503")

	sums := map[string]float64{}
	families, err := metrics.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			sums[f.GetName()] += m.GetCounter().GetValue()
		}
	}
	require.InDelta(t, st.Ledger.Items+st.Ledger.BadItems, sums["millrace_sim_items_total"], 0)
	require.Positive(t, sums["millrace_sim_retries_total"])
	require.Greater(t, sums["millrace_sim_posts_total"], float64(st.Ledger.Envelopes))
}

func TestPosterSaysWhatWentWrong(t *testing.T) {
	t.Parallel()
	c := newCollector()
	srv := httptest.NewServer(c)
	p := sim.Poster{URL: srv.URL, Key: key}
	status, err := p.Post(t.Context(), []byte("{"), sim.PostOptions{Gzip: true, RawKey: true, UserAgent: "test"})
	require.Equal(t, http.StatusBadRequest, status)
	var refusal *sim.Refusal
	require.ErrorAs(t, err, &refusal)
	require.Contains(t, refusal.Detail, "not a Caliper envelope")
	require.False(t, refusal.Retryable())
	require.Equal(t, 1, c.raw)
	require.Equal(t, 1, c.gzipped)

	srv.Close()
	status, err = p.Post(t.Context(), []byte("{}"), sim.PostOptions{})
	require.Zero(t, status)
	require.ErrorContains(t, err, "post to "+srv.URL)
	require.NotErrorAs(t, err, &refusal)
	require.NotContains(t, err.Error(), key)
}

// A kill leaves the state file as it was at that moment. Going on from it loses nothing, however often it happens.
func TestKilledSenderGoesOn(t *testing.T) {
	t.Parallel()
	c := newCollector()
	srv := httptest.NewServer(c)
	defer srv.Close()
	file := filepath.Join(t.TempDir(), "sim.json")
	const rounds = 8
	for round := range rounds {
		s := sender(t, srv.URL, func(cfg *sim.SenderConfig) { cfg.StateFile = file })
		ctx, kill := context.WithCancel(t.Context())
		c.mu.Lock()
		begin := c.requests
		c.mu.Unlock()
		var killed []byte
		var once sync.Once
		c.fault = func(n int) (int, bool, bool) {
			switch {
			case round%3 == 2 && n == begin+40:
				s.Finish() // killed while it finishes
			case round == rounds-1 && n == begin+100:
				s.Finish()
			case round < rounds-1 && n >= begin+37+round*13:
				kept := false
				once.Do(func() {
					var err error
					killed, err = os.ReadFile(file)
					if err != nil {
						killed = nil
					}
					kill()
					kept = true
				})
				return 0, true, kept // what is sent after the kill is not
			}
			return 0, false, true
		}
		require.NoError(t, s.Run(ctx))
		kill()
		if round < rounds-1 && killed != nil {
			require.NoError(t, os.WriteFile(file, killed, 0o600))
			st, err := sim.ReadState(file)
			require.NoError(t, err)
			c.mu.Lock()
			c.within(t, small(23), st)
			c.mu.Unlock()
		}
	}
	st, err := sim.ReadState(file)
	require.NoError(t, err)
	extra := c.holds(t, small(23), st)
	require.Positive(t, extra)
	require.LessOrEqual(t, len(st.Unsure), rounds)
	require.NotEmpty(t, st.Unsure)
}

// A second run goes on where the first one stopped.
func TestSecondRunContinues(t *testing.T) {
	t.Parallel()
	c := newCollector()
	srv := httptest.NewServer(c)
	defer srv.Close()
	file := filepath.Join(t.TempDir(), "sim.json")
	var last int64
	for range 3 {
		s := sender(t, srv.URL, func(cfg *sim.SenderConfig) { cfg.StateFile = file })
		st, _ := s.Snapshot()
		require.Equal(t, last, st.Cursor.Position)
		c.fault = finishAfter(c.requests+150, s.Finish, nil)
		require.NoError(t, s.Run(t.Context()))
		st, _ = s.Snapshot()
		require.Greater(t, st.Cursor.Position, last+100)
		last = st.Cursor.Position
		saved, err := sim.ReadState(file)
		require.NoError(t, err)
		require.Equal(t, saved, st)
		require.Zero(t, c.holds(t, small(23), st))
	}
}

// Which posts may be there more often stays known over days whose order a Finish has changed.
func TestUnsureOverDays(t *testing.T) {
	t.Parallel()
	c := newCollector()
	file := filepath.Join(t.TempDir(), "sim.json")
	for day := 0; day < 2; {
		s := sender(t, "http://collector.example/caliper", func(cfg *sim.SenderConfig) {
			cfg.StateFile, cfg.Client = file, &http.Client{Transport: handlerTransport{c}}
		})
		c.fault = finishAfter(c.requests+700, s.Finish, func(n int) (int, bool, bool) {
			if n%97 == 0 {
				return http.StatusServiceUnavailable, false, true // kept, and not said so
			}
			return 0, false, true
		})
		require.NoError(t, s.Run(t.Context()))
		st, _ := s.Snapshot()
		day = st.Cursor.Day
	}
	st, err := sim.ReadState(file)
	require.NoError(t, err)
	require.NotEmpty(t, st.Flushes)
	require.Positive(t, c.holds(t, small(23), st))
}

func TestRefusalsStopTheSender(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"unknown key": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusUnauthorized)
			_ = json.NewEncoder(w).Encode(map[string]string{"title": "Unauthorized", "detail": "this key is not known"})
		}, "answered 401 Unauthorized: this key is not known"},
		"accepts anything": {func(http.ResponseWriter, *http.Request) {}, "accepted a payload that is no envelope"},
		"no collector":     {http.NotFound, "answered 404 Not Found: 404 page not found"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(tc.answer)
			defer srv.Close()
			err := sender(t, srv.URL, nil).Run(t.Context())
			require.ErrorContains(t, err, tc.want)
			require.ErrorContains(t, err, srv.URL)
		})
	}
}

func TestStateFileIsChecked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "sim.json")
	_, err := sim.ReadState(file)
	require.ErrorIs(t, err, fs.ErrNotExist)
	cfg := sim.SenderConfig{District: small(23), URL: "http://127.0.0.1:1", StateFile: file}
	for content, want := range map[string]string{
		`{"format":2,"cur`:                      "is damaged",
		`{"format":1}`:                          "has format 1, this version reads 2",
		`{"format":2,"district":"x","seed":24}`: "is of another district (its seed is 24, the one asked for 23)",
		`{"format":2,"cursor":{"position":-1}}`: "is damaged",
		`{"format":2} {}`:                       "is damaged",
	} {
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		_, err := sim.NewSender(cfg)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, file)
	}
	for want, change := range map[string]func(*sim.SenderConfig){
		`"localhost:80" is no address of a collector`: func(c *sim.SenderConfig) { c.URL = "localhost:80" },
		"must not be negative":                        func(c *sim.SenderConfig) { c.Rate = -1 },
		"Students is -3":                              func(c *sim.SenderConfig) { c.District.Students = -3 },
	} {
		bad := cfg
		bad.StateFile = ""
		change(&bad)
		_, err := sim.NewSender(bad)
		require.ErrorContains(t, err, want)
	}

	// A state that cannot be saved stops the run before anything is sent.
	c := newCollector()
	srv := httptest.NewServer(c)
	defer srv.Close()
	s := sender(t, srv.URL, func(cfg *sim.SenderConfig) { cfg.StateFile = filepath.Join(dir, "missing", "sim.json") })
	err = s.Run(t.Context())
	require.ErrorContains(t, err, "save simulator state")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Zero(t, c.requests)
}

// handlerTransport answers requests without a network, so that the clock can be a fake one.
type handlerTransport struct{ http.Handler }

func (h handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), nil
}

// A rate is kept to: so many items in so much time, whatever the virtual clock does.
func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCollector()
		s := sender(t, "http://collector.example/caliper", func(cfg *sim.SenderConfig) {
			cfg.Rate, cfg.Client = 200, &http.Client{Transport: handlerTransport{c}}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		require.NoError(t, s.Run(ctx))
		st, _ := s.Snapshot()
		require.InDelta(t, 200*30, st.Ledger.Items, 200)
	})
}

// With a speed, the virtual clock runs that much faster than the real one.
func TestSpeed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCollector()
		s := sender(t, "http://collector.example/caliper", func(cfg *sim.SenderConfig) {
			cfg.Rate, cfg.Speed, cfg.Client = 0, 60, &http.Client{Transport: handlerTransport{c}}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		require.NoError(t, s.Run(ctx))
		_, virtual := s.Snapshot()
		require.WithinDuration(t, time.Date(2026, 9, 14, 13, 25, 0, 0, time.UTC), virtual, 3*time.Minute)
	})
}
