package local

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// writtenLog is a log as a process writes it.
type writtenLog struct {
	t    *testing.T
	name string
}

func newLog(t *testing.T) writtenLog {
	t.Helper()
	return writtenLog{t, filepath.Join(t.TempDir(), "log")}
}

func (l writtenLog) say(text string) {
	f, err := os.OpenFile(l.name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(l.t, err)
	_, err = f.WriteString(text)
	require.NoError(l.t, err)
	require.NoError(l.t, f.Close())
}

func (l writtenLog) beginAnew() { require.NoError(l.t, os.Rename(l.name, l.name+".1")) }

func (l writtenLog) read(from LogStart) *LogReader {
	r, err := ReadLog(l.name, from)
	require.NoError(l.t, err)
	l.t.Cleanup(func() { _ = r.Close() }) // it was only read
	return r
}

// rest is all that a reader has now, and whether lines are missing before it.
func rest(t *testing.T, r *LogReader) (text string, lost bool) {
	t.Helper()
	for {
		line, err := r.Next()
		lost = r.Lost() || lost
		if errors.Is(err, io.EOF) {
			return text, lost
		}
		require.NoError(t, err)
		text += string(line)
	}
}

func TestLastLines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 3*maxLine)
	for _, c := range []struct {
		before, now string
		from        LogStart
		want        string
	}{
		{"", "", LogStart{Lines: 3}, ""},
		{"", "a\nb\nc\n", LogStart{}, ""},
		{"", "a\nb\nc\n", LogStart{Lines: 1}, "c\n"},
		{"", "a\nb\nc", LogStart{Lines: 2}, "b\nc"},
		{"", "a\nb\nc\n", LogStart{Lines: 9}, "a\nb\nc\n"},
		{"", "\n\n\n", LogStart{Lines: 2}, "\n\n"},
		{"a\nb\n", "c\nd\n", LogStart{Lines: 2}, "c\nd\n"},
		{"a\nb\n", "c\nd\n", LogStart{Lines: 3}, "b\nc\nd\n"},
		{"a\nb\n", "c\nd\n", LogStart{Lines: 9}, "a\nb\nc\nd\n"},
		{"a\nb\n", "", LogStart{Lines: 1}, "b\n"},
		{"a\nb\n", "c\nd\n", LogStart{Lines: 9, Bytes: 3}, "d\n"},
		{"a\nb\n", "c\nd\n", LogStart{Lines: 9, Bytes: 4}, "c\nd\n"},
		{"a\nb\n", "c\nd\n", LogStart{Lines: 9, Bytes: 7}, "b\nc\nd\n"},
		{"a\nb\n", "c\nd\n", LogStart{Lines: 9, Bytes: 8}, "a\nb\nc\nd\n"},
		{"a\n" + long + "\nb\n", long + "\nc\n", LogStart{Lines: 3}, "b\n" + long + "\nc\n"},
		{"a\n" + long + "\nb\n", long + "\nc\n", LogStart{Lines: 4}, long + "\nb\n" + long + "\nc\n"},
	} {
		l := newLog(t)
		if c.before != "" {
			l.say(c.before)
			l.beginAnew()
		}
		if c.now != "" {
			l.say(c.now)
		}
		got, lost := rest(t, l.read(c.from))
		require.Equal(t, c.want, got, "%.20q %.20q %+v", c.before, c.now, c.from)
		require.False(t, lost)
	}
}

// Who begins after a position hears what comes after it, once, wherever it is by now, or that lines are missing.
func TestPositions(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	r := l.read(LogStart{Follow: true})
	nowhere, err := r.Position()
	require.NoError(t, err)
	l.say("one\ntwo\nthr")
	got, _ := rest(t, r)
	require.Equal(t, "one\ntwo\n", got, "the third line has no end yet")
	at, err := r.Position()
	require.NoError(t, err)
	l.say("ee\n")
	after := func(position, want string, wantLost bool) {
		t.Helper()
		got, lost := rest(t, l.read(LogStart{Position: position}))
		require.Equal(t, want, got)
		require.Equal(t, wantLost, lost)
	}
	after(at, "three\n", false)
	after(nowhere, "one\ntwo\nthree\n", false)
	l.beginAnew()
	l.say("four\n")
	after(at, "three\nfour\n", false)
	l.beginAnew()
	l.say("five\n")
	after(at, "four\nfive\n", true)
	after("nonsense", "four\nfive\n", true)
	after("0-0-99", "four\nfive\n", true)
}

// The number of a file that is gone may be that of the next one: it is not taken for it.
func TestPositionsInOtherFiles(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	l.say("one\ntwo\n")
	r := l.read(LogStart{Lines: 1})
	_, err := r.Next()
	require.NoError(t, err)
	at, err := r.Position()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(l.name, []byte("1\n2\n3\n4\n5\n"), 0o600)) // the same number
	got, lost := rest(t, l.read(LogStart{Position: at}))
	require.Equal(t, "1\n2\n3\n4\n5\n", got)
	require.True(t, lost)
}

// A reader hears every line once and in order, over new beginnings of the log and of itself. When the log was begun anew
// since it looked lines may be missing, and it says so.
func TestReadersLoseNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		chance := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // it is to be the same again
		l := newLog(t)
		r := l.read(LogStart{Follow: true})
		said, heard, begun, losses := 0, 0, 0, 0
		hear := func() {
			for {
				line, err := r.Next()
				if r.Lost() {
					require.Positive(t, begun, "seed %d: lines are said to be missing", seed)
					losses++
					heard = -1
				}
				if errors.Is(err, io.EOF) {
					return
				}
				require.NoError(t, err)
				n := 0
				_, err = fmt.Sscanf(string(line), "line %d\n", &n)
				require.NoError(t, err, "seed %d: %q", seed, line)
				if heard >= 0 {
					require.Equal(t, heard+1, n, "seed %d", seed)
				}
				heard = n
			}
		}
		hearAll := func() {
			for range 4 { // at the end of each of two files it waits once for what is still said to it
				hear()
			}
		}
		for range 100 {
			switch chance.IntN(5) {
			case 0, 1:
				said++
				text := fmt.Sprintf("line %d\n", said)
				cut := chance.IntN(len(text))
				l.say(text[:cut])
				if chance.IntN(2) == 0 {
					hear()
				}
				l.say(text[cut:])
			case 2:
				if info, err := os.Stat(l.name); err == nil && info.Size() > 0 {
					l.beginAnew()
					l.say("") // its process takes the new one
					begun++
				}
			case 3:
				hearAll()
				begun = 0
			case 4:
				at, err := r.Position()
				require.NoError(t, err)
				require.NoError(t, r.Close())
				r = l.read(LogStart{Position: at, Follow: true})
			}
		}
		hearAll()
		require.Equal(t, said, max(heard, 0), "seed %d: %d losses", seed, losses)
	}
}
