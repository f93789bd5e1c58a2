package elastic

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"millrace/plan"
)

// ReadDocument reads a document of a table back: the row by column name, MetaColumns included. A value is what the column's type says,
// string, int64, float64, bool, time.Time in UTC, []byte or []string, or nil. It says what is wrong with a document that a Sink
// would not have written: one of which a value, the id or the version is not that of its row. It does not say the values: they are people's.
func ReadDocument(t plan.Table, id string, version uint64, source []byte) (map[string]any, error) {
	var fields map[string]any
	d := json.NewDecoder(bytes.NewReader(source))
	d.UseNumber()
	if err := d.Decode(&fields); err != nil {
		return nil, fmt.Errorf("the document is no JSON object: %w", err)
	}
	row := make(map[string]any, len(fields))
	for _, columns := range [][]plan.Column{t.Schema.Columns, plan.MetaColumns} {
		for _, c := range columns {
			name := c.Name
			if name == "_id" {
				name = RowID
			}
			v, ok := readValue(c.Type, fields[name])
			if !ok {
				return nil, fmt.Errorf("its %s has another type than its column", name)
			}
			row[c.Name] = v
		}
	}
	if row["_id"] != id {
		return nil, fmt.Errorf("its %s is not its id", RowID)
	}
	if rev, ok := row["_rev"].(int64); !ok || uint64(rev) != version&plan.MaxRev { //nolint:gosec // a negative one is none
		return nil, fmt.Errorf("its revision is %v and its version %d", row["_rev"], version)
	}
	return row, nil
}

// readValue is the inverse of appendCell; nil is null.
func readValue(typ plan.Type, v any) (any, bool) {
	if v == nil {
		return nil, true
	}
	switch typ {
	case plan.Bool:
		b, ok := v.(bool)
		return b, ok
	case plan.Long:
		n, ok := v.(json.Number)
		i, err := n.Int64()
		return i, ok && err == nil
	case plan.Double:
		n, ok := v.(json.Number)
		f, err := n.Float64()
		return f, ok && err == nil
	case plan.Strings:
		list, ok := v.([]any)
		out := make([]string, len(list))
		for i := range list {
			s, isString := list[i].(string)
			out[i], ok = s, ok && isString
		}
		return out, ok
	}
	s, ok := v.(string)
	switch typ {
	case plan.Timestamp:
		t, err := time.Parse(time.RFC3339Nano, s)
		return t.UTC(), ok && err == nil
	case plan.Bytes:
		b, err := base64.StdEncoding.DecodeString(s)
		return b, ok && err == nil
	}
	return s, ok
}
