package lake

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"unicode/utf8"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"

	"millrace/plan"
)

const (
	chunkRows      = 1024      // rows that are gathered before their columns are encoded
	rowGroupBytes  = 64 << 20  // uncompressed bytes of a row group, which is held in memory, encoded, until it is full
	dictionaryMax  = 256 << 10 // bytes of distinct values; a column with more is written plain
	pageBytes      = 256 << 10
	boundCharacter = 16 // characters of a string that its bounds keep, as Iceberg's default
)

var codec = &zstd.Codec{Level: zstd.SpeedFastest}

// dataWriter writes one Parquet file with Iceberg's field ids and gathers the statistics that its manifest entry holds.
type dataWriter struct {
	columns []writerColumn
	out     fileWriter
	parquet *parquet.GenericWriter[any] // of columns; no Go value is ever written whole
	rows    int64
	chunk   int   // rows in the columns' values
	size    int64 // bytes in the open row group, roughly
	path    string
}

type writerColumn struct {
	plan.Column
	id, elementID int
	values        []parquet.Value
	nulls, count  int64
	min, max      plan.Cell
	bounded       bool
}

// newDataWriter opens a file of the given columns, all of them columns of tbl.
func newDataWriter(l *Lake, tbl *table.Table, columns []plan.Column, location string) (*dataWriter, error) {
	w := &dataWriter{columns: make([]writerColumn, len(columns)), path: location}
	for i, c := range columns {
		field, ok := tbl.Schema().FindFieldByName(c.Name)
		if !ok {
			return nil, fmt.Errorf("column %s is not in the catalogue", c.Name)
		}
		w.columns[i] = writerColumn{Column: c, id: field.ID}
		if list, ok := field.Type.(*iceberg.ListType); ok {
			w.columns[i].elementID = list.ElementID
		}
	}
	out, err := l.fsys.newFile(location)
	if err != nil {
		return nil, err
	}
	w.out = out
	w.parquet = parquet.NewGenericWriter[any](w.out, w.schema(),
		parquet.Compression(codec),
		parquet.PageBufferSize(pageBytes),
		parquet.DictionaryMaxBytes(dictionaryMax),
		parquet.CreatedBy("millrace", "1", ""))
	return w, nil
}

// schema is the file's Parquet schema. parquet-go sorts the fields of a group by name; a reader expects the table's order.
func (w *dataWriter) schema() *parquet.Schema {
	root := orderedGroup{Group: parquet.Group{}}
	for _, c := range w.columns {
		node := parquet.FieldID(c.node(), c.id)
		root.Group[c.Name] = node
		root.fields = append(root.fields, groupField{node, c.Name})
	}
	return parquet.NewSchema("table", root)
}

