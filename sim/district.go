package sim

import (
	"strconv"
	"time"
)

const (
	base          = "https://district.example.edu"
	term          = base + "/terms/202609"
	periodsPerDay = 7
	dayBegins     = 5 * time.Hour // of the local clock: a virtual day holds the whole night before it ends
	dayMillis     = int64(24 * time.Hour / time.Millisecond)
)

// What a generator is for is the first part of its identity.
const (
	forRoster uint64 = iota + 1
	forMove
	forSessions
	forAssignment
	forDescribes
	forEnvelopes
	forBytes
	forName
)

type course struct {
	school   int
	subject  string
	number   int // in the district, from 1
	iri      string
	sections []int32
}

type section struct {
	course int32
	number int // in the course, from 1
	period int // 0 to 6
	iri    string
}

// enrolment is a student in a section of a course. Its index is the number in its IRI.
type enrolment struct {
	student int32
	section int32
}

// move is a student's change from one section of a course to another.
type move struct {
	at     int64
	day    int
	period int // which of the student's enrolments
	to     int32
}

// world is what does not change from day to day. Nothing writes to it once New has returned.
type world struct {
	cfg        Config
	irr        Irregular
	start      int64 // Unix milliseconds, as all instants in this package
	firstDay   int64 // 5 a.m. of the day that Start is in
	zone       *time.Location
	courses    []course
	sections   []section
	enrolments []enrolment // of student s: [s*Periods, (s+1)*Periods)
	schoolOf   []int32     // by student
	moves      map[int32]move
	sensors    []sensor
}

var subjects = []string{
	"Algebra I", "Biology", "World History", "English 9", "Geometry", "Chemistry", "US History", "English 10",
	"Algebra II", "Physics", "Civics", "English 11", "Spanish I", "Statistics", "Earth Science", "Health",
}

func newWorld(cfg Config) *world {
	_, offset := cfg.Start.Zone()
	zone := time.FixedZone("", offset)
	local := cfg.Start.In(zone).Add(-dayBegins)
	midnight := time.Date(local.Year(), local.Month(), local.Day(), 0, 0, 0, 0, zone)
	w := &world{
		cfg: cfg, irr: *cfg.Irregular, zone: zone,
		start:    cfg.Start.UnixMilli(),
		firstDay: midnight.Add(dayBegins).UnixMilli(),
		moves:    map[int32]move{},
	}
	w.sensors = newSensors(cfg.Schools)
	first := 0
	for school := range cfg.Schools {
		students := (cfg.Students*(school+1))/cfg.Schools - first
		w.addSchool(school, students)
		first += students
	}
	w.addMoves()
	return w
}

// addSchool adds a school's courses, sections and students. A student is in Periods courses, in sections of different
// periods as far as there are such.
func (w *world) addSchool(school, students int) {
	cfg := w.cfg
	firstCourse := len(w.courses)
	perCourse := max(2, (students*cfg.Periods+cfg.Courses*cfg.SectionSize-1)/(cfg.Courses*cfg.SectionSize))
	for c := range cfg.Courses {
		number := len(w.courses) + 1
		iri := term + "/courses/" + strconv.Itoa(number)
		co := course{school: school, subject: subjects[c%len(subjects)], number: number, iri: iri}
		for s := range perCourse {
			co.sections = append(co.sections, int32(len(w.sections)))
			w.sections = append(w.sections, section{
				course: int32(number - 1), number: s + 1, period: (s + c) % periodsPerDay,
				iri: iri + "/sections/" + strconv.Itoa(s+1),
			})
		}
		w.courses = append(w.courses, co)
	}
	order := make([]int, cfg.Courses)
	for range students {
		student := int32(len(w.schoolOf))
		w.schoolOf = append(w.schoolOf, int32(school))
		r := newRNG(cfg.Seed, forRoster, uint64(student))
		for i := range order {
			order[i] = i
		}
		var taken [periodsPerDay]bool
		for k := range cfg.Periods {
			j := k + r.intn(len(order)-k)
			order[k], order[j] = order[j], order[k]
			choice := w.courses[firstCourse+order[k]].sections
			at := r.intn(len(choice))
			for range choice {
				if !taken[w.sections[choice[at]].period] {
					break
				}
				at = (at + 1) % len(choice)
			}
			taken[w.sections[choice[at]].period] = true
			w.enrolments = append(w.enrolments, enrolment{student: student, section: choice[at]})
		}
	}
}

