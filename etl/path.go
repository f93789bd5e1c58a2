package etl

import (
	"fmt"
	"strings"
)

// Path leads to a value of a record: the name of a document, then steps into it.
//
//	event.object.assignable.@id                  the event itself is the document "event"
//	entity.member.@id                            so is the entity, in a table of entities and in JoinEntity(…).On
//	activity.extensions.courseSection.@id        a joined entity, by the name that ToField gave it
//	enrollment.roles.0                           an array's element
//	event.extensions."com.instructure.canvas".x  a quoted step may hold dots
//	event.generated.actor.@id|event.actor.@id    alternatives: the first that is set
//
// The steps @id and id are one step, and so are @type and type; @id of a bare IRI string is the string.
//
// A literal is a Path by itself and a computed string is not: the paths of a program can be read in its source.
type Path string

// alternative is one alternative of a path.
type alternative struct {
	doc  string // event, entity, or a joined field
	path string // inside the document, in package record's syntax; empty for the whole document
}

func (p Path) parse() ([]alternative, error) {
	var alts []alternative
	for _, s := range splitUnquoted(string(p), '|') {
		doc, path, _ := strings.Cut(s, ".")
		if doc == "" || strings.ContainsAny(doc, "\"@ ") {
			return nil, fmt.Errorf("path %q: %q does not start with the name of a document such as event", p, s)
		}
		alts = append(alts, alternative{doc, path})
	}
	return alts, nil
}

// splitUnquoted splits s at every sep that is not inside double quotes.
func splitUnquoted(s string, sep byte) []string {
	var parts []string
	start, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quoted:
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == sep && !quoted:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}
