package bench

import (
	"fmt"
	"math/rand/v2"
	"time"

	"millrace/record"
)

// What the records are like, in hundredths of them.
const (
	updates = 2 // new versions of entities that were described before
	late    = 5 // entities that are described only after an event needs them

	// lateBy is how many records, at most, come between an event and the late entity that it needs.
	lateBy = 40_000

	perSection  = 100 // entities
	assignments = 10  // of them; the others are memberships

	tick = 5 * time.Millisecond // between the times of two records
)

// epoch is the time of a load's first record.
var epoch = time.Date(2026, 9, 14, 8, 0, 0, 0, time.UTC)

// load makes records: first the descriptions of entities, which are keys of the job's state, then a stream in which events draw
// their entities evenly from all of them. It makes the same records for the same seed and number of keys.
type load struct {
	keys    int
	rnd     *rand.Rand
	n       int               // records made of the stream
	extra   int               // late entities made up
	waiting map[int]entityRef // late entities, by the record in whose place they come
}

// entityRef names an assignment, or a membership, of a section.
type entityRef struct {
	section, number int
	membership      bool
}

func newLoad(keys int) *load {
	return &load{keys: keys, rnd: rand.New(rand.NewPCG(1, uint64(keys))), waiting: map[int]entityRef{}}
}

// describe appends the first description of entity i, one of keys, to dst.
func (l *load) describe(dst []byte, i int) ([]byte, meta) {
	return l.known(i).append(dst, 0, epoch.Add(-30*24*time.Hour))
}

// known is entity i of those that are described before the stream begins.
func (l *load) known(i int) entityRef {
	r := i % perSection
	return entityRef{section: i / perSection, number: i, membership: r >= assignments}
}

// next appends the next record of the stream to dst.
func (l *load) next(dst []byte) ([]byte, meta) {
	l.n++
	now := epoch.Add(time.Duration(l.n) * tick)
	if e, ok := l.waiting[l.n]; ok {
		delete(l.waiting, l.n)
		return e.append(dst, 0, now.Add(-time.Hour))
	}
	r := l.rnd.IntN(100 - late)
	if r < updates {
		return l.known(l.rnd.IntN(l.keys)).append(dst, l.n, now.Add(-time.Duration(l.rnd.IntN(300))*time.Second))
	}
	section := l.rnd.IntN(l.keys / perSection)
	assignment := entityRef{section: section, number: section*perSection + l.rnd.IntN(assignments)}
	student := entityRef{section: section, number: section*perSection + assignments + l.rnd.IntN(perSection-assignments), membership: true}
	if r < updates+late {
		missing := &student
		if l.rnd.IntN(perSection) < assignments {
			missing = &assignment
		}
		missing.number = l.keys + l.extra
		l.extra++
		due := l.n + 1 + l.rnd.IntN(lateBy)
		for l.waiting[due] != (entityRef{}) {
			due++
		}
		l.waiting[due] = *missing
	}
	return outcome(dst, l.n, assignment, student, now)
}

// meta is what an item says beside its bytes. It has no pointers, so that many cost the garbage collector nothing.
type meta struct {
	kind record.Kind
	id   int   // length of the id, which is in the bytes, after head
	at   int64 // µs since 1970
}

// head is how every record begins.
const head = `{"@context":"http://purl.imsglobal.org/ctx/caliper/v1/Context","@id":"`

func newMeta(kind record.Kind, id string, at time.Time) meta {
	return meta{kind, len(id), at.UnixMicro()}
}

func (e entityRef) append(dst []byte, revision int, modified time.Time) ([]byte, meta) {
	if e.membership {
		return membership(dst, e, revision, modified)
	}
	return assignment(dst, e, revision, modified)
}

const site = "https://lms.district.example/terms/202609/courses/"

func (e entityRef) course() string { return fmt.Sprintf("%s%d", site, e.section/10) }
func (e entityRef) organized() string { return fmt.Sprintf("%s/sections/%d", e.course(), e.section) }

func (e entityRef) id() string {
	if e.membership {
		return fmt.Sprintf("%s/roster/%d", e.organized(), e.number)
	}
	return fmt.Sprintf("%s/assign/%d", e.organized(), e.number)
}

func (e entityRef) person() string {
	return fmt.Sprintf("https://lms.district.example/users/%d", e.number)
}

const stamp = "2006-01-02T15:04:05.000Z"

