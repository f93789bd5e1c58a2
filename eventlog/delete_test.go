package eventlog_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/eventlog"
	"millrace/eventlog/broker"
)

func TestDeleteTopics(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func() (*eventlog.Log, func()) {
		b, err := broker.Open(broker.Config{Dir: dir})
		require.NoError(t, err)
		l, err := eventlog.Open(t.Context(), eventlog.Config{Brokers: []string{b.Addr()}})
		require.NoError(t, err)
		return l, func() {
			require.NoError(t, l.Close())
			require.NoError(t, b.Close())
		}
	}
	l, stop := open()
	for _, name := range []string{"table.v1.a", "table.v1.b", "table.v10.a"} {
		require.NoError(t, l.Writer("w").Topic(t.Context(), name, 2))
	}
	all := func(string) bool { return true }
	v1 := func(name string) bool { return strings.HasPrefix(name, "table.v1.") }
	for range 2 { // again does nothing
		require.NoError(t, l.DeleteTopics(t.Context(), v1))
	}
	have := func(want ...string) {
		t.Helper()
		for _, name := range []string{l.Topic(), "table.v1.a", "table.v1.b", "table.v10.a"} {
			partitions, err := l.PartitionsOf(t.Context(), name)
			require.NoError(t, err)
			require.Equal(t, slices.Contains(want, name), len(partitions) > 0, name)
		}
	}
	have(l.Topic(), "table.v10.a")
	stop()
	l, stop = open()
	have(l.Topic(), "table.v10.a")
	require.NoError(t, l.DeleteTopics(t.Context(), all))
	have(l.Topic())
	stop()
}
