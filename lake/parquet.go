package lake

import (
	"fmt"
	"sync"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	compress "github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"

	"millrace/plan"
)

const (
	chunkRows     = 1024      // rows that are gathered before their columns are encoded
	rowGroupBytes = 16 << 20  // encoded bytes of a row group, which is held in memory until it is full
	dictionaryMax = 256 << 10 // bytes of distinct values; a column with more goes on without a dictionary
	pageBytes     = 256 << 10
)

// codec compresses pages. parquet-go's own makes encoders for any input, with 8 MB of history each; pages are small.
type codec struct{ zstd.Codec } // decodes

var (
	pageCodec = &codec{}
	encoders  = sync.Pool{New: func() any {
		e, err := compress.NewWriter(nil, compress.WithEncoderLevel(compress.SpeedFastest), compress.WithEncoderConcurrency(1),
			compress.WithEncoderCRC(false), compress.WithZeroFrames(true), compress.WithWindowSize(2*pageBytes), compress.WithLowerEncoderMem(true))
		if err != nil {
			panic(err) // of these options
		}
		return e
	}}
)

// Encode compresses a page.
func (*codec) Encode(dst, src []byte) ([]byte, error) {
	e := encoders.Get().(*compress.Encoder)
	defer encoders.Put(e)
	return e.EncodeAll(src, dst[:0]), nil
}

// dataWriter writes one Parquet file with Iceberg's field ids and gathers the statistics that its manifest entry holds.
//
// It makes the file once the first chunk of rows is there, because it chooses the columns' encodings by them.
type dataWriter struct {
	lake    *Lake
	path    string
	columns []writerColumn
	out     fileWriter
	sums    *sumWriter                  // to out
	parquet *parquet.GenericWriter[any] // of columns; no Go value is ever written whole. Nil until the file is made
	rows    int64
	chunk   int                // rows in the columns' values
	buffers *[][]parquet.Value // what the columns' values were taken from
}

// valueBuffers keeps the columns' values of files that are done for the next ones.
var valueBuffers = sync.Pool{New: func() any { return new([][]parquet.Value) }}

// newDataWriter prepares a file of the given columns, all of them columns of tbl.
func newDataWriter(l *Lake, tbl *table.Table, columns []plan.Column, location string) (*dataWriter, error) {
	w := &dataWriter{lake: l, path: location, columns: make([]writerColumn, len(columns))}
	w.buffers = valueBuffers.Get().(*[][]parquet.Value)
	for len(*w.buffers) < len(columns) {
		*w.buffers = append(*w.buffers, nil)
	}
	for i, c := range columns {
		field, ok := tbl.Schema().FindFieldByName(c.Name)
		if !ok {
			return nil, fmt.Errorf("column %s is not in the catalogue", c.Name)
		}
		w.columns[i] = newWriterColumn(c, i, field)
		w.columns[i].values = (*w.buffers)[i][:0]
	}
	return w, nil
}

// create makes the file.
func (w *dataWriter) create() error {
	out, err := w.lake.fsys.newFile(w.path)
	if err != nil {
		return err
	}
	w.out, w.sums = out, &sumWriter{out: out}
	w.parquet = parquet.NewGenericWriter[any](w.sums, w.schema(),
		parquet.Compression(pageCodec),
		parquet.PageBufferSize(pageBytes),
		parquet.DictionaryMaxBytes(dictionaryMax),
		parquet.DataPageStatistics(false), // the page index has them
		parquet.CreatedBy("millrace", "1", ""))
	return nil
}

// schema is the file's Parquet schema. parquet-go sorts the fields of a group by name; a reader expects the table's order.
func (w *dataWriter) schema() *parquet.Schema {
	root := orderedGroup{Group: parquet.Group{}}
	for i := range w.columns {
		c := &w.columns[i]
		node := parquet.FieldID(c.node(), c.id)
		root.Group[c.Name] = node
		root.fields = append(root.fields, groupField{node, c.Name})
	}
	return parquet.NewSchema("table", root)
}

// add appends one row. The cells' bytes must stay as they are until the file is finished or abandoned.
func (w *dataWriter) add(cells []plan.Cell) error {
	for i := range w.columns {
		w.columns[i].add(&cells[i])
	}
	return w.added(1)
}

// added notes that each column got so many rows.
func (w *dataWriter) added(rows int) error {
	w.rows += int64(rows)
	if w.chunk += rows; w.chunk >= chunkRows {
		return w.flush()
	}
	return nil
}

// flush hands the chunk to the file.
func (w *dataWriter) flush() error {
	if w.chunk == 0 {
		return nil
	}
	if w.parquet == nil {
		if err := w.create(); err != nil {
			return err
		}
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
	if w.parquet.Size()-w.out.written() >= w.lake.cfg.rowGroup {
		return w.parquet.Flush()
	}
	return nil
}

// written is how many bytes of the file are out of memory.
func (w *dataWriter) written() int64 {
	if w.out == nil {
		return 0
	}
	return w.out.written()
}

// abandon removes the file.
func (w *dataWriter) abandon() {
	w.release()
	if w.out != nil {
		w.out.abandon()
	}
}

// release hands the columns' values on, without what they point to. No row can be added any more.
func (w *dataWriter) release() {
	if w.buffers == nil {
		return
	}
	for i := range w.columns {
		values := w.columns[i].values
		w.columns[i].values = nil
		clear(values[:cap(values)])
		(*w.buffers)[i] = values[:0]
	}
	valueBuffers.Put(w.buffers)
	w.buffers = nil
}

// finish makes the file durable and returns its manifest entry, nil when no row was added. The file is gone if that fails.
func (w *dataWriter) finish(content iceberg.ManifestEntryContent, spec iceberg.PartitionSpec, partition []any, equality []int) (iceberg.DataFile, error) {
	if w.rows == 0 {
		w.release()
		return nil, nil
	}
	err := w.flush()
	w.release()
	if err == nil {
		err = w.parquet.Flush()
	}
	if err == nil {
		w.sums.hold()
		err = w.parquet.Close()
	}
	if err == nil {
		err = w.sums.finish()
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
	var offsets []int64
	groups := w.parquet.File().Metadata().RowGroups
	for i := range w.columns {
		c := &w.columns[i]
		var have bounds
		for _, g := range groups {
			chunk := &g.Columns[i].MetaData
			sizes[c.statisticsID()] += chunk.TotalCompressedSize
			if i == 0 {
				start := chunk.DataPageOffset
				if d := chunk.DictionaryPageOffset; d > 0 {
					start = min(start, d)
				}
				offsets = append(offsets, start)
			}
			if c.Type == plan.Strings {
				continue // its statistics are those of the elements, which nothing filters by
			}
			counts[c.id] += chunk.NumValues
			nulls[c.id] += chunk.Statistics.NullCount
			if c.filtered() {
				have.widen(c.Type, chunk.Statistics.MinValue, chunk.Statistics.MaxValue)
			}
		}
		if have.known {
			lower[c.id] = have.lower(c.Type)
			if b, ok := have.upper(c.Type); ok {
				upper[c.id] = b
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
