// Package arch holds the rules about which package may import which, and what files may be called, as a test.
//
// Each rule says why it is there; when the reason no longer holds, change the rule in the same change.
package arch

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "millrace"

// pkg is what `go list -json` says about one package of ours.
type pkg struct {
	ImportPath   string
	Dir          string
	Name         string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string // of GoFiles
	TestImports  []string
	XTestImports []string
	Error        *struct{ Err string }
}

// folder is the package's path below the module: sink/elastic; "" for the root.
func (p pkg) folder() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

// list runs go list once over the whole module. -e keeps a package that does not compile from hiding the others.
func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Name,GoFiles,TestGoFiles,XTestGoFiles,Imports,TestImports,XTestImports,Error", "./...")
	cmd.Dir = filepath.Join("..", "..")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if under(p.folder(), "internal/deps") {
			continue
		}
		all = append(all, p)
	}
	require.Greater(t, len(all), 3, "go list found hardly any package")
	return all
}

// under reports whether a folder is one of the given ones or below one.
func under(folder string, tops ...string) bool {
	return slices.ContainsFunc(tops, func(top string) bool { return folder == top || strings.HasPrefix(folder, top+"/") })
}

// ours gives the folder of an import of our own, and whether it is one.
func ours(path string) (string, bool) {
	if path == module {
		return "", true
	}
	return strings.CutPrefix(path, module+"/")
}

// layer says which of our own folders a folder may import. Folders below it follow it.
//
// "" in a list is the package millrace itself.
var layers = []struct {
	folder string
	may    []string
	why    string
}{
	{"record", nil, "everything flows as records: what record imported, everything would"},
	{"caliper", []string{"record"}, "the vocabulary knows bytes and paths, not what is done with them"},
	{"plan", []string{"plan", "record"}, "a plan is data that every runner can execute; it knows none of them"},
	{"etl", []string{"etl", "plan", "record", "caliper", "internal"}, "the framework makes plans and knows no runner, no log and no sink"},
	{"process", []string{"process", "plan", "record", "caliper", "internal"}, "building blocks make plans and know no runner, no log and no sink"},
	{"ingest", []string{"plan", "record", "caliper", "internal"}, "the lake's job is a plan like any other"},
	{"engine", []string{"engine", "plan", "record", "sink", "internal"}, "the engine runs any plan into any sink: it knows apps, logs and targets by interface"},
	{"flink", []string{"flink", "plan", "record", "internal"}, "both runners execute the same plan and never know each other"},
	{"eventlog", []string{"eventlog", "plan", "record", "internal"}, "the log carries items and knows nothing of who reads them"},
	{"lake", []string{"lake", "plan", "record", "internal"}, "the lake keeps rows of a schema and knows no sink and no job"},
	{"index", []string{"index", "internal"}, "the embedded index speaks a public protocol to whoever asks; nothing of ours is special to it"},
	{"sink", []string{"sink", "plan", "record", "lake", "eventlog", "internal"}, "a sink takes rows to its target; who made them is not its concern"},
	{"source", []string{"source", "plan", "record", "ingest", "lake", "eventlog", "internal"}, "a source gives items, of the log or of the rows that ingest made of them; what becomes of them is not its concern"},
	{"collect", []string{"collect", "record", "caliper", "internal"}, "the collector checks and appends; the log comes in by interface"},
	{"delivery", []string{"delivery", "lake", "plan", "record", "internal"}, "reports read what sinks wrote, as anybody could; the lake says which files that is"},
	{"forget", []string{"forget", "plan", "record"}, "what is of a person is a question about bytes and rows, wherever they are"},
	{"sim", []string{"sim", "record", "caliper", "internal"}, "the simulator posts over HTTP like a sensor: it must not know the inside"},
	{"artifact", []string{"", "control/local", "etl", "eventlog", "lake", "plan", "internal"}, "the process of a job wires what that job needs; apps are given to it, and it knows no control plane"},
	{"control", []string{"control", "plan", "record", "internal"}, "the control plane starts jobs and does not know how they run"},
	{"web", []string{"web", "control", "internal"}, "a page has no private back door: its values come in by functions"},
	{"apps", []string{"", "apps", "etl", "process", "caliper"}, "apps are what users write: they get by with the public API"},
	{"internal", []string{"internal"}, "small helpers have no opinion about the system"},
}

