package main

import (
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"millrace/control"
)

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "token", Short: "Tokens of programs that read the lake through the catalogue at /iceberg",
		Args: unknownCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(tokenAddCommand(), tokenListCommand(), tokenRevokeCommand())
	return cmd
}

// withTokens opens the tokens of the command's data directory, whether or not a stack uses it: it finds them in the same file.
func withTokens(cmd *cobra.Command, fn func(*control.Tokens) error) (err error) {
	path := dataDirFlag(cmd)
	dir, err := openDataDir(path)
	if errors.Is(err, errInUse) {
		dir, err = readDataDir(path)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	store, err := control.Open(dir.join("keys.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return fn(store.Tokens)
}

func tokenAddCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Make a token and print it, once",
		Long: `Make a token and print it. Who has it may read all tables of the lake, of all tenants. Only its hash is kept: a token that is lost is revoked
and replaced by another.`,
		Args: exactArgs(),
	}
	name := cmd.Flags().String("name", "", "what the token is called, such as the program that gets it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *name == "" {
			return usagef("token add needs --name")
		}
		return withTokens(cmd, func(tokens *control.Tokens) error {
			secret, err := tokens.Add(cmd.Context(), *name)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), secret)
			return nil
		})
	}
	return cmd
}

func tokenListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the tokens, without what is secret of them", Args: exactArgs()}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return withTokens(cmd, func(tokens *control.Tokens) error {
			all, err := tokens.List(cmd.Context())
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tCREATED")
			for _, t := range all {
				fmt.Fprintf(w, "%s\t%s\n", t.Name, t.Created.Format(time.RFC3339))
			}
			return w.Flush()
		})
	}
	return cmd
}

func tokenRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke NAME",
		Short: "End a token; a running serve refuses it after five seconds at most",
		Args:  exactArgs("the name of a token; 'millrace token list' lists them"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return withTokens(cmd, func(tokens *control.Tokens) error { return tokens.Revoke(cmd.Context(), args[0]) })
	}
	return cmd
}
