package lake

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/parquet-go/parquet-go"
)

const (
	footerFixed = 8        // bytes after Parquet's footer: its length and PAR1
	tailBytes   = 64 << 10 // of a file that are read first: they have the footer of most
)

// damage is why a file is not read. Files are never changed, so one of a backup is as good.
type damage struct{ path, why string }

func (d *damage) Error() string {
	return fmt.Sprintf("file %s is damaged: %s: restore it from a backup", d.path, d.why)
}

// dataFile is a data or delete file that is open for reading. What is decoded of it has been in memory, and was checked there, before:
// so a flipped bit is found before anybody has seen a row, and a file that is not what it was cannot change between the two.
type dataFile struct {
	path    string // for people
	file    iceio.File
	end     int64 // of its pages and their index
	sums    sums  // of what is before end; nil for a file of before, of which only pages have checksums
	parquet *parquet.File
}

// openData opens a file that the manifests describe.
func (l *Lake) openData(d iceberg.DataFile) (*dataFile, error) {
	return l.openFile(d.FilePath(), d.FileSizeBytes(), d.Count())
}

func (l *Lake) openFile(location string, size, rows int64) (*dataFile, error) {
	file, err := l.fsys.Open(location)
	if err != nil {
		return nil, err
	}
	f := &dataFile{path: l.fsys.readable(location), file: file}
	if err := f.open(hasSums(location), size, rows); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return f, nil
}

func (f *dataFile) close() error { return f.file.Close() }

func (f *dataFile) damaged(why string, args ...any) error {
	return &damage{f.path, fmt.Sprintf(why, args...)}
}

// recovered makes an error of a panic: decoders have them for bytes that no writer has written.
func (f *dataFile) recovered(err *error) {
	if p := recover(); p != nil {
		*err = f.damaged("its decoder panics: %s", strings.Join(strings.Fields(fmt.Sprint(p)), " "))
	}
}

func (f *dataFile) open(summed bool, size, rows int64) (err error) {
	defer f.recovered(&err)
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() != size {
		return f.damaged("it has %d bytes and the manifest says %d", info.Size(), size)
	}
	read := span{off: max(0, size-tailBytes)}
	tail := func(from int64) ([]byte, error) {
		if from < 0 {
			return nil, f.damaged("its end speaks of more bytes than it has")
		}
		if read.bytes == nil || from < read.off {
			read.off = min(from, read.off)
			read.bytes = make([]byte, size-read.off)
			if n, err := f.file.ReadAt(read.bytes, read.off); n < len(read.bytes) {
				return nil, fmt.Errorf("read %s: %w", f.path, err)
			}
		}
		return read.bytes[from-read.off:], nil
	}
	last, err := tail(size - footerFixed)
	if err != nil {
		return err
	}
	f.end = size - footerFixed - int64(binary.LittleEndian.Uint32(last))
	if summed {
		err = f.readSums(tail, f.end)
	} else {
		_, err = tail(f.end)
	}
	if err != nil {
		return err
	}
	// Bounds and the page index are not read: what is skipped, manifests say, and each row is looked at.
	f.parquet, err = parquet.OpenFile(&read, size, parquet.SkipMagicBytes(true), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return f.damaged("its footer cannot be read: %v", err)
	}
	n := int64(0)
	for _, g := range f.parquet.RowGroups() {
		n += g.NumRows()
	}
	if n != rows || f.parquet.NumRows() != rows {
		return f.damaged("it has %d rows and the manifest says %d", n, rows)
	}
	return nil
}

// span is a part of a file, in memory once it was loaded.
type span struct {
	off, length int64
	bytes       []byte
}

func (s *span) ReadAt(p []byte, off int64) (int, error) {
	if off < s.off || off-s.off > int64(len(s.bytes)) {
		return 0, fmt.Errorf("byte %d is outside of what it should be in", off)
	}
	n := copy(p, s.bytes[off-s.off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// chunk is where the pages of a column in a row group are.
func (f *dataFile) chunk(group, column int) span {
	m := &f.parquet.Metadata().RowGroups[group].Columns[column].MetaData
	s := span{off: m.DataPageOffset, length: m.TotalCompressedSize}
	if m.DictionaryPageOffset > 0 {
		s.off = m.DictionaryPageOffset
	}
	return s
}

// index is where the page index is, which only other programs read.
func (f *dataFile) index() *span {
	from := int64(0)
	for group := range f.parquet.RowGroups() {
		for column := range f.parquet.Metadata().RowGroups[group].Columns {
			s := f.chunk(group, column)
			from = max(from, s.off+s.length)
		}
	}
	return &span{off: from, length: f.end - from}
}

// load reads spans, neighbours at once, and checks them.
func (f *dataFile) load(spans []*span) error {
	for _, s := range spans {
		if s.off < 0 || s.length < 0 || s.length > f.end || s.off > f.end-s.length {
			return f.damaged("its footer names bytes that it does not have")
		}
	}
	slices.SortFunc(spans, func(a, b *span) int { return cmp.Compare(a.off, b.off) })
	for len(spans) > 0 {
		from, to := f.blocks(spans[0])
		n := 1
		for ; n < len(spans); n++ {
			start, end := f.blocks(spans[n])
			if start > to {
				break
			}
			to = max(to, end)
		}
		b := make([]byte, to-from)
		if n, err := f.file.ReadAt(b, from); n < len(b) {
			return fmt.Errorf("read %s: %w", f.path, err)
		}
		if f.sums != nil {
			if at := f.sums.wrong(from, b); at >= 0 {
				return f.damaged("bytes %d to %d do not have their checksum", at, min(at+sumBlock, f.end)-1)
			}
		}
		for _, s := range spans[:n] {
			s.bytes = b[s.off-from:][:s.length:s.length]
		}
		spans = spans[n:]
	}
	return nil
}

// blocks is what is read for a span: whole blocks, as they have the checksums.
func (f *dataFile) blocks(s *span) (from, to int64) {
	from, to = s.off, s.off+s.length
	if f.sums == nil {
		return from, to
	}
	return from / sumBlock * sumBlock, min((to+sumBlock-1)/sumBlock*sumBlock, f.end)
}
