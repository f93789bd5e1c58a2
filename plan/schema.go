package plan

import "time"

// Type is the type of a table's column. Each has one Avro, one Iceberg and one Elasticsearch counterpart:
//
//	Type       Avro                        Iceberg       Elasticsearch
//	String     string                      string        keyword
//	Bool       boolean                     boolean       boolean
//	Long       long                        long          long
//	Double     double                      double        double
//	Timestamp  long, timestamp-micros      timestamptz   date (ISO 8601, UTC)
//	Bytes      bytes                       binary        binary
//	Strings    array of string             list<string>  keyword
type Type uint8

const (
	String Type = iota + 1
	Bool
	Long
	Double
	Timestamp // microseconds since 1970-01-01T00:00:00Z
	Bytes
	Strings
)

// Column is one column of a table. A nullable column is the Avro union of null and its type.
type Column struct {
	Name     string
	Type     Type
	Nullable bool
	Doc      string
}

// Schema is the shape of a table's rows. Columns are identified by name.
type Schema struct {
	Name    string // name of the Avro record: QuizSubmission
	Columns []Column
}

// Transform says how a column's value becomes a partition value, in Iceberg's words.
type Transform string

const (
	Identity Transform = "identity"
	Day      Transform = "day"
)

// PartitionField is one field of a table's Iceberg partition spec.
type PartitionField struct {
	Column    string
	Transform Transform
}

// Table is one typed output of a plan.
type Table struct {
	Name      string // quiz_submission: name of the alias, of the Iceberg table, of the table topic
	Doc       string
	Schema    Schema           // the user's columns; sinks add MetaColumns unless AppendOnly
	Partition []PartitionField // of the Iceberg table; default: day(_event_time)

	Reads string // which records become rows: for describe and for comparing versions
	Joins []Join // what a record is joined with on its way, in order: likewise

	// AppendOnly tables (the raw lake) hold their schema's columns alone, go to the lake only, and are never corrected.
	AppendOnly bool
}

// Join is one keyed stage that the records of a table pass. Runners do not look at it.
type Join struct {
	Field      string   // the name under which what was joined is found afterwards
	Stage      int      // index into Plan.Stages
	Record     []string // the paths of the record that make the key
	WaitFor    time.Duration
	CorrectFor time.Duration
	Else       string // what becomes of a record that waited in vain
}

// MetaColumns are the columns that a sink stores beside a table's own, in this order: the row's identity and its proof.
var MetaColumns = []Column{
	{Name: "_id", Type: String, Doc: "stable id of the row"},
	{Name: "_rev", Type: Long, Doc: "revision; of two rows with one id the higher is the truth"},
	{Name: "_epoch", Type: Long, Doc: "engine epoch that made this revision"},
	{Name: "_lineage", Type: String, Doc: "lineage of the instance that made it"},
	{Name: "_app_version", Type: String, Doc: "version of the app that made it"},
	{Name: "_sources", Type: Strings, Doc: "records and entity versions it was made from: <kind> <id> <topic>/<partition>/<offset>"},
	{Name: "_event_time", Type: Timestamp, Doc: "event time; the partition day"},
	{Name: "account_id", Type: String, Doc: "tenant"},
	{Name: "env_id", Type: String, Doc: "the tenant's environment"},
}
