package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func readyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ready",
		Short: "Say whether what is asked can do its work; exit with 1 when it cannot",
		Long:  "Say whether the process that uses a data directory, or a context, can do its work, as its /readyz does; exit with 1 when it cannot. For health checks where there is nothing else to ask with.",
		Args:  exactArgs(),
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := newClient(cmd)
		if err != nil {
			return err
		}
		said, err := c.askReady(cmd.Context())
		if errors.Is(err, errNotReady) {
			return errors.New(said)
		}
		if err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), said)
		return nil
	}
	return cmd
}
