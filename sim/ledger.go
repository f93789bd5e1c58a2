package sim

import "maps"

// Tables of the shipped LMS app, by the items that become their rows.
const (
	QuizSubmission = "quiz_submission" // OutcomeEvent and GradeEvent, Graded
	ItemResponse   = "item_response"   // AssessmentItemEvent, Completed
	ActivityView   = "activity_view"   // NavigationEvent NavigatedTo, ViewEvent Viewed
	SessionEvent   = "session_event"   // SessionEvent LoggedIn, LoggedOut, TimedOut
	Annotation     = "annotation"      // AnnotationEvent
	Enrollment     = "enrollment"      // Membership, one row per id
)

var tables = [...]string{
	loggedIn: SessionEvent, loggedOut: SessionEvent, timedOut: SessionEvent,
	navigated: ActivityView, viewed: ActivityView, annotated: Annotation,
	itemCompleted: ItemResponse, graded: QuizSubmission,
	describesMembership: Enrollment, describesTeaching: Enrollment,
	bad: "",
}

// Ledger is what a run of posts holds: what a collector that has answered all of them must have. It is a function of the
// district's Config and the posts' positions, so it is the same however often a post had to be sent.
type Ledger struct {
	Envelopes      int64 `json:"envelopes"`       // posts answered 200
	Items          int64 `json:"items"`           // good items in them: Events + Entities
	Events         int64 `json:"events"`          // redeliveries counted
	Entities       int64 `json:"entities"`        // redeliveries counted
	BadItems       int64 `json:"bad_items"`       // items in them that the collector must quarantine, redeliveries counted
	BrokenPayloads int64 `json:"broken_payloads"` // posts answered 400, each to be kept as one reject
	Redelivered    int64 `json:"redelivered"`     // of Items, those whose bytes an earlier post had

	Distinct Distinct `json:"distinct"`

	// Irregular counts what the district did wrong on purpose, in items or posts, redeliveries included.
	Irregular map[string]int64 `json:"irregular"`
}

// Distinct is what is left when items with the same bytes are counted once. Two items of a district have the same bytes
// exactly when they are the same event, or the same version of the same entity.
type Distinct struct {
	Events   int64            `json:"events"`
	Entities int64            `json:"entities"` // versions
	BadItems int64            `json:"bad_items"`
	Graded   int64            `json:"graded"`   // attempts with a grade
	ByTable  map[string]int64 `json:"by_table"` // rows that the shipped LMS app makes of them
}

// Rejects is how many rejects the collector must have kept at least.
func (l Ledger) Rejects() int64 { return l.BadItems + l.BrokenPayloads }

func (l Ledger) clone() Ledger {
	l.Irregular = maps.Clone(l.Irregular)
	l.Distinct.ByTable = maps.Clone(l.Distinct.ByTable)
	return l
}

func newLedger() Ledger {
	l := Ledger{Irregular: map[string]int64{}, Distinct: Distinct{ByTable: map[string]int64{}}}
	for _, t := range tables {
		if t != "" {
			l.Distinct.ByTable[t] = 0
		}
	}
	return l
}

// flags are the irregularities of an item or a post.
type flags uint32

const (
	isLate flags = 1 << iota
	isTwice
	isChanged
	isMove
	isForeign
	isBlended
	isBare
	isPadded
	isVendor
	isBlank
	isNoID
	isDelayed
	isVeryLate
	isRedelivered
	isBroken
	isGzip
)

var flagNames = [...]string{
	"late_entity", "entity_twice", "entity_changed", "student_moved", "other_version", "versions_mixed_inside", "bare_iri",
	"nulls_and_empties", "vendor_extensions", "blank_node_id", "event_without_id", "delayed_envelope", "very_late_envelope",
	"redelivered_envelope", "broken_payload", "gzip",
}

// tally is what one post adds to a ledger, or several.
type tally struct {
	envelopes, events, entities, badItems, broken, redelivered int64
	newEvents, newEntities, newBad                             int64
	rows                                                       [bad + 1]int64 // new rows, by kind
	irregular                                                  [len(flagNames)]int64
}

func (t *tally) flag(f flags) {
	for i := range flagNames {
		if f>>i&1 == 1 {
			t.irregular[i]++
		}
	}
}

// item counts one item. newRow says that it is the first of its row.
func (t *tally) item(it *item, isNew, newRow bool) {
	t.flag(it.flags)
	switch {
	case it.kind == bad:
		t.badItems++
	case it.kind.entity():
		t.entities++
	default:
		t.events++
	}
	switch {
	case it.kind == bad && isNew:
		t.newBad++
	case it.kind == bad:
	case !isNew:
		t.redelivered++
	case it.kind.entity():
		t.newEntities++
	default:
		t.newEvents++
	}
	if newRow {
		t.rows[it.kind]++
	}
}

func (l *Ledger) add(t *tally) {
	l.Envelopes += t.envelopes
	l.Items += t.events + t.entities
	l.Events += t.events
	l.Entities += t.entities
	l.BadItems += t.badItems
	l.BrokenPayloads += t.broken
	l.Redelivered += t.redelivered
	l.Distinct.Events += t.newEvents
	l.Distinct.Entities += t.newEntities
	l.Distinct.BadItems += t.newBad
	l.Distinct.Graded += t.rows[graded]
	for k, n := range t.rows {
		if n > 0 && tables[k] != "" {
			l.Distinct.ByTable[tables[k]] += n
		}
	}
	for i, n := range t.irregular {
		if n > 0 {
			l.Irregular[flagNames[i]] += n
		}
	}
}

// Count returns the ledger of a run of posts.
func Count(posts []Post) Ledger {
	l := newLedger()
	for i := range posts {
		l.add(&posts[i].tally)
	}
	return l
}
