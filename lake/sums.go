package lake

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"strings"
)

// Parquet has checksums for its pages alone, not for their headers and the footer. So a file has its own, before the footer, where
// no reader of Parquet looks; docs/formats/lake.md draws them.
const (
	sumSuffix = ".sum.parquet" // of the names of the files that have them
	sumBlock  = 64 << 10       // bytes that a checksum is of
	sumMagic  = "MLS1"
	sumFixed  = 12 // bytes after the blocks' checksums
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sumWriter puts the checksums into a Parquet file that is written to it.
type sumWriter struct {
	out  io.Writer
	sums []byte // of the blocks that are full
	sum  uint32 // of the open one
	open int    // bytes in it
	tail *bytes.Buffer
}

func (w *sumWriter) Write(p []byte) (int, error) {
	if w.tail != nil {
		return w.tail.Write(p)
	}
	return w.write(p)
}

func (w *sumWriter) write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), sumBlock-w.open)
		w.sum = crc32.Update(w.sum, castagnoli, rest[:n])
		if w.open += n; w.open == sumBlock {
			w.seal()
		}
		rest = rest[n:]
	}
	return w.out.Write(p)
}

func (w *sumWriter) seal() {
	w.sums = binary.LittleEndian.AppendUint32(w.sums, w.sum)
	w.sum, w.open = 0, 0
}

// hold keeps what is written from now on, the footer at its end, until finish.
func (w *sumWriter) hold() { w.tail = &bytes.Buffer{} }

func (w *sumWriter) finish() error {
	tail := w.tail.Bytes()
	at := len(tail) - footerFixed - int(binary.LittleEndian.Uint32(tail[len(tail)-footerFixed:]))
	if _, err := w.write(tail[:at]); err != nil {
		return err
	}
	if w.open > 0 {
		w.seal()
	}
	sums := append([]byte(sumMagic), w.sums...)
	sums = binary.LittleEndian.AppendUint32(sums, crc32.Checksum(tail[at:], castagnoli))
	sums = binary.LittleEndian.AppendUint32(sums, uint32(len(w.sums)/4))
	sums = binary.LittleEndian.AppendUint32(sums, crc32.Checksum(sums, castagnoli))
	if _, err := w.out.Write(sums); err != nil {
		return err
	}
	_, err := w.out.Write(tail[at:])
	return err
}

// hasSums is whether the file at a location ends with checksums. Those written before there were any do not.
func hasSums(location string) bool { return strings.HasSuffix(location, sumSuffix) }

// sums are the checksums of a file's blocks.
type sums []byte

// readSums reads the checksums that f has before its footer, which begins at the given place, and checks the footer. tail are the bytes of f
// from a place on.
func (f *dataFile) readSums(tail func(from int64) ([]byte, error), footer int64) error {
	b, err := tail(footer - sumFixed)
	if err != nil {
		return err
	}
	length := int64(len(sumMagic)) + 4*int64(binary.LittleEndian.Uint32(b[4:])) + sumFixed
	if b, err = tail(footer - length); err != nil {
		return err
	}
	own, rest := b[:length-4], b[length:]
	switch s := sums(own[len(sumMagic) : length-sumFixed]); {
	case !bytes.HasPrefix(own, []byte(sumMagic)) || crc32.Checksum(own, castagnoli) != binary.LittleEndian.Uint32(b[length-4:]):
		return f.damaged("the checksums before its footer are not there as they were written")
	case crc32.Checksum(rest, castagnoli) != binary.LittleEndian.Uint32(own[length-sumFixed:]):
		return f.damaged("its footer does not have its checksum")
	default:
		f.sums, f.end = s, footer-length
	}
	if n := int64(len(f.sums) / 4); n != (f.end+sumBlock-1)/sumBlock {
		return f.damaged("it has %d checksums for %d bytes", n, f.end)
	}
	return nil
}

// wrong is the first byte of a block that does not have its checksum, of those in p, which begins at off; -1 when all have it.
func (s sums) wrong(off int64, p []byte) int64 {
	for len(p) > 0 {
		n := min(len(p), sumBlock)
		if crc32.Checksum(p[:n], castagnoli) != binary.LittleEndian.Uint32(s[off/sumBlock*4:]) {
			return off
		}
		off, p = off+sumBlock, p[n:]
	}
	return -1
}
