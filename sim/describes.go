package sim

// need is when something described is first used in a day: by a session, and by a grade (0: by none).
type need struct{ used, graded int64 }

func (n *need) use(s *session) {
	if n.used == 0 || s.start < n.used {
		n.used = s.start
	}
	if s.attempt > 0 && (n.graded == 0 || s.gradedAt < n.graded) {
		n.graded = s.gradedAt
	}
}

// describeLead is how long before the first session that uses an entity its description is due.
const describeLead = 60_000

// addDescribes plans the day's entity descriptions: the district on the first day, students and their enrolments on the
// day of their first session, moves, and the day's assignments with their questions.
func (p *dayPlan) addDescribes() {
	w := p.w
	if p.day == 0 {
		p.describeDistrict()
	}
	byAssignment := map[int32]*need{}
	for i := 0; i < len(p.sessions); {
		student := p.sessions[i].student
		var ofStudent need
		ofEnrolment := make([]need, w.cfg.Periods)
		for ; i < len(p.sessions) && p.sessions[i].student == student; i++ {
			s := &p.sessions[i]
			ofStudent.use(s)
			ofEnrolment[s.k].use(s)
			if s.attempt > 0 {
				if byAssignment[s.section] == nil {
					byAssignment[s.section] = &need{}
				}
				byAssignment[s.section].use(s)
			}
		}
		if p.first(student) {
			p.describe(item{kind: describesStudent, owner: student}, w.sis(), need{used: ofStudent.used})
			for k, n := range ofEnrolment {
				if n.used == 0 {
					n.used = ofStudent.used
				}
				p.describe(item{kind: describesMembership, owner: student*int32(w.cfg.Periods) + int32(k)}, w.sis(), n)
			}
		}
	}
	for student := range int32(len(w.schoolOf)) {
		if m, ok := w.moves[student]; ok && m.day == p.day {
			owner := student*int32(w.cfg.Periods) + int32(m.period)
			p.describe(item{kind: describesMembership, owner: owner, index: 1, flags: isMove}, w.sis(), need{used: m.at + describeLead})
		}
	}
	for sec := range int32(len(w.sections)) {
		if a := w.assignmentOf(sec, p.day); a.number > 0 {
			p.describeAssignment(a, byAssignment[sec])
		}
	}
}

// describe plans the description of one entity: due before its first use, sent about then, or late, or twice.
func (p *dayPlan) describe(it item, sensor int, n need) {
	it.at = max(p.w.start, n.used-describeLead)
	sent := it.at + p.r.millis(0, 90)
	if n.graded > 0 && p.r.chance(p.w.irr.LateEntity) {
		it.flags |= isLate
		sent = n.graded + p.r.millis(10, 4*60)
	}
	twice := p.r.chance(p.w.irr.TwiceEntity)
	if twice {
		it.flags |= isTwice
	}
	index := p.addItem(it, sensor, &p.r)
	q := p.queues[sensor]
	q[len(q)-1].at = sent
	if twice {
		p.queues[sensor] = append(q, queued{at: sent + p.r.millis(5, 10*60), item: index})
	}
}

func (p *dayPlan) describeAssignment(a assignment, n *need) {
	w := p.w
	sensor := w.courses[w.sections[a.section].course].school*sensorsPerSchool + lms
	if n == nil {
		n = &need{used: max(w.start, p.dayStart()+p.r.millis(3*3600, 9*3600))}
	}
	p.describe(item{kind: describesAssignment, owner: a.section}, sensor, *n)
	for q := range a.questions {
		p.describe(item{kind: describesQuestion, owner: a.section, index: int32(q)}, sensor, need{used: n.used})
	}
	if p.r.chance(w.irr.Changed) {
		at := n.used + p.r.millis(2*60, 40*60)
		p.describe(item{kind: describesAssignment, owner: a.section, index: 1, flags: isChanged}, sensor, need{used: at})
	}
}

// describeDistrict plans what is sent once, in the first minutes: schools, courses, sections, teachers.
func (p *dayPlan) describeDistrict() {
	w := p.w
	soon := func(it item) {
		p.describe(it, w.sis(), need{used: w.start + describeLead + p.r.millis(0, 5*60)})
	}
	for i := range w.cfg.Schools {
		soon(item{kind: describesSchool, owner: int32(i)})
	}
	for i := range w.courses {
		soon(item{kind: describesCourse, owner: int32(i)})
	}
	for i := range w.sections {
		soon(item{kind: describesSection, owner: int32(i)})
		soon(item{kind: describesTeacher, owner: int32(i)})
		soon(item{kind: describesTeaching, owner: int32(i)})
	}
}

func (p *dayPlan) dayStart() int64 { return p.w.dayStart(p.day) }
