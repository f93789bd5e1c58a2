// Package engine runs a plan on one machine, exactly once, with nothing but a directory.
//
// The one idea is the epoch. A batch of records goes through the plan's stages, and everything that follows from it is
// made durable by one atomic, synced commit:
//
//	source ─▶ feed: poll, Plan.Read ─▶ step: stages, keyed ones with their state ─▶ rows
//	             (epoch n+1 meanwhile)                                               │ appended and synced
//	                                                                                 ▼
//	 one Pebble batch: offsets, values, lists, timers, counters, clock, lineage   outbox segment
//	                   + the entry that names the rows' bytes ◀──────────────────────┘
//	                                                                                 │
//	                          publisher per sink, own durable position ◀─────────────┘
//
// A crash before the commit leaves an outbox tail that nobody names: the epoch never was. A crash after it leaves
// everything. Sinks publish idempotently from the outbox, so what reaches them is exactly once too.
//
// The step itself (step.go) is a pure function of an epoch's inputs and a view of the state; its result does not depend
// on Config.Workers. Clock and file system are given in Config.
//
// The engine does not know what records, states or rows mean, does not retry sinks or the source (they do), and runs
// one job: starting, watching and moving jobs is the business of control.
package engine
