package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/sim"
)

// loaded starts a demo that sends, and waits until it can be asked.
func (k *killer) loaded() *exec.Cmd {
	k.t.Helper()
	cmd, stderr := k.demo()
	require.NoError(k.t, cmd.Start())
	k.t.Cleanup(func() { _ = cmd.Process.Kill() }) // it may have ended
	require.Eventually(k.t, func() bool {          // it says so to nobody
		return exec.Command(millrace, "ready", "--data-dir", k.data).Run() == nil
	}, time.Minute, 20*time.Millisecond, "%s", stderr)
	return cmd
}

// kill9 kills a demo.
func (k *killer) kill9(cmd *exec.Cmd) {
	k.t.Helper()
	require.NoError(k.t, cmd.Process.Kill())
	var exit *exec.ExitError
	require.ErrorAs(k.t, cmd.Wait(), &exit)
}

// acknowledged is how many items the demo's simulator knows to be acknowledged.
func (k *killer) acknowledged() int64 {
	k.t.Helper()
	state, err := sim.ReadState(filepath.Join(k.data, "demo.json"))
	require.NoError(k.t, err)
	return state.Ledger.Items
}

// TestBackupUnderLoad backs a loaded demo up, which has table topics, and a data version that reads the lake and then the log, at several moments, kills
// it, and restores each. What was acknowledged before a backup began is in it, and the ledger of what was restored balances after it has gone on: every
// item is in the raw lake as often as it was sent, every row once, and the same in lake, index and topics.
func TestBackupUnderLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := newKiller(t, filepath.Join(dir, "data"))
	k.topics = true
	k.startVersion()
	cmd := k.loaded()
	const backups = 2
	var before [backups]int64
	for n := range backups {
		require.Eventually(t, func() bool { return n == 0 || k.acknowledged() > before[n-1]+3000 }, time.Minute, 20*time.Millisecond)
		before[n] = k.acknowledged()
		said, err := exec.Command(millrace, "backup", filepath.Join(dir, fmt.Sprint("kept", n)), "--data-dir", k.data).CombinedOutput()
		require.NoError(t, err, "%s", said)
		t.Logf("%s", said)
	}
	k.kill9(cmd)
	for n := range backups {
		r := *k
		r.data = filepath.Join(dir, fmt.Sprint("again", n))
		kept := filepath.Join(dir, fmt.Sprint("kept", n))
		for _, args := range [][]string{{"backup", "verify", kept}, {"restore", kept, "--data-dir", r.data}} {
			said, err := exec.Command(millrace, args...).CombinedOutput()
			require.NoError(t, err, "%s", said)
		}
		require.GreaterOrEqual(t, r.acknowledged(), before[n])
		r.audit()
	}
	k.audit()
}

// TestKilledBackup kills a loaded demo while it makes a backup, at random moments. What is left is no backup, unless it was whole, and the next start
// leaves nothing of it in the data directory.
func TestKilledBackup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := newKiller(t, filepath.Join(dir, "data"))
	k.audit()
	staging := filepath.Join(k.data, "backing-up")
	for n := range max(k.kills/4, 2) {
		cmd := k.loaded()
		require.NoDirExists(t, staging)
		kept := filepath.Join(dir, fmt.Sprint("kept", n))
		backup := exec.Command(millrace, "backup", kept, "--data-dir", k.data)
		require.NoError(t, backup.Start())
		<-time.After(time.Duration(k.moments.Int64N(int64(700 * time.Millisecond)))) // the moments are the point
		k.kill9(cmd)
		whole := backup.Wait() == nil // it may have come so late that nothing used the directory
		said, err := exec.Command(millrace, "backup", "verify", kept).CombinedOutput()
		if whole {
			require.NoError(t, err, "%s", said)
		} else if err != nil {
			require.Contains(t, string(said), "is no backup")
		}
	}
	k.audit()
	require.NoDirExists(t, staging)
}

// TestBackupThatFails has a backup find its disk full, and another one be interrupted. Nothing is left of either, nor does anything stand still for them.
func TestBackupThatFails(t *testing.T) {
	t.Parallel()
	dir, disk := t.TempDir(), t.TempDir()
	k := newKiller(t, filepath.Join(dir, "data"))
	k.audit()
	cmd := k.loaded()
	backup := func(to string) *exec.Cmd { return exec.Command(millrace, "backup", to, "--data-dir", k.data) }
	nothingLeft := func(folder string) {
		require.NoDirExists(t, folder)
		require.NoDirExists(t, filepath.Join(k.data, "backing-up"))
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=2m"); err == nil { // only root can
		defer func() { require.NoError(t, syscall.Unmount(disk, syscall.MNT_DETACH)) }()
		said, err := backup(filepath.Join(disk, "kept")).CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(said), "no space left on device")
		nothingLeft(filepath.Join(disk, "kept"))
	}
	interrupted := backup(filepath.Join(dir, "kept"))
	require.NoError(t, interrupted.Start())
	require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(dir, "kept")); return err == nil }, time.Minute, time.Millisecond)
	require.NoError(t, interrupted.Process.Signal(syscall.SIGINT))
	if interrupted.Wait() != nil { // else it was as fast
		require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(dir, "kept")); return os.IsNotExist(err) }, time.Minute, time.Millisecond, "it ends a moment after it was interrupted")
		require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(k.data, "backing-up")); return os.IsNotExist(err) }, time.Minute, time.Millisecond)
		nothingLeft(filepath.Join(dir, "kept"))
	}
	said, err := backup(filepath.Join(dir, "good")).CombinedOutput()
	require.NoError(t, err, "%s", said)
	k.kill9(cmd)
	k.audit()
}
