package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"millrace/control/api"

	"github.com/spf13/cobra"
)

func keyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Sensor keys", Args: unknownCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(keyAddCommand(), keyListCommand(), keyRevokeCommand())
	return cmd
}

func keyAddCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Make a sensor key and print it, once",
		Long:  "Make a sensor key and print it. Only its hash is kept: a key that is lost is replaced by another.",
		Args:  exactArgs(),
	}
	ask := api.KeyAsk{Who: whoAmI()}
	cmd.Flags().StringVar(&ask.Account, "account", "", "tenant that the sensor belongs to")
	cmd.Flags().StringVar(&ask.Env, "env", "", "the tenant's environment")
	cmd.Flags().StringVar(&ask.SourceType, "source-type", "", "kind of input, such as EDGENUITY_LMS")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for _, f := range []struct{ name, value string }{{"--account", ask.Account}, {"--env", ask.Env}, {"--source-type", ask.SourceType}} {
			if f.value == "" {
				return usagef("key add needs %s", f.name)
			}
		}
		return withIdentities(cmd, func(c client) error {
			var made api.Secret
			if err := c.do(cmd.Context(), http.MethodPost, api.KeysPath, ask, &made); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), made.Secret)
			return warnUnread(cmd, c, ask.SourceType)
		})
	}
	return cmd
}

func keyListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the sensor keys, without what is secret of them", Args: exactArgs()}
	account := cmd.Flags().String("account", "", "only those of this tenant; default: all")
	output := outputFlag(cmd, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		return withIdentities(cmd, func(c client) error {
			query := url.Values{}
			if *account != "" {
				query.Set("account", *account)
			}
			all, err := listAll(cmd.Context(), c, api.KeysPath, query, api.Key.After)
			if err != nil {
				return err
			}
			if format == "json" {
				return printJSON(cmd, all)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "ID\tACCOUNT\tENV\tSOURCE TYPE\tCREATED")
			for _, k := range all {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", k.ID, k.Account, k.Env, k.SourceType, k.Created.Format(time.RFC3339))
			}
			return w.Flush()
		})
	}
	return cmd
}

func keyRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "End a sensor key, at once; what was sent with it stays", Args: exactArgs("the id of a key; 'millrace key list' lists them"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withIdentities(cmd, func(c client) error {
				return c.do(cmd.Context(), http.MethodPost, api.KeysPath+"/"+url.PathEscape(args[0])+"/revoke", api.EndAsk{Who: whoAmI()}, &api.Ended{})
			})
		},
	}
}

// warnUnread says so when no app reads a source type. It may be what is wanted: the raw lake keeps all.
func warnUnread(cmd *cobra.Command, c client, sourceType string) error {
	read, err := sourceTypes(cmd.Context(), c)
	if err == nil && !slices.Contains(read, sourceType) {
		fmt.Fprintf(cmd.ErrOrStderr(), "millrace: no app reads source type %s (they read %s): what is sent with the key goes to the raw lake and makes no rows\n",
			sourceType, strings.Join(read, ", "))
	}
	return err
}

// sourceTypes are those that apps read, where a client asks: of a data directory that nothing uses those of this program.
func sourceTypes(ctx context.Context, c client) (read []string, err error) {
	if !c.atRest {
		var apps []api.App
		err := c.do(ctx, http.MethodGet, api.Path, nil, &apps)
		for _, a := range apps {
			read = append(read, a.SourceTypes...) // none: the raw lake's, which takes all
		}
		return read, err
	}
	byName, names, err := plans()
	for _, name := range names {
		read = append(read, byName[name].SourceTypes...)
	}
	return read, err
}
