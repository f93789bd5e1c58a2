package etl

import "unsafe"

// arena gives out many small slices from few allocations. A slice is never used twice; its memory is freed with its neighbours'.
// Chunks grow with what is asked for: a chunk for a batch of ten records is not one for thousands.
type arena struct {
	free  []byte
	chunk int // size of the last one
}

// room returns an empty slice with room for n bytes. What is written to it must go to keep before the next call.
func (a *arena) room(n int) []byte {
	if cap(a.free) < n {
		a.chunk = min(max(2*a.chunk, 4<<10), 64<<10)
		a.free = make([]byte, 0, max(n, a.chunk))
	}
	return a.free[:0:n]
}

// keep ends what room began, and returns b so that appending to it copies it.
func (a *arena) keep(b []byte) []byte {
	if unsafe.SliceData(b) == unsafe.SliceData(a.free) { // else it outgrew its room
		a.free = a.free[:cap(a.free)][len(b):][:0]
	}
	return b[:len(b):len(b)]
}

// string is keep for bytes that are a text.
func (a *arena) string(b []byte) string {
	b = a.keep(b)
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// slab gives out many small things of one type from few allocations. A chunk is freed when all that it gave out is, and with it what
// they point to. Chunks grow as an arena's do.
type slab[T any] struct {
	free  []T
	chunk int // length of the last one
}

// take returns n zero Ts.
func (s *slab[T]) take(n int) []T {
	if len(s.free) < n {
		s.chunk = min(max(2*s.chunk, 16), 256)
		s.free = make([]T, max(n, s.chunk))
	}
	out := s.free[:n:n]
	s.free = s.free[n:]
	return out
}

func (s *slab[T]) one() *T { return &s.take(1)[0] }

// list returns a copy of ts.
func (s *slab[T]) list(ts []T) []T {
	out := s.take(len(ts))
	copy(out, ts)
	return out
}
