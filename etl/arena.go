package etl

import "unsafe"

// arena gives out many small slices from few allocations. A slice is never used twice; its memory is freed with its neighbours'.
type arena struct{ free []byte }

// room returns an empty slice with room for n bytes. What is written to it must go to keep before the next call.
func (a *arena) room(n int) []byte {
	if cap(a.free) < n {
		a.free = make([]byte, 0, max(n, 64<<10))
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
