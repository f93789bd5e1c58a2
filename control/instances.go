package control

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"time"

	"millrace/plan"
)

// ErrUnknownInstance is matched by the errors for an instance that there is not.
var ErrUnknownInstance = errors.New("unknown instance")

// ErrInstanceExists means that an app has an instance of the data version already.
var ErrInstanceExists = errors.New("there is an instance of that data version already")

// ErrRefused is matched by the errors for what cannot be done as things are now. They say why, and what to do.
var ErrRefused = errors.New("refused")

// Line is what all instances of an app for one tenant have in common: of them one at most serves.
type Line struct {
	Program string // the app's name
	Account string
	Env     string
}

func (l Line) String() string { return fmt.Sprintf("%s of %s:%s", l.Program, l.Account, l.Env) }

// Instance is what operators have decided about one namespace of an app's output.
type Instance struct {
	Line
	DataVersion string          // 20180827174235, or unversioned
	Seed        *plan.SeedRange // of the lake, that it begins with; nil: it begins with the oldest record of the log
	Suspended   bool            // it is not to run
	Deleting    bool            // it is being deleted; set by Delete
	Created     time.Time       // set by Create
}

// Change is one decision, for the history.
type Change struct {
	At          time.Time `json:"at"`
	DataVersion string    `json:"data_version"`
	Action      string    `json:"action"` // start, suspend, resume, promote, rollback or delete
	Who         string    `json:"who"`
	Reason      string    `json:"reason,omitempty"`
}

// By says who decides something, and why.
type By struct{ Who, Reason string }

// Instances keeps the instances of apps, which of them serve, and the history of both.
//
// Which instance serves changes in two steps, because the readers' names for its tables are elsewhere: Promote and Rollback record what is
// wanted, and Served that the names are changed. Between the two, Serving still answers the old one and Wanted the new one; whoever finds
// them different changes the names, after a crash as well.
type Instances struct{ db *sql.DB }

// States of a promotion.
const (
	promoting = "promoting"
	served    = "served"
	leaving   = "leaving"
	undone    = "undone"
)

// ReadServing returns which data version of a line serves, "" for none, from a file that is only read: it may be a copy that cannot be
// written, or one that was made before there were instances.
func ReadServing(ctx context.Context, path string, l Line) (dataVersion string, err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	query := url.Values{"_pragma": {"busy_timeout(5000)"}, "mode": {"ro"}}
	dataVersion, err = readServing(ctx, path, query, l)
	var coded interface{ Code() int }
	if errors.As(err, &coded) && (coded.Code()&0xff == 8 || coded.Code()&0xff == 14) { // SQLITE_READONLY, SQLITE_CANTOPEN: readers write too, beside the file
		query.Set("immutable", "1")
		dataVersion, err = readServing(ctx, path, query, l)
	}
	if err != nil {
		return "", openError(path, err)
	}
	return dataVersion, nil
}

