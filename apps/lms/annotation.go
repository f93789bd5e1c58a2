package lms

import (
	"time"

	"millrace/caliper"
	"millrace/etl"
)

// Annotation is a tag, a highlight, a bookmark or a share.
type Annotation struct {
	AnnotationID   *string   `avro:"annotationId"`
	AnnotationType *string   `avro:"annotationType" doc:"TagAnnotation and so on, as a term"`
	Action         *string   `avro:"action" doc:"Tagged, Highlighted, Bookmarked, Shared"`
	ResourceID     string    `avro:"resourceId" doc:"what was annotated"`
	UserID         string    `avro:"userId"`
	Tags           []string  `avro:"tags"`
	Note           *string   `avro:"note" doc:"a bookmark's note, or the highlighted text"`
	SectionID      *string   `avro:"sectionId"`
	AnnotatedAt    time.Time `avro:"annotatedAt"`
}

var annotations = etl.Table[Annotation]{
	Name: "annotation",
	Doc:  "tags, highlights, bookmarks and shares",
	From: etl.Events(caliper.AnnotationEvent),
	Map: func(r *etl.Reader) (Annotation, error) {
		return Annotation{
			AnnotationID:   etl.Opt[string](r, "event.generated.@id"),
			AnnotationType: etl.OptTerm(r, "event.generated.@type"),
			Action:         etl.OptTerm(r, "event.action"),
			ResourceID:     r.String("event.object.@id|event.generated.annotated.@id"),
			UserID:         r.String("event.actor.@id|event.generated.annotator.@id"),
			Tags:           r.Strings("event.generated.tags", nil),
			Note:           etl.Opt[string](r, "event.generated.bookmarkNotes|event.generated.selectionText"),
			SectionID:      etl.Opt[string](r, "event.group.@id"),
			AnnotatedAt:    r.EventTime(),
		}, nil
	},
}
