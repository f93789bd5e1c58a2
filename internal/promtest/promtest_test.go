package promtest_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/internal/promtest"
)

func TestScrapes(t *testing.T) {
	t.Parallel()
	s, began := promtest.New(), time.Unix(1000, 0)
	for i, text := range []string{"c{a=\"x\"} 1\nc{a=\"y\"} 5\n", "c{a=\"x\"} 4\nc{a=\"y\"} 5\n", "c{a=\"x\"} 7\n"} {
		s.Scrape(t, []byte(text), began.Add(time.Duration(i)*time.Minute))
	}
	at := began.Add(2 * time.Minute)
	require.Equal(t, map[string]float64{"x": 7}, promtest.Values(s.Query(t, "c", at), "a"), "y is stale, not five minutes old")
	require.InDelta(t, 0.05, s.Query(t, `rate(c{a="x"}[2m])`, at)[0].F, 0.03)
	require.InDelta(t, 8, s.Query(t, `2 ^ 3`, at)[0].F, 0)
	require.Equal(t, "c", promtest.Selected(t, `sum(rate(c[5m])) by (a)`)[0].Name)
}

func TestAlerts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"rules.yml": `
groups:
- name: one
  rules:
  - alert: Down
    expr: up == 0
    for: 2m
    labels: {severity: page}
    annotations: {summary: '{{ $labels.job }} is {{ $value }}'}
`,
		"test.yml": `
rule_files: [rules.yml]
evaluation_interval: 1m
tests:
- name: down for long
  interval: 1m
  input_series: [{series: 'up{job="a"}', values: '1 0 0 0 1'}]
  alert_rule_test:
  - {eval_time: 2m, alertname: Down}
  - eval_time: 3m
    alertname: Down
    exp_alerts: [{exp_labels: {job: a, severity: page}, exp_annotations: {summary: a is 0}}]
  - {eval_time: 4m, alertname: Down}
`,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	require.Equal(t, map[string]bool{"Down": true}, promtest.Test(t, filepath.Join(dir, "test.yml")))
}
