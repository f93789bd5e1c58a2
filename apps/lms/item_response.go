package lms

import (
	"time"

	"millrace/caliper"
	"millrace/etl"
)

// ItemResponse is one completed question of an assessment.
type ItemResponse struct {
	ItemID       string    `avro:"itemId"`
	AssessmentID *string   `avro:"assessmentId"`
	AttemptID    *string   `avro:"attemptId" doc:"the attempt at the item"`
	ResponseID   *string   `avro:"responseId"`
	ResponseType *string   `avro:"responseType" doc:"FillinBlankResponse and so on, as a term"`
	Values       []string  `avro:"values" doc:"what was answered"`
	StudentID    string    `avro:"studentId"`
	SectionID    *string   `avro:"sectionId"`
	SessionID    *string   `avro:"sessionId"`
	CompletedAt  time.Time `avro:"completedAt"`
	Seconds      *float64  `avro:"seconds" doc:"from start to end of the attempt, when it tells both"`
	MaxScore     *float64  `avro:"maxScore"`
}

var itemResponses = etl.Table[ItemResponse]{
	Name: "item_response",
	Doc:  "completed questions of assessments",
	From: etl.Events(caliper.AssessmentItemEvent).Actions(caliper.Completed),
	Map: func(r *etl.Reader) (ItemResponse, error) {
		return ItemResponse{
			ItemID:       r.String("event.object.@id"),
			AssessmentID: etl.Opt[string](r, "event.object.isPartOf.@id|event.generated.assignable.@id"),
			AttemptID:    etl.Opt[string](r, "event.generated.attempt.@id"),
			ResponseID:   etl.Opt[string](r, "event.generated.@id"),
			ResponseType: etl.OptTerm(r, "event.generated.@type"),
			Values:       r.Strings("event.generated.values|event.generated.value", nil),
			StudentID:    r.String("event.actor.@id"),
			SectionID:    etl.Opt[string](r, "event.group.@id"),
			SessionID:    etl.Opt[string](r, "event.session.@id"),
			CompletedAt:  r.EventTime(),
			Seconds: seconds(
				etl.Opt[time.Time](r, "event.generated.attempt.startedAtTime|event.generated.startedAtTime"),
				etl.Opt[time.Time](r, "event.generated.attempt.endedAtTime|event.generated.endedAtTime"),
			),
			MaxScore: etl.Opt[float64](r, "event.object.maxScore"),
		}, nil
	},
}

// seconds is the time between two instants, when both are known.
func seconds(from, to *time.Time) *float64 {
	if from == nil || to == nil {
		return nil
	}
	s := to.Sub(*from).Seconds()
	return &s
}
