package etl_test

import (
	"fmt"
	"time"

	"millrace/caliper"
	"millrace/etl"
	"millrace/etl/etltest"
	"millrace/record"
)

// A table of graded attempts, joined with the quiz. The event comes before the quiz is described, and waits.
func Example() {
	type Grade struct {
		Course string  `avro:"courseId"`
		Score  float64 `avro:"score"`
	}
	grades := etl.Table[Grade]{
		Name: "grade",
		From: etl.Events(caliper.OutcomeEvent),
		Joins: []etl.Join{
			etl.JoinEntity(caliper.AssignableDigitalResource).ToField("activity").
				On("entity.@id").Eq("event.object.assignable.@id").
				WaitFor(24 * time.Hour),
		},
		Map: func(r *etl.Reader) (Grade, error) {
			return Grade{
				Course: r.String("activity.extensions.course"),
				Score:  r.Float("event.generated.totalScore", 0),
			}, nil
		},
	}
	plan, err := etl.App{Name: "grades-job", Version: "1.0.0", Tables: []etl.Transformer{grades}}.Plan()
	if err != nil {
		fmt.Println(err)
		return
	}

	job := etltest.New(plan)
	job.Feed(record.Item{Kind: record.Event, Bytes: []byte(`{"type":"OutcomeEvent","object":{"assignable":"https://example.edu/quizzes/1"},"generated":{"totalScore":92.4}}`)})
	fmt.Println(len(job.Rows("grade")), "rows,", job.Counters["table.grade.waiting"], "waiting")

	job.Feed(record.Item{Kind: record.Entity, Bytes: []byte(`{"type":"Assessment","id":"https://example.edu/quizzes/1","extensions":{"course":"https://example.edu/courses/7"}}`)})
	for _, row := range job.Rows("grade") {
		fmt.Println(row["courseId"], row["score"])
	}
	// Output:
	// 0 rows, 1 waiting
	// https://example.edu/courses/7 92.4
}
