package test

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/internal/promtest"
)

const rulesFile = "../deploy/prometheus/millrace-rules.yml"

// TestAlertRules runs the unit tests of the rules that are shipped. Each alert must fire in one of them.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	fired := promtest.Test(t, "../deploy/prometheus/millrace-rules-test.yml")
	docs, err := os.ReadFile("../docs/operations.md")
	require.NoError(t, err)
	for _, r := range promtest.Rules(t, rulesFile) {
		require.Contains(t, string(docs), "`"+r.Alert+"`", "docs/operations.md says what to do")
		require.True(t, fired[r.Alert], "%s fires in no test", r.Alert)
		require.Regexp(t, regexp.MustCompile(`^(page|ticket)$`), r.Labels["severity"], r.Alert)
		require.NotEmpty(t, r.Annotations["summary"], r.Alert)
		require.NotEmpty(t, r.Annotations["description"], r.Alert)
	}
}
