package record_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/record"
)

func fingerprint(t *testing.T, doc string) string {
	t.Helper()
	h, err := record.Fingerprint([]byte(doc))
	require.NoError(t, err, doc)
	return hex.EncodeToString(h[:])
}

func TestFingerprintOfTheSameValue(t *testing.T) {
	t.Parallel()
	for _, same := range [][]string{
		{`{"a":1,"b":[true,null]}`, ` { "b" : [ true , null ] , "a" : 1 } `, `{"\u0061":1,"b":[true,null]}`},
		{`1`, `1.0`, `10e-1`, `0.1E1`, `1.000e+000`, `1000000000000000000000e-21`},
		{`-2.5`, `-25e-1`, `-0.25e1`},
		{`0`, `-0`, `0.000`, `0e5`, `0e99999999999999999999`},
		{`100`, `1e2`, `1E+2`, `100.00`},
		{`"é😀/"`, `"\u00e9\ud83d\ude00\/"`, `"\u00E9\uD83D\uDE00/"`},
		{`{"a":1,"a":2}`, `{"a":2}`, `{"a":{"x":[1]},"\u0061":2}`},
		{`{"a":1,"b":2,"a":3}`, `{"b":2,"a":3}`},
		{`[{"x":{"z":1,"y":2}}]`, `[{"x":{"y":2,"z":1}}]`},
		{`"\ud800"`, `"` + "\ufffd" + `"`},
	} {
		for _, doc := range same[1:] {
			require.Equal(t, fingerprint(t, same[0]), fingerprint(t, doc), "%s and %s", same[0], doc)
		}
	}
}

func TestFingerprintOfDifferentValues(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, doc := range []string{
		`null`, `true`, `false`, `0`, `1`, `-1`, `10`, `0.1`, `1e30`, `1e-30`, `9007199254740993`, `9007199254740992`,
		`1e99999999999999999999`, `""`, `"0"`, `"1"`, `"null"`, `"true"`, `" "`, `[]`, `{}`, `[null]`, `[[]]`, `[{}]`, `[[],[]]`, `[1,2]`, `[2,1]`,
		`[[1],2]`, `[[1,2]]`, `["1","2"]`, `["12"]`, `{"a":null}`, `{"a":1}`, `{"a":"1"}`, `{"b":1}`, `{"a":1,"b":2}`, `{"a":2,"b":1}`, `{"a":{"b":1}}`,
		`{"a":[]}`, `{"a":{}}`, `{"":""}`, `{"a":1,"b":1}`, `["a",1]`, `{"@id":1}`, `{"id":1}`, `"a\u0000"`, `"a"`,
	} {
		f := fingerprint(t, doc)
		require.Empty(t, seen[f], "%s and %s", seen[f], doc)
		seen[f] = doc
	}
}

// Fingerprints are stored as ids: a change of the algorithm must not go unnoticed.
func TestFingerprintIsStable(t *testing.T) {
	t.Parallel()
	require.Equal(t, "c5747095f8a368e80967b4ccb3cf7c22", fingerprint(t, `{"type":"Event","n":[1,2.5,-3e10,true,null,"é\n"],"o":{}}`))
}

func TestFingerprintRefusesWhatValidateRefuses(t *testing.T) {
	t.Parallel()
	for _, doc := range []string{
		``, `{"a":`, `{"a"}`, `{"a":1`, `{"a":1,}`, `{a:1}`, `[1,`, `[1 2]`, `{"a":1 2}`, "\"\xff\"", "{\"\x01\":1}", `[01]`, `[tru]`, `1 2`, nested(129), `{"a":1,"b":x}`,
		strings.Repeat(`{"a":`, 200),
	} {
		_, err := record.Fingerprint([]byte(doc))
		require.Equal(t, record.Validate([]byte(doc)), err, doc)
		require.Error(t, err)
	}
	require.Equal(t, fingerprint(t, `{"a":1}`), fingerprint(t, `{"a":1.0}`), "a refused document leaves nothing behind")
}

// Large objects and arrays, whose scratch space is not kept, and long runs of duplicates.
func TestFingerprintOfLargeDocuments(t *testing.T) {
	t.Parallel()
	var forward, backward []string
	for i := range 50_000 {
		forward = append(forward, fmt.Sprintf(`"k%d":%d`, i, i))
		backward = append(backward, fmt.Sprintf(`"k%d":%d`, 49_999-i, 49_999-i))
	}
	a := `{` + strings.Join(forward, ",") + `}`
	b := `{` + strings.Join(forward, ",") + "," + strings.Join(backward, ",") + `}`
	require.Equal(t, fingerprint(t, a), fingerprint(t, b))
	require.NotEqual(t, fingerprint(t, a), fingerprint(t, strings.Replace(a, `:49999`, `:49998`, 1)))
}

func FuzzFingerprint(f *testing.F) {
	for _, seed := range []string{`{"a":1.0,"b":[1e2,"\u0041"],"a":{}}`, `[[],{},"",0,-0.0]`, `{"x":{"y":{"y":1,"x":2}}}`, `"<&>\u2028"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		got, err := record.Fingerprint(doc)
		require.Equal(t, record.Validate(doc), err)
		if err != nil {
			return
		}
		// encoding/json drops duplicates, sorts members and escapes in its own way; the value stays the same.
		again, err := json.Marshal(decode(t, doc))
		require.NoError(t, err)
		want, err := record.Fingerprint(again)
		require.NoError(t, err)
		require.Equal(t, want, got, "%s and %s", doc, again)

		var indented bytes.Buffer
		require.NoError(t, json.Indent(&indented, doc, " ", "\t"))
		spaced, err := record.Fingerprint(indented.Bytes())
		require.NoError(t, err)
		require.Equal(t, got, spaced)
	})
}
