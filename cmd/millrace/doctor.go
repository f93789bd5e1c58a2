package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"millrace/control"
	"millrace/control/local"
	"millrace/web"
)

// finding is what doctor has found out about one thing.
type finding struct {
	State string `json:"state"` // ok, warn or bad
	What  string `json:"what"`
	Do    string `json:"do,omitempty"` // against it
}

// States of a finding.
const (
	fine  = "ok"
	doubt = "warn" // it works, and may not for long, or not as it is meant
	sick  = "bad"
)

// findings are all of an examination.
type findings []finding

func (f *findings) add(state, do, what string, args ...any) {
	*f = append(*f, finding{state, fmt.Sprintf(what, args...), do})
}

func doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what is wrong with a data directory and the process that uses it, and say what to do",
		Long: `Look for what is wrong with a data directory and the process that uses it, and say what to do: disk, limits, log, lake and index, jobs, ledger,
dead letters. Of a context, what it answers over its API. It changes nothing. The exit code is 1 when something is bad.`,
		Args: exactArgs(),
	}
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		all, err := examine(cmd)
		if err != nil {
			return err
		}
		if format == "json" {
			err = printJSON(cmd, all)
		} else {
			err = all.print(cmd.OutOrStdout())
		}
		n := 0
		for _, f := range all {
			if f.State == sick {
				n++
			}
		}
		if err == nil && n > 0 {
			err = fmt.Errorf("%d of %d things are bad", n, len(all))
		}
		return err
	}
	return cmd
}

