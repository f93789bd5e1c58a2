package control

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"millrace/plan"
)

// Request asks for an operation on an instance.
type Request struct {
	Line
	DataVersion string
	Action      Action
	By
	Role Role

	// Revisions are those of which the instance must have one, or for Promote and Rollback what serves of the line (WhatServes), as of whoever decided by what
	// they had read. The error is a StaleError when it has another. Default: any.
	Revisions []int64

	// Key makes the request idempotent: one with a key that was used before means the operation that it was used for. Default: none.
	Key string

	Seed      *plan.SeedRange // of the lake, that an instance begins with: for Start
	Serves    bool            // readers see it from its beginning, as the one instance of its app: for Start
	Savepoint string          // to make, for Suspend, TakeSavepoint and Upgrade; or to go back to, for Recover
	Version   string          // of the app that is deployed: for Start and Upgrade
	Resources                 // that its job gets from now on: for actions that start it
}

// exclusive reports whether an action keeps others from the instance until it has ended. A promotion does not: it only waits for the index.
func (a Action) exclusive() bool { return a != Promote && a != Rollback }

// starts reports whether an action ends with a job that was started for it.
func (a Action) starts() bool { return a == Start || a == Resume || a == Recover || a == Upgrade }

// Begin records an operation, and the state that its instance is in from now on. Asked to Cancel or Force what another operation is at work
// on, it returns that operation, of which this is noted. The error matches ErrRefused or ErrNotAllowed when Allowed says so, or another
// operation is at work.
func (x *Instances) Begin(ctx context.Context, r Request) (op Operation, err error) {
	err = transaction(ctx, x.db, func(tx *sql.Tx) error {
		op, err = begin(ctx, tx, r)
		return err
	})
	if err != nil {
		return op, fmt.Errorf("%s %s of %s: %w", r.Action, r.DataVersion, r.Line, err)
	}
	return op, nil
}

// Asked returns the operation that was begun by a request with its key; its ID is 0 when there is none. Who is about to check a request asks first: what it
// was refused for may be what the operation has done.
func (x *Instances) Asked(ctx context.Context, r Request) (op Operation, err error) {
	err = transaction(ctx, x.db, func(tx *sql.Tx) error {
		op, err = asked(ctx, tx, r)
		return err
	})
	return op, err
}

func asked(ctx context.Context, tx *sql.Tx, r Request) (Operation, error) {
	if r.Key == "" {
		return Operation{}, nil
	}
	op, err := operation(tx.QueryRowContext(ctx, `SELECT id, doc FROM operations WHERE key = ?`, r.Key))
	switch decided := r.Action == Start || r.Action == Rollback; { // which data version it is, when it was begun
	case errors.Is(err, sql.ErrNoRows):
		return Operation{}, nil
	case err != nil:
		return op, err
	case op.Action != r.Action || op.Line != r.Line || op.DataVersion != r.DataVersion && !decided:
		return op, fmt.Errorf("%w: the key %q was used for another request, to %s %s; use another one", ErrRefused, r.Key, op.Action, op.DataVersion)
	}
	return op, nil
}

func begin(ctx context.Context, tx *sql.Tx, r Request) (Operation, error) {
	if op, err := asked(ctx, tx, r); err != nil || op.ID != 0 {
		return op, err
	}
	now := time.Now()
	in, err := instance(ctx, tx, r.Line, r.DataVersion)
	switch {
	case r.Action == Start && err == nil:
		return Operation{}, ErrInstanceExists
	case r.Action == Start && errors.Is(err, ErrUnknownInstance):
		in = Instance{Line: r.Line, DataVersion: r.DataVersion, Seed: r.Seed, Version: r.Version, Created: now}
	case err != nil:
		return Operation{}, err
	}
	if r.Action.exclusive() {
		if !seen(r.Revisions, in.Revision) {
			return Operation{}, &StaleError{What: in.UniqueID(), Present: in}
		}
		other, err := working(ctx, tx, in)
		if err != nil {
			return other, err
		}
		if other.ID != 0 {
			return interrupt(ctx, tx, r, in, other)
		}
	} else {
		is, err := whatServes(ctx, tx, r.Line)
		if err != nil {
			return Operation{}, err
		}
		if !seen(r.Revisions, is.Revision) {
			return Operation{}, is.Stale()
		}
	}
	if err := Allowed(in.State, r.Action, r.Role); err != nil {
		return Operation{}, err
	}
	if r.Resources != (Resources{}) && !r.Action.starts() {
		return Operation{}, fmt.Errorf("%w: %s does not start the job, which gets other resources when it is started: suspend and resume it", ErrRefused, r.Action)
	}
	op := Operation{
		Line: r.Line, DataVersion: r.DataVersion, Action: r.Action, By: r.By, From: in.State, State: Working, Began: now,
		Savepoint: r.Savepoint, Before: in.Version, Version: in.Version,
	}
	if err := op.prepare(ctx, tx, r, in); err != nil {
		return op, err
	}
	in.Resources = in.With(r.Resources)
	return op, op.insert(ctx, tx, r.Key, in)
}

