package forget

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"millrace/plan"
	"millrace/record"
)

// leastID is how many bytes an id has at least: a shorter one is a slip.
const leastID = 4

// People are those whose records are looked for. They are not changed, and safe for concurrent use.
type People struct{ ids [][]byte }

// New returns the people that some ids name.
func New(ids ...string) (*People, error) {
	if len(ids) == 0 {
		return nil, errors.New("no id given; give the id that records have, such as https://example.edu/users/554433")
	}
	p := &People{}
	for _, id := range ids {
		switch {
		case len(id) < leastID:
			return nil, fmt.Errorf("id %q is too short to name a person; give the whole id, such as https://example.edu/users/554433", id)
		case !utf8.ValidString(id) || strings.ContainsFunc(id, func(r rune) bool { return r < ' ' }) || strings.TrimSpace(id) != id:
			return nil, fmt.Errorf("id %q has a space at its end, a control character, or is not UTF-8; give it as records have it", id)
		}
		p.ids = append(p.ids, []byte(id))
	}
	return p, nil
}

// is reports whether a text is one of the ids, or one below.
func (p *People) is(text []byte) bool {
	for _, id := range p.ids {
		if rest, ok := bytes.CutPrefix(text, id); ok && (len(rest) == 0 || bytes.IndexByte([]byte("/#?"), rest[0]) >= 0) {
			return true
		}
	}
	return false
}

// InRecord reports whether the bytes of a record are of the people.
func (p *People) InRecord(doc []byte) bool {
	found := false
	for _, id := range p.ids {
		found = found || bytes.Contains(doc, id)
	}
	if !found && bytes.IndexByte(doc, '\\') < 0 {
		return false
	}
	if record.Validate(doc) != nil {
		return found
	}
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	for {
		token, err := d.Token()
		if err != nil {
			return false // the end: it is valid
		}
		if text, ok := token.(string); ok && p.is([]byte(text)) {
			return true
		}
	}
}

// InRow returns a function that reports whether a row with these columns is of the people.
func (p *People) InRow(columns []plan.Column) func(cells []plan.Cell) bool {
	return func(cells []plan.Cell) bool {
		for i, c := range columns {
			cell := &cells[i]
			if !cell.Null && p.inCell(c, cell) {
				return true
			}
		}
		return false
	}
}

func (p *People) inCell(c plan.Column, cell *plan.Cell) bool {
	switch c.Type {
	case plan.String:
		return p.is(cell.Bytes)
	case plan.Bytes:
		return p.InRecord(cell.Bytes)
	case plan.Strings:
		for _, text := range cell.List {
			if p.is(text) || c.Name == "_sources" && p.inSource(text) {
				return true
			}
		}
	}
	return false
}

// inSource: a source is a kind, an id and a position of the log, with a space between.
func (p *People) inSource(source []byte) bool {
	_, rest, _ := bytes.Cut(source, []byte{' '})
	at := bytes.LastIndexByte(rest, ' ')
	return at >= 0 && p.is(rest[:at])
}
