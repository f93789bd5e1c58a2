package topic

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/avro"

	"millrace/eventlog"
	"millrace/plan"
	"millrace/sink"
)

// Headers of a message of a table topic.
const (
	headerRev        = "rev"
	headerEpoch      = "epoch"
	headerLineage    = "lineage"
	headerAppVersion = "app_version"
	headerEventTime  = "event_time"
	headerAccount    = "account"
	headerEnv        = "env"
	headerSource     = "source"
	headerRewind     = "rewind"
)

// prefix is what begins Avro's single-object encoding; the fingerprint of the schema follows.
var prefix = []byte{0xC3, 0x01}

// schema is what a table's values are written with.
type schema struct {
	text        string // Avro, JSON
	fingerprint uint64 // CRC-64-AVRO of the canonical form
}

func newSchema(t plan.Table) (schema, error) {
	text := t.Schema.Avro()
	parsed, err := avro.Parse(text)
	if err != nil {
		return schema{}, fmt.Errorf("schema of table %s: %w", t.Name, err)
	}
	h := avro.NewRabin()
	_, _ = h.Write(parsed.Canonical()) // a hash takes everything
	return schema{text, h.Sum64()}, nil
}

func (s schema) append(dst []byte) []byte {
	return binary.LittleEndian.AppendUint64(append(dst, prefix...), s.fingerprint)
}

// hex is the fingerprint as the control topic's keys spell it: its bytes in the order of the message.
func (s schema) hex() string {
	return hex.EncodeToString(binary.LittleEndian.AppendUint64(nil, s.fingerprint))
}

// message is a row as its topic holds it. A deleted row is a tombstone.
func (s *Sink) message(t *table, partition int32, r *plan.Row, lineage string) eventlog.Message {
	m := eventlog.Message{Topic: t.topic, Partition: partition, Key: []byte(r.ID)}
	if !r.Deleted {
		m.Value = append(t.schema.append(make([]byte, 0, 10+len(r.Value))), r.Value...)
	}
	m.Headers = make([]eventlog.Header, 0, 7+len(r.Sources))
	add := func(key string, value []byte) { m.Headers = append(m.Headers, eventlog.Header{Key: key, Value: value}) }
	add(headerLineage, []byte(lineage))
	add(headerEpoch, formatUint(r.Epoch))
	add(headerRev, formatUint(r.Rev))
	add(headerAppVersion, []byte(s.cfg.Plan.Version))
	add(headerEventTime, time.UnixMicro(r.EventTime).UTC().AppendFormat(nil, time.RFC3339Nano))
	add(headerAccount, []byte(r.Account))
	add(headerEnv, []byte(r.Env))
	for _, source := range r.Sources {
		add(headerSource, []byte(source))
	}
	return m
}

// placeOf is the place in the instance's histories that a message brings its partition to: the epoch that made it, or, of one that
// a rewind has restored, where the rewind went. One that is not ours has none.
func placeOf(m *eventlog.Message) sink.Point {
	lineage, number := m.Header(headerLineage), m.Header(headerEpoch)
	if to := m.Header(headerRewind); to != "" {
		lineage, number, _ = strings.Cut(to, " ")
	}
	epoch, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return sink.Point{}
	}
	return sink.Point{Lineage: lineage, Epoch: epoch}
}
