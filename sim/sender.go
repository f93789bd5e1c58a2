package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"millrace/internal/retry"
)

// SenderConfig says what a Sender sends, where to, and how fast.
type SenderConfig struct {
	District Config
	URL      string       // of the collector's endpoint
	Key      string       // sensor key, the same for all sensors
	Client   *http.Client // default: see Poster

	// Rate is how many items to send per second. 0: as Speed says; when that is 0 too, 300.
	Rate float64
	// Speed is how many virtual seconds pass per second. It is not used when Rate is set.
	Speed float64

	// StateFile is where the State is kept, in an existing directory. Empty: it is forgotten.
	StateFile string

	Logger     *slog.Logger          // default: none
	Registerer prometheus.Registerer // default: none
	Now        func() time.Time      // default time.Now
}

// window is how many posts may be sent before the state is saved again: a few hundred items.
const window = 64

// queueLength is how many posts of one sensor may wait for their turn.
const queueLength = 16

// saveEvery is how often the state is saved while nothing else asks for it.
const saveEvery = time.Second

// Sender posts a district's sequence: each sensor its posts one after the other, the sensors at the same time.
// A post that is not answered is sent again, with the same bytes, until it is.
type Sender struct {
	cfg      SenderConfig
	poster   Poster
	log      *slog.Logger
	district *District
	queues   []chan *Post
	finish   chan struct{}
	once     sync.Once
	progress chan struct{} // a post has been acknowledged

	posts   *prometheus.CounterVec
	items   prometheus.Counter
	retries prometheus.Counter

	saving sync.Mutex // one save at a time

	mu           sync.Mutex
	state        State           // what a save writes
	acknowledged map[int64]*Post // after the cursor
	resend       int64           // posts before it may have been sent by an earlier run
	resent       bool            // the state says that they are sent again
	dispatched   int64           // posts before it have been queued
	virtual      time.Time
}

// NewSender returns a Sender that goes on where the state file says. It sends nothing yet.
func NewSender(cfg SenderConfig) (*Sender, error) {
	cfg.District = cfg.District.withDefaults()
	if err := cfg.District.validate(); err != nil {
		return nil, err
	}
	if cfg.Rate < 0 || cfg.Speed < 0 {
		return nil, fmt.Errorf("simulator: rate %g and speed %g must not be negative", cfg.Rate, cfg.Speed)
	}
	if u, err := url.Parse(cfg.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("simulator: %q is no address of a collector; give one such as http://127.0.0.1:8420/caliper", cfg.URL)
	}
	if cfg.Rate == 0 && cfg.Speed == 0 {
		cfg.Rate = 300
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	state, err := loadState(cfg.StateFile, cfg.District)
	if err != nil {
		return nil, err
	}
	d, err := Resume(cfg.District, state.Cursor)
	if err != nil {
		return nil, err
	}
	s := &Sender{
		cfg: cfg, poster: Poster{URL: cfg.URL, Key: cfg.Key, Client: cfg.Client}, log: cfg.Logger, district: d,
		queues: make([]chan *Post, len(d.w.sensors)), finish: make(chan struct{}), progress: make(chan struct{}, 1), state: state,
		acknowledged: map[int64]*Post{}, resend: state.Intent, dispatched: state.Cursor.Position, virtual: cfg.District.Start,
		posts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_sim_posts_total", Help: "Posts that the collector has answered, by status.",
		}, []string{"status"}),
		items: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "millrace_sim_items_total", Help: "Items in posts that the collector has answered 200.",
		}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "millrace_sim_retries_total", Help: "Posts sent again because they were not answered or answered with a failure.",
		}),
	}
	for i := range s.queues {
		s.queues[i] = make(chan *Post, queueLength)
	}
	if cfg.Registerer != nil {
		for _, c := range []prometheus.Collector{s.posts, s.items, s.retries} {
			if err := cfg.Registerer.Register(c); err != nil {
				return nil, fmt.Errorf("register the simulator's metrics: %w", err)
			}
		}
	}
	return s, nil
}

// Finish makes Run stop: the district does nothing new, everything that is held back is sent, and Run returns when all of
// it is acknowledged. It returns at once and may be called often.
func (s *Sender) Finish() { s.once.Do(func() { close(s.finish) }) }

