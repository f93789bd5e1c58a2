package millrace_test

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace"
	"millrace/engine"
	"millrace/index"
	"millrace/record"
)

// An index that refuses connections, hangs or answers with errors delays neither the lake nor the table topics, and has every row once it is back.
func TestDeadIndex(t *testing.T) {
	t.Parallel()
	for name, dead := range map[string]http.HandlerFunc{
		"hangs": nil,
		"fails": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"refuses": func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = conn.Close() // before it has said anything
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			x, err := index.Open(index.Config{Path: filepath.Join(t.TempDir(), "index.duckdb")})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, x.Close()) })
			var away atomic.Bool
			away.Store(true)
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			back := make(chan struct{}) // closed when it answers again
			server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case !away.Load():
					x.ServeHTTP(w, r)
				case dead != nil:
					dead(w, r)
				default:
					<-back
				}
			})}
			done := make(chan struct{})
			go func() { defer close(done); _ = server.Serve(listener) }() // ends by Close
			t.Cleanup(func() { _ = server.Close(); <-done })

			p := pages(t, 2)
			j, err := millrace.OpenJob(t.Context(), millrace.JobConfig{
				Instance: millrace.Instance{Program: p.App, Account: "system", Env: "system", DataVersion: millrace.Unversioned},
				Plan:     p, Dir: filepath.Join(s.dir, "job"), Log: s.log, Lake: s.lake, IndexURL: "http://" + listener.Addr().String(),
				TableTopics: true, Flush: 50 * time.Millisecond,
			})
			require.NoError(t, err)
			ctx, stop := context.WithCancel(t.Context())
			ran := make(chan error, 1)
			go func() { ran <- j.Run(ctx) }()
			published := func(names ...string) func() bool {
				return func() bool {
					p := j.Progress()
					for _, sink := range p.Sinks {
						for _, name := range names {
							if sink.Name == name && (sink.Epoch == 0 || sink.PendingRows > 0) {
								return false
							}
						}
					}
					return p.Rows == 20
				}
			}
			for i := range 20 {
				require.NoError(t, s.log.Append(ctx, []record.Item{visited(i, "page"+string(rune(97+i)))}))
			}
			require.Eventually(t, published("iceberg", "topic"), 20*time.Second, 10*time.Millisecond)
			require.Len(t, s.rows(t, "page", "name"), 20)
			require.Len(t, s.told(t, "page"), 20)
			behind := sinkOf(j.Progress(), "elastic")
			require.EqualValues(t, 20, behind.PendingRows)
			require.WithinDuration(t, time.Now(), time.UnixMicro(behind.Oldest), time.Minute)

			away.Store(false)
			close(back)
			require.Eventually(t, published("elastic"), 40*time.Second, 10*time.Millisecond)
			require.Zero(t, sinkOf(j.Progress(), "elastic").Oldest)
			require.Len(t, indexed(t, "http://"+listener.Addr().String(), "page"), 20)
			stop()
			require.NoError(t, <-ran)
			require.NoError(t, j.Close())
		})
	}
}

func sinkOf(p engine.Progress, name string) engine.SinkProgress {
	for _, s := range p.Sinks {
		if s.Name == name {
			return s
		}
	}
	return engine.SinkProgress{}
}