func assignment(dst []byte, e entityRef, revision int, modified time.Time) ([]byte, meta) {
	when := modified.Format(stamp)
	dst = fmt.Appendf(dst, head+`%s",`+
		`"@type":"http://purl.imsglobal.org/caliper/v1/AssignableDigitalResource","name":"Check your understanding %d, revision %d",`+
		`"description":null,"objectType":[],"alignedLearningObjective":[],"keywords":[],"isPartOf":null,`+
		`"extensions":{"moduleType":"quiz","courseSection":{"@id":%q,"@type":"http://purl.imsglobal.org/caliper/v1/lis/CourseSection",`+
		`"subOrganizationOf":{"@id":%q,"@type":"http://purl.imsglobal.org/caliper/v1/lis/CourseOffering"}}},`+
		`"dateCreated":"2026-08-01T06:00:00.000Z","dateModified":%q,"dateToSubmit":"2026-12-14T11:59:59.000Z","maxAttempts":2,"maxScore":100.0}`,
		e.id(), e.number, revision, e.organized(), e.course(), when)
	return dst, newMeta(record.Entity, e.id(), modified)
}

func membership(dst []byte, e entityRef, revision int, modified time.Time) ([]byte, meta) {
	dst = fmt.Appendf(dst, head+`%s",`+
		`"@type":"http://purl.imsglobal.org/caliper/v1/lis/Membership","name":"Roster entry, revision %d","description":null,`+
		`"member":{"@id":%q,"@type":"http://purl.imsglobal.org/caliper/v1/lis/Person"},`+
		`"organization":{"@id":%q,"@type":"http://purl.imsglobal.org/caliper/v1/lis/CourseSection",`+
		`"subOrganizationOf":{"@id":%q,"@type":"http://purl.imsglobal.org/caliper/v1/lis/CourseOffering"}},`+
		`"roles":["http://purl.imsglobal.org/vocab/lis/v2/membership#Learner"],"status":"http://purl.imsglobal.org/vocab/lis/v2/status#Active",`+
		`"extensions":{},"dateCreated":"2026-08-01T06:00:00.000Z","dateModified":%q}`,
		e.id(), revision, e.person(), e.organized(), e.course(), modified.Format(stamp))
	return dst, newMeta(record.Entity, e.id(), modified)
}

func outcome(dst []byte, n int, quiz, student entityRef, at time.Time) ([]byte, meta) {
	id := fmt.Sprintf("urn:uuid:7b6c2f1e-5a90-4000-8000-%012x", n)
	when, score := at.Format(stamp), n%101
	attempt := fmt.Sprintf("%s/users/%d/attempts/%d", quiz.id(), student.number, n)
	dst = fmt.Appendf(dst, head+`%s",`+
		`"@type":"http://purl.imsglobal.org/caliper/v1/OutcomeEvent","actor":{"@id":"https://lms.district.example/grader",`+
		`"@type":"http://purl.imsglobal.org/caliper/v1/SoftwareApplication","name":"Grader","description":null,"extensions":{},`+
		`"dateCreated":"2026-08-01T06:00:00.000Z"},"action":"http://purl.imsglobal.org/vocab/caliper/v1/action#Graded",`+
		`"object":{"@id":%q,"@type":"http://purl.imsglobal.org/caliper/v1/Attempt","name":null,"extensions":{},`+
		`"assignable":{"@id":%q,"@type":"http://purl.imsglobal.org/caliper/v1/Assessment"},"actor":%q,"count":1,`+
		`"startedAtTime":%q,"endedAtTime":null,"duration":null},"target":null,`+
		`"generated":{"@id":"%s/result","@type":"http://purl.imsglobal.org/caliper/v1/Result","extensions":{},`+
		`"actor":{"@id":%q,"@type":"http://purl.imsglobal.org/caliper/v1/lis/Person"},"normalScore":%d.0,"penaltyScore":0.0,`+
		`"extraCreditScore":0.0,"totalScore":%d.0,"curvedTotalScore":%d.0,"curveFactor":0.0,"comment":"Well done."},`+
		`"eventTime":%q,"edApp":{"@id":"https://lms.district.example","@type":"http://purl.imsglobal.org/caliper/v1/SoftwareApplication"}}`,
		id, attempt, quiz.id(), student.person(), when, attempt, student.person(), score, score, score, when)
	return dst, newMeta(record.Event, id, at)
}
