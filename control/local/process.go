package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Process is a process of a job, and has been told to end, or not.
type Process struct {
	whereabouts
	id      string
	dir     string
	grace   time.Duration
	http    *http.Client
	tie     *os.File // closed when it has ended; nil when it is not tied to this process
	logFrom int64    // where in the log it began
	adopted bool

	mu     sync.Mutex
	killed string // why, when this process killed it

	ended chan struct{} // closed when it has ended, with err
	err   error
	heard chan struct{} // closed when all that it said was passed on
}

func (s *Supervisor) process(id string, at whereabouts, logFrom int64) *Process {
	p := &Process{whereabouts: at, id: id, dir: s.dir(id), grace: s.cfg.Grace, logFrom: logFrom, ended: make(chan struct{}), heard: make(chan struct{})}
	var dialer net.Dialer
	p.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", p.Socket)
		},
	}}
	s.followed(p)
	return p
}

// PID is the process's number.
func (p *Process) PID() int { return p.whereabouts.PID }

// Adopted reports whether another supervisor has started the process.
func (p *Process) Adopted() bool { return p.adopted }

// Ended is closed when the process has ended. Err then says of what.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Err is what the process ended of, an *EndError, or nil when it was told to end. It waits for the end.
func (p *Process) Err() error {
	<-p.ended
	return p.err
}

// Run has the process begin the job's run, unless it has begun.
func (p *Process) Run(ctx context.Context) error { return p.ask(ctx, "run", nil) }

// End ends the job's run and returns what it failed of. The job stays open.
func (p *Process) End(ctx context.Context) error { return p.ask(ctx, "end", nil) }

// Savepoint makes a savepoint of the job in a directory.
func (p *Process) Savepoint(ctx context.Context, dir string) error {
	return p.ask(ctx, "savepoint", url.Values{"dir": {dir}})
}

// Copy makes a directory of the job as it is after its last commit.
func (p *Process) Copy(ctx context.Context, dir string) error {
	return p.ask(ctx, "copy", url.Values{"dir": {dir}})
}

// ErrOlder is of a process that does not know what it is asked for: its executable was built with an older version.
var ErrOlder = errors.New("its executable was built with an older version that cannot do this")

// Hold has sinks of the job publish nothing until release is called, this process ends, or that of the job. When ctx ends first, it holds none.
func (p *Process) Hold(ctx context.Context, sinks ...string) (release func(), err error) {
	ctx, cancel := context.WithCancel(ctx) // it ends the request, and with it the hold
	res, err := p.request(ctx, http.MethodPost, "hold", url.Values{"sink": sinks})
	if err != nil {
		cancel()
		return nil, err
	}
	return func() {
		cancel()
		_ = res.Body.Close() // it has nothing
	}, nil
}

// Progress asks how far the job is.
func (p *Process) Progress(ctx context.Context, progress any) error {
	body, err := p.do(ctx, http.MethodGet, "progress", nil)
	if err == nil {
		err = json.Unmarshal(body, progress)
	}
	return err
}

// Gather returns the job's metrics, and none when the process has ended.
func (p *Process) Gather(ctx context.Context) ([]*dto.MetricFamily, error) {
	body, err := p.do(ctx, http.MethodGet, "metrics", nil)
	if err != nil {
		select {
		case <-p.ended:
			err = nil
		default:
		}
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	var all []*dto.MetricFamily
	for _, f := range families {
		all = append(all, f)
	}
	return all, err
}

// Close has the process close the job and end. One that does not end in time is killed, which is an error; what the job has committed is there
// all the same.
func (p *Process) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), p.grace)
	defer cancel()
	err := p.ask(ctx, "close", nil)
	select {
	case <-p.ended:
		<-p.heard
		return p.err
	case <-ctx.Done():
	}
	return errors.Join(fmt.Errorf("process %d of job %s did not end in %s, and was killed", p.PID(), p.id, p.grace), err, p.kill("it did not end when it was told to"))
}

// Kill ends the process at once and returns when it has ended.
func (p *Process) Kill() error { return p.kill("it was killed by its supervisor") }

