package api

import (
	"net/http"
	"time"

	"millrace/control/access"
)

// LakeStatsPath is the address of what the raw lake holds.
const LakeStatsPath = "/api/v1/lake/stats"

// LakeQuery chooses records of the raw lake, in the words of who asks. Empty is every one.
type LakeQuery struct {
	SourceType, Account, Env string
	From, To                 string // of event time, To excluded
}

// LakeStats is what the raw lake holds, as the manifests of its tables say.
type LakeStats struct {
	From      time.Time         `json:"from,omitzero"`
	To        time.Time         `json:"to,omitzero"`
	Snapshots map[string]string `json:"snapshots"` // by table the id, in decimal; a table that nothing was committed to has none
	Total     LakeAmount        `json:"total"`
	Shares    []LakeShare       `json:"shares"` // in order of source type, account, env, month and kind
}

// LakeShare is the records of one source type, account, env, month and kind.
type LakeShare struct {
	SourceType string `json:"source_type"`
	Account    string `json:"account"`
	Env        string `json:"env"`
	Month      string `json:"month"` // of event time, UTC: 2018-11
	Kind       string `json:"kind"`  // event, entity or reject
	LakeAmount
}

// LakeAmount is how much there is. Records is an estimate, between Least and Most, where From or To is within the time of a file.
type LakeAmount struct {
	Records int64     `json:"records"`
	Exact   bool      `json:"exact"`
	Least   int64     `json:"least"`
	Most    int64     `json:"most"`
	Bytes   int64     `json:"bytes"` // of files; an estimate where Records is one
	Files   int       `json:"files"`
	Oldest  time.Time `json:"oldest,omitzero"` // event time; a bound where Records is an estimate
	Newest  time.Time `json:"newest,omitzero"`
}

// lakeStats answers what the raw lake holds of the query's source_type, account, env, from and to.
func (h *Handler) lakeStats(r *http.Request) (any, error) {
	query, err := known(r, []string{"source_type", "account", "env", "from", "to"})
	if err != nil {
		return nil, err
	}
	q := LakeQuery{SourceType: query.Get("source_type"), Account: query.Get("account"), Env: query.Get("env"), From: query.Get("from"), To: query.Get("to")}
	stats, err := h.Service.LakeStats(r.Context(), access.From(r.Context()).Account, q)
	if stats.Shares == nil {
		stats.Shares = []LakeShare{} // a list for programs, not null
	}
	return stats, err
}
