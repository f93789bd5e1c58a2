package main

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"millrace/control/access"
)

// What a command asks is said by, in this order:
//
//	--context, --url or --data-dir
//	MILLRACE_CONTEXT, MILLRACE_URL or MILLRACE_DATA_DIR in the environment
//	the context in use, which 'millrace context use' has chosen
//	the data directory
const (
	contextVariable = "MILLRACE_CONTEXT"
	urlVariable     = "MILLRACE_URL"
	tokenVariable   = "MILLRACE_TOKEN" //nolint:gosec // the name of one
	caFileVariable  = "MILLRACE_CA_FILE"
	dirVariable     = "MILLRACE_DATA_DIR"
)

// localContext is the context of the process that uses the data directory. It is always there.
const localContext = "local"

// remote is a Millrace that is asked over its API, with what commands need for that. The zero value is none.
type remote struct {
	Name   string `yaml:"name"` // of its context; empty: it has none
	URL    string `yaml:"url"`  // https://host:port
	Token  string `yaml:"token"`
	CAFile string `yaml:"ca-file,omitempty"` // authorities of its certificate, PEM; empty: those of the system
}

// String names it for people.
func (r remote) String() string {
	if r.Name == "" {
		return r.URL
	}
	return "context " + r.Name + ", " + r.URL
}

// contexts are what the file has.
type contexts struct {
	Current  string   `yaml:"current,omitempty"` // empty: the local one
	Contexts []remote `yaml:"contexts"`
}

// contextsFile is where a user's contexts are. It has tokens, and is its user's alone.
func contextsFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find your contexts: %w; set $XDG_CONFIG_HOME or $HOME", err)
	}
	return filepath.Join(dir, "millrace", "contexts.yaml"), nil
}

func readContexts() (all contexts, err error) {
	name, err := contextsFile()
	if err != nil {
		return all, nil //nolint:nilerr // a service that has no home has no contexts, and needs none
	}
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(bytes.TrimSpace(text)) == 0 {
		return all, nil
	}
	if err != nil {
		return all, fmt.Errorf("contexts %s: %w", name, cause(err))
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&all); err != nil {
		return all, fmt.Errorf("contexts %s: %w; mend the file, or remove it and add them again", name, err)
	}
	return all, nil
}

func (c contexts) write() error {
	name, err := contextsFile()
	if err != nil {
		return err
	}
	text, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("contexts %s: %w", name, cause(err))
	}
	return writeFile(name, text)
}

// find returns the context of a name; the zero value for the local one.
func (c contexts) find(name string) (remote, error) {
	if name == localContext {
		return remote{}, nil
	}
	if i := c.index(name); i >= 0 {
		return c.Contexts[i], nil
	}
	return remote{}, notFoundError{fmt.Errorf("there is no context %q; there are %s, and 'millrace context add' adds one", name, strings.Join(c.names(), ", "))}
}

func (c contexts) index(name string) int {
	return slices.IndexFunc(c.Contexts, func(r remote) bool { return r.Name == name })
}

func (c contexts) names() []string {
	names := []string{localContext}
	for _, r := range c.Contexts {
		names = append(names, r.Name)
	}
	return names
}

// notFoundError is for what a command names and there is not.
type notFoundError struct{ error }

func (notFoundError) exitCode() int { return exitNotFound }

// said by flags, or by the environment, about what is asked. What is empty is not said.
type saying struct{ context, url, dataDir, caFile string }

// asked is what a command asks, and what says so.
type asked struct {
	remote
	origin string // flag, the name of a variable, a file, or default
}

func (a asked) isRemote() bool { return a.URL != "" }

// shown is how config show has it.
func (a asked) shown() []shownSetting {
	if !a.isRemote() {
		return []shownSetting{{"context", localContext, a.origin}}
	}
	all := []shownSetting{{"url", a.URL, a.origin}}
	if a.Name != "" {
		all = append([]shownSetting{{"context", a.Name, a.origin}}, all...)
	}
	return all
}

// chooseAsked chooses among all that is said. token goes with a URL alone: a context has its own, and is not shown that of another.
func chooseAsked(flags, env saying, token string, saved contexts, savedIn string) (asked, error) {
	caFile := flags.caFile
	if caFile == "" {
		caFile = env.caFile
	}
	for _, s := range []struct {
		saying
		names  [3]string
		origin func(string) string
	}{
		{flags, [3]string{"--context", "--url", "--data-dir"}, func(string) string { return "flag" }},
		{env, [3]string{contextVariable, urlVariable, dirVariable}, func(name string) string { return name }},
	} {
		var by []string
		for i, text := range []string{s.context, s.url, s.dataDir} {
			if text != "" {
				by = append(by, s.names[i])
			}
		}
		if len(by) > 1 {
			return asked{}, usagef("%s say two things about what is asked: leave one out", strings.Join(by, " and "))
		}
		if len(by) == 0 {
			continue
		}
		t := asked{origin: s.origin(by[0])}
		var err error
		switch {
		case s.context != "":
			t.remote, err = saved.find(s.context)
		case s.url != "":
			t.remote = remote{URL: s.url, Token: token, CAFile: caFile}
			err = t.check()
		}
		return t, errors.Join(err, flags.checkCAFile(t))
	}
	t := asked{origin: "default"}
	var err error
	if saved.Current != "" {
		t.origin = savedIn
		t.remote, err = saved.find(saved.Current)
	}
	return t, errors.Join(err, flags.checkCAFile(t))
}

