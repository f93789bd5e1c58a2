package caliper

import (
	"strings"

	"millrace/record"
)

// Problem is one thing wrong with an item: a field and a reason.
type Problem struct {
	Field  string // as the sensor spells it: eventTime, @type
	Reason string
}

func (p *Problem) Error() string { return p.Field + ": " + p.Reason }

// Problems is everything wrong with one item. errors.As finds the first Problem in it.
type Problems []*Problem

func (ps Problems) Error() string {
	texts := make([]string, len(ps))
	for i, p := range ps {
		texts[i] = p.Error()
	}
	return strings.Join(texts, "; ")
}

// Unwrap gives the single problems to errors.Is and errors.As.
func (ps Problems) Unwrap() []error {
	errs := make([]error, len(ps))
	for i, p := range ps {
		errs[i] = p
	}
	return errs
}

func (ps *Problems) add(field, reason string) {
	*ps = append(*ps, &Problem{Field: field, Reason: reason})
}

// err returns nil when there is no problem.
func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}

// text reads an optional string: "" when there is none.
func (ps *Problems) text(field string, v record.Value) string {
	if absent(v) {
		return ""
	}
	s, isString := v.Text()
	if !isString {
		ps.add(field, "it is "+v.Kind.String()+", not a string")
	}
	return s
}

// absent reports whether v says that there is no value: Caliper 1.0 sends null, {} and [] for that.
func absent(v record.Value) bool {
	if !v.IsSet() {
		return true
	}
	if v.Kind != record.Object && v.Kind != record.Array {
		return false
	}
	for _, c := range v.Raw[1 : len(v.Raw)-1] {
		if c > ' ' {
			return false
		}
	}
	return true
}