// prepare checks what only some actions need, and records what is decided with them.
func (o *Operation) prepare(ctx context.Context, tx *sql.Tx, r Request, in Instance) error {
	switch o.Action {
	case Start:
		if r.Serves {
			return serveFirst(ctx, tx, o.Line, o.DataVersion)
		}
	case Resume:
		o.Savepoint = in.Savepoint
	case Upgrade:
		if r.Version == in.Version {
			return fmt.Errorf("%w: it runs version %s, which is the one that is deployed; deploy another one first", ErrRefused, r.Version)
		}
		o.Version = r.Version
		switch in.State {
		case Suspended:
			o.Savepoint = in.Savepoint
		case Failed:
			o.Savepoint = "" // none can be made
		}
	case Promote, Rollback, Delete:
		stack, err := promotions(ctx, tx, o.Line)
		if err != nil {
			return err
		}
		switch o.Action {
		case Promote:
			return stack.promote(ctx, tx, o.Line, o.DataVersion)
		case Rollback:
			return stack.rollback(ctx, tx, o.DataVersion)
		}
		return stack.leave(ctx, tx, o.Line, o.DataVersion)
	}
	return nil
}

// working is the operation that is at work on an instance; its ID is 0 when there is none.
func working(ctx context.Context, tx *sql.Tx, in Instance) (Operation, error) {
	op, err := operation(tx.QueryRowContext(ctx, `SELECT id, doc FROM operations WHERE program = ? AND account = ? AND env = ? AND data_version = ?
		AND NOT ended AND action NOT IN (?, ?)`, in.Program, in.Account, in.Env, in.DataVersion, Promote, Rollback))
	if errors.Is(err, sql.ErrNoRows) {
		return Operation{}, nil
	}
	return op, err
}

// interrupt notes that an operation is to be taken back, or forced to end.
func interrupt(ctx context.Context, tx *sql.Tx, r Request, in Instance, other Operation) (Operation, error) {
	switch {
	case r.Action == Cancel && (other.Canceled || other.State == Undoing):
		return other, fmt.Errorf("%w: operation %d, %s by %s, is being undone already; wait until it has ended", ErrRefused, other.ID, other.Action, other.Who)
	case r.Action == Cancel && !moves[other.Action].final && (in.State.Busy() && Allowed(in.State, Cancel, r.Role) == nil || other.Action == TakeSavepoint):
		other.Canceled = true
	case r.Action == Force:
		if err := Allowed(in.State, Force, r.Role); err != nil {
			return other, err
		}
		other.Forced = true
	default:
		return other, fmt.Errorf("%w: operation %d, %s by %s, is at work since %s; wait until it has ended, or cancel it",
			ErrRefused, other.ID, other.Action, other.Who, other.Began.UTC().Format(time.RFC3339))
	}
	return other, other.update(ctx, tx)
}

// insert records a new operation, and the state of its instance.
func (o *Operation) insert(ctx context.Context, tx *sql.Tx, key string, in Instance) error {
	doc, err := json.Marshal(o)
	if err != nil {
		return err
	}
	done, err := tx.ExecContext(ctx, `INSERT INTO operations (program, account, env, data_version, action, ended, key, doc) VALUES (?, ?, ?, ?, ?, 0, nullif(?, ''), ?)`,
		o.Program, o.Account, o.Env, o.DataVersion, o.Action, key, string(doc))
	if err != nil {
		return err
	}
	if o.ID, err = done.LastInsertId(); err != nil {
		return err
	}
	in.State, in.Updated, in.UpdatedBy = o.leaves(), o.Began, o.Who
	return put(ctx, tx, in)
}

