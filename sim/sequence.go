package sim

import (
	"fmt"
	"time"

	"millrace/record"
)

// Post is one HTTP request of a sensor.
type Post struct {
	Position    int64     // in the sequence, from 0
	At          time.Time // virtual time of sending
	Sensor      int       // which sensor sends it; a sensor's posts are sent one after the other
	Body        []byte    // the exact bytes, before compression
	Gzip        bool      // the body is sent compressed
	ContentType string
	UserAgent   string
	Bearer      bool    // the key is sent as "Bearer key", else by itself
	Broken      bool    // not an envelope: the collector must answer 400 and keep it as one reject
	Items       []Entry // what is in it, in order; none when Broken

	tally  tally
	cursor Cursor
}

// Entry is one item of a post: Body[From:To].
type Entry struct {
	Kind     record.Kind // Reject when the collector must quarantine it
	Type     string      // short term, OutcomeEvent; empty for a reject
	ID       string      // as sent; empty for an event without one
	Table    string      // of the shipped LMS app, that it is a row of; empty when of none
	First    bool        // no earlier post has the same bytes
	From, To int
}

// Cursor says where in the sequence a district is: everything before it has been passed.
type Cursor struct {
	Position int64 `json:"position"` // posts before it
	Day      int   `json:"day"`      // the virtual day, from 0
	Index    int   `json:"index"`    // posts of that day before it

	// Flushes are the indices in the day at which Finish was called. They are part of what determines the sequence.
	Flushes []int `json:"flushes,omitempty"`
}

// District is the sequence of posts of one simulated school district. It is not safe for concurrent use.
type District struct {
	w        *world
	p        *dayPlan
	render   renderer
	firstDay []int32 // by student: the day of the first session, from 1; 0 when none was found yet
	at       Cursor
	next     int     // index in p.posts of the next post in turn
	pending  []int32 // indices in p.posts of what a Finish still sends
	flush    int     // how many of at.Flushes have been passed
	now      int64   // turn of the last post in turn

	flushes map[int][]int // of days to come, by day: of a sequence that is made again
}

// New returns the district that cfg describes, before its first post.
func New(cfg Config) (*District, error) { return Resume(cfg, Cursor{}) }

// Resume returns the district that cfg describes, at a cursor that a district with the same Config had. It plans one day
// and makes no bytes, so it takes well under a second.
func Resume(cfg Config, at Cursor) (*District, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	d := &District{w: newWorld(cfg)}
	d.firstDay = make([]int32, len(d.w.schoolOf))
	d.at = Cursor{Position: at.Position - int64(at.Index), Day: at.Day, Flushes: append([]int(nil), at.Flushes...)}
	d.plan()
	for d.at.Index < at.Index {
		po, ok := d.step()
		if !ok {
			return nil, fmt.Errorf("simulator: day %d has fewer than %d posts: the saved position is of another district", at.Day, at.Index)
		}
		var t tally
		d.count(po, &t)
	}
	return d, nil
}

// plan lays out the day of the cursor.
func (d *District) plan() {
	day := d.at.Day
	d.p = planDay(d.w, day, func(student int32) bool { return d.firstSessionDay(student, day) == day })
	d.render.w, d.render.p = d.w, d.p
	d.next, d.flush, d.pending, d.now = 0, 0, nil, 0
}

// firstSessionDay returns the day of the student's first session, no later than the given one, on which there is one.
func (d *District) firstSessionDay(student int32, today int) int {
	if d.firstDay[student] == 0 {
		var buf []session
		for day := range today + 1 {
			if buf = d.w.sessionsOf(student, day, buf[:0]); len(buf) > 0 {
				d.firstDay[student] = int32(day + 1)
				break
			}
		}
	}
	return int(d.firstDay[student]) - 1
}

// step passes the next post of the day and returns its index; false at the end of the day.
func (d *District) step() (int32, bool) {
	if d.flush < len(d.at.Flushes) && d.at.Flushes[d.flush] == d.at.Index {
		d.flush++
		d.holdBack()
	}
	if len(d.pending) > 0 {
		i := d.pending[0]
		d.pending = d.pending[1:]
		d.at.Index++
		d.at.Position++
		return i, true
	}
	for d.next < len(d.p.posts) && d.p.posts[d.next].sent {
		d.next++
	}
	if d.next == len(d.p.posts) {
		return 0, false
	}
	i := int32(d.next)
	d.next++
	d.now = d.p.posts[i].at
	d.p.posts[i].sent = true
	d.at.Index++
	d.at.Position++
	return i, true
}

