package record_test

import (
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/record"
)

// value returns a whole document as a Value.
func value(t *testing.T, doc string) record.Value {
	t.Helper()
	paths, err := record.Compile("")
	require.NoError(t, err)
	out := make([]record.Value, 1)
	require.NoError(t, paths.Scan([]byte(doc), out), doc)
	return out[0]
}

func TestValueKinds(t *testing.T) {
	t.Parallel()
	require.False(t, record.Value{}.IsSet())
	require.Equal(t, "no value", record.Value{}.Kind.String())
	for doc, want := range map[string]record.ValueKind{
		`null`: record.Null, `true`: record.Bool, `false`: record.Bool, `-1`: record.Number, `0`: record.Number,
		`""`: record.String, `{}`: record.Object, `[]`: record.Array,
	} {
		require.Equal(t, want, value(t, doc).Kind, doc)
		require.Equal(t, want != record.Null, value(t, doc).IsSet(), doc)
		_, isBool := value(t, doc).Bool()
		require.Equal(t, want == record.Bool, isBool, doc)
		_, isText := value(t, doc).Text()
		require.Equal(t, want == record.String, isText, doc)
		dst, isText := value(t, doc).AppendText([]byte("kept "))
		require.Equal(t, want == record.String, isText, doc)
		require.Equal(t, "kept ", string(dst))
	}
	b, _ := value(t, `true`).Bool()
	require.True(t, b)
	b, _ = value(t, `false`).Bool()
	require.False(t, b)
}

func TestValueNumbers(t *testing.T) {
	t.Parallel()
	for doc, want := range map[string]float64{`92.4`: 92.4, `-0`: math.Copysign(0, -1), `1e3`: 1000, `1E-400`: 0, `12345678901234567890`: 1.2345678901234567e19} {
		got, err := value(t, doc).Float()
		require.NoError(t, err)
		require.Equal(t, want, got, doc)
	}
	for doc, want := range map[string]int64{
		`15`: 15, `15.0`: 15, `1.5e1`: 15, `150e-1`: 15, `-0.0`: 0, `0e99999999999999999999`: 0, `1.50E+001`: 15,
		`9223372036854775807`: math.MaxInt64, `-9223372036854775808`: math.MinInt64, `9.223372036854775807e18`: math.MaxInt64,
		`1000000000000000000`: 1e18, `1e18`: 1e18,
	} {
		got, err := value(t, doc).Int()
		require.NoError(t, err, doc)
		require.Equal(t, want, got, doc)
	}
	for doc, want := range map[string]string{
		`1.5`:                  "number 1.5 is not whole",
		`1e-1`:                 "number 1e-1 is not whole",
		`9223372036854775808`:  "number 9223372036854775808 is out of range",
		`-9223372036854775809`: "number -9223372036854775809 is out of range",
		`1e19`:                 "number 1e19 is out of range",
		`1e99999999999999999`:  "number 1e99999999999999999 is out of range",
		`"15"`:                 "a string is not a whole number",
		`null`:                 "null is not a whole number",
	} {
		_, err := value(t, doc).Int()
		require.EqualError(t, err, want, doc)
	}
	_, err := value(t, `1e999`).Float()
	require.EqualError(t, err, "number 1e999 is out of range")
	_, err = value(t, `[]`).Float()
	require.EqualError(t, err, "an array is not a number")
}

func TestValueText(t *testing.T) {
	t.Parallel()
	for doc, want := range map[string]string{
		`""`:                              "",
		`"plain"`:                         "plain",
		`"\"\\\/\b\f\n\r\t"`:              "\"\\/\b\f\n\r\t",
		`"a\u00e9\u20ACz"`:                "aé€z",
		`"\ud83d\ude00"`:                  "😀",
		`"\uD83D\uDE00!"`:                 "😀!",
		`"\ud83d"`:                        "\ufffd",
		`"\ud83dx"`:                       "\ufffdx",
		`"\ud83d\u0041"`:                  "\ufffdA",
		`"\ude00\ud83d"`:                  "\ufffd\ufffd",
		`"\ud83d\ud83d\ude00"`:            "\ufffd😀",
		`"\u0000"`:                        "\x00",
		`"ünïcode"`:                       "ünïcode",
		`"long before the escape \u0041"`: "long before the escape A",
	} {
		got, isText := value(t, doc).Text()
		require.True(t, isText)
		require.Equal(t, want, got, doc)
		b, isText := value(t, doc).AppendText(nil)
		require.True(t, isText)
		require.Equal(t, want, string(b), doc)
	}
}

func TestValueEach(t *testing.T) {
	t.Parallel()
	for doc, want := range map[string][]string{
		`[]`:                                  nil,
		` [ ] `:                               nil,
		`[1]`:                                 {"1"},
		"[ \"a,]\" ,\n{\"b\":[2]} ,null,[ ]]": {`"a,]"`, `{"b":[2]}`, "null", "[ ]"},
		`"single"`:                            {`"single"`}, // JSON-LD: one value is an array of one
		`{"a":1}`:                             {`{"a":1}`},
		`null`:                                nil,
	} {
		var got []string
		require.NoError(t, value(t, doc).Each(func(v record.Value) error {
			got = append(got, string(v.Raw))
			return nil
		}))
		require.Equal(t, want, got, doc)
	}
	require.NoError(t, record.Value{}.Each(func(record.Value) error { return errors.New("called") }))

	stop := errors.New("stop")
	calls := 0
	require.ErrorIs(t, value(t, `[1,2,3]`).Each(func(record.Value) error { calls++; return stop }), stop)
	require.Equal(t, 1, calls)
}

func TestValueMembers(t *testing.T) {
	t.Parallel()
	var got []string
	require.NoError(t, value(t, `{ "a" : 1,"\u0062":{"c":"}"} , "a":[] }`).Members(func(key []byte, v record.Value) error {
		got = append(got, string(key)+"="+string(v.Raw))
		return nil
	}))
	require.Equal(t, []string{"a=1", `b={"c":"}"}`, "a=[]"}, got)

	none := func([]byte, record.Value) error { return errors.New("called") }
	require.NoError(t, value(t, `{ }`).Members(none))
	require.NoError(t, value(t, `null`).Members(none))
	require.NoError(t, record.Value{}.Members(none))
	require.EqualError(t, value(t, `[1]`).Members(none), "an array has no members")
	require.EqualError(t, value(t, `{"a":1}`).Members(none), "called")
}

// A Value need not come from a Scan: bytes that are not JSON give an error.
func TestValueOfBrokenBytes(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{`[1,`, `[1 2]`, `[`, `[01]`} {
		err := record.Value{Raw: []byte(raw), Kind: record.Array}.Each(func(record.Value) error { return nil })
		var syntax *record.SyntaxError
		require.ErrorAs(t, err, &syntax, raw)
	}
	for _, raw := range []string{`{"a":1,`, `{"a" 1}`, `{`, `{"a":1 "b":2}`, `{1:2}`, `{"a":x}`} {
		err := record.Value{Raw: []byte(raw), Kind: record.Object}.Members(func([]byte, record.Value) error { return nil })
		var syntax *record.SyntaxError
		require.ErrorAs(t, err, &syntax, raw)
	}
}
