package control

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// ErrUnknownToken is matched by the errors for a token, or a name of one, that does not exist or was revoked.
var ErrUnknownToken = errors.New("unknown token")

// ErrTokenExists means that there is a token of the name already.
var ErrTokenExists = errors.New("there is a token of that name already")

// Token is the right of a program to read all tables of the lake.
type Token struct {
	ID      string // names the token without giving it away; set by Add
	Name    string
	Created time.Time // set by Add
}

// Tokens keeps tokens, as sensor keys are kept.
type Tokens struct {
	db      *sql.DB
	secrets *secrets[Token]
}

func newTokens(db *sql.DB) *Tokens {
	t := &Tokens{db: db}
	t.secrets = newSecrets("mrt_", t.read)
	return t
}

// Add makes a token and returns its secret, which cannot be had again. The error matches ErrTokenExists if the name is taken.
func (t *Tokens) Add(ctx context.Context, name string) (secret string, err error) {
	if !word.MatchString(name) {
		return "", fmt.Errorf("%q cannot name a token: use 1 to 64 letters, digits, _ and -, beginning with a letter or digit", name)
	}
	secret, id, hash := t.secrets.create()
	result, err := t.db.ExecContext(ctx, `INSERT INTO tokens (id, hash, name, created) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO NOTHING`,
		id, hash[:], name, time.Now().UnixMicro())
	if err != nil {
		return "", fmt.Errorf("add token %s: %w", name, err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return "", fmt.Errorf("add token %s: %w", name, err)
	}
	if n == 0 {
		return "", fmt.Errorf("add token %s: %w: revoke that one, or choose another", name, ErrTokenExists)
	}
	return secret, nil
}

// Lookup returns the token with the given secret, or ErrUnknownToken, as Keys.Lookup does.
func (t *Tokens) Lookup(ctx context.Context, secret string) (Token, error) {
	token, ok, err := t.secrets.lookup(ctx, secret)
	if err != nil {
		return Token{}, fmt.Errorf("look up a token: %w", err)
	}
	if !ok {
		return Token{}, ErrUnknownToken
	}
	return token, nil
}

func (t *Tokens) read(ctx context.Context) ([]hashed[Token], error) {
	rows, err := t.db.QueryContext(ctx, `SELECT id, hash, name, created FROM tokens ORDER BY created, id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []hashed[Token]
	for rows.Next() {
		var (
			found   hashed[Token]
			hash    []byte
			created int64
		)
		token := &found.value
		if err := rows.Scan(&token.ID, &hash, &token.Name, &created); err != nil {
			return nil, err
		}
		if err := found.setHash("token "+token.Name, hash); err != nil {
			return nil, err
		}
		token.Created = time.UnixMicro(created).UTC()
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
