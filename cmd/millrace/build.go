package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"millrace/artifact"
	"millrace/control"
)

func buildCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "build [DIR]",
		Short: "Build the artifact of an app: its executable with descriptor, plan and schemas",
		Long: `Build the artifact of the app whose project is in DIR, here unless given, with the Go that is installed: one file with the executable for this platform, its descriptor, its plan
with the schemas of its tables, version and commit. Print the file's name.`,
		Args: cobra.MaximumNArgs(1),
	}
	out := cmd.Flags().String("out", "", "name of the file; default: APP-VERSION-PLATFORM.tar.gz")
	cmd.AddCommand(buildPushCommand(), buildListCommand(), buildDeleteCommand())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dir := "."
		if len(args) > 0 {
			dir = args[0]
		}
		name, err := buildArtifact(cmd, dir, *out)
		if err == nil {
			fmt.Fprintln(cmd.OutOrStdout(), name)
		}
		return err
	}
	return cmd
}

// buildArtifact builds an artifact and returns the name of its file.
func buildArtifact(cmd *cobra.Command, dir, out string) (name string, err error) {
	work, err := os.MkdirTemp("", "millrace-build-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	executable := filepath.Join(work, "app")
	if name, err := runGo(cmd, dir, "list", "-f", "{{.Name}}", "."); err != nil {
		return "", err
	} else if name != "main" {
		return "", fmt.Errorf("%s has no main package: 'millrace new' makes a project that has", dir)
	}
	if _, err := runGo(cmd, dir, "build", "-trimpath", "-o", executable, "."); err != nil {
		return "", err
	}
	packed := filepath.Join(work, "artifact")
	f, err := os.Create(packed)
	if err != nil {
		return "", err
	}
	m, err := artifact.Pack(cmd.Context(), executable, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	if _, err := control.ParseDescriptor("descriptor.json", m.Descriptor); err != nil {
		return "", err
	}
	if out == "" {
		out = fmt.Sprintf("%s-%s-%s.tar.gz", m.App, m.Version, strings.ReplaceAll(m.Platform, "/", "-"))
	}
	return out, moveFile(packed, out)
}

// runGo runs Go in a project and returns what it prints.
func runGo(cmd *cobra.Command, dir string, args ...string) (string, error) {
	run := exec.CommandContext(cmd.Context(), "go", args...)
	run.Dir, run.Stderr = dir, cmd.ErrOrStderr()
	out, err := run.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return "", errors.New("there is no Go to build with: install it from https://go.dev/dl/")
	}
	if err != nil {
		return "", fmt.Errorf("go %s in %s: %w", args[0], dir, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// moveFile gives a file another name, also on another disk. Whoever has the name finds the whole file.
func moveFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to+".tmp", b, 0o644); err != nil {
		return err
	}
	return os.Rename(to+".tmp", to)
}
