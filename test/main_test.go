// Package test runs the real binary as its users do: by scripts (*.txtar), and by killing it.
package test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
)

// millrace is the path of the binary under test.
var millrace string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "millrace-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "config")); err != nil { // whoever runs the tests may have settings of their own
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	millrace = filepath.Join(dir, "millrace")
	build := exec.Command("go", "build", "-o", millrace, "../cmd/millrace")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the binary:", err)
		return 1
	}
	return m.Run()
}

// lookAtSources looks at every file that the binary is made of. go test then knows that the results depend on them: it does not see
// what the build reads. Only what a test itself looks at counts.
func lookAtSources(t *testing.T) {
	t.Helper()
	require.NoError(t, filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == ".git" {
			return filepath.SkipDir
		}
		if err == nil && !d.IsDir() {
			_, err = os.Stat(path)
		}
		return err
	}))
}

func TestScripts(t *testing.T) {
	t.Parallel()
	lookAtSources(t)
	testscript.Run(t, testscript.Params{
		Dir: ".",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(millrace)+string(os.PathListSeparator)+env.Getenv("PATH"))
			examples, err := filepath.Abs(filepath.Join("..", "docs", "examples"))
			env.Setenv("EXAMPLES", examples)
			env.Setenv("SOURCE", filepath.Dir(filepath.Dir(examples)))
			for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPROXY", "GOSUMDB", "GOFLAGS"} { // for scripts that build an app
				out, goErr := exec.Command("go", "env", name).Output()
				err = errors.Join(err, goErr)
				env.Setenv(name, strings.TrimSpace(string(out)))
			}
			return err
		},
		Cmds: commands,
	})
}
