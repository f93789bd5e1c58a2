package engine

import (
	"maps"
	"math"
	"time"

	"millrace/plan"
)

// Progress is how far a job is: all of it committed, except for what the source's ends and the clock say.
type Progress struct {
	App, Version, Instance, Job string

	Lineage    string
	Epoch      uint64           // 0: nothing committed yet
	Offsets    plan.Offsets     // next record to read, by partition
	Ends       plan.Offsets     // of the source, as of about a second ago
	Lag        int64            // records between the two
	LagSince   int64            // no record that is not read was received before, µs since 1970; 0 when all is read, or it is not known
	Seeding    *plan.Seeding    // how far the lake is read; nil for a job that only reads the log
	Processing int64            // the last epoch's processing clock, µs since 1970
	Watermark  int64            // event time, µs since 1970; 0 when not known yet
	Newest     int64            // newest event time seen, µs since 1970
	NextTimer  int64            // no processing-time timer is earlier, µs since 1970; math.MaxInt64 when there is none
	Counters   map[string]int64 // Plan.Counters by name

	Read      int64 // records read
	Skipped   int64 // of them, records of other source types
	Rows      int64 // rows put out
	Collapsed int64 // rows left out for a higher revision in the same epoch
	Fired     int64 // timers fired
	Dropped   int64 // list items that left before their time, see Config.ExpiringLimit

	Stages       []StageProgress // with state, in order of names
	Sinks        []SinkProgress
	OutboxBytes  int64 // rows that some sink has not published
	Backpressure bool  // the outbox is over its limit: nothing is read
	StateBytes   int64 // on disk, as of about a second ago

	ReadRate, RowRate float64 // a second, over the last ten seconds
	EpochTime         time.Duration
	CommitTime        time.Duration // of EpochTime
	CommittedAt       time.Time     // by Config.Now; zero when this process has committed nothing yet
	CheckpointTime    time.Duration // of the last checkpoint or savepoint; 0 when this process has made none yet
}

// SinkProgress is how far one sink is.
type SinkProgress struct {
	Name          string
	Epoch         uint64 // published up to this one, durably
	PendingEpochs int    // committed epochs with rows that are not published
	PendingRows   int64
	PendingBytes  int64
	Oldest        int64 // when the oldest of the pending rows was made, µs since 1970; 0 when there is none
	Publishes     int64 // in this process's life
	Rejected      int64 // rows refused for good

	// Begun: the sink has begun the job's lineage in this process, and its target holds nothing any more that the lineage takes back.
	Begun bool
}

// Settled reports whether the job has nothing left to do by itself at the given time: all that the source was known to
// hold is read, no processing-time timer is due, and every sink has published everything. Records appended in the last
// second may not be known yet.
func (p Progress) Settled(now time.Time) bool {
	for _, s := range p.Sinks {
		if s.PendingEpochs > 0 {
			return false
		}
	}
	return p.Ends != nil && p.Lag == 0 && !p.Seeds() && p.NextTimer > now.UnixMicro()
}

// LagSeconds is how old the oldest record that is not read is at the given time, at most. Not ok: that is not known yet.
func (p Progress) LagSeconds(now time.Time) (seconds float64, ok bool) {
	switch {
	case p.LagSince > 0:
		return max(now.Sub(time.UnixMicro(p.LagSince)).Seconds(), 0), true
	case p.Ends != nil && p.Lag == 0:
		return 0, true
	}
	return 0, false
}

// Seeds reports whether the job still reads the lake.
func (p Progress) Seeds() bool { return p.Seeding != nil && !p.Seeding.Done }

// live is what Progress shows beside the last commit.
type live struct {
	ends                  plan.Offsets
	endsAt                int64           // they are not older, µs since 1970
	caughtUp              int64           // all that the source held then is read, µs since 1970; 0 when that was never known
	received              map[int32]int64 // by partition, when the last record that was read came, µs since 1970; what this process has read
	epochTime, commitTime time.Duration
	checkpointTime        time.Duration
	committedAt           time.Time
	nextTimer             int64
	stateBytes            int64
	samples               []sample // one a second, at most eleven
}

type sample struct {
	at         time.Time
	read, rows int64
}

