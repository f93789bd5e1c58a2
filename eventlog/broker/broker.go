// Package broker is the embedded log: a broker that speaks Kafka's protocol inside this process and keeps its records in
// one directory.
//
// The one idea: it is a real broker to every client. Records are on disk, and synced, before a producer is answered;
// nothing expires unless a topic says so; Go and Java clients attach as they would to Apache Kafka.
//
// It is one process and one disk: no replication, no authentication. For those use a real cluster.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kversion"

	"millrace/eventlog"
)

// lockFile holds the lock that keeps a second process out of the directory. It is never removed: removing it would let
// two processes lock two files of the same name.
const lockFile = "LOCK"

// Config says where the broker keeps its records and where it listens. Dir is required.
type Config struct {
	Dir    string // made when absent
	Listen string // host:port, one address of this machine; port 0 takes a free one; default 127.0.0.1:0

	Logger *slog.Logger // default: discard
}

func (c Config) withDefaults() Config {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	if c.Dir == "" {
		return errors.New("embedded log has no directory")
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("embedded log cannot listen on %q: %w; give an address like 127.0.0.1:9092", c.Listen, err)
	}
	// Clients are told to come back to the very address the broker listens on.
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		return fmt.Errorf("embedded log cannot listen on %q: clients are told this address, so it must be one they can reach; give an address like 127.0.0.1:9092", c.Listen)
	}
	return nil
}

// Broker is a running broker.
type Broker struct {
	cluster *kfake.Cluster
	lock    *os.File
	log     *brokerLog
	closing sync.Once
	err     error
}

// Open starts the broker on the records in cfg.Dir. What a killed broker had not finished writing is cut off, it was never
// acknowledged; a directory that is damaged otherwise, or in use by another process, is refused. Close the broker after use.
func Open(cfg Config) (*Broker, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if err := check(cfg.Dir); err != nil {
		return nil, errors.Join(err, lock.Close())
	}

	log := &brokerLog{logger: cfg.Logger}
	var listenErr error
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.ListenFn(func(network, _ string) (net.Listener, error) {
			var ln net.Listener
			ln, listenErr = net.Listen(network, cfg.Listen)
			return ln, listenErr
		}),
		kfake.DataDir(cfg.Dir),
		kfake.SyncWrites(),
		kfake.MaxVersions(kversion.V3_4_0()), // Java's admin client fails on what newer versions promise
		kfake.BrokerConfigs(map[string]string{
			"log.retention.ms":    "-1",
			"log.retention.bytes": "-1",
			"message.max.bytes":   strconv.Itoa(eventlog.MaxRecordBytes),
		}),
		kfake.WithLogger(log),
	)
	if err != nil {
		switch {
		case listenErr != nil:
			err = &ListenError{cfg.Listen, listenErr}
		default:
			err = fmt.Errorf("open the embedded log in %s: %w; if its files are damaged, restore the directory from a backup", cfg.Dir, err)
		}
		return nil, errors.Join(err, lock.Close())
	}
	return &Broker{cluster: cluster, lock: lock, log: log}, nil
}

// ListenError says that the broker cannot listen where it was told to.
type ListenError struct {
	Listen string
	Err    error
}

func (e *ListenError) Error() string {
	if errors.Is(e.Err, syscall.EADDRINUSE) {
		return fmt.Sprintf("embedded log cannot listen on %s: the port is taken; choose another or end the program that has it", e.Listen)
	}
	return fmt.Sprintf("embedded log cannot listen: %s", e.Err)
}

func (e *ListenError) Unwrap() error { return e.Err }

// Addr returns the address, host:port, that clients connect to.
func (b *Broker) Addr() string { return b.cluster.ListenAddrs()[0] }

// Close stops the broker after what it is doing and saves what makes the next start fast. Records are durable without it.
// Calling it again returns the same error.
func (b *Broker) Close() error {
	b.closing.Do(func() {
		b.log.reset()
		b.cluster.Close()
		b.err = errors.Join(b.log.firstError(), b.lock.Close())
	})
	return b.err
}

// lockDir makes dir, sees that it can be written, and locks it until the returned file is closed or the process ends.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("embedded log cannot have its directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("embedded log cannot write to its directory: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = fmt.Errorf("embedded log in %s is in use by another process; end it or choose another directory", dir)
		} else {
			err = fmt.Errorf("lock %s: %w", lock.Name(), err)
		}
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// slowCommit begins a warning that the broker gives of each commit of a transaction that takes five milliseconds: a sync to a disk does.
const slowCommit = "txn: EndTxn slow"

// oneLine is the first line of a message: the broker joins an error for each of its files, and a full disk fails them all.
func oneLine(message string) string {
	first, rest, more := strings.Cut(strings.TrimSpace(message), "\n")
	if more {
		first += fmt.Sprintf(" (and %d more like it)", strings.Count(rest, "\n")+1)
	}
	return first
}

// brokerLog passes the broker's warnings and errors on and keeps the first error: the broker returns none when it closes.
type brokerLog struct {
	logger *slog.Logger
	mu     sync.Mutex
	first  error
}

func (l *brokerLog) Logf(level kfake.LogLevel, format string, args ...any) {
	if level != kfake.LogLevelError && level != kfake.LogLevelWarn {
		return
	}
	if strings.HasPrefix(format, slowCommit) {
		return
	}
	message := oneLine(fmt.Sprintf(format, args...))
	if level == kfake.LogLevelWarn {
		l.logger.LogAttrs(context.Background(), slog.LevelWarn, "embedded log", slog.String("message", message))
		return
	}
	l.logger.LogAttrs(context.Background(), slog.LevelError, "embedded log", slog.String("message", message))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		l.first = fmt.Errorf("embedded log: %s", message)
	}
}

func (l *brokerLog) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first = nil
}

func (l *brokerLog) firstError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}
