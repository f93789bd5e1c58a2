package sim

import (
	"cmp"
	"slices"
)

// kind is what an item tells.
type kind uint8

const (
	loggedIn kind = iota
	loggedOut
	timedOut
	navigated
	viewed
	annotated
	started
	itemStarted
	itemCompleted
	submitted
	graded
	describesSchool
	describesCourse
	describesSection
	describesStudent
	describesTeacher
	describesMembership
	describesTeaching // a teacher's membership
	describesAssignment
	describesQuestion
	bad
)

func (k kind) entity() bool { return k >= describesSchool && k < bad }

// item is one event or describe, before it has bytes.
type item struct {
	at    int64 // eventTime of an event; when a describe is due
	owner int32 // events: index of the session; describes: index of the student, enrolment or section
	index int32 // page, question, version: which of the owner's
	kind  kind
	style dialect
	flags flags
	seen  bool // the sequence has passed it
}

// session is one visit of a student to a course, with all that happens in it.
type session struct {
	start, end int64
	student    int32
	k          int8 // which enrolment of the student
	section    int32
	attempt    uint8  // at the section's assignment of the day; 0 when none is made
	correct    uint16 // by question, a bit
	quizStart  int64
	quizEnd    int64
	gradedAt   int64
	serial     int32 // in the day
}

// queued is an item that a sensor gets to send at an instant.
type queued struct {
	at   int64
	item int32
}

// dayPlan is everything that is sent in one virtual day.
type dayPlan struct {
	w        *world
	day      int
	r        rng
	sessions []session
	items    []item
	queues   [][]queued     // by sensor, what it sends; gone once there are posts
	order    []int32        // item indices; a post holds a run of it
	posts    []post         // in the order of their turn
	rostered map[int32]bool // enrolments described today, as far as the sequence has come
	first    func(student int32) bool
}

// sessionsOf appends the student's sessions of a day: in class, in the evening and, rarely, at night. It sets when they
// begin, and where.
func (w *world) sessionsOf(student int32, day int, out []session) []session {
	r := newRNG(w.cfg.Seed, forSessions, uint64(student), uint64(day))
	begin := w.dayStart(day)
	add := func(k int, start int64) {
		if start >= w.start {
			out = append(out, session{start: start, student: student, k: int8(k), section: w.sectionAt(student, k, start)})
		}
	}
	schoolDay := w.schoolDay(day)
	if schoolDay && r.chance(0.95) {
		for k := range w.cfg.Periods {
			// Periods begin at 8:00, 8:55, …; by then a few have logged in.
			period := w.sections[w.sectionAt(student, k, begin)].period
			if r.chance(0.72) {
				add(k, begin+int64(3*3600+period*55*60)*1000+r.millis(-3*60, 25*60))
			}
		}
	}
	evening, night := 0.45, 0.04
	if !schoolDay {
		evening, night = 0.12, 0.02
	}
	if r.chance(evening) {
		add(r.intn(w.cfg.Periods), begin+r.millis(11*3600+1800, 17*3600)) // 4:30 to 10 p.m.
	}
	if r.chance(night) {
		add(r.intn(w.cfg.Periods), begin+r.millis(17*3600, 20*3600)) // 10 p.m. to 1 a.m.
	}
	return out
}

// planDay lays out one day. first reports whether a student has had no session before that day.
func planDay(w *world, day int, first func(student int32) bool) *dayPlan {
	p := &dayPlan{
		w: w, day: day, r: newRNG(w.cfg.Seed, forDescribes, uint64(day)), first: first, rostered: map[int32]bool{},
		queues: make([][]queued, len(w.sensors)),
	}
	var buf []session
	var attempts []uint8
	for student := range int32(len(w.schoolOf)) {
		attempts = append(attempts[:0], make([]uint8, 2*w.cfg.Periods)...)
		buf = w.sessionsOf(student, day, buf[:0])
		slices.SortFunc(buf, func(a, b session) int { return cmp.Compare(a.start, b.start) })
		for _, s := range buf {
			// A student who has moved starts the new section's assignment from the first attempt.
			tried := &attempts[s.k]
			if s.section != w.enrolments[int(student)*w.cfg.Periods+int(s.k)].section {
				tried = &attempts[w.cfg.Periods+int(s.k)]
			}
			p.addSession(s, tried)
		}
	}
	p.addDescribes()
	p.addPosts()
	return p
}

