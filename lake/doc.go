// Package lake keeps tables as Iceberg v2 datasets: Parquet files that any engine can read, and a catalogue that says which
// of them belong to a table.
//
// The one idea to hold: writing has two phases. Write makes data files, durable and invisible; Commit makes them visible in
// one Iceberg snapshot, whose summary records the epochs and log offsets that it holds. A crash between the two leaves
// files that nothing refers to, which Sweep removes; a commit whose outcome is unknown is tried again and recognises itself
// by the summary. So a batch that is published as often as it takes is in the table exactly once.
//
//	rows ─▶ Write ─▶ *.parquet (synced, unreferenced) ─▶ Commit ─▶ manifests, metadata (synced) ─▶ catalog.db: one row changes
//
// What is read of a file has been checked against the file's checksums before: iceberg-go plans which files are read, and reads none of them.
//
// The catalogue is catalog.db, or an Iceberg REST catalogue: then what is to make a commit fail must be something that its server can check.
//
// A correction is an equality delete on _id beside the new row, in one snapshot. Scan and Count apply the deletes; Compact
// folds them in and joins small files. Verify reads all there is.
//
// Files of the raw tables are of one tenant and one day each. So Contents answers from the manifests alone what there is of each, and opens
// no data file.
//
// The layout on disk is docs/formats/lake.md. The package does not decide when to write, and knows no epochs beyond those it
// is told: that is sink/iceberg's part.
package lake
