package control

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrUnknownToken is matched by the errors for a token, or a name of one, that does not exist or was revoked.
var ErrUnknownToken = errors.New("unknown token")

// ErrTokenExists means that there is a token of the name already.
var ErrTokenExists = errors.New("there is a token of that name already")

// Token is the right of a program, or of a person, to do what a role may.
type Token struct {
	ID      string // names the token without giving it away; set by Add
	Name    string
	Role    Role
	Account string    // the tenant that it is bound to: it sees nothing of another one; empty: it is not bound
	Expires time.Time // it is unknown from then on; zero: never
	Created time.Time // set by Add
	Used    time.Time // the last time, to the hour; zero: never
}

// Tokens keeps tokens, as sensor keys are kept.
type Tokens struct {
	db      *sql.DB
	secrets *secrets[Token]

	mu   sync.Mutex
	used map[string]time.Time // by id, as it was written last
}

func newTokens(db *sql.DB) *Tokens {
	t := &Tokens{db: db, used: map[string]time.Time{}}
	t.secrets = newSecrets("mrt_", t.read)
	return t
}

// System is the account of the apps that serve all tenants. It is no tenant: no token is bound to it.
const System = "system"

// CheckAccount returns an error unless somebody of a role can be bound to an account. There need be nothing of it yet.
func CheckAccount(account string, role Role) error {
	switch {
	case account == "":
		return nil
	case !word.MatchString(account):
		return invalid{fmt.Errorf("account %q is not a word: use 1 to 64 letters, digits, _ and -, beginning with a letter or digit, as the sensor keys of the account do", account)}
	case account == System:
		return invalid{fmt.Errorf("account %s is that of the apps that serve all accounts: name the account of a tenant, or none", System)}
	case role >= Admin:
		return invalid{fmt.Errorf("an admin is not bound to an account: choose the role %s or less, or leave account %s out", Operator, account)}
	}
	return nil
}

// Add makes a token and returns its secret, which cannot be had again. The error matches ErrTokenExists if the name is taken, and ErrInvalid if there can be no
// such token. A token of an admin is not bound to an account: what admins do concerns all.
func (t *Tokens) Add(ctx context.Context, token Token) (secret string, err error) {
	switch {
	case !word.MatchString(token.Name):
		return "", invalid{fmt.Errorf("%q cannot name a token: use 1 to 64 letters, digits, _ and -, beginning with a letter or digit", token.Name)}
	case token.Role < Viewer || token.Role > Admin:
		return "", invalid{fmt.Errorf("token %s needs a role", token.Name)}
	case !token.Expires.IsZero() && !token.Expires.After(time.Now()):
		return "", invalid{fmt.Errorf("token %s would have expired before it was made", token.Name)}
	}
	if err := CheckAccount(token.Account, token.Role); err != nil {
		return "", fmt.Errorf("add token %s: %w", token.Name, err)
	}
	expires := int64(0)
	if !token.Expires.IsZero() {
		expires = token.Expires.UnixMicro()
	}
	secret, id, hash := t.secrets.create()
	result, err := t.db.ExecContext(ctx, `INSERT INTO tokens (id, hash, name, role, account, expires, created) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING`,
		id, hash[:], token.Name, token.Role, token.Account, expires, time.Now().UnixMicro())
	if err != nil {
		return "", fmt.Errorf("add token %s: %w", token.Name, err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return "", fmt.Errorf("add token %s: %w", token.Name, err)
	}
	if n == 0 {
		return "", fmt.Errorf("add token %s: %w: revoke that one, or choose another", token.Name, ErrTokenExists)
	}
	return secret, nil
}

// Lookup returns the token with the given secret, or ErrUnknownToken, as Keys.Lookup does. One that has expired is unknown.
func (t *Tokens) Lookup(ctx context.Context, secret string) (Token, error) {
	token, ok, err := t.secrets.lookup(ctx, secret)
	if err != nil {
		return Token{}, fmt.Errorf("look up a token: %w", err)
	}
	now := time.Now()
	if !ok || !token.Expires.IsZero() && !now.Before(token.Expires) {
		return Token{}, ErrUnknownToken
	}
	t.use(ctx, token.ID, now)
	return token, nil
}

// use notes when a token was used, once an hour. That is not worth refusing who shows it when it fails: the next use tries again.
func (t *Tokens) use(ctx context.Context, id string, now time.Time) {
	hour := now.Truncate(time.Hour)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.used[id].Equal(hour) {
		return
	}
	if _, err := t.db.ExecContext(ctx, `UPDATE tokens SET used = ? WHERE id = ?`, hour.UnixMicro(), id); err == nil {
		t.used[id] = hour
	}
}

func (t *Tokens) read(ctx context.Context) ([]hashed[Token], error) {
	rows, err := t.db.QueryContext(ctx, `SELECT id, hash, name, role, account, expires, used, created FROM tokens ORDER BY created, id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []hashed[Token]
	for rows.Next() {
		var (
			found                  hashed[Token]
			hash                   []byte
			created, expires, used int64
		)
		token := &found.value
		if err := rows.Scan(&token.ID, &hash, &token.Name, &token.Role, &token.Account, &expires, &used, &created); err != nil {
			return nil, err
		}
		if err := found.setHash("token "+token.Name, hash); err != nil {
			return nil, err
		}
		token.Created = time.UnixMicro(created).UTC()
		if expires != 0 {
			token.Expires = time.UnixMicro(expires).UTC()
		}
		if used != 0 {
			token.Used = time.UnixMicro(used).UTC()
		}
		all = append(all, found)
	}
	return all, rows.Err()
}

// List returns all tokens, oldest first.
func (t *Tokens) List(ctx context.Context) ([]Token, error) {
	all, err := t.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	tokens := make([]Token, len(all))
	for i := range all {
		tokens[i] = all[i].value
	}
	return tokens, nil
}

// Revoke ends the token of a name, or returns ErrUnknownToken.
func (t *Tokens) Revoke(ctx context.Context, name string) error {
	var id string
	err := t.db.QueryRowContext(ctx, `DELETE FROM tokens WHERE name = ? RETURNING id`, name).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%w: there is none with the name %q", ErrUnknownToken, name)
	}
	if err != nil {
		return fmt.Errorf("revoke token %s: %w", name, err)
	}
	t.secrets.forget(id)
	return nil
}
