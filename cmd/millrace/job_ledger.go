package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"millrace"
	"millrace/control"
	"millrace/control/api"
	"millrace/engine"
	"millrace/ingest"
	"millrace/sink/elastic"
	"millrace/web"
)

const (
	// ledgerEvery is how often the targets of the jobs are counted for the metrics, when that takes no time.
	ledgerEvery = 15 * time.Second

	// ledgerShare is the part of the time that the counting may take: one in so many.
	ledgerShare = 50
)

// readLedger is the ledger of one job. It has accounts of two kinds: those of what the job counts are of its last commit, and those of what its
// targets hold are of when these were counted.
type readLedger struct {
	web.Ledger
	epoch   uint64 // last committed, of the accounts of the first kind
	targets bool   // all targets could be counted
}

// with is the ledger with the accounts of a later commit.
func (l *readLedger) with(p engine.Progress) readLedger {
	out := readLedger{epoch: p.Epoch}
	out.Accounts = committed(p)
	if l != nil {
		out.At, out.targets = l.At, l.targets
		for _, a := range l.Accounts {
			if !slices.ContainsFunc(out.Accounts, func(b web.Account) bool { return a.Name == b.Name }) {
				out.Accounts = append(out.Accounts, a)
			}
		}
	}
	return out
}

// committed are the accounts of which all terms are in one commit.
func committed(p engine.Progress) []web.Account {
	accounts := []web.Account{{
		Name: "read", Total: web.Amount{Name: "read", Count: p.Read},
		Parts: []web.Amount{{Name: "taken up", Count: p.Counters["read"]}, {Name: "of other source types", Count: p.Skipped}},
	}}
	if p.App != ingest.App {
		accounts = append(accounts, itemsAccount(p))
	}
	return accounts
}

// countLedger counts a job's targets, and returns what could not be counted.
func (s *stack) countLedger(ctx context.Context, j *stackJob) (readLedger, error) {
	var problems []error
	problem := func(what string, err error) { problems = append(problems, fmt.Errorf("%s: %w", what, err)) }
	moved := meanwhile{before: j.Progress()}
	at := time.Now()
	var accounts []web.Account
	if j == s.raw {
		held, err := s.rawLake(ctx, "")
		if err != nil {
			problem("the lake", err)
		}
		moved.after = j.Progress()
		if a, ok := lakeAccount(held, moved); ok {
			accounts = append(accounts, a)
		}
	} else {
		tables := s.tablesOf(ctx, s.index, j, func(table string) string { return elastic.VersionAlias(table, j.instance.Suffix()) }, problem)
		moved.after = j.Progress()
		setWaiting(tables, moved.after)
		accounts = tableAccounts(tables, moved)
	}
	l := readLedger{epoch: moved.after.Epoch, targets: len(problems) == 0}
	l.At, l.Accounts = at, append(committed(moved.after), accounts...)
	return l, errors.Join(problems...)
}

// keepLedgers counts the targets of the jobs from time to time, for the metrics, until ctx ends. It takes a small part of the time, however
// much there is to count.
func (s *stack) keepLedgers(ctx context.Context) error {
	missed := map[string]bool{} // the last time, by unique id
	for {
		began := time.Now()
		for _, j := range s.jobs() {
			if _, open := j.opened(); !open {
				continue // nothing becomes of it
			}
			counting, cancel := context.WithTimeout(ctx, 10*time.Second)
			l, err := s.countLedger(counting, j)
			cancel()
			if ctx.Err() != nil {
				return nil
			}
			if err == nil {
				j.setLedger(&l)
			} else if id := j.instance.UniqueID(); !missed[id] {
				s.cfg.logger.Warn("ledger not counted; it is tried again, and the metrics have that of before", "instance", id, "error", err)
			}
			missed[j.instance.UniqueID()] = err != nil
		}
		wait := time.NewTimer(max(ledgerEvery, ledgerShare*time.Since(began)))
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil
		case <-wait.C:
		}
	}
}

// Ledger implements api.Service: it counts the targets of an instance's job now.
func (s *stack) Ledger(ctx context.Context, app, dataVersion string) (api.Ledger, error) {
	j := s.raw
	if app != s.raw.program().plan.App {
		var err error
		if j, err = s.find(app, dataVersion); err != nil {
			return api.Ledger{}, err
		}
	} else if dataVersion != millrace.Unversioned {
		return api.Ledger{}, fmt.Errorf("%w: %s has the one instance %s", control.ErrUnknownInstance, app, millrace.Unversioned)
	}
	if _, known := j.known(); !known {
		return api.Ledger{}, fmt.Errorf("%w: nothing is known of %s: %w", control.ErrRefused, j.instance.UniqueID(), errors.Join(errors.New("it could not be opened"), j.failure()))
	}
	l, err := s.countLedger(ctx, j)
	out := api.Ledger{UniqueID: j.instance.UniqueID(), Epoch: l.epoch, At: l.At, Accounts: []api.Account{}}
	if err != nil {
		out.Problems = append(out.Problems, err.Error())
	}
	if l.targets && (l.Off() || l.Balanced()) {
		out.Balanced = new(l.Balanced())
	}
	for _, a := range l.Accounts {
		account := api.Account{Name: a.Name, Total: api.Amount(a.Total), Difference: a.Difference(), Uncertain: a.Uncertain}
		for _, p := range a.Parts {
			account.Parts = append(account.Parts, api.Amount(p))
		}
		out.Accounts = append(out.Accounts, account)
	}
	return out, nil
}

func (j *stackJob) setLedger(l *readLedger) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ledger = l
}

func (j *stackJob) readLedger() *readLedger {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ledger
}
