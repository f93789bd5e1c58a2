// Package plan is a job as data: where its records come from, the named stages they pass, the tables they become.
//
// A plan is made by etl, process or ingest, and executed by a runner: engine on one machine, flink on a cluster. Both run
// the same functions and pass the same suite (plan/plantest). Plans do no I/O, and the functions in them are pure:
// same inputs, same outputs, no clock, no shared writes.
//
//	items ─▶ Read ─▶ stage ─▶ stage ─▶ … ─▶ rows        stages form a DAG; To names only later stages
//
// The contract of a stage is a batch, never one record with call-backs into state: a runner collects all elements for a
// stage, loads the state of all their keys in one sorted pass, calls the stage once per worker, and applies the effects.
//
// Stage and table names are identities: a keyed stage's state is found by its name after an upgrade.
package plan

import "millrace/record"

// Plan is one app version's job.
type Plan struct {
	App     string // ingest-etl-edgenuity-lms-job
	Version string // 1.0.34
	Doc     string

	// SourceTypes are the source types the job reads; empty means all. Items of others are not given to Read.
	SourceTypes []string

	// Read turns a batch of items into elements, rows and counts. It is called concurrently with disjoint batches.
	Read   func(items []record.Item, out *Output)
	ReadTo []int // stages that Read sends to, as indices into Stages: for describe and for validation

	Stages   []Stage  // in topological order
	Tables   []Table  // Row.Table is an index into this
	Counters []string // Output.Count takes an index into this; names are dotted: table.quiz_submission.rows

	// DeadLetter makes the dead-letter row for a row that a sink refused for good. Nil: refusals are only counted.
	DeadLetter func(r Row, sink, reason string) Row

	// Renamed says what stages, tables and counters were called in earlier versions: old name → new name. Their state follows.
	Renamed map[string]string

	// Removed are the stages and tables of earlier versions whose state is given up. Without it a plan that lacks a stage that has
	// state, or a table, is refused.
	Removed []string
}

// Stage is one named step between Read and the tables. Exactly one of Stateless and Keyed is set.
type Stage struct {
	Name string
	Doc  string
	To   []int // stages it sends to, as indices into Plan.Stages, all greater than its own

	// Key says what a keyed stage is keyed by, and Format how its state is encoded, in words that are compared: state under another
	// key, or in another format, cannot be used. Empty when the name says all.
	Key    string
	Format string

	// Stateless handles a batch of elements in order. It is called concurrently with disjoint batches.
	Stateless func(in []Element, out *Output)

	// Keyed handles the keys of a batch. Elements with one key go to one call, in order; calls with disjoint keys may
	// run concurrently.
	Keyed func(clock Clock, keys []*Key, out *Output)

	// ListTags are the input tags that need the key's list. A fired timer always does. A hot key whose inputs have other
	// tags costs an append each and its list is not read.
	ListTags []uint8
}

// Element is one message to a stage.
type Element struct {
	Key     []byte // what a keyed stage is keyed by; ignored by a stateless one
	Time    int64  // event time in microseconds since 1970; 0 when unknown
	Tag     uint8  // which kind of message this is, in the receiving stage's terms
	Payload []byte

	// Message may stand for the payload: what Payload would be decoded to. A runner whose stages share memory passes it on
	// as it is, which costs nothing; one that moves elements between processes, or keeps them, sets Payload to its encoding
	// instead. A stage that is sent messages takes both. Nobody writes to a message once it is sent.
	Message Message
}

// Message is a payload that may not be encoded yet.
type Message interface {
	// Append appends the encoding to dst.
	Append(dst []byte) []byte
}

// Encode returns the element with its message, if it has one, as payload.
func (e Element) Encode() Element {
	if e.Message != nil {
		e.Payload, e.Message = e.Message.Append(nil), nil
	}
	return e
}

