// Command millrace turns Caliper events into tables and reports: collector, log, lake, jobs, index and console in one program.
//
// A command is a file. What several need (the data directory, the running stack, the ledger) has a file of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// version is set by the release build.
var version = "dev"

// Exit codes.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitNotAllowed  = 4
	exitConflict    = 5
	exitTimedOut    = 6
	exitInterrupted = 130
)

// usageError is a mistake in how the command was called.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	cmd := rootCommand()
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))):
		return exitInterrupted
	case errors.As(err, &usage):
		fmt.Fprintln(os.Stderr, "millrace:", err)
		fmt.Fprintf(os.Stderr, "Run '%s --help' for its flags.\n", calledCommand(cmd, args))
		return exitUsage
	}
	fmt.Fprintln(os.Stderr, "millrace:", sentence(err))
	if errors.Is(err, errTimedOut) {
		return exitTimedOut
	}
	var coded interface{ exitCode() int }
	if errors.As(err, &coded) {
		return coded.exitCode()
	}
	return exitFailed
}

// sentence is what a person is told of an error. A full disk makes every part fail at once: one line says all that can be done.
func sentence(err error) string {
	text := err.Error()
	line, _, _ := strings.Cut(text, "\n")
	switch {
	case errors.Is(err, errDiskFull):
		return line
	case strings.Contains(text, syscall.ENOSPC.Error()):
		return fmt.Sprintf("the disk is full (%s); %s", line, errDiskFull)
	}
	// Parts that fail to close for the reason that another failed to open say nothing new.
	said := line
	for _, more := range strings.Split(text, "\n")[1:] {
		if !strings.Contains(said, more) {
			said += "\n" + more
		}
	}
	return said
}

// calledCommand is the path of the command that args mean, for a hint.
func calledCommand(root *cobra.Command, args []string) string {
	if cmd, _, err := root.Find(args); err == nil {
		return cmd.CommandPath()
	}
	return root.CommandPath()
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "millrace",
		Short:         "Turn Caliper events into tables and reports, exactly once",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          unknownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return flagError(err) })
	root.PersistentFlags().String("data-dir", "millrace-data", "directory that holds everything")
	root.PersistentFlags().String("config", "", "file with settings; default: $MILLRACE_CONFIG, else ./millrace.yaml if it is there")
	askedFlags(root)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if _, err := configure(cmd); err != nil {
			return err
		}
		return checkReach(cmd)
	}
	root.AddCommand(
		demoCommand(), serveCommand(), readyCommand(), versionCommand(), configCommand(), appCommand(), newCommand(), buildCommand(), contextCommand(), stackCommand(), deployCommand(), blockerCommand(), keyCommand(), userCommand(), tokenCommand(), auditCommand(), sendCommand(), describeCommand(),
		tablesCommand(), rowsCommand(), rawCommand(), sqlCommand(), diffCommand(), lakeCommand(), replayCommand(), checkCommand(), savepointCommand(), backupCommand(), restoreCommand(), forgetCommand(), benchCommand(), logsCommand(), topCommand(), doctorCommand(), runCommand(),
	)
	return root
}

// flagWants says what a flag takes, by the type of its value.
var flagWants = map[string]string{
	"duration": "a duration such as 60s", "float64": "a number", "int": "a whole number", "int64": "a whole number", "uint64": "a whole number, 0 or more",
	"intSlice": "whole numbers with commas between them", "bool": "true or false", "role": "none, viewer or analyst",
}

// flagError says what is wrong with a flag in the words of the command line, not in those of what parses it.
func flagError(err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		if want, ok := flagWants[invalid.GetFlag().Value.Type()]; ok {
			return usagef("--%s %q: want %s", invalid.GetFlag().Name, invalid.GetValue(), want)
		}
	}
	return usageError{err}
}

func unknownCommand(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("there is no command %q", args[0])
	}
	return nil
}

// exactArgs is cobra.ExactArgs with a message that says what is missing.
func exactArgs(what ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(what):
			return usagef("%s needs %s", cmd.CommandPath(), what[len(args)])
		case len(args) > len(what):
			return usagef("%s: %q is one argument too many", cmd.CommandPath(), args[len(what)])
		}
		return nil
	}
}

// outputFlag adds -o and returns its value, which must be one of the allowed.
func outputFlag(cmd *cobra.Command, allowed ...string) func() (string, error) {
	o := cmd.Flags().StringP("output", "o", allowed[0], fmt.Sprintf("output format: %v", allowed))
	return func() (string, error) {
		if wanted := os.Getenv(outputVariable); !cmd.Flag("output").Changed && slices.Contains(allowed, wanted) {
			return wanted, nil
		}
		for _, a := range allowed {
			if *o == a {
				return a, nil
			}
		}
		return "", usagef("-o %s: %s prints %v", *o, cmd.CommandPath(), allowed)
	}
}
