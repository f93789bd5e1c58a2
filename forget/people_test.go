package forget_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/forget"
	"millrace/plan"
)

const person = "https://example.edu/users/55"

func TestInRecord(t *testing.T) {
	t.Parallel()
	people, err := forget.New(person, "urn:member:é")
	require.NoError(t, err)
	for doc, want := range map[string]bool{
		`{"actor":"https://example.edu/users/55"}`:                        true,
		`{"actor":{"id":"https://example.edu/users/55","type":"Person"}}`: true,
		`{"a":[[{"b":["x","https://example.edu/users/55"]}]]}`:            true,
		`{"https://example.edu/users/55":1}`:                              true,
		`{"actor":"https:\/\/example.edu\/users\/55"}`:                    true,
		`{"actor":"\u0068ttps://example.edu/users/55"}`:                   true,
		`{"member":"urn:member:\u00e9"}`:                                  true,
		`{"actor":"https://example.edu/users/556"}`:                       false,
		`{"actor":"https://example.edu/users/55/attempts/1"}`:             true,
		`{"actor":"https://example.edu/users/55#account"}`:                true,
		`{"actor":"https://example.edu/users/55.1"}`:                      false,
		`{"note":"ask https://example.edu/users/55 about it"}`:            false,
		`{"note":"a \\ and nothing else"}`:                                false,
		`{"actor":"https://example.edu/users/5"}`:                         false,
		`{"n":1e400,"actor":"https://example.edu/users/55"}`:              true,
		``: false,
		`{"actor":"https://example.edu/users/55"`: true, // broken: whoever it names
		`<a href=https://example.edu/users/556>`:  true,
		"\x00\xff":                                false,
	} {
		require.Equal(t, want, people.InRecord([]byte(doc)), doc)
	}
}

func TestInRow(t *testing.T) {
	t.Parallel()
	people, err := forget.New(person)
	require.NoError(t, err)
	in := people.InRow([]plan.Column{{Name: "n", Type: plan.Long}, {Name: "student", Type: plan.String}, {Name: "tags", Type: plan.Strings}, {Name: "bytes", Type: plan.Bytes}, {Name: "_sources", Type: plan.Strings}})
	text := func(s string) plan.Cell { return plan.Cell{Bytes: []byte(s)} }
	list := func(s string) plan.Cell { return plan.Cell{List: [][]byte{[]byte("x"), []byte(s)}} }
	null := plan.Cell{Null: true}
	for name, row := range map[string][]plan.Cell{
		"a text":                {{Int: 1}, text(person), null, null, null},
		"one of a list":         {{Int: 1}, null, list(person), null, null},
		"a record":              {{Int: 1}, null, null, text(`{"a":"` + person + `"}`), null},
		"what it was made of":   {{Int: 1}, null, null, null, list("entity " + person + " ingest-prime/0/1")},
		"an id with a space in": {{Int: 1}, null, null, null, list("entity " + person + " ingest-prime/0/1")},
	} {
		require.True(t, in(row), name)
	}
	for name, row := range map[string][]plan.Cell{
		"nothing":            {{Int: 1}, null, null, null, null},
		"another":            {{Int: 1}, text(person + "6"), list("y"), text(`{}`), list("entity " + person + "6 ingest-prime/0/1")},
		"a list like it":     {{Int: 1}, null, list("entity " + person + " ingest-prime/0/1"), null, null},
		"a text that's null": {{Int: 1}, {Null: true, Bytes: []byte(person)}, null, null, null},
	} {
		require.False(t, in(row), name)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, ids := range [][]string{{}, {""}, {"abc"}, {"user 1\n"}, {" https://example.edu/users/1"}, {person, "x"}} {
		_, err := forget.New(ids...)
		require.ErrorContains(t, err, "; give ", "%q", ids)
	}
}
