package record

import (
	"encoding/binary"
	"math/bits"
)

// state is what has been hashed so far: two lanes that take in the same words in different ways, so that a collision needs an
// accident of 64 bits in both at once. It is passed around by value and stays in registers.
type state struct{ a, b uint64 }

// The hash is not a standard one, but made as wyhash is, of 64 × 64 → 128 bit products whose halves are put together. Every
// constant is a number without meaning, but no eight bytes of UTF-8 and no number of a document are like it, so that no input
// makes a factor zero. What a word ends or stands for is told by the constants that it is taken in with.
//
// They and all that is done with them are a stored format: see TestFingerprintIsStable.
const (
	rootA, rootB       uint64 = 0xaef0fa2a974025a7, 0xa80b4944f80b236f // where a document begins
	textA, textB       uint64 = 0xf86935844fbb4bc7, 0xc3fdb41048d91daf // 16 bytes of text that goes on
	nameA, nameB       uint64 = 0x9307f9c99f3a6265, 0xaa33bb51fb8606a1 // the end of a member's name
	stringA, stringB   uint64 = 0xb70d6131f6294cf9, 0x99161367fcba4983 // the end of a string
	indexA, indexB     uint64 = 0xfddb711566c41437, 0x9bfc907a5a6c1e87 // the place of an array's element
	numberA, numberB   uint64 = 0xb98ca98781f8dc43, 0xc8624ffad689361f // digits and exponent
	literalA, literalB uint64 = 0xd9af2f87fa922093, 0xfff1d65744a05469 // one of the words below
)

// What literalA and literalB are used with. Without members or elements there is nothing else to hash of an object or array.
const (
	wordNull uint64 = iota + 1
	wordTrue
	wordFalse
	wordEmptyObject
	wordEmptyArray
	wordLongNumber // more digits than a word has; they follow as text
	wordHugeNumber // an exponent beyond reckoning; the number follows as it is spelled
)

// mix takes in two words.
func (s state) mix(x, y, ka, kb uint64) state {
	ha, la := bits.Mul64(s.a^x, y^ka)
	hb, lb := bits.Mul64(s.b^y, x^kb)
	return state{ha ^ la, hb ^ lb}
}

// text takes in text of any length, which ends with the constants given. The last one or two words have a quote behind the
// text and zeros behind that: what they are where a quote ends the text in a document.
func (s state) text(body []byte, ka, kb uint64) state {
	for len(body) >= 16 {
		s = s.mix(binary.LittleEndian.Uint64(body), binary.LittleEndian.Uint64(body[8:]), textA, textB)
		body = body[16:]
	}
	x, y := lastWords(body)
	return s.mix(x, y, ka, kb)
}

// lastWords returns two words that have all of a text of less than 16 bytes, a quote, and zeros behind that.
func lastWords(body []byte) (x, y uint64) {
	var last [16]byte
	last[copy(last[:], body)] = '"'
	return binary.LittleEndian.Uint64(last[:]), binary.LittleEndian.Uint64(last[8:])
}

// below makes lastWords of a word of a document: a mask for the quote, which is the first special byte marked in m, and the
// text before it.
func below(m uint64) uint64 { return m&-m - 1 }

// sum is a number of 128 bits. A document's is the sum of its leaves', in whatever order they come.
type sum struct{ hi, lo uint64 }

// leaf ends the hash of one value. The product of two lanes that have nothing to do with each other is what makes it safe to
// add leaves up: a small difference in a value makes another difference under every other path. Of the 2¹²⁸ pairs of lanes some
// dozens have the same product, which leaves about 120 bits.
func (s state) leaf() sum {
	hi, lo := bits.Mul64(s.a, s.b)
	return sum{hi, lo}
}

func (s sum) plus(t sum) sum {
	lo, carry := bits.Add64(s.lo, t.lo, 0)
	hi, _ := bits.Add64(s.hi, t.hi, carry)
	return sum{hi, lo}
}

// bytes spreads every bit of a sum over all of the fingerprint, without loss: each round can be undone.
func (s sum) bytes() (out [16]byte) {
	x, y := s.hi, s.lo
	for _, k := range [...]uint64{textA, nameA, stringA, indexA} {
		hi, lo := bits.Mul64(y^k, rootA)
		x, y = y, x^hi^lo
	}
	binary.LittleEndian.PutUint64(out[:8], x)
	binary.LittleEndian.PutUint64(out[8:], y)
	return out
}
