package lms

import (
	"time"

	"millrace/caliper"
	"millrace/etl"
)

// QuizSubmission is one graded attempt at a quiz.
type QuizSubmission struct {
	Action       *string   `avro:"action" doc:"Graded"`
	ActivityID   string    `avro:"activityId" doc:"the quiz"`
	ActivityType *string   `avro:"activityType" doc:"kind of module, as the application names it"`
	AttemptID    *string   `avro:"attemptId"`
	CourseID     *string   `avro:"courseId"`
	SectionID    *string   `avro:"sectionId"`
	DateAndTime  time.Time `avro:"dateAndTime" doc:"when it was graded"`
	Role         *string   `avro:"role" doc:"the student's role in the section, as a term"`
	Score        float64   `avro:"score"`
	MaxScore     *float64  `avro:"maxScore" doc:"Caliper 1.1 only"`
	StudentID    string    `avro:"studentId"`
}

const (
	assignable = "event.object.assignable.@id"
	// 1.0 names the student in the result and in the attempt's actor, 1.1 in the attempt's assignee.
	student etl.Path = "event.generated.actor.@id|event.object.actor.@id|event.object.assignee.@id|event.generated.attempt.assignee.@id"
)

var activity = etl.JoinEntity(caliper.AssignableDigitalResource).ToField("activity").
	On("entity.@id").Eq(assignable)

// enrollment joins on the section: a Membership names its section as the organization. The talk compares it with the course,
// which its own printed records never match. An application whose assignments know only their course is met half way: a
// Membership is filed under its section's course too. One that says neither is met by the event's group.
var enrollment = etl.JoinEntity(caliper.Membership).ToField("enrollment").
	On("entity.member.@id").Eq(student).
	And("entity.organization.@id|entity.organization.subOrganizationOf.@id").
	Eq("activity.extensions.courseSection.@id|activity.extensions.courseSection.subOrganizationOf.@id|event.group.@id")

var quizSubmissions = etl.Table[QuizSubmission]{
	Name:  "quiz_submission",
	Doc:   "graded attempts at quizzes",
	From:  etl.Events(caliper.OutcomeEvent, caliper.GradeEvent),
	Joins: []etl.Join{activity, enrollment},
	Map: func(r *etl.Reader) (QuizSubmission, error) {
		return QuizSubmission{
			Action:       etl.OptTerm(r, "event.action"),
			ActivityID:   r.String(assignable),
			ActivityType: etl.Opt[string](r, "activity.extensions.moduleType"),
			AttemptID:    etl.Opt[string](r, "event.object.@id"),
			CourseID:     etl.Opt[string](r, "activity.extensions.courseSection.subOrganizationOf.@id"),
			SectionID:    etl.Opt[string](r, "activity.extensions.courseSection.@id"),
			DateAndTime:  r.EventTime(),
			Role:         etl.OptTerm(r, "enrollment.roles.0|enrollment.roles"),
			Score:        r.Float("event.generated.totalScore|event.generated.scoreGiven", 0),
			MaxScore:     etl.Opt[float64](r, "event.generated.maxScore"),
			StudentID:    r.String(student),
		}, nil
	},
}
