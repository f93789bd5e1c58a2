// Package ingest is the plan of crusher-prime-job, the singleton that keeps every item of the log in the raw lake: tables
// events, entities and rejects, with the item's exact bytes and where it came from.
//
// The one idea to hold: a raw row is the log record itself, named by its topic, partition and offset. Nothing is merged,
// corrected or left out, so the tables are append-only, and whatever a later program wants to know can be read from them
// again. An item that is in the log once more because a dead letter is replayed is only counted: it is there already. An item that cannot be read as what its header says goes to rejects, with the reason.
//
// It does no I/O: engine or flink runs the plan, sink/iceberg writes the rows.
package ingest

import (
	_ "embed" // for the descriptor
	"strconv"
	"strings"
	"time"

	"millrace/caliper"
	"millrace/plan"
	"millrace/record"
)

// App is the app's name, and Namespace that of its tables in the lake.
const (
	App       = "crusher-prime-job"
	Namespace = "raw"
)

// Descriptor says how the app is run: control.Descriptor as JSON, in descriptor.json.
//
//go:embed descriptor.json
var Descriptor []byte

// Indices into the plan's tables, and with 1 added into its counters: Counters[0] counts the items read.
const (
	Events = iota
	Entities
	Rejects
)

const (
	counterRead     = 0
	counterRows     = 1
	counterReplayed = 4
)

// Plan returns the job's plan in the given version of the app.
func Plan(version string) *plan.Plan {
	p := &plan.Plan{
		App:     App,
		Version: version,
		Doc:     "Keeps every item of the log in the raw lake, byte for byte.",
		Tables: []plan.Table{
			table("events", "Event", "Caliper events as they were sent.", "event_time", eventTimeDoc),
			table("entities", "Entity", "Caliper entity descriptions as they were sent.", "event_time", entityTimeDoc),
			table("rejects", "Reject", "What was sent and is neither, with the reason.", "received_at", rejectTimeDoc),
		},
		Counters: []string{"read", "table.events.rows", "table.entities.rows", "table.rejects.rows", "replayed"},
	}
	p.Read = func(items []record.Item, out *plan.Output) { read(p, items, out) }
	return p
}

const (
	eventTimeDoc  = "the event's eventTime; without one the envelope's sendTime, else received_at"
	entityTimeDoc = "the envelope's sendTime; without one received_at"
	rejectTimeDoc = "received_at"
)

func table(name, schema, doc, day, timeDoc string) plan.Table {
	t := plan.Table{
		Name: name, Doc: doc, AppendOnly: true,
		Schema: plan.Schema{Name: schema, Columns: []plan.Column{
			{Name: "account", Type: plan.String, Doc: "tenant of the sensor's key"},
			{Name: "env", Type: plan.String, Doc: "environment of the sensor's key"},
			{Name: "source_type", Type: plan.String, Doc: "source type of the sensor's key"},
			{Name: "kind", Type: plan.String, Doc: "event, entity or reject: what the log holds it as"},
			{Name: "type", Type: plan.String, Nullable: true, Doc: "Caliper type, as a term"},
			{Name: "id", Type: plan.String, Nullable: true, Doc: "the item's own id"},
			{Name: "event_time", Type: plan.Timestamp, Doc: timeDoc},
			{Name: "received_at", Type: plan.Timestamp, Doc: "when the collector took it"},
			{Name: "send_time", Type: plan.Timestamp, Nullable: true, Doc: "the envelope's sendTime"},
			{Name: "sensor", Type: plan.String, Doc: "the envelope's sensor"},
			{Name: "data_version", Type: plan.String, Nullable: true, Doc: "the envelope's dataVersion"},
			{Name: "topic", Type: plan.String, Doc: "of the log"},
			{Name: "partition", Type: plan.Long, Doc: "of the topic"},
			{Name: "offset", Type: plan.Long, Doc: "in the partition"},
			{Name: "reason", Type: plan.String, Nullable: true, Doc: "why it is a reject"},
			{Name: "bytes", Type: plan.Bytes, Doc: "exactly what was sent"},
		}},
		// So the manifests know how many records each tenant has of each day, and who reads one env opens none of another's files.
		Partition: []plan.PartitionField{
			{Column: "source_type", Transform: plan.Identity},
			{Column: "account", Transform: plan.Identity},
			{Column: "env", Transform: plan.Identity},
			{Column: day, Transform: plan.Day},
		},
	}
	return t
}