// Snapshot returns the state as it stands, and the virtual time of the newest post.
func (s *Sender) Snapshot() (State, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot(), s.virtual
}

// Hold calls fn while the state file stays as it is: nothing is posted that it does not know of, and what it takes for acknowledged is.
func (s *Sender) Hold(fn func() error) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	return fn()
}

func (s *Sender) snapshot() State {
	st := s.state
	st.Ledger = st.Ledger.clone()
	st.Unsure, st.Flushes = slices.Clone(st.Unsure), maps.Clone(st.Flushes)
	return st
}

// Run sends until ctx ends or Finish is called, and returns nil then. It returns an error when the collector refuses
// something that it must accept, accepts something that it must refuse, or when the state cannot be saved. It saves the
// state before it returns. A Sender runs once.
func (s *Sender) Run(ctx context.Context) error {
	s.log.Info("simulator started", "seed", s.cfg.District.Seed, "position", s.state.Cursor.Position, "students", s.cfg.District.Students)
	g, gctx := errgroup.WithContext(ctx)
	saver, stopSaver := context.WithCancel(gctx)
	defer stopSaver()
	g.Go(func() error { return s.saveRegularly(saver) })
	g.Go(func() error {
		defer stopSaver()
		return s.sendAll(gctx)
	})
	err := g.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		err = nil
	}
	s.mu.Lock()
	// What was reserved and not used has certainly not been sent.
	s.state.Intent = max(s.dispatched, s.resend)
	s.mu.Unlock()
	err = errors.Join(err, s.save())
	st, _ := s.Snapshot()
	s.log.Info("simulator stopped", "position", st.Cursor.Position, "items", st.Ledger.Items)
	return err
}

