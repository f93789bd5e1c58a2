// Package control keeps what operators decide, in SQLite. These are the sensor keys: who may send, and what the items that come with a key
// belong to; the tokens: who may read; and the instances of apps: which data versions there are, what they begin with, and which of them
// readers see.
//
// It does not answer sensors (collect), run jobs, or change the names that readers use (cmd). control/api is the same over HTTP.
package control