// update records how an operation is by now.
func (o *Operation) update(ctx context.Context, tx *sql.Tx) error {
	doc, err := json.Marshal(o)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE operations SET doc = ?, ended = ? WHERE id = ?`, string(doc), o.ended(), o.ID)
	return err
}

// operation reads one from a row of id and doc.
func operation(row interface{ Scan(...any) error }) (op Operation, err error) {
	var doc []byte
	var id int64
	if err := row.Scan(&id, &doc); err != nil {
		return op, err
	}
	if err := json.Unmarshal(doc, &op); err != nil {
		return op, fmt.Errorf("operation %d: %w", id, err)
	}
	op.ID = id
	return op, nil
}

// advance notes that a step of an operation was done, or what it failed of, with what follows for the instance, in one transaction. It returns the
// operation as it is then: meanwhile it may have been asked to be taken back. result is what RestoreJob went back to if it did, or the version that RunJob runs.
func (x *Instances) advance(ctx context.Context, id int64, step Step, began time.Time, result string, stepErr error) (op Operation, err error) {
	err = transaction(ctx, x.db, func(tx *sql.Tx) error {
		if op, err = operation(tx.QueryRowContext(ctx, `SELECT id, doc FROM operations WHERE id = ?`, id)); err != nil {
			return err
		}
		op.after(step, began, time.Now(), stepErr)
		if stepErr == nil && step == RestoreJob && result != "" {
			op.Savepoint = result
		}
		if stepErr == nil && step == RunJob && op.State != Undoing {
			op.Version = result
		}
		if err := op.update(ctx, tx); err != nil {
			return err
		}
		return op.apply(ctx, tx, step, result, stepErr)
	})
	if err != nil {
		return op, fmt.Errorf("record %q of operation %d: %w", step, id, err)
	}
	return op, nil
}

// apply brings the instance, its job and what serves to where the operation is.
func (o *Operation) apply(ctx context.Context, tx *sql.Tx, step Step, result string, stepErr error) error {
	in, err := instance(ctx, tx, o.Line, o.DataVersion)
	if err != nil {
		return err
	}
	if stepErr == nil {
		switch step {
		case RunJob:
			in.Version = result
			err = beginJob(ctx, tx, in, o.origin(), o.ID)
		case StopJob, SuspendJob:
			err = endJob(ctx, tx, in, string(o.Action)+" by "+o.Who)
		case TakeVersion:
			in.Version = o.Version
		case ReturnVersion:
			in.Version = o.Before
		case ServeInstance:
			err = servedNow(ctx, tx, o.Line, o.DataVersion)
		}
		if step == SuspendJob {
			in.Savepoint = o.Savepoint
		}
	}
	if err != nil {
		return err
	}
	if !o.Action.exclusive() {
		return nil // the instance may be in another state by now
	}
	in.State, in.Error = o.leaves(), ""
	if in.State == deleted {
		_, err := tx.ExecContext(ctx, `DELETE FROM instances WHERE program = ? AND account = ? AND env = ? AND data_version = ?`, in.Program, in.Account, in.Env, in.DataVersion)
		return err
	}
	if in.State == Failed {
		in.Error = o.Error
	}
	if o.stopped() {
		err = endJob(ctx, tx, in, o.Error)
	}
	in.Updated, in.UpdatedBy = time.Now(), o.Who
	return errors.Join(err, put(ctx, tx, in))
}

// What jobs begin from that begin from no savepoint.
const (
	fromBeginning  = "the beginning"
	fromLastCommit = "its last commit"
)

// origin is what a job begins from that the operation runs.
func (o *Operation) origin() string {
	switch {
	case o.Action == Start:
		return fromBeginning
	case o.Savepoint != "" && o.Action != Upgrade:
		return o.Savepoint
	}
	return fromLastCommit
}

// failed records that the job of an instance failed by itself. An operation that is at work on the instance sees that, and says what becomes of it.
func (x *Instances) failed(ctx context.Context, l Line, dataVersion string, cause error) error {
	err := transaction(ctx, x.db, func(tx *sql.Tx) error {
		in, err := instance(ctx, tx, l, dataVersion)
		if err != nil {
			return err
		}
		if err := endJob(ctx, tx, in, cause.Error()); err != nil || in.State.Busy() {
			return err
		}
		in.State, in.Error, in.Updated, in.UpdatedBy = Failed, cause.Error(), time.Now(), "system"
		return put(ctx, tx, in)
	})
	if err != nil {
		return fmt.Errorf("record that %s of %s failed: %w", dataVersion, l, err)
	}
	return nil
}

// began records that the job of an instance runs that is to: the control plane has started it, and nobody asked for that.
func (x *Instances) began(ctx context.Context, l Line, dataVersion, version string) error {
	err := transaction(ctx, x.db, func(tx *sql.Tx) error {
		in, err := instance(ctx, tx, l, dataVersion)
		if err != nil {
			return err
		}
		in.State, in.Error, in.Version = Running, "", version
		if err := endJob(ctx, tx, in, "its process ended"); err != nil { // one before, of a process that was killed
			return err
		}
		var ran bool
		err = tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM jobs WHERE program = ? AND account = ? AND env = ? AND data_version = ?)`,
			in.Program, in.Account, in.Env, in.DataVersion).Scan(&ran)
		if err != nil {
			return err
		}
		origin := fromBeginning
		if ran {
			origin = fromLastCommit
		}
		return errors.Join(put(ctx, tx, in), beginJob(ctx, tx, in, origin, 0))
	})
	if err != nil {
		return fmt.Errorf("record that %s of %s runs: %w", dataVersion, l, err)
	}
	return nil
}

