package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Pebble's log is a run of chunks that do not cross blocks:
//
//	checksum 4 │ length 2 │ kind 1 │ number of the log 4 │ bytes of the log that were synced before 8 │ payload
//
// A chunk that is not whole ends the newest log: that is what a crash leaves. It is damage when a later chunk says that it had been
// synced, and commits would be lost. Pebble looks for such a chunk in later blocks only; with small commits, nothing of a job's last
// second may lie there.
const (
	logBlock  = 32 << 10
	logHeader = 19

	manifestHeader = 7
)

// checkLogs refuses a store whose newest log, or whose manifest, is damaged before its end. Pebble takes it for the end there too.
func checkLogs(fs vfs.FS, dir string) error {
	names, err := fs.List(dir)
	if err != nil {
		return nil // there is no store yet, or Pebble says what is wrong
	}
	var newest uint32
	var manifest string
	for _, name := range names {
		var n uint32
		if _, err := fmt.Sscanf(name, "%d.log", &n); err == nil && strings.HasSuffix(name, ".log") {
			newest = max(newest, n)
		}
		if m, ok := strings.CutPrefix(name, "marker.manifest."); ok {
			_, manifest, _ = strings.Cut(m, ".")
		}
	}
	if log := fmt.Sprintf("%06d.log", newest); slices.Contains(names, log) {
		b, err := readAll(fs, fs.PathJoin(dir, log))
		if err != nil {
			return err
		}
		if at, synced := logEnd(b, newest); synced > at {
			return fmt.Errorf("on-disk corruption: %s is damaged at offset %d, and %d bytes of it were synced", fs.PathJoin(dir, log), at, synced)
		}
	}
	if slices.Contains(names, manifest) {
		b, err := readAll(fs, fs.PathJoin(dir, manifest))
		if err != nil {
			return err
		}
		if at, ok := manifestEnd(b); !ok {
			return fmt.Errorf("on-disk corruption: %s is damaged at offset %d, before its end", fs.PathJoin(dir, manifest), at)
		}
	}
	return nil
}

func readAll(fs vfs.FS, name string) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	b, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// manifestEnd returns where the whole chunks of a manifest end, and whether no other follows.
func manifestEnd(b []byte) (end int, ok bool) {
	for end < len(b) {
		rest := logRest(b, end)
		if len(rest) < manifestHeader && len(bytes.Trim(rest, "\x00")) == 0 {
			end += len(rest) // no chunk fits
			continue
		}
		n, ok := manifestChunk(rest)
		if !ok {
			break
		}
		end += n
	}
	for at := end + 1; at < len(b); at++ {
		if _, ok := manifestChunk(logRest(b, at)); ok {
			return end, false
		}
	}
	return end, true
}

// manifestChunk reads the header of the chunk that b begins with, which has neither a number nor what was synced, and reports
// whether there is a whole one.
func manifestChunk(b []byte) (size int, ok bool) {
	if len(b) < manifestHeader || b[6] < 1 || b[6] > 4 {
		return 0, false
	}
	size = manifestHeader + int(binary.LittleEndian.Uint16(b[4:]))
	return size, size <= len(b) && maskedSum(b[6:size]) == binary.LittleEndian.Uint32(b)
}

// maskedSum is a checksum as Pebble writes it.
func maskedSum(b []byte) uint32 {
	sum := crc32.Checksum(b, castagnoli)
	return (sum>>15 | sum<<17) + 0xa282ead8
}

// logEnd returns where the whole chunks of a log end, and how many bytes a chunk after them, or the last of them, says were synced.
func logEnd(b []byte, log uint32) (end, synced int) {
	for end < len(b) {
		rest := logRest(b, end)
		if len(rest) < logHeader && len(bytes.Trim(rest, "\x00")) == 0 {
			end += len(rest) // no chunk fits
			continue
		}
		n, s, ok := logChunk(rest, log)
		if !ok {
			break
		}
		end, synced = end+n, s
	}
	for at := end + 1; at < len(b); at++ {
		if _, s, ok := logChunk(logRest(b, at), log); ok {
			synced = max(synced, s)
		}
	}
	return end, synced
}

// logRest returns what is left at an offset of the block there.
func logRest(b []byte, at int) []byte { return b[at:min(len(b), (at/logBlock+1)*logBlock)] }

// logChunk reads the header of the chunk that b begins with, and reports whether there is a whole one.
func logChunk(b []byte, log uint32) (size, synced int, ok bool) {
	if len(b) < logHeader || b[6] < 9 || b[6] > 12 || binary.LittleEndian.Uint32(b[7:]) != log {
		return 0, 0, false
	}
	size = logHeader + int(binary.LittleEndian.Uint16(b[4:]))
	if size > len(b) {
		return 0, 0, false
	}
	return size, int(binary.LittleEndian.Uint64(b[11:])), maskedSum(b[6:size]) == binary.LittleEndian.Uint32(b)
}
