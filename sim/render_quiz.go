package sim

import (
	"math/bits"
	"strconv"
)

func (f *renderer) assignmentOf(s *session) assignment { return f.w.assignmentOf(s.section, f.p.day) }

// assessment writes the assignment as the quiz engine sees it: an Assessment of the same id.
func (f *renderer) assessment(key string, s *session) {
	a := f.assignmentOf(s)
	f.entity(key, "Assessment", f.w.assignmentIRI(a))
	f.str("name", f.w.courses[f.w.sections[s.section].course].subject+" "+a.module+" "+strconv.Itoa(a.number))
	f.pad("description", "objectType", "alignedLearningObjective", "keywords", "isPartOf", "extensions", "datePublished")
	f.num("maxAttempts", 2)
	f.num("maxSubmits", 2)
	f.score("maxScore", float64(a.questions*a.points))
	f.end()
}

func (f *renderer) attemptIRI(s *session) string {
	return f.w.assignmentIRI(f.assignmentOf(s)) + "/users/" + strconv.Itoa(500001+int(s.student)) + "/attempts/" +
		strconv.Itoa(int(s.attempt))
}

// who writes the person of an attempt or result: assignee in 1.1, actor before.
func (f *renderer) who(s *session) {
	key := "actor"
	if f.style == v1p1 {
		key = "assignee"
	}
	f.person(key, studentIRI(s.student))
}

// assignable writes the assignment that an attempt or result is for.
func (f *renderer) assignable(s *session) {
	iri := f.w.assignmentIRI(f.assignmentOf(s))
	if f.bare() || f.it.kind != graded {
		f.ref("assignable", iri)
		return
	}
	f.entity("assignable", "Assessment", iri)
	f.end()
}

func (f *renderer) attempt(key string, s *session, ended bool) {
	f.entity(key, "Attempt", f.attemptIRI(s))
	f.pad("name", "description", "extensions", "dateModified")
	f.who(s)
	f.assignable(s)
	f.num("count", int(s.attempt))
	f.time("dateCreated", s.quizStart)
	f.time("startedAtTime", s.quizStart)
	if ended {
		f.time("endedAtTime", s.quizEnd)
		f.duration("duration", s.quizEnd-s.quizStart)
	} else {
		f.pad("endedAtTime", "duration")
	}
	f.end()
}

// response writes a question and, when it is completed, the answer.
func (f *renderer) response(s *session) {
	a := f.assignmentOf(s)
	q := int(f.it.index)
	quiz := f.w.assignmentIRI(a)
	iri := quiz + "/items/" + strconv.Itoa(q+1)
	try := "/users/" + strconv.Itoa(500001+int(s.student)) + "/attempts/" + strconv.Itoa(int(s.attempt))
	f.entity("object", "AssessmentItem", iri)
	f.str("name", "Question "+strconv.Itoa(q+1))
	f.pad("description", "objectType", "alignedLearningObjective", "keywords", "extensions", "dateToActivate", "dateToSubmit")
	if f.bare() {
		f.ref("isPartOf", quiz)
	} else {
		f.entity("isPartOf", "Assessment", quiz)
		f.end()
	}
	f.num("maxAttempts", 2)
	f.score("maxScore", float64(a.points))
	f.raw("isTimeDependent", "false")
	f.end()
	f.pad("target")
	attempt := func(key string) {
		f.entity(key, "Attempt", iri+try)
		f.pad("name", "description", "extensions", "dateModified")
		f.who(s)
		f.ref("assignable", iri)
		if f.style == v1p1 {
			f.ref("isPartOf", f.attemptIRI(s))
		}
		f.num("count", int(s.attempt))
		f.end()
	}
	if f.it.kind == itemStarted {
		attempt("generated")
		return
	}
	right := s.correct>>q&1 == 1
	f.entity("generated", "FillinBlankResponse", iri+"/users/"+strconv.Itoa(500001+int(s.student))+"/responses/"+strconv.Itoa(int(s.attempt)))
	f.pad("name", "description")
	if f.style == v1p0 {
		f.ref("assignable", quiz)
		f.ref("actor", studentIRI(s.student))
	}
	attempt("attempt")
	f.arr("values")
	if right {
		f.elem("yes")
	} else {
		f.elem([]string{"no", "perhaps", "what is “yes”?"}[f.r.intn(3)])
	}
	f.endArr()
	if f.r.chance(0.5) {
		points := 0
		if right {
			points = a.points
		}
		f.obj("extensions")
		f.score("score", float64(points))
		f.end()
	} else {
		f.pad("extensions")
	}
	f.time("dateCreated", f.it.at)
	f.time("endedAtTime", f.it.at)
	f.end()
}

// grade writes a Score (1.1), or the Result that 1.0 and many 1.1 sensors send.
func (f *renderer) grade(s *session, app *sensor, score bool) {
	a := f.assignmentOf(s)
	total := float64(bits.OnesCount16(s.correct) * a.points)
	if score {
		f.entity("generated", "Score", f.attemptIRI(s)+"/scores/1")
		f.ref("attempt", f.attemptIRI(s))
		f.score("maxScore", float64(a.questions*a.points))
		f.score("scoreGiven", total)
		f.ref("scoredBy", app.app)
		f.str("comment", "auto-graded")
		f.time("dateCreated", s.gradedAt)
		f.end()
		return
	}
	f.entity("generated", "Result", f.attemptIRI(s)+"/results/1")
	f.pad("name", "description", "extensions", "dateModified")
	f.assignable(s)
	f.person("actor", studentIRI(s.student))
	f.score("normalScore", total)
	f.score("penaltyScore", 0)
	f.score("extraCreditScore", 0)
	f.score("totalScore", total)
	f.score("curvedTotalScore", total)
	f.score("curveFactor", 0)
	f.str("comment", "Well done.")
	f.application("scoredBy", app)
	f.time("dateCreated", s.gradedAt)
	f.end()
}
