package delivery

import (
	"fmt"
	"slices"
	"strings"

	"millrace/lake"
	"millrace/plan"
)

// localFile is a file of a snapshot where DuckDB reads it.
type localFile struct {
	path     string
	sequence int64
}

// viewOf is the SELECT that gives the rows of a snapshot.
func viewOf(columns []lake.SnapshotColumn, data, deletes []localFile) string {
	last := int64(0) // correction
	for _, d := range deletes {
		last = max(last, d.sequence)
	}
	var sound, corrected []localFile
	for _, f := range data {
		if f.sequence < last {
			corrected = append(corrected, f)
		} else {
			sound = append(sound, f)
		}
	}
	list := columnList(columns, "d.")
	var parts []string
	if len(sound) > 0 {
		parts = append(parts, "SELECT "+list+" FROM "+parquet(columns, sound)+" AS d")
	}
	if len(corrected) > 0 {
		id := columns[slices.IndexFunc(columns, func(c lake.SnapshotColumn) bool { return c.Name == "_id" })]
		parts = append(parts, "SELECT "+list+" FROM "+parquet(columns, corrected)+" AS d JOIN "+sequences(corrected)+" AS s ON s.file = d.filename"+
			" ANTI JOIN (SELECT v._id AS id, max(s.sequence) AS sequence FROM "+parquet([]lake.SnapshotColumn{id}, deletes)+" AS v JOIN "+sequences(deletes)+
			" AS s ON s.file = v.filename GROUP BY v._id) AS v ON v.id = d._id AND v.sequence > s.sequence")
	}
	if len(parts) == 0 {
		nulls := make([]string, len(columns))
		for i, c := range columns {
			nulls[i] = "NULL::" + typeOf(c.Type) + " AS " + identifier(c.Name)
		}
		return "SELECT " + strings.Join(nulls, ", ") + " WHERE false"
	}
	return strings.Join(parts, " UNION ALL ")
}

func columnList(columns []lake.SnapshotColumn, of string) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = of + identifier(c.Name)
	}
	return strings.Join(names, ", ")
}

// parquet reads columns of files by their ids: a file that has not one of them gives null.
func parquet(columns []lake.SnapshotColumn, files []localFile) string {
	fields := make([]string, len(columns))
	for i, c := range columns {
		fields[i] = fmt.Sprintf("%d: {name: %s, type: %s, default_value: NULL}", c.ID, literal(c.Name), literal(typeOf(c.Type)))
	}
	paths := make([]string, len(files))
	for i, f := range files {
		paths[i] = literal(f.path)
	}
	return "read_parquet([" + strings.Join(paths, ",") + "], schema = MAP {" + strings.Join(fields, ", ") + "})"
}

// sequences is a table of the files' sequence numbers.
func sequences(files []localFile) string {
	rows := make([]string, len(files))
	for i, f := range files {
		rows[i] = fmt.Sprintf("(%s, %d::BIGINT)", literal(f.path), f.sequence)
	}
	return "(SELECT * FROM (VALUES " + strings.Join(rows, ", ") + ") AS f(file, sequence))"
}

func typeOf(t plan.Type) string {
	switch t {
	case plan.String:
		return "VARCHAR"
	case plan.Bool:
		return "BOOLEAN"
	case plan.Long:
		return "BIGINT"
	case plan.Double:
		return "DOUBLE"
	case plan.Timestamp:
		return "TIMESTAMPTZ"
	case plan.Bytes:
		return "BLOB"
	case plan.Strings:
		return "VARCHAR[]"
	}
	panic(fmt.Sprintf("column type %d", t))
}
