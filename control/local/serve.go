package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Job is what runs in a process.
type Job interface {
	// Run runs the job until ctx ends. It is called once.
	Run(ctx context.Context) error

	// Savepoint makes a savepoint in a directory, also when Run has ended without an error.
	Savepoint(ctx context.Context, dir string) error

	// Copy makes a directory of the job as it is after its last commit. It may be called while sinks are held.
	Copy(ctx context.Context, dir string) error

	// Hold has sinks publish nothing until release is called, while the job goes on. When ctx ends first, it holds none.
	Hold(ctx context.Context, sinks ...string) (release func(), err error)

	// Progress is how far the job is. It goes to the supervisor as JSON.
	Progress() any

	// Close gives up what the job has. Run has ended, or was not called.
	Close() error
}

// Serve is the process of the job in a folder: it opens the job, and does with it what the supervisor asks for, until it is told to close it, by
// the supervisor or by SIGTERM, or the job fails. It returns what a person is told who started it by hand, and what it failed of.
func Serve(ctx context.Context, dir string, open func(ctx context.Context, spec json.RawMessage) (Job, prometheus.Gatherer, error)) error {
	if !isPipe(readyFD) {
		return fmt.Errorf("%s is run by 'millrace serve' and not by hand", filepath.Base(os.Args[0]))
	}
	ready := os.NewFile(readyFD, "ready")
	syscall.CloseOnExec(lockFD)
	syscall.CloseOnExec(readyFD)
	syscall.CloseOnExec(tieFD)
	go untie()
	out, err := keepLog(LogFile(dir))
	if err != nil {
		return err
	}
	go out.watch()
	err = serve(ctx, dir, ready, open)
	return errors.Join(err, sayEnd(dir, err))
}

// sayEnd notes how the process of a folder ends.
func sayEnd(dir string, err error) error {
	end := EndError{}
	if err != nil {
		end = EndError{Reason: err.Error(), Final: errors.As(err, new(finalError))}
	}
	return writeJSON(filepath.Join(dir, endFile), end)
}

// Abort ends this process, the one of the job in a folder, at once. What it had not committed is as if it had not been done.
func Abort(dir string, err error) {
	fmt.Fprintln(os.Stderr, "the process ends:", errors.Join(err, sayEnd(dir, err)))
	os.Exit(1)
}

// untie ends the process when its supervisor has ended that it is tied to. What it had not committed is as if it had not been done.
func untie() {
	if !isPipe(tieFD) {
		return
	}
	tie := os.NewFile(tieFD, "tie")
	if _, err := tie.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
		os.Exit(1)
	}
}

func isPipe(fd int) bool {
	var info syscall.Stat_t
	return syscall.Fstat(fd, &info) == nil && info.Mode&syscall.S_IFMT == syscall.S_IFIFO
}

func serve(ctx context.Context, dir string, ready io.WriteCloser, open func(context.Context, json.RawMessage) (Job, prometheus.Gatherer, error)) (err error) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	spec, err := os.ReadFile(filepath.Join(dir, specFile))
	if err != nil {
		return err
	}
	socket, l, err := listen(dir)
	if err != nil {
		return err
	}
	s := &server{ended: make(chan struct{}), opened: make(chan struct{})}
	answers := &http.Server{Handler: s.mux()} //nolint:gosec // whoever reaches the socket may do all with the process
	var answering sync.WaitGroup
	answering.Go(func() { _ = answers.Serve(l) }) // it ends when it is closed
	defer func() {
		err = errors.Join(err, removeSocket(dir, socket), answers.Close())
		answering.Wait()
	}()
	if err := writeJSON(filepath.Join(dir, processFile), whereabouts{os.Getpid(), socket}); err != nil {
		return err
	}
	if err := ready.Close(); err != nil {
		return err
	}
	ctx, s.stop = context.WithCancel(ctx)
	defer s.stop()
	job, metrics, err := open(ctx, spec)
	if err != nil {
		return err
	}
	s.job, s.metrics = job, metrics
	close(s.opened)
	select {
	case <-ctx.Done():
	case <-s.failed():
		stop()
	}
	s.end()
	return errors.Join(s.err, job.Close())
}

