package main

/*
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

// Index and state are outside the Go part. Of the C library's eight arenas each would keep what its threads have freed, and large
// blocks too; so there are two, and large blocks come from the system. It has to be said before there is a second thread.
__attribute__((constructor)) static void keep_little(void) {
#ifdef __GLIBC__
	mallopt(M_ARENA_MAX, 2);
	mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
}
*/
import "C"

import (
	"os"
	"runtime/debug"
)

const (
	defaultMemory = 600 // MB
	leastMemory   = 450 // for a stack with two jobs

	// leastCollected is what the Go part needs, in bytes.
	leastCollected = 90e6

	// program is what code and constants take once most of them have been used.
	program = 126e6
)

// shares are the parts of what a process may hold, in bytes.
type shares struct {
	index int64 // buffers of the embedded index. A search that needs more is refused

	// Of each job:
	cache    int64 // blocks of its state
	memTable int64 // its newest state; two are usual, four the most
	epoch    int64 // input of one epoch; two are at work, and take several times as much
	fetch    int32 // compressed records on their way from the log
	flush    int64 // rows of one publication to the lake
	bulk     int   // of one request to the index, which takes several times as much where it is parsed

	// collected is what the Go part aims to stay under. It holds what is at work in epochs and publications, and exceeds this only for
	// what is really in use.
	collected int64
}

// divide gives each part its share of what the process may hold. A quarter is left for memory that allocators keep, and for garbage: a
// collector that gets little of a busy machine ends long after it was due.
func divide(memory int64, jobs int) shares {
	s := shares{
		index: memory / 12, cache: memory / 40, memTable: memory / 80,
		fetch: int32(min(memory/600, 8<<20)), epoch: min(memory/200, 16<<20), flush: min(memory/30, 128<<20), bulk: int(min(memory/300, 5<<20)),
	}
	outside := program + 2*s.index + int64(jobs)*(s.cache+2*s.memTable) // DuckDB has as much again beside its buffers
	s.collected = memory - memory/4 - outside
	return s
}

// memoryFor is how many MB a process with so many jobs needs.
func memoryFor(jobs int) int64 {
	memory := int64(leastMemory)
	for divide(memory*1e6, jobs).collected < leastCollected {
		memory += 10
	}
	return memory
}

// apply bounds the Go part, unless GOMEMLIMIT does, and returns the limit there was.
func (s shares) apply() (before int64) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return debug.SetMemoryLimit(-1)
	}
	return debug.SetMemoryLimit(s.collected)
}
