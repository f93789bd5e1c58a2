package engine_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/plan/plantest"
	"millrace/record"
)

// TestScripts runs the scripts in testdata/script. Commands:
//
//	open               open the job and run it
//	feed               one item a line, "event KEY ID" or "entity KEY", as one poll; waits until all is published
//	move DURATION      move the clock and wait for the timers
//	block, unblock     the sink does not publish, or does again
//	stop
//
// The output shows what the job did to its outbox and when it synced its state, the epochs, and what the sink got.
func TestScripts(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/script", func(t *testing.T, path string) {
		s := newScript(t)
		datadriven.RunTest(t, path, s.run)
	})
}

type script struct {
	t      *testing.T
	c      engine.Config
	clock  *plantest.Clock
	sink   *memory
	j      *job
	seen   int // batches of the sink that were shown
	opened atomic.Bool
	epoch  uint64

	mu  sync.Mutex
	out bytes.Buffer
}

func newScript(t *testing.T) *script {
	s := &script{t: t, clock: plantest.NewClock(), sink: &memory{name: "index"}}
	s.c = config(t, newLog(), s.sink)
	s.c.Now, s.c.DrainTimeout, s.c.CheckpointEvery = s.clock.Now, time.Millisecond, -1
	s.c.MemTableBytes = 16 << 20 // no flush: its file operations come at any time
	s.c.FS = errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(s.operation))
	return s
}

// operation notes the file operations that the order of which matters.
func (s *script) operation(op errorfs.Op) error {
	what := map[errorfs.OpKind]string{
		errorfs.OpCreate: "create", errorfs.OpFileWrite: "write", errorfs.OpFileSync: "sync", errorfs.OpFileSyncData: "sync", errorfs.OpRemove: "remove",
	}[op.Kind]
	switch {
	case what == "" || !s.opened.Load():
	case strings.Contains(op.Path, "/outbox"):
		s.note("%s %s", what, op.Path)
	case strings.HasSuffix(op.Path, ".log") && what == "sync":
		s.note("sync state")
	}
	return nil
}

func (s *script) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(&s.out, format+"\n", args...)
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "open":
		s.j = start(s.t, s.c)
		s.opened.Store(true)
		s.j.log = s.c.Source.(*log)
		p := s.j.e.Progress()
		s.note("at epoch %d, offsets %v", p.Epoch, p.Offsets)
		s.settle()
	case "feed":
		var items []record.Item
		for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
			f := strings.Fields(line)
			if f[0] == "event" {
				items = append(items, plantest.Event(f[1], f[2]))
			} else {
				items = append(items, plantest.Entity(f[1]))
			}
		}
		s.j.log.append(0, items...)
		s.settle()
	case "move":
		by, err := time.ParseDuration(d.CmdArgs[0].Key)
		require.NoError(t, err)
		s.clock.Move(by)
		s.settle()
	case "block":
		s.sink.mu.Lock()
		s.sink.block = make(chan struct{})
		s.sink.mu.Unlock()
	case "unblock":
		s.sink.mu.Lock()
		close(s.sink.block)
		s.sink.block = nil
		s.sink.mu.Unlock()
		s.settle()
	case "stop":
		s.j.stop()
		s.opened.Store(false)
		s.note("stopped")
	default:
		t.Fatalf("unknown command %s", d.Cmd)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	if p := s.j.e.Progress(); p.Epoch != s.epoch {
		fmt.Fprintf(&s.out, "epoch %d: read %d, rows %d, fired %d in all\n", p.Epoch, p.Read, p.Rows, p.Fired)
		s.epoch = p.Epoch
	}
	for _, b := range s.sink.batches[s.seen:] {
		fmt.Fprintf(&s.out, "published epochs %d to %d, offsets %v to %v\n", b.FromEpoch, b.ToEpoch, b.FromOffsets, b.ToOffsets)
		for _, r := range b.Rows {
			first := ""
			if r.First {
				first = " first"
			}
			fmt.Fprintf(&s.out, "  %s/%s rev %d epoch %d%s\n", s.c.Plan.Tables[r.Table].Name, r.ID, r.Rev, r.Epoch, first)
		}
	}
	s.seen = len(s.sink.batches)
	out := s.out.String()
	s.out.Reset()
	return out
}

// settle waits for everything, publishing included unless the sink is blocked.
func (s *script) settle() {
	s.sink.mu.Lock()
	blocked := s.sink.block != nil
	s.sink.mu.Unlock()
	ends, err := s.j.log.Ends(s.t.Context())
	require.NoError(s.t, err)
	s.j.wait("everything", func(p engine.Progress) bool {
		if blocked {
			p.Sinks, p.OutboxBytes = nil, 0
		}
		p.Lag = 0
		return p.Offsets[0] == ends[0] && p.OutboxBytes == 0 && p.Settled(s.clock.Now())
	})
}
