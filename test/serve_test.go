package test

import (
	"bufio"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
)

// serving is a running 'millrace serve' of a script.
type serving struct {
	cmd  *exec.Cmd
	done chan error
}

// running holds the serving of each script, by its work directory.
var running sync.Map

var addresses = regexp.MustCompile(`console (\S+), collector (\S+), log (\S+), index (\S+)`)

// serve starts 'millrace serve' with the given arguments on free ports, waits until it says where it listens, and sets CONSOLE,
// COLLECTOR, LOG and INDEX. The script ends it, at the latest by its own end.
func serve(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("serve cannot be negated; use exec millrace serve")
	}
	cmd := exec.Command(millrace, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	cmd.Dir = ts.Getenv("WORK")
	stderr, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	s := &serving{cmd: cmd, done: make(chan error, 1)}
	running.Store(ts.Getenv("WORK"), s)
	ts.Defer(func() { _ = cmd.Process.Kill() }) // it may have ended

	found := make(chan []string, 1)
	go func() {
		lines := bufio.NewScanner(stderr)
		var said []string
		for lines.Scan() {
			said = append(said, lines.Text())
			if m := addresses.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1:]
			}
		}
		err := cmd.Wait()
		select {
		case found <- nil:
			ts.Logf("serve said:\n%s", strings.Join(said, "\n"))
		default:
		}
		s.done <- err
	}()
	at := <-found
	if at == nil {
		ts.Fatalf("serve ended at once")
	}
	for i, name := range []string{"CONSOLE", "COLLECTOR", "LOG", "INDEX"} {
		ts.Setenv(name, at[i])
	}
}

// stop interrupts the running serve, which must end cleanly.
func stop(ts *testscript.TestScript, _ bool, _ []string) {
	s := theServing(ts)
	ts.Check(s.cmd.Process.Signal(syscall.SIGINT))
	if err := <-s.done; err != nil {
		ts.Fatalf("serve ended with %v", err)
	}
}

// kill9 kills the running serve.
func kill9(ts *testscript.TestScript, _ bool, _ []string) {
	s := theServing(ts)
	ts.Check(s.cmd.Process.Kill())
	<-s.done
}

func theServing(ts *testscript.TestScript) *serving {
	v, ok := running.LoadAndDelete(ts.Getenv("WORK"))
	if !ok {
		ts.Fatalf("nothing is serving")
	}
	return v.(*serving)
}
