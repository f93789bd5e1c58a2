package record_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/record"
)

// scan returns what one path finds in a document: the raw bytes, "" for nothing.
func scan(t *testing.T, doc, path string) string {
	t.Helper()
	paths, err := record.Compile(path)
	require.NoError(t, err)
	out := make([]record.Value, 1)
	require.NoError(t, paths.Scan([]byte(doc), out), doc)
	require.Equal(t, out[0].Raw == nil, out[0].Kind == record.Missing)
	return string(out[0].Raw)
}

func TestPathRules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ rule, doc, path, want string }{
		{"the whole document", ` {"a": 1} `, ``, `{"a": 1}`},
		{"the whole document, a scalar", ` 12 `, ``, `12`},
		{"a member", `{"b":2,"a":1}`, `a`, `1`},
		{"a nested member", `{"a":{"b":{"c":[1]}}}`, `a.b.c`, `[1]`},
		{"nothing there", `{"a":{"b":1}}`, `a.c`, ``},
		{"through a scalar", `{"a":5}`, `a.c`, ``},
		{"through null", `{"a":null}`, `a.c`, ``},
		{"null is a value", `{"a":null}`, `a`, `null`},
		{"an empty name", `{"":{"x":1}}`, `"".x`, `1`},
		{"a long name", `{"curvedTotalScorf":0,"curvedTotalScore":1}`, `curvedTotalScore`, `1`},
		{"names that differ in the middle only", `{"abcdefgh-x-abcdefgh":0,"abcdefgh-y-abcdefgh":1}`, `"abcdefgh-y-abcdefgh"`, `1`},

		{"an array's element", `{"a":[{"c":1},{"c":2}]}`, `a.1.c`, `2`},
		{"beyond an array's end", `{"a":[1]}`, `a.1`, ``},
		{"a number as a name", `{"a":{"1":"x"}}`, `a.1`, `"x"`},
		{"an index has one spelling", `{"a":[1,2]}`, `a.01`, ``},
		{"a name that only looks like an index", `{"a":{"01":3}}`, `a.01`, `3`},
		{"an index beyond all numbers", `{"a":[1,2]}`, `a.99999999999999999999`, ``},
		{"the document is an array", `[1,[2,3]]`, `1.0`, `2`},

		{"id finds @id", `{"a":{"@id":"x"}}`, `a.id`, `"x"`},
		{"@id finds id", `{"a":{"id":"x"}}`, `a.@id`, `"x"`},
		{"type finds @type", `{"@type":"T"}`, `type`, `"T"`},
		{"@type finds type", `{"type":"T"}`, `@type`, `"T"`},
		{"of id and @id the last", `{"id":"x","@id":"y"}`, `id`, `"y"`},
		{"of @id and id the last", `{"@id":"y","id":"x"}`, `id`, `"x"`},
		{"id of a bare string", `{"a":"iri"}`, `a.id`, `"iri"`},
		{"@id of a bare string", `{"a":"iri"}`, `a.@id`, `"iri"`},
		{"id of an id", `{"a":{"id":"iri"}}`, `a.id.id`, `"iri"`},
		{"id of an element", `{"a":["iri",{"id":"y"}]}`, `a.0.id`, `"iri"`},
		{"type of a bare string", `{"a":"iri"}`, `a.type`, ``},
		{"id of a number", `{"a":5}`, `a.id`, ``},
		{"id of the document", `"iri"`, `id`, `"iri"`},

		{"a quoted step", `{"extensions":{"com.instructure.canvas":{"x":1}}}`, `extensions."com.instructure.canvas".x`, `1`},
		{"dots are not steps in names", `{"extensions":{"com":{"instructure":0}}}`, `extensions."com.instructure"`, ``},
		{"a quoted step with escapes", `{"a\"b":1}`, `"a\"b"`, `1`},
		{"a quoted id is the same step", `{"@id":1}`, `"id"`, `1`},
		{"colons and slashes need no quotes", `{"dc:title":{"a/b":1}}`, `dc:title.a/b`, `1`},

		{"an escaped name", `{"\u0061":{"\u0062":1}}`, `a.b`, `1`},
		{"an escaped long name", `{"\u0061bcdefghijklmnop":1}`, `abcdefghijklmnop`, `1`},
		{"an escaped slash", `{"a\/b":1}`, `a/b`, `1`},
		{"an escaped @id", `{"\u0040id":"x"}`, `id`, `"x"`},
		{"a name beyond ASCII", `{"größe":1}`, `größe`, `1`},
		{"a name beyond ASCII, escaped", `{"gr\u00f6\u00dfe":1}`, `größe`, `1`},
		{"a pair of surrogates", `{"\ud83d\ude00":1}`, `😀`, `1`},
		{"a surrogate alone", `{"\ud83d":1}`, `"` + "\ufffd" + `"`, `1`},
		{"a zero byte in a name is not its end", `{"a\u0000":1}`, `a`, ``},

		{"of duplicates the last", `{"a":1,"a":2}`, `a`, `2`},
		{"of duplicates the last, escaped", `{"a":1,"\u0061":2}`, `a`, `2`},
		{"an object that is replaced", `{"a":{"b":1},"a":{"c":2}}`, `a.b`, ``},
		{"an object that is replaced by a scalar", `{"a":{"b":1},"a":5}`, `a.b`, ``},
		{"an object that is replaced by an array", `{"a":{"0":1},"a":[]}`, `a.0`, ``},
		{"an array that is replaced", `{"a":[{"b":1}],"a":[{}]}`, `a.0.b`, ``},
		{"a string that is replaced", `{"a":"iri","a":{}}`, `a.id`, ``},
		{"an object that is replaced deep down", `{"x":{"a":{"b":{"c":1}},"a":{}}}`, `x.a.b.c`, ``},
		{"three duplicates", `{"a":{"b":1},"a":{},"a":{"b":3}}`, `a.b`, `3`},
	} {
		require.Equal(t, c.want, scan(t, c.doc, c.path), "%s: %s in %s", c.rule, c.path, c.doc)
	}
}