// Progress returns how far the job is. It may be called at any time, from any goroutine, and is cheap.
func (e *Engine) Progress() Progress {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.rec.progress()
	p.App, p.Version, p.Instance, p.Job = e.c.Plan.App, e.c.Plan.Version, e.c.Instance, e.c.Job
	p.Ends = maps.Clone(e.live.ends)
	p.Lag = lag(e.rec.Offsets, e.live.ends)
	p.LagSince = e.live.lagSince(e.rec.Offsets)
	p.NextTimer = e.live.nextTimer
	p.Counters = maps.Clone(e.counters)
	p.Stages = stageProgress(e.s.id.Stages, e.rec.Sizes)
	for _, s := range e.sinks {
		sp := SinkProgress{Name: s.sink.Name(), Epoch: s.pos.Epoch, Publishes: s.publishes, Rejected: e.rec.Rejected[s.sink.Name()]}
		sp.Begun = closed(s.begun)
		entries, _ := e.outbox.pending(s.pos.Epoch)
		sp.add(entries)
		p.Sinks = append(p.Sinks, sp)
	}
	p.OutboxBytes, _ = e.outbox.size()
	p.Backpressure = p.OutboxBytes > e.c.OutboxLimit
	p.StateBytes = e.live.stateBytes
	p.EpochTime, p.CommitTime, p.CommittedAt, p.CheckpointTime = e.live.epochTime, e.live.commitTime, e.live.committedAt, e.live.checkpointTime
	if n := len(e.live.samples); n > 1 {
		first, last := e.live.samples[0], e.live.samples[n-1]
		if s := last.at.Sub(first.at).Seconds(); s > 0 {
			p.ReadRate = float64(last.read-first.read) / s
			p.RowRate = float64(last.rows-first.rows) / s
		}
	}
	return p
}

func (s *SinkProgress) add(entries []entry) {
	s.PendingEpochs += len(entries)
	if len(entries) > 0 {
		s.Oldest = entries[0].Made
	}
	for _, e := range entries {
		s.PendingRows += int64(e.Rows)
		s.PendingBytes += e.Bytes
	}
}

// progress is the part of Progress that the last commit holds.
func (r epochRecord) progress() Progress {
	p := Progress{
		Version: r.Version, Lineage: r.Lineage, Epoch: r.Epoch, Offsets: maps.Clone(r.Offsets), Seeding: r.Seeding,
		Processing: r.Processing, Watermark: r.Watermark,
		Read: r.Read, Skipped: r.Skipped, Rows: r.Rows, Collapsed: r.Collapsed, Fired: r.Fired, Dropped: r.Dropped,
		NextTimer: math.MaxInt64,
	}
	for _, t := range r.Newest {
		p.Newest = max(p.Newest, t)
	}
	return p
}

// lag counts the records before the ends that are not read. A partition without a position counts from offset 0.
func lag(offsets, ends plan.Offsets) int64 {
	n := int64(0)
	for p, end := range ends {
		n += max(end-offsets[p], 0)
	}
	return n
}

// lagSince is a bound for the age of the oldest record that is not read. There are two: each partition is in the order in which records
// came, and what the source held when everything was read is read.
func (l *live) lagSince(offsets plan.Offsets) int64 {
	behind, since := false, int64(math.MaxInt64)
	for p, end := range l.ends {
		if end > offsets[p] {
			behind, since = true, min(since, l.received[p]) // 0 where nothing was read yet
		}
	}
	if !behind {
		return 0
	}
	return max(since, l.caughtUp)
}

// caughtUpWith notes that all the source was known to hold is read, if it is.
func (l *live) caughtUpWith(offsets plan.Offsets) {
	if l.ends != nil && lag(offsets, l.ends) == 0 {
		l.caughtUp = l.endsAt
	}
}

func (e *Engine) ends() plan.Offsets {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.live.ends // replaced, never written to
}

// observe takes the measurements that cost too much for every epoch, once a second.
func (e *Engine) observe(now time.Time) {
	if n := len(e.live.samples); n > 0 && now.Sub(e.live.samples[n-1].at) < time.Second {
		return
	}
	m := e.s.db.Metrics()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.live.stateBytes = int64(m.DiskSpaceUsage())
	s := append(e.live.samples, sample{now, e.rec.Read, e.rec.Rows})
	e.live.samples = s[max(len(s)-11, 0):]
}