// read makes one row of each item.
func read(p *plan.Plan, items []record.Item, out *plan.Output) {
	out.Count(counterRead, int64(len(items)))
	e := encoder{schema: p.Tables[Events].Schema}
	for i := range items {
		item := &items[i]
		if item.Replay != nil && item.Kind != record.Reject {
			out.Count(counterReplayed, 1)
			continue
		}
		head, reason := caliper.Head{}, item.Reason
		kind := Rejects
		if item.Kind != record.Reject {
			var err error
			if head, err = caliper.ReadHead(item.Bytes); err != nil {
				reason = err.Error()
			} else if item.Kind == record.Event {
				kind = Events
			} else {
				kind = Entities
			}
		}
		at := item.ReceivedAt
		if kind != Rejects && !item.SendTime.IsZero() {
			at = item.SendTime
		}
		if kind == Events && !head.EventTime.IsZero() {
			at = head.EventTime
		}
		id := head.ID
		if id == "" {
			id = item.ID
		}
		out.Row(plan.Row{
			Table: kind, Rev: 1, First: true,
			ID:        item.Position.Topic + "/" + strconv.Itoa(int(item.Position.Partition)) + "/" + strconv.FormatInt(item.Position.Offset, 10),
			EventTime: at.UnixMicro(), Account: item.Account, Env: item.Env,
			Value: e.row(item, head.Type, id, at, reason),
		})
		out.Count(counterRows+kind, 1)
	}
}

// encoder makes the values of rows. The tables have the same columns, so one schema does for all.
type encoder struct {
	schema plan.Schema
	cells  []plan.Cell
	text   []byte // what the cells' texts are slices of
}

func (e *encoder) row(item *record.Item, typ, id string, at time.Time, reason string) []byte {
	e.text = e.text[:0]
	e.cells = append(e.cells[:0],
		e.string(item.Account),
		e.string(item.Env),
		e.string(item.SourceType),
		e.string(item.Kind.String()),
		e.optional(typ),
		e.optional(id),
		plan.Cell{Int: at.UnixMicro()},
		plan.Cell{Int: item.ReceivedAt.UnixMicro()},
		plan.Cell{Int: item.SendTime.UnixMicro(), Null: item.SendTime.IsZero()},
		e.string(item.Sensor),
		e.optional(item.DataVersion),
		e.string(item.Position.Topic),
		plan.Cell{Int: int64(item.Position.Partition)},
		plan.Cell{Int: item.Position.Offset},
		e.optional(reason),
		plan.Cell{Bytes: item.Bytes},
	)
	value, err := e.schema.Append(make([]byte, 0, len(e.text)+len(item.Bytes)+100), e.cells)
	if err != nil {
		panic(err) // the cells are the schema's, right above
	}
	return value
}

// string is a cell of text. The lake takes only valid UTF-8 for text and must never refuse a raw row, so what is not becomes
// U+FFFD here; the bytes column has the original.
func (e *encoder) string(s string) plan.Cell {
	n := len(e.text)
	e.text = append(e.text, strings.ToValidUTF8(s, "\uFFFD")...)
	return plan.Cell{Bytes: e.text[n:len(e.text):len(e.text)]}
}

// optional is a cell of text that is null when empty.
func (e *encoder) optional(s string) plan.Cell {
	if s == "" {
		return plan.Cell{Null: true}
	}
	return e.string(s)
}
