package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"

	"github.com/spf13/cobra"
	"golang.org/x/mod/modfile"

	"millrace/apps/lms"
)

// project are the files of a new project.
//
//go:embed project
var project embed.FS

// appName is what an app can be called: it is part of unique ids, and of names of folders and indices.
var appName = regexp.MustCompile(`^[a-z][a-z0-9-]{1,62}[a-z0-9]$`)

func newCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "new APP [DIR]",
		Short: "Make the project of an app: its source, a test and a descriptor",
		Long: `Make the project of an app in DIR, which is called like the app unless given: Go source that works, with a test and a descriptor. Under the name of an app that this program
has (` + lms.App.Name + `) it has that app's source. The source of Millrace is where --millrace says, and the project depends on that.`,
		Args: cobra.RangeArgs(1, 2),
	}
	source := cmd.Flags().String("millrace", "", "folder of Millrace's source; default: the one that this is run in, or below")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !appName.MatchString(args[0]) {
			return usagef("%q cannot name an app: use 3 to 64 of a to z, 0 to 9 and -, beginning with a letter, such as ingest-etl-forum-job", args[0])
		}
		dir := args[0]
		if len(args) > 1 {
			dir = args[1]
		}
		root, err := findSource(*source)
		if err != nil {
			return err
		}
		if err := makeProject(args[0], dir, root); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s\n", dir)
		fmt.Fprintf(cmd.ErrOrStderr(), "millrace: made %s; next: cd %s && go test ./... && millrace build\n", args[0], dir)
		return nil
	}
	return cmd
}

// findSource is the folder of Millrace's source.
func findSource(given string) (string, error) {
	from := given
	if from == "" {
		from = "."
	}
	dir, err := filepath.Abs(from)
	if err != nil {
		return "", err
	}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && modfile.ModulePath(text) == "millrace" {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if given != "" || up == dir {
			return "", usagef("%s is not Millrace's source, which the project depends on: say where that is with --millrace", from)
		}
		dir = up
	}
}

// makeProject writes a project.
func makeProject(app, dir, root string) (err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s is there already: name a folder that is not", dir)
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	names := struct{ App, Module, Package string }{app, "example.org/" + app, "app"}
	put := func(name string, text []byte) error {
		to := filepath.Join(dir, name)
		return errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, text, 0o644))
	}
	shipped := app == lms.App.Name
	if shipped {
		names.Package = "lms"
		if err := copyShipped(filepath.Join(root, "apps", "lms"), filepath.Join(dir, "lms"), names.Module); err != nil {
			return err
		}
	}
	own := map[string]bool{"main.go": true, "README.md": true} // not in the folder of the package
	files, err := fs.ReadDir(project, "project")
	if err != nil {
		return err
	}
	for _, f := range files {
		name := strings.TrimSuffix(f.Name(), ".txt")
		if shipped && !own[name] {
			continue
		}
		text, err := template.ParseFS(project, "project/"+f.Name())
		if err != nil {
			return err
		}
		var out bytes.Buffer
		if err := text.Execute(&out, names); err != nil {
			return err
		}
		if !own[name] {
			name = filepath.Join(names.Package, name)
		}
		if err := put(name, out.Bytes()); err != nil {
			return err
		}
	}
	mod, err := projectModule(names.Module, root)
	if err != nil {
		return err
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		return err
	}
	return errors.Join(put("go.mod", mod), put("go.sum", sums), put(".gitignore", []byte("*.tar.gz\n")))
}

// copyShipped copies the source of an app, with its tests.
func copyShipped(from, to, module string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.HasSuffix(rel, ".go") {
			text = bytes.ReplaceAll(text, []byte(`"millrace/apps/lms"`), []byte(`"`+module+`/lms"`))
		}
		return os.WriteFile(filepath.Join(to, rel), text, 0o644)
	})
}

// projectModule is a go.mod that depends on Millrace's source, and on what that depends on in the same versions: a build needs nothing that one of Millrace does not
// need.
func projectModule(module, root string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, err
	}
	mod, err := modfile.Parse("go.mod", text, nil)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(mod.AddModuleStmt(module), mod.AddRequire("millrace", "v0.0.0"), mod.AddReplace("millrace", "", root, "")); err != nil {
		return nil, err
	}
	return mod.Format()
}
