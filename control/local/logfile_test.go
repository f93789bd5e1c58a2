package local

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type safeBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *safeBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

// Who follows a log has every line of it once, also over its new beginnings.
func TestFollow(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "log")
	say := func(text string) {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		require.NoError(t, err)
		_, err = f.WriteString(text)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	ctx, cancel := context.WithCancel(t.Context())
	var out safeBuffer
	done := make(chan error, 1)
	go func() { done <- Follow(ctx, ReadLogAt(name, 4), &out) }() // it is not there yet
	heard := func(want string) {
		require.Eventually(t, func() bool { return out.text() == want }, time.Minute, time.Millisecond, "%q", want)
	}
	say("old\none\n")
	heard("one\n")
	require.NoError(t, os.Rename(name, name+".1"))
	say("two\n")
	heard("one\ntwo\n")
	say("three\n")
	heard("one\ntwo\nthree\n")
	say("four\n")
	require.NoError(t, os.Rename(name, name+".1"))
	say("five\n")
	cancel()
	require.NoError(t, <-done)
	require.Equal(t, "one\ntwo\nthree\nfour\nfive\n", out.text())
}

func TestRotation(t *testing.T) { //nolint:paralleltest // it is about the process's own output
	name := filepath.Join(t.TempDir(), "log")
	out, err := os.OpenFile("/dev/null", os.O_WRONLY, 0)
	require.NoError(t, err)
	fd := int(out.Fd())
	l := &processLog{name: name, fds: []int{fd}}
	require.NoError(t, l.attach())
	for _, text := range []string{strings.Repeat("a", 10), strings.Repeat("b", 10), "c"} {
		_, err := out.WriteString(text)
		require.NoError(t, err)
		require.NoError(t, l.rotate(10))
	}
	is := func(name, want string) {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, want, string(b))
	}
	is(name, "c")
	is(name+".1", strings.Repeat("b", 10))
	require.NoError(t, out.Close())
}
