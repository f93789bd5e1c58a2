package control

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write docs/lifecycle.md anew")

// Each action in each state by each role either is allowed or says why not, and there is always something that an operator can do.
func TestAllowedIsTotal(t *testing.T) {
	t.Parallel()
	for _, s := range States {
		require.NotEmpty(t, Can(s, Admin), "%s is a dead end", s)
		if s != Canceling { // it ends by itself, or is forced to
			require.NotEmpty(t, Can(s, Operator), "%s is a dead end", s)
		}
		for _, a := range append(Actions, "explode") {
			for r := range Admin + 1 {
				err := Allowed(s, a, r)
				if err == nil {
					require.Contains(t, Can(s, r), a)
					require.GreaterOrEqual(t, r, Operator)
					continue
				}
				require.NotContains(t, Can(s, r), a)
				require.True(t, errors.Is(err, ErrRefused) != errors.Is(err, ErrNotAllowed), "%s %s %s: %v", s, a, r, err)
				if errors.Is(err, ErrRefused) && a != "explode" {
					require.ErrorContains(t, err, string(s))
				}
			}
		}
	}
	require.EqualError(t, Allowed(Suspended, Suspend, Operator), "refused: it is SUSPENDED; what can be done is resume, recover, upgrade, promote, rollback, delete")
	require.EqualError(t, Allowed(Deleting, Cancel, Admin), "refused: it is DELETING, which cannot be taken back; what can be done is delete")
	require.EqualError(t, Allowed(Running, Suspend, Analyst), "not allowed: to suspend an instance takes the role operator, and this is analyst")
}

func TestRoles(t *testing.T) {
	t.Parallel()
	for r := Viewer; r <= Admin; r++ {
		parsed, err := ParseRole(r.String())
		require.NoError(t, err)
		require.Equal(t, r, parsed)
	}
	require.Equal(t, "nobody", Role(0).String())
	_, err := ParseRole("root")
	require.EqualError(t, err, `there is no role "root"; there are viewer, analyst, operator, admin`)
}

// What the documentation says about the lifecycle is what the code says: go test ./control -run Documented -update.
func TestLifecycleIsDocumented(t *testing.T) {
	t.Parallel()
	const path = "../docs/lifecycle.md"
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(lifecycleDoc()), 0o644)) //nolint:gosec // anybody may read it
	}
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, lifecycleDoc(), string(b), "run go test ./control -run Documented -update, and read the diff")
}

func lifecycleDoc() string {
	var b strings.Builder
	b.WriteString("# The life of an instance\n\nMade from `control/lifecycle.go` by `go test ./control -run Documented -update`.\n\n")
	b.WriteString("A cell says which state an action leads to from the state at its left; an empty one is refused, with what can be done instead. " +
		"`SEEDING` and `RESTARTING` are states of a job that runs; actions take them as `RUNNING`.\n\n| state |")
	for _, a := range Actions {
		fmt.Fprintf(&b, " %s |", a)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(Actions)) + "\n")
	for _, s := range append([]State{deleted}, States...) {
		name := string(s)
		if s == deleted {
			name = "(none)"
		}
		fmt.Fprintf(&b, "| %s |", name)
		for _, a := range Actions {
			fmt.Fprintf(&b, " %s |", strings.TrimSpace(cell(s, a)))
		}
		b.WriteString("\n")
	}
	b.WriteString("\nForce takes the role `" + Force.least().String() + "`, everything else `" + Suspend.least().String() + "`.\n\n## What actions do\n\n" +
		"Each step is done at least once, whatever is killed meanwhile. When one fails, or the operation is taken back, what undoes it is done, as far as it was begun.\n\n" +
		"| action | meanwhile | steps | undone by | then, done | failed | taken back |\n|---|---|---|---|---|---|---|\n")
	for _, a := range Actions {
		m, ok := moves[a]
		if !ok {
			continue
		}
		canceled := stateWord(m.canceled)
		if m.canceled == deleted {
			canceled = "cannot be"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", a, stateWord(m.via), join(m.steps), join(m.undo), stateWord(m.to), stateWord(m.failed), canceled)
	}
	b.WriteString("\nforce kills the job, ends the operation, and leaves the instance `CANCELED`; what the job has committed stays, and `recover` goes on from there.\n\n```mermaid\nstateDiagram-v2\n")
	seen := map[string]bool{}
	arrow := func(from, to State, label string) {
		end := func(s State) string {
			if s == deleted {
				return "[*]"
			}
			return string(s)
		}
		line := fmt.Sprintf("    %s --> %s: %s\n", end(from), end(to), label)
		if from != to && !seen[line] {
			seen[line] = true
			b.WriteString(line)
		}
	}
	for _, a := range Actions {
		m, ok := moves[a]
		if !ok || m.via == same {
			continue
		}
		for _, s := range m.from {
			if s != Seeding && s != Restarting {
				arrow(s, m.via, string(a))
			}
		}
		arrow(m.via, m.to, "done")
		if m.failed != same {
			arrow(m.via, m.failed, "failed")
		}
	}
	arrow(Running, Failed, "the job fails")
	b.WriteString("```\n")
	return b.String()
}

func cell(s State, a Action) string {
	switch {
	case s == deleted && a != Start || s != deleted && !a.possible(s):
		return ""
	case a == Force:
		return string(Canceled)
	case a == Cancel && s.Busy():
		return "takes it back"
	}
	if to := moves[a].to; to == deleted {
		return "(none)"
	} else if to != same {
		return string(to)
	}
	return string(s)
}

func stateWord(s State) string {
	switch s {
	case same:
		return "as before"
	case deleted:
		return "(none)"
	}
	return string(s)
}

func join(steps []Step) string {
	words := make([]string, len(steps))
	for i, s := range steps {
		words[i] = string(s)
	}
	if len(words) == 0 {
		return "–"
	}
	return strings.Join(slices.Clip(words), ", ")
}
