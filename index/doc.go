// Package index is the embedded search server: the part of Elasticsearch's HTTP API that sinks and reports use, so that
// one client and one set of searches serve a laptop and a cluster.
//
// The one idea: an index is a DuckDB table with a typed column per mapped field, a search is a few SQL statements over
// one snapshot of it, and a write is one transaction that many requests share. What a request asks and this server does
// not do is refused with the error that Elasticsearch gives for what it does not know; nothing is ignored silently.
//
//	request ─▶ ServeHTTP ─┬─ search ─▶ parse query and aggregations ─▶ SQL, per index ─▶ snapshot of the tables
//	                      └─ write ──▶ queue ─▶ writer: look up versions, delete, append, one synced commit
//
// A write that was answered with success survives a crash, and is visible to the next search: there is no refresh to
// wait for. Deleted documents leave a tombstone with their version for as long as the index lives, so that an older
// version under external versioning never comes back.
//
// It does not analyse text, score, run scripts, keep replicas or authenticate: it belongs on the loopback interface.
package index
