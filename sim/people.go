package sim

import "strconv"

var (
	givenNames  = []string{"Amara", "Ben", "Chloé", "Diego", "Elif", "Finn", "Grace", "Hana", "Isaac", "Jada", "Kofi", "Lena", "Mateo", "Nora", "Omar", "Priya", "Quinn", "Rosa", "Sam", "Tess", "Uma", "Víctor", "Wren", "Yusuf", "Zoë"}
	familyNames = []string{"Adams", "Brooks", "Chen", "Díaz", "Evans", "Farah", "García", "Hughes", "Iyer", "Jensen", "Kim", "Lopez", "Moore", "Nguyen", "O'Neil", "Park", "Quist", "Rivera", "Singh", "Tran", "Underwood", "Vega", "Walker", "Young", "Zhang"}
)

func (w *world) personName(number uint64) string {
	r := newRNG(w.cfg.Seed, forName, number)
	return givenNames[r.intn(len(givenNames))] + " " + familyNames[r.intn(len(familyNames))]
}

func studentIRI(student int32) string { return base + "/users/" + strconv.Itoa(500001+int(student)) }

func teacherIRI(section int32) string { return base + "/users/" + strconv.Itoa(90001+int(section)) }

func schoolIRI(school int) string { return base + "/schools/" + strconv.Itoa(school+1) }

func enrolmentIRI(enrolment int32) string {
	return term + "/enrollments/" + strconv.Itoa(1+int(enrolment))
}

func teachingIRI(section int32) string { return term + "/teachings/" + strconv.Itoa(1+int(section)) }

func (w *world) assignmentIRI(a assignment) string {
	return w.sections[a.section].iri + "/assign/" + strconv.Itoa(a.number)
}
