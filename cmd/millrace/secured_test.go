package main

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"millrace/artifact"
	"millrace/eventlog"
	"millrace/index"
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
	require.Positive(t, s.servingOf(etlLine).Progress().Rows)
	stop()
	inNoFile(t, path, password)
}

// An index that wants a password is given it by this process and by those of the jobs, and it is in no file but the one that ends with the process.
func TestIndexWithPassword(t *testing.T) {
	const password = "correct-horse"
	t.Setenv(artifact.IndexVariable, "") // which is set
	ix, err := index.Open(index.Config{Path: filepath.Join(t.TempDir(), "index.duckdb")})
	require.NoError(t, err)
	defer func() { require.NoError(t, ix.Close()) }()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, pass, _ := r.BasicAuth(); user != "ann" || pass != password {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		ix.ServeHTTP(w, r)
	}))
	defer server.Close()
	path := filepath.Join(t.TempDir(), "data")
	dir, err := openDataDir(path)
	require.NoError(t, err)
	cfg := stoppedConfig()
	cfg.flush, cfg.dir, cfg.logger = 50*time.Millisecond, dir, slog.New(slog.DiscardHandler)
	cfg.indexURL = strings.Replace(server.URL, "//", "//ann:"+password+"@", 1)
	s, stop := runStackOf(t, cfg)
	s.appendItems(t)
	require.NoError(t, s.untilPublished(t.Context()))
	totals, err := s.index.Totals(t.Context(), "activity_view")
	require.NoError(t, err)
	require.EqualValues(t, 1, totals.Rows)
	stop()
	inNoFile(t, path, password)
}

// inNoFile looks for a secret in all files of a folder.
func inNoFile(t *testing.T, path, secret string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(path, func(name string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(name)
		require.False(t, bytes.Contains(text, []byte(secret)), name)
		return err
	}))
}
