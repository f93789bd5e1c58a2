// Package source is what a job reads: the log, or a part of the lake and then the log.
//
// The one idea to hold: the raw lake is the log, kept longer. A raw row names the partition and offset of its record, so the two can be cut
// at any offset and put together without a gap or an overlap. A job that begins with a range of the lake pins a snapshot of each raw table,
// reads the rows before the handoff, the offset up to which the lake surely holds everything, and goes on in the log exactly there:
//
//	    pinned files, several at a time          the log, from Handoff
//	├─ entities ─┤├── events, rejects ──┤ barrier ├──────────────────▶
//	    each batch with the plan.Seeding           each batch with
//	    that it leaves, committed with it          its items' offsets
//
// The same way a job whose log has expired records that it has not read makes them good: it reads them from the lake, by their offsets, and
// goes on in the log after them. Records that neither has are an error that names them.
//
// What a restart needs is in the plan.Seeding of the last committed epoch: the snapshots, how far each file is read, and the handoff. The
// files of a snapshot never change, and a pin holds them while the table is compacted.
//
// Only log records come in order. The package does not know what becomes of items, and commits nothing.
package source
