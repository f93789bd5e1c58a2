package etl

import (
	"slices"

	"millrace/caliper"
	"millrace/record"
)

// Source says which items a table reads.
type Source struct {
	kind    record.Kind
	types   []string
	actions []string
}

// Events reads the events of the given types, as Caliper terms.
func Events(types ...string) Source { return Source{kind: record.Event, types: types} }

// Entities reads the entities of the given types, as Caliper terms, and of their subtypes. A table of entities has one row an
// entity: that of its newest version.
func Entities(types ...string) Source { return Source{kind: record.Entity, types: types} }

// Actions keeps only events with one of the given actions, as Caliper terms.
func (s Source) Actions(actions ...string) Source {
	s.actions = actions
	return s
}

func (s Source) matches(kind record.Kind, typ, action string) bool {
	if kind != s.kind {
		return false
	}
	if len(s.actions) > 0 && !slices.Contains(s.actions, action) {
		return false
	}
	if kind == record.Entity {
		return slices.ContainsFunc(s.types, func(t string) bool { return typ == t || caliper.IsA(typ, t) })
	}
	return slices.Contains(s.types, typ)
}

// base is the name of the document that a table's record starts with.
func (s Source) base() string { return s.kind.String() }
