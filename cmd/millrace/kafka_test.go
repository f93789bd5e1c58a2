package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"millrace/artifact"
	"millrace/eventlog"
)

// A cluster that wants to know who asks is asked so by this process and by those of the jobs, and the password is in no file.
func TestKafkaWithSASL(t *testing.T) {
	const password = "correct horse"
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "ann", password))
	require.NoError(t, err)
	defer cluster.Close()
	path := filepath.Join(t.TempDir(), "data")
	dir, err := openDataDir(path)
	require.NoError(t, err)
	cfg := stoppedConfig()
	cfg.flush, cfg.dir, cfg.logger = 50*time.Millisecond, dir, slog.New(slog.DiscardHandler)
	cfg.brokers, cfg.security = cluster.ListenAddrs(), eventlog.Security{Protocol: "SASL_PLAINTEXT", Mechanism: "SCRAM-SHA-512", Username: "ann"}
	require.ErrorContains(t, cfg.checkKafka(), "SASL needs a username and a password; the password is in $MILLRACE_KAFKA_SASL_PASSWORD")
	t.Setenv(artifact.PasswordVariable, password)
	require.NoError(t, cfg.checkKafka())
	s, stop := runStackOf(t, cfg)
	s.appendItems(t)
	require.NoError(t, s.untilPublished(t.Context()))
	require.Positive(t, s.serving().Progress().Rows)
	stop()
	require.NoError(t, filepath.WalkDir(path, func(name string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(name)
		require.NotContains(t, strings.ToValidUTF8(string(text), ""), password, name)
		return err
	}))
}
