package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace/collect"
	"millrace/control"
	"millrace/eventlog"
	"millrace/eventlog/broker"
)

const (
	// connections is how many sensors post at a time: enough to fill the log's batches.
	connections = 64

	// envelope is how many events a sensor sends at a time in figures that have a goal. Sensors that do not gather send one.
	envelope = 20
)

// collector measures how many events a second are taken durably: over HTTP, into the embedded broker, which syncs every batch. The
// sensors run in the same process and share its processors.
func (c Config) collector(ctx context.Context) (out []Measure, err error) {
	dir := filepath.Join(c.Dir, "collector")
	url, key, stop, err := openCollector(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	w, err := newWindow(newLoad(100_000), c.Records, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	for _, size := range []int{1, envelope, 100} {
		var rate, cpu []float64
		for round := range c.Rounds + 1 {
			n, took, err := postAll(ctx, url, key, w, size, c.Turn)
			if err != nil {
				return nil, err
			}
			c.Logger.Info("collector", "events_each", size, "round", round, "events", n, "wall", took.wall, "cpu", took.cpu)
			if round > 0 {
				rate = append(rate, float64(n)/took.wall.Seconds())
				cpu = append(cpu, took.cpu.Seconds()*1e6/float64(n))
			}
		}
		what := collected(size)
		out = append(out, Measure{What: what, Unit: "events/s", Figure: newFigure(rate)}, Measure{What: what + ", with the sensors", Unit: "CPU µs/event", Figure: newFigure(cpu)})
	}
	return out, nil
}

func collected(size int) string { return fmt.Sprintf("collector, %d events an envelope", size) }

// openCollector opens a collector as serve does, on an address of its own.
func openCollector(ctx context.Context, dir string) (url, key string, stop func() error, err error) {
	var closers []func() error
	stop = func() (err error) {
		for i := len(closers) - 1; i >= 0; i-- {
			err = errors.Join(err, closers[i]())
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, stop())
		}
	}()
	b, err := broker.Open(broker.Config{Dir: dir})
	if err != nil {
		return "", "", stop, err
	}
	closers = append(closers, b.Close)
	log, err := eventlog.Open(ctx, eventlog.Config{Brokers: []string{b.Addr()}})
	if err != nil {
		return "", "", stop, err
	}
	closers = append(closers, log.Close)
	store, err := control.Open(filepath.Join(dir, "keys.db"))
	if err != nil {
		return "", "", stop, err
	}
	closers = append(closers, store.Close)
	if key, err = store.Keys.Add(ctx, control.Key{Account: account, Env: env, SourceType: sourceType}); err != nil {
		return "", "", stop, err
	}
	handler, err := collect.New(collect.Config{Log: log, Keys: func(ctx context.Context, secret string) (collect.Key, error) {
		k, err := store.Keys.Lookup(ctx, secret)
		return collect.Key{Account: k.Account, Env: k.Env, SourceType: k.SourceType}, err
	}})
	if err != nil {
		return "", "", stop, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", stop, fmt.Errorf("listen for sensors: %w", err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	closers = append(closers, func() error {
		err := server.Close()
		if served := <-done; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	})
	return "http://" + l.Addr().String() + "/caliper", key, stop, nil
}

// postAll posts the records of w, so many an envelope, again and again for some time, and returns how many were taken.
func postAll(ctx context.Context, url, key string, w *window, size int, during time.Duration) (int64, usage, error) {
	var next, taken atomic.Int64
	took, err := measure(func() error {
		end := time.Now().Add(during)
		g, posting := errgroup.WithContext(ctx)
		for range connections {
			g.Go(func() error {
				p, err := newPoster(posting, url, key)
				if err != nil {
					return err
				}
				for time.Now().Before(end) && posting.Err() == nil && err == nil {
					at := int(next.Add(int64(size))) % (w.len() - size)
					if err = p.post(w.items(at, at+size)); err == nil {
						taken.Add(int64(size))
					}
				}
				return errors.Join(err, p.close())
			})
		}
		return errors.Join(g.Wait(), ctx.Err())
	})
	return taken.Load(), took, err
}
