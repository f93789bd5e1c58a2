package sim

import "strconv"

// renderer turns items of a day into bytes. What it draws depends on the item alone, so an item always gives the same.
type renderer struct {
	enc
	w  *world
	p  *dayPlan
	r  rng
	it *item
	at int // index of the item in the day

	// Of the item last rendered.
	what string // short type
	id   string // as it says; empty when it has none
}

// item appends the JSON of the item with the given index.
func (f *renderer) item(index int32, context, bareUUID bool) {
	f.it = &f.p.items[index]
	f.at = int(index)
	f.r = newRNG(f.w.cfg.Seed, forBytes, uint64(f.p.day), uint64(index))
	f.style, f.padded, f.context = f.it.style, f.it.flags&isPadded != 0, context
	f.depth, f.what, f.id = 0, "", ""
	switch {
	case f.it.kind == bad:
		f.badItem()
	case f.it.kind.entity():
		f.describe()
	default:
		f.event(bareUUID)
	}
}

func (f *renderer) bare() bool { return f.it.flags&isBare != 0 }

func (f *renderer) describe() {
	owner, created := f.it.owner, f.w.firstDay-45*dayMillis
	switch f.it.kind {
	case describesSchool:
		f.top("Organization", schoolIRI(int(owner)))
		f.str("name", schoolNames[int(owner)%len(schoolNames)])
		f.obj("subOrganizationOf")
		f.str(f.idKey(), base)
		f.typ("Organization")
		f.end()
	case describesCourse:
		c := &f.w.courses[owner]
		f.top("CourseOffering", c.iri)
		f.str("name", c.subject)
		f.str("courseNumber", c.code())
		f.str("academicSession", "Fall 2026")
		f.pad("description")
		f.ref("subOrganizationOf", schoolIRI(c.school))
		f.pad("extensions")
		f.time("dateCreated", created)
		f.time("dateModified", created+dayMillis)
	case describesSection:
		s := &f.w.sections[owner]
		c := &f.w.courses[s.course]
		f.top("CourseSection", s.iri)
		f.str("name", c.subject+", section "+strconv.Itoa(s.number))
		f.str("courseNumber", c.code()+"-"+strconv.Itoa(s.number))
		f.str("academicSession", "Fall 2026")
		f.pad("description", "category")
		f.course("subOrganizationOf", s.course)
		f.pad("extensions")
		f.time("dateCreated", created)
	case describesStudent:
		f.top("Person", studentIRI(owner))
		f.str("name", f.w.personName(uint64(owner)))
		f.pad("description", "extensions")
		f.time("dateCreated", created)
		f.time("dateModified", created+dayMillis+f.r.millis(0, 86400))
	case describesTeacher:
		f.top("Person", teacherIRI(owner))
		f.str("name", f.w.personName(1<<32+uint64(owner)))
		f.pad("description", "extensions")
		f.time("dateCreated", created)
	case describesMembership:
		f.membership()
	case describesTeaching:
		f.top("Membership", teachingIRI(owner))
		f.person("member", teacherIRI(owner))
		f.sectionRef("organization", owner)
		f.roles("Instructor")
		f.time("dateCreated", created)
	case describesAssignment:
		f.assignment()
	case describesQuestion:
		f.question()
	}
	f.end()
}

// top opens the described entity itself.
func (f *renderer) top(typ, id string) {
	f.what, f.id = typ, id
	f.entity("", typ, id)
}

// person writes a person as an object, or as a bare IRI.
func (f *renderer) person(key, id string) {
	if f.bare() {
		f.ref(key, id)
		return
	}
	f.entity(key, "Person", id)
	f.pad("name", "description", "extensions")
	f.end()
}

// course writes a section's course as an object.
func (f *renderer) course(key string, number int32) {
	f.entity(key, "CourseOffering", f.w.courses[number].iri)
	f.end()
}

// sectionRef writes a section with its course, or as a bare IRI.
func (f *renderer) sectionRef(key string, number int32) {
	if f.bare() {
		f.ref(key, f.w.sections[number].iri)
		return
	}
	f.sectionObj(key, number)
}

func (f *renderer) sectionObj(key string, number int32) {
	s := &f.w.sections[number]
	f.entity(key, "CourseSection", s.iri)
	f.str("courseNumber", f.w.courses[s.course].code()+"-"+strconv.Itoa(s.number))
	f.str("academicSession", "Fall 2026")
	f.pad("name", "description", "category")
	f.course("subOrganizationOf", s.course)
	f.pad("extensions")
	f.end()
}

