package record_test

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/record"
)

// The oracle of FuzzScan: a tree that keeps members in order, and the rules of paths said in the plainest way.
type tree struct {
	value   any // what encoding/json makes of it, numbers as json.Number
	members []treeMember
	array   []tree
}

type treeMember struct {
	name string
	tree tree
}

func readTree(t *testing.T, d *json.Decoder) tree {
	token, err := d.Token()
	require.NoError(t, err)
	switch token {
	case json.Delim('{'):
		out := tree{members: []treeMember{}}
		values := map[string]any{}
		for d.More() {
			name, err := d.Token()
			require.NoError(t, err)
			member := readTree(t, d)
			out.members = append(out.members, treeMember{name.(string), member})
			values[name.(string)] = member.value
		}
		_, err = d.Token()
		require.NoError(t, err)
		out.value = values
		return out
	case json.Delim('['):
		out := tree{array: []tree{}}
		values := []any{}
		for d.More() {
			element := readTree(t, d)
			out.array = append(out.array, element)
			values = append(values, element.value)
		}
		_, err = d.Token()
		require.NoError(t, err)
		out.value = values
		return out
	}
	return tree{value: token}
}

func (n tree) find(steps []string) (tree, bool) {
	if len(steps) == 0 {
		return n, true
	}
	step := sameStep(steps[0])
	if _, isString := n.value.(string); isString && step == "id" {
		return n.find(steps[1:])
	}
	for i := len(n.members) - 1; i >= 0; i-- {
		if sameStep(n.members[i].name) == step {
			return n.members[i].tree.find(steps[1:])
		}
	}
	for i, element := range n.array {
		if strconv.Itoa(i) == step {
			return element.find(steps[1:])
		}
	}
	return tree{}, false
}

func sameStep(name string) string {
	if name == "@id" || name == "@type" {
		return name[1:]
	}
	return name
}

// splitPath splits a path that Compile accepts.
func splitPath(t *testing.T, path string) []string {
	var steps []string
	for path != "" {
		if path[0] != '"' {
			step, rest, _ := strings.Cut(path, ".")
			steps, path = append(steps, step), rest
			continue
		}
		d := json.NewDecoder(strings.NewReader(path))
		var step string
		require.NoError(t, d.Decode(&step))
		steps = append(steps, step)
		path = strings.TrimPrefix(path[d.InputOffset():], ".")
	}
	return steps
}

func decode(t *testing.T, raw []byte) any {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	require.NoError(t, d.Decode(&v))
	return v
}

func FuzzScan(f *testing.F) {
	for _, seed := range [][2]string{
		{`{"a":{"b":[{"c":1},{"c":2}]},"@id":"x","id":"y"}`, "a.b.0.c\nid\na.b\n"},
		{`{"a":{"b":1},"a":{"c":2},"a":"s"}`, "a\na.b\na.c\na.id\na.@id.id"},
		{`{"\u0061":[null,true,-1.5e3],"extensions":{"com.x":{"t\u00e9":"\ud800"}}}`, "a.0\na.2\nextensions.\"com.x\".té"},
		{`{"type":{"0":1},"@type":[5]}`, "type.0\n@type"},
		{`["a",["b"]]`, "0.id\n1.0.id\n\n\"1\".0"},
		{`{"a":{"aaaaaaaaa":1,"aaaaaaaab":2,"abcdefghijklmnopqrst":{}}}`, "a.aaaaaaaaa\na.aaaaaaaab\na.abcdefghijklmnopqrst"},
		{"{\"a\\u0000\":1,\"a\":{}}", "a\n\"a\\u0000\""},
		{`{"":{"":[]}}`, "\"\".\"\"\n\"\""},
	} {
		f.Add([]byte(seed[0]), seed[1])
	}
	f.Fuzz(func(t *testing.T, doc []byte, list string) {
		split := strings.Split(list, "\n")
		paths, err := record.Compile(split...)
		if err != nil {
			return
		}
		out := make([]record.Value, paths.Len())
		err = paths.Scan(doc, out)
		require.Equal(t, record.Validate(doc), err)
		again := make([]record.Value, paths.Len())
		got, fpErr := paths.ScanFingerprint(doc, again)
		require.Equal(t, err, fpErr)
		require.Equal(t, out, again)
		if err != nil {
			return
		}
		want, err := record.Fingerprint(doc)
		require.NoError(t, err)
		require.Equal(t, want, got)
		d := json.NewDecoder(bytes.NewReader(doc))
		d.UseNumber()
		root := readTree(t, d)
		for i, path := range split {
			want, found := root.find(splitPath(t, path))
			require.Equal(t, found, out[i].Kind != record.Missing, "%q in %s", path, doc)
			if !found {
				require.Nil(t, out[i].Raw)
				continue
			}
			require.Equal(t, want.value, decode(t, out[i].Raw), "%q in %s", path, doc)
			at := out[i].Offset(doc)
			require.Equal(t, string(doc[at:at+len(out[i].Raw)]), string(out[i].Raw))
			if text, isString := want.value.(string); isString {
				got, ok := out[i].Text()
				require.True(t, ok)
				require.Equal(t, text, got)
			}
		}
	})
}