// Clock is the time a batch is processed at, in microseconds since 1970.
type Clock struct {
	Processing int64 // the runner's clock, read once per epoch, never going back, also not over restarts
	Watermark  int64 // no record with an earlier event time is expected any more
}

// TimeDomain is what a timer's instant is compared with.
type TimeDomain uint8

const (
	ProcessingTime TimeDomain = iota + 1
	EventTime
)

// Timer is one instant at which a key wants to be called. A key has a set of them: setting one twice is setting it once.
type Timer struct {
	Domain TimeDomain
	At     int64 // microseconds since 1970; fires when the clock of its domain is at or past it
}

// Key is one key of a keyed stage's batch: its state and inputs on the way in, its effects on the way out.
// The stage may keep slices of Value, List and Inputs inside what it returns; it never writes to them.
type Key struct {
	Key    []byte
	Value  []byte    // nil when the key has none
	List   [][]byte  // nil unless an input's tag is in ListTags or a timer fired; in the order appended, expiring items last
	Inputs []Element // in order of arrival
	Timers []Timer   // fired, and thereby gone from the set; in order of time

	// Effects. Their zero values change nothing.
	SetValue    []byte     // the new value, when not nil; empty and not nil deletes it
	ReplaceList bool       // the list becomes what is appended alone, instead of following List. Only when List was loaded.
	Append      [][]byte   // items to append to the list
	AppendUntil []Expiring // items to append to the list that leave it by themselves
	SetTimers   []Timer
	ClearTimers []Timer // applied before SetTimers
}

// MaxRev is the highest revision that a row can have. The other bits of 63 tell sinks which of an instance's lineages wrote.
const MaxRev = 1<<54 - 1

// Expiring is a list item that nobody needs after an instant. It then leaves the list unseen: no timer fires, nothing is read.
// A runner may be late with that, by an eighth of the item's life or more, so a stage must itself know which items it still minds.
// It is never so early that a key whose timer was set for an instant before Until is called without the item, however late the
// timer fires.
//
// A runner that is to hold no more than so much may let items go before their time, between epochs: of all stages alike, in order of
// Until, an item with a later one and at least as long a life never before another. What is held is spared.
type Expiring struct {
	Item  []byte
	Until int64 // processing time, in microseconds since 1970
	Hold  bool  // the item must not go before its time
}

// Row is one revision of one row of a table.
type Row struct {
	Table     int    // index into Plan.Tables
	ID        string // stable; the same however often and in whatever order its sources arrive
	Rev       uint64 // of two rows with one id the one with the higher revision is the truth; at most MaxRev
	Deleted   bool   // the row is withdrawn; Value is empty
	First     bool   // no revision of this row was emitted before: a sink need not look for one to replace
	EventTime int64  // microseconds since 1970
	Account   string
	Env       string
	Sources   []string // see MetaColumns, _sources
	Value     []byte   // the table's columns, Avro binary
	Epoch     uint64   // set by the runner
}

// Output collects what a call of Read or of a stage emits. Everything handed to it must stay unchanged until the epoch
// is committed. It is not safe for concurrent use; a runner gives each call its own.
type Output struct {
	Sent   [][]Element // by stage index
	Rows   []Row
	Counts []int64 // by counter index
}

// NewOutput returns an empty output for p.
func NewOutput(p *Plan) *Output {
	return &Output{Sent: make([][]Element, len(p.Stages)), Counts: make([]int64, len(p.Counters))}
}

// Send emits e to the stage with the given index.
func (o *Output) Send(stage int, e Element) { o.Sent[stage] = append(o.Sent[stage], e) }

// Row emits r. Of several with one table and id in one epoch the runner keeps the one with the highest revision.
func (o *Output) Row(r Row) { o.Rows = append(o.Rows, r) }

// Count adds n, which may be negative, to a counter. Counters are committed with the epoch.
func (o *Output) Count(counter int, n int64) { o.Counts[counter] += n }

// Offsets are positions in a log: by partition, the offset of the next record to read.
type Offsets map[int32]int64