// wiring folders may import anything of ours: only they put implementations behind interfaces. bench does it to measure them.
var wiring = []string{"cmd", "", "test", "bench"}

func TestLayers(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		folder := p.folder()
		if folder == "" || under(folder, wiring...) {
			continue
		}
		known := false
		for _, l := range layers {
			if !under(folder, l.folder) {
				continue
			}
			known = true
			for _, imp := range p.Imports {
				to, ok := ours(imp)
				if !ok || to == folder || strings.HasPrefix(to, folder+"/") {
					continue
				}
				allowed := slices.ContainsFunc(l.may, func(m string) bool { return to == m || m != "" && under(to, m) })
				if !allowed {
					t.Errorf("%s imports %s: %s. It may import: %v", folder, to, l.why, l.may)
				}
			}
		}
		if !known {
			t.Errorf("%s has no rule in internal/arch: say there what it may import, and why", folder)
		}
	}
}

// TestTwoRunnersApart says the one rule of TestLayers that tests must keep too.
func TestTwoRunnersApart(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		for _, imp := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			to, _ := ours(imp)
			if under(p.folder(), "engine") && under(to, "flink") || under(p.folder(), "flink") && under(to, "engine") {
				t.Errorf("%s imports %s: each runner has to pass plantest without the other", p.folder(), to)
			}
		}
	}
}

// TestPure: the packages that make plans do no I/O, so that a job can be stepped, replayed and run anywhere.
func TestPure(t *testing.T) {
	t.Parallel()
	impure := []string{
		"net", "os", "io/ioutil", "io/fs", "database/sql", "syscall", "log", "plugin", "runtime/debug",
		"github.com/twmb/franz-go", "github.com/cockroachdb/pebble", "github.com/apache/iceberg-go", "github.com/duckdb",
		"github.com/minio", "github.com/elastic", "modernc.org/sqlite",
	}
	for _, p := range list(t) {
		if !under(p.folder(), "etl", "process", "ingest", "plan", "record", "caliper") || testSupport(p) {
			continue
		}
		for _, imp := range p.Imports {
			if under(imp, impure...) && imp != "net/url" && imp != "net/netip" {
				t.Errorf("%s imports %s: packages that make plans do no I/O; let the runner do it", p.folder(), imp)
			}
		}
	}
}

// TestClientsStayHome: each foreign system's client is imported in one place, so that it can be replaced there.
func TestClientsStayHome(t *testing.T) {
	t.Parallel()
	homes := []struct {
		module string
		in     []string
		why    string
	}{
		{"github.com/cockroachdb/pebble", []string{"engine"}, "state is the engine's own; nobody else may depend on how it is kept"},
		{"github.com/twmb/franz-go", []string{"eventlog"}, "one client of the log: everything else sees items and offsets"},
		{"github.com/apache/iceberg-go", []string{"lake"}, "one writer of Iceberg tables: two would have two ideas of a commit"},
		{"github.com/minio/minio-go", []string{"lake"}, "a bucket holds nothing but the files of the lake"},
		{"github.com/parquet-go/parquet-go", []string{"lake"}, "data files are part of the lake's format"},
		{"github.com/apache/arrow-go", nil, "Arrow is iceberg-go's business: its reader of Parquet checks no checksum"},
		{"github.com/duckdb", []string{"index", "delivery"}, "DuckDB is how the index stores and how reports read; the rest speaks protocols"},
		{"modernc.org/sqlite", []string{"control", "lake"}, "SQLite keeps the control store and the catalogue"},
		{"github.com/elastic", []string{"sink/elastic", "delivery"}, "the index is reached by its protocol in two places: to write and to report"},
		{"github.com/coreos/go-oidc", []string{"control/oidc"}, "one package says whom a provider's tokens identify; the rest sees people"},
		{"golang.org/x/oauth2", []string{"control/oidc"}, "codes, tokens and the client's secret stay where they are checked"},
		{"github.com/spf13/cobra", []string{"cmd", ""}, "flags are the command line's; a package takes a Config"},
		{"github.com/chromedp", nil, "a browser is for tests"},
		{"github.com/prometheus/prometheus", nil, "Prometheus' engine is for tests: what serves answers scrapes, and no queries"},
	}
	for _, p := range list(t) {
		if testSupport(p) {
			continue
		}
		for _, imp := range p.Imports {
			for _, h := range homes {
				if !under(imp, h.module) {
					continue
				}
				at := slices.ContainsFunc(h.in, func(in string) bool { return in == p.folder() || in != "" && under(p.folder(), in) })
				if !at {
					t.Errorf("%s imports %s, which stays in %v: %s", p.folder(), imp, h.in, h.why)
				}
			}
		}
	}
}