func readServing(ctx context.Context, path string, query url.Values, l Line) (dataVersion string, err error) {
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: query.Encode()}).String())
	if err != nil {
		return "", err
	}
	x := &Instances{db}
	defer func() { err = errors.Join(err, db.Close()) }()
	tables := 0
	err = db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_master WHERE name = 'promotions'`).Scan(&tables)
	if err != nil || tables == 0 {
		return "", err
	}
	dataVersion, _, err = x.Serving(ctx, l)
	return dataVersion, err
}

// change runs fn in a transaction that also records the change.
func (x *Instances) change(ctx context.Context, l Line, c Change, fn func(*sql.Tx) error) error {
	err := transaction(ctx, x.db, func(tx *sql.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO changes (at, program, account, env, data_version, action, who, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			c.At.UnixMicro(), l.Program, l.Account, l.Env, c.DataVersion, c.Action, c.Who, c.Reason)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s %s of %s: %w", c.Action, c.DataVersion, l, err)
	}
	return nil
}

// Create adds an instance. The error matches ErrInstanceExists if the line has one of the data version.
func (x *Instances) Create(ctx context.Context, i Instance, by By) error {
	seed := ""
	if i.Seed != nil {
		b, err := json.Marshal(i.Seed)
		if err != nil {
			return fmt.Errorf("start %s of %s: %w", i.DataVersion, i.Line, err)
		}
		seed = string(b)
	}
	now := time.Now()
	return x.change(ctx, i.Line, Change{now, i.DataVersion, "start", by.Who, by.Reason}, func(tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, `INSERT INTO instances (program, account, env, data_version, seed, suspended, created) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT DO NOTHING`, i.Program, i.Account, i.Env, i.DataVersion, seed, i.Suspended, now.UnixMicro())
		return oneRow(done, err, ErrInstanceExists)
	})
}

// oneRow returns otherwise unless a statement has changed a row.
func oneRow(done sql.Result, err, otherwise error) error {
	if err != nil {
		return err
	}
	n, err := done.RowsAffected()
	if err == nil && n == 0 {
		err = otherwise
	}
	return err
}

// Suspend records that an instance is not to run, or that it is to run again.
func (x *Instances) Suspend(ctx context.Context, l Line, dataVersion string, suspended bool, by By) error {
	action := "resume"
	if suspended {
		action = "suspend"
	}
	return x.change(ctx, l, Change{time.Now(), dataVersion, action, by.Who, by.Reason}, func(tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, `UPDATE instances SET suspended = ? WHERE program = ? AND account = ? AND env = ? AND data_version = ?`,
			suspended, l.Program, l.Account, l.Env, dataVersion)
		return oneRow(done, err, ErrUnknownInstance)
	})
}

// Delete records that an instance is to be deleted, which cannot be undone, and that it serves no more after a rollback. One that serves, or
// is wanted to, is refused.
func (x *Instances) Delete(ctx context.Context, l Line, dataVersion string, by By) error {
	return x.change(ctx, l, Change{time.Now(), dataVersion, "delete", by.Who, by.Reason}, func(tx *sql.Tx) error {
		stack, err := promotions(ctx, tx, l)
		if err != nil {
			return err
		}
		if dataVersion == stack.serving() || dataVersion == stack.wanted() {
			return fmt.Errorf("%w: %s serves; promote another data version first", ErrRefused, dataVersion)
		}
		_, err = tx.ExecContext(ctx, `UPDATE promotions SET state = ? WHERE program = ? AND account = ? AND env = ? AND data_version = ?`,
			undone, l.Program, l.Account, l.Env, dataVersion)
		if err != nil {
			return err
		}
		done, err := tx.ExecContext(ctx, `UPDATE instances SET deleting = 1 WHERE program = ? AND account = ? AND env = ? AND data_version = ?`,
			l.Program, l.Account, l.Env, dataVersion)
		return oneRow(done, err, ErrUnknownInstance)
	})
}

// Deleted records that nothing is left of an instance.
func (x *Instances) Deleted(ctx context.Context, l Line, dataVersion string) error {
	_, err := x.db.ExecContext(ctx, `DELETE FROM instances WHERE program = ? AND account = ? AND env = ? AND data_version = ? AND deleting = 1`,
		l.Program, l.Account, l.Env, dataVersion)
	if err != nil {
		return fmt.Errorf("record that %s of %s is deleted: %w", dataVersion, l, err)
	}
	return nil
}

// List returns all instances, the oldest first.
func (x *Instances) List(ctx context.Context) (all []Instance, err error) {
	rows, err := x.db.QueryContext(ctx, `SELECT program, account, env, data_version, seed, suspended, deleting, created FROM instances ORDER BY created, data_version`)
	if err != nil {
		return nil, fmt.Errorf("list instances: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var i Instance
		var seed string
		var created int64
		if err := rows.Scan(&i.Program, &i.Account, &i.Env, &i.DataVersion, &seed, &i.Suspended, &i.Deleting, &created); err != nil {
			return nil, fmt.Errorf("list instances: %w", err)
		}
		if seed != "" {
			if err := json.Unmarshal([]byte(seed), &i.Seed); err != nil {
				return nil, fmt.Errorf("list instances: seeding of %s of %s: %w", i.DataVersion, i.Line, err)
			}
		}
		i.Created = time.UnixMicro(created).UTC()
		all = append(all, i)
	}
	return all, rows.Err()
}

// Promote records that an instance is wanted to serve. It is refused while another change of what serves is not complete.
func (x *Instances) Promote(ctx context.Context, l Line, dataVersion string, by By) error {
	return x.change(ctx, l, Change{time.Now(), dataVersion, "promote", by.Who, by.Reason}, func(tx *sql.Tx) error {
		stack, err := promotions(ctx, tx, l)
		if err != nil {
			return err
		}
		if err := stack.refuse(dataVersion); err != nil {
			return err
		}
		done, err := tx.ExecContext(ctx, `INSERT INTO promotions (program, account, env, data_version, state) SELECT program, account, env, data_version, ?
			FROM instances WHERE program = ? AND account = ? AND env = ? AND data_version = ?`, promoting, l.Program, l.Account, l.Env, dataVersion)
		return oneRow(done, err, ErrUnknownInstance)
	})
}

// Before returns the data version that served before the one that serves now. There must be one.
func (x *Instances) Before(ctx context.Context, l Line) (dataVersion string, err error) {
	err = transaction(ctx, x.db, func(tx *sql.Tx) error {
		stack, err := promotions(ctx, tx, l)
		if err == nil {
			dataVersion, err = stack.before()
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("roll back %s: %w", l, err)
	}
	return dataVersion, nil
}

// Rollback records that the instance is wanted to serve again that did before: the one that Before returned.
func (x *Instances) Rollback(ctx context.Context, l Line, before string, by By) error {
	return x.change(ctx, l, Change{time.Now(), before, "rollback", by.Who, by.Reason}, func(tx *sql.Tx) error {
		stack, err := promotions(ctx, tx, l)
		if err != nil {
			return err
		}
		if err := stack.refuse(before); err != nil {
			return err
		}
		switch now, err := stack.before(); {
		case err != nil:
			return err
		case now != before:
			return fmt.Errorf("%w: another data version serves meanwhile; look again", ErrRefused)
		}
		_, err = tx.ExecContext(ctx, `UPDATE promotions SET state = ? WHERE id = ?`, leaving, stack[0].id)
		return err
	})
}

// Served records that the instance serves that is wanted to.
func (x *Instances) Served(ctx context.Context, l Line, dataVersion string) error {
	err := transaction(ctx, x.db, func(tx *sql.Tx) error {
		stack, err := promotions(ctx, tx, l)
		if err != nil || stack.wanted() != dataVersion || len(stack) == 0 {
			return err
		}
		state := served
		if stack[0].state == leaving {
			state = undone
		}
		_, err = tx.ExecContext(ctx, `UPDATE promotions SET state = ? WHERE id = ?`, state, stack[0].id)
		return err
	})
	if err != nil {
		return fmt.Errorf("record that %s of %s serves: %w", dataVersion, l, err)
	}
	return nil
}

// Serving returns the data version that serves, and the one that is wanted to; "" for none.
func (x *Instances) Serving(ctx context.Context, l Line) (now, wanted string, err error) {
	err = transaction(ctx, x.db, func(tx *sql.Tx) error {
		stack, err := promotions(ctx, tx, l)
		now, wanted = stack.serving(), stack.wanted()
		return err
	})
	if err != nil {
		return "", "", fmt.Errorf("find out which data version of %s serves: %w", l, err)
	}
	return now, wanted, nil
}

// History returns the changes of a line, the newest first.
func (x *Instances) History(ctx context.Context, l Line) (all []Change, err error) {
	rows, err := x.db.QueryContext(ctx, `SELECT at, data_version, action, who, reason FROM changes WHERE program = ? AND account = ? AND env = ? ORDER BY id DESC`,
		l.Program, l.Account, l.Env)
	if err != nil {
		return nil, fmt.Errorf("read the history of %s: %w", l, err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var c Change
		var at int64
		if err := rows.Scan(&at, &c.DataVersion, &c.Action, &c.Who, &c.Reason); err != nil {
			return nil, fmt.Errorf("read the history of %s: %w", l, err)
		}
		c.At = time.UnixMicro(at).UTC()
		all = append(all, c)
	}
	return all, rows.Err()
}

// promotion is one of a line that is not undone.
type promotion struct {
	id          int64
	dataVersion string
	state       string
}

// stack are the promotions of a line, the newest first. Only the first one may be on its way.
type stack []promotion

func promotions(ctx context.Context, tx *sql.Tx, l Line) (s stack, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT id, data_version, state FROM promotions WHERE program = ? AND account = ? AND env = ? AND state <> ? ORDER BY id DESC`,
		l.Program, l.Account, l.Env, undone)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var p promotion
		if err := rows.Scan(&p.id, &p.dataVersion, &p.state); err != nil {
			return nil, err
		}
		s = append(s, p)
	}
	return s, rows.Err()
}

