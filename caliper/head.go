package caliper

import (
	"errors"
	"strings"
	"time"

	"millrace/record"
)

// Head is what an event or an entity description says of itself, in one spelling for all versions.
type Head struct {
	Kind         record.Kind // record.Event or record.Entity
	Version      string      // Version10, Version11 or Version12; "" when the item does not tell
	Type         string      // term, or the IRI of a vocabulary that is not Caliper's
	ID           string      // "" when it has none
	EventTime    time.Time   // of an event; zero when it has none: its envelope's sendTime then says when it was
	DateModified time.Time   // of an entity; zero when it has none
	Action       string      // of an event: term; "" when it has none
	Deleted      bool        // an event that tells of a deletion by its action or type, or an entity with status Deleted
}

// Versions of Caliper.
const (
	Version10 = "1.0"
	Version11 = "1.1"
	Version12 = "1.2"
)

const (
	headContext = iota
	headType
	headID
	headEventTime
	headDateModified
	headAction
	headStatus
	headCount
)

var headPaths = mustCompile("@context", "type", "id", "eventTime", "dateModified", "action", "status")

// mustCompile is for the paths that are written in this package.
func mustCompile(paths ...string) *record.Paths {
	p, err := record.Compile(paths...)
	if err != nil {
		panic(err)
	}
	return p
}

// ReadHead reads the head of an item. What has an eventTime, or a type that ends in Event, is an event; everything else
// with a type is an entity.
//
// The error is a *record.SyntaxError when the item is not JSON, and otherwise Problems: what must be quarantined. The
// head then holds what could be read.
func ReadHead(item []byte) (Head, error) { return readHead(item, "") }

// readHead is ReadHead for an item in an envelope of a version, or of none.
func readHead(item []byte, envelopeVersion string) (Head, error) {
	var (
		head Head
		v    [headCount]record.Value
		ps   Problems
	)
	if err := headPaths.Scan(item, v[:]); err != nil {
		return head, err
	}
	if !isObject(item) {
		ps.add("item", "it is not an object, so neither an event nor an entity")
		return head, ps.err()
	}

	typ := ps.text("type", v[headType])
	if typ == "" && len(ps) == 0 {
		ps.add("type", "it is missing")
	}
	head.Type = Term(typ)
	head.ID = ps.text("id", v[headID])
	head.Version = itemVersion(v[headContext], envelopeVersion, typ)

	if absent(v[headEventTime]) && !strings.HasSuffix(head.Type, Event) {
		head.Kind = record.Entity
		head.DateModified = ps.time("dateModified", v[headDateModified])
		status, _ := v[headStatus].Text()
		head.Deleted = SameTerm(status, Deleted)
		return head, ps.err()
	}
	head.Kind = record.Event
	head.EventTime = ps.time("eventTime", v[headEventTime])
	head.Action = Term(ps.text("action", v[headAction]))
	head.Deleted = head.Action == Deleted || strings.HasSuffix(head.Type, "DeletedEvent") // MembershipDeletedEvent
	return head, ps.err()
}

// time reads an optional time: zero when there is none.
func (ps *Problems) time(field string, v record.Value) time.Time {
	if absent(v) {
		return time.Time{}
	}
	t, err := ParseTime(v)
	if err != nil {
		ps.add(field, err.Error())
	}
	return t
}

func isObject(doc []byte) bool {
	for _, c := range doc {
		switch c {
		case ' ', '\t', '\n', '\r':
		default:
			return c == '{'
		}
	}
	return false
}

// itemVersion tells an item's version: from its context, else from its envelope, else from how it spells its type.
func itemVersion(context record.Value, envelopeVersion, typ string) string {
	if version := contextVersion(context, 0); version != "" {
		return version
	}
	if envelopeVersion != "" {
		return envelopeVersion
	}
	if Term(typ) != typ {
		return Version10
	}
	return ""
}

var errFound = errors.New("found")

// contextVersion looks for Caliper's IRI in a @context: it may be text, stand among others in an array, or be nested.
func contextVersion(v record.Value, depth int) string {
	version := ""
	switch {
	case depth > 4:
	case v.Kind == record.String:
		iri, _ := v.Text()
		version = versionOf(iri)
	case v.Kind == record.Array:
		_ = v.Each(func(e record.Value) error { // its only error is errFound
			if version = contextVersion(e, depth+1); version != "" {
				return errFound
			}
			return nil
		})
	case v.Kind == record.Object:
		_ = v.Members(func(key []byte, m record.Value) error {
			if string(key) == "@context" {
				version = contextVersion(m, depth+1)
			}
			return nil
		})
	}
	return version
}

// versionOf tells the version that a context's IRI names, also that of a profile's extension: "" for other IRIs.
func versionOf(iri string) string {
	rest, found := strings.CutPrefix(iri, "http")
	if !found {
		return ""
	}
	rest = strings.TrimPrefix(rest, "s")
	if rest, found = strings.CutPrefix(rest, "://purl.imsglobal.org/ctx/caliper/"); !found {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	switch name {
	case "v1":
		return Version10
	case "v1p1":
		return Version11
	case "v1p2":
		return Version12
	}
	return ""
}
