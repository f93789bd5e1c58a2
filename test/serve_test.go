package test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
)

// serving is a running 'millrace serve'.
type serving struct {
	cmd  *exec.Cmd
	done chan error
}

var addresses = regexp.MustCompile(`console (\S+), collector (\S+), log (\S+), index (\S+)`)

// start starts 'millrace serve' on a free port and waits until it says where console, collector, log and index are.
func start(dir string, args ...string) (*serving, []string, error) {
	return startWith(dir, nil, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
}

// startWith starts the program with an environment, nil for that of the tests, and waits until it says where it listens.
func startWith(dir string, env []string, args ...string) (*serving, []string, error) {
	cmd := exec.Command(millrace, args...)
	cmd.Dir, cmd.Env = dir, env
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	s := &serving{cmd: cmd, done: make(chan error, 1)}
	found := make(chan []string, 1)
	said := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stderr)
		var all []string
		for lines.Scan() {
			all = append(all, lines.Text())
			if m := addresses.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1:]
			}
		}
		said <- strings.Join(all, "\n")
		s.done <- cmd.Wait()
	}()
	select {
	case at := <-found:
		return s, at, nil
	case text := <-said:
		return nil, nil, fmt.Errorf("serve ended at once: %s", text)
	}
}

func startServe(t *testing.T, args ...string) (*serving, []string) {
	t.Helper()
	s, at, err := start("", args...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.cmd.Process.Kill() }) // it may have ended
	return s, at
}

// stop interrupts the server, which must end cleanly.
func (s *serving) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return err
	}
	return <-s.done
}

func (s *serving) interrupt(t *testing.T) {
	t.Helper()
	require.NoError(t, s.stop())
}

// running holds the serving of each script, by its work directory.
var running sync.Map

var commands = map[string]func(*testscript.TestScript, bool, []string){
	"serve": serveCommand, "interrupt": interruptCommand, "kill9": killCommand, "http": httpCommand, "ask": askCommand,
}

// serve ARGS… starts 'millrace serve' and sets CONSOLE, COLLECTOR, LOG and INDEX.
func serveCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("serve cannot be negated; use ! exec millrace serve")
	}
	s, at, err := start(ts.Getenv("WORK"), args...)
	ts.Check(err)
	running.Store(ts.Getenv("WORK"), s)
	ts.Defer(func() { _ = s.cmd.Process.Kill() }) // it may have ended
	for i, name := range []string{"CONSOLE", "COLLECTOR", "LOG", "INDEX"} {
		ts.Setenv(name, at[i])
	}
}

// interrupt interrupts the running server, which must end cleanly. It is not called stop: that ends a script at once, as passed.
func interruptCommand(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(theServing(ts).stop())
}

// kill9 kills the running server.
func killCommand(ts *testscript.TestScript, _ bool, _ []string) {
	s := theServing(ts)
	ts.Check(s.cmd.Process.Kill())
	if err := <-s.done; err == nil {
		ts.Fatalf("serve ended before it was killed")
	}
}

func theServing(ts *testscript.TestScript) *serving {
	v, ok := running.LoadAndDelete(ts.Getenv("WORK"))
	if !ok {
		ts.Fatalf("nothing is serving")
	}
	return v.(*serving)
}

// http PATTERN URL [FILE] gets the URL, or posts the file to it, until the answer is 200 and matches the pattern: what is sent is
// there a moment later. HTTP gives no signal of that, so it asks again every 50 ms. It gives up after ten seconds.
func httpCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: http PATTERN URL [FILE]")
	}
	pattern, err := regexp.Compile(args[0])
	ts.Check(err)
	deadline := time.Now().Add(time.Minute) // of a busy machine
	for {
		body, err := request(ts, args[1:])
		if err == nil && pattern.MatchString(body) {
			fmt.Fprintln(ts.Stdout(), body)
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s does not match %q: %s, %v", args[1], args[0], body, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

func request(ts *testscript.TestScript, args []string) (string, error) {
	var res *http.Response
	var err error
	if len(args) == 2 {
		f, openErr := os.Open(ts.MkAbs(args[1]))
		ts.Check(openErr)
		defer func() { _ = f.Close() }() // it was only read
		res, err = http.Post(args[0], "application/json", f)
	} else {
		res, err = http.Get(args[0])
	}
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(res.Status)
	}
	return string(body), err
}

// ask STATUS METHOD URL [FILE [BODY]] asks once, with the token in the file and the body in the other, wants that status, and prints the answer.
func askCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args) > 5 {
		ts.Fatalf("usage: ask STATUS METHOD URL [FILE [BODY]]")
	}
	sent := ""
	if len(args) > 4 {
		sent = ts.ReadFile(args[4])
	}
	req, err := http.NewRequest(args[1], args[2], strings.NewReader(sent))
	ts.Check(err)
	if len(args) > 3 {
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(ts.ReadFile(args[3])))
	}
	res, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer func() { _ = res.Body.Close() }() // it was only read
	body, err := io.ReadAll(res.Body)
	ts.Check(err)
	fmt.Fprintln(ts.Stdout(), string(body))
	if fmt.Sprint(res.StatusCode) != args[0] {
		ts.Fatalf("%s %s answers %s, not %s: %s", args[1], args[2], res.Status, args[0], body)
	}
}
