package source_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/eventlog"
	"millrace/eventlog/broker"
	"millrace/eventlog/eventlogtest"
	"millrace/plan"
	"millrace/record"
	"millrace/source"
)

// warned tells of the first warning.
type warned struct {
	slog.Handler
	once chan string
}

func (w warned) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn && r.Message == "retry" {
		text := ""
		r.Attrs(func(a slog.Attr) bool { text += a.String() + " "; return true })
		select {
		case w.once <- text:
		default:
		}
	}
	return nil
}

func (w warned) Enabled(context.Context, slog.Level) bool { return true }

// A job that begins while the log is away waits until it is back, or until it is stopped.
func TestLogIsAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, err := broker.Open(broker.Config{Dir: dir})
	require.NoError(t, err)
	at := b.Addr()
	log := eventlogtest.Open(t, eventlog.Config{Brokers: []string{at}})
	require.NoError(t, log.Append(t.Context(), []record.Item{event(1, "prod", day(1)), event(2, "prod", day(2))}))
	require.NoError(t, b.Close())

	w := warned{once: make(chan string, 1)}
	s, err := source.New(source.Config{Log: log, Instance: "job", Logger: slog.New(w)})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	read := func(ctx context.Context) chan error {
		done := make(chan error, 1)
		go func() {
			r, err := s.Read(ctx, plan.Position{})
			for n := 0; err == nil && n < 2; {
				var b plan.Batch
				b, err = r.Poll(ctx, 10, 1<<20)
				n += len(b.Items)
			}
			if r != nil {
				_ = r.Close() // it is only read
			}
			done <- err
		}()
		return done
	}
	stopped, waits := read(ctx), read(t.Context())
	select {
	case said := <-w.once:
		require.Contains(t, said, at, "what is waited for is said")
	case err := <-waits:
		require.NoError(t, err, "it does not wait")
	}
	stop()
	select {
	case err := <-stopped:
		require.Error(t, err)
	case <-time.After(20 * time.Second):
		t.Fatal("it does not stop")
	}
	b, err = broker.Open(broker.Config{Dir: dir, Listen: at})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	require.NoError(t, <-waits)
}
