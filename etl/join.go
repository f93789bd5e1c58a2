package etl

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Defaults of a join.
const (
	DefaultWaitFor    = 7 * 24 * time.Hour
	DefaultCorrectFor = time.Hour
)

// Policy is what becomes of a record whose entity did not come within WaitFor.
type Policy uint8

const (
	EmitNulls Policy = iota // the row is made without the entity
	DeadLetter
	Drop // counted
)

// Join says which entity a record is joined with, and under which name it is found afterwards.
//
//	etl.JoinEntity(caliper.Membership).ToField("enrollment").
//		On("entity.member.@id").Eq("event.generated.actor.@id").
//		And("entity.organization.@id").Eq("activity.extensions.courseSection.@id")
//
// A record takes the newest version of the entity that is valid at the record's event time, or the earliest one if all are
// later: whatever the order of arrival, the result is the same. A record that comes before its entity waits.
//
// Joins of all tables with the same entity type and the same entity paths share one state.
type Join struct {
	entityType string
	field      string
	conditions []condition
	waitFor    time.Duration
	correctFor time.Duration
	otherwise  Policy
}

type condition struct{ entity, record Path }

// JoinEntity begins a join with the entities of a type, given as a Caliper term; its subtypes count too.
func JoinEntity(entityType string) JoinType { return JoinType{entityType} }

// JoinType is a join without a field.
type JoinType struct{ entityType string }

// ToField names the joined entity: later joins and Map find it there.
func (j JoinType) ToField(name string) JoinField { return JoinField{j.entityType, name} }

// JoinField is a join without a condition.
type JoinField struct{ entityType, field string }

// On begins the first condition: the path of the entity that is to equal the record's. The entity is filed under each
// alternative of the path that is set.
func (j JoinField) On(entity Path) JoinOn {
	return JoinOn{Join{
		entityType: j.entityType, field: j.field, waitFor: DefaultWaitFor, correctFor: DefaultCorrectFor,
	}, entity}
}

// JoinOn is a join with half a condition.
type JoinOn struct {
	join   Join
	entity Path
}

// Eq ends a condition: the path of the record, or of an entity joined before. The first alternative that is set counts.
func (j JoinOn) Eq(rec Path) Join {
	out := j.join
	out.conditions = append(slices.Clip(out.conditions), condition{j.entity, rec})
	return out
}

// And begins a further condition.
func (j Join) And(entity Path) JoinOn { return JoinOn{j, entity} }

// WaitFor sets how long, in processing time, a record waits for its entity: 7 days by default.
func (j Join) WaitFor(d time.Duration) Join { j.waitFor = d; return j }

// Else sets what becomes of a record that waited in vain: EmitNulls by default. A record that lacks a value that it would be
// joined by does not wait.
func (j Join) Else(p Policy) Join { j.otherwise = p; return j }

// CorrectFor sets how long, in processing time, a joined record stays subscribed: an entity version that arrives within that
// time and is the better choice emits the row again, under its id with a higher revision. An hour by default; 0 turns it off.
func (j Join) CorrectFor(d time.Duration) Join { j.correctFor = d; return j }

// stateName identifies the join's state: the same for all joins that can share it.
func (j Join) stateName() string {
	paths := make([]string, len(j.conditions))
	for i, c := range j.conditions {
		paths[i] = strings.ReplaceAll(string(c.entity), "entity.", "")
	}
	return "join/" + j.entityType + "/" + strings.Join(paths, "+")
}

// check reports what is wrong with the join; docs are the documents that the record has before it.
func (j Join) check(docs []string) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if j.entityType == "" {
		bad("JoinEntity has no type")
	}
	if j.field == "" || strings.ContainsAny(j.field, ".|\"@ ") {
		bad("ToField(%q): want a plain name", j.field)
	}
	if slices.Contains(docs, j.field) {
		bad("ToField(%q): the name is taken", j.field)
	}
	if j.waitFor < 0 || j.correctFor < 0 {
		bad("join %s: WaitFor and CorrectFor cannot be negative", j.field)
	}
	for _, c := range j.conditions {
		alts, err := c.entity.parse()
		if err != nil {
			errs = append(errs, err)
		}
		for _, a := range alts {
			if a.doc != "entity" || a.path == "" {
				bad("join %s: On(%q) does not lead into the entity; start it with \"entity.\"", j.field, c.entity)
			}
		}
		alts, err = c.record.parse()
		if err != nil {
			errs = append(errs, err)
		}
		for _, a := range alts {
			if !slices.Contains(docs, a.doc) {
				bad("join %s: Eq(%q) leads into %q, which the record does not have there; it has %s", j.field, c.record, a.doc, strings.Join(docs, ", "))
			}
		}
	}
	return errors.Join(errs...)
}
