// Package forget finds what is held of a person.
//
// A person is named by the ids that records use: the IRI of the Person entity, and whatever else stands for it, such as a membership or an
// account. A record is of the person when one of its JSON strings, a key or a value, is such an id, or one below it: followed by /, # or ?, as
// that of a note in https://example.edu/users/554433/notes/1; however it is escaped. What is no JSON is the person's when the id's bytes are in it. An
// id that only begins with the same characters is another one's, and texts are not searched for ids.
//
//	ids ─▶ People ─┬─ InRecord: the bytes of an event, an entity or a reject
//	               └─ InRow: a row of a raw or a typed table, by any of its texts, by what it was made of (_sources), and by its bytes
//
// It reads, and removes nothing: that is for who holds the log, the lake and the jobs.
package forget
