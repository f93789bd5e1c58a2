package held_test

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/internal/held"
)

// large is what the child of the test holds, in bytes.
const large = 64 << 20

func TestMain(m *testing.M) {
	if os.Getenv("HELD_BY_CHILD") != "" {
		all := make([]byte, large)
		for i := range all {
			all[i] = 1
		}
		_, _ = os.Stdin.Read(all)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestAll(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells")
	}
	before, err := held.All(os.Getpid())
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	child := exec.Command(self)
	child.Env = append(os.Environ(), "HELD_BY_CHILD=1")
	in, err := child.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	require.Eventually(t, func() bool {
		with, err := held.All(os.Getpid())
		require.NoError(t, err)
		return with-before > large
	}, time.Minute, time.Millisecond)
	require.NoError(t, in.Close())
	require.NoError(t, child.Wait())
	_, err = held.Private(1 << 30)
	require.ErrorContains(t, err, "no such file")
}
