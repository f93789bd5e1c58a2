package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"millrace"
	"millrace/control/local"
	"millrace/internal/retry"
)

func logsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "logs APP [DATA-VERSION]",
		Short: "Print what the job of a data version says",
		Long: `Print the last lines of what the job of a data version says, also when it does not run. DATA-VERSION is ` + millrace.Unversioned + `, unless given.
With --follow it goes on with what the job says from then on, over its restarts, until interrupted. Of a data directory it reads the files, also when nothing uses it;
a context is asked for them, which takes an operator, and one that goes away meanwhile is asked again for what came after the last line.`,
		Args: cobra.RangeArgs(1, 2),
	}
	lines := cmd.Flags().IntP("lines", "n", 100, "how many of the last lines; a context has 10000 at most")
	follow := cmd.Flags().BoolP("follow", "f", false, "go on with what it says from now on")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *lines < 0 {
			return usagef("--lines %d: want 0 or more", *lines)
		}
		dataVersion := millrace.Unversioned
		if len(args) > 1 {
			dataVersion = args[1]
		}
		t, err := askedBy(cmd)
		if err != nil {
			return err
		}
		if !t.isRemote() {
			return localLogs(cmd, args[0], dataVersion, *lines, *follow)
		}
		c, err := remoteClient(t)
		if err != nil {
			return err
		}
		path := fmt.Sprintf("%s?lines=%d", pathOf(args[0], "instances", dataVersion, "logs"), *lines)
		if *follow {
			return c.followLogs(cmd, path+"&follow=true")
		}
		req, err := c.request(cmd.Context(), http.MethodGet, path, http.NoBody)
		if err != nil {
			return err
		}
		req.Header.Set("Accept", "text/plain")
		res, err := c.roundTrip(req)
		if err != nil {
			return err
		}
		defer func() { _ = res.Body.Close() }() // it was only read
		_, err = io.Copy(cmd.OutOrStdout(), res.Body)
		return err
	}
	return cmd
}

// localLogs prints the log of a data directory.
func localLogs(cmd *cobra.Command, app, dataVersion string, lines int, follow bool) error {
	dir, err := readDataDir(dataDirFlag(cmd))
	if err != nil {
		return err
	}
	id := millrace.Instance{Program: app, Account: system, Env: system, DataVersion: dataVersion}.UniqueID()
	name := local.LogFile(dir.join(processesDir, id))
	if _, err := os.Stat(name); err != nil {
		return noLog(dir, id, err)
	}
	r, err := local.ReadLog(name, local.LogStart{Lines: lines, Follow: follow})
	if err != nil {
		return err
	}
	if !follow {
		return local.Copy(r, cmd.OutOrStdout())
	}
	return errors.Join(local.Follow(cmd.Context(), r, cmd.OutOrStdout()), cmd.Context().Err())
}

// noLog says which jobs have a log when one has none.
func noLog(dir *dataDir, id string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	folders, err := os.ReadDir(dir.join(processesDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text := fmt.Sprintf("%s has said nothing in %s yet", id, dir.path)
	for i, f := range folders {
		if i == 0 {
			text += "; what is there is of:"
		}
		text += "\n  " + f.Name()
	}
	return errors.New(text)
}

// followLogs prints a stream of lines until ctx ends. One that breaks off is asked for again; the first has to begin.
func (c client) followLogs(cmd *cobra.Command, path string) error {
	ctx := cmd.Context()
	var last string
	_, err := c.streamLines(cmd, path, &last)
	if last == "" { // it has not begun
		return err
	}
	for {
		err := retry.Do(ctx, retry.Policy{OnRetry: func(attempt int, err error, _ time.Duration) {
			if attempt == 1 {
				fmt.Fprintf(cmd.ErrOrStderr(), "millrace: %s; it is asked again\n", err)
			}
		}}, func(context.Context) error {
			heard, err := c.streamLines(cmd, path, &last)
			if heard && ctx.Err() == nil { // what follows is another failure
				return nil
			}
			if answered := (problemError{}); errors.As(err, &answered) && answered.Status < http.StatusInternalServerError {
				return retry.Permanent(err)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
}

// silence is how long a stream may say nothing before it is taken for broken. It says something four times as often.
const silence = time.Minute

// streamLines prints the lines of one stream until it ends, which is always an error, and keeps the id of the last one. It reports whether it had any.
func (c client) streamLines(cmd *cobra.Command, path string, last *string) (heard bool, err error) {
	ctx, cancel := context.WithCancelCause(cmd.Context())
	defer cancel(nil)
	req, err := c.request(ctx, http.MethodGet, path, http.NoBody)
	if err != nil {
		return false, err
	}
	if *last != "" {
		req.Header.Set("Last-Event-ID", *last)
	}
	res, err := c.roundTrip(req)
	if err != nil {
		return false, err
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	broken := time.AfterFunc(silence, func() { cancel(fmt.Errorf("%s has said nothing for %s", c.name, silence)) })
	defer broken.Stop()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	var id, event string
	var data []string
	for lines.Scan() {
		broken.Reset(silence)
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			id = value
		case "event":
			event = value
		case "data":
			data = append(data, value)
		case "":
			if lines.Text() != "" { // a comment
				continue
			}
			text := strings.Join(data, "\n")
			switch {
			case event == "lost":
				fmt.Fprintln(cmd.ErrOrStderr(), "millrace: "+text)
			case data != nil:
				heard = true
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), text); err != nil {
					return false, retry.Permanent(err)
				}
			}
			if id != "" {
				*last = id
			}
			event, data = "", nil
		}
	}
	if err = lines.Err(); err == nil {
		err = errors.New("it has ended the stream")
	}
	if cmd.Context().Err() != nil {
		return heard, cmd.Context().Err()
	}
	if ctx.Err() != nil {
		return heard, context.Cause(ctx)
	}
	return heard, c.away(err)
}
