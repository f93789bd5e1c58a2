package arch

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// notSizes are the variables of tests that do not say how long one runs.
var notSizes = regexp.MustCompile(`^MILLRACE_(SEED|CRASH|SHARED|SCREENSHOTS|TEST_.*|INDEX_TEST_SERVE|TOKEN|)$`)

// TestLongIsComplete finds that every test which a variable makes longer is in `make long`, or in .ci/run beside the servers it needs.
func TestLongIsComplete(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	var run strings.Builder
	for _, name := range []string{"Makefile", ".ci/run"} {
		b, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		run.Write(b)
	}
	variable := regexp.MustCompile(`"(MILLRACE_[A-Z0-9_]*)"`)
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range variable.FindAllStringSubmatch(string(b), -1) {
			if name := m[1]; !notSizes.MatchString(name) && !strings.Contains(run.String(), name+"=") {
				t.Errorf("%s asks for %s, which neither 'make long' nor .ci/run sets", path, name)
			}
		}
		return nil
	}))
}