func (c writerColumn) node() parquet.Node {
	var n parquet.Node
	switch c.Type {
	case plan.String:
		n = parquet.Encoded(parquet.String(), &parquet.RLEDictionary)
	case plan.Bool:
		n = parquet.Leaf(parquet.BooleanType)
	case plan.Long:
		n = parquet.Leaf(parquet.Int64Type)
	case plan.Double:
		n = parquet.Leaf(parquet.DoubleType)
	case plan.Timestamp:
		n = parquet.Encoded(parquet.Timestamp(parquet.Microsecond), &parquet.DeltaBinaryPacked)
	case plan.Bytes:
		n = parquet.Leaf(parquet.ByteArrayType)
	case plan.Strings:
		n = parquet.List(parquet.FieldID(parquet.String(), c.elementID))
	}
	if c.Nullable {
		return parquet.Optional(n)
	}
	return parquet.Required(n)
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

// add appends one row. The cells' bytes must stay as they are until the file is finished or abandoned.
func (w *dataWriter) add(cells []plan.Cell) error {
	for i := range w.columns {
		w.size += w.columns[i].add(i, &cells[i])
	}
	w.rows++
	if w.chunk++; w.chunk == chunkRows {
		return w.flush()
	}
	return nil
}

// add appends a cell to the column with the given index in the file and returns about how many bytes it takes.
func (c *writerColumn) add(index int, cell *plan.Cell) int64 {
	def := 0
	if c.Nullable {
		if cell.Null {
			c.nulls++
			c.count++
			c.values = append(c.values, parquet.Value{}.Level(0, 0, index))
			return 1
		}
		def = 1
	}
	if c.Type == plan.Strings {
		return c.addList(index, def, cell.List)
	}
	c.count++
	var v parquet.Value
	size := int64(8)
	switch c.Type {
	case plan.Bool:
		v, size = parquet.BooleanValue(cell.Bool), 1
	case plan.Long, plan.Timestamp:
		v = parquet.Int64Value(cell.Int)
	case plan.Double:
		v = parquet.DoubleValue(cell.Float)
	default:
		v, size = parquet.ByteArrayValue(cell.Bytes), int64(len(cell.Bytes))
	}
	c.values = append(c.values, v.Level(0, def, index))
	c.bound(cell)
	return size
}

func (c *writerColumn) addList(index, def int, list [][]byte) int64 {
	if len(list) == 0 {
		c.values = append(c.values, parquet.Value{}.Level(0, def, index))
		return 1
	}
	var size int64
	for i, e := range list {
		repetition := min(i, 1)
		c.values = append(c.values, parquet.ByteArrayValue(e).Level(repetition, def+1, index))
		size += int64(len(e))
	}
	return size
}

// bound widens the column's bounds. Bytes have none: nothing filters by them and a document's first characters say little.
func (c *writerColumn) bound(cell *plan.Cell) {
	if c.Type == plan.Bytes || (c.Type == plan.Double && math.IsNaN(cell.Float)) {
		return
	}
	if !c.bounded {
		c.min, c.max, c.bounded = *cell, *cell, true
		return
	}
	switch c.Type {
	case plan.Bool:
		c.min.Bool = c.min.Bool && cell.Bool
		c.max.Bool = c.max.Bool || cell.Bool
	case plan.Long, plan.Timestamp:
		c.min.Int = min(c.min.Int, cell.Int)
		c.max.Int = max(c.max.Int, cell.Int)
	case plan.Double:
		c.min.Float = min(c.min.Float, cell.Float)
		c.max.Float = max(c.max.Float, cell.Float)
	case plan.String:
		if bytes.Compare(cell.Bytes, c.min.Bytes) < 0 {
			c.min.Bytes = cell.Bytes
		}
		if bytes.Compare(cell.Bytes, c.max.Bytes) > 0 {
			c.max.Bytes = cell.Bytes
		}
	}
}

func (w *dataWriter) flush() error {
	if w.chunk == 0 {
		return nil
	}
	writers := w.parquet.ColumnWriters()
	for i := range w.columns {
		c := &w.columns[i]
		if _, err := writers[i].WriteRowValues(c.values); err != nil {
			return fmt.Errorf("column %s: %w", c.Name, err)
		}
		c.values = c.values[:0]
	}
	w.chunk = 0
	if w.size >= rowGroupBytes {
		w.size = 0
		return w.parquet.Flush()
	}
	return nil
}

func (w *dataWriter) abandon() { w.out.abandon() }

// finish makes the file durable and returns its manifest entry. The file is gone if that fails.
func (w *dataWriter) finish(content iceberg.ManifestEntryContent, spec iceberg.PartitionSpec, partition []any, equality []int) (iceberg.DataFile, error) {
	err := w.flush()
	if err == nil {
		err = w.parquet.Close()
	}
	if err != nil {
		w.abandon()
		return nil, err
	}
	if err := w.out.Close(); err != nil {
		w.abandon()
		return nil, err
	}
	return w.entry(content, spec, partition, equality)
}

func (w *dataWriter) entry(content iceberg.ManifestEntryContent, spec iceberg.PartitionSpec, partition []any, equality []int) (iceberg.DataFile, error) {
	values, logical := map[int]any{}, map[int]string{}
	i := 0
	for _, f := range spec.Fields() {
		values[f.FieldID] = partition[i]
		if _, ok := partition[i].(iceberg.Date); ok {
			logical[f.FieldID] = "date"
		}
		i++
	}
	b, err := iceberg.NewDataFileBuilder(spec, content, w.path, iceberg.ParquetFile, values, logical, nil, w.rows, w.out.written())
	if err != nil {
		return nil, err
	}
	counts, nulls, sizes := map[int]int64{}, map[int]int64{}, map[int]int64{}
	lower, upper := map[int][]byte{}, map[int][]byte{}
	for i := range w.columns {
		c := &w.columns[i]
		if c.Type == plan.Strings {
			continue // its statistics would be those of the elements, which nothing filters by
		}
		counts[c.id], nulls[c.id] = c.count, c.nulls
		if c.bounded {
			lower[c.id] = lowerBound(c.Type, c.min)
			if b, ok := upperBound(c.Type, c.max); ok {
				upper[c.id] = b
			}
		}
	}
	var offsets []int64
	for _, g := range w.parquet.File().Metadata().RowGroups {
		for i, chunk := range g.Columns {
			sizes[w.columns[i].statisticsID()] += chunk.MetaData.TotalCompressedSize
			if i == 0 {
				start := chunk.MetaData.DataPageOffset
				if d := chunk.MetaData.DictionaryPageOffset; d > 0 {
					start = min(start, d)
				}
				offsets = append(offsets, start)
			}
		}
	}
	b.ValueCounts(counts).NullValueCounts(nulls).ColumnSizes(sizes).
		LowerBoundValues(lower).UpperBoundValues(upper).SplitOffsets(offsets)
	if len(equality) > 0 {
		b.EqualityFieldIDs(equality)
	}
	return b.Build(), nil
}

// statisticsID is the id of the column's leaf.
func (c *writerColumn) statisticsID() int {
	if c.Type == plan.Strings {
		return c.elementID
	}
	return c.id
}

// lowerBound and upperBound are Iceberg's single-value serialisation; strings are cut.
func lowerBound(t plan.Type, c plan.Cell) []byte {
	switch t {
	case plan.Bool:
		if c.Bool {
			return []byte{1}
		}
		return []byte{0}
	case plan.Long, plan.Timestamp:
		return binary.LittleEndian.AppendUint64(nil, uint64(c.Int))
	case plan.Double:
		return binary.LittleEndian.AppendUint64(nil, math.Float64bits(c.Float))
	}
	cut, _ := cutString(c.Bytes)
	return cut
}

// upperBound is false when no string of the bound's length is high enough.
func upperBound(t plan.Type, c plan.Cell) ([]byte, bool) {
	if t != plan.String {
		return lowerBound(t, c), true
	}
	cut, whole := cutString(c.Bytes)
	if whole {
		return cut, true
	}
	// The cut string sorts before the value, its successor after all that begin with it.
	for len(cut) > 0 {
		r, n := utf8.DecodeLastRune(cut)
		cut = cut[:len(cut)-n]
		next := r + 1
		if next == 0xd800 {
			next = 0xe000 // surrogates are no characters
		}
		if next <= utf8.MaxRune {
			return utf8.AppendRune(cut, next), true
		}
	}
	return nil, false
}

func cutString(s []byte) (cut []byte, whole bool) {
	n := 0
	for i := range string(s) {
		if n == boundCharacter {
			return bytes.Clone(s[:i]), false
		}
		n++
	}
	return bytes.Clone(s), true
}
