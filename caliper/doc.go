// Package caliper knows the Caliper standard, versions 1.0, 1.1 and 1.2: its terms, its envelope, and what the head of an
// event or of an entity description says.
//
// The one idea: the versions and the vendors spell the same thing differently, and here is the only place that knows.
// Everything else compares terms ("OutcomeEvent"), asks for a Head, and never looks for an IRI or at a version.
//
// What real sensors do and this package allows: no @context on an item, both spellings of id and type in one record, a bare
// IRI where an entity belongs, null, {} or [] for what there is not, an event time that is the object of a date library,
// one bad item among good ones. What it does not allow gets one sentence that names the field.
//
// It reads; it builds no Caliper, checks no profile's rules and does no I/O.
package caliper
