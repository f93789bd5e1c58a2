package promtest

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/template"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// Rules reads a rules file, which must be one that Prometheus takes.
func Rules(t *testing.T, path string) []rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(path, false, model.UTF8Validation)
	require.Empty(t, errs)
	var all []rulefmt.Rule
	for _, g := range groups.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// Selected are the selectors of an expression, which must be one: the name of each, and its matchers.
func Selected(t *testing.T, expr string) []*parser.VectorSelector {
	t.Helper()
	e, err := parser.ParseExpr(expr)
	require.NoError(t, err, expr)
	var all []*parser.VectorSelector
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok {
			all = append(all, v)
		}
		return nil
	})
	return all
}

// unitTests is a file of promtool's unit tests, as far as it is understood here; anything else in it is an error.
type unitTests struct {
	RuleFiles          []string       `yaml:"rule_files"`
	EvaluationInterval model.Duration `yaml:"evaluation_interval"`
	Tests              []unitTest     `yaml:"tests"`
}

type unitTest struct {
	Name        string         `yaml:"name"`
	Interval    model.Duration `yaml:"interval"`
	InputSeries []struct {
		Series string `yaml:"series"`
		Values string `yaml:"values"`
	} `yaml:"input_series"`
	AlertRuleTest []alertTest `yaml:"alert_rule_test"`
}

type alertTest struct {
	EvalTime  model.Duration  `yaml:"eval_time"`
	Alertname string          `yaml:"alertname"`
	ExpAlerts []expectedAlert `yaml:"exp_alerts"`
}

type expectedAlert struct {
	Labels      map[string]string `yaml:"exp_labels"`
	Annotations map[string]string `yaml:"exp_annotations"`
}

// Test runs a file of unit tests in the form of promtool, and returns the alerts that it has seen firing.
func Test(t *testing.T, path string) (fired map[string]bool) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var file unitTests
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	require.NoError(t, d.Decode(&file))
	var rules []rulefmt.Rule
	for _, f := range file.RuleFiles {
		rules = append(rules, Rules(t, filepath.Join(filepath.Dir(path), f))...)
	}
	fired = map[string]bool{}
	for _, test := range file.Tests {
		t.Run(test.Name, func(t *testing.T) {
			for name := range test.run(t, rules, time.Duration(file.EvaluationInterval)) {
				fired[name] = true
			}
		})
	}
	return fired
}

// run evaluates the rules as a server does, from 0 to the last instant that is asked for.
func (u unitTest) run(t *testing.T, rules []rulefmt.Rule, every time.Duration) (fired map[string]bool) {
	t.Helper()
	s, last := New(), time.Duration(0)
	for _, in := range u.InputSeries {
		l, values, err := parser.ParseSeriesDesc(in.Series + " " + in.Values)
		require.NoError(t, err, in.Series)
		for i, v := range values {
			if !v.Omitted {
				s.add(l, time.UnixMilli(0).Add(time.Duration(i)*time.Duration(u.Interval)), v.Value)
			}
		}
	}
	for _, a := range u.AlertRuleTest {
		last = max(last, time.Duration(a.EvalTime))
	}
	fired = map[string]bool{}
	state := make([]alerts, len(rules))
	for at := time.Duration(0); at <= last; at += every {
		for i, r := range rules {
			if r.Alert != "" {
				state[i].evaluate(t, s, r, time.UnixMilli(0).Add(at))
			}
		}
		for _, a := range u.AlertRuleTest {
			if time.Duration(a.EvalTime) != at {
				continue
			}
			known, got := false, []expectedAlert{}
			for i, r := range rules {
				if r.Alert == a.Alertname {
					known = true
					got = append(got, state[i].firing(r, time.UnixMilli(0).Add(at))...)
				}
			}
			require.True(t, known, "there is no alert %s", a.Alertname)
			if len(got) > 0 {
				fired[a.Alertname] = true
			}
			require.ElementsMatch(t, a.expected(), got, "%s at %s", a.Alertname, a.EvalTime)
		}
	}
	return fired
}

// expected are the expected alerts, which have the name of the rule as a label.
func (a alertTest) expected() []expectedAlert {
	all := []expectedAlert{}
	for _, e := range a.ExpAlerts {
		e.Labels, e.Annotations = maps.Clone(e.Labels), maps.Clone(e.Annotations)
		if e.Labels == nil {
			e.Labels = map[string]string{}
		}
		if e.Annotations == nil {
			e.Annotations = map[string]string{}
		}
		e.Labels[model.AlertNameLabel] = a.Alertname
		all = append(all, e)
	}
	return all
}

// alerts are those of one rule that its expression holds for, by their labels.
type alerts map[string]*alert

type alert struct {
	expectedAlert
	since time.Time
}

func (a *alerts) evaluate(t *testing.T, s *Store, r rulefmt.Rule, at time.Time) {
	t.Helper()
	now := alerts{}
	for _, v := range s.Query(t, r.Expr, at) {
		expand := func(text string) string {
			out, err := template.NewTemplateExpander(t.Context(), "{{$labels := .Labels}}{{$value := .Value}}"+text, r.Alert,
				template.AlertTemplateData(v.Metric.Map(), nil, "", v), model.TimeFromUnixNano(at.UnixNano()), nil, nil, nil).Expand()
			require.NoError(t, err, "%s: %s", r.Alert, text)
			return out
		}
		x := &alert{since: at}
		x.Labels, x.Annotations = v.Metric.Map(), map[string]string{}
		delete(x.Labels, model.MetricNameLabel)
		for name, text := range r.Labels {
			x.Labels[name] = expand(text)
		}
		x.Labels[model.AlertNameLabel] = r.Alert
		for name, text := range r.Annotations {
			x.Annotations[name] = expand(text)
		}
		key := labels.FromMap(x.Labels).String()
		if before := (*a)[key]; before != nil {
			x.since = before.since
		}
		now[key] = x
	}
	*a = now
}

func (a alerts) firing(r rulefmt.Rule, at time.Time) (all []expectedAlert) {
	for _, key := range slices.Sorted(maps.Keys(a)) {
		if at.Sub(a[key].since) >= time.Duration(r.For) {
			all = append(all, a[key].expectedAlert)
		}
	}
	return all
}

// Values are the values of a vector, by the value of a label.
func Values(v promql.Vector, label string) map[string]float64 {
	out := map[string]float64{}
	for _, x := range v {
		out[x.Metric.Get(label)] = x.F
	}
	return out
}