// checkCAFile returns an error when a flag says what is of no use.
func (s saying) checkCAFile(t asked) error {
	if s.caFile == "" || t.isRemote() && t.Name == "" {
		return nil
	}
	return usagef("--ca-file belongs to --url; a context has what 'millrace context add' gave it")
}

// check returns an error unless the URL is one to which a token may be sent, and the authorities can be read.
func (r remote) check() error {
	u, err := url.Parse(r.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return usagef("--url %s is no address of a Millrace: want one such as https://millrace.example.edu:8420", withoutPassword(r.URL))
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	if u.Scheme == "http" && !access.IsLoopback(net.JoinHostPort(u.Hostname(), port)) {
		return usagef("--url %s has no TLS, and everybody on the way would read the token: want https://%s; http:// is for this machine alone", r.URL, u.Host)
	}
	_, err = r.authorities()
	return err
}

// authorities are those that sign its certificate; nil for those of the system.
func (r remote) authorities() (*x509.CertPool, error) {
	if r.CAFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(r.CAFile)
	if err != nil {
		return nil, usagef("--ca-file %s: %w", r.CAFile, cause(err))
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, usagef("--ca-file %s has no certificate: want a file of PEM, -----BEGIN CERTIFICATE-----", r.CAFile)
	}
	return pool, nil
}

// askedFlags adds what says what is asked to the root command.
func askedFlags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.String("context", "", "what to ask: a context of 'millrace context add', or "+localContext+" for the process that uses the data directory; default: $"+contextVariable+", else the one in use")
	f.String("url", "", "URL of the Millrace to ask, such as https://millrace.example.edu:8420, with the token in $"+tokenVariable+"; default: $"+urlVariable)
	f.String("ca-file", "", "file with the authorities of that URL's certificate, PEM; default: $"+caFileVariable+", else those of the system")
	_ = root.RegisterFlagCompletionFunc("context", completeContexts) // the flag is there
}

// completeContexts is for shells.
func completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	all, err := readContexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return all.names(), cobra.ShellCompDirectiveNoFileComp
}

// askedBy is what a command asks.
func askedBy(cmd *cobra.Command) (asked, error) {
	said := func(name string) string {
		if f := cmd.Flag(name); f != nil && f.Changed {
			return f.Value.String()
		}
		return ""
	}
	saved, err := readContexts()
	if err != nil {
		return asked{}, err
	}
	name, _ := contextsFile() // there is one if it has a context in use
	return chooseAsked(
		saying{context: said("context"), url: said("url"), dataDir: said("data-dir"), caFile: said("ca-file")},
		saying{context: os.Getenv(contextVariable), url: os.Getenv(urlVariable), dataDir: os.Getenv(dirVariable), caFile: os.Getenv(caFileVariable)},
		os.Getenv(tokenVariable), saved, name,
	)
}

// reach says what a command works on.
type reach int

const (
	directory reach = iota // a data directory, on this machine
	starts                 // a data directory, for which this program is what others ask: the context in use is none of its business
	asks                   // whatever is asked: what askedBy says
	neither
)

// reaches is what commands work on, and those below them unless they are there themselves. The others work on a data directory.
var reaches = map[string]reach{
	"app": asks, "stack show": asks, "stack list": neither, "deploy": asks, "blocker": asks, "build push": asks, "build list": asks, "build delete": asks, "top": asks, "logs": asks, "ready": asks, "doctor": asks, "check": asks, "audit": asks, "sql": asks,
	"savepoint list": asks, "savepoint delete": asks, "token": asks, "user": asks, "key": asks, "lake": asks, "tables": asks, "rows": asks, "raw": asks, "diff": asks,
	"serve": starts, "demo": starts, "bench": starts, "restore": starts,
	"build": neither, "new": neither, "describe": neither, "send": neither, "run": neither, "version": neither, "config": neither, "context": neither,
	"help": neither, "completion": neither, cobra.ShellCompRequestCmd: neither, cobra.ShellCompNoDescRequestCmd: neither,
}

func reachOf(cmd *cobra.Command) reach {
	if !cmd.HasParent() {
		return neither
	}
	for ; cmd.HasParent(); cmd = cmd.Parent() {
		if r, ok := reaches[strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")]; ok {
			return r
		}
	}
	return directory
}

// checkReach returns an error when a command that works on a data directory is told to ask something else.
func checkReach(cmd *cobra.Command) error {
	r := reachOf(cmd)
	if r == neither || r == asks {
		return nil
	}
	t, err := askedBy(cmd)
	saved := err == nil && !slices.Contains([]string{"flag", contextVariable, urlVariable}, t.origin)
	if r == starts && saved {
		return nil
	}
	if err != nil || !t.isRemote() {
		return err
	}
	why := t.origin
	switch {
	case t.origin == "flag":
		why = "a flag"
	case saved:
		why = "'millrace context use'"
	default:
		why = "$" + why
	}
	return usagef("%s works on a data directory itself, and %s says to ask %s: run it on that machine, or give --context %s for the directory here", cmd.CommandPath(), why, t.remote, localContext)
}

// contextName is what a context may be called.
var contextName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)
