package main

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"millrace/control"
	"millrace/control/api"
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
stack as a whole. An admin is not bound. One that is made with a token that expires ends at the latest when that does. Only its hash is kept: a token that is lost is revoked and replaced by another.`,
		Args: exactArgs(),
	}
	ask := api.TokenAsk{Who: whoAmI()}
	cmd.Flags().StringVar(&ask.Name, "name", "", "what the token is called, such as the program or the person that gets it")
	cmd.Flags().StringVar(&ask.Role, "role", control.Analyst.String(), "viewer, analyst, operator or admin")
	cmd.Flags().StringVar(&ask.Account, "account", "", "the tenant that it is bound to, of whom there need be nothing yet; default: none, and it sees all")
	expires := cmd.Flags().Duration("expires", 0, "how long it is good, such as 2160h; default: until it is revoked")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if ask.Name == "" {
			return usagef("token add needs --name")
		}
		if _, err := control.ParseRole(ask.Role); err != nil {
			return usagef("--role: %w", err)
		}
		if *expires < 0 {
			return usagef("--expires %s: want a positive duration such as 2160h", *expires)
		}
		if *expires > 0 {
			ask.Expires = time.Now().Add(*expires).UTC()
		}
		return withIdentities(cmd, func(c client) error {
			var made api.Secret
			if err := c.do(cmd.Context(), http.MethodPost, api.TokensPath, ask, &made); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), made.Secret)
			if !made.Expires.IsZero() && !made.Expires.Equal(ask.Expires) {
				fmt.Fprintf(cmd.ErrOrStderr(), "millrace: it is good until %s, when the token ends that made it\n", made.Expires.Format(time.RFC3339))
			}
			return nil
		})
	}
	return cmd
}

func tokenListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the tokens, without what is secret of them", Args: exactArgs()}
	output := outputFlag(cmd, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		return withIdentities(cmd, func(c client) error {
			all, err := listAll(cmd.Context(), c, api.TokensPath, url.Values{}, func(t api.Token) string { return t.Name })
			if err != nil {
				return err
			}
			if format == "json" {
				return printJSON(cmd, all)
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
		Short: "End a token, at once",
		Args:  exactArgs("the name of a token; 'millrace token list' lists them"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return withIdentities(cmd, func(c client) error {
			return c.do(cmd.Context(), http.MethodPost, api.TokensPath+"/"+url.PathEscape(args[0])+"/revoke", api.EndAsk{Who: whoAmI()}, &api.Ended{})
		})
	}
	return cmd
}
