package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

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
		r, err := local.ReadLog(name, local.LogStart{Lines: *lines, Follow: *follow})
		if err != nil {
			return err
		}
		if *follow {
			return local.Follow(cmd.Context(), r, cmd.OutOrStdout())
		}
		return local.Copy(r, cmd.OutOrStdout())
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
