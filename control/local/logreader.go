package local

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// LogReader reads the lines of a job's log, over its new beginnings, while its process appends to it. What it holds is a line, however large
// the log is and however slowly it is read. It is not safe for concurrent use.
//
//	log.1  ├──────────── before ────────────┤
//	log    ├──── now ────┤◀─ the process appends
//	        a new beginning: log becomes log.1, and what was log.1 is gone
//
// A file that has lost its name is read to its end, which no longer moves, and then the one that took it.
type LogReader struct {
	name   string
	follow bool

	f       *os.File // nil until there is one
	none    bool     // there was no log at all
	offset  int64    // in f, of unread
	unread  []byte   // in buf
	buf     []byte
	head    []byte // of f
	start   string // names the beginning of f: the end of the file before
	renamed bool   // f was seen to have lost its name, and its end was reached then
	lost    bool
}

// LogStart says where a reader begins. The zero value is at the end of the log.
type LogStart struct {
	Lines    int    // the last ones
	Bytes    int64  // of them at most; those that were said before are left out. Default: no limit
	Position string // if not empty, what comes after this one in place of the last lines

	// Follow is for a reader that is asked again later: it keeps a line back whose end is not there yet.
	Follow bool
}

// maxLine is how much of a line is one, in bytes; what is longer comes in pieces.
const maxLine = 64 << 10

// ReadLog reads a log. One that is not there yet has no lines. Close the reader after use.
func ReadLog(name string, from LogStart) (*LogReader, error) {
	r := &LogReader{name: name, follow: from.Follow}
	var err error
	if from.Position != "" {
		err = r.seek(from.Position)
	} else {
		err = r.seekLines(from.Lines, from.Bytes)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the log of a job: %w", err), r.Close())
	}
	return r, nil
}

// ReadLogAt follows a log from an offset of the file on that has its name, or will have it.
func ReadLogAt(name string, offset int64) *LogReader {
	return &LogReader{name: name, offset: offset, follow: true}
}

// Close closes the file.
func (r *LogReader) Close() error {
	if r.f == nil {
		return nil
	}
	return r.f.Close()
}

// open opens a file if it is there.
func open(name string) (*os.File, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return f, err
}

// files opens both files of the log, those that are there. A new beginning in between is seen: both would be the same.
func (r *LogReader) files() (before, now *os.File, err error) {
	for {
		if now, err = open(r.name); err != nil {
			return nil, nil, err
		}
		if before, err = open(r.name + ".1"); err != nil || before == nil || now == nil {
			return before, now, errors.Join(err, closeIf(err != nil, now))
		}
		same, err := sameFile(before, now)
		if err == nil && !same {
			return before, now, nil
		}
		if err = errors.Join(err, before.Close(), now.Close()); err != nil {
			return nil, nil, err
		}
	}
}

func closeIf(unused bool, f *os.File) error {
	if f == nil || !unused {
		return nil
	}
	return f.Close()
}

func sameFile(a, b *os.File) (bool, error) {
	was, err := a.Stat()
	if err != nil {
		return false, err
	}
	is, err := b.Stat()
	return err == nil && os.SameFile(was, is), err
}

// seekLines begins with the last lines.
func (r *LogReader) seekLines(lines int, most int64) error {
	before, now, err := r.files()
	if err != nil {
		return err
	}
	begins := false // before the file that has the name
	limited := most > 0
	if now != nil {
		var found int
		var size int64
		r.f = now
		if r.offset, found, size, err = lastLines(now, lines, most); err != nil {
			return errors.Join(err, closeIf(true, before))
		}
		lines -= found
		most -= size
		begins = r.offset == 0 && lines > 0 && (!limited || most > 0)
	}
	r.none = before == nil && now == nil
	if before == nil || now != nil && !begins {
		if before != nil && r.offset == 0 {
			if r.start, err = r.end(before); err != nil {
				return errors.Join(err, before.Close())
			}
		}
		return closeIf(true, before)
	}
	r.f, err = before, closeIf(true, now)
	if !limited {
		most = 0
	}
	if err == nil {
		r.offset, _, _, err = lastLines(before, lines, most)
	}
	return err
}

// lastLines finds where the last lines of a file begin, of which there may be fewer, and of no more bytes than most unless that is 0.
func lastLines(f *os.File, lines int, most int64) (offset int64, found int, size int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, 0, 0, err
	}
	size = info.Size()
	floor := int64(0)
	if most > 0 {
		floor = max(0, size-most)
	}
	offset = size // of the first line that was found
	buf := make([]byte, maxLine)
	for end := size; end > floor && found < lines; {
		begin := max(floor, end-int64(len(buf)))
		part := buf[:end-begin]
		if _, err := f.ReadAt(part, begin); err != nil {
			return 0, 0, 0, err
		}
		if end == size { // the end of the last line begins none
			part = part[:len(part)-1]
		}
		for found < lines {
			i := bytes.LastIndexByte(part, '\n')
			if i < 0 {
				break
			}
			offset, part = begin+int64(i)+1, part[:i]
			found++
		}
		end = begin
	}
	if found < lines && floor == 0 && size > 0 {
		return 0, found + 1, size, nil
	}
	return offset, found, size, nil
}

// beginning is the position in a log that has nothing yet.
const beginning = "0-0-0"

