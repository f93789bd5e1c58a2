package record_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/require"

	"millrace/record"
)

// canonical writes a value as encoding/json decoded it, with json.Number, in the only spelling that it has here. Two documents are
// one value when their canonical spellings are the same.
func canonical(v any) string {
	switch v := v.(type) {
	case json.Number:
		return canonicalNumber(string(v))
	case []any:
		var elements []string
		for _, e := range v {
			elements = append(elements, canonical(e))
		}
		return "[" + strings.Join(elements, ",") + "]"
	case map[string]any:
		var members []string
		for _, name := range slices.Sorted(maps.Keys(v)) {
			members = append(members, strconv.QuoteToASCII(name)+":"+canonical(v[name]))
		}
		return "{" + strings.Join(members, ",") + "}"
	case string:
		return strconv.QuoteToASCII(v)
	}
	return fmt.Sprint(v) // true, false, <nil>
}

// canonicalNumber says a number as digits and exponent.
func canonicalNumber(raw string) string {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(raw), "e")
	sign, mantissa := strings.HasPrefix(mantissa, "-"), strings.TrimPrefix(mantissa, "-")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	if digits == "" {
		return "0"
	}
	exp := new(big.Int)
	if exponent != "" {
		exp.SetString(strings.TrimPrefix(exponent, "+"), 10)
	}
	if exp.BitLen() > 56 {
		return raw // documented
	}
	trimmed := strings.TrimRight(digits, "0")
	exp.Add(exp, big.NewInt(int64(len(digits)-len(trimmed)-len(fraction))))
	return fmt.Sprint(sign, trimmed, "e", exp)
}

// speller makes values, and spells them in one of the many ways that JSON has for each.
type speller struct{ *rand.Rand }

func (r speller) value(depth int) any {
	switch k := r.IntN(12); {
	case depth > 0 && k < 3:
		size := r.IntN(6)
		if r.IntN(50) == 0 {
			size, depth = 150, 1
		}
		members := map[string]any{}
		for range size {
			members[r.text()] = r.value(depth - 1)
		}
		return members
	case depth > 0 && k < 5:
		elements := []any{}
		for range r.IntN(5) {
			elements = append(elements, r.value(depth-1))
		}
		return elements
	case k < 7:
		return []any{nil, true, false, "", "null", "true"}[r.IntN(6)]
	case k < 9:
		return r.number()
	}
	return r.text()
}

func (r speller) number() json.Number {
	digits := strconv.FormatUint(r.Uint64()>>r.IntN(64)|1, 10)
	switch r.IntN(5) {
	case 0:
		digits += strconv.FormatUint(r.Uint64(), 10)
	case 1:
		digits = strconv.Itoa(r.IntN(10))
	}
	if r.IntN(3) == 0 && digits != "0" {
		digits = "-" + digits
	}
	if r.IntN(4) == 0 {
		digits += "e" + strconv.Itoa(r.IntN(400)-200)
	}
	return json.Number(digits)
}

func (r speller) text() string {
	alphabet := []rune("abcdefghijklmnopqrstuvwxyz0123456789://-@ABC\"\\/\n\x00é漢😀\u2028")
	if r.IntN(2) == 0 {
		alphabet = alphabet[:40]
	}
	var b strings.Builder
	for range r.IntN([]int{3, 8, 9, 16, 17, 18, 33, 70}[r.IntN(8)]) {
		b.WriteRune(alphabet[r.IntN(len(alphabet))])
	}
	return b.String()
}

// spell appends a spelling of v.
func (r speller) spell(dst []byte, v any) []byte {
	dst = r.space(dst)
	switch v := v.(type) {
	case json.Number:
		dst = append(dst, r.spellNumber(string(v))...)
	case string:
		dst = r.spellText(dst, v)
	case []any:
		dst = append(dst, '[')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = r.spell(dst, e)
		}
		dst = append(r.space(dst), ']')
	case map[string]any:
		names := slices.Sorted(maps.Keys(v))
		r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		dst = append(dst, '{')
		for i, name := range names {
			if i > 0 {
				dst = append(dst, ',')
			}
			if r.IntN(8) == 0 { // a duplicate of this or of a later member
				later := names[i+r.IntN(len(names)-i)]
				dst = append(r.spell(append(r.space(r.spellText(r.space(dst), later)), ':'), r.value(1)), ',')
			}
			dst = r.spell(append(r.space(r.spellText(r.space(dst), name)), ':'), v[name])
		}
		dst = append(r.space(dst), '}')
	case nil:
		dst = append(dst, "null"...)
	default:
		dst = fmt.Append(dst, v)
	}
	return r.space(dst)
}

func (r speller) space(dst []byte) []byte {
	if r.IntN(6) == 0 {
		dst = append(dst, strings.Repeat([]string{" ", "\n", "\t", "\r\n"}[r.IntN(4)], 1+r.IntN(12))...)
	}
	return dst
}

func (r speller) spellText(dst []byte, s string) []byte {
	often := []int{1, 4, 1000}[r.IntN(3)]
	dst = append(dst, '"')
	for _, c := range s {
		switch {
		case c == '\n' && r.IntN(2) == 0:
			dst = append(dst, `\n`...)
		case (c == '"' || c == '\\' || c == '/') && r.IntN(2) == 0:
			dst = append(dst, '\\', byte(c))
		case c < ' ' || c == '"' || c == '\\' || r.IntN(often) == 0:
			for _, unit := range utf16.Encode([]rune{c}) {
				dst = fmt.Appendf(dst, []string{`\u%04x`, `\u%04X`}[r.IntN(2)], unit)
			}
		default:
			dst = append(dst, string(c)...)
		}
	}
	return append(dst, '"')
}

