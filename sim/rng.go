package sim

import "math/bits"

// rng is a splitmix64 generator. It is written out, not taken from math/rand, because a State file outlives the Go
// version that made it: the same seed must give the same bytes in every build.
type rng uint64

// newRNG returns the generator for one thing: the seed and whatever identifies the thing.
func newRNG(seed uint64, parts ...uint64) rng {
	h := mix(seed)
	for _, p := range parts {
		h = mix(h ^ mix(p))
	}
	return rng(h)
}

func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (r *rng) next() uint64 {
	z := mix(uint64(*r))
	*r += 0x9e3779b97f4a7c15
	return z
}

// intn returns a number in [0, n); n is positive.
func (r *rng) intn(n int) int {
	hi, _ := bits.Mul64(r.next(), uint64(n))
	return int(hi)
}

// between returns a number in [lo, hi].
func (r *rng) between(lo, hi int) int { return lo + r.intn(hi-lo+1) }

// millis returns a duration in [lo, hi] seconds, in milliseconds.
func (r *rng) millis(lo, hi int) int64 { return int64(r.between(lo*1000, hi*1000)) }

// float returns a number in [0, 1).
func (r *rng) float() float64 { return float64(r.next()>>11) / (1 << 53) }

// chance is true with probability p.
func (r *rng) chance(p float64) bool { return r.float() < p }
