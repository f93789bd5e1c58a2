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

	"millrace/artifact"
)

const (
	defaultMemory  = 1500 // MB
	leastMemory    = 600  // for a stack with two jobs
	leastJobMemory = 80

	defaultCorrections = 16_384 // MB

	// leastCollected is what the Go part of the stack's own process needs, in bytes.
	leastCollected = 70e6

	// codeSize is what code and constants take once most of them have been used. Processes share it.
	codeSize = 126e6

	// process is what each process takes for itself before it has done anything.
	process = 20e6
)

// shares are the parts of what the stack may hold, in bytes.
type shares struct {
	index int64 // buffers of the embedded index. A search that needs more is refused
	fetch int32 // compressed records on their way from the log

	// collected is what the Go part of the stack's own process aims to stay under. It exceeds this only for what is really in use.
	collected int64
}

// divide gives each part of the stack's own process its share of what all processes may hold, jobs of it those of the jobs. A quarter is left for memory that allocators
// keep, and for garbage: a collector that gets little of a busy machine ends long after it was due.
func divide(memory, jobs int64) shares {
	s := shares{index: memory / 15, fetch: int32(min(memory/600, 8<<20))}
	own := memory - codeSize - jobs
	s.collected = own - own/4 - process - 2*s.index // DuckDB has as much again beside its buffers
	return s
}

// jobShares divides what the process of a job may hold.
func jobShares(memory int64) artifact.Memory {
	m := artifact.Memory{
		Cache: memory / 20, MemTable: 3 * memory / 40, // of memtables two are usual, four the most; several epochs should fit in one
		Epoch: min(memory/40, 16<<20), // two are at work, and take several times as much
		Fetch: int32(min(memory/120, 8<<20)), Flush: min(memory/6, 128<<20),
		Bulk: int(min(memory/60, 5<<20)), // takes several times as much where it is parsed
		Most: 3 * memory,
	}
	m.Collected = memory - memory/4 - process - m.Cache - 2*m.MemTable
	return m
}

// jobMemoryFor is how many MB of all memory a job gets where nobody says. With less its collector works all the time at some thousands of
// records a second; with more there is no room for a fourth job beside what all have.
func jobMemoryFor(memory int64) int64 { return memory * 3 / 20 }

// memoryFor is how many MB a stack needs whose jobs have so many.
func memoryFor(jobs int64) int64 {
	memory := int64(leastMemory)
	for divide(memory*1e6, jobs*1e6).collected < leastCollected {
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
