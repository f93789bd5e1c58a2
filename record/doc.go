// Package record holds what flows through the system: an item of the log with its exact bytes, and the means to look into
// those bytes.
//
// The one idea: a document stays the bytes that a sensor sent. Nothing is decoded into a tree and nothing is written out
// again. Compile turns a set of paths into a matcher whose Scan goes over the document once, checks that it is JSON and
// remembers where the values of all paths lie; what comes back are sub-slices of the document, decoded when somebody asks.
//
// # What counts as JSON
//
// Exactly RFC 8259, with these decisions where it leaves room:
//   - of several members with one name the last counts, also when that drops what was found under an earlier one;
//   - names are compared after decoding their escapes;
//   - arrays and objects nest at most [MaxDepth] deep;
//   - a raw control character or invalid UTF-8 in a string is an error, with its position;
//   - an escaped surrogate without its partner is accepted and reads as U+FFFD, as encoding/json does.
//
// # Paths
//
// A path is steps with dots between them: object.assignable.@id. A step is a member's name, or an array's index:
// enrollment.roles.0. A numeric step matches the element of an array and the member of an object so named. A name with
// dots or other punctuation is quoted like a JSON string: extensions."com.instructure.canvas".user_login.
//
// Caliper 1.0 writes @id and @type where later versions write id and type; the two spellings are one step, and an object
// that has both is an object with a duplicate: the last one counts. Any entity may be given as its bare IRI, so a step
// id or @id on a string is that string.
//
// The empty path is the whole document. A path may go on where another ends.
//
// # Fingerprints
//
// Fingerprint hashes the value that a document is, not its spelling; ScanFingerprint does so in the pass that finds the paths.
//
// The package does no I/O, builds no JSON and knows no Caliper terms; those are in package caliper.
package record
