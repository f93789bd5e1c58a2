package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"millrace"
	"millrace/control/local"
)

func logsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "logs APP [DATA-VERSION]",
		Short: "Print what the job of a data version says",
		Long: `Print the last lines of what the job of a data version says, also when it does not run. DATA-VERSION is ` + millrace.Unversioned + `, unless given.
With --follow it goes on with what the job says from then on, over its restarts, until interrupted.`,
		Args: cobra.RangeArgs(1, 2),
	}
	lines := cmd.Flags().IntP("lines", "n", 100, "how many of the last lines")
	follow := cmd.Flags().BoolP("follow", "f", false, "go on with what it says from now on")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *lines < 0 {
			return usagef("--lines %d: want 0 or more", *lines)
		}
		dir, err := readDataDir(dataDirFlag(cmd))
		if err != nil {
			return err
		}
		dataVersion := millrace.Unversioned
		if len(args) > 1 {
			dataVersion = args[1]
		}
		id := millrace.Instance{Program: args[0], Account: system, Env: system, DataVersion: dataVersion}.UniqueID()
		name := local.LogFile(dir.join(processesDir, id))
		if _, err := os.Stat(name); err != nil {
			return noLog(dir, id, err)
		}
		read, err := lastLines(name, *lines, cmd.OutOrStdout())
		if err != nil || !*follow {
			return err
		}
		return local.Follow(cmd.Context(), name, read, cmd.OutOrStdout())
	}
	return cmd
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

// lastLines copies the last lines of a log, and of the one before it when it has not as many. It returns how much of the log it has read.
func lastLines(name string, n int, w io.Writer) (read int64, err error) {
	now, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	before, err := os.ReadFile(name + ".1")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	lines := slices.Collect(bytes.Lines(slices.Concat(before, now)))
	_, err = w.Write(bytes.Join(lines[max(0, len(lines)-n):], nil))
	return int64(len(now)), err
}
