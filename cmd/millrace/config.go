package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"millrace/artifact"
	"millrace/control"
)

// A setting is a flag of serve, or --data-dir. What no flag says is said by, in this order:
//
//	MILLRACE_LOG_LISTEN      in the environment
//	log-listen: …            in the file that --config or MILLRACE_CONFIG names, else in ./millrace.yaml
//	log-listen: …            in millrace/config.yaml of the user's configuration folder
//	the default
const (
	configVariable = "MILLRACE_CONFIG"
	outputVariable = "MILLRACE_OUTPUT"
	ownConfig      = "millrace.yaml"
)

// secretVariables are settings that are no flags, because other users of the machine can read those.
var secretVariables = []struct{ name, about string }{
	{artifact.TokenVariable, "bearer token for the Iceberg REST catalogue of `--lake-catalog`"},
	{artifact.PasswordVariable, "password of `--kafka-sasl-username`"},
	{oidcSecretVariable, "client secret that the provider of `--oidc-issuer` knows; without it the stack is a public client"},
	{artifact.CredentialVariable, "client id:client secret for that catalogue"},
	{"AWS_ACCESS_KEY_ID", "key for the S3 server of `--lake`; with AWS_SECRET_ACCESS_KEY, or any other way that the AWS SDK knows"},
	{"AWS_SECRET_ACCESS_KEY", "its secret"},
}

// variable is the environment's name of a setting.
func variable(setting string) string {
	return "MILLRACE_" + strings.ToUpper(strings.ReplaceAll(setting, "-", "_"))
}

// settings are the names of all settings.
func settings() []string {
	cmd := &cobra.Command{}
	stackFlags(cmd)
	names := []string{"data-dir"}
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	slices.Sort(names)
	return names
}

// said is what a file says about a setting.
type said struct {
	values []string
	where  string // file:line
}

// origins says where the value of each setting comes from that a command has.
type origins map[string]string

// configure gives the settings that a command has, and that no flag says, the values that environment and files have for them.
func configure(cmd *cobra.Command) (origins, error) {
	names := settings()
	files, err := readConfig(cmd, names)
	if err != nil {
		return nil, err
	}
	from := origins{}
	for _, name := range names {
		f := cmd.Flag(name)
		switch {
		case f == nil:
			continue
		case f.Changed:
			from[name] = "flag"
			continue
		}
		from[name] = "default"
		if text, ok := os.LookupEnv(variable(name)); ok && text != "" {
			values := []string{text}
			if _, ok := f.Value.(pflag.SliceValue); ok {
				values = strings.Split(text, ",")
			}
			if err := setAll(f, values); err != nil {
				return nil, usagef("%s=%q: want %s", variable(name), text, wants(f, err))
			}
			from[name] = variable(name)
			continue
		}
		s, ok := files[name]
		if !ok {
			continue
		}
		if err := setAll(f, s.values); err != nil {
			return nil, usagef("%s: %s is %q: want %s", s.where, name, strings.Join(s.values, ", "), wants(f, err))
		}
		from[name] = s.where
	}
	return from, nil
}

func setAll(f *pflag.Flag, values []string) error {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return list.Replace(values)
	}
	if len(values) != 1 {
		return errors.New("it is a list")
	}
	return f.Value.Set(values[0])
}

// wants says what a flag takes.
func wants(f *pflag.Flag, err error) string {
	if want, ok := flagWants[f.Value.Type()]; ok {
		return want
	}
	return fmt.Sprintf("a %s (%s)", f.Value.Type(), err)
}

// readConfig reads the files: of two that speak of one setting the user's own is the weaker.
func readConfig(cmd *cobra.Command, names []string) (map[string]said, error) {
	all := map[string]said{}
	if dir, err := os.UserConfigDir(); err == nil {
		if err := readConfigFile(filepath.Join(dir, "millrace", "config.yaml"), false, names, all); err != nil {
			return nil, err
		}
	}
	name, named := ownConfig, false
	if text := os.Getenv(configVariable); text != "" {
		name, named = text, true
	}
	if f := cmd.Flag("config"); f != nil && f.Changed {
		name, named = f.Value.String(), true
	}
	return all, readConfigFile(name, named, names, all)
}

