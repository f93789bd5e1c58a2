package record_test

import (
	"bytes"
	"encoding/hex"
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

func TestFingerprintRefusesWhatValidateRefuses(t *testing.T) {
	t.Parallel()
	paths, err := record.Compile("a", "a.0", "b")
	require.NoError(t, err)
	out := make([]record.Value, paths.Len())
	for _, doc := range []string{
		``, `{"a":`, `{"a"}`, `{"a":1`, `{"a":1,}`, `{a:1}`, `[1,`, `[1 2]`, `{"a":1 2}`, "\"\xff\"", "{\"\x01\":1}", `[01]`, `[tru]`, `1 2`, nested(129), `{"a":1,"b":x}`,
		strings.Repeat(`{"a":`, 200),
	} {
		want := record.Validate([]byte(doc))
		require.Error(t, want)
		_, err := record.Fingerprint([]byte(doc))
		require.Equal(t, want, err, doc)
		_, err = paths.ScanFingerprint([]byte(doc), out)
		require.Equal(t, want, err, doc)
		require.Equal(t, make([]record.Value, paths.Len()), out, doc)
	}
	require.Equal(t, fingerprint(t, `{"a":1}`), fingerprint(t, `{"a":1.0}`), "a refused document leaves nothing behind")
}

// Whatever a byte is replaced with, and wherever a document is cut off, all say the same of it.
func TestEveryPassFindsTheSameFaults(t *testing.T) {
	t.Parallel()
	paths, err := record.Compile(append(outcomePaths, "", "a.0", `"größe"`, "curvedTotalScore")...)
	require.NoError(t, err)
	want, got := make([]record.Value, paths.Len()), make([]record.Value, paths.Len())
	for _, doc := range []string{
		string(outcome(t)),
		` { "a" : [ 1 , -2.50e+3 , { "b" : true } ] , "gr\u00f6ße" : "\ud83d\ude00 é and more than sixteen bytes" , "curvedTotalScore" : 0.0 , "a" : { } } `,
	} {
		check := func(doc []byte) {
			err := record.Validate(doc)
			require.Equal(t, err, paths.Scan(doc, want), "%s", doc)
			_, fpErr := record.Fingerprint(doc)
			require.Equal(t, err, fpErr, "%s", doc)
			_, fpErr = paths.ScanFingerprint(doc, got)
			require.Equal(t, err, fpErr, "%s", doc)
			for i := range want { // by hand: there are many
				if want[i].Kind != got[i].Kind || !bytes.Equal(want[i].Raw, got[i].Raw) {
					require.Equal(t, want[i], got[i], "path %d of %s", i, doc)
				}
			}
		}
		for i := range doc {
			check([]byte(doc[:i]))
			for _, c := range []byte("\"\\{}[]:,01.eE-ntu \x00\x80\xc3") {
				changed := []byte(doc)
				changed[i] = c
				check(changed)
			}
		}
	}
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

// Not parallel: it counts allocations.
func TestScanFingerprintDoesNotAllocate(t *testing.T) {
	paths, err := record.Compile(outcomePaths...)
	require.NoError(t, err)
	out := make([]record.Value, paths.Len())
	doc := append([]byte(`{"gr\u00f6\u00dfe":"x","a":1,"a":-12.50e-1,"actor":{},`), outcome(t)[1:]...)
	perRun := testing.AllocsPerRun(1000, func() {
		if _, err := paths.ScanFingerprint(doc, out); err != nil {
			t.Fatal(err)
		}
	})
	require.Less(t, perRun, 1.0, "the race detector makes a pool forget at times")
}
