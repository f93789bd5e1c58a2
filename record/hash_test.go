package record_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/record"
)

// A million documents that differ in a digit or two, as events do, and that have the same digits in other places: no
// fingerprints are equal, and the words of which they are made are equal no more often than random ones.
func TestFingerprintOfSimilarDocuments(t *testing.T) {
	t.Parallel()
	const n = 1_000_000
	var prints [][16]byte
	add := func(format string, args ...any) {
		fp, err := record.Fingerprint(fmt.Appendf(nil, format, args...))
		require.NoError(t, err)
		prints = append(prints, fp)
	}
	for i := range n / 5 {
		a, b := i/450, i%450 // pairs, so that sums of small differences cancel out if they can
		add(`{"id":"https://example.edu/sections/%d/users/1000","actor":"https://example.edu/users/%d"}`, a, b)
		add(`{"actor":{"id":"%04d"},"object":{"id":"%04d"}}`, a, b)
		add(`{"score":%d,"max":%d}`, a, b)
		add(`["urn:uuid:7b6c2f1e-0000-4000-8000-%012x",[%d]]`, a, b)
		add(`{"n%d":{"x%d":null}}`, a, b)
	}
	slices.SortFunc(prints, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	require.Len(t, slices.Compact(slices.Clone(prints)), n)

	words := make([]uint32, n)
	for at := 0; at < 16; at += 4 {
		for i := range prints {
			words[i] = binary.LittleEndian.Uint32(prints[i][at:])
		}
		slices.Sort(words)
		same := n - len(slices.Compact(slices.Clone(words)))
		require.InDelta(t, 116, same, 60, "of random words n²/2³³, here of bytes %d to %d", at, at+4)
	}
}

// Every bit of the fingerprint changes in half of the cases when a bit of the content does.
func TestFingerprintSpreadsEveryBit(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	var flips [128]int
	cases := 0
	for range 400 {
		doc := fmt.Appendf(nil, `{"id":"urn:%012d","n":%d,"long":"0123456789abcdef%08d","k%02d":[true,"%d"]}`,
			r.IntN(1e9), 1+r.IntN(1e6), r.IntN(1e8), r.IntN(100), r.IntN(10))
		before, err := record.Fingerprint(doc)
		require.NoError(t, err)
		for i, c := range doc {
			if c < '1' || c > '9' || c^1 == '0' {
				continue
			}
			doc[i] ^= 1
			after, err := record.Fingerprint(doc)
			doc[i] ^= 1
			require.NoError(t, err)
			cases++
			total := 0
			for b := range 128 {
				if before[b/8]>>(b%8)&1 != after[b/8]>>(b%8)&1 {
					flips[b]++
				}
			}
			for b := range 16 {
				total += bits.OnesCount8(before[b] ^ after[b])
			}
			require.InDelta(t, 64, total, 45, "%s at byte %d", doc, i)
		}
	}
	require.Greater(t, cases, 10_000)
	for b, n := range flips {
		require.InDelta(t, 0.5, float64(n)/float64(cases), 0.03, "bit %d", b)
	}
}

// Fingerprints are stored as ids: a change of the algorithm must not go unnoticed.
func TestFingerprintIsStable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ doc, want string }{
		{`null`, "8bc812d11c62a11ae7ebea84285c5db4"},
		{`true`, "58ebb093aa02e976a1b0f8038e8f5a0a"},
		{`false`, "d4344f07a7447b4d1972beb8e6c71f89"},
		{`{}`, "7630b31d9f28ee21e3c5dcb7b53d85ca"},
		{`[]`, "12f9f0883a818684fc74f9164a5bfa17"},
		{`""`, "34573a48dab125dee6621050beb86f86"},
		{`"0123456"`, "29e9e2f00677893f66d378952f726920"},
		{`"01234567"`, "652374277497a90879c7536078a43989"},
		{`"0123456789abcde"`, "b36e86ab4f2a0743294f3f1997ef5db3"},
		{`"0123456789abcdef"`, "c074e1819407a5ff012d22a694a781ba"},
		{`"0123456789abcdefghijklmnopqrstuvwxyz"`, "9d5f561e775f51bd75da0c89aff1bd15"},
		{`"漢字\n😀"`, "5622f23a8166adfd29ffc9b714195f21"},
		{`0`, "89909d0621187b5f8b68d3aa56208799"},
		{`7`, "d067a5c78b3bbdf8678f06ba66067f56"},
		{`-92.4`, "13135be3b424431cf9fde406d052d583"},
		{`12345678901234567890123`, "c3c9854a04428d01f7a43c37b1ac4e7d"},
		{`1e99999999999999999999`, "785c4883b84a7b24d86b144dcb7ce7c7"},
		{`[1,[2],{"a":3}]`, "bd5ae9a0d896d33c9fa6257ca2c25b33"},
		{`{"a":{"b":{"c":1}}}`, "114ee0f19b4b87e1dd7ecbd200e9e09a"},
		{`{"curvedTotalScore":1,"größe":2}`, "47f31e047869940533f27b15a480bf52"},
		{`{"type":"Event","n":[1,2.5,-3e10,true,null,"é\n"],"o":{}}`, "c5747095f8a368e80967b4ccb3cf7c22"},
	} {
		require.Equal(t, c.want, fingerprint(t, c.doc), c.doc)
	}
}
