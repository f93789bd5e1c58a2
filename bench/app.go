package bench

import (
	"fmt"
	"time"

	"millrace/apps/lms"
	"millrace/caliper"
	"millrace/etl"
	"millrace/plan"
)

// appName says which app a job runs.
type appName string

const (
	twoJoins appName = "two joins" // one table like quiz_submission
	shipped  appName = "lms"       // all tables of apps/lms
)

// quizSubmission is quiz_submission of apps/lms with one path for each column and key, as an app for one application has it.
func quizSubmission(correct time.Duration) etl.Transformer {
	return etl.Table[lms.QuizSubmission]{
		Name: "quiz_submission",
		From: etl.Events(caliper.OutcomeEvent),
		Joins: []etl.Join{
			etl.JoinEntity(caliper.AssignableDigitalResource).ToField("activity").
				On("entity.@id").Eq("event.object.assignable.@id").CorrectFor(correct),
			etl.JoinEntity(caliper.Membership).ToField("enrollment").
				On("entity.member.@id").Eq("event.generated.actor.@id").
				And("entity.organization.@id").Eq("activity.extensions.courseSection.@id").CorrectFor(correct),
		},
		Map: func(r *etl.Reader) (lms.QuizSubmission, error) {
			return lms.QuizSubmission{
				Action:       etl.OptTerm(r, "event.action"),
				ActivityID:   r.String("event.object.assignable.@id"),
				ActivityType: etl.Opt[string](r, "activity.extensions.moduleType"),
				AttemptID:    etl.Opt[string](r, "event.object.@id"),
				CourseID:     etl.Opt[string](r, "activity.extensions.courseSection.subOrganizationOf.@id"),
				SectionID:    etl.Opt[string](r, "activity.extensions.courseSection.@id"),
				DateAndTime:  r.EventTime(),
				Role:         etl.OptTerm(r, "enrollment.roles.0"),
				Score:        r.Float("event.generated.totalScore", 0),
				StudentID:    r.String("event.generated.actor.@id"),
			}, nil
		},
	}
}

// newPlan is the plan of an app whose joins are corrected for as long as told.
func newPlan(name appName, correct time.Duration) (*plan.Plan, error) {
	app := etl.App{Name: "bench", Version: "1.0.0", SourceTypes: []string{sourceType}, Tables: []etl.Transformer{quizSubmission(correct)}}
	if name == shipped {
		app = lms.App
		app.Tables = nil
		found := false
		for _, table := range lms.App.Tables {
			if t, ok := table.(etl.Table[lms.QuizSubmission]); ok {
				joins := make([]etl.Join, len(t.Joins))
				for i, j := range t.Joins {
					joins[i] = j.CorrectFor(correct)
				}
				t.Joins, table, found = joins, t, true
			}
			app.Tables = append(app.Tables, table)
		}
		if !found {
			return nil, fmt.Errorf("the app %s has no table of quiz submissions", app.Name)
		}
	}
	return app.Plan()
}
