package elastic

import (
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"millrace/plan"
)

// request is a bulk request being filled: lines of actions and documents, and the row that each is of.
type request struct {
	body []byte
	rows []plan.Row
	ends []int // where the lines of each row end in body
}

// cut takes the last row off, whose lines begin at, and returns it as a request of its own.
func (r *request) cut(at int) request {
	last := len(r.rows) - 1
	tail := request{body: slices.Clone(r.body[at:]), rows: []plan.Row{r.rows[last]}, ends: []int{len(r.body) - at}}
	r.body, r.rows, r.ends = r.body[:at], r.rows[:last], r.ends[:last]
	return tail
}

// pick returns the request of some of the rows, in order.
func (r *request) pick(rows []int) request {
	var out request
	for _, i := range rows {
		start := 0
		if i > 0 {
			start = r.ends[i-1]
		}
		out.body = append(out.body, r.body[start:r.ends[i]]...)
		out.rows = append(out.rows, r.rows[i])
		out.ends = append(out.ends, len(out.body))
	}
	return out
}

// maxID is what Elasticsearch takes as the id of a document, in bytes. A longer one would have it refuse the whole request.
const maxID = 512

// append adds a row's lines to a request, or returns why the target will never take it.
func (s *Sink) append(q *request, t *table, c claim, r plan.Row, lineage, version string) (reason string) {
	switch {
	case r.ID == "":
		return "the row has no id"
	case len(r.ID) > maxID:
		return fmt.Sprintf("the row's id has %d bytes, more than the %d that the id of a document may have", len(r.ID), maxID)
	case !utf8.ValidString(r.ID):
		return "the row's id is not valid UTF-8"
	case r.Rev > plan.MaxRev:
		return fmt.Sprintf("the row's revision %d is larger than the %d that a revision may be", r.Rev, int64(plan.MaxRev))
	}
	b := appendAction(q.body, c, r.ID, r.Rev, r.Deleted)
	if !r.Deleted {
		if b, reason = s.appendDocument(b, t, r, lineage, version); reason != "" {
			return reason
		}
		b = append(b, '\n')
	}
	q.body = b
	q.rows = append(q.rows, r)
	q.ends = append(q.ends, len(b))
	return ""
}

// appendAction appends the line that says what becomes of a document. Its version is higher than that of all documents, and of
// all that is remembered of deleted ones, from before the claim.
func appendAction(b []byte, c claim, id string, rev uint64, deleted bool) []byte {
	if deleted {
		b = append(b, `{"delete":{"_index":"`...)
	} else {
		b = append(b, `{"index":{"_index":"`...)
	}
	b = append(b, c.alias...)
	b = append(b, `","_id":`...)
	b = appendString(b, id)
	b = append(b, `,"version":`...)
	b = strconv.AppendUint(b, c.version(rev), 10)
	return append(b, ",\"version_type\":\"external_gte\"}}\n"...)
}

func (s *Sink) appendDocument(b []byte, t *table, r plan.Row, lineage, version string) ([]byte, string) {
	if err := t.Schema.Decode(r.Value, t.cells); err != nil {
		return b, err.Error()
	}
	b = append(b, '{')
	for i := range t.cells {
		if t.cells[i].Null {
			continue
		}
		b = append(b, t.names[i]...)
		reason := ""
		if b, reason = appendCell(b, t.Schema.Columns[i].Type, &t.cells[i]); reason != "" {
			return b, "column " + t.Schema.Columns[i].Name + " " + reason
		}
		b = append(b, ',')
	}
	b = append(b, `"`+RowID+`":`...)
	b = appendString(b, r.ID)
	b = append(b, `,"_rev":`...)
	b = strconv.AppendUint(b, r.Rev, 10)
	b = append(b, `,"_epoch":`...)
	b = strconv.AppendUint(b, r.Epoch, 10)
	for _, f := range []struct{ name, value string }{
		{"_lineage", lineage}, {"_app_version", version}, {"account_id", r.Account}, {"env_id", r.Env},
	} {
		if !utf8.ValidString(f.value) {
			return b, f.name + " is not valid UTF-8"
		}
		b = append(append(append(b, `,"`...), f.name...), `":`...)
		b = appendString(b, f.value)
	}
	sources := make([][]byte, len(r.Sources))
	for i, src := range r.Sources {
		sources[i] = []byte(src)
	}
	for _, f := range []struct {
		name string
		typ  plan.Type
		cell plan.Cell
	}{{"_sources", plan.Strings, plan.Cell{List: sources}}, {"_event_time", plan.Timestamp, plan.Cell{Int: r.EventTime}}} {
		b = append(append(append(b, `,"`...), f.name...), `":`...)
		reason := ""
		if b, reason = appendCell(b, f.typ, &f.cell); reason != "" {
			return b, f.name + " " + reason
		}
	}
	return append(b, '}'), ""
}

// appendCell writes a value that is not null, or returns why the target would not take it.
func appendCell(b []byte, typ plan.Type, c *plan.Cell) ([]byte, string) {
	switch typ {
	case plan.Bool:
		return strconv.AppendBool(b, c.Bool), ""
	case plan.Long:
		return strconv.AppendInt(b, c.Int, 10), ""
	case plan.Double:
		if math.IsNaN(c.Float) || math.IsInf(c.Float, 0) {
			return b, fmt.Sprintf("is %v, which is not a finite number", c.Float)
		}
		return strconv.AppendFloat(b, c.Float, 'g', -1, 64), ""
	case plan.Timestamp:
		t := time.UnixMicro(c.Int).UTC()
		if y := t.Year(); y < 0 || y > 9999 {
			return b, fmt.Sprintf("is in the year %d, outside of 0000 to 9999", y)
		}
		return t.AppendFormat(b, `"2006-01-02T15:04:05.000000Z"`), ""
	case plan.Bytes:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, c.Bytes)
		return append(b, '"'), ""
	case plan.Strings:
		b = append(b, '[')
		for i, item := range c.List {
			if !utf8.Valid(item) {
				return b, "is not valid UTF-8"
			}
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, item)
		}
		return append(b, ']'), ""
	}
	if !utf8.Valid(c.Bytes) {
		return b, "is not valid UTF-8"
	}
	return appendString(b, c.Bytes), ""
}

// appendString writes valid UTF-8 as a JSON string.
func appendString[T string | []byte](b []byte, s T) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		if c < ' ' {
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		} else {
			b = append(b, '\\', c)
		}
		start = i + 1
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
