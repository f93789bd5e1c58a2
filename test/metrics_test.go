package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"millrace/internal/promtest"
)

// late are metrics that a serve exposes only when something has happened that takes long, or is wrong.
var late = map[string][]string{
	"millrace_lake_compacted_timestamp_seconds": {"table"},
}

// talks are the names of the talk, which do not say their units as others do.
var talks = regexp.MustCompile(`^(write_records|flink_)`)

// TestMetricsAreDocumented compares what a serve exposes with the table in docs/operations.md, and the names with Prometheus' rules for them.
// The shipped rules and boards ask for nothing else.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	lookAtSources(t)
	x := &scraped{dir: filepath.Join(t.TempDir(), "data"), address: "127.0.0.1:0"}
	x.s, x.at = startServe(t, "--data-dir", x.dir, "--flush", "200ms", "--listen", x.address, "--table-topics")
	x.key = output(t, "key", "add", "--data-dir", x.dir, "--account", "deepthought", "--env", "deepthought3", "--source-type", "EDGENUITY_LMS")
	x.send(t)
	require.Eventually(t, func() bool {
		return metric(t, x.at[0], "millrace_job_ledger_balanced") == 2 // jobs
	}, patience, 100*time.Millisecond)
	text := x.scrape(t)
	families := promtest.Families(t, text)
	exposed := map[string]promtest.Family{}
	for _, f := range families {
		exposed[f.Name] = f
	}

	t.Run("names", func(t *testing.T) {
		problems, err := promlint.New(bytes.NewReader(text)).Lint()
		require.NoError(t, err)
		for _, p := range problems {
			if !talks.MatchString(p.Metric) {
				t.Errorf("%s: %s", p.Metric, p.Text)
			}
		}
	})
	t.Run("docs", func(t *testing.T) {
		docs, err := os.ReadFile("../docs/operations.md")
		require.NoError(t, err)
		for _, f := range families {
			if ours(f.Name) {
				require.NotEmpty(t, f.Help, f.Name)
				if !strings.Contains(string(docs), "\n"+docsRow(f)+"\n") {
					t.Errorf("docs/operations.md lacks the row of a metric:\n%s", docsRow(f))
				}
			}
		}
		for _, m := range regexp.MustCompile("`((?:millrace|write|flink)_[a-z_]+)").FindAllStringSubmatch(string(docs), -1) {
			_, isExposed := exposed[m[1]]
			require.True(t, isExposed || late[m[1]] != nil || strings.HasSuffix(m[1], "_"), "docs/operations.md names %s, which no serve exposes", m[1])
		}
	})
	t.Run("rules", func(t *testing.T) {
		for _, r := range promtest.Rules(t, rulesFile) {
			asksForExposed(t, exposed, r.Alert, r.Expr)
		}
	})
	t.Run("boards", func(t *testing.T) {
		names, err := filepath.Glob("../deploy/grafana/*.json")
		require.NoError(t, err)
		require.Len(t, names, 2)
		for _, name := range names {
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			checkBoard(t, exposed, filepath.Base(name), b)
		}
	})
	t.Run("talk", func(t *testing.T) {
		for _, q := range []string{talkRecords, talkCheckpoints, talkRestarts} {
			asksForExposed(t, exposed, q, q)
		}
	})
	x.s.interrupt(t)
}

func ours(name string) bool { return strings.HasPrefix(name, "millrace_") || talks.MatchString(name) }

// docsRow is how the documentation has a metric.
func docsRow(f promtest.Family) string {
	name := f.Name
	if len(f.Labels) > 0 {
		name += "{" + strings.Join(f.Labels, ",") + "}"
	}
	return fmt.Sprintf("| `%s` | %s | %s |", name, f.Type, f.Help)
}

// asksForExposed finds what an expression asks for that no serve exposes: a metric, or a label of it.
func asksForExposed(t *testing.T, exposed map[string]promtest.Family, what, expr string) {
	t.Helper()
	selected := promtest.Selected(t, expr)
	require.NotEmpty(t, selected, what)
	for _, s := range selected {
		name := s.Name
		if name == "up" {
			continue // of Prometheus itself
		}
		f, ok := exposed[name]
		if !ok { // a part of a histogram
			base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
			f, ok = exposed[base]
			ok = ok && f.Type == "histogram"
		}
		require.True(t, ok || late[name] != nil, "%s: %s asks for %s, which no serve exposes", what, expr, name)
		for _, m := range s.LabelMatchers {
			known := slices.Concat(f.Labels, late[name], []string{model.MetricNameLabel, "instance", "job"}) // the last two are Prometheus'
			require.Contains(t, known, m.Name, "%s: %s", what, expr)
		}
	}
}

// checkBoard reads a board as Grafana does, and looks at every expression in it.
func checkBoard(t *testing.T, exposed map[string]promtest.Family, name string, text []byte) {
	t.Helper()
	var board struct {
		UID, Title string
		Panels     []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr, LegendFormat string }
		}
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
	}
	require.NoError(t, json.Unmarshal(text, &board), name)
	require.NotEmpty(t, board.UID, name)
	variables := map[string]bool{"__rate_interval": true, "__range": true}
	for _, v := range board.Templating.List {
		variables[v.Name] = true
		if v.Type == "query" {
			m := regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`).FindStringSubmatch(v.Definition)
			require.NotNil(t, m, "%s: variable %s", name, v.Name)
			require.Contains(t, exposed, m[1], "%s: variable %s", name, v.Name)
			require.Contains(t, slices.Concat(exposed[m[1]].Labels, []string{"instance"}), m[2], "%s: variable %s", name, v.Name)
		}
	}
	ids, panels := map[int]bool{}, 0
	for _, p := range board.Panels {
		require.False(t, ids[p.ID], "%s: panel %d is there twice", name, p.ID)
		ids[p.ID] = true
		require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, "%s: %s", name, p.Title)
		if p.Type == "row" {
			continue
		}
		panels++
		require.NotEmpty(t, p.Targets, "%s: %s", name, p.Title)
		for _, target := range p.Targets {
			for _, v := range regexp.MustCompile(`\$\{?(\w+)`).FindAllStringSubmatch(target.Expr, -1) {
				require.True(t, variables[v[1]], "%s: %s: there is no variable %s", name, p.Title, v[1])
			}
			expr := strings.NewReplacer("$__rate_interval", "1m", "$__range", "1h", "$instance", ".*", "$unique_id", "x").Replace(target.Expr)
			asksForExposed(t, exposed, name+": "+p.Title, expr)
			for _, l := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(target.LegendFormat, -1) {
				require.Contains(t, expr+strings.Join(labelsOf(t, exposed, expr), " "), l[1], "%s: %s: the legend", name, p.Title)
			}
		}
	}
	require.Greater(t, panels, 10, name)
}

// labelsOf are the labels of what an expression selects.
func labelsOf(t *testing.T, exposed map[string]promtest.Family, expr string) (all []string) {
	t.Helper()
	for _, s := range promtest.Selected(t, expr) {
		all = append(all, exposed[s.Name].Labels...)
	}
	return all
}
