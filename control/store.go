package control

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	_ "modernc.org/sqlite" // the driver
)

// Store is the SQLite file that has all that operators decide. Several processes may have it open: the one that serves, and the command
// line. Each write is a transaction of its own, and one writes at a time. It is safe for concurrent use.
type Store struct {
	db *sql.DB

	Keys      *Keys
	Tokens    *Tokens
	Instances *Instances
	Runs      *Runs
	Audit     *Audit
	Deploys   *Deploys
	Users     *Users
}

// Open opens the file at path, brings it up to this program's schema, and makes it when there is none, for its owner alone. What it was before
// a migration is kept beside it, as path.v<schema>. A damaged file is an error that says so, as is one of a newer program. Close the store
// after use.
func Open(path string) (*Store, error) {
	// SQLite gives the files that it puts beside this one the same mode.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("open control store: %w", err)
	}
	pragmas := url.Values{"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(5000)", "foreign_keys(1)"}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: pragmas.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open control store %s: %w", path, err)
	}
	db.SetMaxOpenConns(1)
	err = integrity(db)
	if err == nil {
		err = migrate(db, path)
	}
	if err != nil {
		return nil, errors.Join(openError(path, err), db.Close())
	}
	s := &Store{db: db, Keys: newKeys(db), Tokens: newTokens(db), Instances: &Instances{db}, Runs: &Runs{db}, Audit: &Audit{db}, Deploys: &Deploys{db}, Users: newUsers(db)}
	return s, nil
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

// Copy copies the file as it is at one moment, also while others write to it. The copy appears when it is whole.
func (s *Store) Copy(path string) error {
	if err := keepCopy(s.db, path); err != nil {
		return fmt.Errorf("copy the control store to %s: %w", path, err)
	}
	return nil
}

// integrity looks for damage: SQLite only finds what it comes by. The file is small, and the check takes no longer than to read it.
func integrity(db *sql.DB) error {
	var found string
	if err := db.QueryRow("PRAGMA integrity_check(1)").Scan(&found); err != nil {
		return err
	}
	if found != "ok" {
		return fmt.Errorf("%w: %s", errDamaged, strings.Join(strings.Fields(found), " "))
	}
	return nil
}

// migrate runs the migrations that the file has not had, all or none of them.
func migrate(db *sql.DB, path string) (err error) {
	ctx := context.Background()
	var has, tables int
	if err := db.QueryRow("PRAGMA user_version").Scan(&has); err != nil {
		return err
	}
	switch {
	case has == len(migrations):
		return nil
	case has > len(migrations):
		return fmt.Errorf("it has schema %d, and this program knows %d: use the program that wrote it, or a newer one", has, len(migrations))
	}
	if err := db.QueryRow("SELECT count(*) FROM sqlite_master").Scan(&tables); err != nil {
		return err
	}
	if tables > 0 {
		if err := keepCopy(db, fmt.Sprintf("%s.v%d", path, has)); err != nil {
			return fmt.Errorf("keep a copy before its schema changes: %w", err)
		}
	}
	return transaction(ctx, db, func(tx *sql.Tx) error {
		if err := tx.QueryRow("PRAGMA user_version").Scan(&has); err != nil { // another process may have been first
			return err
		}
		for ; has < len(migrations); has++ {
			if _, err := tx.Exec(migrations[has]); err != nil {
				return fmt.Errorf("bring it from schema %d to %d: %w", has, has+1, err)
			}
		}
		_, err := tx.Exec(fmt.Sprintf("PRAGMA user_version = %d", len(migrations)))
		return err
	})
}

// keepCopy copies the database into a file, which appears when it is whole.
func keepCopy(db *sql.DB, path string) error {
	tmp := path + ".tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if _, err := db.Exec("VACUUM INTO ?", tmp); err != nil {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o600), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func transaction(ctx context.Context, db *sql.DB, fn func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // nothing to do after a commit
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}

var errDamaged = errors.New("the check failed")

func openError(path string, err error) error {
	var coded interface{ Code() int }
	if errors.Is(err, errDamaged) || errors.As(err, &coded) && (coded.Code()&0xff == 11 || coded.Code()&0xff == 26) { // SQLITE_CORRUPT, SQLITE_NOTADB
		return fmt.Errorf("control store %s is damaged: restore the file from a backup: %w", path, err)
	}
	return fmt.Errorf("open control store %s: %w", path, err)
}
