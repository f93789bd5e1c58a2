package sim_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/caliper"
	"millrace/record"
	"millrace/sim"
)

// at follows a path as the ETL does: @id is id, @type is type, and the id of a string is the string.
func at(v any, path ...string) any {
	for _, step := range path {
		if s, ok := v.(string); ok && step == "id" {
			v = s
			continue
		}
		m, _ := v.(map[string]any)
		if v = m[step]; v == nil {
			v = m["@"+step]
		}
	}
	return v
}

func text(v any, path ...string) string {
	s, _ := at(v, path...).(string)
	return s
}

type grade struct {
	student, assignment, attempt string
	order                        int // of arrival
}

// joined is what arrival of posts leaves in the tables that the talk's join needs.
type joined struct {
	grades      []grade
	sections    map[string]string // by assignment
	described   map[string]int    // by assignment: order of arrival
	memberships map[string]bool   // "student section"
	enrolled    map[string]int    // by "student section": order of arrival
	titles      map[string]map[string]bool
	orgs        map[string]map[string]bool // by membership
}

func join(t *testing.T, posts []sim.Post) joined {
	t.Helper()
	j := joined{
		sections: map[string]string{}, described: map[string]int{}, memberships: map[string]bool{}, enrolled: map[string]int{},
		titles: map[string]map[string]bool{}, orgs: map[string]map[string]bool{},
	}
	put := func(m map[string]map[string]bool, k, v string) {
		if m[k] == nil {
			m[k] = map[string]bool{}
		}
		m[k][v] = true
	}
	attempts := map[string]bool{}
	for order, p := range posts {
		for _, e := range p.Items {
			if e.Kind == record.Reject || !e.First {
				continue
			}
			var v any
			raw := p.Body[e.From:e.To]
			require.NoError(t, json.Unmarshal(raw, &v), "%s", raw)
			switch e.Type {
			case "OutcomeEvent", "GradeEvent":
				g := grade{
					student: text(v, "generated", "actor", "id"), assignment: text(v, "object", "assignable", "id"),
					attempt: text(v, "object", "id"), order: order,
				}
				score := at(v, "generated", "totalScore")
				if e.Type == "GradeEvent" {
					g.student = text(v, "object", "assignee", "id")
					score = at(v, "generated", "scoreGiven")
				}
				require.IsType(t, 0.0, score, "%s", raw)
				require.NotEmpty(t, g.student, "%s", raw)
				require.NotEmpty(t, g.assignment, "%s", raw)
				require.False(t, attempts[g.attempt], "attempt %s is graded twice", g.attempt)
				attempts[g.attempt] = true
				j.grades = append(j.grades, g)
			case "AssignableDigitalResource":
				id := text(v, "id")
				require.NotEmpty(t, text(v, "extensions", "courseSection", "subOrganizationOf", "id"), "%s", raw)
				require.NotEmpty(t, text(v, "extensions", "moduleType"), "%s", raw)
				j.sections[id] = text(v, "extensions", "courseSection", "id")
				if _, ok := j.described[id]; !ok {
					j.described[id] = order
				}
				put(j.titles, id, text(v, "name"))
			case "Membership":
				roles, _ := at(v, "roles").([]any)
				require.Len(t, roles, 1, "%s", raw)
				role := caliper.Term(roles[0].(string))
				if role != "Learner" {
					require.Equal(t, "Instructor", role, "%s", raw)
					continue
				}
				key := text(v, "member", "id") + " " + text(v, "organization", "id")
				j.memberships[key] = true
				if _, ok := j.enrolled[key]; !ok {
					j.enrolled[key] = order
				}
				put(j.orgs, text(v, "id"), text(v, "organization", "id"))
			}
		}
	}
	return j
}

// Wherever the simulation is finished, every graded quiz that was sent can be joined with its assignment and with the
// student's enrolment in the assignment's section.
func TestEveryGradedQuizCanBeJoined(t *testing.T) {
	t.Parallel()
	cfg := small(17)
	cfg.Students = 60
	total := len(take(district(t, cfg), 2))
	late := struct{ assignments, enrolments int }{}
	for stop := 40; stop < total; stop += total/8 + 1 {
		d := district(t, cfg)
		var posts []sim.Post
		for range stop {
			posts = append(posts, d.Next())
		}
		for range d.Finish() {
			posts = append(posts, d.Next())
		}
		j := join(t, posts)
		require.Equal(t, sim.Count(posts).Distinct.Graded, int64(len(j.grades)))
		for _, g := range j.grades {
			section, ok := j.sections[g.assignment]
			require.True(t, ok, "finished after %d posts: %s is never described", stop, g.assignment)
			require.True(t, strings.HasPrefix(g.assignment, section+"/"), "%s in %s", g.assignment, section)
			enrolment := g.student + " " + section
			require.True(t, j.memberships[enrolment], "finished after %d posts: no enrolment of %s", stop, enrolment)
			if g.order < j.described[g.assignment] {
				late.assignments++
			}
			if g.order < j.enrolled[enrolment] {
				late.enrolments++
			}
		}
	}
	require.Positive(t, late.assignments, "some assignments are described after a grade")
	require.Positive(t, late.enrolments, "some enrolments are described after a grade")
}

// Assignments get new titles and students move to other sections, under the same ids.
func TestEntitiesChange(t *testing.T) {
	t.Parallel()
	cfg := small(19)
	cfg.Students, cfg.Irregular = 40, sim.DefaultIrregular()
	cfg.Irregular.Movers, cfg.Irregular.Changed = 0.5, 0.5
	j := join(t, take(district(t, cfg), 3))
	changed, moved := 0, 0
	for _, titles := range j.titles {
		if len(titles) > 1 {
			changed++
		}
	}
	for id, orgs := range j.orgs {
		require.LessOrEqual(t, len(orgs), 2, id)
		if len(orgs) == 2 {
			moved++
		}
	}
	require.Positive(t, changed)
	require.Positive(t, moved)
}