// readConfigFile adds what a file says. It has to be there only when somebody has named it.
func readConfigFile(name string, needed bool, names []string, all map[string]said) error {
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && !needed {
		return nil
	}
	if err != nil {
		return usagef("configuration %s: %w", name, cause(err))
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return usagef("configuration %s: %w", name, err)
	}
	if len(doc.Content) == 0 {
		return nil // it is empty
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return usagef("configuration %s:%d: want settings, such as \"memory: 600\"", name, root.Line)
	}
	for i := 0; i < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		s := said{where: fmt.Sprintf("%s:%d", name, key.Line)}
		if !slices.Contains(names, key.Value) {
			return usagef("configuration %s: there is no setting %q; did you mean %q? 'millrace config show' lists them", s.where, key.Value, control.Nearest(key.Value, names))
		}
		switch value.Kind {
		case yaml.ScalarNode:
			s.values = []string{value.Value}
		case yaml.SequenceNode:
			for _, v := range value.Content {
				s.values = append(s.values, v.Value)
			}
		default:
			return usagef("configuration %s: %s is neither a value nor a list of values", s.where, key.Value)
		}
		all[key.Value] = s
	}
	return nil
}

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Settings: flags, environment, files",
		Args: unknownCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(configShowCommand())
	return cmd
}

// shownSetting is a setting as config show has it.
type shownSetting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Origin string `json:"origin"` // flag, the name of a variable, file:line, or default
}

func configShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the settings that serve would have here, and what commands ask, and with --origin what says so",
		Long:  "Print the settings that serve would have here, with the same flags; in a table and as JSON, the context and the URL that commands ask before them. Of secrets only whether they are set is shown, and no password of a URL.",
		Args:  exactArgs(),
	}
	stackFlags(cmd)
	origin := cmd.Flags().Bool("origin", false, "say what each value comes from: a flag, a variable, a line of a file, or the default")
	output := outputFlag(cmd, "table", "json", "yaml")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		from, err := configure(cmd)
		if err != nil {
			return err
		}
		if format == "yaml" {
			return printConfigFile(cmd, from, *origin)
		}
		t, err := askedBy(cmd)
		if err != nil {
			return err
		}
		all := t.shown()
		for _, name := range settings() {
			all = append(all, shownSetting{name, withoutPassword(cmd.Flag(name).Value.String()), from[name]})
		}
		for _, v := range secretVariables {
			if os.Getenv(v.name) != "" {
				all = append(all, shownSetting{v.name, "(set)", v.name})
			}
		}
		if format == "json" {
			return printJSON(cmd, all)
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		for _, s := range all {
			if *origin {
				fmt.Fprintf(w, "%s\t%s\t%s\n", s.Name, s.Value, s.Origin)
			} else {
				fmt.Fprintf(w, "%s\t%s\n", s.Name, s.Value)
			}
		}
		return w.Flush()
	}
	return cmd
}

// printConfigFile prints the settings as a file that says the same, but for passwords. Secrets have no place in one, and what is empty has none either.
func printConfigFile(cmd *cobra.Command, from origins, origin bool) error {
	root := yaml.Node{Kind: yaml.MappingNode}
	for _, name := range settings() {
		key := yaml.Node{Kind: yaml.ScalarNode, Value: name}
		value := yaml.Node{Kind: yaml.ScalarNode, Value: withoutPassword(cmd.Flag(name).Value.String())}
		if list, ok := cmd.Flag(name).Value.(pflag.SliceValue); ok {
			value = yaml.Node{Kind: yaml.SequenceNode}
			for _, text := range list.GetSlice() {
				value.Content = append(value.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: withoutPassword(text)})
			}
		}
		if value.Value == "" && value.Content == nil {
			continue
		}
		if origin {
			key.HeadComment = from[name]
		}
		root.Content = append(root.Content, &key, &value)
	}
	return yaml.NewEncoder(cmd.OutOrStdout()).Encode(&root)
}

// password is that of a URL, up to the last @: one that is not escaped as it should be is hidden all the same.
var password = regexp.MustCompile(`(://[^:/@]*):.*@`)

func withoutPassword(value string) string { return password.ReplaceAllString(value, "$1:xxxxx@") }
