package main

import (
	"millrace/engine"
	"millrace/web"
)

// meanwhile is a job's progress before and after something was counted in the targets of its sinks.
type meanwhile struct{ before, after engine.Progress }

// moving is how many rows a sink may have published while its target was counted, those that it has yet to publish included. So many, and
// no more, may the count differ from what the job has made. Not known: the sink has not begun the job's lineage yet, and its target may
// still hold what is to be taken back.
func (m meanwhile) moving(sink string) (rows int64, known bool) {
	for i, s := range m.before.Sinks {
		if s.Name == sink {
			return s.PendingRows + m.after.Rows - m.before.Rows, s.Begun && m.after.Sinks[i].Begun
		}
	}
	return 0, true
}

// refused is how many rows a sink has refused for good.
func (m meanwhile) refused(sink string) int64 {
	for _, s := range m.after.Sinks {
		if s.Name == sink {
			return s.Rejected
		}
	}
	return 0
}

// lakeAccount is where the records that were read from the log are in the raw lake. Not ok: what the lake holds is not known.
func lakeAccount(held web.Lake, raw meanwhile) (a web.Account, ok bool) {
	if held.Rows() == nil {
		return a, false
	}
	a = web.Account{
		Name: "log to lake", Total: web.Amount{Name: "read from the log", Count: raw.after.Read},
		Parts: []web.Amount{
			{Name: "events", Count: *held.Events},
			{Name: "entities", Count: *held.Entities},
			{Name: "rejects", Count: *held.Rejects},
			{Name: "replayed", Count: raw.after.Counters["replayed"]},
		},
	}
	if held.Forgotten > 0 {
		a.Parts = append(a.Parts, web.Amount{Name: "forgotten", Count: held.Forgotten})
	}
	if n := raw.refused("iceberg"); n > 0 {
		a.Parts = append(a.Parts, web.Amount{Name: "refused by the lake", Count: n})
	}
	moving, known := raw.moving("iceberg")
	return onTheirWay(a, moving, !known), true
}

// itemsAccount is what a job with tables made of the items that it took up. All of it is in one commit: it adds up after every epoch.
func itemsAccount(p engine.Progress) web.Account {
	c := p.Counters
	return web.Account{
		Name: "log to tables", Total: web.Amount{Name: "read from the log", Count: c["read"]},
		Parts: []web.Amount{
			{Name: "events for a table", Count: c["events"] - c["duplicates"]},
			{Name: "entities", Count: c["entities"]},
			{Name: "duplicates", Count: c["duplicates"]},
			{Name: "of no interest", Count: c["filtered"]},
			{Name: "rejects", Count: c["rejects"]},
			{Name: "unreadable", Count: c["unreadable"]},
			{Name: "replayed", Count: c["replayed"]},
		},
	}
}

// tableAccounts are where the records of each table are that is counted in the index.
func tableAccounts(tables []web.Table, job meanwhile) (accounts []web.Account) {
	c := job.after.Counters
	moving, known := job.moving("elastic")
	for _, t := range tables {
		prefix := "table." + t.Name + "."
		if t.Waiting == nil || t.Rows == nil || t.DeadLetters == nil {
			continue
		}
		a := web.Account{
			Name: "records of " + t.Name, Total: web.Amount{Name: "records", Count: c[prefix+"in"]},
			Parts: []web.Amount{
				{Name: "rows", Count: *t.Rows},
				{Name: "dead letters", Count: *t.DeadLetters},
				{Name: "waiting", Count: c[prefix+"waiting"]},
				{Name: "dropped", Count: c[prefix+"dropped"]},
				{Name: "deleted", Count: c[prefix+"deleted"]},
			},
		}
		// Rows of a table also go, and change places with dead letters: what is over may be on its way too.
		over := -a.Difference()
		accounts = append(accounts, onTheirWay(a, moving, !known || over > 0 && over <= moving))
	}
	return accounts
}

// onTheirWay adds what an account lacks and a sink has yet to publish.
func onTheirWay(a web.Account, moving int64, uncertain bool) web.Account {
	a.Parts = append(a.Parts, web.Amount{Name: "on their way", Count: min(max(a.Difference(), 0), moving)})
	a.Uncertain = uncertain && a.Difference() != 0
	return a
}
