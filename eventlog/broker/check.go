package broker

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Segment files, <base offset>.dat, are Kafka record batches one after the other:
//
//	0          8        12       16   17      21
//	┌──────────┬────────┬────────┬────┬───────┬──────────────────┐
//	│ offset 8 │ len 4  │ epoch 4│ 2  │ crc 4 │ attributes … records
//	└──────────┴────────┴────────┴────┴───────┴──────────────────┘
//	           len counts the bytes after it; crc is CRC-32C of the bytes after it; all big-endian
//
// Beside each lies <base offset>.idx with 15 bytes a batch, written after the batch:
//
//	version 1 │ low byte of the CRC-32C of what follows │ epoch 4 │ 8, which loading makes anew │ 1 in a transaction; little-endian
const (
	batchPrefix  = 12
	batchEpoch   = 12
	batchCRC     = 17
	batchSummed  = 21 // from here on the checksum counts
	batchDelta   = 23 // 4 bytes: offset of the batch's last record, less its first
	batchFlags   = 21 // 2 bytes
	batchHeader  = 61 // what a batch has at least
	indexEntry   = 15
	maxBatchSize = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// check refuses a directory whose acknowledged records cannot all be read.
//
// The broker itself cuts a segment at the first batch that is not whole, which is right for the end of the file that a
// killed process was writing to and would silently lose everything behind a damaged place anywhere else.
func check(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read the embedded log's directory: %w", err)
	}
	has := make(map[string]bool)
	foreign := ""
	for _, e := range entries {
		has[e.Name()] = true
		if e.Name() != lockFile && !strings.HasSuffix(e.Name(), ".tmp") {
			foreign = e.Name()
		}
	}
	switch {
	case !has["meta.json"] && foreign != "":
		return fmt.Errorf("%s holds %s but no meta.json: it is not a directory of the embedded log, or a damaged one; choose another, or restore it from a backup", dir, foreign)
	case has["partitions"] && !has["topics.json"]:
		return fmt.Errorf("embedded log in %s is damaged: topics.json is missing; restore the directory from a backup", dir)
	}
	partitions, err := os.ReadDir(filepath.Join(dir, "partitions"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the embedded log's directory: %w", err)
	}
	for _, p := range partitions {
		if err := checkPartition(filepath.Join(dir, "partitions", p.Name())); err != nil {
			return err
		}
	}
	return nil
}

func checkPartition(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read the embedded log's directory: %w", err)
	}
	var bases []int64
	indexEntries := make(map[int64]int64)
	for _, f := range files {
		name, kind, _ := strings.Cut(f.Name(), ".")
		base, err := strconv.ParseInt(name, 10, 64)
		if err != nil {
			continue
		}
		switch kind {
		case "dat":
			bases = append(bases, base)
		case "idx":
			info, err := f.Info()
			if err != nil {
				return fmt.Errorf("read the embedded log's directory: %w", err)
			}
			indexEntries[base] = info.Size() / indexEntry
		}
	}
	slices.Sort(bases)
	for base, n := range indexEntries {
		_, found := slices.BinarySearch(bases, base)
		switch {
		case found || n == 0:
		case len(bases) > 0 && base < bases[0]: // deleted records go file by file, the index last: the process was killed in between
			if err := os.Remove(filepath.Join(dir, strconv.FormatInt(base, 10)+".idx")); err != nil {
				return fmt.Errorf("finish deleting records of the embedded log: %w", err)
			}
			delete(indexEntries, base)
		default:
			return fmt.Errorf("%s of the embedded log is damaged: file %d.dat is missing in %s; restore the directory from a backup", partitionName(dir), base, dir)
		}
	}
	for i, base := range bases {
		path := filepath.Join(dir, strconv.FormatInt(base, 10)+".dat")
		if err := checkSegment(path, base, indexEntries[base], i == len(bases)-1); err != nil {
			return err
		}
	}
	return nil
}

// partitionName turns the directory name ingest-prime-2 into "partition 2 of ingest-prime".
func partitionName(dir string) string {
	name := filepath.Base(dir)
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return name
	}
	topic, err := url.PathUnescape(name[:i])
	if err != nil {
		topic = name[:i]
	}
	return "partition " + name[i+1:] + " of " + topic
}

// checkSegment reads a segment through. Only the last segment may end in a batch that is not whole, and only when that
// batch has no index entry: it was being written when the process or the machine stopped. Entries that are missing are made of
// the batches: the broker would take the entry of the next batch for the first one's that has none, and show records of a transaction that was not
// committed.
func checkSegment(path string, base, indexEntries int64, last bool) error {
	missing, err := missingEntries(path, base, indexEntries, last)
	if err != nil || len(missing) == 0 {
		return err
	}
	name := strings.TrimSuffix(path, ".dat") + ".idx"
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("complete an index of the embedded log: %w", err)
	}
	_, err = f.WriteAt(missing, indexEntries*indexEntry) // a part of an entry may be there
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("complete %s of the embedded log: %w", name, err)
	}
	return nil
}

// entryOf is the index entry of a batch that begins with header.
func entryOf(header []byte) []byte {
	const version, transactional, control = 1, 0x10, 0x20
	entry := make([]byte, indexEntry)
	entry[0] = version
	binary.LittleEndian.PutUint32(entry[2:], binary.BigEndian.Uint32(header[batchEpoch:]))
	if flags := binary.BigEndian.Uint16(header[batchFlags:]); flags&transactional != 0 && flags&control == 0 {
		entry[14] = 1
	}
	entry[1] = byte(crc32.Checksum(entry[2:], castagnoli))
	return entry
}

// missingEntries checks a segment, and returns the entries that its index lacks.
func missingEntries(path string, base, indexEntries int64, last bool) (missing []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the embedded log: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the embedded log: %w", err)
	}
	var (
		in      = bufio.NewReaderSize(f, 256<<10)
		header  [batchHeader]byte
		at      int64 // where the batch begins
		offset  = base
		batches int64
	)
	damaged := func(what string) error {
		return fmt.Errorf("%s of the embedded log is damaged: in %s at byte %d %s, so records from offset %d on cannot be trusted; "+
			"restore the directory from a backup, or give those records up: cut the file to %d bytes and delete the .idx file beside it",
			partitionName(filepath.Dir(path)), path, at, what, offset, at)
	}
	for ; at < info.Size(); batches++ {
		rest := info.Size() - at
		n, err := io.ReadFull(in, header[:])
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		size := batchPrefix + int64(binary.BigEndian.Uint32(header[8:]))
		torn := n < batchHeader || size > rest || allZero(header[:])
		if torn && last && batches >= indexEntries {
			return missing, nil
		}
		if torn || size < batchHeader || size > maxBatchSize {
			return nil, damaged("a batch is not whole")
		}
		crc := crc32.New(castagnoli)
		crc.Write(header[batchSummed:])
		if _, err := io.CopyN(crc, in, size-batchHeader); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		if crc.Sum32() != binary.BigEndian.Uint32(header[batchCRC:]) {
			return nil, damaged("the checksum is wrong")
		}
		if batches >= indexEntries {
			missing = append(missing, entryOf(header[:])...)
		}
		at += size
		offset = int64(binary.BigEndian.Uint64(header[:])) + int64(binary.BigEndian.Uint32(header[batchDelta:])) + 1
	}
	if batches < indexEntries {
		return nil, damaged(fmt.Sprintf("the file ends after %d batches where %d were written", batches, indexEntries))
	}
	return missing, nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