// refuse returns why a data version cannot be made to serve.
func (s stack) refuse(dataVersion string) error {
	switch {
	case s.serving() != s.wanted():
		return fmt.Errorf("%w: %s is being made to serve; wait until it does", ErrRefused, s.wanted())
	case s.serving() == dataVersion:
		return fmt.Errorf("%w: %s serves already", ErrRefused, dataVersion)
	}
	return nil
}

// before is the data version that a rollback leads to.
func (s stack) before() (string, error) {
	if len(s) < 2 {
		return "", fmt.Errorf("%w: no data version served before the one that serves now", ErrRefused)
	}
	return s[1].dataVersion, nil
}

func (s stack) serving() string {
	for _, p := range s {
		if p.state != promoting {
			return p.dataVersion
		}
	}
	return ""
}

func (s stack) wanted() string {
	for _, p := range s {
		if p.state != leaving {
			return p.dataVersion
		}
	}
	return ""
}

// CheckDataVersion returns an error unless text can name an instance: digits, as the time that it was made at has them.
func CheckDataVersion(text string) error {
	if text == "unversioned" || len(text) == len(dataVersionLayout) && strings.Trim(text, "0123456789") == "" {
		return nil
	}
	return fmt.Errorf("%q is no data version: want one such as 20180827174235, or unversioned", text)
}

const dataVersionLayout = "20060102150405"

// NewDataVersion is the data version of an instance that is made now.
func NewDataVersion(now time.Time) string { return now.UTC().Format(dataVersionLayout) }