// addSession plans one session: the talk's ten steps, with some left out.
func (p *dayPlan) addSession(s session, attempts *uint8) {
	w := p.w
	r := newRNG(w.cfg.Seed, forSessions, uint64(s.student), uint64(p.day), uint64(s.start))
	s.serial = int32(len(p.sessions))
	school := int(w.schoolOf[s.student])
	add := func(k kind, app int, at int64, index int) {
		p.addItem(item{at: at, owner: s.serial, index: int32(index), kind: k}, school*sensorsPerSchool+app, &r)
	}
	t := s.start
	add(loggedIn, lms, t, 0)
	for page := range r.between(1, 4) {
		t += r.millis(5, 60)
		add(navigated, lms+r.intn(2), t, page)
		if r.chance(0.35) {
			t += r.millis(2, 20)
			add(viewed, reader, t, page)
		}
		if r.chance(0.3) {
			t += r.millis(10, 90)
			add(annotated, reader, t, page)
		}
	}
	if a := w.assignmentOf(s.section, p.day); a.number > 0 && *attempts < 2 && r.chance(0.8) {
		*attempts++
		s.attempt = *attempts
		t += r.millis(5, 60)
		s.quizStart = t
		add(started, quizzes, t, 0)
		ability := 0.45 + 0.5*float64(mix(uint64(s.student))%100)/100
		for q := range a.questions {
			t += r.millis(1, 5)
			add(itemStarted, quizzes, t, q)
			t += r.millis(6, 75)
			add(itemCompleted, quizzes, t, q)
			if r.chance(ability) {
				s.correct |= 1 << q
			}
		}
		t += r.millis(2, 30)
		s.quizEnd = t
		add(submitted, quizzes, t, 0)
		s.gradedAt = t + r.millis(1, 30)
		add(graded, quizzes, s.gradedAt, 0)
		t = max(t, s.gradedAt)
	}
	t += r.millis(5, 120)
	switch end := r.float(); {
	case end < w.irr.NoEnd:
		s.end = t
	case end < w.irr.NoEnd+w.irr.TimedOut:
		s.end = t + r.millis(30*60, 31*60)
		add(timedOut, lms, s.end, 0)
	default:
		s.end = t
		add(loggedOut, lms, s.end, 0)
	}
	p.sessions = append(p.sessions, s)
}

// addItem gives the item its style and irregularities and puts it into its sensor's queue.
func (p *dayPlan) addItem(it item, sensor int, r *rng) int32 {
	irr := &p.w.irr
	it.style = p.w.sensors[sensor].dialect
	if it.kind.entity() && it.style == v1p1 && r.chance(0.4) {
		it.style = v1p0
	}
	if r.chance(irr.Foreign) {
		it.style = v1p0 + v1p1 - it.style
		it.flags |= isForeign
	}
	if r.chance(irr.Blended) {
		it.style = blended
		it.flags |= isBlended
	}
	if r.chance(irr.Bare) {
		it.flags |= isBare
	}
	padding := irr.Padding
	if it.style != v1p0 {
		padding /= 20 // they should not, and some do
	}
	if r.chance(padding) {
		it.flags |= isPadded
	}
	if !it.kind.entity() {
		if r.chance(irr.Vendor) {
			it.flags |= isVendor
		}
		if it.kind == annotated && r.chance(irr.Blank) {
			it.flags |= isBlank
		}
		if it.style != v1p1 {
			it.flags |= isNoID
		}
	}
	n := int32(len(p.items))
	p.items = append(p.items, it)
	p.queues[sensor] = append(p.queues[sensor], queued{at: it.at, item: n})
	return n
}
