package control

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Errors of users.
var (
	ErrUnknownUser    = errors.New("unknown user")
	ErrUserExists     = errors.New("there is a user of that name already")
	ErrWrongPassword  = errors.New("wrong name or password")
	ErrUnknownSession = errors.New("unknown session")
)

// User is a person with a password, or with an identity at an OpenID Connect provider.
type User struct {
	Name     string
	Role     Role
	Created  time.Time
	SignedIn time.Time // the last time; zero: never
	Disabled bool      // may not sign in
	Account  string    // the tenant that they are bound to, as tokens are; empty: they are not bound

	Issuer  string // of the provider; empty: they have a password
	Subject string // that the provider knows them by

	// Revision is another one, a larger one, after each change of what is decided about them: role, password, whether they may sign in. It begins with the
	// time at which they were added, so that somebody who is added again under the same name has none of before.
	Revision int64
}

// Sessions end when nobody has used them for IdleSession, and after LongestSession in any case.
const (
	IdleSession    = 12 * time.Hour
	LongestSession = 7 * 24 * time.Hour

	// sessionUsed is how exactly the last use of a session is kept.
	sessionUsed = 5 * time.Minute
)

// session is where a user is signed in.
type session struct {
	id          string
	user        User
	began, used time.Time
}

// Users keeps people, with argon2id hashes of their passwords, and where they are signed in, as SHA-256 of the sessions' secrets. What another process
// changes counts after five seconds at most.
type Users struct {
	db      *sql.DB
	secrets *secrets[session]
	now     func() time.Time

	mu   sync.Mutex
	used map[string]time.Time // by session, as it was written last
}

func newUsers(db *sql.DB) *Users {
	u := &Users{db: db, now: time.Now, used: map[string]time.Time{}}
	u.secrets = newSecrets("mrs_", u.readSessions)
	return u
}

// Add adds a user with a name, a role, and the account that they are bound to, if any. The error matches ErrUserExists, or ErrRefused and ErrInvalid when one of
// them, or the password, cannot be that.
func (u *Users) Add(ctx context.Context, user User, password string) error {
	return u.add(ctx, user, password, false)
}

// AddFirst adds the first user, an admin, and is refused when there is one.
func (u *Users) AddFirst(ctx context.Context, name, password string) error {
	return u.add(ctx, User{Name: name, Role: Admin}, password, true)
}

