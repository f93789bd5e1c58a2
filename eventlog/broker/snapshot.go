package broker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Part is the beginning of a file: what comes after its Bytes was written later.
type Part struct {
	Name  string // relative to the directory
	Bytes int64
}

// errMoved says that files of the log came or went while they were linked.
var errMoved = errors.New("topics were made or deleted, or records deleted, meanwhile")

// Snapshot makes the directory to, which it removes first, with hard links to the files of a log that a broker is writing to, and lists how much of
// each is of one moment. A directory with these parts is what a broker that was killed at that moment leaves: Open takes it, and every record that was
// acknowledged before Snapshot was called is there. The broker does not stand still.
//
// Files are only appended to, replaced by a rename, or removed, so a link and a length are a copy. Offsets of groups come before records, and ids of
// producers after them: they are of records that are there, and known. Of a segment there is what its index has: the broker writes the entry after the
// batch, and answers after both; with a batch more than entries it would take the next entry for that batch's.
func Snapshot(dir, to string) (parts []Part, err error) {
	for range 10 {
		if parts, err = snapshot(dir, to); !errors.Is(err, errMoved) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("take the files of the embedded log in %s: %w", dir, err)
	}
	return parts, nil
}

// last are files that come after the segments.
var last = []string{"pids.log", "topics.json"}

func snapshot(dir, to string) (parts []Part, err error) {
	if err := errors.Join(os.RemoveAll(to), os.MkdirAll(filepath.Join(to, "partitions"), 0o755)); err != nil {
		return nil, err
	}
	take := func(name string) error {
		err := os.Link(filepath.Join(dir, name), filepath.Join(to, name))
		if errors.Is(err, fs.ErrNotExist) {
			return errMoved
		}
		if err != nil {
			return err
		}
		info, err := os.Stat(filepath.Join(to, name))
		if err == nil {
			parts = append(parts, Part{name, info.Size()})
		}
		return err
	}
	topics, err := os.ReadFile(filepath.Join(dir, "topics.json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	own, err := files(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range own {
		if name == lockFile || strings.HasSuffix(name, ".tmp") || slices.Contains(last, name) {
			continue
		}
		if err := take(name); err != nil {
			return nil, err
		}
	}
	partitions, err := os.ReadDir(filepath.Join(dir, "partitions"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, p := range partitions {
		folder := filepath.Join("partitions", p.Name())
		if err := os.Mkdir(filepath.Join(to, folder), 0o755); err != nil {
			return nil, err
		}
		names, err := files(filepath.Join(dir, folder))
		if err != nil {
			return nil, err
		}
		slices.SortStableFunc(names, func(a, b string) int { return segmentsLast(a) - segmentsLast(b) })
		first := len(parts)
		for _, name := range names {
			if strings.HasSuffix(name, ".tmp") {
				continue
			}
			if err := take(filepath.Join(folder, name)); err != nil {
				return nil, err
			}
		}
		if err := level(to, parts[first:]); err != nil {
			return nil, err
		}
	}
	for _, name := range last {
		if !slices.Contains(own, name) {
			continue
		}
		if err := take(name); err != nil {
			return nil, err
		}
	}
	// Of a topic that was made or deleted meanwhile there may be some partitions and not others.
	now, err := os.ReadFile(filepath.Join(dir, "topics.json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if !bytes.Equal(topics, now) {
		return nil, errMoved
	}
	return parts, nil
}

// level cuts segments of a partition to the batches that their indexes have: one that was written to meanwhile has more.
func level(dir string, parts []Part) error {
	entries := map[string]int64{}
	for i, p := range parts {
		base, kind, _ := strings.Cut(p.Name, ".")
		switch kind {
		case "idx":
			entries[base] = p.Bytes / indexEntry
			parts[i].Bytes = entries[base] * indexEntry
		case "dat":
			var err error
			if parts[i].Bytes, err = batchesEnd(filepath.Join(dir, p.Name), entries[base]); err != nil {
				return err
			}
		}
	}
	return nil
}

// batchesEnd is where in a segment its first n batches end.
func batchesEnd(path string, n int64) (at int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var prefix [batchPrefix]byte
	for range n {
		if _, err := f.ReadAt(prefix[:], at); err != nil {
			return 0, fmt.Errorf("%s is damaged at byte %d: a batch is not whole: %w", path, at, err)
		}
		at += batchPrefix + int64(binary.BigEndian.Uint32(prefix[8:]))
	}
	return at, nil
}

// segmentsLast orders a segment after its index: what has an entry is then there.
func segmentsLast(name string) int {
	if strings.HasSuffix(name, ".dat") {
		return 1
	}
	return 0
}

// files are the names of the files of a directory, without those of its directories.
func files(dir string) (names []string, err error) {
	all, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errMoved
	}
	for _, e := range all {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}