func (f findings) print(w io.Writer) error {
	var b strings.Builder
	for _, one := range f {
		state := one.State
		if state == sick {
			state = strings.ToUpper(state)
		}
		fmt.Fprintf(&b, "%-4s  %s\n", state, one.What)
		if one.Do != "" {
			fmt.Fprintf(&b, "      %s\n", one.Do)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// examine looks at all that can be looked at. The error is that the directory cannot be.
func examine(cmd *cobra.Command) (findings, error) {
	t, err := askedBy(cmd)
	if err != nil {
		return nil, err
	}
	var all findings
	if t.isRemote() {
		c, err := remoteClient(t)
		if err == nil {
			all.running(cmd.Context(), c)
		}
		return all, err
	}
	dir, err := readDataDir(dataDirFlag(cmd))
	if err != nil {
		return nil, err
	}
	killed := dir.killed()
	all.add(fine, "", "data directory %s: format %d, made by %s", dir.path, dir.head.Format, dir.head.CreatedBy)
	all.disk(dir)
	all.limits()
	r, ok := dir.running()
	if !ok {
		all.stopped(cmd.Context(), dir, killed)
		return all, nil
	}
	all.running(cmd.Context(), localClient(r))
	return all, nil
}

// littleFree is how much free space is little, in bytes.
const littleFree = 2 << 30

func (f *findings) disk(dir *dataDir) {
	free, err := dir.free()
	switch {
	case err != nil:
		f.add(sick, "", "%s", err)
	case free < minFree:
		f.add(sick, "free some space: nothing runs with less than "+fmt.Sprint(minFree>>20)+" MB", "the disk has %d MB left", free>>20)
	case free < littleFree:
		f.add(doubt, "free some space, or move the directory to a larger disk", "the disk has %d MB left", free>>20)
	default:
		f.add(fine, "", "the disk has %.1f GB left", float64(free)/(1<<30))
	}
}

// fewFiles is a limit of open files that large states and many data versions come near to.
const fewFiles = 4096

func (f *findings) limits() {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return // unknown here
	}
	if files.Cur < fewFiles {
		f.add(doubt, fmt.Sprintf("raise it to %d or more where 'millrace serve' is started: LimitNOFILE= of systemd, or ulimit -n", fewFiles), "%d files may be open, here", files.Cur)
		return
	}
	f.add(fine, "", "%d files may be open, here", files.Cur)
}

// stopped is what can be said of a directory that nothing uses.
func (f *findings) stopped(ctx context.Context, dir *dataDir, killed bool) {
	const start = "start it with 'millrace serve'"
	if killed {
		f.add(doubt, start+": it goes on from the last commits", "nothing uses the directory, and the process that did was killed")
	} else {
		f.add(doubt, start, "nothing uses the directory")
	}
	if err := local.AwaitEnd(ctx, dir.join(processesDir), 0); err != nil {
		f.add(doubt, "start 'millrace serve' as it was: it takes the job over", "job %s", err)
	}
}

// long is how long a job may be behind before that is a finding.
const long = 5 * time.Minute

// running is what a process says of itself.
func (f *findings) running(ctx context.Context, c client) {
	st, err := c.status(ctx)
	if err != nil {
		f.add(sick, "look at its log, and restart it if this stays", "what runs does not answer: %s", err)
		return
	}
	f.add(fine, "", "%s, version %s, runs for %s", strings.TrimSuffix(c.name, usesDirectory), st.Version, st.At.Sub(st.StartedAt).Round(time.Second))
	if st.Version != version {
		f.add(doubt, "use the same version, or restart the process with this one", "this program is version %s, and what runs is %s", version, st.Version)
	}
	ready, err := c.askReady(ctx)
	switch {
	case errors.Is(err, errNotReady):
		for line := range strings.Lines(ready) {
			f.add(sick, "", "%s", strings.TrimSpace(line))
		}
	case err != nil:
		f.add(sick, "look at its log", "%s", err)
	default:
		f.add(fine, "", "log, lake and index answer, and sinks write")
	}
	for _, j := range st.Jobs {
		f.job(j)
	}
	f.accounts(st)
}

func (f *findings) job(j web.Job) {
	id := j.UniqueID
	switch {
	case j.State == string(control.Failed):
		line, _, _ := strings.Cut(j.Error, "\n")
		f.add(sick, "remove the cause, then 'millrace app recover'; 'millrace logs' has what it said", "job %s has failed: %s", id, line)
	case j.State == string(control.Restarting):
		line, _, _ := strings.Cut(j.Error, "\n")
		f.add(doubt, "'millrace logs' has what it said", "job %s is being started again: %s", id, line)
	case j.LagSeconds != nil && *j.LagSeconds > long.Seconds():
		f.add(doubt, "give it more --job-memory or --parallelism if it does not catch up", "job %s is %s behind", id, (time.Duration(*j.LagSeconds) * time.Second).String())
	default:
		f.add(fine, "", "job %s is %s", id, j.State)
	}
}

// accounts looks at what the ledger says, and at what waits for people.
func (f *findings) accounts(st web.Status) {
	for _, p := range st.Problems {
		f.add(doubt, "", "%s", p)
	}
	switch {
	case st.Ledger.Off():
		f.add(sick, "stop the process, and run 'millrace check': it names what is lost or doubled", "the ledger does not balance")
	case st.Ledger.Balanced():
		f.add(fine, "", "the ledger balances")
	default:
		f.add(fine, "", "the ledger moves: nothing is off for certain")
	}
	letters := int64(0)
	for _, t := range st.Tables {
		if t.DeadLetters != nil {
			letters += *t.DeadLetters
		}
	}
	if letters > 0 {
		f.add(doubt, "'millrace rows dead_letter' has their reasons; 'millrace replay' feeds them to an app that was mended", "%d records are dead letters", letters)
	}
}

var errNotReady = errors.New("not ready")

// askReady returns what the process says of its parts, with errNotReady when one cannot do its work.
func (c client) askReady(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := c.request(ctx, http.MethodGet, "/readyz", http.NoBody)
	if err != nil {
		return "", err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return "", c.away(err)
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	switch {
	case err != nil:
		return "", c.away(err)
	case res.StatusCode == http.StatusServiceUnavailable:
		err = errNotReady
	case res.StatusCode != http.StatusOK:
		err = fmt.Errorf("%s answers /readyz with %s: see that the URL is that of a Millrace", c.name, res.Status)
	}
	return strings.TrimSpace(string(text)), err
}