// sendAll queues posts until it is told to stop, then what a Finish flushes.
func (s *Sender) sendAll(ctx context.Context) error {
	workers, wctx := errgroup.WithContext(ctx)
	for _, q := range s.queues {
		workers.Go(func() error {
			for p := range q {
				if err := s.deliver(wctx, p); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := s.dispatch(wctx)
	for _, q := range s.queues {
		close(q)
	}
	// A worker's error ends wctx, and with it the dispatch: it is the cause.
	if werr := workers.Wait(); werr != nil && !errors.Is(werr, context.Canceled) {
		return werr
	}
	return err
}

func (s *Sender) dispatch(ctx context.Context) error {
	pace := pacer{rate: s.cfg.Rate, speed: s.cfg.Speed, now: s.cfg.Now}
	for !s.mayFinish() {
		p := s.district.Next()
		if err := pace.wait(ctx, &p, s.finish); err != nil {
			return err
		}
		if err := s.queue(ctx, &p); err != nil {
			return err
		}
	}
	// The flush is part of what determines the sequence: it is saved before the first post after it is sent, and with a
	// cursor that has come so far.
	if err := s.acknowledgedAll(ctx); err != nil {
		return err
	}
	held := s.district.Finish()
	s.log.Info("simulator finishes", "held_back", held)
	s.mu.Lock()
	s.state.Cursor = s.district.Cursor()
	s.mu.Unlock()
	if err := s.save(); err != nil {
		return err
	}
	for range held {
		p := s.district.Next()
		if err := s.queue(ctx, &p); err != nil {
			return err
		}
	}
	return nil
}

// mayFinish reports whether Finish was called and nothing is left of what an earlier run may have sent.
func (s *Sender) mayFinish() bool {
	select {
	case <-s.finish:
		return s.district.Cursor().Position >= s.resend
	default:
		return false
	}
}

// queue gives a post to its sensor, after the state says that it may be sent, and that it may have been before.
func (s *Sender) queue(ctx context.Context, p *Post) error {
	s.mu.Lock()
	reserve := p.Position >= s.state.Intent
	if reserve {
		s.state.Intent = p.Position + window
	}
	again := p.Position < s.resend && !s.resent
	if again {
		s.resent = true
		s.state.Unsure = append(s.state.Unsure, Resent{p.Position, s.resend, 1})
	}
	s.dispatched = p.Position + 1
	s.virtual = p.At
	s.mu.Unlock()
	if reserve || again {
		if err := s.save(); err != nil {
			return err
		}
	}
	select {
	case s.queues[p.Sensor] <- p:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// deliver posts p until it is answered as it must be.
func (s *Sender) deliver(ctx context.Context, p *Post) error {
	opts := PostOptions{ContentType: p.ContentType, UserAgent: p.UserAgent, Gzip: p.Gzip, RawKey: !p.Bearer}
	policy := retry.Policy{Min: 50 * time.Millisecond, Max: 2 * time.Second, OnRetry: func(attempt int, err error, _ time.Duration) {
		s.retries.Inc()
		if attempt == 1 {
			s.log.Debug("post not accepted, sending again", "position", p.Position, "error", err)
		}
	}}
	unsure := false
	err := retry.Do(ctx, policy, func(ctx context.Context) error {
		if unsure {
			if err := s.unsure(p); err != nil {
				return retry.Permanent(err)
			}
		}
		status, err := s.poster.Post(ctx, p.Body, opts)
		unsure = mayHaveArrived(err)
		if status != 0 {
			s.posts.WithLabelValues(strconv.Itoa(status)).Inc()
		}
		var refusal *Refusal
		switch {
		case err == nil && p.Broken:
			return retry.Permanent(errors.New("accepted a payload that is no envelope"))
		case errors.As(err, &refusal) && p.Broken && status == http.StatusBadRequest:
			return nil
		case errors.As(err, &refusal) && !refusal.Retryable():
			return retry.Permanent(err)
		}
		return err
	})
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		return fmt.Errorf("post %d of the simulator: collector at %s: %w", p.Position, s.cfg.URL, err)
	}
	s.acknowledge(p)
	return nil
}

// mayHaveArrived reports whether what a failed request posted may be kept all the same.
func mayHaveArrived(err error) bool {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return refusal.Status >= 500 // the others were refused before anything was kept
	}
	var network *net.OpError
	return !errors.As(err, &network) || network.Op != "dial"
}

// unsure notes that the collector may get the post once more than it is acknowledged, before it is sent again.
func (s *Sender) unsure(p *Post) error {
	s.mu.Lock()
	one := Resent{p.Position, p.Position + 1, 1}
	at := slices.IndexFunc(s.state.Unsure, func(r Resent) bool { return r.From == one.From && r.To == one.To })
	if at < 0 {
		s.state.Unsure = append(s.state.Unsure, one)
	} else {
		s.state.Unsure[at].Times++
	}
	s.mu.Unlock()
	return s.save()
}

// acknowledge moves the state's cursor over all posts up to the first that is not acknowledged.
func (s *Sender) acknowledge(p *Post) {
	s.items.Add(float64(len(p.Items)))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acknowledged[p.Position] = p
	for {
		next, ok := s.acknowledged[s.state.Cursor.Position]
		if !ok {
			break
		}
		delete(s.acknowledged, next.Position)
		s.state.Ledger.add(&next.tally)
		if day := s.state.Cursor.Day; day < next.cursor.Day && len(s.state.Cursor.Flushes) > 0 {
			if s.state.Flushes == nil {
				s.state.Flushes = map[int][]int{}
			}
			s.state.Flushes[day] = s.state.Cursor.Flushes
		}
		s.state.Cursor = next.cursor
	}
	select {
	case s.progress <- struct{}{}:
	default:
	}
}

// acknowledgedAll waits until all posts that were queued are acknowledged.
func (s *Sender) acknowledgedAll(ctx context.Context) error {
	for {
		s.mu.Lock()
		done := s.state.Cursor.Position >= s.dispatched
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-s.progress:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *Sender) saveRegularly(ctx context.Context) error {
	t := time.NewTicker(saveEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := s.save(); err != nil {
				return err
			}
		}
	}
}

func (s *Sender) save() error {
	if s.cfg.StateFile == "" {
		return nil
	}
	s.saving.Lock()
	defer s.saving.Unlock()
	st, _ := s.Snapshot()
	return st.save(s.cfg.StateFile)
}
