package lake

import (
	"reflect"

	"github.com/apache/iceberg-go"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding"

	"millrace/plan"
)

// writerColumn is a column of a file that is being written, and the values of its open chunk.
type writerColumn struct {
	plan.Column
	id, elementID int
	index         int // in the file
	null          parquet.Value
	values        []parquet.Value
}

func newWriterColumn(c plan.Column, index int, field iceberg.NestedField) writerColumn {
	w := writerColumn{Column: c, id: field.ID, index: index, null: parquet.Value{}.Level(0, 0, index)}
	if list, ok := field.Type.(*iceberg.ListType); ok {
		w.elementID = list.ElementID
	}
	return w
}

// add appends a cell to the open chunk.
func (c *writerColumn) add(cell *plan.Cell) {
	if c.Nullable && cell.Null {
		c.values = append(c.values, c.null)
		return
	}
	var v parquet.Value
	switch c.Type {
	case plan.Bool:
		v = parquet.BooleanValue(cell.Bool)
	case plan.Long, plan.Timestamp:
		v = parquet.Int64Value(cell.Int)
	case plan.Double:
		v = parquet.DoubleValue(cell.Float)
	case plan.Strings:
		c.addList(cell.List)
		return
	default:
		v = parquet.ByteArrayValue(cell.Bytes)
	}
	if c.Nullable {
		v = v.Level(0, 1, c.index)
	}
	c.values = append(c.values, v) // without levels: a required column has none, and setting them costs as much as the rest
}

func (c *writerColumn) addList(list [][]byte) {
	def := 0
	if c.Nullable {
		def = 1
	}
	if len(list) == 0 {
		c.values = append(c.values, parquet.Value{}.Level(0, def, c.index))
		return
	}
	for i, e := range list {
		c.values = append(c.values, parquet.ByteArrayValue(e).Level(min(i, 1), def+1, c.index))
	}
}

// node is the column in the file's schema, encoded as fits the values of the open chunk.
func (c *writerColumn) node() parquet.Node {
	var n parquet.Node
	switch c.Type {
	case plan.String:
		n = parquet.Encoded(parquet.String(), c.textEncoding())
	case plan.Bool:
		n = parquet.Leaf(parquet.BooleanType)
	case plan.Long:
		n = parquet.Encoded(parquet.Leaf(parquet.Int64Type), &parquet.DeltaBinaryPacked)
	case plan.Double:
		n = parquet.Leaf(parquet.DoubleType)
	case plan.Timestamp:
		n = parquet.Encoded(parquet.Timestamp(parquet.Microsecond), &parquet.DeltaBinaryPacked)
	case plan.Bytes:
		n = parquet.Encoded(parquet.Leaf(parquet.ByteArrayType), &parquet.DeltaLengthByteArray)
	case plan.Strings:
		n = parquet.List(parquet.FieldID(parquet.Encoded(parquet.String(), c.textEncoding()), c.elementID))
	}
	if c.Nullable {
		return parquet.Optional(n)
	}
	return parquet.Required(n)
}

const (
	sampleValues  = 256 // of the first chunk, from all over it
	sampleRepeats = 8   // how many of them have to occur again for a dictionary; of 4,096 equally likely values about as many do
)

// textEncoding is a dictionary for values that repeat. Those that do not are cheaper to write, and no larger once they are
// compressed, one after the other.
func (c *writerColumn) textEncoding() encoding.Encoding {
	step := max(1, len(c.values)/sampleValues)
	seen := make(map[string]struct{}, sampleValues)
	repeats := 0
	// Every other step is shorter: the elements of lists of one length alternate, and an even one would see one kind of them.
	for i, n := 0, 0; i < len(c.values); i, n = i+max(1, step-n%2), n+1 {
		v := &c.values[i]
		if v.IsNull() {
			continue
		}
		if _, ok := seen[string(v.ByteArray())]; ok {
			repeats++
			continue
		}
		seen[string(v.ByteArray())] = struct{}{}
	}
	if repeats >= sampleRepeats || len(seen) <= 1 {
		return &parquet.RLEDictionary
	}
	return &parquet.Plain
}

// filtered is whether the file's manifest entry has the column's bounds. Nothing filters by documents, whose first
// characters say little, or by the elements of a list.
func (c *writerColumn) filtered() bool { return c.Type != plan.Bytes && c.Type != plan.Strings }

// statisticsID is the id of the column's leaf.
func (c *writerColumn) statisticsID() int {
	if c.Type == plan.Strings {
		return c.elementID
	}
	return c.id
}

type orderedGroup struct {
	parquet.Group
	fields []parquet.Field
}

func (g orderedGroup) Fields() []parquet.Field { return g.fields }

type groupField struct {
	parquet.Node
	name string
}

func (f groupField) Name() string { return f.name }

func (f groupField) Value(base reflect.Value) reflect.Value {
	return base.MapIndex(reflect.ValueOf(f.name))
}
