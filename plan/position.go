package plan

import "millrace/record"

// Position is how far a job has read its source.
type Position struct {
	Offsets Offsets  // of the log: the next record, by partition; a partition that is not named is read from its beginning
	Seeding *Seeding // nil when only the log is read
}

// Batch is what a source brings at once: items of the log, from which the position after it follows, or the seeding as it is after the items.
type Batch struct {
	From    Offsets // where the log is read from; nil when the position says it. A partition that was not read yet would else have no offset to lose
	Items   []record.Item
	Seeding *Seeding // not changed afterwards
}
