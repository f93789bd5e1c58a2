package test

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/eventlog/broker"
)

// check sees a row that a topic has lost: its last message says that it is gone.
func TestCheckFindsWhatATopicLacks(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	out, err := exec.Command(millrace, "demo", "--data-dir", data, "--listen", "127.0.0.1:0", "--for", "1s", "--rate", "500", "--students", "50",
		"--flush", "200ms", "--table-topics").CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.Command(millrace, "rows", "enrollment", "--limit", "1", "--data-dir", data).Output()
	require.NoError(t, err)
	var row struct {
		ID string `json:"_id"`
	}
	require.NoError(t, json.Unmarshal(out, &row), "%s", out)

	b, err := broker.Open(broker.Config{Dir: filepath.Join(data, "log")}) // without the job, whose sink would mend it
	require.NoError(t, err)
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()), kgo.TransactionalID("another"))
	require.NoError(t, err)
	defer client.Close()
	require.NoError(t, client.BeginTransaction())
	require.NoError(t, client.ProduceSync(t.Context(), &kgo.Record{Topic: "table.unversioned.enrollment", Key: []byte(row.ID)}).FirstErr())
	require.NoError(t, client.EndTransaction(t.Context(), kgo.TryCommit))
	require.NoError(t, b.Close())

	out, err = exec.Command(millrace, "check", "--data-dir", data).CombinedOutput()
	require.Error(t, err)
	require.Regexp(t, `(?m)^BAD enrollment: rows that are the same in lake and table topic: \d+, found \d+; `+row.ID+` is not in the table topic$`, string(out))
	require.Regexp(t, `(?m)^ok  enrollment: rows that are the same in lake and index: [1-9]`, string(out))
	require.NotRegexp(t, `(?s)BAD .*BAD `, string(out), "all else is as it was")
}
