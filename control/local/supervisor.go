package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Config says how a supervisor runs processes. Dir is required.
type Config struct {
	// Dir has a folder for each job.
	Dir string

	// Tied processes end when this one does.
	Tied bool

	// Grace is how long a process that is told to end may take. Then it is killed. Default: a minute.
	Grace time.Duration

	Output io.Writer    // what processes say goes here too; default: nowhere
	Logger *slog.Logger // default: none
}

// Supervisor runs processes: one for each job.
type Supervisor struct{ cfg Config }

// New returns a supervisor. It does not look for processes that are there: Start does, and Strays.
func New(cfg Config) *Supervisor {
	if dir, err := filepath.Abs(cfg.Dir); err == nil { // another supervisor may be started in another folder
		cfg.Dir = dir
	}
	if cfg.Grace == 0 {
		cfg.Grace = time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Supervisor{cfg}
}

// LogFile is where a job says what it does.
func (s *Supervisor) LogFile(id string) string { return LogFile(s.dir(id)) }

func (s *Supervisor) dir(id string) string { return filepath.Join(s.cfg.Dir, id) }

// Start returns the process of a job, which has opened it: command is its executable with arguments, to which the job's folder is added. A process of the job that was there before is adopted when it was started with the
// same spec, and ended when it was not. The error is an *EndError when the process ended before it had opened the job.
func (s *Supervisor) Start(ctx context.Context, id string, command []string, spec any) (*Process, error) {
	text, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return nil, err
	}
	dir := s.dir(id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("folder of the job's process: %w", err)
	}
	lock, err := takeLock(dir)
	if errors.Is(err, errHeld) {
		p, adoptErr := s.adopt(ctx, id, text)
		if p != nil || adoptErr != nil {
			return p, adoptErr
		}
		lock, err = takeLock(dir)
	}
	if err != nil {
		return nil, err
	}
	p, err := s.spawn(ctx, id, lock, command, text)
	if err != nil {
		return nil, fmt.Errorf("start the process of job %s: %w", id, err)
	}
	if err := p.ask(ctx, "open", nil); err != nil {
		return nil, errors.Join(err, p.Kill())
	}
	return p, nil
}

