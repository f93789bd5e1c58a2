// Package lms is the shipped app for learning management systems that speak Caliper: ingest-etl-edgenuity-lms-job.
//
// One file a table, named like it. Both spellings of Caliper are read by one path: @id is id, and where 1.0 and 1.1 put a thing in
// different places, the path names both.
package lms

import (
	_ "embed" // for the descriptor

	"millrace/etl"
)

// Descriptor says how the app is run: control.Descriptor as JSON, in descriptor.json.
//
//go:embed descriptor.json
var Descriptor []byte

// App reads EDGENUITY_LMS.
var App = etl.App{
	Name:        "ingest-etl-edgenuity-lms-job",
	Version:     "1.0.0",
	Description: "ETL job for edgenuity-lms data sources",
	SourceTypes: []string{"EDGENUITY_LMS"},
	Tables: []etl.Transformer{
		quizSubmissions,
		itemResponses,
		activityViews,
		sessionEvents,
		annotations,
		enrollments,
	},
}
