//go:build ignore

// Testreport reads the output of go test -json, prints what failed, what was slow and what was skipped and why, and exits
// with 1 when a test failed.
//
//	go test -json ./... | go run scripts/testreport.go [-allow FILE]
//
// With -allow every skip that FILE does not allow is a failure too: a line of it is a regular expression for
// <package>.<test>, a space, and the reason why that test may be skipped.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

type event struct {
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Elapsed    float64
	Output     string
}

type test struct{ pkg, name string }

func (t test) String() string {
	if t.name == "" {
		return t.pkg
	}
	return t.pkg + "." + t.name
}

func main() {
	allow := flag.String("allow", "", "fail on a skip that this file does not allow")
	flag.Parse()
	if err := run(*allow); err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(1)
	}
}

func run(allowFile string) error {
	output := map[test]string{}
	ended := map[test]string{}
	elapsed := map[string]float64{}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 64<<20)
	for in.Scan() {
		var e event
		if json.Unmarshal(in.Bytes(), &e) != nil {
			fmt.Println(in.Text()) // of the go command itself
			continue
		}
		key := test{e.Package, e.Test}
		switch e.Action {
		case "build-output":
			fmt.Print(e.Output)
		case "output":
			if !strings.HasPrefix(e.Output, "=== ") {
				output[key] += e.Output
			}
		case "pass", "fail", "skip":
			ended[key] = e.Action
			if e.Test == "" {
				elapsed[e.Package] = e.Elapsed
			} else if e.Action == "pass" {
				delete(output, key)
			}
		}
	}
	if err := in.Err(); err != nil {
		return err
	}

	var failed, skipped []test
	passed := 0
	for t, how := range ended {
		switch {
		case how == "fail":
			failed = append(failed, t)
		case how == "skip" && t.name != "": // a package that "skips" has no tests
			skipped = append(skipped, t)
		case how == "pass" && t.name != "":
			passed++
		}
	}
	byName := func(a, b test) int { return strings.Compare(a.String(), b.String()) }
	slices.SortFunc(failed, byName)
	slices.SortFunc(skipped, byName)
	for _, t := range failed {
		fmt.Printf("--- FAIL %s\n%s", t, output[t])
	}
	slow := slices.SortedFunc(maps.Keys(elapsed), func(a, b string) int { return int(1000 * (elapsed[b] - elapsed[a])) })
	for _, p := range slow[:min(5, len(slow))] {
		fmt.Printf("    %6.1f s  %s\n", elapsed[p], p)
	}
	fmt.Printf("%d packages, %d tests passed, %d failed, %d skipped\n", len(elapsed), passed, len(failed), len(skipped))

	allowed, err := readAllowed(allowFile)
	if err != nil {
		return err
	}
	refused := 0
	for _, t := range skipped {
		why := strings.TrimSpace(output[t])
		if i := strings.LastIndex(why, "\n--- SKIP"); i >= 0 {
			why = why[:i]
		}
		note := ""
		if allowFile != "" {
			if i := slices.IndexFunc(allowed, func(r *regexp.Regexp) bool { return r.MatchString(t.String()) }); i < 0 {
				refused++
				note = "NOT ALLOWED "
			}
		}
		fmt.Printf("    skipped %s%s: %s\n", note, t, why)
	}
	switch {
	case len(elapsed) == 0:
		return fmt.Errorf("no package was tested")
	case len(failed) > 0:
		return fmt.Errorf("%d tests or packages failed", len(failed))
	case refused > 0:
		return fmt.Errorf("%d tests were skipped that %s does not allow", refused, allowFile)
	}
	return nil
}

func readAllowed(name string) ([]*regexp.Regexp, error) {
	if name == "" {
		return nil, nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var out []*regexp.Regexp
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		pattern, reason, _ := strings.Cut(line, " ")
		if strings.TrimSpace(reason) == "" {
			return nil, fmt.Errorf("%s: %q has no reason", name, line)
		}
		r, err := regexp.Compile("^(?:" + pattern + ")$")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, r)
	}
	return out, nil
}