// adopt returns the process of a job that is there, or nil when there is none any more.
func (s *Supervisor) adopt(ctx context.Context, id string, spec []byte) (*Process, error) {
	p, err := s.find(id)
	if err != nil || p == nil {
		return nil, err
	}
	log := s.cfg.Logger.With("job", id, "pid", p.PID())
	was, err := os.ReadFile(filepath.Join(s.dir(id), specFile))
	if err == nil && !s.cfg.Tied && bytes.Equal(was, spec) {
		opening, cancel := context.WithTimeout(ctx, s.cfg.Grace)
		defer cancel()
		if err = p.ask(opening, "open", nil); err == nil {
			log.Info("process adopted")
			return p, nil
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if !s.cfg.Tied { // else it is about to end
		log.Info("a process of before is ended: it runs something else, or does not answer", "error", err)
	}
	if err := p.Close(); err != nil && !s.cfg.Tied {
		log.Warn("a process of before did not end cleanly", "error", err)
	}
	return nil, nil
}

// find returns the process of a job that is there, or nil when there is none.
func (s *Supervisor) find(id string) (*Process, error) {
	dir := s.dir(id)
	lock, err := takeLock(dir)
	if err == nil {
		return nil, lock.Close()
	}
	if !errors.Is(err, errHeld) {
		return nil, err
	}
	at, err := whereaboutsOf(dir)
	if err != nil || at == nil {
		return nil, err
	}
	p := s.process(id, *at, sizeOf(LogFile(dir)))
	p.adopted = true
	go p.awaitLock()
	return p, nil
}

// saysWithin is how long a process may take from its start until it has said where it answers.
const saysWithin = 10 * time.Second

// whereaboutsOf reads where the process answers that holds the lock of a folder, which may just have been started. It is nil when the process
// has ended.
func whereaboutsOf(dir string) (*whereabouts, error) {
	var at whereabouts
	name, began := filepath.Join(dir, processFile), time.Now()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		err := readJSON(name, &at)
		if err == nil {
			return &at, nil
		}
		if lock, lockErr := takeLock(dir); lockErr == nil {
			return nil, lock.Close()
		}
		if time.Since(began) > saysWithin {
			return nil, fmt.Errorf("a process holds %s and does not say where it answers: %w; end it ('fuser' shows which one it is) and try again", filepath.Join(dir, lockFile), err)
		}
		<-tick.C
	}
}

func sizeOf(name string) int64 {
	info, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return info.Size()
}

// Strays ends the processes of jobs that are not to run, such as those of instances that were deleted meanwhile.
func (s *Supervisor) Strays(runs func(id string) bool) error {
	folders, err := os.ReadDir(s.cfg.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, f := range folders {
		id := f.Name()
		if runs(id) {
			continue
		}
		p, err := s.find(id)
		if err != nil {
			return err
		}
		if p == nil {
			continue
		}
		s.cfg.Logger.Warn("a process of before is ended: its job is not to run", "job", id, "pid", p.PID())
		if err := p.Close(); err != nil {
			s.cfg.Logger.Warn("a process of before did not end cleanly", "job", id, "error", err)
		}
	}
	return nil
}

// AwaitEnd waits until no process runs a job of a folder of jobs, for a while at most: those that were tied to a supervisor end a moment after it. The
// error names one that runs on.
func AwaitEnd(ctx context.Context, dir string, longest time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		runs, err := anyRuns(dir)
		if err != nil || runs == "" {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s still runs, without the process that started it", runs)
		}
	}
}

// anyRuns is a job of a folder of jobs that a process runs; empty when there is none.
func anyRuns(dir string) (string, error) {
	folders, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for _, f := range folders {
		lock, err := takeLock(filepath.Join(dir, f.Name()))
		if errors.Is(err, errHeld) {
			return f.Name(), nil
		}
		if err != nil {
			return "", err
		}
		if err := lock.Close(); err != nil {
			return "", err
		}
	}
	return "", nil
}

// Runs reports whether there is a process of a job, whoever started it.
func (s *Supervisor) Runs(id string) (bool, error) {
	lock, err := takeLock(s.dir(id))
	switch {
	case errors.Is(err, errHeld):
		return true, nil
	case errors.Is(err, fs.ErrNotExist): // it has no folder: it never had one
		return false, nil
	case err != nil:
		return false, err
	}
	return false, lock.Close()
}

// Forget removes the folder of a job that has no process.
func (s *Supervisor) Forget(id string) error { return os.RemoveAll(s.dir(id)) }

// spawn starts a process, which takes over the lock, and returns when it answers.
func (s *Supervisor) spawn(ctx context.Context, id string, lock *os.File, command []string, spec []byte) (_ *Process, err error) {
	dir := s.dir(id)
	defer func() { err = errors.Join(err, lock.Close()) }()
	var before whereabouts                                 // of one that was killed, perhaps
	_ = readJSON(filepath.Join(dir, processFile), &before) // it may not be there, or not be whole after a power cut
	if err := errors.Join(removeSocket(dir, before.Socket), remove(filepath.Join(dir, endFile), filepath.Join(dir, processFile))); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, specFile), spec, 0o600); err != nil {
		return nil, err
	}
	ready, says, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ready.Close()) }()
	tied, tie := lock, (*os.File)(nil)
	if s.cfg.Tied {
		if tied, tie, err = os.Pipe(); err != nil {
			return nil, errors.Join(err, says.Close())
		}
	}
	out, err := os.OpenFile(LogFile(dir), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, errors.Join(err, says.Close())
	}
	began := sizeOf(LogFile(dir))
	cmd := exec.Command(command[0], append(command[1:len(command):len(command)], dir)...) //nolint:gosec,noctx // an executable of ours, which outlives whatever asked for it
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{lock, says, tied}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt at the terminal is for the supervisor, which then tells its processes
	err = cmd.Start()
	closeErr := errors.Join(says.Close(), out.Close())
	if s.cfg.Tied {
		closeErr = errors.Join(closeErr, tied.Close())
	}
	if err != nil {
		return nil, errors.Join(err, closeErr)
	}
	p := s.process(id, whereabouts{PID: cmd.Process.Pid}, began)
	p.tie = tie
	go p.awaitChild(cmd)
	if err := p.untilReady(ctx, ready); err != nil {
		return nil, errors.Join(err, p.Kill())
	}
	err = readJSON(filepath.Join(dir, processFile), &p.whereabouts)
	return p, errors.Join(err, closeErr)
}

// untilReady waits until the process has closed the pipe: it answers, or has ended.
func (p *Process) untilReady(ctx context.Context, pipe *os.File) error {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_, _ = pipe.Read(make([]byte, 1)) // nothing is written
	}()
	select {
	case <-closed:
	case <-ctx.Done():
		return ctx.Err()
	}
	if _, err := os.Stat(filepath.Join(p.dir, processFile)); err != nil {
		<-p.ended
		return p.err
	}
	return nil
}

var errHeld = errors.New("a process holds it")

// takeLock takes the lock of a folder. The error is errHeld when a process runs the job.
func takeLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errHeld
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// followed copies what the process says until it has ended.
func (s *Supervisor) followed(p *Process) {
	if s.cfg.Output == nil {
		close(p.heard)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-p.ended
		cancel()
	}()
	go func() {
		defer close(p.heard)
		if err := Follow(ctx, ReadLogAt(LogFile(p.dir), p.logFrom), s.cfg.Output); err != nil {
			s.cfg.Logger.Warn("what a job says is in its log alone", "job", p.id, "log", LogFile(p.dir), "error", err)
		}
	}()
}
