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
	"slices"
	"strings"
	"time"

	"millrace/plan"
)

// ErrUnknownInstance is matched by the errors for an instance that there is not.
var ErrUnknownInstance = errors.New("unknown instance")

// ErrInstanceExists means that an app has an instance of the data version already.
var ErrInstanceExists = errors.New("there is an instance of that data version already")

// ErrUnknownOperation is matched by the errors for an operation that there is not.
var ErrUnknownOperation = errors.New("unknown operation")

// ErrNotAllowed is matched by the errors for what somebody's role does not let them do.
var ErrNotAllowed = errors.New("not allowed")

// ErrRefused is matched by the errors for what cannot be done as things are now. They say why, and what to do.
var ErrRefused = errors.New("refused")

// ErrInvalid is matched by the errors for what could never be done as it was asked for: a name that is none, a role that there is not.
var ErrInvalid = errors.New("invalid")

// invalid is an error that matches ErrInvalid and says nothing of that.
type invalid struct{ error }

func (invalid) Is(target error) bool { return target == ErrInvalid }

func (i invalid) Unwrap() error { return i.error }

// StaleError refuses a change that was asked for with other revisions than the one that there is: somebody has changed it since it was read.
type StaleError struct {
	What    string // has changed
	Present any    // what it is now: an Instance, a Deploy, a User or what is Serving
}

func (e *StaleError) Error() string {
	return e.What + " has changed since it was read; read it again, and ask again if it is still what is wanted"
}

// seen reports whether a revision is one of those that are wanted: nil are all, and none of them is none.
func seen(wanted []int64, revision int64) bool {
	return wanted == nil || slices.Contains(wanted, revision)
}

// Line is what all instances of an app for one tenant have in common: of them one at most serves.
type Line struct {
	Program string `json:"program"` // the app's name
	Account string `json:"account"`
	Env     string `json:"env"`
}

func (l Line) String() string { return fmt.Sprintf("%s of %s:%s", l.Program, l.Account, l.Env) }

// Instance is what operators have decided about one namespace of an app's output.
type Instance struct {
	Line
	DataVersion string          // 20180827174235, or unversioned
	Seed        *plan.SeedRange // of the lake, that it begins with; nil: it begins with the oldest record of the log
	State       State           // one of its life but SEEDING and RESTARTING, which those know who see its job
	Version     string          // of the app that it runs
	Savepoint   string          // that it was suspended with; empty for none
	Error       string          // why it is FAILED
	Resources
	Created   time.Time
	Updated   time.Time
	UpdatedBy string

	// Revision is how often the record was written, from 1 on. Two that have the same one are the same.
	Revision int64
}

// Resources are what the job of an instance gets of the machine. Zero values are those of all jobs.
type Resources struct {
	Parallelism int   `json:"parallelism,omitempty"` // threads that share its records; no result depends on it
	Memory      int64 `json:"memory_mb,omitempty"`   // of its process
}

// With is r with what is set in other.
func (r Resources) With(other Resources) Resources {
	if other.Parallelism != 0 {
		r.Parallelism = other.Parallelism
	}
	if other.Memory != 0 {
		r.Memory = other.Memory
	}
	return r
}

// UniqueID is the instance's name everywhere: in metrics, directories and logs.
func (i Instance) UniqueID() string {
	return fmt.Sprintf("%s-%s-%s--%s", i.Program, i.Account, i.Env, i.DataVersion)
}

// By says who decides something, and why.
type By struct {
	Who    string `json:"who"`
	Reason string `json:"reason,omitempty"`
}

// Instances keeps the instances of apps, the operations on them, their jobs, and which of them serve.
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

// Version is an instance, and whether it serves.
type Version struct {
	Line
	DataVersion string
	Serving     bool
}