// stopped records that the job of an instance has ended because the control plane does. It runs again at the next start.
func (x *Instances) stopped(ctx context.Context, l Line, dataVersion string) error {
	return transaction(ctx, x.db, func(tx *sql.Tx) error {
		return endJob(ctx, tx, Instance{Line: l, DataVersion: dataVersion}, "millrace stopped")
	})
}

// Working lists the operations that have not ended, the oldest first.
func (x *Instances) Working(ctx context.Context) ([]Operation, error) {
	return x.operations(ctx, `WHERE NOT ended ORDER BY id`)
}

// Operation returns one by its id.
func (x *Instances) Operation(ctx context.Context, id int64) (Operation, error) {
	all, err := x.operations(ctx, `WHERE id = ?`, id)
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("%w: there is none with the id %d", ErrUnknownOperation, id)
	}
	if err != nil {
		return Operation{}, err
	}
	return all[0], nil
}

// History returns the operations on a line's instances, the newest first: those before an id, or the newest when it is 0, and so many at most.
func (x *Instances) History(ctx context.Context, l Line, before int64, most int) ([]Operation, error) {
	return x.operations(ctx, `WHERE program = ? AND account = ? AND env = ? AND (? = 0 OR id < ?) ORDER BY id DESC LIMIT ?`, l.Program, l.Account, l.Env, before, before, most)
}

func (x *Instances) operations(ctx context.Context, where string, args ...any) (all []Operation, err error) {
	rows, err := x.db.QueryContext(ctx, `SELECT id, doc FROM operations `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("list operations: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		op, err := operation(rows)
		if err != nil {
			return nil, fmt.Errorf("list operations: %w", err)
		}
		all = append(all, op)
	}
	return all, rows.Err()
}

// Job is one run of an instance.
type Job struct {
	ID        int64     `json:"id"`
	Version   string    `json:"version"` // of the app
	Origin    string    `json:"origin"`  // what it began from: the beginning, its last commit, a savepoint or a checkpoint
	Began     time.Time `json:"began"`
	Ended     time.Time `json:"ended,omitzero"`
	Cause     string    `json:"cause,omitempty"` // of its end
	Operation int64     `json:"operation,omitempty"`
}

// Jobs lists the newest runs of an instance, the newest first.
func (x *Instances) Jobs(ctx context.Context, l Line, dataVersion string, most int) (all []Job, err error) {
	rows, err := x.db.QueryContext(ctx, `SELECT id, version, origin, began, coalesce(ended, 0), cause, coalesce(operation, 0) FROM jobs
		WHERE program = ? AND account = ? AND env = ? AND data_version = ? ORDER BY id DESC LIMIT ?`, l.Program, l.Account, l.Env, dataVersion, most)
	if err != nil {
		return nil, fmt.Errorf("list jobs: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var j Job
		var began, ended int64
		if err := rows.Scan(&j.ID, &j.Version, &j.Origin, &began, &ended, &j.Cause, &j.Operation); err != nil {
			return nil, fmt.Errorf("list jobs: %w", err)
		}
		if j.Began = time.UnixMicro(began).UTC(); ended != 0 {
			j.Ended = time.UnixMicro(ended).UTC()
		}
		all = append(all, j)
	}
	return all, rows.Err()
}

// beginJob records a job, unless one runs already.
func beginJob(ctx context.Context, tx *sql.Tx, in Instance, origin string, operation int64) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO jobs (program, account, env, data_version, version, origin, began, operation)
		SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, nullif(?8, 0)
		WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE program = ?1 AND account = ?2 AND env = ?3 AND data_version = ?4 AND ended IS NULL)`,
		in.Program, in.Account, in.Env, in.DataVersion, in.Version, origin, time.Now().UnixMicro(), operation)
	return err
}

// endJob records the end of the job that runs, if one does.
func endJob(ctx context.Context, tx *sql.Tx, in Instance, cause string) error {
	_, err := tx.ExecContext(ctx, `UPDATE jobs SET ended = ?, cause = ? WHERE program = ? AND account = ? AND env = ? AND data_version = ? AND ended IS NULL`,
		time.Now().UnixMicro(), cause, in.Program, in.Account, in.Env, in.DataVersion)
	return err
}

// promote records that a data version is wanted to serve. It is refused while another change of what serves is not complete.
func (s stack) promote(ctx context.Context, tx *sql.Tx, l Line, dataVersion string) error {
	if err := s.refuse(dataVersion); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO promotions (program, account, env, data_version, state) VALUES (?, ?, ?, ?, ?)`,
		l.Program, l.Account, l.Env, dataVersion, promoting)
	return err
}

