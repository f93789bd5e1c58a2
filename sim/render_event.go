package sim

import "strconv"

var eventTypes = [...]string{
	loggedIn: "SessionEvent", loggedOut: "SessionEvent", timedOut: "SessionEvent",
	navigated: "NavigationEvent", viewed: "ViewEvent", annotated: "AnnotationEvent",
	started: "AssessmentEvent", itemStarted: "AssessmentItemEvent", itemCompleted: "AssessmentItemEvent",
	submitted: "AssessmentEvent", graded: "OutcomeEvent",
}

var actions = [...]string{
	loggedIn: "LoggedIn", loggedOut: "LoggedOut", timedOut: "TimedOut", navigated: "NavigatedTo", viewed: "Viewed",
	annotated: "", started: "Started", itemStarted: "Started", itemCompleted: "Completed", submitted: "Submitted",
	graded: "Graded",
}

var annotations = [...]struct{ action, typ, path string }{
	{"Tagged", "TagAnnotation", "tags"},
	{"Highlighted", "HighlightAnnotation", "highlights"},
	{"Bookmarked", "BookmarkAnnotation", "bookmarks"},
	{"Shared", "SharedAnnotation", "shares"},
}

// event writes one event. Its members come in the order in which the official fixtures of its version have them.
func (f *renderer) event(bareUUID bool) {
	s := &f.p.sessions[f.it.owner]
	k := f.it.kind
	app := &f.w.sensors[int(f.w.schoolOf[s.student])*sensorsPerSchool+appOf(k)]
	// Which annotation, and which kind of grade event, must be drawn before anything else: the type depends on it.
	note := annotations[f.r.intn(len(annotations))]
	typ, action := eventTypes[k], actions[k]
	if k == annotated {
		action = note.action
	}
	score := k == graded && f.style == v1p1 && f.r.chance(0.75)
	if score {
		typ = "GradeEvent"
	}

	f.obj("")
	switch f.style {
	case v1p0:
		f.str("@context", context10)
	case v1p1:
		if f.context {
			f.str("@context", context11)
		}
		f.id = f.uuid(bareUUID)
		f.str("id", f.id)
	case blended:
	}
	f.what = typ
	f.typ(typ)
	switch {
	case k == timedOut || score:
		f.application("actor", app)
	default:
		f.person("actor", studentIRI(s.student))
	}
	f.action(action)
	switch k {
	case loggedIn, loggedOut:
		f.application("object", app)
		if f.style == v1p1 {
			break
		}
		if k == loggedIn {
			f.pad("target")
			f.session("generated", s)
		} else {
			f.session("target", s)
			f.pad("generated")
		}
	case timedOut:
		f.session("object", s)
		f.pad("target", "generated")
	case navigated, viewed:
		f.page(s, k)
	case annotated:
		f.annotation(s, note.typ, note.path)
	case started, submitted:
		f.assessment("object", s)
		f.pad("target")
		f.attempt("generated", s, k == submitted)
	case itemStarted, itemCompleted:
		f.response(s)
	case graded:
		f.attempt("object", s, true)
		f.pad("target")
		f.grade(s, app, score)
	}
	f.time("eventTime", f.it.at)
	f.application("edApp", app)
	if k != loggedIn && k != loggedOut && k != timedOut {
		f.sectionRef("group", s.section)
		if !score {
			f.enrolledAs(s)
		}
	}
	f.vendor(s)
	if f.style == v1p1 && k != timedOut && k != graded {
		f.session("session", s)
	}
	f.pad("federatedSession")
	f.end()
}

func appOf(k kind) int {
	switch k {
	case loggedIn, loggedOut, timedOut, navigated:
		return lms
	case viewed, annotated:
		return reader
	default:
		return quizzes
	}
}

func (f *renderer) uuid(bareUUID bool) string {
	const hex = "0123456789abcdef"
	hi, lo := f.r.next(), f.r.next()
	hi = hi&^0xf000 | 0x4000
	lo = lo&^(3<<62) | 2<<62
	var b [36]byte
	n := 0
	for i := range b {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			b[i] = '-'
			continue
		}
		v := hi
		if n >= 16 {
			v = lo
		}
		b[i] = hex[v>>(60-4*(n%16))&15]
		n++
	}
	if bareUUID {
		return string(b[:])
	}
	return "urn:uuid:" + string(b[:])
}

func (f *renderer) application(key string, s *sensor) {
	if f.bare() && key == "edApp" {
		f.ref(key, s.app)
		return
	}
	f.entity(key, "SoftwareApplication", s.app)
	f.str("name", s.appName)
	f.pad("description", "extensions")
	f.end()
}

func (w *world) sessionIRI(p *dayPlan, s *session) string {
	return base + "/sessions/" + strconv.FormatInt(int64(p.day+1), 10) + "-" + strconv.FormatInt(int64(s.serial), 10)
}

