package lms

import (
	"time"

	"millrace/caliper"
	"millrace/etl"
)

// ActivityView is one look at a page or another resource.
type ActivityView struct {
	ResourceID   string    `avro:"resourceId"`
	ResourceType *string   `avro:"resourceType" doc:"as a term"`
	ResourceName *string   `avro:"resourceName"`
	PartOf       *string   `avro:"partOf" doc:"what the resource is a part of"`
	CameFrom     *string   `avro:"cameFrom" doc:"the resource navigated from"`
	Action       *string   `avro:"action" doc:"NavigatedTo or Viewed"`
	UserID       string    `avro:"userId"`
	SectionID    *string   `avro:"sectionId"`
	SessionID    *string   `avro:"sessionId"`
	ViewedAt     time.Time `avro:"viewedAt"`
}

var activityViews = etl.Table[ActivityView]{
	Name: "activity_view",
	Doc:  "pages and resources that were looked at",
	From: etl.Events(caliper.NavigationEvent, caliper.ViewEvent),
	Map: func(r *etl.Reader) (ActivityView, error) {
		return ActivityView{
			ResourceID:   r.String("event.object.@id"),
			ResourceType: etl.OptTerm(r, "event.object.@type"),
			ResourceName: etl.Opt[string](r, "event.object.name"),
			PartOf:       etl.Opt[string](r, "event.object.isPartOf.@id"),
			CameFrom:     etl.Opt[string](r, "event.referrer.@id|event.navigatedFrom.@id"),
			Action:       etl.OptTerm(r, "event.action"),
			UserID:       r.String("event.actor.@id"),
			SectionID:    etl.Opt[string](r, "event.group.@id"),
			SessionID:    etl.Opt[string](r, "event.session.@id"),
			ViewedAt:     r.EventTime(),
		}, nil
	},
}
