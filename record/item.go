package record

import "time"

// Kind says what an item of the log is.
type Kind uint8

const (
	Event  Kind = iota + 1 // a Caliper event
	Entity                 // a Caliper entity description
	Reject                 // bytes that could not be accepted as either; kept, never processed
)

// String returns the word used in headers, columns and flags: event, entity or reject.
func (k Kind) String() string {
	switch k {
	case Event:
		return "event"
	case Entity:
		return "entity"
	case Reject:
		return "reject"
	}
	return "unknown"
}

// ParseKind is the inverse of Kind.String.
func ParseKind(s string) (Kind, bool) {
	switch s {
	case "event":
		return Event, true
	case "entity":
		return Entity, true
	case "reject":
		return Reject, true
	}
	return 0, false
}

// Item is one event, entity or reject with where it came from: what one record of the log holds.
//
// Bytes are exactly what the sensor sent for it. Whoever holds an Item may keep its slices; nobody writes to them.
type Item struct {
	Account     string    // tenant, bound to the sensor key
	Env         string    // the tenant's environment, bound to the sensor key
	SourceType  string    // kind of input, bound to the sensor key: EDGENUITY_LMS
	Sensor      string    // the envelope's sensor
	Kind        Kind      // event, entity or reject
	ID          string    // id of the event or entity; empty when it has none
	DataVersion string    // the envelope's dataVersion; empty in Caliper 1.0
	SendTime    time.Time // the envelope's sendTime; zero when it had none
	ReceivedAt  time.Time // when the collector took it
	Reason      string    // why it is a reject; empty otherwise
	Replay      *Replay   // set on an item that is in the log again because a dead letter was made of it; nil otherwise
	Position    Position  // where the log holds it; set by the reader, ignored by Append
	Bytes       []byte
}

// Replay says which dead letter an item is replayed for. The app that made the letter, and no other, takes it up.
type Replay struct {
	App    string // that made the letter
	Letter string // the letter's _id
	Table  string // that the record was for; empty when it could not be read at all
	Stage  string // where it failed
	Rev    uint64 // larger than every revision that the record's row and letter have had
}

// Position is where the log holds an item.
type Position struct {
	Topic     string
	Partition int32
	Offset    int64
}