// holdBack collects the posts that were due before now and have not had their turn.
func (d *District) holdBack() {
	for i := d.next; i < len(d.p.posts); i++ {
		if po := &d.p.posts[i]; !po.sent && po.due <= d.now {
			po.sent = true
			d.pending = append(d.pending, int32(i))
		}
	}
}

// Finish makes the next posts those that are still held back: late descriptions of what earlier posts need, and delayed
// envelopes. It returns how many there are. After them the sequence goes on without them.
func (d *District) Finish() int {
	if len(d.pending) > 0 {
		return len(d.pending)
	}
	if n := len(d.at.Flushes); n == 0 || d.at.Flushes[n-1] != d.at.Index {
		d.at.Flushes = append(d.at.Flushes[:n:n], d.at.Index)
	}
	d.flush = len(d.at.Flushes)
	d.holdBack()
	return len(d.pending)
}

// Cursor returns where the district is. The flushes are those of the cursor's day.
func (d *District) Cursor() Cursor { return d.at }

// Next returns the next post. The sequence goes on for as long as anybody asks, day after day.
func (d *District) Next() Post {
	i, ok := d.step()
	for !ok {
		d.at = Cursor{Position: d.at.Position, Day: d.at.Day + 1, Flushes: d.flushes[d.at.Day+1]}
		d.plan()
		i, ok = d.step()
	}
	po := &d.p.posts[i]
	s := &d.w.sensors[po.sensor]
	out := Post{
		Position: d.at.Position - 1, At: time.UnixMilli(po.at).In(d.w.zone), Sensor: int(po.sensor),
		Gzip: po.flags&isGzip != 0, ContentType: s.contentType, UserAgent: s.userAgent, Bearer: s.bearer,
		Broken: po.flags&isBroken != 0, cursor: d.at,
	}
	d.body(po, s, &out)
	for j, isNew := range d.count(i, &out.tally) {
		out.Items[j].First = isNew
	}
	return out
}

// count adds a post to t, marks its items as seen, and returns which of them had not been.
func (d *District) count(i int32, t *tally) []bool {
	po := &d.p.posts[i]
	t.flag(po.flags)
	if po.flags&isBroken != 0 {
		t.broken++
		return nil
	}
	t.envelopes++
	isNew := make([]bool, po.n)
	for j, n := range d.p.order[po.first : po.first+po.n] {
		it := &d.p.items[n]
		isNew[j] = !it.seen
		newRow := !it.seen
		it.seen = true
		// A move is a new version of an enrolment that has its row already, unless its first description comes later.
		if it.kind == describesMembership {
			newRow = newRow && !d.p.rostered[it.owner] && (it.index == 0 || d.firstSessionDay(it.owner/int32(d.w.cfg.Periods), d.at.Day) == d.at.Day)
			d.p.rostered[it.owner] = true
		}
		t.item(it, isNew[j], newRow)
	}
	return isNew
}

// body writes the post's bytes and says where its items are.
func (d *District) body(po *post, s *sensor, out *Post) {
	f := &d.render
	f.b = make([]byte, 0, 512+1500*int(po.n))
	if po.flags&isBroken != 0 {
		out.Body = d.broken(po, s)
		return
	}
	f.obj("")
	f.str("sensor", s.iri)
	f.time("sendTime", po.sendTime)
	if s.dialect == v1p1 {
		f.str("dataVersion", context11)
	}
	f.arr("data")
	out.Items = make([]Entry, 0, po.n)
	for _, n := range d.p.order[po.first : po.first+po.n] {
		f.sep()
		from := len(f.b)
		f.item(n, s.context, s.bareUUID)
		e := Entry{Kind: record.Event, Type: f.what, ID: f.id, Table: tables[f.it.kind], From: from, To: len(f.b)}
		switch {
		case f.it.kind == bad:
			e.Kind = record.Reject
		case f.it.kind.entity():
			e.Kind = record.Entity
		}
		out.Items = append(out.Items, e)
	}
	f.endArr()
	f.end()
	out.Body = f.b
}

// broken writes a payload that is no envelope: cut off, of another kind, or without data. Each has its time in it.
func (d *District) broken(po *post, s *sensor) []byte {
	r := newRNG(d.w.cfg.Seed, forBytes, uint64(d.p.day), 1<<40+uint64(po.serial))
	at := time.UnixMilli(po.sendTime).UTC().Format("2006-01-02T15:04:05.000Z")
	switch r.intn(3) {
	case 0:
		return []byte(`{"sensor":"` + s.iri + `","sendTime":"` + at + `","data":[{"id":"urn:uuid:`)
	case 1:
		return []byte("<html><body><h1>504 Gateway Time-out</h1><p>" + at + " " + s.iri + "</p></body></html>")
	default:
		return []byte(`{"sensor":"` + s.iri + `","sendTime":"` + at + `"}`)
	}
}