// spellNumber moves the point and pads with zeros.
func (r speller) spellNumber(s string) string {
	mantissa, exponent, _ := strings.Cut(s, "e")
	exp, _ := strconv.Atoi(exponent)
	sign := ""
	if mantissa[0] == '-' {
		sign, mantissa = "-", mantissa[1:]
	}
	zeros := r.IntN(4)
	mantissa, exp = mantissa+strings.Repeat("0", zeros), exp-zeros
	if at := r.IntN(len(mantissa) + 1); at == 0 {
		mantissa, exp = "0."+mantissa, exp+len(mantissa)
	} else if at < len(mantissa) && (at == 1 || mantissa[0] != '0') {
		mantissa, exp = mantissa[:at]+"."+mantissa[at:], exp+len(mantissa)-at
	} else if len(mantissa) > 1 && mantissa[0] == '0' {
		mantissa, exp = "0", 0
	}
	if exp != 0 || r.IntN(2) == 0 {
		mantissa += []string{"e", "E"}[r.IntN(2)]
		if exp >= 0 && r.IntN(2) == 0 {
			mantissa += "+"
		}
		mantissa += strconv.Itoa(exp)
	}
	return sign + mantissa
}

// change returns v with one thing in it changed, or v itself, when chance would have it.
func (r speller) change(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			return []any{}
		}
		names := slices.Sorted(maps.Keys(v))
		name := names[r.IntN(len(names))]
		out := maps.Clone(v)
		switch r.IntN(4) {
		case 0:
			delete(out, name)
			out[r.change(name).(string)] = v[name]
		case 1:
			delete(out, name)
		case 2:
			other := names[r.IntN(len(names))]
			out[name], out[other] = v[other], v[name]
		default:
			out[name] = r.change(v[name])
		}
		return out
	case []any:
		if len(v) == 0 {
			return map[string]any{}
		}
		out := slices.Clone(v)
		at := r.IntN(len(v))
		switch r.IntN(4) {
		case 0:
			return slices.Delete(out, at, at+1)
		case 1:
			return slices.Insert(out, at, any([]any{}))
		case 2:
			other := r.IntN(len(v))
			out[at], out[other] = v[other], v[at]
		default:
			out[at] = r.change(v[at])
		}
		return out
	case string:
		text := []rune(v)
		if len(text) == 0 {
			return "\x00"
		}
		at := r.IntN(len(text))
		switch r.IntN(3) {
		case 0:
			return string(slices.Delete(text, at, at+1))
		case 1:
			return string(slices.Insert(text, at, '\x00'))
		}
		text[at] ^= 1
		return string(text)
	case json.Number:
		return json.Number("1" + strings.TrimPrefix(string(v), "-"))
	}
	return canonical(v)
}

// One value has one fingerprint, however it is spelled, and another one another.
func TestFingerprintIsThatOfTheValue(t *testing.T) {
	t.Parallel()
	const rounds = 2000
	values := map[string]string{} // by fingerprint
	for seed := range uint64(rounds) {
		r := speller{rand.New(rand.NewPCG(seed, 1))}
		v := r.value(4)
		for range 3 {
			want := canonical(v)
			fp := ""
			for range 3 {
				doc := r.spell(nil, v)
				require.Equal(t, want, canonical(decode(t, doc)), "the test misspells: seed %d: %s", seed, doc)
				got := fingerprint(t, string(doc))
				if fp == "" {
					fp = got
				}
				require.Equal(t, fp, got, "seed %d: %s", seed, doc)
			}
			if other, ok := values[fp]; ok {
				require.Equal(t, other, want, "seed %d: one fingerprint", seed)
			}
			values[fp] = want
			v = r.change(v)
		}
	}
	distinct := map[string]bool{}
	for _, v := range values {
		distinct[v] = true
	}
	require.Len(t, distinct, len(values), "a value has two fingerprints")
	require.Greater(t, len(values), rounds)
}

func FuzzFingerprint(f *testing.F) {
	for _, seed := range [][2]string{
		{`{"a":1.0,"b":[1e2,"\u0041"],"a":{}}`, `{"b":[100,"A"],"a":{}}`},
		{`[[],{},"",0,-0.0]`, `[[],{},"",0,0,null]`},
		{`{"x":{"y":{"y":1,"x":2}}}`, `{"x":{"y":{"x":2,"y":1,"x":3}}}`},
		{`"<&>\u2028"`, `"<\u0026>\u2028"`},
		{`["abcdefghijklmno\"","\ud800"]`, `["abcdefghijklmno\u0022","` + "\ufffd" + `"]`},
		{`[12345678901234567890,1e99999999999999999999]`, `[1234567890123456789e1,1E99999999999999999999]`},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]), uint64(0))
	}
	f.Fuzz(func(t *testing.T, doc, other []byte, seed uint64) {
		got, err := record.Fingerprint(doc)
		require.Equal(t, record.Validate(doc), err)
		if err != nil {
			return
		}
		value := decode(t, doc)
		if otherPrint, err := record.Fingerprint(other); err == nil {
			require.Equal(t, canonical(value) == canonical(decode(t, other)), got == otherPrint, "%s and %s", doc, other)
		}
		again, err := json.Marshal(value) // drops duplicates, sorts members and escapes in its own way
		require.NoError(t, err)
		want, err := record.Fingerprint(again)
		require.NoError(t, err)
		require.Equal(t, want, got, "%s and %s", doc, again)

		r := speller{rand.New(rand.NewPCG(seed, 2))}
		changed, err := json.Marshal(r.change(value))
		require.NoError(t, err)
		changedPrint, err := record.Fingerprint(changed)
		if err == nil { // it may nest too deep now
			require.Equal(t, canonical(value) == canonical(decode(t, changed)), got == changedPrint, "%s and %s", doc, changed)
		}
	})
}
