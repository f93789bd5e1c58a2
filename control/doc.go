// Package control keeps what operators decide, in SQLite, and carries it out. These are the sensor keys: who may send, and what the items that
// come with a key belong to; the tokens: who may read; and the instances of apps: which data versions there are, what they begin with, what
// is being done with them, and which of them readers see.
//
// The one idea: what is asked for is recorded as an operation before anything is done, and from then on it is carried out, whatever is killed
// meanwhile. Three parts, of which only the last has effects:
//
//	lifecycle.go   which action is possible in which state, for whom, what its steps are, and what undoes them: a table
//	operation.go   what becomes of an operation when a step was done, failed or was interrupted: a function
//	plane.go       does the steps, through a Runner, and records each
//
// Invariants, which the model test tries to break: one operation at a time is at work on an instance; no job runs of which the record says that it
// does not, and none runs twice; a savepoint that was said to be made is there; in every state there is something that somebody can do.
//
// It does not answer sensors (collect), know how jobs run, or change the names that readers use (cmd has the Runner). control/api is the same
// over HTTP.
package control
