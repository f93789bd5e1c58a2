package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/control/api"
)

var noon = time.Date(2026, 9, 14, 12, 0, 0, 0, time.UTC)

var lakeHolds = api.LakeStats{
	From: noon, Snapshots: map[string]string{"events": "7395861523098374912"},
	Total: api.LakeAmount{Records: 378_192_031, Exact: true, Least: 378_192_031, Most: 378_192_031, Bytes: 12, Files: 3, Oldest: noon, Newest: noon},
	Shares: []api.LakeShare{{
		SourceType: "EDGENUITY_LMS", Account: "deepthought", Env: "deepthought1", Month: "2026-09", Kind: "event",
		LakeAmount: api.LakeAmount{Records: 7, Least: 1, Most: 9, Bytes: 4, Files: 1, Oldest: noon, Newest: noon},
	}},
}

func TestLakeStats(t *testing.T) {
	t.Parallel()
	s := &service{lakeStat: lakeHolds}
	ask := serve(t, s)
	const path = "/api/v1/lake/stats?source_type=EDGENUITY_LMS&account=deepthought&env=deepthought1&from=2026-09-14&to=2026-09-15T12:00:00Z"
	status, text := ask("GET", path, "", "")
	require.Equal(t, 401, status, "it takes an analyst: %s", text)
	require.Empty(t, s.asked)
	status, text = ask("GET", path, secret, "")
	require.Equal(t, 200, status)
	require.Equal(t, api.LakeQuery{SourceType: "EDGENUITY_LMS", Account: "deepthought", Env: "deepthought1", From: "2026-09-14", To: "2026-09-15T12:00:00Z"}, s.lake)
	require.JSONEq(t, `{"from":"2026-09-14T12:00:00Z","snapshots":{"events":"7395861523098374912"},
		"total":{"records":378192031,"exact":true,"least":378192031,"most":378192031,"bytes":12,"files":3,"oldest":"2026-09-14T12:00:00Z","newest":"2026-09-14T12:00:00Z"},
		"shares":[{"source_type":"EDGENUITY_LMS","account":"deepthought","env":"deepthought1","month":"2026-09","kind":"event",
			"records":7,"exact":false,"least":1,"most":9,"bytes":4,"files":1,"oldest":"2026-09-14T12:00:00Z","newest":"2026-09-14T12:00:00Z"}]}`, text)
	s.asked, s.lakeStat = nil, api.LakeStats{}
	status, text = ask("GET", "/api/v1/lake/stats", bound, "")
	require.Equal(t, 200, status)
	require.Equal(t, []string{`lake "acme"`}, s.asked)
	require.Contains(t, text, `"shares":[]`)
	for _, c := range []struct {
		query  string
		err    error
		status int
		detail string
	}{
		{"env=none", fmt.Errorf("%w: the lake has no records of env \"none\"; it has deepthought1", api.ErrNotFound), 404, `not found: the lake has no records of env "none"; it has deepthought1`},
		{"from=noon", fmt.Errorf("%w: from \"noon\" is no day or instant", api.ErrInvalid), 400, `not understood: from "noon" is no day or instant`},
		{"environment=x", nil, 400, `not understood: there is no parameter "environment"; there are account, env, from, source_type, to`},
		{"env=x&env=none", nil, 400, `not understood: parameter env is given 2 times; give it once`},
		{"env=damaged", errors.New("disk"), 500, "disk"},
	} {
		s.err = c.err
		status, text := ask("GET", "/api/v1/lake/stats?"+c.query, secret, "")
		require.Equal(t, c.status, status, c.query)
		var p api.Problem
		require.NoError(t, json.Unmarshal([]byte(text), &p))
		require.Equal(t, c.detail, p.Detail)
	}
}
