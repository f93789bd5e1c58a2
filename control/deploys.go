package control

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"millrace/plan"
)

// Artifact is a version of an app that was pushed: it can be deployed.
type Artifact struct {
	App      string    `json:"app"`
	Version  string    `json:"version"`
	Platform string    `json:"platform"`
	SHA256   string    `json:"sha256"` // of the executable
	Bytes    int64     `json:"bytes"`  // of it
	Commit   string    `json:"commit,omitempty"`
	Modified bool      `json:"modified,omitempty"` // the source was not that of the commit
	Built    time.Time `json:"built"`
	Pushed   time.Time `json:"pushed"` // set by Push
	PushedBy string    `json:"pushed_by"`

	// What was deleted is kept as a record alone: a version stands for what it did, and rows name it.
	Deleted   time.Time `json:"deleted,omitzero"`
	DeletedBy string    `json:"deleted_by,omitempty"`

	Descriptor Descriptor       `json:"descriptor"`
	Plan       plan.Description `json:"plan"`
}

// Deploy is a decision for a version of an app: what is started or upgraded from then on is that version. It restarts nothing.
type Deploy struct {
	ID       int64     `json:"id"`
	Stack    string    `json:"stack,omitempty"` // what it was called then
	App      string    `json:"app"`
	Version  string    `json:"version"`
	Before   string    `json:"before"` // the version that was deployed until then; empty: none
	At       time.Time `json:"at"`
	Who      string    `json:"who"`
	Reason   string    `json:"reason,omitempty"`
	Rollback bool      `json:"rollback,omitempty"` // to what was deployed before
	Past     []int64   `json:"past,omitempty"`     // blockers that it was made in spite of

	// Starts is the operation that starts the instance of a singleton which had none. It is of the answer, and not recorded here.
	Starts int64 `json:"starts,omitempty"`
}

// Blocker keeps versions from being deployed while it lasts.
type Blocker struct {
	ID       int64     `json:"id"`
	App      string    `json:"app,omitempty"` // that it is for; empty: all
	Reason   string    `json:"reason"`
	Who      string    `json:"who"`
	From     time.Time `json:"from"`
	Until    time.Time `json:"until,omitzero"` // zero: until it is lifted
	Lifted   time.Time `json:"lifted,omitzero"`
	LiftedBy string    `json:"lifted_by,omitempty"`
}

// Holds reports whether it has neither ended nor been lifted at a time.
func (b Blocker) Holds(at time.Time) bool {
	return b.Lifted.IsZero() && (b.Until.IsZero() || at.Before(b.Until))
}

// blocks reports whether it keeps versions of an app from being deployed at a time.
func (b Blocker) blocks(app string, at time.Time) bool {
	return (b.App == "" || b.App == app) && b.Holds(at)
}

// Errors of deploys.
var (
	ErrUnknownArtifact = errors.New("unknown version")
	ErrUnknownBlocker  = errors.New("unknown blocker")
)

// Deploys keeps artifacts, deploys and blockers.
type Deploys struct{ db *sql.DB }

// Push adds an artifact. One that is there already, with the same executable, stays as it is; with another one it is refused, because a version
// stands for what it did, also once it is deleted.
func (d *Deploys) Push(ctx context.Context, a Artifact) (Artifact, error) {
	err := transaction(ctx, d.db, func(tx *sql.Tx) error {
		was, known, err := pushed(ctx, tx, a.App, a.Version)
		switch {
		case err != nil:
			return err
		case known && was.SHA256 != a.SHA256:
			return fmt.Errorf("%w: version %s was pushed by %s already, with another executable; give this one a version of its own", ErrRefused, a.Version, was.PushedBy)
		case known && was.Deleted.IsZero():
			a = was
			return nil
		}
		a.Pushed = time.Now().UTC()
		return putArtifact(ctx, tx, a)
	})
	if err != nil {
		return a, fmt.Errorf("push %s %s: %w", a.App, a.Version, err)
	}
	return a, nil
}

