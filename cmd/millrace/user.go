package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"millrace/control"
	"millrace/control/api"
)

func userCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "user", Short: "People who sign in: who may see what, and who may change it",
		Long: `People who sign in to the console, with a password or at the provider of --oidc-issuer, which says their role. Programs have tokens. What is changed counts at once.`,
		Args: unknownCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(userAddCommand(), userListCommand(), userRoleCommand(), userPasswordCommand())
	for _, c := range []struct{ name, short string }{
		{"disable", "Keep a user from signing in, and sign them out"},
		{"enable", "Let a user sign in again"},
		{"delete", "Delete a user, and sign them out; one of --oidc-issuer comes back at the next sign-in, unless disabled in place of that"},
	} {
		cmd.AddCommand(&cobra.Command{
			Use: c.name + " NAME", Short: c.short, Args: exactArgs(userArg),
			RunE: func(cmd *cobra.Command, args []string) error {
				return changeUser(cmd, args[0], c.name, api.UserChange{})
			},
		})
	}
	return cmd
}

// changeUser has one of the changes of a user made.
func changeUser(cmd *cobra.Command, name, change string, to api.UserChange) error {
	to.Who = whoAmI()
	return withIdentities(cmd, func(c client) error {
		return c.do(cmd.Context(), http.MethodPost, api.UsersPath+"/"+url.PathEscape(name)+"/"+change, to, &struct{}{})
	})
}

const userArg = "the name of a user; 'millrace user list' lists them"

func userAddCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a user, whose password is asked for",
		Long:  "Add a user. The password is asked for on the terminal; with --password-stdin it is the first line of the standard input. It is kept as a hash. With --account the user sees what is of that tenant alone.",
		Args:  exactArgs("a name"),
	}
	ask := api.UserAsk{Who: whoAmI()}
	cmd.Flags().StringVar(&ask.Role, "role", control.Viewer.String(), "viewer, analyst, operator or admin")
	cmd.Flags().StringVar(&ask.Account, "account", "", "the tenant that the user is bound to, of whom there need be nothing yet; default: none, and they see all")
	password := passwordFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := control.ParseRole(ask.Role); err != nil {
			return usagef("--role: %w", err)
		}
		var err error
		if ask.Password, err = password(); err != nil {
			return err
		}
		ask.Name = args[0]
		return withIdentities(cmd, func(c client) error { return c.do(cmd.Context(), http.MethodPost, api.UsersPath, ask, &api.User{}) })
	}
	return cmd
}

func userPasswordCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "password NAME",
		Short: "Give a user another password, and sign them out",
		Args:  exactArgs(userArg),
	}
	password := passwordFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		text, err := password()
		if err != nil {
			return err
		}
		return changeUser(cmd, args[0], "password", api.UserChange{Password: text})
	}
	return cmd
}

func userRoleCommand() *cobra.Command {
	return &cobra.Command{
		Use: "role NAME ROLE", Short: "Give a user another role: viewer, analyst, operator or admin", Args: exactArgs(userArg, "a role: viewer, analyst, operator or admin"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := control.ParseRole(args[1]); err != nil {
				return usageError{err}
			}
			return changeUser(cmd, args[0], "role", api.UserChange{Role: args[1]})
		},
	}
}

func userListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the users", Args: exactArgs()}
	output := outputFlag(cmd, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		return withIdentities(cmd, func(c client) error {
			all, err := listAll(cmd.Context(), c, api.UsersPath, url.Values{}, func(u api.ListedUser) string { return u.Name })
			if err != nil {
				return err
			}
			if format == "json" {
				return printJSON(cmd, all)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tROLE\tACCOUNT\tCREATED\tSIGNED IN\t")
			for _, u := range all {
				signedIn, note := "–", ""
				if !u.SignedIn.IsZero() {
					signedIn = u.SignedIn.Format(time.RFC3339)
				}
				if u.Issuer != "" {
					note = "of " + u.Issuer
				}
				if u.Disabled {
					note = strings.TrimSuffix("disabled, "+note, ", ")
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", u.Name, u.Role, cmp.Or(u.Account, "–"), u.Created.Format(time.RFC3339), signedIn, note)
			}
			return w.Flush()
		})
	}
	return cmd
}

// passwordFlag adds where a password comes from, and returns what reads it.
func passwordFlag(cmd *cobra.Command) func() (string, error) {
	stdin := cmd.Flags().Bool("password-stdin", false, "the password is the first line of the standard input")
	return func() (string, error) {
		if *stdin {
			line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return "", err
			}
			return strings.TrimRight(line, "\r\n"), nil
		}
		in := int(os.Stdin.Fd()) //nolint:gosec // a small number
		if !term.IsTerminal(in) {
			return "", usagef("there is no terminal to ask for the password: give --password-stdin, and the password on the standard input")
		}
		var said [2]string
		for i, ask := range []string{"Password: ", "Again: "} {
			fmt.Fprint(cmd.ErrOrStderr(), ask)
			b, err := term.ReadPassword(in)
			fmt.Fprintln(cmd.ErrOrStderr())
			if err != nil {
				return "", err
			}
			said[i] = string(b)
		}
		if said[0] != said[1] {
			return "", usagef("the two passwords are not the same")
		}
		return said[0], nil
	}
}
