package record_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"millrace/record"
)

func TestValidateAccepts(t *testing.T) {
	t.Parallel()
	for _, doc := range []string{
		`{}`, `[]`, `""`, `0`, `-0`, `-0.0e-0`, `10`, `1.5E+10`, `true`, `false`, `null`,
		" \t\r\n{ \"a\" : [ 1 , \"b\" , { } , [ ] ] , \"c\" : null } \n",
		`{"a":1,"a":2}`,
		`"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"`,
		`"\ud800"`, `"\ud800\ud800x"`, `"\udc00\ud800"`,
		"\"\x7f plain ascii, longer than one word of eight\"",
		"\"é ß € 漢字 😀 mixed with ascii\"",
		`{"":{"":""}}`,
		nested(record.MaxDepth),
	} {
		require.NoError(t, record.Validate([]byte(doc)), doc)
	}
}

func TestValidateRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		doc    string
		offset int
		reason string
	}{
		{``, 0, "it ends too early"},
		{`  `, 2, "it ends too early"},
		{`{"a":1`, 6, "it ends too early"},
		{`{"a"`, 4, "it ends too early"},
		{`{"a`, 3, "it ends too early"},
		{`{"a":`, 5, "it ends too early"},
		{`{`, 1, "it ends too early"},
		{`[1,`, 3, "it ends too early"},
		{`"abc\`, 5, "it ends too early"},
		{`"abc\u12`, 8, "it ends too early"},
		{`tru`, 3, "it ends too early"},
		{`-`, 1, "it ends too early"},
		{`1.`, 2, "it ends too early"},
		{`1e+`, 3, "it ends too early"},
		{`{"a":1}}`, 7, "there is more after the end of the value"},
		{`01`, 1, "there is more after the end of the value"},
		{`{"a":1,}`, 7, "expected a member name in double quotes"},
		{`{'a':1}`, 1, "expected a member name in double quotes"},
		{`{"a" 1}`, 5, "expected a colon after a member name"},
		{`{"a":1 "b":2}`, 7, "expected a comma or the closing bracket"},
		{`[1 2]`, 3, "expected a comma or the closing bracket"},
		{`[1,]`, 3, "expected a value"},
		{`[1}`, 2, "expected a comma or the closing bracket"},
		{`{"a":}`, 5, "expected a value"},
		{"\ufeff{}", 0, "expected a value"},
		{`NaN`, 0, "expected a value"},
		{`trve`, 2, "expected true, false or null"},
		{`-a`, 1, "invalid number"},
		{`.5`, 0, "expected a value"},
		{`1.e5`, 2, "invalid number"},
		{`1e5.0`, 3, "there is more after the end of the value"},
		{`"a\x"`, 2, "invalid escape in a string"},
		{`"\u12g4"`, 1, "invalid escape in a string"},
		{"{\"a\":\"0123456789\tx\"}", 16, "control character 0x09 in a string"},
		{"\"a\x00\"", 2, "control character 0x00 in a string"},
		{"{\"a\nb\":1}", 3, "control character 0x0a in a string"},
		{"\"a\xffb\"", 2, "invalid UTF-8 in a string"},
		{"\"\xed\xa0\x80\"", 1, "invalid UTF-8 in a string"},
		{"\"\xc0\xaf\"", 1, "invalid UTF-8 in a string"},
		{"\"\xf0\x9f\x98\"", 1, "invalid UTF-8 in a string"},
		{nested(record.MaxDepth + 1), record.MaxDepth, "nested deeper than 128"},
		{strings.Repeat("[", 1_000_000), record.MaxDepth, "nested deeper than 128"},
		{strings.Repeat(`{"a":`, 1_000_000), 5 * record.MaxDepth, "nested deeper than 128"},
	} {
		err := record.Validate([]byte(c.doc))
		var syntax *record.SyntaxError
		require.ErrorAs(t, err, &syntax, "%.40q", c.doc)
		require.Equal(t, record.SyntaxError{Offset: c.offset, Reason: c.reason}, *syntax, "%.40q", c.doc)
	}
	err := record.Validate([]byte("{\"a\":\"0123456789\tx\"}"))
	require.EqualError(t, err, "invalid JSON at byte 16: control character 0x09 in a string")
}

// A fault is found wherever it lies relative to the words of eight bytes that strings are read in.
func TestValidateFindsFaultsAtEveryPlace(t *testing.T) {
	t.Parallel()
	for length := range 40 {
		for at := range length {
			for _, bad := range []byte{0, 0x1f, 0x80, 0xff} {
				body := []byte(strings.Repeat("x", length))
				body[at] = bad
				var syntax *record.SyntaxError
				require.ErrorAs(t, record.Validate([]byte(`["`+string(body)+`"]`)), &syntax)
				require.Equal(t, at+2, syntax.Offset, "%q", body)
			}
		}
	}
}

func nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

func FuzzValidate(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,2.5e-3,"x\u00e9",null,true,{"b":{}}]}`, `[[[[]]]]`, `"\ud800"`, "\"\xff\"", "\"a\tb\"", `{"a":1,}`, ` 1 `, `-`, `1e`,
		nested(128), nested(129), `{"k":"` + strings.Repeat("v", 30) + `"}`, "\"0123456é789\"",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		// encoding/json lets invalid UTF-8 in strings pass and nests deeper; nothing else differs.
		want := json.Valid(doc) && utf8.Valid(doc) && depth(doc) <= record.MaxDepth
		err := record.Validate(doc)
		require.Equal(t, want, err == nil, "%q: %v", doc, err)
		if err != nil {
			var syntax *record.SyntaxError
			require.True(t, errors.As(err, &syntax))
			require.GreaterOrEqual(t, syntax.Offset, 0)
			require.LessOrEqual(t, syntax.Offset, len(doc))
		}
	})
}

// depth returns how deep a valid document nests.
func depth(doc []byte) int {
	deepest, now, inString := 0, 0, false
	for i := 0; i < len(doc); i++ {
		switch c := doc[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}