// Artifacts lists artifacts, the newest first.
func (d *Deploys) Artifacts(ctx context.Context) ([]Artifact, error) {
	all, err := docs[Artifact](ctx, d.db, `SELECT 0, doc FROM artifacts ORDER BY pushed DESC, app, version`)
	if err != nil {
		return nil, fmt.Errorf("list artifacts: %w", err)
	}
	return slices.DeleteFunc(all, func(a Artifact) bool { return !a.Deleted.IsZero() }), nil
}

// Artifact returns one, or ErrUnknownArtifact.
func (d *Deploys) Artifact(ctx context.Context, app, version string) (a Artifact, err error) {
	err = transaction(ctx, d.db, func(tx *sql.Tx) error {
		a, err = artifact(ctx, tx, app, version)
		return err
	})
	return a, err
}

func artifact(ctx context.Context, tx *sql.Tx, app, version string) (Artifact, error) {
	a, known, err := pushed(ctx, tx, app, version)
	switch {
	case err != nil:
		return a, err
	case !known:
		return a, fmt.Errorf("%w: %s %s was not pushed; 'millrace build list' lists what was", ErrUnknownArtifact, app, version)
	case !a.Deleted.IsZero():
		return a, fmt.Errorf("%w: %s %s was deleted by %s at %s; push it again", ErrUnknownArtifact, app, version, a.DeletedBy, a.Deleted.Format(time.RFC3339))
	}
	return a, nil
}

// pushed is an artifact that was pushed at some time, and may be deleted.
func pushed(ctx context.Context, tx *sql.Tx, app, version string) (a Artifact, known bool, err error) {
	var doc []byte
	err = tx.QueryRowContext(ctx, `SELECT doc FROM artifacts WHERE app = ? AND version = ?`, app, version).Scan(&doc)
	if errors.Is(err, sql.ErrNoRows) {
		return a, false, nil
	}
	if err == nil {
		err = json.Unmarshal(doc, &a)
	}
	return a, err == nil, err
}