func TestScanFindsAllPathsAtOnce(t *testing.T) {
	t.Parallel()
	paths, err := record.Compile("object", "object.id", "", "object.assignable.@id", "object", "missing", "roles.0", "roles", "roles.1")
	require.NoError(t, err)
	require.Equal(t, 9, paths.Len())
	doc := []byte(`{"object":{"@id":"o","assignable":"as"},"roles":["Learner"]}`)
	out := make([]record.Value, paths.Len())
	out[5] = record.Value{Raw: []byte("stale"), Kind: record.String}
	require.NoError(t, paths.Scan(doc, out))
	var got []string
	for _, v := range out {
		got = append(got, string(v.Raw))
	}
	object := `{"@id":"o","assignable":"as"}`
	require.Equal(t, []string{object, `"o"`, string(doc), `"as"`, object, "", `"Learner"`, `["Learner"]`, ""}, got)
	require.Equal(t, record.Missing, out[5].Kind)
	require.Equal(t, record.Object, out[0].Kind)
	require.Equal(t, record.String, out[3].Kind)
	require.Equal(t, 10, out[0].Offset(doc))

	_ = append(out[0].Raw, '!')
	require.Equal(t, byte(','), doc[10+len(object)], "appending to a value must not write into the document")
}

// More children than a word has bits: duplicates are still noticed.
func TestScanWithManySteps(t *testing.T) {
	t.Parallel()
	var list []string
	var doc strings.Builder
	for i := range 200 {
		name := "n" + strings.Repeat("x", i)
		list = append(list, name+".v")
		doc.WriteString(`"` + name + `":{"v":1},`)
	}
	paths, err := record.Compile(list...)
	require.NoError(t, err)
	out := make([]record.Value, paths.Len())
	require.NoError(t, paths.Scan([]byte(`{`+doc.String()+doc.String()+`"`+list[199][:200]+`":{},"n":{}}`), out))
	require.Equal(t, record.Missing, out[0].Kind)
	require.Equal(t, record.Missing, out[199].Kind)
	for _, v := range out[1:199] {
		require.Equal(t, "1", string(v.Raw))
	}
}

func TestScanRefusesWhatValidateRefuses(t *testing.T) {
	t.Parallel()
	paths, err := record.Compile("a", "a.0.b")
	require.NoError(t, err)
	for _, doc := range []string{
		``, `{"a":[{"b":1}],"c":01}`, `{"a":1} x`, `{"a":[1}`, "{\"a\":\"\t\"}", "{\"a\x01\":1}", `{"a"}`, `{"a":[{"b"`, `{a:1}`, `{"a":[{}`,
		strings.Repeat(`{"a":[`, 70), `{"a":[` + nested(record.MaxDepth-1) + `]}`,
	} {
		out := make([]record.Value, 2)
		err := paths.Scan([]byte(doc), out)
		require.Error(t, err, doc)
		require.Equal(t, record.Validate([]byte(doc)), err, doc)
		require.Equal(t, make([]record.Value, 2), out, doc)
	}
}

func TestScanByManyGoroutines(t *testing.T) {
	t.Parallel()
	paths, err := record.Compile(outcomePaths...)
	require.NoError(t, err)
	doc := outcome(t)
	want := make([]record.Value, paths.Len())
	require.NoError(t, paths.Scan(doc, want))
	for i, v := range want {
		require.Equal(t, i != 1, v.IsSet(), outcomePaths[i]) // a 1.0 event has no id
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			out := make([]record.Value, paths.Len())
			for range 200 {
				if err := paths.Scan(doc, out); err != nil || string(out[11].Raw) != string(want[11].Raw) {
					t.Errorf("scan: %v, %s", err, out[11].Raw)
					return
				}
			}
		})
	}
	wg.Wait()
}

// Not parallel: it counts allocations.
func TestScanDoesNotAllocate(t *testing.T) {
	paths, err := record.Compile(append(outcomePaths, `"größe"`)...)
	require.NoError(t, err)
	out := make([]record.Value, paths.Len())
	doc := append([]byte(`{"gr\u00f6\u00dfe":"x",`), outcome(t)[1:]...)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if err := paths.Scan(doc, out); err != nil || string(out[20].Raw) != `"x"` {
			t.Fatal(err)
		}
	}))
}

func TestCompileRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ path, want string }{
		{"a..b", `path "a..b" at byte 2: empty step`},
		{".a", `path ".a" at byte 0: empty step`},
		{"a.", `path "a." at byte 2: empty step`},
		{"a[0]", `path "a[0]" at byte 1: '[' must be in a quoted step; an array index is a step of its own: a.0`},
		{"a b", `path "a b" at byte 1: ' ' must be in a quoted step; an array index is a step of its own: a.0`},
		{`a."b`, `path "a.\"b" at byte 2: the quoted step has no closing quote`},
		{`a."b"c`, `path "a.\"b\"c" at byte 5: expected a dot after the quoted step`},
		{`a."\x"`, `path "a.\"\\x\"" at byte 3: invalid escape in a string`},
	} {
		_, err := record.Compile("fine", c.path)
		require.EqualError(t, err, c.want)
		var pathErr *record.PathError
		require.ErrorAs(t, err, &pathErr)
		require.Equal(t, c.path, pathErr.Path)
	}
}
