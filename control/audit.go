package control

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Audit is who changed what, or wanted to. It is only added to: the file itself refuses the rest.
type Audit struct{ db *sql.DB }

// Entry is one change, or the refusal of one.
type Entry struct {
	ID      int64     `json:"id"`
	At      time.Time `json:"at"`
	Who     string    `json:"who"`
	Role    string    `json:"role"`
	Remote  string    `json:"remote,omitempty"` // address that it came from; empty for the command line
	Action  string    `json:"action"`           // suspend, add token, …
	Subject string    `json:"subject"`          // what it was done to
	Reason  string    `json:"reason,omitempty"`
	Outcome string    `json:"outcome"` // done, begun, or why not
}

// Add adds an entry, as of now.
func (a *Audit) Add(ctx context.Context, e Entry) error {
	_, err := a.db.ExecContext(ctx, `INSERT INTO audit (at, who, role, remote, action, subject, reason, outcome) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		time.Now().UnixMicro(), e.Who, e.Role, e.Remote, e.Action, e.Subject, e.Reason, e.Outcome)
	if err != nil {
		return fmt.Errorf("add %s of %s to the audit log: %w", e.Action, e.Subject, err)
	}
	return nil
}

// List returns entries, the newest first: those before an id, or the newest when it is 0, and so many at most.
func (a *Audit) List(ctx context.Context, before int64, most int) (all []Entry, err error) {
	rows, err := a.db.QueryContext(ctx, `SELECT id, at, who, role, remote, action, subject, reason, outcome FROM audit
		WHERE ? = 0 OR id < ? ORDER BY id DESC LIMIT ?`, before, before, most)
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var e Entry
		var at int64
		if err := rows.Scan(&e.ID, &at, &e.Who, &e.Role, &e.Remote, &e.Action, &e.Subject, &e.Reason, &e.Outcome); err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		e.At = time.UnixMicro(at).UTC()
		all = append(all, e)
	}
	return all, rows.Err()
}