// session writes the session that the event belongs to. The user of a 1.0 session is its actor.
func (f *renderer) session(key string, s *session) {
	f.entity(key, "Session", f.w.sessionIRI(f.p, s))
	f.pad("name", "description", "extensions")
	k := f.it.kind
	if k == loggedIn || k == loggedOut || k == timedOut {
		user := "user"
		if f.style == v1p0 {
			user = "actor"
		}
		f.person(user, studentIRI(s.student))
		f.time("dateCreated", s.start)
	}
	f.time("startedAtTime", s.start)
	if k == loggedOut || k == timedOut {
		f.time("endedAtTime", s.end)
		f.duration("duration", s.end-s.start)
	} else {
		f.pad("endedAtTime", "duration")
	}
	f.end()
}

func (w *world) pageIRI(s *session, page int) string {
	return w.sections[s.section].iri + "/pages/" + strconv.Itoa(page+1)
}

// page writes what was navigated to or viewed. In 1.0 that is a volume, with the page in target.
func (f *renderer) page(s *session, k kind) {
	iri := f.w.pageIRI(s, int(f.it.index))
	name := f.w.courses[f.w.sections[s.section].course].subject + ", page " + strconv.Itoa(int(f.it.index)+1)
	f.entity("object", "WebPage", iri)
	f.str("name", name)
	f.pad("description", "objectType", "alignedLearningObjective", "keywords", "isPartOf", "extensions", "datePublished")
	f.str("version", "2nd ed.")
	f.end()
	if f.style != v1p1 {
		f.entity("target", "Frame", iri+"#top")
		f.str("name", name)
		f.pad("description", "objectType", "keywords", "isPartOf", "extensions")
		f.num("index", int(f.it.index)+1)
		f.end()
	}
	f.pad("generated")
	if k == navigated {
		from := "referrer"
		if f.style == v1p0 {
			from = "navigatedFrom"
		}
		f.entity(from, "WebPage", f.w.sections[s.section].iri+"/index.html")
		f.end()
	}
}

func (f *renderer) annotation(s *session, typ, path string) {
	page := f.w.pageIRI(s, int(f.it.index))
	f.entity("object", "Page", page)
	f.str("name", "Page "+strconv.Itoa(int(f.it.index)+1))
	f.pad("description", "keywords", "isPartOf", "extensions")
	f.end()
	f.pad("target")
	id := studentIRI(s.student) + "/" + path + "/" + strconv.FormatInt(f.it.at, 36)
	if f.it.flags&isBlank != 0 {
		id = "_:n" + strconv.Itoa(f.r.intn(1000))
	}
	f.entity("generated", typ, id)
	f.pad("name", "description", "extensions")
	if f.style != v1p0 {
		f.person("annotator", studentIRI(s.student))
	}
	f.ref("annotated", page)
	switch typ {
	case "TagAnnotation":
		f.arr("tags")
		f.elem("to-read")
		f.elem([]string{"exam", "hard", "ask in class"}[f.r.intn(3)])
		f.endArr()
	case "HighlightAnnotation":
		begin := f.r.intn(3000)
		f.obj("selection")
		if f.style == v1p0 {
			f.str("start", strconv.Itoa(begin))
			f.str("end", strconv.Itoa(begin+70))
		} else {
			f.str("type", "TextPositionSelector")
			f.num("start", begin)
			f.num("end", begin+70)
		}
		f.end()
		f.str("selectionText", "Life, Liberty and the pursuit of Happiness")
	case "BookmarkAnnotation":
		f.str("bookmarkNotes", "where we stopped on \"Friday\"")
	case "SharedAnnotation":
		f.arr("withAgents")
		f.person("", studentIRI(int32(f.r.intn(len(f.w.schoolOf)))))
		f.endArr()
	}
	f.time("dateCreated", f.it.at)
	f.end()
}

// enrolledAs writes the membership under which the student acts.
func (f *renderer) enrolledAs(s *session) {
	owner := s.student*int32(f.w.cfg.Periods) + int32(s.k)
	if f.bare() {
		f.ref("membership", enrolmentIRI(owner))
		return
	}
	f.entity("membership", "Membership", enrolmentIRI(owner))
	f.ref("member", studentIRI(s.student))
	f.ref("organization", f.w.sections[s.section].iri)
	f.roles("Learner")
	f.pad("extensions", "dateModified")
	f.end()
}

func (f *renderer) vendor(s *session) {
	if f.it.flags&isVendor == 0 {
		f.pad("extensions")
		return
	}
	f.obj("extensions")
	f.obj("com.example.courseware")
	f.str("request_id", strconv.FormatUint(f.r.next(), 36))
	f.str("entity_id", "urn:courseware:user:"+strconv.Itoa(210700000+int(s.student)))
	f.raw("job_tag", "null")
	f.end()
	f.end()
}