// addMoves decides which students change sections in the first five days. A move counts only when the student has had a
// session before: without one, nobody has described the old enrolment.
func (w *world) addMoves() {
	for student := range int32(len(w.schoolOf)) {
		r := newRNG(w.cfg.Seed, forMove, uint64(student))
		if !r.chance(w.irr.Movers) {
			continue
		}
		m := move{day: r.intn(5), period: r.intn(w.cfg.Periods)}
		m.at = w.dayStart(m.day) + r.millis(3*3600+5*60, 9*3600) // 8:05 a.m. to 2 p.m.
		old := w.sections[w.enrolments[int(student)*w.cfg.Periods+m.period].section]
		siblings := w.courses[old.course].sections
		m.to = siblings[(old.number+r.intn(len(siblings)-1))%len(siblings)]
		if first, ok := w.firstSession(student, m.day); ok && first < m.at && m.at > w.start {
			w.moves[student] = m
		}
	}
}

// firstSession returns when the student's first session up to the end of the given day begins.
func (w *world) firstSession(student int32, lastDay int) (int64, bool) {
	var buf []session
	for day := range lastDay + 1 {
		if buf = w.sessionsOf(student, day, buf[:0]); len(buf) > 0 {
			first := buf[0].start
			for _, s := range buf {
				first = min(first, s.start)
			}
			return first, true
		}
	}
	return 0, false
}

func (w *world) dayStart(day int) int64 { return w.firstDay + int64(day)*dayMillis }

func (w *world) weekday(day int) time.Weekday {
	return time.UnixMilli(w.dayStart(day)).In(w.zone).Weekday()
}

func (w *world) schoolDay(day int) bool {
	wd := w.weekday(day)
	return wd != time.Saturday && wd != time.Sunday
}

// sectionAt returns the section that the student's k-th enrolment is in at an instant.
func (w *world) sectionAt(student int32, k int, at int64) int32 {
	if m, ok := w.moves[student]; ok && m.period == k && at >= m.at {
		return m.to
	}
	return w.enrolments[int(student)*w.cfg.Periods+k].section
}

// assignment is what a section has to do on one day. The zero number means that there is none.
type assignment struct {
	section   int32
	number    int
	questions int
	points    int // per question
	module    string
}

func (w *world) assignmentOf(section int32, day int) assignment {
	r := newRNG(w.cfg.Seed, forAssignment, uint64(section), uint64(day))
	share := 0.85
	if !w.schoolDay(day) {
		share = 0.1
	}
	if !r.chance(share) {
		return assignment{}
	}
	modules := [...]string{"quiz", "quiz", "quiz", "test", "homework"}
	return assignment{
		section: section, number: day + 1, questions: r.between(3, 8), points: []int{1, 5, 10}[r.intn(3)],
		module: modules[r.intn(len(modules))],
	}
}

// Sensors: an LMS, a reader and a quiz engine per school, and the district's student information system.
const (
	lms = iota
	reader
	quizzes
	sensorsPerSchool
)

type sensor struct {
	iri         string
	app         string // IRI of the application that it observes
	appName     string
	dialect     dialect
	context     bool // puts @context on 1.1 items; not all sensors do
	bareUUID    bool // event ids without urn:uuid:
	contentType string
	userAgent   string
	bearer      bool // sends "Bearer key"; else the key alone
}

func newSensors(schools int) []sensor {
	names := [...]string{"lms", "reader", "quizzes"}
	titles := [...]string{"Courseware", "ePub Reader", "Quiz Engine"}
	var out []sensor
	for school := range schools {
		for app := range names {
			iri := base + "/schools/" + strconv.Itoa(school+1)
			s := sensor{iri: iri + "/sensors/" + names[app], app: iri + "/apps/" + names[app], appName: titles[app], dialect: v1p1}
			if (school+app)%2 == 0 {
				s.dialect = v1p0
			}
			s.bareUUID = app == reader && school%4 == 1
			out = append(out, s)
		}
	}
	out = append(out, sensor{iri: base + "/sensors/sis", app: base + "/apps/sis", appName: "Student Information System", dialect: v1p1})
	for i := range out {
		s := &out[i]
		s.context = i%3 != 2
		s.bearer = i%2 == 0
		s.contentType, s.userAgent = "application/json", "caliper-sensor/1.1.0 node/18.20"
		if !s.bearer {
			s.userAgent = "Apache-HttpClient/4.5.8 (Java/17.0.15)"
		}
		if i%4 == 2 {
			s.contentType = "application/json; charset=utf-8"
		}
	}
	return out
}

func (w *world) sis() int { return len(w.sensors) - 1 }
