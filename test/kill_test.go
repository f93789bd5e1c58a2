package test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestKill kills a loaded demo at random moments, MILLRACE_KILLS times (20 by default), lets it come to rest, and looks whether the
// ledger balances: every item that the simulator sent is in the raw lake, every log record once, every row once, in lake and index,
// and no quiz is without course and role.
func TestKill(t *testing.T) {
	t.Parallel()
	kills := 20
	if s := os.Getenv("MILLRACE_KILLS"); s != "" {
		var err error
		kills, err = strconv.Atoi(s)
		require.NoError(t, err, "MILLRACE_KILLS")
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("MILLRACE_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err, "MILLRACE_SEED")
	}
	t.Logf("moments of MILLRACE_SEED=%d", seed)
	moments := rand.New(rand.NewPCG(seed, 0))
	data := filepath.Join(t.TempDir(), "data")
	demo := func(args ...string) (*exec.Cmd, *bytes.Buffer) {
		cmd := exec.Command(millrace, append([]string{"demo", "--data-dir", data, "--listen", "127.0.0.1:0", "--rate", "1500", "--flush", "500ms"}, args...)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		return cmd, &stderr
	}
	for n := range kills {
		cmd, stderr := demo()
		require.NoError(t, cmd.Start())
		// Any moment: also before everything has started, and in the middle of a recovery.
		timer := time.NewTimer(50*time.Millisecond + time.Duration(moments.Int64N(int64(2500*time.Millisecond))))
		<-timer.C
		require.NoError(t, cmd.Process.Kill())
		err := cmd.Wait()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, -1, exit.ExitCode(), "run %d ended by itself: %s", n, stderr)
	}
	cmd, stderr := demo("--for", "2s", "-o", "json")
	out, err := cmd.Output()
	require.NoError(t, err, "%s%s", out, stderr)
	var ledger struct {
		Sent, Lake, Rejects, Waiting int64
		DeadLetters                  int64 `json:"dead_letters"`
		Rows                         map[string]int64
		Balanced                     bool
	}
	require.NoError(t, json.Unmarshal(out, &ledger), "%s", out)
	t.Logf("%d sent, %d + %d in the lake, rows %v", ledger.Sent, ledger.Lake, ledger.Rejects, ledger.Rows)
	require.True(t, ledger.Balanced, "%s", out)
	require.Positive(t, ledger.Sent)
	require.Zero(t, ledger.Waiting)
	require.Zero(t, ledger.DeadLetters)
	require.Len(t, ledger.Rows, 6)
	for table, n := range ledger.Rows {
		require.Positive(t, n, table)
	}

	// Once more from what is stored, by a process that sent nothing.
	check := exec.Command(millrace, "check", "--data-dir", data)
	said, err := check.CombinedOutput()
	require.NoError(t, err, "%s", said)

	rows, err := exec.Command(millrace, "rows", "quiz_submission", "--data-dir", data).Output()
	require.NoError(t, err)
	graded := strings.Split(strings.TrimSpace(string(rows)), "\n")
	require.Len(t, graded, int(ledger.Rows["quiz_submission"]))
	for _, line := range graded {
		var row struct{ CourseID, Role *string }
		require.NoError(t, json.Unmarshal([]byte(line), &row), line)
		require.NotNil(t, row.CourseID, line)
		require.NotNil(t, row.Role, line)
	}
}