// server does what the supervisor asks for.
type server struct {
	opened  chan struct{}      // closed when job and metrics are there
	stop    context.CancelFunc // ends the process
	job     Job
	metrics prometheus.Gatherer

	mu     sync.Mutex
	endRun context.CancelFunc // nil until the job was run
	ended  chan struct{}      // closed when its run has ended, with err
	err    error
}

func (s *server) mux() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /open", s.whenOpen(func(http.ResponseWriter, *http.Request) error { return nil }))
	mux.HandleFunc("POST /run", s.whenOpen(func(http.ResponseWriter, *http.Request) error { s.run(); return nil }))
	mux.HandleFunc("POST /end", s.whenOpen(func(http.ResponseWriter, *http.Request) error { s.end(); return s.err }))
	mux.HandleFunc("POST /close", func(http.ResponseWriter, *http.Request) { s.stop() })
	mux.HandleFunc("POST /savepoint", s.whenOpen(func(_ http.ResponseWriter, r *http.Request) error {
		return s.job.Savepoint(r.Context(), r.URL.Query().Get("dir"))
	}))
	mux.HandleFunc("POST /copy", s.whenOpen(func(_ http.ResponseWriter, r *http.Request) error {
		return s.job.Copy(r.Context(), r.URL.Query().Get("dir"))
	}))
	mux.HandleFunc("POST /hold", s.whenOpen(s.hold))
	mux.HandleFunc("GET /progress", s.whenOpen(func(w http.ResponseWriter, _ *http.Request) error { return json.NewEncoder(w).Encode(s.job.Progress()) }))
	mux.HandleFunc("GET /metrics", s.whenOpen(func(w http.ResponseWriter, r *http.Request) error {
		promhttp.HandlerFor(s.metrics, promhttp.HandlerOpts{}).ServeHTTP(w, r)
		return nil
	}))
	return mux
}

// whenOpen has a request wait until the job is open. It is answered with the error of fn, or with nothing.
func (s *server) whenOpen(fn func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-s.opened:
		case <-r.Context().Done(): // the process ends, and does not open it
			return
		}
		if err := fn(w, r); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
}

// hold has sinks publish nothing for as long as the request lasts: they go on when who asked ends it, or is gone.
func (s *server) hold(w http.ResponseWriter, r *http.Request) error {
	release, err := s.job.Hold(r.Context(), r.URL.Query()["sink"]...)
	if err != nil {
		return err
	}
	defer release()
	if err := http.NewResponseController(w).Flush(); err != nil { // the answer begins: they are held
		return err
	}
	<-r.Context().Done()
	return nil
}

// run begins the job's run, unless it was begun.
func (s *server) run() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endRun != nil {
		return
	}
	var ctx context.Context
	ctx, s.endRun = context.WithCancel(context.Background())
	go func() {
		defer close(s.ended)
		s.err = s.job.Run(ctx)
	}()
}

// end ends the job's run, when there is one.
func (s *server) end() {
	s.mu.Lock()
	end := s.endRun
	s.mu.Unlock()
	if end != nil {
		end()
		<-s.ended
	}
}

// failed is closed when the job's run has ended with an error.
func (s *server) failed() <-chan struct{} {
	failed := make(chan struct{})
	go func() {
		<-s.ended
		if s.err != nil {
			close(failed)
		}
	}()
	return failed
}

// removeSocket removes the socket of a folder, and the folder that it has of its own.
func removeSocket(dir, socket string) error {
	if socket == "" || filepath.Dir(socket) == dir {
		return remove(filepath.Join(dir, socketName))
	}
	return remove(socket, filepath.Dir(socket))
}

// maxSocket is how long the name of a socket can be on every system.
const maxSocket = 100

// listen opens the socket of a folder. Where its name would be too long for one, it has a folder of its own among temporary files.
func listen(dir string) (socket string, l net.Listener, err error) {
	socket = filepath.Join(dir, socketName)
	if len(socket) > maxSocket {
		short, err := os.MkdirTemp("", "millrace-")
		if err != nil {
			return "", nil, err
		}
		socket = filepath.Join(short, socketName)
	}
	l, err = net.Listen("unix", socket)
	if err != nil {
		return "", nil, err
	}
	return socket, l, os.Chmod(socket, 0o600)
}
