package broker

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
)

// What the embedded broker says becomes one line, and nothing when it says that a sync took a moment.
func TestLogLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := &brokerLog{logger: slog.New(slog.NewTextHandler(&out, nil))}
	l.Logf(kfake.LogLevelWarn, "txn: EndTxn slow pid=%d epoch=%d elapsed=%dms batches=%d groups=%d", 1, 0, 8, 4, 0)
	require.Empty(t, out.String())

	l.Logf(kfake.LogLevelError, "persist to disk: %v", "write a: no space left on device\nwrite b: no space left on device\nwrite c: no space left on device")
	require.Contains(t, out.String(), `message="persist to disk: write a: no space left on device (and 2 more like it)"`)
	require.Equal(t, 1, strings.Count(out.String(), "\n"))
	require.EqualError(t, l.firstError(), "embedded log: persist to disk: write a: no space left on device (and 2 more like it)")
}
