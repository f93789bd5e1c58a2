package eventlog

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/record"
)

const (
	headerAccount     = "account"
	headerEnv         = "env"
	headerSourceType  = "source_type"
	headerKind        = "kind"
	headerReceivedAt  = "received_at"
	headerSensor      = "sensor"
	headerID          = "id"
	headerDataVersion = "data_version"
	headerSendTime    = "send_time"
	headerReason      = "reason"
	headerReplay      = "replay"
)

// encodeHeaders returns an item's headers and the length of their values together.
func encodeHeaders(item *record.Item) ([]kgo.RecordHeader, int) {
	// All values are slices of one buffer, which is sized so that it never moves.
	buf := make([]byte, 0, len(item.Account)+len(item.Env)+len(item.SourceType)+len(item.Sensor)+len(item.ID)+
		len(item.DataVersion)+len(item.Reason)+2*len(time.RFC3339Nano)+8)
	headers := make([]kgo.RecordHeader, 0, 10)
	add := func(key string, from int) {
		headers = append(headers, kgo.RecordHeader{Key: key, Value: buf[from:len(buf):len(buf)]})
	}
	text := func(key, value string) {
		from := len(buf)
		buf = append(buf, value...)
		add(key, from)
	}
	instant := func(key string, t time.Time) {
		from := len(buf)
		buf = t.UTC().AppendFormat(buf, time.RFC3339Nano)
		add(key, from)
	}
	text(headerAccount, item.Account)
	text(headerEnv, item.Env)
	text(headerSourceType, item.SourceType)
	text(headerKind, item.Kind.String())
	instant(headerReceivedAt, item.ReceivedAt)
	if item.Sensor != "" {
		text(headerSensor, item.Sensor)
	}
	if item.ID != "" {
		text(headerID, item.ID)
	}
	if item.DataVersion != "" {
		text(headerDataVersion, item.DataVersion)
	}
	// RFC 3339 has four digits for the year; a clock beyond them says nothing.
	if y := item.SendTime.UTC().Year(); !item.SendTime.IsZero() && y >= 0 && y <= 9999 {
		instant(headerSendTime, item.SendTime)
	}
	if item.Reason != "" {
		text(headerReason, item.Reason)
	}
	if item.Replay != nil {
		value, err := json.Marshal(item.Replay)
		if err != nil {
			panic(err) // strings and a number
		}
		headers = append(headers, kgo.RecordHeader{Key: headerReplay, Value: value})
		return headers, len(buf) + len(value)
	}
	return headers, len(buf)
}

// decoder turns records into items. It keeps the strings and times that repeat, so that a record costs one string: its id.
type decoder struct {
	strings  map[string]string
	received cachedTime
	sent     cachedTime
}

// maxInterned bounds the strings a decoder keeps: sensors name themselves and may do so at will.
const maxInterned = 4096

func (d *decoder) intern(b []byte) string {
	if s, ok := d.strings[string(b)]; ok {
		return s
	}
	if d.strings == nil || len(d.strings) >= maxInterned {
		d.strings = make(map[string]string)
	}
	s := string(b)
	d.strings[s] = s
	return s
}

// cachedTime parses a time unless it is the one parsed last: the items of a request share theirs.
type cachedTime struct {
	text []byte
	time time.Time
}

func (c *cachedTime) parse(b []byte) (time.Time, error) {
	if string(c.text) == string(b) && len(b) > 0 {
		return c.time, nil
	}
	var t time.Time
	if err := t.UnmarshalText(b); err != nil {
		return t, err
	}
	c.text, c.time = append(c.text[:0], b...), t.UTC()
	return c.time, nil
}

// item returns the item that a record holds. A record whose headers are not those of an item is a reject that says so.
func (d *decoder) item(rec *kgo.Record) record.Item {
	item := record.Item{
		ReceivedAt: rec.Timestamp.UTC(),
		Position:   record.Position{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset},
		Bytes:      rec.Value,
	}
	var problem string
	complain := func(format string, args ...any) {
		if problem == "" {
			problem = fmt.Sprintf(format, args...)
		}
	}
	var hasReceivedAt bool
	for i := range rec.Headers {
		key, value := rec.Headers[i].Key, rec.Headers[i].Value
		var err error
		switch key {
		case headerAccount:
			item.Account = d.intern(value)
		case headerEnv:
			item.Env = d.intern(value)
		case headerSourceType:
			item.SourceType = d.intern(value)
		case headerKind:
			kind, ok := record.ParseKind(d.intern(value))
			if !ok {
				complain("header kind is %q; it is event, entity or reject", value)
			}
			item.Kind = kind
		case headerReceivedAt:
			var t time.Time
			if t, err = d.received.parse(value); err == nil {
				item.ReceivedAt, hasReceivedAt = t, true
			}
		case headerSensor:
			item.Sensor = d.intern(value)
		case headerID:
			item.ID = string(value)
		case headerDataVersion:
			item.DataVersion = d.intern(value)
		case headerSendTime:
			item.SendTime, err = d.sent.parse(value)
		case headerReason:
			item.Reason = string(value)
		case headerReplay:
			if json.Unmarshal(value, &item.Replay) != nil || item.Replay == nil {
				complain("header replay is %q, not what millrace replay writes", value)
			}
		}
		if err != nil {
			complain("header %s is %q, not a time as RFC 3339 writes it", key, value)
		}
	}
	switch {
	case item.Account == "":
		complain("header %s is missing", headerAccount)
	case item.Env == "":
		complain("header %s is missing", headerEnv)
	case item.SourceType == "":
		complain("header %s is missing", headerSourceType)
	case item.Kind == 0:
		complain("header %s is missing", headerKind)
	case !hasReceivedAt:
		complain("header %s is missing", headerReceivedAt)
	}
	if problem != "" {
		item.Kind = record.Reject
		item.Reason = "not a record that Millrace wrote: " + problem
	}
	return item
}
