package ingest

import (
	"time"

	"millrace/plan"
	"millrace/record"
)

// Columns are the columns of a raw row that Item reads, in its order.
var Columns = []string{
	"account", "env", "source_type", "kind", "id", "event_time", "received_at", "send_time", "sensor", "data_version",
	"topic", "partition", "offset", "reason", "bytes",
}

// Indices into Columns, for those who choose rows.
const (
	ColumnAccount    = 0
	ColumnEnv        = 1
	ColumnSourceType = 2
	ColumnEventTime  = 5
	ColumnPartition  = 11
	ColumnOffset     = 12
)

// Items makes the items of raw rows again. It keeps the texts that repeat, and is not safe for concurrent use.
type Items struct{ texts map[string]string }

// maxTexts bounds what Items keeps: sensors name themselves and may do so at will.
const maxTexts = 4096

// Item is the item that row made the raw row of: cells are by Columns, then by row. Times are those of the lake, in whole microseconds.
func (s *Items) Item(cells [][]plan.Cell, row int) record.Item {
	next := -1
	cell := func() *plan.Cell {
		next++
		return &cells[next][row]
	}
	instant := func() time.Time {
		c := cell()
		if c.Null {
			return time.Time{}
		}
		return time.UnixMicro(c.Int).UTC()
	}
	it := record.Item{Account: s.text(cell()), Env: s.text(cell()), SourceType: s.text(cell())}
	it.Kind, _ = record.ParseKind(s.text(cell())) // none other was written
	it.ID = string(cell().Bytes)
	cell() // the row's event time follows from the rest
	it.ReceivedAt, it.SendTime = instant(), instant()
	it.Sensor, it.DataVersion = s.text(cell()), s.text(cell())
	it.Position = record.Position{Topic: s.text(cell()), Partition: int32(cell().Int), Offset: cell().Int} //nolint:gosec // as Kafka has it
	it.Reason = string(cell().Bytes)
	it.Bytes = cell().Bytes
	return it
}

func (s *Items) text(c *plan.Cell) string {
	if t, ok := s.texts[string(c.Bytes)]; ok {
		return t
	}
	if s.texts == nil || len(s.texts) >= maxTexts {
		s.texts = map[string]string{}
	}
	t := string(c.Bytes)
	s.texts[t] = t
	return t
}