// testSupport reports whether a package is linked into tests only: its name ends in test.
func testSupport(p pkg) bool {
	return strings.HasSuffix(p.Name, "test") || under(p.folder(), "test")
}

// TestNoTestLibraries: a binary links no test library.
func TestNoTestLibraries(t *testing.T) {
	t.Parallel()
	libraries := []string{"testing", "github.com/stretchr/testify", "github.com/cockroachdb/datadriven", "github.com/rogpeppe/go-internal"}
	for _, p := range list(t) {
		if testSupport(p) {
			continue
		}
		for _, imp := range p.Imports {
			if under(imp, libraries...) {
				t.Errorf("%s imports %s outside its tests: move what needs it into a package whose name ends in test", p.folder(), imp)
			}
			if to, ok := ours(imp); ok && strings.HasSuffix(path.Base(to), "test") && to != "test" {
				t.Errorf("%s imports %s outside its tests: a binary would link it", p.folder(), to)
			}
		}
	}
}

// TestFolderNames: a package is a noun that a user of the system would know.
func TestFolderNames(t *testing.T) {
	t.Parallel()
	vague := []string{"pkg", "src", "common", "util", "utils", "models", "types", "helpers", "helper", "misc", "base", "shared", "lib"}
	for _, p := range list(t) {
		for step := range strings.SplitSeq(p.folder(), "/") {
			if slices.Contains(vague, step) {
				t.Errorf("%s: a folder called %s says nothing of what is in it; name it after that", p.folder(), step)
			}
		}
	}
}

// TestFileNames: a file whose name ends in an operating system or processor is left out of builds elsewhere, silently.
func TestFileNames(t *testing.T) {
	t.Parallel()
	platforms := []string{
		"aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "ios", "js", "linux", "netbsd", "openbsd", "plan9", "solaris", "wasip1", "windows",
		"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64", "s390x", "sparc64", "wasm",
	}
	for _, p := range list(t) {
		// go list has already left out those for other platforms; look at the folder itself.
		files, err := filepath.Glob(filepath.Join(p.Dir, "*.go"))
		require.NoError(t, err)
		for _, f := range files {
			name := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(f), ".go"), "_test")
			if i := strings.LastIndexByte(name, '_'); i >= 0 && slices.Contains(platforms, name[i+1:]) {
				t.Errorf("%s/%s is compiled only for %s because of its name: call it something else", p.folder(), filepath.Base(f), name[i+1:])
			}
			if name != strings.ToLower(name) || strings.Contains(name, "-") {
				t.Errorf("%s/%s: files are named in snake_case", p.folder(), filepath.Base(f))
			}
		}
	}
}

// TestNoSleep: waiting is done on a signal, or in internal/retry where the clock and the end of waiting are in one place.
func TestNoSleep(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		if under(p.folder(), "internal/retry") || testSupport(p) {
			continue
		}
		for _, name := range p.GoFiles {
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			require.NoError(t, err)
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.SelectorExpr)
				if !ok || call.Sel.Name != "Sleep" {
					return true
				}
				if x, ok := call.X.(*ast.Ident); ok && x.Name == "time" {
					t.Errorf("%s: time.Sleep cannot be interrupted; wait on a timer and the context, or use internal/retry", set.Position(n.Pos()))
				}
				return true
			})
		}
	}
}

// TestArchitectureNamesFiles: what ARCHITECTURE.md names in code quotes as a file or folder is there.
func TestArchitectureNamesFiles(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../ARCHITECTURE.md")
	require.NoError(t, err)
	named := regexp.MustCompile("`([a-z0-9_./-]+(?:/|\\.go|\\.js|\\.json|\\.sh|\\.yml))`").FindAllStringSubmatch(string(text), -1)
	require.Greater(t, len(named), 20)
	for _, m := range named {
		if !strings.Contains(m[1], "/") {
			continue // a file of the folder in the same line
		}
		if _, err := os.Stat(filepath.Join("..", "..", m[1])); err != nil && !strings.Contains(m[1], "NAME") {
			t.Errorf("ARCHITECTURE.md names %s, which is not there: say where it went", m[1])
		}
	}
}