// ReadVersions returns the instances there are, the oldest first, from a file that is only read: it may be a copy that cannot be written, or one
// that was made before there were instances.
func ReadVersions(ctx context.Context, path string) ([]Version, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	query := url.Values{"_pragma": {"busy_timeout(5000)"}, "mode": {"ro"}}
	all, err := readVersions(ctx, path, query)
	var coded interface{ Code() int }
	if errors.As(err, &coded) && (coded.Code()&0xff == 8 || coded.Code()&0xff == 14) { // SQLITE_READONLY, SQLITE_CANTOPEN: readers write too, beside the file
		query.Set("immutable", "1")
		all, err = readVersions(ctx, path, query)
	}
	if err != nil {
		return nil, openError(path, err)
	}
	return all, nil
}

func readVersions(ctx context.Context, path string, query url.Values) (all []Version, err error) {
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: query.Encode()}).String())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tables := 0
	err = db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_master WHERE name = 'promotions'`).Scan(&tables)
	if err != nil || tables == 0 {
		return nil, err
	}
	return versions(ctx, db)
}

// versions lists the instances with what older files have of them too.
func versions(ctx context.Context, db *sql.DB) (all []Version, err error) {
	rows, err := db.QueryContext(ctx, `SELECT program, account, env, data_version FROM instances ORDER BY created, data_version`)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var v Version
		if err := rows.Scan(&v.Program, &v.Account, &v.Env, &v.DataVersion); err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	x := &Instances{db}
	for i := range all {
		now, _, err := x.Serving(ctx, all[i].Line)
		if err != nil {
			return nil, err
		}
		all[i].Serving = now == all[i].DataVersion
	}
	return all, nil
}

const instanceColumns = `program, account, env, data_version, seed, state, version, savepoint, error, created, updated, updated_by, parallelism, memory, revision`

func scanInstance(row interface{ Scan(...any) error }) (Instance, error) {
	var i Instance
	var seed string
	var created, updated int64
	err := row.Scan(&i.Program, &i.Account, &i.Env, &i.DataVersion, &seed, &i.State, &i.Version, &i.Savepoint, &i.Error, &created, &updated, &i.UpdatedBy, &i.Parallelism, &i.Resources.Memory, &i.Revision)
	if err == nil && seed != "" {
		if err = json.Unmarshal([]byte(seed), &i.Seed); err != nil {
			err = fmt.Errorf("seeding of %s of %s: %w", i.DataVersion, i.Line, err)
		}
	}
	i.Created, i.Updated = time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
	return i, err
}

// List returns all instances, the oldest first.
func (x *Instances) List(ctx context.Context) (all []Instance, err error) {
	rows, err := x.db.QueryContext(ctx, `SELECT `+instanceColumns+` FROM instances ORDER BY created, data_version`)
	if err != nil {
		return nil, fmt.Errorf("list instances: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		i, err := scanInstance(rows)
		if err != nil {
			return nil, fmt.Errorf("list instances: %w", err)
		}
		all = append(all, i)
	}
	return all, rows.Err()
}

// Instance returns one.
func (x *Instances) Instance(ctx context.Context, l Line, dataVersion string) (i Instance, err error) {
	err = transaction(ctx, x.db, func(tx *sql.Tx) error {
		i, err = instance(ctx, tx, l, dataVersion)
		return err
	})
	return i, err
}

func instance(ctx context.Context, tx *sql.Tx, l Line, dataVersion string) (Instance, error) {
	i, err := scanInstance(tx.QueryRowContext(ctx, `SELECT `+instanceColumns+` FROM instances WHERE program = ? AND account = ? AND env = ? AND data_version = ?`,
		l.Program, l.Account, l.Env, dataVersion))
	if errors.Is(err, sql.ErrNoRows) {
		return i, fmt.Errorf("%w: %s has no data version %s", ErrUnknownInstance, l, dataVersion)
	}
	if err != nil {
		return i, fmt.Errorf("read instance %s of %s: %w", dataVersion, l, err)
	}
	return i, nil
}

// put writes an instance that may be there already, as its next revision.
func put(ctx context.Context, tx *sql.Tx, i Instance) error {
	seed := ""
	if i.Seed != nil {
		b, err := json.Marshal(i.Seed)
		if err != nil {
			return err
		}
		seed = string(b)
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO instances (`+instanceColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)
		ON CONFLICT DO UPDATE SET state = excluded.state, version = excluded.version, savepoint = excluded.savepoint, error = excluded.error,
			updated = excluded.updated, updated_by = excluded.updated_by, parallelism = excluded.parallelism, memory = excluded.memory,
			revision = instances.revision + 1`,
		i.Program, i.Account, i.Env, i.DataVersion, seed, i.State, i.Version, i.Savepoint, i.Error, i.Created.UnixMicro(), i.Updated.UnixMicro(), i.UpdatedBy, i.Parallelism, i.Resources.Memory)
	return err
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

// Serving says what of a line readers see.
type Serving struct {
	Line
	Now    string // the data version that serves; empty: none does yet
	Wanted string // the one that is wanted to: another one than Now until readers see it
	Before string // what a rollback leads to; empty: there is nothing to go back to

	// Revision is a larger one after each change of the others. It is compared with those of requests to Promote and Rollback.
	Revision int64
}

// Stale refuses a change that was decided by another revision of what serves.
func (s Serving) Stale() *StaleError {
	now := "none"
	if s.Now != "" {
		now = s.Now
	}
	return &StaleError{What: fmt.Sprintf("which data version of %s serves, %s by now,", s.Program, now), Present: s}
}

// WhatServes returns what of a line serves, with its revision.
func (x *Instances) WhatServes(ctx context.Context, l Line) (s Serving, err error) {
	err = transaction(ctx, x.db, func(tx *sql.Tx) error {
		s, err = whatServes(ctx, tx, l)
		return err
	})
	if err != nil {
		return s, fmt.Errorf("find out which data version of %s serves: %w", l, err)
	}
	return s, nil
}

func whatServes(ctx context.Context, tx *sql.Tx, l Line) (Serving, error) {
	all, err := promotions(ctx, tx, l)
	if err != nil {
		return Serving{}, err
	}
	s := Serving{Line: l, Now: all.serving(), Wanted: all.wanted()}
	if len(all) > 1 {
		s.Before = all[1].dataVersion
	}
	// A promotion goes through its states in one order, and stays in the table: how far all have come is never the same again.
	err = tx.QueryRowContext(ctx, `SELECT coalesce(sum(CASE state WHEN ?1 THEN 1 WHEN ?2 THEN 2 WHEN ?3 THEN 3 ELSE 4 END), 0) FROM promotions
		WHERE program = ?4 AND account = ?5 AND env = ?6`, promoting, served, leaving, l.Program, l.Account, l.Env).Scan(&s.Revision)
	return s, err
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

// Ensure makes an instance that the system starts, and lets it serve where none of the line does.
func (x *Instances) Ensure(ctx context.Context, l Line, dataVersion, who string) error {
	err := transaction(ctx, x.db, func(tx *sql.Tx) error {
		if _, err := instance(ctx, tx, l, dataVersion); err == nil || !errors.Is(err, ErrUnknownInstance) {
			return err
		}
		now := time.Now()
		op := Operation{Line: l, DataVersion: dataVersion, Action: Start, By: By{Who: who}, State: Succeeded, Began: now, Ended: now}
		if err := op.insert(ctx, tx, "", Instance{Line: l, DataVersion: dataVersion, Created: now}); err != nil {
			return err
		}
		if err := op.update(ctx, tx); err != nil { // it has ended
			return err
		}
		return serveFirst(ctx, tx, l, dataVersion)
	})
	if err != nil {
		return fmt.Errorf("make %s of %s: %w", dataVersion, l, err)
	}
	return nil
}

// Served records that the instance serves that is wanted to.
func (x *Instances) Served(ctx context.Context, l Line, dataVersion string) error {
	err := transaction(ctx, x.db, func(tx *sql.Tx) error { return servedNow(ctx, tx, l, dataVersion) })
	if err != nil {
		return fmt.Errorf("record that %s of %s serves: %w", dataVersion, l, err)
	}
	return nil
}
