package lake

import (
	"fmt"
	"slices"
	"strings"

	"github.com/apache/iceberg-go"

	"millrace/plan"
)

// columnsOf returns the columns of the Iceberg table of t: its own, and unless it is append-only the meta columns.
func columnsOf(t plan.Table) []plan.Column {
	if t.AppendOnly {
		return slices.Clone(t.Schema.Columns)
	}
	return slices.Concat(t.Schema.Columns, plan.MetaColumns)
}

// icebergType maps a column type. Element ids are numbered from next, which is advanced.
func icebergType(t plan.Type, next *int) iceberg.Type {
	switch t {
	case plan.String:
		return iceberg.PrimitiveTypes.String
	case plan.Bool:
		return iceberg.PrimitiveTypes.Bool
	case plan.Long:
		return iceberg.PrimitiveTypes.Int64
	case plan.Double:
		return iceberg.PrimitiveTypes.Float64
	case plan.Timestamp:
		return iceberg.PrimitiveTypes.TimestampTz
	case plan.Bytes:
		return iceberg.PrimitiveTypes.Binary
	case plan.Strings:
		*next++
		return &iceberg.ListType{ElementID: *next, Element: iceberg.PrimitiveTypes.String, ElementRequired: true}
	}
	panic(fmt.Sprintf("column type %d", t))
}

// planType is the inverse of icebergType; 0 for a type that no plan has.
func planType(t iceberg.Type) plan.Type {
	switch t := t.(type) {
	case iceberg.StringType:
		return plan.String
	case iceberg.BooleanType:
		return plan.Bool
	case iceberg.Int64Type:
		return plan.Long
	case iceberg.Float64Type:
		return plan.Double
	case iceberg.TimestampTzType:
		return plan.Timestamp
	case iceberg.BinaryType:
		return plan.Bytes
	case *iceberg.ListType:
		if planType(t.Element) == plan.String {
			return plan.Strings
		}
	}
	return 0
}

func icebergSchema(columns []plan.Column) *iceberg.Schema {
	fields := make([]iceberg.NestedField, len(columns))
	next := len(columns)
	for i, c := range columns {
		fields[i] = iceberg.NestedField{ID: i + 1, Name: c.Name, Doc: c.Doc, Required: !c.Nullable, Type: icebergType(c.Type, &next)}
	}
	return iceberg.NewSchema(0, fields...)
}

// planColumns are the columns of a table as the catalogue has them.
func planColumns(s *iceberg.Schema) []plan.Column {
	columns := make([]plan.Column, 0, s.NumFields())
	for _, f := range s.Fields() {
		columns = append(columns, plan.Column{Name: f.Name, Type: planType(f.Type), Nullable: !f.Required, Doc: f.Doc})
	}
	return columns
}

// missingColumns returns the columns that have to be added to a table of schema s for it to hold want, and those that have to be made
// nullable. Only nullable columns can be added. Columns that nobody wants any more stay, and what is nullable stays so: an older version of
// a plan goes on after a newer one. Any other difference is an error that names the column.
func missingColumns(name string, s *iceberg.Schema, want []plan.Column) (missing, nullable []plan.Column, err error) {
	have := map[string]plan.Column{}
	for _, c := range planColumns(s) {
		have[c.Name] = c
	}
	for _, w := range want {
		h, ok := have[w.Name]
		delete(have, w.Name)
		switch {
		case !ok && !w.Nullable:
			return nil, nil, fmt.Errorf("column %s of table %s is new and not nullable: make it nullable, or write to a new data version", w.Name, name)
		case !ok:
			missing = append(missing, w)
		case h.Type != w.Type:
			return nil, nil, fmt.Errorf("column %s of table %s changed its type from %s to %s: give it a new name, or write to a new data version",
				w.Name, name, typeName(h.Type), typeName(w.Type))
		case !h.Nullable && w.Nullable:
			nullable = append(nullable, w)
		}
	}
	for _, c := range planColumns(s) {
		if _, gone := have[c.Name]; gone && !c.Nullable {
			nullable = append(nullable, c)
		}
	}
	return missing, nullable, nil
}

func typeName(t plan.Type) string {
	names := []string{"another type", "string", "bool", "long", "double", "timestamp", "bytes", "list of strings"}
	return names[t]
}

// partitionOf returns the partition fields of t, checked against its columns.
func partitionOf(t plan.Table, columns []plan.Column) ([]plan.PartitionField, error) {
	fields := t.PartitionSpec()
	for _, f := range fields {
		i := slices.IndexFunc(columns, func(c plan.Column) bool { return c.Name == f.Column })
		if i < 0 {
			return nil, fmt.Errorf("table %s is partitioned by column %s, which it does not have", t.Name, f.Column)
		}
		c := columns[i]
		switch {
		case c.Nullable:
			return nil, fmt.Errorf("table %s is partitioned by column %s, which is nullable", t.Name, f.Column)
		case f.Transform == plan.Identity && c.Type == plan.String, f.Transform == plan.Day && c.Type == plan.Timestamp:
		default:
			return nil, fmt.Errorf("table %s is partitioned by %s(%s): only identity of a string and day of a timestamp are possible",
				t.Name, f.Transform, f.Column)
		}
	}
	return fields, nil
}

func partitionName(f plan.PartitionField) string {
	if f.Transform == plan.Day {
		return f.Column + "_day"
	}
	return f.Column
}

func transformOf(t plan.Transform) iceberg.Transform {
	if t == plan.Day {
		return iceberg.DayTransform{}
	}
	return iceberg.IdentityTransform{}
}

// samePartition reports whether spec, which belongs to a table of schema s, is what fields ask for.
func samePartition(s *iceberg.Schema, spec iceberg.PartitionSpec, fields []plan.PartitionField) bool {
	if spec.NumFields() != len(fields) {
		return false
	}
	i := 0
	for _, have := range spec.Fields() {
		col, ok := s.FindFieldByID(have.SourceID())
		if !ok || col.Name != fields[i].Column || !have.Transform.Equals(transformOf(fields[i].Transform)) {
			return false
		}
		i++
	}
	return true
}

// describePartition says how a table is partitioned, for messages.
func describePartition(fields []plan.PartitionField) string {
	words := make([]string, len(fields))
	for i, f := range fields {
		words[i] = fmt.Sprintf("%s(%s)", f.Transform, f.Column)
	}
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, ", ")
}
