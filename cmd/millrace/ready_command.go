package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func readyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ready",
		Short: "Say whether the process that uses a data directory can do its work; exit with 1 when it cannot",
		Long:  "Say whether the process that uses a data directory can do its work, as its /readyz does; exit with 1 when it cannot. For health checks where there is nothing else to ask with.",
		Args:  exactArgs(),
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := newClient(cmd)
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(cmd.Context(), http.MethodGet, "http://"+c.Listen+"/readyz", http.NoBody)
		if err != nil {
			return err
		}
		res, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
		if err != nil {
			return fmt.Errorf("ask process %d, which uses the data directory: %w", c.PID, err)
		}
		defer func() { _ = res.Body.Close() }() // it was only read
		text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
		if err != nil {
			return fmt.Errorf("ask process %d, which uses the data directory: %w", c.PID, err)
		}
		said := strings.TrimSpace(string(text))
		if res.StatusCode != http.StatusOK {
			return errors.New(said)
		}
		fmt.Fprintln(cmd.OutOrStdout(), said)
		return nil
	}
	return cmd
}