func (p *Process) kill(why string) error {
	p.mu.Lock()
	p.killed = why
	p.mu.Unlock()
	select {
	case <-p.ended:
		return nil
	default:
	}
	if err := syscall.Kill(p.PID(), syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill process %d: %w", p.PID(), err)
	}
	<-p.ended
	<-p.heard
	return nil
}

// ask has the process do something and waits until it has. When the process ends instead, the error is what it ended of.
func (p *Process) ask(ctx context.Context, what string, with url.Values) error {
	_, err := p.do(ctx, http.MethodPost, what, with)
	return err
}

func (p *Process) do(ctx context.Context, method, what string, with url.Values) (_ []byte, err error) {
	res, err := p.request(ctx, method, what, with)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return nil, p.silence(ctx, err)
	}
	return body, nil
}

// request returns the answer when it is a good one. The caller closes its body.
func (p *Process) request(ctx context.Context, method, what string, with url.Values) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://job/"+what+"?"+with.Encode(), http.NoBody)
	if err != nil {
		return nil, err
	}
	res, err := p.http.Do(r)
	if err == nil && res.StatusCode == http.StatusOK {
		return res, nil
	}
	if err == nil {
		var body []byte
		body, err = io.ReadAll(res.Body)
		if err = errors.Join(err, res.Body.Close()); err == nil {
			if res.StatusCode == http.StatusNotFound {
				return nil, fmt.Errorf("process %d of job %s: %w", p.PID(), p.id, ErrOlder)
			}
			return nil, errors.New(strings.TrimSpace(string(body)))
		}
	}
	return nil, p.silence(ctx, err)
}

// silence is why there is no answer: the process is ending, or there is no reason.
func (p *Process) silence(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	select {
	case <-p.ended:
		if p.err != nil {
			return p.err
		}
		return fmt.Errorf("the process of job %s has ended", p.id)
	case <-time.After(time.Second):
		return fmt.Errorf("process %d of job %s does not answer: %w", p.PID(), p.id, err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitChild notes the end of a process that this one has started.
func (p *Process) awaitChild(cmd *exec.Cmd) {
	err := cmd.Wait()
	if p.tie != nil {
		_ = p.tie.Close() // nobody is at its other end
	}
	how := ""
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		how = exit.Error()
	}
	p.end(how)
}

// lookEvery is how often it is looked whether something is there or gone that says nothing.
const lookEvery = 20 * time.Millisecond

// awaitLock notes the end of a process that another one has started: the lock is free, or of the next process.
func (p *Process) awaitLock() {
	for range time.Tick(lookEvery) { // to wait for the lock would be to wait for the next process too
		lock, err := takeLock(p.dir)
		var at whereabouts
		switch {
		case err == nil:
			_ = lock.Close() // nothing was written
			p.end("it was killed")
			return
		case !errors.Is(err, errHeld):
			p.end("its end cannot be waited for: " + err.Error())
			return
		case readJSON(filepath.Join(p.dir, processFile), &at) == nil && at != p.whereabouts:
			p.end("")
			return
		}
	}
}

// end notes that the process has ended, how the system says when it did not say so itself.
func (p *Process) end(how string) {
	defer close(p.ended)
	p.http.CloseIdleConnections()
	var said EndError
	if err := readJSON(filepath.Join(p.dir, endFile), &said); err == nil {
		if said.Reason != "" {
			p.err = &said
		}
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.killed != "" {
		how = p.killed
	}
	if how == "" {
		return // it was told to, and a new one has begun meanwhile
	}
	p.err = &EndError{Reason: fmt.Sprintf("process %d of the job ended: %s%s; its log is %s", p.PID(), how, p.lastWords(), LogFile(p.dir))}
}

// lastWords is the line with which a process that panicked says so.
func (p *Process) lastWords() string {
	b, err := os.ReadFile(LogFile(p.dir))
	if err != nil || int64(len(b)) < p.logFrom {
		return ""
	}
	for line := range strings.Lines(string(b[p.logFrom:])) {
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			return ": " + strings.TrimSpace(line)
		}
	}
	return ""
}
