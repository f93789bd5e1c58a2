package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"millrace/control"
)

func userCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "user", Short: "People who sign in: who may see what, and who may change it",
		Long: `People who sign in to the console, with a password or at the provider of --oidc-issuer, which says their role. Programs have tokens. What is changed here counts in a running 'millrace serve' after five seconds at most.`,
		Args: unknownCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(userAddCommand(), userListCommand(), userRoleCommand(), userPasswordCommand())
	for _, c := range []struct {
		name, short string
		do          func(*control.Users, *cobra.Command, string) error
	}{
		{"disable", "Keep a user from signing in, and sign them out", func(u *control.Users, cmd *cobra.Command, name string) error { return u.Disable(cmd.Context(), name, nil) }},
		{"enable", "Let a user sign in again", func(u *control.Users, cmd *cobra.Command, name string) error { return u.Enable(cmd.Context(), name, nil) }},
		{"delete", "Delete a user, and sign them out; one of --oidc-issuer comes back at the next sign-in, unless disabled in place of that", func(u *control.Users, cmd *cobra.Command, name string) error { return u.Delete(cmd.Context(), name, nil) }},
	} {
		cmd.AddCommand(&cobra.Command{
			Use: c.name + " NAME", Short: c.short, Args: exactArgs(userArg),
			RunE: func(cmd *cobra.Command, args []string) error {
				return withStore(cmd, func(store *control.Store) error {
					return audited(cmd.Context(), store, c.name+" user", args[0], func() error { return c.do(store.Users, cmd, args[0]) })
				})
			},
		})
	}
	return cmd
}

const userArg = "the name of a user; 'millrace user list' lists them"

func userAddCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a user, whose password is asked for",
		Long:  "Add a user. The password is asked for on the terminal; with --password-stdin it is the first line of the standard input. It is kept as a hash. With --account the user sees what is of that tenant alone.",
		Args:  exactArgs("a name"),
	}
	role := cmd.Flags().String("role", control.Viewer.String(), "viewer, analyst, operator or admin")
	account := cmd.Flags().String("account", "", "the tenant that the user is bound to, of whom there need be nothing yet; default: none, and they see all")
	password := passwordFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r, err := control.ParseRole(*role)
		if err != nil {
			return usagef("--role: %w", err)
		}
		text, err := password()
		if err != nil {
			return err
		}
		return withStore(cmd, func(store *control.Store) error {
			return audited(cmd.Context(), store, "add user", args[0]+", "+roleOf(r, *account), func() error {
				return store.Users.Add(cmd.Context(), control.User{Name: args[0], Role: r, Account: *account}, text)
			})
		})
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
		return withStore(cmd, func(store *control.Store) error {
			return audited(cmd.Context(), store, "set password", args[0], func() error { return store.Users.SetPassword(cmd.Context(), args[0], text, nil) })
		})
	}
	return cmd
}

func userRoleCommand() *cobra.Command {
	return &cobra.Command{
		Use: "role NAME ROLE", Short: "Give a user another role: viewer, analyst, operator or admin", Args: exactArgs(userArg, "a role: viewer, analyst, operator or admin"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := control.ParseRole(args[1])
			if err != nil {
				return usageError{err}
			}
			return withStore(cmd, func(store *control.Store) error {
				return audited(cmd.Context(), store, "set role", args[0]+", "+r.String(), func() error { return store.Users.SetRole(cmd.Context(), args[0], r, nil) })
			})
		},
	}
}

func userListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the users", Args: exactArgs()}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return withStore(cmd, func(store *control.Store) error {
			all, err := store.Users.List(cmd.Context())
			if err != nil {
				return err
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