// Position names the place of the next line, also for a reader that begins later. It is unknown when its file is gone, or is a copy.
func (r *LogReader) Position() (string, error) {
	if r.f == nil || r.offset == 0 { // what has no content cannot be told from others
		return cmp.Or(r.start, beginning), nil
	}
	return r.place(r.f, r.offset)
}

// end is the position of a file's end.
func (r *LogReader) end(f *os.File) (string, error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return "", err
	}
	return r.place(f, info.Size())
}

// longHead is how much of a file tells it from others, in bytes: systems give the number of a file that is gone to a new one.
const longHead = 256

// place names a place of a file by what does not change: its number, and how it begins up to there.
func (r *LogReader) place(f *os.File, offset int64) (string, error) {
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	head := r.head
	if want := int(min(offset, longHead)); len(head) < want || f != r.f {
		head = make([]byte, want)
		if _, err := f.ReadAt(head, 0); err != nil {
			return "", err
		}
		if f == r.f {
			r.head = head
		}
	} else {
		head = head[:want]
	}
	number := uint64(0)
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		number = stat.Ino
	}
	hash := fnv.New64a()
	_, _ = hash.Write(head) // it never fails
	return fmt.Sprintf("%x-%x-%x", number, hash.Sum64(), offset), nil
}

// seek begins after a position. When that is unknown lines are lost, and it begins with the oldest that there is.
func (r *LogReader) seek(position string) error {
	if position == beginning {
		r.none = true
		return nil
	}
	before, now, err := r.files()
	if err != nil {
		return err
	}
	var number, hash uint64
	var offset int64
	if n, err := fmt.Sscanf(position, "%x-%x-%x", &number, &hash, &offset); n == 3 && err == nil && offset >= 0 {
		for f, other := range map[*os.File]*os.File{now: before, before: now} {
			if f == nil {
				continue
			}
			if at, err := r.place(f, offset); err == nil && at == position {
				r.f, r.offset = f, offset
				return closeIf(true, other)
			}
		}
	}
	r.lost = true
	if r.f = before; before == nil {
		r.f = now
		return nil
	}
	return closeIf(true, now)
}

// Lost reports whether lines may be missing before the next one that Next returns: the log was begun anew so often since they were said that
// the file with them is gone.
func (r *LogReader) Lost() bool {
	lost := r.lost
	r.lost = false
	return lost
}

// Next returns the next line, with its end; the bytes are good until the next call. The error is io.EOF when there is none, which may be another
// time. A line that is longer than 64 KiB comes in pieces.
func (r *LogReader) Next() ([]byte, error) {
	for {
		if i := bytes.IndexByte(r.unread, '\n'); i >= 0 {
			return r.take(i + 1), nil
		}
		if len(r.unread) >= maxLine {
			return r.take(maxLine), nil
		}
		if r.f == nil {
			if err := r.begin(); err != nil {
				return nil, err
			}
		}
		if r.buf == nil {
			r.buf = make([]byte, 2*maxLine)
		}
		has := copy(r.buf, r.unread)
		n, err := r.f.ReadAt(r.buf[has:], r.offset+int64(has))
		r.unread = r.buf[:has+n]
		if n > 0 {
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		anew, err := begunAnew(r.f, r.name)
		if err != nil {
			return nil, err
		}
		if r.follow && (!anew || !r.renamed) { // its process may still be about to take the new file
			r.renamed = anew
			return nil, io.EOF
		}
		if len(r.unread) > 0 {
			return r.take(len(r.unread)), nil
		}
		if !anew {
			return nil, io.EOF
		}
		if err := r.goOn(); err != nil {
			return nil, err
		}
	}
}

// begin begins with a log that was not there before. The error is io.EOF when it still is not.
func (r *LogReader) begin() error {
	before, now, err := r.files()
	if err != nil {
		return err
	}
	if r.f = now; r.none && before != nil { // it has been there meanwhile, and was begun anew: who knows how often
		r.lost = true
		r.f, err = before, closeIf(true, now)
	} else {
		err = closeIf(true, before)
	}
	if r.f == nil && err == nil {
		err = io.EOF
	}
	return err
}

func (r *LogReader) take(n int) []byte {
	line := r.unread[:n]
	r.offset, r.unread = r.offset+int64(n), r.unread[n:]
	return line
}

// goOn goes on with the file that was begun when this one lost its name.
func (r *LogReader) goOn() error {
	before, now, err := r.files()
	if err != nil {
		return err
	}
	next := now
	if before != nil {
		same, err := sameFile(r.f, before)
		if err != nil {
			return errors.Join(err, before.Close(), closeIf(true, now))
		}
		if same {
			err = before.Close()
		} else { // the log was begun anew twice, or more often: this one is gone, and who knows what came after it
			r.lost, next = true, before
			err = closeIf(true, now)
		}
		if err != nil {
			return err
		}
	}
	end, err := r.Position()
	if err = errors.Join(err, r.f.Close()); err != nil {
		return err
	}
	r.f, r.offset, r.unread, r.head, r.start, r.renamed = next, 0, nil, nil, end, false
	return nil
}

// begunAnew reports whether another file has the name of an open one by now.
func begunAnew(f *os.File, name string) (bool, error) {
	was, err := f.Stat()
	if err != nil {
		return false, err
	}
	is, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // about to be made
	}
	return err == nil && !os.SameFile(was, is), err
}
