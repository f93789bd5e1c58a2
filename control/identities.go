package control

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
)

// Identity is what an OpenID Connect provider says of a person, when it has been verified.
type Identity struct {
	// Who they are: nobody else has both, ever (OpenID Connect Core 1.0, section 5.7).
	Issuer, Subject string

	// What they may be called here, the best first. A name says nothing about who they are: it is not the provider's to give away.
	Names []string

	Role    Role   // 0: none
	Account string // that they are bound to; empty: to none
}

// Entrance is what came of the sign-in of an Identity.
type Entrance struct {
	Secret string // of the session
	User   User   // with name, role and account
	Was    Role   // that they had before; 0: they are new
	WasOf  string // account that they were bound to before
}

// identityName is what a user with an identity may be called: what providers use as names of accounts, addresses of e-mail included.
var identityName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@+-]{0,253}$`)

// SignInAs begins a session for whom a provider has identified. Somebody new becomes a user, under the first of their names that can be one; whoever is
// known keeps their name and has the role and the account that the provider says now, in their other sessions too. The last admin may lose it that way: it is the provider's to say.
//
// The error matches ErrRefused for a user that is disabled, and for somebody new whose name is somebody else's, or who has none. A user with a password is never taken over.
func (u *Users) SignInAs(ctx context.Context, id Identity) (in Entrance, err error) {
	if id.Issuer == "" || id.Subject == "" || id.Role < Viewer || id.Role > Admin {
		return in, fmt.Errorf("sign in: %w: an identity needs issuer, subject and role", ErrRefused)
	}
	if err := CheckAccount(id.Account, id.Role); err != nil {
		return in, fmt.Errorf("sign in: %w: %w", ErrRefused, err)
	}
	err = transaction(ctx, u.db, func(tx *sql.Tx) (err error) {
		var was User
		if in.User, was, err = u.identified(ctx, tx, id); err != nil {
			return err
		}
		in.Was, in.WasOf = was.Role, was.Account
		in.Secret, err = u.begin(ctx, tx, in.User.Name)
		return err
	})
	if err != nil {
		return Entrance{}, fmt.Errorf("sign in: %w", err)
	}
	if in.Was != id.Role || in.WasOf != id.Account {
		u.secrets.forgetAll() // sessions that are in memory have those of before
	}
	return in, nil
}

// identified finds the user of an identity, or makes them, and gives them their role and account. was is what they had of the two.
func (u *Users) identified(ctx context.Context, tx *sql.Tx, id Identity) (user, was User, err error) {
	user = User{Role: id.Role, Account: id.Account, Issuer: id.Issuer, Subject: id.Subject}
	err = tx.QueryRowContext(ctx, `SELECT name, role, account, disabled FROM users WHERE issuer = ? AND subject = ?`, id.Issuer, id.Subject).Scan(&user.Name, &was.Role, &was.Account, &user.Disabled)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		user.Name, err = u.addIdentity(ctx, tx, id)
		return user, User{}, err
	case err != nil:
		return user, User{}, err
	case user.Disabled:
		return user, User{}, fmt.Errorf("%w: the user %s may not sign in here: an admin has disabled it, and lets you in again with 'millrace user enable %s'", ErrRefused, user.Name, user.Name)
	}
	_, err = tx.ExecContext(ctx, `UPDATE users SET role = ?1, account = ?2, revision = revision + (role <> ?1 OR account <> ?2) WHERE name = ?3`, id.Role, id.Account, user.Name)
	return user, was, err
}

func (u *Users) addIdentity(ctx context.Context, tx *sql.Tx, id Identity) (name string, err error) {
	for _, n := range id.Names {
		if identityName.MatchString(n) {
			name = n
			break
		}
	}
	if name == "" {
		return "", fmt.Errorf("%w: the provider %s says no name of you that can be one here: ask its admin to send one in preferred_username, of 1 to 254 letters, digits and . _ @ + -", ErrRefused, id.Issuer)
	}
	var issuer string
	switch err := tx.QueryRowContext(ctx, `SELECT issuer FROM users WHERE name = ?`, name).Scan(&issuer); {
	case err == nil && issuer == "":
		return "", fmt.Errorf("%w: there is a user %s here who signs in with a password, and is not taken for you: if it is you, ask an admin to delete that user ('millrace user delete %s'), then sign in here again",
			ErrRefused, name, name)
	case err == nil:
		return "", fmt.Errorf("%w: somebody else of %s is the user %s here: if they have gone, ask an admin to delete that user ('millrace user delete %s'), then sign in here again", ErrRefused, issuer, name, name)
	case !errors.Is(err, sql.ErrNoRows):
		return "", err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO users (name, password, role, account, created, revision, issuer, subject) VALUES (?1, '', ?2, ?3, ?4, ?4, ?5, ?6)`, name, id.Role, id.Account, u.now().UnixMicro(), id.Issuer, id.Subject)
	return name, err
}

// SignOutAs ends all sessions of whom a provider has identified: it says that they have no role any more. Somebody who is unknown has none.
func (u *Users) SignOutAs(ctx context.Context, issuer, subject string) error {
	var name string
	err := u.db.QueryRowContext(ctx, `SELECT name FROM users WHERE issuer = ? AND subject = ?`, issuer, subject).Scan(&name)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find a user of %s: %w", issuer, err)
	}
	return u.endSessions(ctx, name)
}
