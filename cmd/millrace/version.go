package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// build says which program this is.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Time     string `json:"time,omitempty"`     // of the commit
	Modified bool   `json:"modified,omitempty"` // the tree was not that of the commit
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func thisBuild() build {
	b := build{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func versionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print which program this is", Args: exactArgs()}
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		b := thisBuild()
		if format == "json" {
			return printJSON(cmd, b)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "millrace %s, %s, %s\n", b.Version, b.Platform, b.Go)
		if b.Commit != "" {
			state := ""
			if b.Modified {
				state = ", with changes"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "commit %s of %s%s\n", b.Commit, b.Time, state)
		}
		return nil
	}
	return cmd
}
