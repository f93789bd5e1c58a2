package main

import (
	"cmp"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"millrace/control"
)

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "token", Short: "Tokens of people and programs: who may see what, and who may change it",
		Args: unknownCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(tokenAddCommand(), tokenListCommand(), tokenRevokeCommand())
	return cmd
}

func tokenAddCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Make a token and print it, once",
		Long: `Make a token and print it. Who has it may do what its role may: a viewer sees the console's overview and /metrics, an analyst all tables too, an operator
changes what runs, an admin may do everything. With --account it is bound to one tenant: it sees what is of that account, and nothing of another one nor of the
stack as a whole. An admin is not bound. Only its hash is kept: a token that is lost is revoked and replaced by another.`,
		Args: exactArgs(),
	}
	token := control.Token{}
	cmd.Flags().StringVar(&token.Name, "name", "", "what the token is called, such as the program or the person that gets it")
	role := cmd.Flags().String("role", control.Analyst.String(), "viewer, analyst, operator or admin")
	cmd.Flags().StringVar(&token.Account, "account", "", "the tenant that it is bound to, of whom there need be nothing yet; default: none, and it sees all")
	expires := cmd.Flags().Duration("expires", 0, "how long it is good, such as 2160h; default: until it is revoked")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if token.Name == "" {
			return usagef("token add needs --name")
		}
		if token.Role, err = control.ParseRole(*role); err != nil {
			return usagef("--role: %w", err)
		}
		if *expires < 0 {
			return usagef("--expires %s: want a positive duration such as 2160h", *expires)
		}
		if *expires > 0 {
			token.Expires = time.Now().Add(*expires)
		}
		return withStore(cmd, func(store *control.Store) error {
			return audited(cmd.Context(), store, "add token", token.Name+", "+roleOf(token.Role, token.Account), func() error {
				secret, err := store.Tokens.Add(cmd.Context(), token)
				if err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), secret)
				}
				return err
			})
		})
	}
	return cmd
}

// roleOf is what somebody may do, and where, for the audit log.
func roleOf(role control.Role, account string) string {
	if account == "" {
		return role.String()
	}
	return role.String() + " of account " + account
}

func tokenListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the tokens, without what is secret of them", Args: exactArgs()}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return withStore(cmd, func(store *control.Store) error {
			all, err := store.Tokens.List(cmd.Context())
			if err != nil {
				return err
			}
			date := func(at time.Time) string {
				if at.IsZero() {
					return "–"
				}
				return at.Format(time.RFC3339)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tROLE\tACCOUNT\tCREATED\tEXPIRES\tUSED")
			for _, t := range all {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", t.Name, t.Role, cmp.Or(t.Account, "–"), date(t.Created), date(t.Expires), date(t.Used))
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
		return withStore(cmd, func(store *control.Store) error {
			return audited(cmd.Context(), store, "revoke token", args[0], func() error { return store.Tokens.Revoke(cmd.Context(), args[0]) })
		})
	}
	return cmd
}