func putArtifact(ctx context.Context, tx *sql.Tx, a Artifact) error {
	doc, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO artifacts (app, version, pushed, doc) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET pushed = excluded.pushed, doc = excluded.doc`,
		a.App, a.Version, a.Pushed.UnixMicro(), string(doc))
	return err
}

// Deletion is what an artifact is asked to be deleted with.
type Deletion struct {
	App, Version, Who string

	Shipped string // the version that the program itself has of the app; empty: none

	// Needs returns why something that the store does not know of needs the version. Default: nothing does.
	Needs func() error
}

// Delete takes an artifact from those that can be deployed; its files are the caller's to remove, once it has succeeded. It is refused while the version is
// deployed, an instance is of it, its job runs, or an operation leads to it or may return to it.
func (d *Deploys) Delete(ctx context.Context, c Deletion) (a Artifact, err error) {
	err = transaction(ctx, d.db, func(tx *sql.Tx) error {
		if a, err = artifact(ctx, tx, c.App, c.Version); err != nil {
			return err
		}
		if err := needed(ctx, tx, c); err != nil {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
		if c.Needs != nil {
			if err := c.Needs(); err != nil {
				return err
			}
		}
		a.Deleted, a.DeletedBy = time.Now().UTC(), c.Who
		return putArtifact(ctx, tx, a)
	})
	if err != nil {
		return a, fmt.Errorf("delete version %s of %s: %w", c.Version, c.App, err)
	}
	return a, nil
}

// needed returns what needs a version, and what to do about it.
func needed(ctx context.Context, tx *sql.Tx, c Deletion) error {
	all, err := deploys(ctx, tx, c.App)
	if err != nil {
		return err
	}
	if now := deployed(all, c.Shipped); now == c.Version {
		return errors.New("it is deployed; deploy another one first")
	}
	var dataVersion string
	var id int64
	switch err := tx.QueryRowContext(ctx, `SELECT data_version FROM instances WHERE program = ? AND version = ? ORDER BY created`, c.App, c.Version).Scan(&dataVersion); {
	case err == nil:
		return fmt.Errorf("data version %s is of it; upgrade or delete that first", dataVersion)
	case !errors.Is(err, sql.ErrNoRows):
		return err
	}
	switch err := tx.QueryRowContext(ctx, `SELECT id, data_version FROM operations WHERE program = ?1 AND NOT ended AND ?2 IN (doc ->> 'before', doc ->> 'version') ORDER BY id`, c.App, c.Version).Scan(&id, &dataVersion); {
	case err == nil:
		return fmt.Errorf("operation %d on data version %s may run it; wait until that has ended", id, dataVersion)
	case !errors.Is(err, sql.ErrNoRows):
		return err
	}
	switch err := tx.QueryRowContext(ctx, `SELECT data_version FROM jobs WHERE program = ? AND version = ? AND ended IS NULL ORDER BY id`, c.App, c.Version).Scan(&dataVersion); {
	case err == nil:
		return fmt.Errorf("the job of data version %s runs it; wait until that has ended", dataVersion)
	case !errors.Is(err, sql.ErrNoRows):
		return err
	}
	return nil
}

// Choice is what a version of an app is asked to be deployed with.
type Choice struct {
	App, Version string
	By
	Shipped string // the version that the program itself has of the app; empty: none
	Past    bool   // also when a blocker is against it

	// Revisions are IDs of deploys of the app, of which one must be the newest, 0 while there is none. The error is a StaleError when none
	// is. Default: any.
	Revisions []int64
}

// Deploy makes a version the one that is deployed. It is refused while a blocker is against it.
func (d *Deploys) Deploy(ctx context.Context, c Choice) (Deploy, error) {
	return d.decide(ctx, c, func(tx *sql.Tx, now string) (string, error) {
		if c.Version != c.Shipped {
			if _, err := artifact(ctx, tx, c.App, c.Version); err != nil {
				return "", err
			}
		}
		if c.Version == now {
			return "", fmt.Errorf("%w: it is deployed already", ErrRefused)
		}
		return c.Version, nil
	})
}

// Rollback deploys what was deployed before the version that is.
func (d *Deploys) Rollback(ctx context.Context, c Choice) (Deploy, error) {
	return d.decide(ctx, c, func(tx *sql.Tx, _ string) (string, error) {
		all, err := deploys(ctx, tx, c.App)
		if err != nil {
			return "", err
		}
		version, ok := before(all)
		if !ok || version == "" { // of an app that was pushed, the first one
			return "", fmt.Errorf("%w: nothing was deployed before", ErrRefused)
		}
		if version != c.Shipped {
			_, err = artifact(ctx, tx, c.App, version)
		}
		return version, err
	})
}

// before is what was deployed before what is, of deploys with the newest first. Rollbacks take back the ones before them, one each.
func before(all []Deploy) (version string, ok bool) {
	back := 0
	for _, d := range all {
		switch {
		case d.Rollback:
			back++
		case back > 0:
			back--
		default:
			return d.Before, true
		}
	}
	return "", false
}

func (d *Deploys) decide(ctx context.Context, c Choice, version func(tx *sql.Tx, now string) (string, error)) (out Deploy, err error) {
	err = transaction(ctx, d.db, func(tx *sql.Tx) error {
		all, err := deploys(ctx, tx, c.App)
		if err != nil {
			return err
		}
		out = Deploy{App: c.App, At: time.Now().UTC(), Who: c.Who, Reason: c.Reason, Rollback: c.Version == ""}
		newest := Deploy{App: c.App, Version: c.Shipped}
		if len(all) > 0 {
			newest = all[0]
		}
		if !seen(c.Revisions, newest.ID) {
			return &StaleError{What: "which version of " + c.App + " is deployed", Present: newest}
		}
		stack, err := stackOf(ctx, tx)
		if err != nil {
			return err
		}
		out.Stack, out.Before = stack.Name, newest.Version
		if out.Version, err = version(tx, out.Before); err != nil {
			return err
		}
		against, err := blockers(ctx, tx)
		if err != nil {
			return err
		}
		for _, b := range against {
			if !b.blocks(c.App, out.At) {
				continue
			}
			if !c.Past {
				return fmt.Errorf("%w: blocker %d of %s is against it: %s; it ends %s", ErrRefused, b.ID, b.Who, b.Reason, b.end())
			}
			out.Past = append(out.Past, b.ID)
		}
		doc, err := json.Marshal(out)
		if err != nil {
			return err
		}
		done, err := tx.ExecContext(ctx, `INSERT INTO deploys (app, doc) VALUES (?, ?)`, c.App, string(doc))
		if err == nil {
			out.ID, err = done.LastInsertId()
		}
		return err
	})
	if err != nil {
		return out, fmt.Errorf("deploy %s: %w", strings.TrimSpace(c.App+" "+c.Version), err)
	}
	return out, nil
}

func (b Blocker) end() string {
	if b.Until.IsZero() {
		return "when it is lifted"
	}
	return "at " + b.Until.Format(time.RFC3339)
}

// List returns the deploys of an app, the newest first.
func (d *Deploys) List(ctx context.Context, app string) (all []Deploy, err error) {
	err = transaction(ctx, d.db, func(tx *sql.Tx) error {
		all, err = deploys(ctx, tx, app)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list deploys of %s: %w", app, err)
	}
	return all, nil
}

// Deployed is the version of an app that is deployed: shipped, the program's own, until another one was; empty: none.
func (d *Deploys) Deployed(ctx context.Context, app, shipped string) (string, error) {
	all, err := d.List(ctx, app)
	return deployed(all, shipped), err
}

// deployed is the version that is, of deploys with the newest first.
func deployed(all []Deploy, shipped string) string {
	if len(all) == 0 {
		return shipped
	}
	return all[0].Version
}

func deploys(ctx context.Context, tx *sql.Tx, app string) ([]Deploy, error) {
	return docs[Deploy](ctx, tx, `SELECT id, doc FROM deploys WHERE app = ? ORDER BY id DESC`, app)
}

// Block adds a blocker, from now on.
func (d *Deploys) Block(ctx context.Context, b Blocker) (Blocker, error) {
	b.From = time.Now().UTC()
	if !b.Until.IsZero() && !b.Until.After(b.From) {
		return b, fmt.Errorf("%w: the blocker would have ended at %s", ErrRefused, b.Until.Format(time.RFC3339))
	}
	doc, err := json.Marshal(b)
	if err != nil {
		return b, err
	}
	done, err := d.db.ExecContext(ctx, `INSERT INTO blockers (doc) VALUES (?)`, string(doc))
	if err == nil {
		b.ID, err = done.LastInsertId()
	}
	if err != nil {
		return b, fmt.Errorf("add a blocker: %w", err)
	}
	return b, nil
}

// Lift ends a blocker. One that has ended stays as it is.
func (d *Deploys) Lift(ctx context.Context, id int64, who string) (b Blocker, err error) {
	err = transaction(ctx, d.db, func(tx *sql.Tx) error {
		all, err := docs[Blocker](ctx, tx, `SELECT id, doc FROM blockers WHERE id = ?`, id)
		if err != nil {
			return err
		}
		if len(all) == 0 {
			return fmt.Errorf("%w: there is none with the number %d; 'millrace blocker list' lists them", ErrUnknownBlocker, id)
		}
		if b = all[0]; !b.Lifted.IsZero() {
			return nil
		}
		b.Lifted, b.LiftedBy = time.Now().UTC(), who
		doc, err := json.Marshal(b)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE blockers SET doc = ? WHERE id = ?`, string(doc), id)
		return err
	})
	if err != nil {
		return b, fmt.Errorf("lift blocker %d: %w", id, err)
	}
	return b, nil
}

// Blockers lists all blockers, the newest first.
func (d *Deploys) Blockers(ctx context.Context) (all []Blocker, err error) {
	err = transaction(ctx, d.db, func(tx *sql.Tx) error {
		all, err = blockers(ctx, tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list blockers: %w", err)
	}
	return all, nil
}

func blockers(ctx context.Context, tx *sql.Tx) ([]Blocker, error) {
	return docs[Blocker](ctx, tx, `SELECT id, doc FROM blockers ORDER BY id DESC`)
}

// docs reads rows of id and doc.
func docs[T Artifact | Deploy | Blocker](ctx context.Context, db interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}, query string, args ...any,
) (all []T, err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id int64
		var doc []byte
		var one T
		if err := rows.Scan(&id, &doc); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(doc, &one); err != nil {
			return nil, err
		}
		switch one := any(&one).(type) {
		case *Deploy:
			one.ID = id
		case *Blocker:
			one.ID = id
		}
		all = append(all, one)
	}
	return all, rows.Err()
}