// serveFirst records that a data version serves where none of the line does. The index gives it the names that readers use when it begins.
func serveFirst(ctx context.Context, tx *sql.Tx, l Line, dataVersion string) error {
	s, err := promotions(ctx, tx, l)
	if err != nil || len(s) > 0 {
		return err
	}
	if err := s.promote(ctx, tx, l, dataVersion); err != nil {
		return err
	}
	return servedNow(ctx, tx, l, dataVersion)
}

// rollback records that the data version is wanted to serve that did before: the one that Before returned.
func (s stack) rollback(ctx context.Context, tx *sql.Tx, dataVersion string) error {
	if err := s.refuse(dataVersion); err != nil {
		return err
	}
	switch before, err := s.before(); {
	case err != nil:
		return err
	case before != dataVersion:
		return fmt.Errorf("%w: another data version serves meanwhile; look again", ErrRefused)
	}
	_, err := tx.ExecContext(ctx, `UPDATE promotions SET state = ? WHERE id = ?`, leaving, s[0].id)
	return err
}

// leave records that a data version serves no more after a rollback. One that serves, or is wanted to, is refused, unless it is the last one of its app: then
// readers see none.
func (s stack) leave(ctx context.Context, tx *sql.Tx, l Line, dataVersion string) error {
	if slices.Contains([]string{s.serving(), s.wanted()}, dataVersion) {
		others := 0
		err := tx.QueryRowContext(ctx, `SELECT count(*) FROM instances WHERE program = ? AND account = ? AND env = ? AND data_version <> ?`,
			l.Program, l.Account, l.Env, dataVersion).Scan(&others)
		if err != nil {
			return err
		}
		if others > 0 || s.serving() != s.wanted() { // readers' names are on their way to it
			return fmt.Errorf("%w: it serves; promote another data version first", ErrRefused)
		}
	}
	_, err := tx.ExecContext(ctx, `UPDATE promotions SET state = ? WHERE program = ? AND account = ? AND env = ? AND data_version = ?`,
		undone, l.Program, l.Account, l.Env, dataVersion)
	return err
}

// servedNow records that the data version serves that is wanted to. Of another one it records nothing.
func servedNow(ctx context.Context, tx *sql.Tx, l Line, dataVersion string) error {
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
}

// StartedBy is who had the newest run of an instance begin; system when nobody asked for it.
func (x *Instances) StartedBy(ctx context.Context, i Instance) (who string, err error) {
	err = x.db.QueryRowContext(ctx, `SELECT coalesce((SELECT json_extract(doc, '$.who') FROM operations WHERE id = jobs.operation), 'system') FROM jobs
		WHERE program = ? AND account = ? AND env = ? AND data_version = ? ORDER BY id DESC LIMIT 1`, i.Program, i.Account, i.Env, i.DataVersion).Scan(&who)
	if errors.Is(err, sql.ErrNoRows) {
		return "system", nil
	}
	if err != nil {
		return "", fmt.Errorf("find out who started %s: %w", i.UniqueID(), err)
	}
	return who, nil
}
