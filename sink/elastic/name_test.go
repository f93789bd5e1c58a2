package elastic_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/plan"
	"millrace/sink/elastic"
)

func TestIndexName(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ table, account, env, version, want string }{
		{"quiz_submission", "deepthought", "deepthought3", "20180827174235", "quiz_submission--deepthought-deepthought3--20180827174235"},
		{"quiz_submission", "deepthought", "prod", "", "quiz_submission--deepthought-prod--unversioned"},
	} {
		require.Equal(t, test.want, elastic.IndexName(test.table, test.account, test.env, test.version))
	}
}

func TestNoTwoTenantsShareAnIndex(t *testing.T) {
	t.Parallel()
	seen := map[string][2]string{}
	for _, tenant := range [][2]string{
		{"a", "b-c"}, {"a-b", "c"}, {"A", "b-c"}, {"a b", "c"}, {"a#b", "c"}, {"a/b", "c"}, {"ä", "c"}, {"", ""}, {"a\x00", "c"},
	} {
		name := elastic.IndexName("t", tenant[0], tenant[1], "1")
		require.Regexp(t, `^[a-z0-9][a-z0-9._-]*$`, name)
		require.NotContains(t, seen, name, "%q and %q", tenant, seen[name])
		seen[name] = tenant
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	p := &plan.Plan{}
	taken := &plan.Plan{Tables: []plan.Table{{Name: "t", Schema: plan.Schema{Columns: []plan.Column{{Name: "row_id", Type: plan.String}}}}}}
	for _, test := range []struct {
		config elastic.Config
		want   string
	}{
		{elastic.Config{URLs: []string{"http://x"}}, "no plan given"},
		{elastic.Config{Plan: p}, "no URL given"},
		{elastic.Config{Plan: p, URLs: []string{"localhost:9200"}}, `URL "localhost:9200" is not http://host:port`},
		{elastic.Config{Plan: p, URLs: []string{"http://x"}, APIKey: "k", Username: "u"}, "not both"},
		{elastic.Config{Plan: taken, URLs: []string{"http://x"}}, "table t has a column row_id"},
	} {
		_, err := elastic.New(test.config)
		require.ErrorContains(t, err, test.want)
	}
}
