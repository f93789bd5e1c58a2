// Package etl is the framework that apps are written in: it turns tables, said as values, into a plan.
//
//	var quizSubmissions = etl.Table[QuizSubmission]{
//		Name: "quiz_submission",
//		From: etl.Events(caliper.OutcomeEvent),
//		Joins: []etl.Join{
//			etl.JoinEntity(caliper.AssignableDigitalResource).ToField("activity").
//				On("entity.@id").Eq("event.object.assignable.@id"),
//		},
//		Map: func(r *etl.Reader) (QuizSubmission, error) {
//			return QuizSubmission{
//				CourseID: r.String("activity.extensions.courseSection.subOrganizationOf.@id"),
//				Score:    r.Float("event.generated.totalScore", 0),
//			}, nil
//		},
//	}
//
// The one idea: the final tables are a function of the set of records, never of the order in which they came. A record chooses
// its entities' versions by time, waits for those that are not there, is corrected when a better one comes, and has an id that
// only its content decides. DESIGN.md §7 says it at length; join_state.go draws it.
//
// A record keeps its bytes from end to end. It is scanned once, for all paths of the app (see layout); joining attaches the
// entity's bytes; nothing is parsed into a tree or serialised again before the row is written as Avro.
//
// Everything that is wrong with an app is an error of App.Plan, before it runs. Everything that is wrong with a record is a
// Problem, and lands in the table dead_letter. etl does no I/O and holds no state: runners do both.
package etl
