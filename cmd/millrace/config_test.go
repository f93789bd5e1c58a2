package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write docs/configuration.md anew")

// What the documentation says about settings is what the program says: go test ./cmd/millrace -run Documented -update.
func TestConfigurationIsDocumented(t *testing.T) {
	t.Parallel()
	const path = "../../docs/configuration.md"
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(configurationDoc()), 0o644)) //nolint:gosec // anybody may read it
	}
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, configurationDoc(), string(b), "run go test ./cmd/millrace -run Documented -update, and read the diff")
}

func configurationDoc() string {
	var b strings.Builder
	b.WriteString(`# Configuration

Made from the program by ` + "`go test ./cmd/millrace -run Documented -update`" + `.

A setting is said by, in this order: the flag; the variable; the file that ` + "`--config` or `$MILLRACE_CONFIG` names, else `millrace.yaml` in the folder where the program is run; " +
		"`millrace/config.yaml` in the user's configuration folder (`~/.config`)" + `; the default. A file has a line for each setting, under the flag's name:

    memory: 800
    log-format: json
    brokers: [kafka-1:9092, kafka-2:9092]

A setting that there is not is refused with its line and the one that may be meant. ` + "`millrace config show --origin`" + ` prints what holds and what says so, and with ` + "`-o yaml`" + ` it is such a file.

| setting | variable | takes | default | |
|---|---|---|---|---|
`)
	cmd := serveCommand()
	cmd.PersistentFlags().AddFlagSet(rootCommand().PersistentFlags())
	for _, name := range settings() {
		f := cmd.Flag(name)
		if f == nil {
			f = cmd.PersistentFlags().Lookup(name)
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %s |\n", name, variable(name), takenBy[f.Value.Type()], shownDefault(f), strings.ReplaceAll(f.Usage, "|", "\\|"))
	}
	b.WriteString("\n`demo` has other defaults for `flush` (5s) and `memory` (500).\n\nSecrets are variables alone:\n\n| variable | |\n|---|---|\n")
	for _, v := range secretVariables {
		fmt.Fprintf(&b, "| `%s` | %s |\n", v.name, v.about)
	}
	fmt.Fprintf(&b, "| `%s` | token of who asks the Millrace of `--url` or `$%s`; a context has its own |\n", tokenVariable, urlVariable)
	b.WriteString("\n`MILLRACE_OUTPUT` is the `-o` of commands that have that format. Nothing is printed in colours.\n")
	b.WriteString(`
## What commands ask

` + "`--context NAME`, `--url URL` or `--data-dir DIR` says what is asked; else `$" + contextVariable + "`, `$" + urlVariable + "` or `$" + dirVariable +
		"`; else the context in use (`millrace context use`); else the data directory, also one of a file. Two of one kind are refused. `--ca-file FILE` or `$" + caFileVariable +
		"` has the authorities of the URL's certificate. Contexts are in `millrace/contexts.yaml` of the user's configuration folder, which nobody else can read: it has their tokens. " +
		"`millrace config show --origin` says what is asked, and why.\n")
	return b.String()
}

// takenBy says what a setting takes, by the type of its flag's value.
var takenBy = map[string]string{
	"string": "text", "stringSlice": "list of texts", "int": "whole number", "int64": "whole number", "float64": "number", "bool": "true or false", "duration": "duration, such as 60s", "role": "role",
}

func shownDefault(f *pflag.Flag) string {
	if f.DefValue == "" || f.DefValue == "[]" {
		return ""
	}
	return "`" + f.DefValue + "`"
}
