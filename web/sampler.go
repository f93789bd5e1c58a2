package web

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// historyLength is how many seconds of samples are kept, for rates and charts.
	historyLength = 10 * 60
	// rateWindow is the time over which a rate is taken: long enough to be calm, short enough to be now.
	rateWindow = 5 * time.Second
	// freshFor is how long a sample answers further requests, so that many readers cost one.
	freshFor = 900 * time.Millisecond
	// readTimeout bounds one reading of the status. It is not the request's, whose end must not spoil it for others.
	readTimeout = 5 * time.Second
)

// samples are the samplers of accounts, each of which is read and remembered apart from the others.
type samples struct {
	read func(ctx context.Context, account string) (Status, error)
	now  func() time.Time

	mu  sync.Mutex
	all map[string]*sampler // by account; "" is all
	use []string            // accounts in all, the one used last at the end
}

// mostSamplers is how many accounts' last minutes are remembered. With more, the one that was looked at longest ago begins anew.
const mostSamplers = 32

// of is the sampler of an account; empty: of all.
func (s *samples) of(account string) *sampler {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.all[account]
	if one == nil {
		one = &sampler{now: s.now, read: func(ctx context.Context) (Status, error) { return s.read(ctx, account) }}
		if s.all == nil {
			s.all = map[string]*sampler{}
		}
		s.all[account] = one
	}
	if account == "" { // it is looked at all the time, and stays
		return one
	}
	s.use = append(slices.DeleteFunc(s.use, func(a string) bool { return a == account }), account)
	if len(s.use) > mostSamplers {
		delete(s.all, s.use[0])
		s.use = slices.Delete(s.use, 0, 1)
	}
	return one
}

// sampler reads the status at most about once a second for all readers, and remembers the last ten minutes.
type sampler struct {
	read func(context.Context) (Status, error)
	now  func() time.Time

	mu      sync.Mutex
	tried   time.Time // when read was last called
	err     error     // what it answered then
	history []Status  // successful samples, oldest first
}

// reading is one answer of the sampler. After an error, Status is the last one that could be read, and zero if none was.
type reading struct {
	Status  Status
	History []Status // ends with Status; not to be written to
	Err     error
	Now     time.Time
}

// sample returns a reading that is at most freshFor old.
func (s *sampler) sample(ctx context.Context) reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if s.tried.IsZero() || now.Sub(s.tried) >= freshFor {
		s.tried = now
		// Shared by every reader: one that goes away must not cancel it for the others.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
		defer cancel()
		var st Status
		if st, s.err = s.read(ctx); s.err == nil {
			s.keep(st, now)
		}
	}
	out := reading{Err: s.err, Now: now, History: slices.Clip(s.history)}
	if n := len(s.history); n > 0 {
		out.Status = s.history[n-1]
	}
	return out
}

// keep appends st with its rates worked out.
func (s *sampler) keep(st Status, now time.Time) {
	if st.At.IsZero() {
		st.At = now
	}
	st.Jobs, st.Tables = slices.Clone(st.Jobs), slices.Clone(st.Tables)
	before, ok := s.before(st.At)
	if ok {
		dt := st.At.Sub(before.At).Seconds()
		per := func(now, then int64) *float64 { return new(float64(now-then) / dt) }
		if st.Collected.PerSecond == nil && st.Collected.Items != nil && before.Collected.Items != nil {
			st.Collected.PerSecond = per(*st.Collected.Items, *before.Collected.Items)
		}
		for i := range st.Jobs {
			j := &st.Jobs[i]
			k := slices.IndexFunc(before.Jobs, func(b Job) bool { return b.UniqueID == j.UniqueID })
			// A job that started again counts from less: no rate rather than a wrong one.
			if j.ReadPerSecond == nil && k >= 0 && before.Jobs[k].Read <= j.Read {
				j.ReadPerSecond = per(j.Read, before.Jobs[k].Read)
			}
		}
		for i := range st.Tables {
			t := &st.Tables[i]
			k := slices.IndexFunc(before.Tables, func(b Table) bool { return b.Name == t.Name })
			if t.PerSecond == nil && t.Rows != nil && k >= 0 && before.Tables[k].Rows != nil {
				t.PerSecond = per(*t.Rows, *before.Tables[k].Rows)
			}
		}
	}
	s.history = append(s.history, st)
	if drop := len(s.history) - historyLength; drop > 0 {
		// A new array: readers hold the old one.
		s.history = slices.Clone(s.history[drop:])
	}
}

// before returns the newest sample that is at least rateWindow older than at, or the oldest there is.
func (s *sampler) before(at time.Time) (Status, bool) {
	for i := len(s.history) - 1; i >= 0; i-- {
		if age := at.Sub(s.history[i].At); age >= rateWindow || i == 0 && age >= time.Second {
			return s.history[i], true
		}
	}
	return Status{}, false
}
