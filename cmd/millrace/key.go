package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"millrace/control"
)

func keyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Sensor keys", Args: unknownCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(keyAddCommand())
	return cmd
}

func keyAddCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Make a sensor key and print it, once",
		Long:  "Make a sensor key and print it. Only its hash is kept: a key that is lost is replaced by another.",
		Args:  exactArgs(),
	}
	account := cmd.Flags().String("account", "", "tenant that the sensor belongs to")
	env := cmd.Flags().String("env", "", "the tenant's environment")
	sourceType := cmd.Flags().String("source-type", "", "kind of input, such as EDGENUITY_LMS")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		for _, f := range []struct{ name, value string }{{"--account", *account}, {"--env", *env}, {"--source-type", *sourceType}} {
			if f.value == "" {
				return usagef("key add needs %s", f.name)
			}
		}
		err = withStore(cmd, func(store *control.Store) error {
			return audited(cmd.Context(), store, "add sensor key", fmt.Sprintf("%s:%s %s", *account, *env, *sourceType), func() error {
				secret, err := store.Keys.Add(cmd.Context(), control.Key{Account: *account, Env: *env, SourceType: *sourceType})
				if err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), secret)
				}
				return err
			})
		})
		if err != nil {
			return err
		}
		return warnUnread(cmd, *sourceType)
	}
	return cmd
}

// warnUnread says so when no app reads a source type. It may be what is wanted: the raw lake keeps all.
func warnUnread(cmd *cobra.Command, sourceType string) error {
	byName, names, err := plans()
	if err != nil {
		return err
	}
	var read []string
	for _, name := range names {
		read = append(read, byName[name].SourceTypes...) // none: the raw lake's, which takes all
	}
	if !slices.Contains(read, sourceType) {
		fmt.Fprintf(cmd.ErrOrStderr(), "millrace: no app of this program reads source type %s (they read %s): what is sent with the key goes to the raw lake and makes no rows\n",
			sourceType, strings.Join(read, ", "))
	}
	return nil
}
