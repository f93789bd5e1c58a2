// Package sim is a simulated school district that posts Caliper envelopes to a collector over HTTP, as real sensors do.
//
// The idea to hold: a District is a pure function of its Config. Its sequence of Posts depends on no clock and no I/O, so
// the same seed gives the same bytes, and what the collector must hold in the end is known beforehand: the Ledger of the
// first n posts is a function of the seed and n. A Sender posts that sequence and remembers, in a State file, how far it
// has been acknowledged; after a crash it goes on from there, sending again what may not have arrived, as a
// store-and-forward sensor does.
//
//	Config ─▶ District: schools, courses, sections, people      (stateless functions of the seed)
//	             └─▶ day plan: sessions ─▶ events, describes ─▶ envelopes with irregularities
//	                    └─▶ Next: posts in the order they are sent ─▶ Sender: one queue per sensor ─▶ Poster
//
// Each virtual day (5 a.m. to 5 a.m.) is planned by itself, from the seed and the number of the day, and everything that
// an irregularity delays is sent before its day ends. So going on from a saved position plans one day at most.
//
// Every graded quiz can be joined in the end: its assignment, and the student's membership of the assignment's section,
// are described somewhere in the sequence; District.Finish sends at once those that are still held back.
//
// It does not read anything back: comparing the ledger with the lake and the tables is the caller's.
package sim
