package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"millrace/control/api"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func contextCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "context",
		Short: "What commands ask: Millraces on other machines, by their URLs and tokens",
		Long: `What commands ask: the process that uses the data directory, or a Millrace on another machine, which is a context. app, deploy, build push and list, blocker, stack show, top, logs, check,
doctor, ready, audit, sql, token, user, key and lake stats ask a context as they ask a process here. The others work on a data directory itself, and say so.

--context, --url and --data-dir say what is asked, else $` + contextVariable + `, $` + urlVariable + ` and $` + dirVariable + `, else the context in use, else the data directory.`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(contextAddCommand(), contextListCommand(), contextUseCommand(), contextRemoveCommand())
	return cmd
}

const contextArg = "the name of a context; 'millrace context list' lists them"

func contextAddCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add NAME --url URL",
		Short: "Add a context, or change it",
		Long: `Add a context, or change it. The token is one of 'millrace token add' there: it is in --token-file or $` + tokenVariable + `, or the first line of the standard input. It is kept in
millrace/contexts.yaml of your configuration folder, which is yours alone to read. What answers at the URL is asked who the token is; when that fails it is said why, and the context
is kept all the same. It is not in use yet.`,
		Args: exactArgs("a name"),
	}
	tokenFile := cmd.Flags().String("token-file", "", "file that has the token; default: $"+tokenVariable+", else the standard input")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r := remote{Name: args[0], URL: strings.TrimRight(cmd.Flag("url").Value.String(), "/")}
		switch {
		case !contextName.MatchString(r.Name):
			return usagef("%q cannot name a context: use 1 to 64 letters, digits, ., _ and -, beginning with a letter or digit", r.Name)
		case r.Name == localContext:
			return usagef("%s is the process that uses the data directory here: choose another name", localContext)
		case r.URL == "":
			return usagef("context add needs --url, such as https://millrace.example.edu:8420")
		}
		var err error
		if name := cmd.Flag("ca-file").Value.String(); name != "" {
			if r.CAFile, err = filepath.Abs(name); err != nil { // it is read wherever commands are run
				return err
			}
		}
		if err := r.check(); err != nil {
			return err
		}
		if r.Token, err = readToken(cmd, *tokenFile); err != nil {
			return err
		}
		all, err := readContexts()
		if err != nil {
			return err
		}
		if i := all.index(r.Name); i >= 0 {
			all.Contexts[i] = r
		} else {
			all.Contexts = append(all.Contexts, r)
		}
		if err := all.write(); err != nil {
			return err
		}
		if said, err := tryContext(cmd.Context(), r); err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "millrace: the context is kept, but cannot be used yet: %s\n", sentence(err))
		} else {
			fmt.Fprintln(cmd.ErrOrStderr(), "millrace:", said)
		}
		if all.Current != r.Name {
			fmt.Fprintf(cmd.ErrOrStderr(), "millrace: 'millrace context use %s' has commands ask it\n", r.Name)
		}
		return nil
	}
	return cmd
}

// tryPatience is how long a context that is added may take to answer.
const tryPatience = 10 * time.Second

// tryContext says what answers at a context, and who its token is there.
func tryContext(ctx context.Context, r remote) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, tryPatience, fmt.Errorf("it has not answered for %s", tryPatience))
	defer cancel()
	c, err := remoteClient(asked{remote: r})
	if err != nil {
		return "", err
	}
	var who api.Whoami
	if err := c.do(ctx, http.MethodGet, api.WhoamiPath, nil, &who); err != nil {
		return "", err
	}
	text := fmt.Sprintf("millrace %s answers at %s, where the token is %s, %s", who.Version, r.URL, who.Name, who.Role)
	if who.Account != "" {
		text += " of account " + who.Account
	}
	return text, nil
}

// readToken reads a token from where it is.
func readToken(cmd *cobra.Command, file string) (string, error) {
	text, where := os.Getenv(tokenVariable), "$"+tokenVariable
	switch in, ok := cmd.InOrStdin().(*os.File); {
	case file != "":
		b, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("--token-file %s: %w", file, cause(err))
		}
		text, where = string(b), "--token-file "+file
	case text != "":
	case ok && term.IsTerminal(int(in.Fd())): //nolint:gosec // a small number
		fmt.Fprint(cmd.ErrOrStderr(), "Token: ")
		b, err := term.ReadPassword(int(in.Fd())) //nolint:gosec // a small number
		fmt.Fprintln(cmd.ErrOrStderr())
		if err != nil {
			return "", err
		}
		text, where = string(b), "what was typed"
	default:
		line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		text, where = line, "the standard input"
	}
	text = strings.TrimSpace(text)
	if text == "" || strings.ContainsAny(text, " \t\r\n") {
		return "", usagef("%s has no token: 'millrace token add' there prints one", where)
	}
	return text, nil
}

// shownContext is a context as list has it.
type shownContext struct {
	Name   string `json:"name"`
	URL    string `json:"url,omitempty"`
	CAFile string `json:"ca_file,omitempty"`
	InUse  bool   `json:"in_use"`
}

func contextListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the contexts, without their tokens", Args: exactArgs()}
	output := outputFlag(cmd, "table", "json", "yaml")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		all, err := readContexts()
		if err != nil {
			return err
		}
		shown := []shownContext{{Name: localContext, InUse: all.Current == ""}}
		for _, r := range all.Contexts {
			shown = append(shown, shownContext{r.Name, r.URL, r.CAFile, all.Current == r.Name})
		}
		switch format {
		case "json":
			return printJSON(cmd, shown)
		case "yaml":
			return printYAML(cmd, shown)
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "NAME\tIN USE\tURL\tCA FILE")
		for _, c := range shown {
			use := ""
			if c.InUse {
				use = "*"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", c.Name, use, c.URL, c.CAFile)
		}
		return w.Flush()
	}
	return cmd
}

func contextUseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Have commands ask a context from now on; " + localContext + " is the process that uses the data directory",
		Args: exactArgs(contextArg), ValidArgsFunction: completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := readContexts()
			if err != nil {
				return err
			}
			if _, err := all.find(args[0]); err != nil {
				return err
			}
			if all.Current = args[0]; all.Current == localContext {
				all.Current = ""
			}
			return all.write()
		},
	}
}

func contextRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Forget a context and its token, which stays good until 'millrace token revoke' there",
		Args: exactArgs(contextArg), ValidArgsFunction: completeContexts,
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := readContexts()
			if err != nil {
				return err
			}
			if args[0] == localContext {
				return usagef("%s is always there", localContext)
			}
			if _, err := all.find(args[0]); err != nil {
				return err
			}
			i := all.index(args[0])
			all.Contexts = slices.Delete(all.Contexts, i, i+1)
			if all.Current == args[0] {
				all.Current = ""
				fmt.Fprintln(cmd.ErrOrStderr(), "millrace: it was in use; commands ask the process that uses the data directory from now on")
			}
			return all.write()
		},
	}
}
