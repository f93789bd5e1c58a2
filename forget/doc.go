// Package forget finds what is held of a person.
//
// A person is named by the ids that records use: the IRI of the Person entity, and whatever else stands for it, such as a membership or an
// account. A record is of the person when one of its JSON strings, a key or a value, is such an id, however it is escaped; what is no JSON
// when the id's bytes are in it. An id that only begins like it, or a longer one that contains it, is another one's.
//
//	ids ─▶ People ─┬─ InRecord: the bytes of an event, an entity or a reject
//	               └─ InRow: a row of a raw or a typed table, by any of its texts, by what it was made of (_sources), and by its bytes
//
// It reads, and removes nothing: that is for who holds the log, the lake and the jobs.
package forget
