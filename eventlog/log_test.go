package eventlog_test

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/eventlog"
	"millrace/eventlog/broker"
	"millrace/eventlog/eventlogtest"
)

func embedded(t testing.TB) eventlog.Config {
	t.Helper()
	b, err := broker.Open(broker.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return eventlog.Config{Brokers: []string{b.Addr()}}
}

func TestEmbeddedBroker(t *testing.T) {
	t.Parallel()
	eventlogtest.Run(t, func(t *testing.T) eventlog.Config { return embedded(t) })
}

func TestApacheKafka(t *testing.T) {
	t.Parallel()
	address := os.Getenv("MILLRACE_KAFKA")
	if address == "" {
		t.Skip("MILLRACE_KAFKA is not set: give the address of a Kafka broker; scripts/servers/kafka.sh starts one")
	}
	var n atomic.Int64
	eventlogtest.Run(t, func(*testing.T) eventlog.Config {
		return eventlog.Config{
			Brokers: strings.Split(address, ","),
			Topic:   fmt.Sprintf("millrace-test-%d-%d", time.Now().UnixNano(), n.Add(1)),
		}
	})
}

func TestNoBroker(t *testing.T) {
	t.Parallel()
	cfg := embedded(t) // an address that was good a moment ago
	b, err := broker.Open(broker.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	cfg.Brokers = []string{b.Addr()}
	require.NoError(t, b.Close())

	_, err = eventlog.Open(t.Context(), cfg)
	require.ErrorContains(t, err, "log at "+cfg.Brokers[0]+": ")
	require.ErrorContains(t, err, "is the broker running? if it is elsewhere, give another address")

	_, err = eventlog.Open(t.Context(), eventlog.Config{})
	require.EqualError(t, err, "log has no broker address; give one")
	_, err = eventlog.Open(t.Context(), eventlog.Config{Brokers: []string{"not an address"}})
	require.ErrorContains(t, err, "log at not an address: ")
}