// membership describes a student's enrolment, before the student moves or after.
func (f *renderer) membership() {
	en := f.w.enrolments[f.it.owner]
	section, modified := en.section, f.w.firstDay-10*dayMillis
	m, moves := f.w.moves[en.student]
	moves = moves && int(f.it.owner) == int(en.student)*f.w.cfg.Periods+m.period
	if f.it.index == 1 {
		section, modified = m.to, m.at
	}
	f.top("Membership", enrolmentIRI(f.it.owner))
	f.pad("name", "description")
	f.person("member", studentIRI(en.student))
	f.sectionRef("organization", section)
	f.roles("Learner")
	f.pad("extensions")
	f.time("dateCreated", f.w.firstDay-45*dayMillis)
	// Whoever moves has a time of change on both descriptions: without one, a late first description would look newer.
	if moves || f.r.chance(0.6) {
		f.time("dateModified", modified)
	} else {
		f.pad("dateModified")
	}
}

// assignment describes an assignment, as it was published or with its title changed.
func (f *renderer) assignment() {
	a := f.w.assignmentOf(f.it.owner, f.p.day)
	s := &f.w.sections[a.section]
	published := f.p.dayStart() - dayMillis
	title := f.w.courses[s.course].subject + " " + a.module + " " + strconv.Itoa(a.number)
	if f.it.index == 1 {
		title += " (revised)"
	}
	f.top("AssignableDigitalResource", f.w.assignmentIRI(a))
	f.str("name", title)
	f.pad("description", "objectType", "alignedLearningObjective", "keywords", "isPartOf")
	f.obj("extensions")
	f.obj("courseSection")
	f.str(f.idKey(), s.iri)
	f.typ("CourseSection")
	f.obj("subOrganizationOf")
	f.str(f.idKey(), f.w.courses[s.course].iri)
	f.typ("CourseOffering")
	f.end()
	f.end()
	f.str("moduleType", a.module)
	f.end()
	f.time("dateCreated", published)
	if f.it.index == 1 {
		f.time("dateModified", f.it.at)
	} else {
		f.time("dateModified", published)
	}
	f.pad("datePublished", "version")
	f.time("dateToActivate", published)
	f.time("dateToSubmit", f.p.dayStart()+dayMillis)
	f.num("maxAttempts", 2)
	f.num("maxSubmits", 2)
	f.score("maxScore", float64(a.questions*a.points))
}

func (f *renderer) question() {
	a := f.w.assignmentOf(f.it.owner, f.p.day)
	f.top("AssessmentItem", f.w.assignmentIRI(a)+"/items/"+strconv.Itoa(int(f.it.index)+1))
	f.str("name", "Question "+strconv.Itoa(int(f.it.index)+1))
	f.entity("isPartOf", "Assessment", f.w.assignmentIRI(a))
	f.end()
	f.obj("extensions")
	f.str("questionType", "Dichotomous")
	f.str("questionText", "Is “"+f.w.courses[f.w.sections[a.section].course].subject+"” the subject of question \""+strconv.Itoa(int(f.it.index)+1)+"\"?")
	f.str("correctResponse", "yes")
	f.end()
	f.time("dateCreated", f.p.dayStart()-dayMillis)
	f.score("maxScore", float64(a.points))
	f.raw("isTimeDependent", "false")
}

var schoolNames = []string{"Lincoln High School", "Roosevelt High School", "Garfield Academy", "Harriet Tubman High School"}

func (c *course) code() string { return "C" + strconv.Itoa(100+c.number) }

// badKinds is how many ways there are for an item to be bad.
const badKinds = 6

// badItem writes what a collector cannot take as an event or an entity. Each tells its time or place, so no two are alike.
func (f *renderer) badItem() {
	s := &f.p.sessions[f.it.owner]
	at := strconv.FormatInt(f.it.at, 10) + "-" + strconv.Itoa(f.at)
	switch f.it.index {
	case 0: // no type
		f.obj("")
		f.str("id", studentIRI(s.student)+"/notes/"+at)
		f.str("name", "a note without a type")
		f.end()
	case 1: // a control character in a string
		f.obj("")
		f.str("id", base+"/notes/"+at)
		f.str("type", "WebPage")
		f.raw("name", "\"Chapter\x02 one\"")
		f.end()
	case 2: // a type that is no string
		f.obj("")
		f.str("id", base+"/notes/"+at)
		f.num("type", 7)
		f.end()
	case 3: // a time that is none
		f.obj("")
		f.str("type", "ViewEvent")
		f.str("action", "Viewed")
		f.ref("actor", studentIRI(s.student))
		f.ref("object", f.w.pageIRI(s, f.at))
		f.str("eventTime", "yesterday at "+at)
		f.end()
	case 4: // a string
		f.elem("debug: " + at)
	case 5: // an id that is an object of a database
		f.obj("")
		f.obj("id")
		f.str("$oid", at)
		f.end()
		f.str("type", "WebPage")
		f.end()
	}
}
