package lake

import (
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	spec "github.com/parquet-go/parquet-go/format"
)

// checkPages checks the pages of a column in a row group of a file without checksums of its own: the checksum of each page, and that the headers
// of all say together what the footer says. The decoder does less: it believes a header that has no checksum, and whatever a header
// says of sizes.
func checkPages(of *spec.RowGroup, column int, pages []byte) error {
	m := &of.Columns[column].MetaData
	if m.Codec != spec.Zstd {
		return fmt.Errorf("its compression is %s", m.Codec)
	}
	var values, rows, nulls int64
	size := int64(len(pages))
	for first := true; len(pages) > 0; first = false {
		var protocol thrift.CompactProtocol
		reader := protocol.NewReaderFromBytes(pages)
		var h spec.PageHeader
		if err := thrift.NewDecoder(reader).Decode(&h); err != nil {
			return err
		}
		pages = pages[reader.BytesRead():]
		if h.CompressedPageSize < 0 || int(h.CompressedPageSize) > len(pages) || h.UncompressedPageSize < 0 {
			return errors.New("a page does not end where the next one begins")
		}
		if crc32.ChecksumIEEE(pages[:h.CompressedPageSize]) != uint32(h.CRC) {
			return errors.New("a page does not have its checksum")
		}
		pages = pages[h.CompressedPageSize:]
		size += int64(h.UncompressedPageSize) - int64(h.CompressedPageSize)
		switch {
		case h.Type == spec.DictionaryPage && h.DictionaryPageHeader.Valid && first:
			if h.DictionaryPageHeader.V.Encoding != spec.Plain || h.DictionaryPageHeader.V.NumValues < 0 || int64(h.DictionaryPageHeader.V.NumValues) > m.NumValues {
				return errors.New("its dictionary is none")
			}
		case h.Type == spec.DataPageV2 && h.DataPageHeaderV2.Valid:
			d := &h.DataPageHeaderV2.V
			if d.NumValues < 0 || d.NumNulls < 0 || d.NumRows < 0 || !slices.Contains(m.Encoding, d.Encoding) || !d.IsCompressed.V {
				return errors.New("a page is not as the footer says")
			}
			values, rows, nulls = values+int64(d.NumValues), rows+int64(d.NumRows), nulls+int64(d.NumNulls)
		default:
			return errors.New("a page is of another kind")
		}
	}
	if values != m.NumValues || rows != of.NumRows || nulls != m.Statistics.NullCount || size != m.TotalUncompressedSize {
		return fmt.Errorf("it has %d values in %d rows, with %d nulls and %d bytes, and the footer says %d in %d, with %d and %d", values, rows, nulls, size,
			m.NumValues, of.NumRows, m.Statistics.NullCount, m.TotalUncompressedSize)
	}
	return nil
}
