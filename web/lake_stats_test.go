package web_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/web"
)

func TestLakeStats(t *testing.T) {
	t.Parallel()
	p := newPipeline(func() time.Time { return noon })
	cfg := p.config()
	var asked web.LakeQuery
	answer := web.LakeStats{
		From: noon, Snapshots: map[string]string{"events": "7395861523098374912"},
		Total: web.LakeAmount{Records: 378_192_031, Exact: true, Least: 378_192_031, Most: 378_192_031, Bytes: 12, Files: 3, Oldest: noon, Newest: noon},
		Shares: []web.LakeShare{{
			SourceType: "EDGENUITY_LMS", Account: "deepthought", Env: "deepthought1", Month: "2026-09", Kind: "event",
			LakeAmount: web.LakeAmount{Records: 7, Least: 1, Most: 9, Bytes: 4, Files: 1, Oldest: noon, Newest: noon},
		}},
	}
	cfg.LakeStats = func(_ context.Context, _ string, q web.LakeQuery) (web.LakeStats, error) {
		asked = q
		switch q.Env {
		case "none":
			return web.LakeStats{}, fmt.Errorf("%w: the lake has no records of env \"none\"; it has deepthought1", web.ErrNotFound)
		case "damaged":
			return web.LakeStats{}, errDisk
		}
		if q.From == "noon" {
			return web.LakeStats{}, fmt.Errorf("%w: from \"noon\" is no day or instant", web.ErrInvalid)
		}
		return answer, nil
	}
	s := newServer(t, cfg)

	w := get(s, "/api/v1/lake/stats?source_type=EDGENUITY_LMS&account=deepthought&env=deepthought1&from=2026-09-14&to=2026-09-15T12:00:00Z", "")
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, web.LakeQuery{SourceType: "EDGENUITY_LMS", Account: "deepthought", Env: "deepthought1", From: "2026-09-14", To: "2026-09-15T12:00:00Z"}, asked)
	require.JSONEq(t, `{"from":"2026-09-14T12:00:00Z","snapshots":{"events":"7395861523098374912"},
		"total":{"records":378192031,"exact":true,"least":378192031,"most":378192031,"bytes":12,"files":3,"oldest":"2026-09-14T12:00:00Z","newest":"2026-09-14T12:00:00Z"},
		"shares":[{"source_type":"EDGENUITY_LMS","account":"deepthought","env":"deepthought1","month":"2026-09","kind":"event",
			"records":7,"exact":false,"least":1,"most":9,"bytes":4,"files":1,"oldest":"2026-09-14T12:00:00Z","newest":"2026-09-14T12:00:00Z"}]}`, w.Body.String())

	for query, want := range map[string]struct {
		status int
		detail string
	}{
		"env=none":       {http.StatusNotFound, `not found: the lake has no records of env "none"; it has deepthought1`},
		"from=noon":      {http.StatusBadRequest, `invalid request: from "noon" is no day or instant`},
		"environment=x":  {http.StatusBadRequest, `invalid request: there is no parameter "environment"; there are account, env, from, source_type, to`},
		"env=x&env=none": {http.StatusBadRequest, `invalid request: parameter env is given 2 times; give it once`},
		"env=damaged":    {http.StatusInternalServerError, errDisk.Error()},
	} {
		w := get(s, "/api/v1/lake/stats?"+query, "")
		require.Equal(t, want.status, w.Code, query)
		require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"), query)
		var problem struct{ Detail string }
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &problem))
		require.Equal(t, want.detail, problem.Detail, query)
	}

	w = get(newServer(t, p.config()), "/api/v1/lake/stats", "")
	require.Equal(t, http.StatusOK, w.Code)
	require.Contains(t, w.Body.String(), `"shares":[]`)
}