func (u *Users) add(ctx context.Context, user User, password string, first bool) error {
	if !word.MatchString(user.Name) {
		return invalid{fmt.Errorf("%w: %q cannot name a user: use 1 to 64 letters, digits, _ and -, beginning with a letter or digit", ErrRefused, user.Name)}
	}
	if user.Role < Viewer || user.Role > Admin {
		return invalid{fmt.Errorf("%w: user %s needs a role", ErrRefused, user.Name)}
	}
	if err := CheckAccount(user.Account, user.Role); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err := checkPassword(password); err != nil {
		return err
	}
	hash := hashPassword(password)
	err := transaction(ctx, u.db, func(tx *sql.Tx) error {
		if first {
			var n int
			if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM users`).Scan(&n); err != nil {
				return err
			}
			if n > 0 {
				return fmt.Errorf("%w: there is a user already: sign in, or ask an admin", ErrRefused)
			}
		}
		done, err := tx.ExecContext(ctx, `INSERT INTO users (name, password, role, account, created, revision) VALUES (?1, ?2, ?3, ?4, ?5, ?5) ON CONFLICT DO NOTHING`, user.Name, hash, user.Role, user.Account, u.now().UnixMicro())
		if err != nil {
			return err
		}
		return one(done, ErrUserExists)
	})
	if err != nil {
		return fmt.Errorf("add user %s: %w", user.Name, err)
	}
	return nil
}

// one returns an error unless a change was of one row.
func one(done sql.Result, none error) error {
	n, err := done.RowsAffected()
	if err == nil && n == 0 {
		err = none
	}
	return err
}

// List lists users by name.
func (u *Users) List(ctx context.Context) (all []User, err error) {
	rows, err := u.db.QueryContext(ctx, `SELECT `+userColumns+` FROM users ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		one, err := scanUser(rows)
		if err != nil {
			return nil, fmt.Errorf("list users: %w", err)
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

const userColumns = `name, role, account, created, signed_in, disabled, issuer, subject, revision`

func scanUser(row interface{ Scan(...any) error }) (u User, err error) {
	var created, signedIn int64
	err = row.Scan(&u.Name, &u.Role, &u.Account, &created, &signedIn, &u.Disabled, &u.Issuer, &u.Subject, &u.Revision)
	u.Created, u.SignedIn = time.UnixMicro(created).UTC(), fromMicro(signedIn)
	return u, err
}

// User returns the one of a name, or ErrUnknownUser.
func (u *Users) User(ctx context.Context, name string) (User, error) {
	one, err := scanUser(u.db.QueryRowContext(ctx, `SELECT `+userColumns+` FROM users WHERE name = ?`, name))
	if errors.Is(err, sql.ErrNoRows) {
		err = fmt.Errorf("%w: there is none with the name %q", ErrUnknownUser, name)
	} else if err != nil {
		err = fmt.Errorf("read user %s: %w", name, err)
	}
	return one, err
}

// fromMicro is a time since 1970, or zero for 0.
func fromMicro(t int64) time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.UnixMicro(t).UTC()
}

// SetRole gives a user another role. It is refused for the last admin who may sign in, as Disable and Delete are, and for whoever has an identity at
// a provider: that says their role. Whoever is bound to an account cannot be made an admin.
//
// The revisions of this and of the methods below are those of which the user must have one, as of whoever decided by what they had read; nil are all. The error
// is a StaleError when it has another.
func (u *Users) SetRole(ctx context.Context, name string, role Role, revisions []int64) error {
	if role < Viewer || role > Admin {
		return invalid{fmt.Errorf("%w: user %s needs a role", ErrRefused, name)}
	}
	return u.change(ctx, "change the role of", name, change{revisions: revisions, endsAdmin: role < Admin, local: true, bound: role}, `UPDATE users SET role = ? WHERE name = ?`, role, name)
}

// Disable keeps a user from signing in, and ends their sessions.
func (u *Users) Disable(ctx context.Context, name string, revisions []int64) error {
	err := u.change(ctx, "disable", name, change{revisions: revisions, endsAdmin: true}, `UPDATE users SET disabled = 1 WHERE name = ?`, name)
	if err == nil {
		err = u.endSessions(ctx, name)
	}
	return err
}

// Enable lets a user sign in again.
func (u *Users) Enable(ctx context.Context, name string, revisions []int64) error {
	return u.change(ctx, "enable", name, change{revisions: revisions}, `UPDATE users SET disabled = 0 WHERE name = ?`, name)
}

// Delete removes a user, and ends their sessions. Whoever has an identity at a provider comes back with their next sign-in, unless they are disabled in place
// of that.
func (u *Users) Delete(ctx context.Context, name string, revisions []int64) error {
	if err := u.change(ctx, "delete", name, change{revisions: revisions, endsAdmin: true}, `DELETE FROM users WHERE name = ?`, name); err != nil {
		return err
	}
	u.secrets.forgetAll()
	return nil
}

// SetPassword gives a user another password, and ends their sessions. It is refused for whoever has an identity at a provider.
func (u *Users) SetPassword(ctx context.Context, name, password string, revisions []int64) error {
	if err := checkPassword(password); err != nil {
		return err
	}
	err := u.change(ctx, "set the password of", name, change{revisions: revisions, local: true}, `UPDATE users SET password = ? WHERE name = ?`, hashPassword(password), name)
	if err == nil {
		err = u.endSessions(ctx, name)
	}
	return err
}

// change says whom a change of a user is refused for.
type change struct {
	revisions []int64 // who has none of them; nil: nobody

	endsAdmin bool // the last admin
	local     bool // who has an identity at a provider
	bound     Role // who is bound to an account, and could not be in that role
}

func (u *Users) change(ctx context.Context, what, name string, c change, query string, args ...any) error {
	err := transaction(ctx, u.db, func(tx *sql.Tx) error {
		is, err := scanUser(tx.QueryRowContext(ctx, `SELECT `+userColumns+` FROM users WHERE name = ?`, name))
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("%w: there is none with the name %q", ErrUnknownUser, name)
		}
		if err != nil {
			return err
		}
		if !seen(c.revisions, is.Revision) {
			return &StaleError{What: "user " + name, Present: is}
		}
		if is.Issuer != "" && c.local {
			return fmt.Errorf("%w: %s says their role and has their password; change it there, or disable the user here", ErrRefused, is.Issuer)
		}
		if err := CheckAccount(is.Account, c.bound); err != nil {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
		if is.Role == Admin && !is.Disabled && c.endsAdmin {
			var admins int
			if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM users WHERE role = ? AND NOT disabled`, Admin).Scan(&admins); err != nil {
				return err
			}
			if admins == 1 {
				return fmt.Errorf("%w: it is the last admin; make another one first", ErrRefused)
			}
		}
		if _, err := tx.ExecContext(ctx, query, args...); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE users SET revision = revision + 1 WHERE name = ?`, name)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s user %s: %w", what, name, err)
	}
	return nil
}

func (u *Users) endSessions(ctx context.Context, name string) error {
	if _, err := u.db.ExecContext(ctx, `DELETE FROM sessions WHERE user = ?`, name); err != nil {
		return fmt.Errorf("end the sessions of user %s: %w", name, err)
	}
	u.secrets.forgetAll()
	return nil
}

// SignIn begins a session for a user and returns its secret. The error is ErrWrongPassword for an unknown name, a wrong password, a user that has none, and
// one that is disabled, and takes as long for each.
func (u *Users) SignIn(ctx context.Context, name, password string) (secret string, err error) {
	user, old, err := u.check(ctx, name, password)
	if err != nil {
		return "", err
	}
	err = transaction(ctx, u.db, func(tx *sql.Tx) (err error) {
		if old {
			if _, err := tx.ExecContext(ctx, `UPDATE users SET password = ? WHERE name = ?`, hashPassword(password), name); err != nil {
				return err
			}
		}
		secret, err = u.begin(ctx, tx, user.Name)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("sign in: %w", err)
	}
	return secret, nil
}

// begin begins a session of a user, and removes those that have ended.
func (u *Users) begin(ctx context.Context, tx *sql.Tx, name string) (secret string, err error) {
	secret, id, hash := u.secrets.create()
	now := u.now()
	if _, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE began < ? OR used < ?`, now.Add(-LongestSession).UnixMicro(), now.Add(-IdleSession).UnixMicro()); err != nil {
		return "", err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE users SET signed_in = ? WHERE name = ?`, now.UnixMicro(), name); err != nil {
		return "", err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO sessions (id, hash, user, began, used) VALUES (?, ?, ?, ?, ?)`, id, hash[:], name, now.UnixMicro(), now.UnixMicro())
	return secret, err
}

// Check returns an error unless a password is that of a user who may sign in.
func (u *Users) Check(ctx context.Context, name, password string) error {
	_, _, err := u.check(ctx, name, password)
	return err
}

// check finds the user of a name and a password, and whether the hash should be made anew.
func (u *Users) check(ctx context.Context, name, password string) (user User, old bool, err error) {
	hash := nobody
	err = u.db.QueryRowContext(ctx, `SELECT name, password, role, disabled FROM users WHERE name = ? AND issuer = ''`, name).Scan(&user.Name, &hash, &user.Role, &user.Disabled)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return user, false, fmt.Errorf("sign in: %w", err)
	}
	if len(password) > mostPassword {
		password = ""
	}
	ok, old, hashErr := matches(password, hash)
	if hashErr != nil {
		return user, false, fmt.Errorf("the password of user %s: %w; set it again with 'millrace user password'", name, hashErr)
	}
	if err != nil || !ok || user.Disabled {
		return User{}, false, ErrWrongPassword
	}
	return user, old, nil
}

// Session returns the user who is signed in with a secret, with name, role, account and issuer, or ErrUnknownSession.
func (u *Users) Session(ctx context.Context, secret string) (User, error) {
	s, ok, err := u.secrets.lookup(ctx, secret)
	if err != nil {
		return User{}, fmt.Errorf("look up a session: %w", err)
	}
	now := u.now()
	u.mu.Lock()
	used := s.used
	if later := u.used[s.id]; later.After(used) {
		used = later
	}
	u.mu.Unlock()
	if !ok || s.user.Disabled || now.Sub(s.began) >= LongestSession || now.Sub(used) >= IdleSession {
		return User{}, ErrUnknownSession
	}
	if now.Sub(used) >= sessionUsed {
		// That it was used is not worth refusing who did when it cannot be written: the next use tries again.
		if _, err := u.db.ExecContext(ctx, `UPDATE sessions SET used = ? WHERE id = ?`, now.UnixMicro(), s.id); err == nil {
			u.mu.Lock()
			u.used[s.id] = now
			u.mu.Unlock()
		}
	}
	return s.user, nil
}

// SignOut ends a session. One that is unknown has ended.
func (u *Users) SignOut(ctx context.Context, secret string) error {
	s, ok, err := u.secrets.lookup(ctx, secret)
	if err != nil || !ok {
		return err
	}
	if _, err := u.db.ExecContext(ctx, `DELETE FROM sessions WHERE id = ?`, s.id); err != nil {
		return fmt.Errorf("sign out: %w", err)
	}
	u.secrets.forget(s.id)
	u.mu.Lock()
	delete(u.used, s.id)
	u.mu.Unlock()
	return nil
}

func (u *Users) readSessions(ctx context.Context) (all []hashed[session], err error) {
	rows, err := u.db.QueryContext(ctx, `SELECT id, hash, began, used, name, role, account, disabled, issuer FROM sessions JOIN users ON name = user ORDER BY began, id`)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var found hashed[session]
		var hash []byte
		var began, used int64
		s := &found.value
		if err := rows.Scan(&s.id, &hash, &began, &used, &s.user.Name, &s.user.Role, &s.user.Account, &s.user.Disabled, &s.user.Issuer); err != nil {
			return nil, err
		}
		if err := found.setHash("session "+s.id, hash); err != nil {
			return nil, err
		}
		s.began, s.used = time.UnixMicro(began), time.UnixMicro(used)
		all = append(all, found)
	}
	return all, rows.Err()
}
