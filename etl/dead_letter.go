package etl

import (
	"encoding/binary"

	"millrace/plan"
)

// A dead letter is a row of its own table under the id of the row that the record would have become: when a later version of an
// entity mends the record, the dead letter is withdrawn.
var deadLetterSchema = plan.Schema{Name: "DeadLetter", Columns: []plan.Column{
	{Name: "table_name", Type: plan.String, Doc: "table that the record was for; empty when it could not be read at all"},
	{Name: "stage", Type: plan.String, Doc: "where it failed: read, flat_map, join, map, or sink/<name>"},
	{Name: "reasons", Type: plan.Strings, Doc: "every reason"},
	{Name: "kind", Type: plan.String, Doc: "what the record is: event, entity, or row (Avro, refused by a sink)"},
	{Name: "record", Type: plan.Bytes, Doc: "its bytes as they arrived"},
}}

type failure struct {
	stage   string
	reasons []string
}

func (f failure) append(dst []byte) []byte {
	dst = appendString(dst, f.stage)
	dst = binary.AppendUvarint(dst, uint64(len(f.reasons)))
	for _, s := range f.reasons {
		dst = appendString(dst, s)
	}
	return dst
}

func (r *reader) failure() (f failure) {
	f.stage = r.string()
	f.reasons = make([]string, r.count())
	for i := range f.reasons {
		f.reasons[i] = r.string()
	}
	return f
}

func (p *program) deadLetter(row plan.Row, table, kind string, bytes []byte, f failure) plan.Row {
	reasons := make([][]byte, len(f.reasons))
	for i, s := range f.reasons {
		reasons[i] = []byte(s)
	}
	row.Table = len(p.tables)
	row.Deleted = false
	var err error
	row.Value, err = deadLetterSchema.Append(nil, []plan.Cell{
		{Bytes: []byte(table)}, {Bytes: []byte(f.stage)}, {List: reasons}, {Bytes: []byte(kind)}, {Bytes: bytes},
	})
	if err != nil {
		panic(err) // five cells, none null
	}
	return row
}

// refused makes the dead letter of a row that a sink refused.
func (p *program) refused(r plan.Row, sink, reason string) plan.Row {
	table := DeadLetterTable
	if r.Table < len(p.tables) {
		table = p.tables[r.Table].name
	}
	value := r.Value
	r.ID = r.ID + "-" + sink
	return p.deadLetter(r, table, "row", value, failure{"sink/" + sink, []string{reason}})
}
