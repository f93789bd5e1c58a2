package test

import (
	"bytes"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// auditEvery is after how many kills the ledger is looked at: a run that fails then says between which kills something went wrong.
const auditEvery = 10

// TestKill kills a loaded demo at random moments, MILLRACE_KILLS times (20 by default), half of them with table topics, and half with a data
// version that was started a moment before the first kill and reads the lake, then the log. After every tenth
// kill, and at the end, it lets the demo come to rest and looks whether the ledger balances: every item that the simulator sent is in the
// raw lake, as often as it was sent, every log record once, every row once and the same in lake, index and topics, and no quiz is
// without course and role.
func TestKill(t *testing.T) {
	t.Parallel()
	for name, topics := range map[string]bool{"index": false, "topics": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKiller(t, filepath.Join(t.TempDir(), "data"))
			k.topics = topics
			if !topics {
				k.startVersion()
			}
			rows := k.run((k.kills+1)/2, nil)
			// On a busy machine the lives were too short for a quiz to be graded.
			for more := 0; slices.Contains(slices.Collect(maps.Values(rows)), 0) && more < 20; more++ {
				rows = k.audit()
			}
			for table, n := range rows {
				require.Positive(t, n, table)
			}
		})
	}
}

// killer starts demos on one data directory and kills them.
type killer struct {
	t       *testing.T
	kills   int
	moments *rand.Rand
	data    string
	args    []string // where its servers are
	topics  bool
	seeded  int // data versions that were started
}

func newKiller(t *testing.T, data string, args ...string) *killer {
	t.Helper()
	k := &killer{t: t, kills: 20, data: data, args: args}
	if s := os.Getenv("MILLRACE_KILLS"); s != "" {
		var err error
		k.kills, err = strconv.Atoi(s)
		require.NoError(t, err, "MILLRACE_KILLS")
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("MILLRACE_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err, "MILLRACE_SEED")
	}
	t.Logf("the same moments again: MILLRACE_SEED=%d MILLRACE_KILLS=%d go test -count=1 -timeout 4h -v -run '^%s$' ./test",
		seed, k.kills, strings.ReplaceAll(t.Name(), "/", "$/^"))
	k.moments = rand.New(rand.NewPCG(seed, 0))
	return k
}

// run does rounds, and audits now and then and at the end. It returns how many rows the tables have.
func (k *killer) run(rounds int, fault func() (end func())) (rows map[string]int64) {
	k.t.Helper()
	for n := range rounds {
		k.round(n, fault)
		if n+1 == rounds || (n+1)%auditEvery == 0 {
			k.t.Logf("after kill %d of %d", n+1, rounds)
			rows = k.audit()
		}
	}
	return rows
}

func (k *killer) demo(args ...string) (*exec.Cmd, *bytes.Buffer) {
	all := append([]string{"demo", "--data-dir", k.data, "--listen", "127.0.0.1:0", "--rate", "1500", "--flush", "500ms"}, k.args...)
	if k.topics {
		all = append(all, "--table-topics")
	}
	cmd := exec.Command(millrace, append(all, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	return cmd, &stderr
}

// startVersion starts a data version that reads the lake, and kills the demo at once.
func (k *killer) startVersion() {
	k.t.Helper()
	k.audit() // there is something in the lake
	cmd, stderr := k.demo()
	require.NoError(k.t, cmd.Start())
	require.Eventually(k.t, func() bool { // it takes a moment until the demo listens
		return exec.Command(millrace, "app", "start", "ingest-etl-edgenuity-lms-job", "--seed", "--data-dir", k.data).Run() == nil
	}, time.Minute, 50*time.Millisecond, "%s", stderr)
	require.NoError(k.t, cmd.Process.Kill())
	var exit *exec.ExitError
	require.ErrorAs(k.t, cmd.Wait(), &exit)
	k.seeded++
}

// round starts a demo and kills it at any moment: also before everything has started, and in the middle of a recovery. A fault begins
// at another moment and lasts until the function that it returns is called; with one, the demo may also end by itself. The moments are the
// point, so it waits for time and not for a signal.
func (k *killer) round(n int, fault func() (end func())) {
	k.t.Helper()
	cmd, stderr := k.demo()
	require.NoError(k.t, cmd.Start())
	life := 50*time.Millisecond + time.Duration(k.moments.Int64N(int64(2500*time.Millisecond)))
	began := time.Now()
	if fault != nil {
		<-time.After(time.Duration(k.moments.Int64N(int64(life))))
		defer fault()()
	}
	<-time.After(life - time.Since(began))
	if err := cmd.Process.Kill(); fault == nil {
		require.NoError(k.t, err)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	require.ErrorAs(k.t, err, &exit, "run %d: %s", n, stderr)
	if fault == nil {
		require.Equal(k.t, -1, exit.ExitCode(), "run %d ended by itself: %s", n, stderr)
	}
	require.NotContains(k.t, stderr.String(), "panic:", "run %d", n)
}

// audit lets the demo come to rest, checks its ledger, and returns how many rows its tables have.
func (k *killer) audit() map[string]int64 {
	t := k.t
	t.Helper()
	cmd, stderr := k.demo("--for", "2s", "-o", "json")
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
	require.Equal(t, k.seeded, strings.Count(string(out), ": quiz_submission: records = what the simulator's items make"), "%s", out)

	// Once more from what is stored, by a process that sent nothing.
	said, err := exec.Command(millrace, append([]string{"check", "--data-dir", k.data}, k.args...)...).CombinedOutput()
	require.NoError(t, err, "%s", said)

	rows, err := exec.Command(millrace, "rows", "quiz_submission", "--data-dir", k.data).Output()
	require.NoError(t, err)
	graded := slices.Collect(strings.Lines(string(rows)))
	require.Len(t, graded, int(ledger.Rows["quiz_submission"]))
	for _, line := range graded {
		var row struct{ CourseID, Role *string }
		require.NoError(t, json.Unmarshal([]byte(line), &row), line)
		require.NotNil(t, row.CourseID, line)
		require.NotNil(t, row.Role, line)
	}
	return ledger.Rows
}
